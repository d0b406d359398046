// SPDX-License-Identifier: MIT OR Apache-2.0
//! One life of a process. A PID alone may name somebody else by the time it is used.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::process::{pidfd_open, Pid, PidfdFlags};
use serde::{Deserialize, Serialize};

/// A process of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Life {
    /// Its PID on the node.
    pub pid: i32,
    /// When it was started, in clock ticks since the node was.
    started: u64,
}

impl Life {
    /// The process that has this PID now.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn of(pid: i32) -> Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let started = start(&text).with_context(|| format!("reading {path}: it ends early"))?;
        Ok(Self { pid, started })
    }

    /// A handle of the process, or none if it has ended and been waited for.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn open(self) -> Result<Option<OwnedFd>> {
        let pid = Pid::from_raw(self.pid).context("opening a process: 0 is no PID")?;
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(Errno::SRCH) => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("opening the process {}", self.pid));
            }
        };
        // The handle names one process for good; whether it is this one is to be seen after it was taken.
        match fs::read_to_string(format!("/proc/{}/stat", self.pid)) {
            Ok(text) => Ok((start(&text) == Some(self.started)).then_some(handle)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            // Ended between opening and reading.
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("looking at process {}", self.pid)),
        }
    }
}

/// The time of the start in `/proc/PID/stat` (proc_pid_stat(5)): the 22nd field. The second, the name, may contain anything, and
/// is in the only parentheses that end last.
fn start(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_found_whatever_the_name() {
        let numbers: Vec<_> = (3..=30).map(|field: u32| field.to_string()).collect();
        let text = format!("7 (a) b (c) ) {}\n", numbers.join(" "));
        assert_eq!(start(&text), Some(22));
        assert_eq!(start("7 (a) S 1 2"), None);
    }

    #[test]
    fn another_life_of_a_pid_is_not_opened() {
        let own = Life::of(std::process::id() as i32).unwrap();
        assert!(own.open().unwrap().is_some());
        assert!(Life { started: own.started + 1, ..own }.open().unwrap().is_none());
    }
}
