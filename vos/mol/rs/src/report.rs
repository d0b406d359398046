// SPDX-License-Identifier: MIT OR Apache-2.0
//! What each node tells of its servers, and how people are shown that.

use core::fmt;
use serde::{Deserialize, Serialize};

/// A server on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The server.
    pub server: String,
    /// Whether there is one of it at a time.
    pub once: bool,
    /// How it is.
    pub state: State,
    /// Its process, as numbered in the container.
    pub pid: Option<u32>,
    /// The fencing token of this run, for one of which there is one at a time.
    pub term: Option<u64>,
    /// Milliseconds since then: since 1970 where it is kept, and of the supervisor's own time within it.
    pub since_ms: u64,
    /// How often it has ended by itself, one time after the other.
    pub failures: u32,
    /// How it ended last.
    pub last_exit: Option<String>,
    /// What it waits for.
    pub detail: Option<String>,
}

/// What a node tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The revision of the manifest by which it goes.
    pub revision: u64,
    /// Its servers.
    pub servers: Vec<Report>,
}

/// How a server is on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Its process is being made.
    Starting,
    /// It has a process.
    Running,
    /// Its process was told to end.
    Stopping,
    /// It ended by itself, and is started again after a pause.
    BackingOff,
    /// It waits for others, or for a majority of the nodes.
    Waiting,
    /// It runs elsewhere, or is about to, and comes here if it must.
    Standby,
    /// It is to be on no node.
    Stopped,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::BackingOff => "backing off",
            Self::Waiting => "waiting",
            Self::Standby => "standby",
            Self::Stopped => "stopped",
        })
    }
}

/// A server, on a node or nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The node; none, if no node does anything about it.
    pub node: Option<u32>,
    /// What that node tells.
    #[serde(flatten)]
    pub report: Report,
}
