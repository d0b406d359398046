// SPDX-License-Identifier: MIT OR Apache-2.0
//! The log and the votes of a member, as Raft uses them.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{EntryPayload, LogState, OptionalSend, RaftLogReader, StorageIOError};

use crate::disk::{self, Change, Content, Disk};
use crate::types::{LogEntry, LogId, StorageError, TypeConfig, Vote};

/// Bytes after which no further entry is put into one message to a follower.
const MESSAGE_BYTES: usize = 256 * 1024;

/// The log and the votes, in memory and written to a disk.
#[derive(Clone)]
pub(crate) struct Journal {
    kept: Arc<Mutex<Kept>>,
    disk: Arc<dyn Disk>,
}

#[derive(Debug, Default)]
struct Kept {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    log: BTreeMap<u64, LogEntry>,
    bytes: usize,
}

fn bytes_of(entry: &LogEntry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(proposal) => proposal.entry.bytes(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    }
}

impl Journal {
    /// Goes on with what was on the disk.
    pub(crate) fn new(content: &Content, disk: Arc<dyn Disk>) -> Self {
        let kept = Kept {
            vote: content.vote,
            committed: content.committed,
            purged: content.purged,
            log: content.log.clone(),
            bytes: content.log.values().map(bytes_of).sum(),
        };
        Self { kept: Arc::new(Mutex::new(kept)), disk }
    }

    /// Bytes of the commands in the log.
    pub(crate) fn bytes(&self) -> usize {
        self.kept().bytes
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Each change is whole before the lock is let go.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drop_entries(kept: &mut Kept, keep: impl Fn(u64) -> bool) {
        let mut dropped = 0;
        kept.log.retain(|index, entry| {
            let stays = keep(*index);
            if !stays {
                dropped += bytes_of(entry);
            }
            stays
        });
        kept.bytes -= dropped;
    }
}

impl RaftLogReader<TypeConfig> for Journal {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<LogEntry>, StorageError> {
        Ok(self.kept().log.range(range).map(|(_, entry)| entry.clone()).collect())
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<LogEntry>, StorageError> {
        let mut bytes = 0;
        let kept = self.kept();
        let within = kept.log.range(start..end).take_while(|(_, entry)| {
            let first = bytes == 0;
            bytes += bytes_of(entry) + 1;
            first || bytes <= MESSAGE_BYTES
        });
        Ok(within.map(|(_, entry)| entry.clone()).collect())
    }
}

impl RaftLogStorage<TypeConfig> for Journal {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let kept = self.kept();
        let last = kept.log.last_key_value().map(|(_, entry)| entry.log_id).or(kept.purged);
        Ok(LogState { last_purged_log_id: kept.purged, last_log_id: last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let written = disk::write(&*self.disk, Change::Vote(*vote)).await;
        written.map_err(|error| StorageIOError::write_vote(&error))?;
        self.kept().vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.kept().vote)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.kept().committed = committed;
        self.disk.write(Change::Committed(committed), Box::new(|_| ()));
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.kept().committed)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<TypeConfig>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<LogEntry> = entries.into_iter().collect();
        {
            let mut kept = self.kept();
            for entry in &entries {
                if let EntryPayload::Normal(proposal) = &entry.payload {
                    proposal.mark_taken();
                }
                kept.bytes += bytes_of(entry);
                let before = kept.log.insert(entry.log_id.index, entry.clone());
                kept.bytes -= before.as_ref().map_or(0, bytes_of);
            }
        }
        let done = Box::new(|result| callback.log_io_completed(result));
        self.disk.write(Change::Append(entries), done);
        Ok(())
    }

    async fn truncate(&mut self, from: LogId) -> Result<(), StorageError> {
        Self::drop_entries(&mut self.kept(), |index| index < from.index);
        let written = disk::write(&*self.disk, Change::Truncate(from.index)).await;
        Ok(written.map_err(|error| StorageIOError::write_logs(&error))?)
    }

    async fn purge(&mut self, up_to: LogId) -> Result<(), StorageError> {
        {
            let mut kept = self.kept();
            kept.purged = Some(up_to);
            Self::drop_entries(&mut kept, |index| index > up_to.index);
        }
        let written = disk::write(&*self.disk, Change::Purge(up_to)).await;
        Ok(written.map_err(|error| StorageIOError::write_logs(&error))?)
    }
}
