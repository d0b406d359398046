// SPDX-License-Identifier: MIT OR Apache-2.0
//! `--exec`: a command of the user's on the host, pointed at the cluster.

use std::env;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::mpsc::{channel, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, Result};
use dvs_qemu::access;
use dvs_qemu::run_directory::{Description, ENVIRONMENT};
use rustix::process::{kill_process, Pid, Signal};
use signal_hook::consts::SIGINT;

use super::signals::{exit_status, Signals};

/// The variable that has the URL of what a demonstration shows.
const DEMO_URL: &str = "DVS_DEMO_URL";

/// Runs `command` with `tools` first on `PATH`, and the URL of the demonstration if there is one. The exit status that ours is to be.
pub(super) fn run(
    command: &str,
    cluster: &Description,
    run: &Path,
    tools: &Path,
    demo: Option<&str>,
    signals: &Signals,
) -> Result<u8> {
    let inherited = env::var_os("PATH").unwrap_or_default();
    let path = std::iter::once(PathBuf::from(tools)).chain(env::split_paths(&inherited));
    let path = env::join_paths(path).context("putting dvsctl on PATH")?;
    let mut sh = Command::new("sh");
    match demo {
        Some(url) => sh.env(DEMO_URL, url),
        None => sh.env_remove(DEMO_URL),
    };
    let mut child = access::reach(&mut sh, run, None)
        .arg("-c")
        .arg(command)
        .env("PATH", path)
        .env("DVS_CLUSTER", &cluster.name)
        .env(ENVIRONMENT, run)
        .spawn()
        .context("starting sh for --exec")?;
    let pid = Pid::from_child(&child);
    let (sender, ended) = channel();
    std::thread::spawn(move || {
        let _ = sender.send(child.wait());
    });
    let mut signalled = 0;
    loop {
        match ended.recv_timeout(Duration::from_millis(100)) {
            Ok(status) => return Ok(shell_status(status.context("waiting for the command")?)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => anyhow::bail!("lost sight of the command"),
        }
        // A terminal's Ctrl-C has reached the command as well; other signals came to us alone. Whoever asks twice means it.
        if let Some(signal) = signals.take() {
            signalled += 1;
            let to_send = match (signalled, signal) {
                (1, SIGINT) => None,
                (1, _) => Some(Signal::TERM),
                _ => Some(Signal::KILL),
            };
            if let Some(to_send) = to_send {
                // It may have ended this instant.
                let _ = kill_process(pid, to_send);
            }
        }
    }
}

fn shell_status(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => code as u8,
        (None, signal) => exit_status(signal.unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dvs_qemu::accel::Accelerator;

    fn run(command: &str) -> u8 {
        let cluster = Description {
            name: "x".to_owned(),
            owner: 1,
            seed: 1,
            accelerator: Accelerator::Tcg,
            nodes: Vec::new(),
            published: Vec::new(),
        };
        let signals = Signals::catch().unwrap();
        let (run, tools) = (Path::new("/run/x"), Path::new("/tools"));
        super::run(command, &cluster, run, tools, Some("http://x/"), &signals).unwrap()
    }

    #[test]
    fn the_exit_status_is_the_commands() {
        assert_eq!(run("exit 0"), 0);
        assert_eq!(run("exit 37"), 37);
        assert_eq!(run("kill -9 $$"), 137);
    }

    #[test]
    fn the_command_finds_cluster_and_tools() {
        assert_eq!(
            run(
                r#"test "$DVS_CLUSTER" = x && test "$DVS_DEMO_URL" = http://x/ && test "$DVS_QEMU_RUN" = /run/x"#
            ),
            0
        );
        assert_eq!(
            run(r#"test "$DVSCTL_CONFIG" = /run/x/dvsctl && test -z "$DVSCTL_ENDPOINTS""#),
            0
        );
        assert_eq!(run(r#"case "$PATH" in /tools:*) ;; *) exit 1;; esac"#), 0);
    }
}
