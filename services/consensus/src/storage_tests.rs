// SPDX-License-Identifier: MIT OR Apache-2.0
//! Raft's own tests of a storage, on both kinds, and what a restart must find.

use std::sync::{Arc, Mutex};

use openraft::storage::RaftStateMachine;
use openraft::testing::{StoreBuilder, Suite};
use openraft::{CommittedLeaderId, EntryPayload, RaftSnapshotBuilder};

use crate::disk::{self, Change, Content, Disk, FileDisk, NoDisk, OpenError, Owner};
use crate::journal::Journal;
use crate::machine::Machine;
use crate::types::{LogEntry, LogId, Proposal, StorageError, TypeConfig, Vote};

const OWNER: Owner = Owner { cluster: 7, member: 1 };

struct InMemory;

impl StoreBuilder<TypeConfig, Journal, Machine> for InMemory {
    async fn build(&self) -> Result<((), Journal, Machine), StorageError> {
        let (content, disk) = (Content::default(), Arc::new(NoDisk));
        Ok(((), Journal::new(&content, disk.clone()), Machine::new(&content, disk).unwrap()))
    }
}

struct OnDisk;

impl StoreBuilder<TypeConfig, Journal, Machine, tempfile::TempDir> for OnDisk {
    async fn build(&self) -> Result<(tempfile::TempDir, Journal, Machine), StorageError> {
        let folder = tempfile::tempdir().unwrap();
        let (disk, _, content) = FileDisk::open(&folder.path().join("raft"), || OWNER).unwrap();
        let disk = Arc::new(disk);
        let machine = Machine::new(&content, disk.clone()).unwrap();
        Ok((folder, Journal::new(&content, disk), machine))
    }
}

#[test]
fn the_storage_in_memory_passes_the_tests_of_raft() {
    Suite::test_all(InMemory).unwrap();
}

#[test]
fn the_storage_on_disk_passes_the_tests_of_raft() {
    Suite::test_all(OnDisk).unwrap();
}

fn id(index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(3, 1), index)
}

fn entry(index: u64) -> LogEntry {
    let tick = dvs_state::Entry::new(dvs_state::Time(index), &dvs_state::Command::Tick).unwrap();
    LogEntry { log_id: id(index), payload: EntryPayload::Normal(Proposal::new(tick)) }
}

fn tokio() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

#[test]
fn a_member_that_restarts_finds_what_it_was_told_is_safe() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("raft");
    let (disk, owner, _) = FileDisk::open(&path, || OWNER).unwrap();
    assert_eq!(owner, OWNER);
    let disk = Arc::new(disk);
    let vote = Vote::new_committed(3, 1);
    let changes = vec![
        Change::Vote(vote),
        Change::Append((0..10).map(entry).collect()),
        Change::Truncate(8),
        Change::Append(vec![entry(8)]),
        Change::Committed(Some(id(7))),
        Change::Purge(id(2)),
    ];
    tokio().block_on(async {
        for change in changes {
            disk::write(&*disk, change).await.unwrap();
        }
        let machine = Machine::new(&Content::default(), disk.clone());
        let mut machine = machine.unwrap();
        machine.apply((0..6).map(entry)).await.unwrap();
        machine.build_snapshot().await.unwrap();
    });
    drop(disk);
    let (_, owner, content) = FileDisk::open(&path, || panic!("the file is not new")).unwrap();
    assert_eq!(owner, OWNER);
    assert_eq!(
        (content.vote, content.committed, content.purged),
        (Some(vote), Some(id(7)), Some(id(2)))
    );
    assert_eq!(content.log.keys().copied().collect::<Vec<_>>(), [3, 4, 5, 6, 7, 8]);
    let machine = Machine::new(&content, Arc::new(NoDisk)).unwrap();
    assert_eq!(machine.look(|state| (state.applied(), state.now())), (5, dvs_state::Time(5)));
    assert_eq!(*machine.progress().borrow(), 5);
}

#[test]
fn a_snapshot_of_many_pieces_comes_back_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("raft");
    let bytes: Vec<u8> = (0..1_000_000u32).map(|n| (n.wrapping_mul(n) >> 3) as u8).collect();
    for length in [1_000_000, 300_000] {
        let (disk, ..) = FileDisk::open(&path, || OWNER).unwrap();
        let meta = crate::types::SnapshotMeta::default();
        let snapshot = disk::StoredSnapshot { meta, bytes: bytes[..length].to_vec() };
        tokio().block_on(disk::write(&disk, Change::Snapshot(snapshot))).unwrap();
        drop(disk);
        let (_, _, content) = FileDisk::open(&path, || OWNER).unwrap();
        assert!(content.snapshot.unwrap().bytes == bytes[..length]);
    }
}

#[test]
fn a_damaged_file_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("raft");
    let (disk, ..) = FileDisk::open(&path, || OWNER).unwrap();
    tokio().block_on(async {
        disk::write(&disk, Change::Append(vec![entry(0), entry(1), entry(3)])).await.unwrap();
    });
    drop(disk);
    let refused = FileDisk::open(&path, || OWNER).unwrap_err();
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
    std::fs::write(&path, b"not a database").unwrap();
    let refused = FileDisk::open(&path, || OWNER).unwrap_err();
    assert!(matches!(refused, OpenError::Io { .. }), "{refused}");
}

#[test]
fn changes_are_safe_in_the_order_in_which_they_were_given() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, ..) = FileDisk::open(&folder.path().join("raft"), || OWNER).unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    for index in 0..1_000 {
        let order = Arc::clone(&order);
        let done = Box::new(move |result: std::io::Result<()>| {
            result.unwrap();
            order.lock().unwrap().push(index);
        });
        disk.write(Change::Append(vec![entry(index)]), done);
    }
    drop(disk);
    assert_eq!(*order.lock().unwrap(), (0..1_000).collect::<Vec<_>>());
}
