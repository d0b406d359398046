// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can go wrong with a virtual cluster, told to the person who asked for one.

use std::io;
use std::path::PathBuf;

/// The result of what this crate does.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An operation on a file, directory or socket failed.
    #[error("{attempt} {}: {source}", path.display())]
    File {
        /// What was attempted, such as `writing`.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// An operation on no particular file failed.
    #[error("{attempt}: {source}")]
    System {
        /// What was attempted.
        attempt: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The path of the run directory is too long for the sockets in it.
    #[error("the run directory {} is too long for unix sockets (107 bytes in all); set XDG_RUNTIME_DIR to a shorter one or choose a shorter --name", .0.display())]
    PathTooLong(PathBuf),
    /// Somebody else's directory is where ours should be.
    #[error("{} belongs to another user or is open to others; remove it or set XDG_RUNTIME_DIR", .0.display())]
    NotOurs(PathBuf),
    /// There is no QEMU.
    #[error("{0} is not installed (not found on PATH); on Debian and Ubuntu: apt-get install qemu-system-x86")]
    QemuMissing(String),
    /// QEMU ended when it had hardly begun.
    #[error("node{node}: qemu ended right after its start ({status}): {message}")]
    QemuFailed {
        /// Which node.
        node: usize,
        /// How it ended.
        status: String,
        /// What it wrote to its standard error.
        message: String,
    },
    /// QEMU refused a QMP command or couldn't be asked.
    #[error("qmp {command} on {}: {reason}", socket.display())]
    Qmp {
        /// The command.
        command: String,
        /// The QMP socket.
        socket: PathBuf,
        /// What QEMU answered or why there was no answer.
        reason: String,
    },
    /// A node number that is too high.
    #[error("there is no node {node}: the cluster has nodes 0 to {highest}")]
    NoSuchNode {
        /// The number asked for.
        node: usize,
        /// The highest that there is.
        highest: usize,
    },
    /// A command doesn't fit what the node is doing.
    #[error("node{node} is {state}: {advice}")]
    WrongState {
        /// Which node.
        node: usize,
        /// What it is doing.
        state: &'static str,
        /// What to do about it.
        advice: &'static str,
    },
    /// An option makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// No virtual cluster is running.
    #[error("no virtual cluster is running; start one with `cargo xtask qemu --nodes 4`")]
    NoCluster,
    /// The virtual cluster asked for isn't running.
    #[error("no virtual cluster named `{name}` is running{}", others(.running))]
    NotRunning {
        /// The name asked for.
        name: String,
        /// Those that run.
        running: Vec<String>,
    },
    /// It isn't clear which virtual cluster is meant.
    #[error("several virtual clusters are running ({}); say which with --name", .0.join(", "))]
    SeveralClusters(Vec<String>),
    /// The name is taken.
    #[error("a virtual cluster named `{0}` is already running; choose another --name or end it with `cargo xtask qemu stop --name {0}`")]
    NameTaken(String),
    /// The owner of the cluster refused.
    #[error("{0}")]
    Refused(String),
    /// Not all nodes became ready in time.
    #[error("the cluster was not ready after {seconds} s: {summary}")]
    NotReady {
        /// How long was waited.
        seconds: u64,
        /// What each node was doing.
        summary: String,
    },
    /// A text didn't appear on a console.
    #[error("node{node}: `{pattern}` did not appear on the console within {seconds} s")]
    NotSeen {
        /// Which node.
        node: usize,
        /// The text.
        pattern: String,
        /// How long was waited.
        seconds: u64,
    },
}

impl Error {
    /// For `map_err` on file operations.
    pub(crate) fn file(
        attempt: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::File { attempt, path, source }
    }

    /// For `map_err` on other operations.
    pub(crate) fn system<E: Into<io::Error>>(attempt: &'static str) -> impl FnOnce(E) -> Error {
        move |source| Error::System { attempt, source: source.into() }
    }
}

fn others(running: &[String]) -> String {
    if running.is_empty() {
        String::new()
    } else {
        format!(" (running: {})", running.join(", "))
    }
}
