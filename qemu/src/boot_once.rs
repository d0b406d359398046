// SPDX-License-Identifier: MIT OR Apache-2.0
//! Boots one machine for one purpose, such as a test program, and returns when it has powered off.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::cluster::{require_program, write_private};
use crate::error::{Error, Result};
use crate::machine::Machine;
use crate::node::{describe, Node};
use crate::options::{random_token, NodeFiles, Options};
use crate::run_directory::{claim, root};
use crate::transcript::plain;

/// What PID 1 prints when the command of the configuration's `[run]` section has ended.
const STATUS_LINE: &str = "dvs: run: exit status ";
/// How long powering off may take after that.
const POWER_OFF_PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);

/// How the machine's life ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It powered off or rebooted.
    PoweredOff,
    /// It was killed because the time was up.
    TimedOut,
    /// It was killed because the caller had seen enough.
    GivenUp,
    /// QEMU failed; how.
    Failed(String),
}

/// What a machine left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// All that it said, without control sequences.
    pub console: String,
    /// How it ended.
    pub end: End,
    /// The exit status of the command that it was to run, if it said so.
    pub exit_status: Option<i32>,
}

/// Boots node 0 of `options` alone, without network, until it powers off, reboots (a panic does) or `timeout` is over.
/// Each line of its console is handed to `on_line` when it is complete; the machine is killed when that says false.
pub fn boot_once(
    options: &Options,
    timeout: Duration,
    mut on_line: impl FnMut(&str) -> bool,
) -> Result<Outcome> {
    boot_once_watched(options, timeout, |line, _| on_line(line))
}

/// The same, for one who acts on the machine as well: `on_line` is given the socket where QEMU listens for QMP.
pub fn boot_once_watched(
    options: &Options,
    timeout: Duration,
    mut on_line: impl FnMut(&str, &Path) -> bool,
) -> Result<Outcome> {
    options.check()?;
    require_program(&options.qemu)?;
    let claim = claim(&root(), options.name.as_deref())?;
    let files = NodeFiles::new(&claim.path, 0);
    let token = options.token.clone().map_or_else(random_token, Ok)?;
    let mut config = options.config(0, &token);
    config.network = Default::default();
    config.cluster.bootstrap_expect = 1;
    write_private(&files.config, &config.to_toml())?;
    let logs = options.logs.as_deref().unwrap_or(&claim.path);
    std::fs::create_dir_all(logs).map_err(Error::file("creating", logs))?;
    let machine = Machine {
        cluster: Vec::new(),
        management: None,
        reboot: false,
        ..options.machine(0, &claim.path, 0, None, &[])
    };
    let qmp = files.qmp.clone();
    let mut on_line = |line: &str| on_line(line, &qmp);
    let mut node = Node::new(0, machine, files, &options.launcher, &log_path(logs))?;
    let deadline = Instant::now() + timeout;
    node.spawn()?;
    let mut listener = Listener::default();
    let end = loop {
        // In this order: what QEMU wrote before it ended is read after its end was noticed.
        let ended = node.reap();
        let passage = node.console().reader().read(listener.position, POLL);
        listener.position = passage.end;
        let silent = passage.bytes.is_empty();
        if !listener.hear(&passage.bytes, &mut on_line) {
            break End::GivenUp;
        }
        if let Some(status) = ended {
            let end = if status.success() {
                End::PoweredOff
            } else {
                End::Failed(node.failed(describe(status)).to_string())
            };
            listener.drain(&node, &mut on_line);
            break end;
        }
        let now = Instant::now();
        let overdue = listener.status_at.is_some_and(|at| now > at + POWER_OFF_PATIENCE);
        if silent && (overdue || now > deadline) || now > deadline + POWER_OFF_PATIENCE {
            break End::TimedOut;
        }
    };
    node.kill();
    listener.finish(&mut on_line);
    Ok(Outcome { console: listener.console, end, exit_status: listener.exit_status })
}

fn log_path(logs: &Path) -> std::path::PathBuf {
    logs.join("console.log")
}

/// Cuts what a console says into lines.
#[derive(Default)]
struct Listener {
    position: u64,
    line: Vec<u8>,
    console: String,
    exit_status: Option<i32>,
    status_at: Option<Instant>,
}

impl Listener {
    /// Hands on the lines completed by `bytes`; false if the caller has seen enough.
    fn hear(&mut self, bytes: &[u8], on_line: &mut impl FnMut(&str) -> bool) -> bool {
        let mut more = true;
        for &byte in bytes {
            self.line.push(byte);
            if byte == b'\n' {
                more &= self.finish(on_line);
            }
        }
        more
    }

    /// Hands on the line as far as it has come.
    fn finish(&mut self, on_line: &mut impl FnMut(&str) -> bool) -> bool {
        if self.line.is_empty() {
            return true;
        }
        let text = plain(&std::mem::take(&mut self.line));
        let text = text.trim_end();
        self.console.push_str(text);
        self.console.push('\n');
        if let Some((_, status)) = text.split_once(STATUS_LINE) {
            self.exit_status = status.trim().parse().ok();
            self.status_at = Some(Instant::now());
        }
        on_line(text)
    }

    /// Takes in what is left of a machine that has ended.
    fn drain(&mut self, node: &Node, on_line: &mut impl FnMut(&str) -> bool) {
        loop {
            let passage = node.console().reader().read(self.position, 2 * POLL);
            if passage.bytes.is_empty() {
                return;
            }
            self.position = passage.end;
            self.hear(&passage.bytes, on_line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(chunks: &[&[u8]]) -> (Listener, Vec<String>) {
        let mut listener = Listener::default();
        let mut lines = Vec::new();
        let mut on_line = |line: &str| {
            lines.push(line.to_owned());
            true
        };
        for chunk in chunks {
            listener.hear(chunk, &mut on_line);
        }
        listener.finish(&mut on_line);
        (listener, lines)
    }

    #[test]
    fn lines_are_put_together_and_cleaned() {
        let (listener, lines) = hear(&[b"\x1b[2Jfir", b"st\r\nsec", b"ond"]);
        assert_eq!(lines, ["first", "second"]);
        assert_eq!(listener.console, "first\nsecond\n");
        assert_eq!(listener.exit_status, None);
    }

    #[test]
    fn the_exit_status_is_found() {
        let (listener, _) = hear(&[b"ok 1\ndvs: run: exit sta", b"tus 3\r\n", b"powering off\n"]);
        assert_eq!(listener.exit_status, Some(3));
        assert!(listener.status_at.is_some());
    }

    #[test]
    fn the_caller_can_have_seen_enough() {
        let mut listener = Listener::default();
        assert!(!listener.hear(b"panic\nmore\n", &mut |line| line != "panic"));
    }
}
