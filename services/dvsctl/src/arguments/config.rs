// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands about the machine configuration.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use dvs_api::{ConfigMode, TRIAL_S_MAX};

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// What a node runs with, defaults included, as TOML; the cluster token is left out
    Show {
        /// Id of the node [default: that of the first endpoint that answers]
        #[arg(long)]
        node: Option<u32>,
    },
    /// Say whether a file is a machine configuration, and what is wrong with it; no cluster is asked
    Validate {
        /// The file, TOML; - for stdin
        file: PathBuf,
    },
    /// Give nodes another configuration while they run
    ///
    /// The daemon of the node is started anew with it, which leaves the cluster and joins it again; containers go on. What is about
    /// interfaces or [run] takes a reboot: it stays as it is, and the command says so. A file without a cluster token, as
    /// `config show` prints it, means the one that the node has. Waits until the node is back.
    Apply(ApplyArguments),
    /// Keep the change that is on trial
    Confirm {
        #[command(flatten)]
        which: Which,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ApplyArguments {
    /// The file, TOML; - for stdin
    pub(crate) file: PathBuf,
    /// When, and for how long
    #[arg(long, value_enum, default_value_t = Mode::Try)]
    pub(crate) mode: Mode,
    #[command(flatten)]
    pub(crate) which: Which,
    /// With --mode try: how long until the change is taken back
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = trial)]
    pub(crate) confirm_within: Duration,
    /// Only say what would change
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not wait until the node runs with it
    #[arg(long)]
    pub(crate) no_wait: bool,
}

/// Which nodes are meant.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Which {
    /// Id of the node
    #[arg(long)]
    pub(crate) node: Option<u32>,
    /// All nodes that are among the endpoints, one after the other
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Now, and taken back unless `config confirm` follows
    Try,
    /// Now, and for as long as the node runs
    Now,
    /// At the next boot, on nodes that keep their configuration
    Reboot,
}

impl From<Mode> for ConfigMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Try => Self::Try,
            Mode::Now => Self::Now,
            Mode::Reboot => Self::Reboot,
        }
    }
}

fn trial(text: &str) -> Result<Duration, String> {
    let trial = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match (5..=TRIAL_S_MAX).contains(&trial.as_secs()) {
        true => Ok(trial),
        false => Err(format!("expected a time from 5s to {TRIAL_S_MAX}s")),
    }
}
