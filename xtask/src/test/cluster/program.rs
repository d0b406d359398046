// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs a program of the host as a user would, but not for longer than a limit.

use std::fmt;
use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often a running program is looked at.
const POLL: Duration = Duration::from_millis(20);

/// What a program left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Its exit status; `None` if a signal ended it.
    pub(crate) status: Option<i32>,
    /// Whether it was killed because the limit was over.
    pub(crate) overdue: bool,
    /// What it wrote to standard output.
    pub(crate) stdout: String,
    /// What it wrote to standard error.
    pub(crate) stderr: String,
}

impl Ended {
    pub(in crate::test) fn succeeded(&self) -> bool {
        self.status == Some(0)
    }

    /// Failed by itself, with one line for people on standard error and nothing on standard output.
    pub(super) fn is_one_clear_error(&self) -> bool {
        let failed = self.status.is_some_and(|status| status != 0);
        let lines: Vec<_> = self.stderr.lines().collect();
        failed && self.stdout.is_empty() && lines.len() == 1 && lines[0].starts_with("error: ")
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.overdue, self.status) {
            (true, _) => f.write_str("it was killed because it did not end in time")?,
            (false, Some(status)) => write!(f, "exit status {status}")?,
            (false, None) => f.write_str("a signal ended it")?,
        }
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.is_empty() {
                write!(f, "\n{name}: {}", text.trim_end())?;
            }
        }
        Ok(())
    }
}

/// A program that runs.
pub(in crate::test) struct Running {
    child: Child,
    outputs: [Option<thread::JoinHandle<()>>; 2],
    read: [Arc<Mutex<Vec<u8>>>; 2],
    deadline: Instant,
}

/// Starts a program that is killed when it runs for longer than `limit` once somebody waits for it.
pub(in crate::test) fn start(command: &mut Command, limit: Duration) -> io::Result<Running> {
    start_with(command, Stdio::null(), limit)
}

/// The same with something to read.
pub(super) fn start_with(
    command: &mut Command,
    input: Stdio,
    limit: Duration,
) -> io::Result<Running> {
    let mut child = command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let read = [Arc::default(), Arc::default()];
    let [stdout, stderr] = &read;
    let outputs = [
        child.stdout.take().map(|pipe| collect(pipe, Arc::clone(stdout))),
        child.stderr.take().map(|pipe| collect(pipe, Arc::clone(stderr))),
    ];
    Ok(Running { child, outputs, read, deadline: Instant::now() + limit })
}

/// Reads along, so that the program never waits for us.
fn collect(
    mut pipe: impl Read + Send + 'static,
    into: Arc<Mutex<Vec<u8>>>,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        // What was read before an error is still worth showing.
        while let Some(count) = pipe.read(&mut bytes).ok().filter(|count| *count > 0) {
            into.lock().unwrap_or_else(PoisonError::into_inner).extend(&bytes[..count]);
        }
    })
}

fn text(bytes: &Mutex<Vec<u8>>) -> String {
    String::from_utf8_lossy(&bytes.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
}

impl Running {
    /// Whether it has not ended yet.
    pub(super) fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it has written to standard output so far.
    pub(super) fn said(&self) -> String {
        text(&self.read[0])
    }

    /// What it has written to standard error so far.
    pub(super) fn complained(&self) -> String {
        text(&self.read[1])
    }

    /// Waits for its end, or makes it.
    pub(in crate::test) fn end(mut self) -> io::Result<Ended> {
        let mut overdue = false;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() >= self.deadline {
                overdue = true;
                self.child.kill()?;
                break self.child.wait()?;
            }
            thread::sleep(POLL);
        };
        for output in &mut self.outputs {
            output.take().map(thread::JoinHandle::join);
        }
        let [stdout, stderr] = self.read.each_ref().map(|read| text(read));
        Ok(Ended { status: status.code(), overdue, stdout, stderr })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After a failed step nobody waits any more; has it ended, this does nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str, limit: Duration) -> Ended {
        start(Command::new("sh").args(["-c", script]), limit).unwrap().end().unwrap()
    }

    #[test]
    fn output_and_status_are_kept_apart() {
        let ended = run("echo out; echo err >&2; exit 3", Duration::from_secs(60));
        assert_eq!((ended.status, ended.overdue), (Some(3), false));
        assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("out\n", "err\n"));
        let mut running =
            start(Command::new("sh").args(["-c", "echo one; sleep 60"]), Duration::ZERO).unwrap();
        while running.said().is_empty() && running.runs() {
            thread::sleep(POLL);
        }
        assert_eq!(running.said(), "one\n");
        assert_eq!(ended.to_string(), "exit status 3\nstdout: out\nstderr: err");
    }

    #[test]
    fn an_overdue_program_is_killed() {
        let ended = run("exec sleep 60", Duration::from_millis(50));
        assert!(ended.overdue && !ended.succeeded() && !ended.is_one_clear_error());
    }

    #[test]
    fn a_clear_error_is_one_line_and_a_status() {
        let limit = Duration::from_secs(60);
        assert!(run("echo 'error: no' >&2; exit 1", limit).is_one_clear_error());
        for script in [
            "echo 'error: no' >&2",
            "exit 1",
            "echo 'no' >&2; exit 1",
            "echo 'error: no' >&2; echo 'error: and no' >&2; exit 1",
            "echo half; echo 'error: no' >&2; exit 1",
        ] {
            assert!(!run(script, limit).is_one_clear_error(), "{script}");
        }
    }
}
