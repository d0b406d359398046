// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the program prints, for whoever reads its console.

use core::fmt;
use serde::{Deserialize, Serialize};

/// Begins each line of the program's, as others write to the console too.
pub const MARK: &str = "dvk-bench: ";

/// A way for two processes to exchange messages or bytes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Mechanism {
    /// The DVK: `sendrec` against `reply_receive`, and `copy_from` a grant.
    M3,
    /// Two pipes.
    Pipe,
    /// Two named pipes.
    Fifo,
    /// A pair of Unix stream sockets.
    UnixStream,
    /// A pair of Unix sockets that keep message boundaries.
    UnixSeqpacket,
    /// Two POSIX message queues.
    PosixMq,
    /// Two System V message queues.
    SysvQueue,
    /// A TCP connection over the loopback device.
    Tcp,
    /// A pair of connected TIPC sockets.
    Tipc,
    /// Linux's Rust Binder: a transaction and its reply.
    Binder,
    /// Words in shared memory to wait for and to wake by: what a round trip costs when the kernel carries no message.
    Futex,
    /// A copy out of another process's memory, without its help.
    ProcessVmReadv,
}

impl Mechanism {
    /// Its name as it is printed and given on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::M3 => "m3",
            Self::Pipe => "pipe",
            Self::Fifo => "fifo",
            Self::UnixStream => "unix-stream",
            Self::UnixSeqpacket => "unix-seqpacket",
            Self::PosixMq => "posix-mq",
            Self::SysvQueue => "sysv-queue",
            Self::Tcp => "tcp",
            Self::Tipc => "tipc",
            Self::Binder => "binder",
            Self::Futex => "futex",
            Self::ProcessVmReadv => "process-vm-readv",
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What one operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// 64 bytes there and 64 bytes back.
    RoundTrip,
    /// This many bytes from the server to the client.
    Copy(u32),
}

/// Which processors client and server are bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// Both to the same one.
    OneCpu,
    /// The client to one and the server to another.
    TwoCpus,
    /// Pairs, each to one, on two by turns.
    Pairs,
}

/// The scheduling policy of both.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// `SCHED_FIFO`: who runs, runs until it waits.
    Fifo,
    /// `SCHED_OTHER`: what a process has when nobody says otherwise.
    Default,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Nanoseconds of the clock on the wall.
    Nanoseconds,
    /// Instructions that the processor executed, in the kernel or not.
    Instructions,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// How.
    pub mechanism: Mechanism,
    /// What.
    pub task: Task,
    /// Where.
    pub placement: Placement,
    /// By which policy.
    pub policy: Policy,
    /// How many pairs of client and server at a time.
    pub pairs: u32,
    /// What `samples` are in.
    pub unit: Unit,
    /// Operations of each pair in a batch.
    pub operations: u64,
    /// For each batch, what it took divided by the operations of all pairs.
    pub samples: Vec<f64>,
}

/// A line of the program's, after [`MARK`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// A measurement.
    Record(Record),
    /// A mechanism that this machine has not, or that failed. This task and those like it are left out.
    Missing {
        /// Which.
        mechanism: Mechanism,
        /// At what.
        task: Task,
        /// Why.
        why: String,
    },
    /// The same batch is now repeated until the machine is ended. It has this many operations, and each begins with a call of
    /// `getpgid` and ends with one of `getsid`, so that whoever watches the processor sees where.
    Repeating {
        /// Operations in a batch.
        operations: u64,
    },
    /// All is printed.
    Done,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_string(self).map_err(|_| fmt::Error)?;
        write!(f, "{MARK}{json}")
    }
}

impl Line {
    /// Reads a line of the console; `None` if it is not the program's.
    ///
    /// # Errors
    /// When it is the program's and damaged, as by a message of the kernel in the middle of it.
    pub fn parse(line: &str) -> Option<Result<Self, serde_json::Error>> {
        line.trim().strip_prefix(MARK).map(serde_json::from_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let record = Record {
            mechanism: Mechanism::M3,
            task: Task::Copy(4096),
            placement: Placement::Pairs,
            policy: Policy::Default,
            pairs: 3,
            unit: Unit::Instructions,
            operations: 1000,
            samples: vec![1.5, 2.0],
        };
        let (mechanism, task) = (Mechanism::Binder, Task::RoundTrip);
        let missing = Line::Missing { mechanism, task, why: "no\nfile".into() };
        let repeating = Line::Repeating { operations: 7 };
        for line in [Line::Record(record), missing, repeating, Line::Done] {
            let text = line.to_string();
            assert_eq!(text.lines().count(), 1);
            assert_eq!(Line::parse(&format!("{text}\r")).unwrap().unwrap(), line);
            assert!(Line::parse(&text[..text.len() - 1]).unwrap().is_err());
        }
        assert!(Line::parse("[    1.0] random: crng init done").is_none());
    }

    #[test]
    fn names_are_the_same_everywhere() {
        for mechanism in Mechanism::value_variants() {
            let json = serde_json::to_string(mechanism).unwrap();
            assert_eq!(json.trim_matches('"'), mechanism.name());
            let value = mechanism.to_possible_value().unwrap();
            assert_eq!(value.get_name(), mechanism.name());
        }
    }
}
