// SPDX-License-Identifier: MIT OR Apache-2.0
//! Starting, reaping and ending processes.

use std::fs::{self, File};
use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use rustix::process::{
    kill_process, kill_process_group, wait, Pid, Signal, WaitOptions, WaitStatus,
};

use crate::service_log::{stamped, Lines, LogFile};

/// What services find programs by.
const SEARCH_PATH: &str = "/usr/bin";
/// Taken from one service's pipe before the others have their turn.
const READ_SHARE: usize = 64 << 10;

/// A program that runs as long as the machine does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServiceEntry {
    pub(crate) name: &'static str,
    pub(crate) program: &'static str,
    pub(crate) arguments: &'static [&'static str],
}

/// The services of a node.
pub(crate) const SERVICES: [ServiceEntry; 1] =
    [ServiceEntry { name: "dvsd", program: "/usr/bin/dvsd", arguments: &[] }];
/// What runs where there is a screen.
pub(crate) const SCREEN: ServiceEntry = ServiceEntry {
    name: "console",
    program: "/usr/bin/dvsctl",
    arguments: &["console", "--terminal", "/dev/tty1"],
};

/// What whoever presses enter at the console gets, until he leaves.
const GUEST: [&str; 5] = ["/usr/bin/dvsctl", "console", "--guest", "--terminal", "/dev/console"];

/// A service's program and the way its output takes.
///
/// The pipe outlives the process: the next one writes to the same.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) entry: ServiceEntry,
    pub(crate) output: PipeReader,
    input: PipeWriter,
    lines: Lines,
    log: LogFile,
}

impl Service {
    pub(crate) fn new(entry: ServiceEntry, log_folder: &Path) -> io::Result<Self> {
        let (output, input) = io::pipe()?;
        rustix::io::ioctl_fionbio(&output, true)?;
        let log = LogFile::new(log_folder, entry.name);
        Ok(Self { entry, output, input, lines: Lines::default(), log })
    }

    /// Starts the program in a process group of its own.
    pub(crate) fn start(&self) -> io::Result<i32> {
        let child = Command::new(self.entry.program)
            .args(self.entry.arguments)
            .env_clear()
            .env("PATH", SEARCH_PATH)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(self.input.try_clone()?)
            .stderr(self.input.try_clone()?)
            .process_group(0)
            .spawn()?;
        // Reaped by `reap`, as everything is.
        Ok(child.id().cast_signed())
    }

    /// Moves output to the log; hands complaints to `complain`. Whether there may be more.
    pub(crate) fn pump(&mut self, mut complain: impl FnMut(&str)) -> bool {
        let mut bytes = [0; 8 << 10];
        let mut taken = 0;
        while taken < READ_SHARE {
            match self.output.read(&mut bytes) {
                Ok(0) | Err(_) => return false,
                Ok(length) => {
                    taken += length;
                    let Self { lines, log, entry, .. } = self;
                    lines.push(&bytes[..length], |line| keep(log, entry, line, &mut complain));
                }
            }
        }
        true
    }

    /// Takes what an ended process left, even without a line end.
    pub(crate) fn finish(&mut self, mut complain: impl FnMut(&str)) {
        while self.pump(&mut complain) {}
        let Self { lines, log, entry, .. } = self;
        lines.flush(|line| keep(log, entry, line, &mut complain));
    }

    /// Writes a line of PID 1's own into the service's log.
    pub(crate) fn note(&mut self, line: &str) {
        // The console has been told the same.
        let _ = self.log.append(&stamped(SystemTime::now(), format!("init: {line}").as_bytes()));
    }
}

fn keep(log: &mut LogFile, entry: &ServiceEntry, line: &[u8], complain: &mut impl FnMut(&str)) {
    // A log that cannot be written (memory is short) costs the line, never the service.
    let logged = log.append(&stamped(SystemTime::now(), line)).is_ok();
    if crate::service_log::is_complaint(line) || !logged {
        let text: String = String::from_utf8_lossy(line)
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        complain(&format!("{}: {text}", entry.name));
    }
}

