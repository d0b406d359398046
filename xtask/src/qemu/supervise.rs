// SPDX-License-Identifier: MIT OR Apache-2.0
//! A cluster that outlives the command that started it (`--keep`) is owned by a process of its own.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{anyhow, bail, Context, Result};
use dvs_qemu::{Cluster, Options};
use serde::{Deserialize, Serialize};

use super::signals::Signals;

/// What the owner tells the command that started it, in one line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Started {
    Run(PathBuf),
    Error(String),
}

/// Starts a cluster in a process of its own; its run directory.
pub(super) fn detach(options: &Options) -> Result<PathBuf> {
    let attempt = "starting the cluster's owner";
    let messages = match &options.logs {
        Some(logs) => {
            fs::create_dir_all(logs).with_context(|| format!("creating {}", logs.display()))?;
            let path = logs.join("owner.log");
            Stdio::from(
                File::create(&path).with_context(|| format!("creating {}", path.display()))?,
            )
        }
        None => Stdio::null(),
    };
    let mut owner = Command::new("/proc/self/exe")
        .args(["qemu", "supervise"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(messages)
        .spawn()
        .context(attempt)?;
    let (Some(mut input), Some(output)) = (owner.stdin.take(), owner.stdout.take()) else {
        bail!("{attempt}: no pipes to it");
    };
    input.write_all(serde_json::to_string(options)?.as_bytes()).context(attempt)?;
    drop(input);
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line).context(attempt)?;
    match serde_json::from_str(&line) {
        Ok(Started::Run(run)) => Ok(run),
        Ok(Started::Error(error)) => Err(anyhow!(error)),
        Err(_) => {
            let status = owner.wait().context(attempt)?;
            bail!("{attempt}: it ended with {status}");
        }
    }
}

/// That process: owns the cluster until it is told to stop.
pub(super) fn supervise() -> Result<ExitCode> {
    // Away from the terminal, so that neither Ctrl-C nor its end reaches us.
    rustix::process::setsid().context("detaching from the terminal")?;
    let signals = Signals::catch()?;
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).context("reading the cluster's options")?;
    let options: Options = serde_json::from_str(&text).context("reading the cluster's options")?;
    let (started, cluster) = match Cluster::start(options) {
        Ok(cluster) => (Started::Run(cluster.run().to_owned()), Some(cluster)),
        Err(error) => (Started::Error(error.to_string()), None),
    };
    println!("{}", serde_json::to_string(&started)?);
    let Some(cluster) = cluster else { return Ok(ExitCode::FAILURE) };
    while signals.seen().is_none() && !cluster.has_ended() {
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(ExitCode::SUCCESS)
}
