// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands that show what nodes say and do.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use dvs_api::LOG_LINES_MAX;

#[derive(Debug, Args)]
pub(crate) struct LogsArguments {
    /// Name of the service, such as dvsd
    #[arg(value_parser = service)]
    pub(crate) service: String,
    /// Id of the node whose log is wanted [default: that of the first endpoint that answers]
    #[arg(long)]
    pub(crate) node: Option<u32>,
    /// Number of lines
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u64).range(1..=LOG_LINES_MAX as u64))]
    pub(crate) lines: u64,
    /// Go on and print lines as they are written, until interrupted
    #[arg(short, long)]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DmesgArguments {
    /// Id of the node whose kernel is asked [default: that of the first endpoint that answers]
    #[arg(long)]
    pub(crate) node: Option<u32>,
    /// Number of the last lines [default: all that the kernel still has]
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) lines: Option<usize>,
    /// Only what is at least so grave: 0 (the machine is unusable), 3 (an error), 4 (a warning) to 7
    #[arg(long, value_name = "LEVEL", default_value_t = 7,
          value_parser = clap::value_parser!(u8).range(0..=7))]
    pub(crate) level: u8,
    /// Go on and print lines as the kernel says them, until interrupted
    #[arg(short, long)]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TopArguments {
    /// Print once and end, for scripts
    #[arg(long)]
    pub(crate) once: bool,
    /// How long is measured, and how often is shown
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = interval)]
    pub(crate) interval: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct SupportArguments {
    /// The file [default: dvs-support-TIME.tar.zst]
    pub(crate) file: Option<PathBuf>,
}

fn service(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if text.is_empty() || !text.chars().all(plain) {
        return Err("expected letters, digits, - and _".into());
    }
    Ok(text.to_owned())
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match (Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&interval) {
        true => Ok(interval),
        false => Err("expected a time from 100ms to 1h".into()),
    }
}