/// Starts the `[run]` command with the console as its standard streams.
pub(crate) fn start_command(command: &[String], console: &File) -> io::Result<i32> {
    let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", SEARCH_PATH)
        .current_dir("/")
        .stdin(console.try_clone()?)
        .stdout(console.try_clone()?)
        .stderr(console.try_clone()?)
        .process_group(0)
        .spawn()?;
    Ok(child.id().cast_signed())
}

/// Starts what shows the state and the menu at the console.
pub(crate) fn start_guest(console: &File) -> io::Result<i32> {
    start_command(&GUEST.map(str::to_owned), console)
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Exited(i32),
    Killed(i32),
}

impl Ended {
    /// The status as a shell gives it: 128 and the signal for a killed process.
    pub(crate) fn code(self) -> i32 {
        match self {
            Self::Exited(status) => status,
            Self::Killed(signal) => 128 + signal,
        }
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "exited with status {status}"),
            Self::Killed(signal) => write!(f, "was killed by signal {signal}"),
        }
    }
}

/// What waiting for a child gave.
#[derive(Debug)]
pub(crate) enum Reaped {
    /// This one has ended.
    Ended(i32, Ended),
    /// All children live.
    NoneEnded,
    /// There are no children.
    NoChildren,
}

/// Reaps one ended child, be it a service or an orphan.
pub(crate) fn reap() -> Reaped {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                if let Some(ended) = ended(status) {
                    return Reaped::Ended(pid.as_raw_nonzero().get(), ended);
                }
            }
            Ok(None) => return Reaped::NoneEnded,
            Err(_) => return Reaped::NoChildren,
        }
    }
}

fn ended(status: WaitStatus) -> Option<Ended> {
    status
        .exit_status()
        .map(Ended::Exited)
        .or_else(|| status.terminating_signal().map(Ended::Killed))
}

/// Signals a service and what it started.
pub(crate) fn signal_group(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // It may have ended just now.
        let _ = kill_process_group(pid, signal);
    }
}

/// Signals every process but this one. Kernel threads take no notice.
pub(crate) fn signal_all(signal: Signal) {
    let Ok(entries) = fs::read_dir("/proc") else { return };
    for entry in entries.flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(pid) = pid.filter(|pid| *pid > 1).and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::process::WaitOptions;

    use super::{Service, ServiceEntry};

    #[test]
    fn output_goes_to_the_log_and_complaints_to_the_console_too() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("service");
        fs::write(&script, "#!/bin/sh\necho $1; echo error: not fine >&2; printf 'no end'\n")
            .unwrap();
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&script, permissions).unwrap();
        let program: &'static str = script.to_str().unwrap().to_owned().leak();
        let entry = ServiceEntry { name: "test", program, arguments: &["fine"] };
        let mut service = Service::new(entry, folder.path()).unwrap();
        let pid = rustix::process::Pid::from_raw(service.start().unwrap()).unwrap();
        let status = rustix::process::waitpid(Some(pid), WaitOptions::empty()).unwrap().unwrap().1;
        assert_eq!(status.exit_status(), Some(0));
        let mut complaints = Vec::new();
        service.finish(|line| complaints.push(line.to_owned()));
        assert_eq!(complaints, ["test: error: not fine"]);
        let log = fs::read_to_string(folder.path().join("test.log")).unwrap();
        let lines = log.lines().map(|line| line.split_once("Z ").unwrap());
        let (times, said): (Vec<_>, Vec<_>) = lines.unzip();
        assert!(times.iter().all(|time| time.len() == "2000-02-29T00:00:00.005".len()), "{log}");
        assert_eq!(said, ["fine", "error: not fine", "no end"]);
    }

    #[test]
    fn a_missing_program_is_an_error_not_an_end() {
        let folder = tempfile::tempdir().unwrap();
        let entry = ServiceEntry { name: "test", program: "/nonexistent/program", arguments: &[] };
        let service = Service::new(entry, folder.path()).unwrap();
        assert_eq!(service.start().unwrap_err().kind(), std::io::ErrorKind::NotFound);
    }
}
