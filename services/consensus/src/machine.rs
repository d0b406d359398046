// SPDX-License-Identifier: MIT OR Apache-2.0
//! The agreed state as Raft drives it: applies what is agreed, makes snapshots and takes them over.

use std::io::Cursor;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use dvs_state::{Answer, Outcome, SnapshotError, State};
use openraft::storage::RaftStateMachine;
use openraft::{
    AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, StorageIOError,
};
use tokio::sync::watch;

use crate::disk::{self, Change, Content, Disk, StoredSnapshot};
use crate::types::{LogEntry, LogId, Membership, SnapshotMeta, StorageError, TypeConfig};

/// The state and how far it has come. Whoever clones it sees the same one.
#[derive(Clone)]
pub(crate) struct Machine {
    applied: Arc<RwLock<Applied>>,
    snapshot: Arc<RwLock<Option<StoredSnapshot>>>,
    progress: Arc<watch::Sender<u64>>,
    disk: Arc<dyn Disk>,
}

#[derive(Debug, Default)]
struct Applied {
    state: State,
    last: Option<LogId>,
    membership: Membership,
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

impl Applied {
    fn of(snapshot: &StoredSnapshot) -> Result<Self, SnapshotError> {
        let SnapshotMeta { last_log_id, last_membership, .. } = snapshot.meta.clone();
        let state = State::from_bytes(&snapshot.bytes)?;
        Ok(Self { state, last: last_log_id, membership: last_membership })
    }
}

impl Machine {
    /// Begins with the snapshot that was on the disk; what was agreed since is applied again.
    ///
    /// # Errors
    /// [`SnapshotError`] if the snapshot is damaged or of a later version.
    pub(crate) fn new(content: &Content, disk: Arc<dyn Disk>) -> Result<Self, SnapshotError> {
        let snapshot = content.snapshot.clone();
        let applied = snapshot.as_ref().map_or(Ok(Applied::default()), Applied::of)?;
        let progress = watch::Sender::new(applied.last.map_or(0, |last| last.index));
        Ok(Self {
            applied: Arc::new(RwLock::new(applied)),
            snapshot: Arc::new(RwLock::new(snapshot)),
            progress: Arc::new(progress),
            disk,
        })
    }

    /// Looks at the state as it is on this node, which may be behind that of others. Nothing is applied meanwhile.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&read(&self.applied).state)
    }

    /// Tells up to which index of the log the state has come.
    pub(crate) fn progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }

    fn tell(&self, last: Option<LogId>) {
        self.progress.send_replace(last.map_or(0, |last| last.index));
    }

    async fn keep(&self, snapshot: StoredSnapshot) -> Result<(), StorageError> {
        let signature = snapshot.meta.signature();
        let written = disk::write(&*self.disk, Change::Snapshot(snapshot.clone())).await;
        written.map_err(|error| StorageIOError::write_snapshot(Some(signature), &error))?;
        *write(&self.snapshot) = Some(snapshot);
        Ok(())
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Machine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        let snapshot = {
            let applied = read(&self.applied);
            let bytes = applied
                .state
                .to_bytes()
                .map_err(|error| StorageIOError::read_state_machine(AnyError::new(&error)))?;
            let snapshot_id = applied.last.map_or("empty".to_owned(), |last| last.to_string());
            let meta = SnapshotMeta {
                last_log_id: applied.last,
                last_membership: applied.membership.clone(),
                snapshot_id,
            };
            StoredSnapshot { meta, bytes }
        };
        self.keep(snapshot.clone()).await?;
        let StoredSnapshot { meta, bytes } = snapshot;
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) })
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), StorageError> {
        let applied = read(&self.applied);
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Outcome>, StorageError>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut outcomes = Vec::new();
        let last = {
            let mut applied = write(&self.applied);
            for entry in entries {
                applied.last = Some(entry.log_id);
                outcomes.push(match entry.payload {
                    EntryPayload::Blank => Ok(Answer::Done),
                    EntryPayload::Normal(proposal) => {
                        applied.state.apply(entry.log_id.index, &proposal.entry)
                    }
                    EntryPayload::Membership(membership) => {
                        applied.membership = Membership::new(Some(entry.log_id), membership);
                        Ok(Answer::Done)
                    }
                });
            }
            applied.last
        };
        self.tell(last);
        Ok(outcomes)
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let snapshot = StoredSnapshot { meta: meta.clone(), bytes: snapshot.into_inner() };
        let taken = Applied::of(&snapshot)
            .map_err(|error| StorageIOError::read_snapshot(Some(meta.signature()), &error))?;
        self.keep(snapshot).await?;
        *write(&self.applied) = taken;
        self.tell(meta.last_log_id);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        Ok(read(&self.snapshot).clone().map(|StoredSnapshot { meta, bytes }| Snapshot {
            meta,
            snapshot: Box::new(Cursor::new(bytes)),
        }))
    }
}
