// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a member must not forget, and where it is kept.
//!
//! All of it is in memory as well, since logs are short and the state is small: a disk is written to while a member runs, and read
//! once when it starts. A node without a disk forgets everything and is another member the next time.

#[cfg(feature = "file")]
mod file;

use std::collections::BTreeMap;
use std::io;

use dvs_state::nodes::MemberId;
use serde::{Deserialize, Serialize};

#[cfg(feature = "file")]
pub use file::{FileDisk, OpenError};

use crate::types::{LogEntry, LogId, SnapshotMeta, Vote};

/// Whose disk it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The cluster's id.
    pub cluster: u64,
    /// The member.
    pub member: MemberId,
}

/// A snapshot and what it is of.
#[derive(Clone, Debug)]
pub struct StoredSnapshot {
    /// What it is of.
    pub meta: SnapshotMeta,
    /// The serialised state.
    pub bytes: Vec<u8>,
}

/// Everything that a member must not forget.
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// Whom it has voted for.
    pub vote: Option<Vote>,
    /// Up to where the log was agreed on, when it was last written. It may be behind.
    pub committed: Option<LogId>,
    /// Up to where the log has been dropped.
    pub purged: Option<LogId>,
    /// The log after that, by index, without gaps.
    pub log: BTreeMap<u64, LogEntry>,
    /// The latest snapshot.
    pub snapshot: Option<StoredSnapshot>,
}

/// A change of it.
#[derive(Clone, Debug)]
pub enum Change {
    /// A vote was given.
    Vote(Vote),
    /// The log was agreed on up to here. Of all changes only this one may be lost: it is learnt again.
    Committed(Option<LogId>),
    /// Entries follow.
    Append(Vec<LogEntry>),
    /// The log ends before this index.
    Truncate(u64),
    /// The log begins after this entry.
    Purge(LogId),
    /// This is the latest snapshot.
    Snapshot(StoredSnapshot),
}

impl Content {
    /// Makes a change.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Vote(vote) => self.vote = Some(vote),
            Change::Committed(committed) => self.committed = committed,
            Change::Append(entries) => {
                self.log.extend(entries.into_iter().map(|entry| (entry.log_id.index, entry)));
            }
            Change::Truncate(from) => drop(self.log.split_off(&from)),
            Change::Purge(up_to) => {
                self.log = self.log.split_off(&(up_to.index + 1));
                self.purged = Some(up_to);
            }
            Change::Snapshot(snapshot) => self.snapshot = Some(snapshot),
        }
    }
}

/// Called once a change is where a power cut does not take it away, or with the reason why it never will be.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Where changes are written, in the order in which they are given.
pub trait Disk: Send + Sync + 'static {
    /// Writes a change. It does not block: `done` is called when the change is safe.
    fn write(&self, change: Change, done: Done);
}

/// No disk: for a node that is another member whenever it starts.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDisk;

impl Disk for NoDisk {
    fn write(&self, _: Change, done: Done) {
        done(Ok(()));
    }
}

/// Writes a change and waits until it is safe.
pub(crate) async fn write(disk: &dyn Disk, change: Change) -> io::Result<()> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    // Whoever waited may be gone when the node stops; nobody needs to know then.
    disk.write(change, Box::new(move |result| drop(sender.send(result))));
    receiver.await.unwrap_or_else(|_| Err(io::Error::other("the disk was taken away meanwhile")))
}
