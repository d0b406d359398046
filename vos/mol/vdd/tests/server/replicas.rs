// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devices with replicas: what a client sees of failures.

use crate::lab::{Desk, Lab};
use core::time::Duration;
use dvk::{CallError, Timeout};
use mol_protocol::block::{self, OPEN_WRITE};
use mol_protocol::replica::{Feed, Greet, ReplicaClient, SETS_BYTES};
use mol_protocol::Errno;
use mol_vdd::board::BoardError;
use mol_vdd::client::DiskError;
use mol_vdd::ledger::Ledger;
use mol_vdd::lend::Lend;
use mol_vdd::replica::{Notice, Regions, ReplicaId, Standing};
use mol_vdd::store::{FileStore, Intent, MemoryStore, Safety, Shape, Store, StoreError};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

/// More than 64 regions: with fewer, a record may have all of them.
const BYTES: u64 = 1 << 23;

fn memory() -> Box<dyn Store> {
    Box::new(MemoryStore::new(BYTES, 512).unwrap())
}

fn file(path: &Path) -> Box<dyn Store> {
    let store = match path.exists() {
        true => FileStore::open(path, Intent::Write),
        false => FileStore::create(path, BYTES),
    };
    Box::new(store.unwrap())
}

fn image(folder: &tempfile::TempDir, id: u32) -> PathBuf {
    folder.path().join(format!("{id}.img"))
}

/// Waits until all of so many replicas are in step.
fn settle(lab: &Rc<Lab>, members: usize) {
    let desk = lab.client();
    for _ in 0..100 {
        lab.pass(Duration::from_millis(100));
        if let Ok(disk) = lab.disk(&desk, 0) {
            if usize::from(disk.geometry().replicas) == members {
                return;
            }
        }
    }
    panic!("{members} replicas are not in step: {:?}", lab.notices.borrow());
}

fn pattern(seed: u8) -> Vec<u8> {
    (0..4096_u32).map(|index| (index / 512) as u8 ^ seed).collect()
}

#[test]
fn a_client_goes_on_when_the_primary_ends_and_reads_what_was_answered() {
    let lab = Lab::new();
    let first = lab.start_replica(1, memory(), 1, Some(77)).unwrap();
    let second = lab.start_replica(2, memory(), 2, None).unwrap();
    settle(&lab, 2);
    let desk: Desk = lab.client();
    let mut disk = lab.disk(&desk, OPEN_WRITE).unwrap();
    assert_eq!(disk.geometry().bytes, BYTES - 8192, "a record has its place");
    for round in 0..20_u8 {
        disk.write(u64::from(round) * 4096, &pattern(round), round % 3 == 0).unwrap();
    }
    lab.kill(first);
    let mut back = vec![0; 4096];
    for round in 0..20_u8 {
        disk.read(u64::from(round) * 4096, &mut back).unwrap();
        assert!(back == pattern(round), "block {round}");
    }
    assert_eq!(disk.geometry().replicas, 1);
    disk.write(0, &pattern(99), false).unwrap();
    disk.flush().unwrap();
    // What comes back in place of the first has nothing, and gets all.
    lab.start_replica(1, memory(), 1, None).unwrap();
    settle(&lab, 2);
    lab.kill(second);
    disk.read(0, &mut back).unwrap();
    assert!(back == pattern(99));
}

#[test]
fn a_replica_whose_server_only_ended_gets_what_it_lacks() {
    let (lab, folder) = (Lab::new(), tempfile::tempdir().unwrap());
    lab.start_replica(1, file(&image(&folder, 1)), 1, Some(77)).unwrap();
    let second = lab.start_replica(2, file(&image(&folder, 2)), 2, None).unwrap();
    settle(&lab, 2);
    let desk = lab.client();
    let mut disk = lab.disk(&desk, OPEN_WRITE).unwrap();
    disk.write(0, &pattern(1), false).unwrap();
    disk.write(BYTES / 2, &pattern(2), false).unwrap();
    // A flush settles what was written if all know by then that all are in step, and they are told with the next beats.
    lab.pass(Duration::from_millis(200));
    disk.flush().unwrap();
    lab.pass(Duration::from_millis(200));
    lab.kill(second);
    disk.write(BYTES / 2, &pattern(3), false).unwrap();
    lab.pass(Duration::from_secs(2));
    lab.notices.borrow_mut().clear();
    lab.start_replica(2, file(&image(&folder, 2)), 2, None).unwrap();
    settle(&lab, 2);
    let filling = |(_, notice): &(_, Notice)| match notice {
        Notice::Filling { regions, .. } => Some(*regions),
        _ => None,
    };
    let filled: Vec<_> = lab.notices.borrow().iter().filter_map(filling).collect();
    let regions = (BYTES / 65_536) as u32;
    let is_whole =
        |(_, notice): &(_, Notice)| matches!(notice, Notice::Filled { replica: ReplicaId(2) });
    assert_eq!(lab.notices.borrow().iter().filter(|it| is_whole(it)).count(), 1);
    let few = 1..regions / 2;
    assert!(matches!(filled[..], [count] if few.contains(&count)), "{filled:?} of {regions}");
    disk.flush().unwrap();
    let bytes = Ledger::device_bytes(&Shape { bytes: BYTES, block_bytes: 512, writable: true });
    let read = |id| std::fs::read(image(&folder, id)).unwrap()[..bytes as usize].to_vec();
    assert!(read(1) == read(2), "the replicas differ");
    assert!(read(1)[BYTES as usize / 2..][..4096] == pattern(3));
}

#[test]
fn a_device_goes_on_after_all_of_its_servers_were_away() {
    let (lab, folder) = (Lab::new(), tempfile::tempdir().unwrap());
    let first = lab.start_replica(1, file(&image(&folder, 1)), 1, Some(77)).unwrap();
    let second = lab.start_replica(2, file(&image(&folder, 2)), 2, None).unwrap();
    settle(&lab, 2);
    let desk = lab.client();
    let mut disk = lab.disk(&desk, OPEN_WRITE).unwrap();
    disk.write(0, &pattern(1), false).unwrap();
    lab.kill(second);
    lab.pass(Duration::from_secs(2));
    disk.write(4096, &pattern(2), false).unwrap();
    disk.flush().unwrap();
    lab.kill(first);
    // Only the first has everything; with the second alone there is no device.
    lab.start_replica(2, file(&image(&folder, 2)), 2, None).unwrap();
    let error = disk.read(0, &mut [0; 512]).unwrap_err();
    assert!(matches!(error, DiskError::NoServer { .. }), "{error}");
    lab.start_replica(1, file(&image(&folder, 1)), 5, None).unwrap();
    settle(&lab, 2);
    let mut back = vec![0; 4096];
    disk.read(4096, &mut back).unwrap();
    assert!(back == pattern(2));
}

#[test]
fn a_device_that_is_begun_anew_takes_nothing_for_granted() {
    let folder = tempfile::tempdir().unwrap();
    let write = |lab: &Rc<Lab>, seed: u8| {
        let desk = lab.client();
        let mut disk = lab.disk(&desk, OPEN_WRITE).unwrap();
        disk.write(0, &pattern(seed), false).unwrap();
        lab.pass(Duration::from_millis(200));
        disk.flush().unwrap();
        lab.pass(Duration::from_millis(200));
    };
    // The second one went on alone, when the keys of the container were lost.
    let lab = Lab::new();
    let first = lab.start_replica(1, file(&image(&folder, 1)), 1, Some(77)).unwrap();
    let second = lab.start_replica(2, file(&image(&folder, 2)), 2, None).unwrap();
    settle(&lab, 2);
    write(&lab, 1);
    lab.kill(first);
    lab.pass(Duration::from_secs(2));
    write(&lab, 2);
    lab.kill(second);
    let lab = Lab::new();
    lab.start_replica(1, file(&image(&folder, 1)), 1, Some(78)).unwrap();
    lab.pass(Duration::from_millis(500));
    lab.start_replica(2, file(&image(&folder, 2)), 2, None).unwrap();
    settle(&lab, 2);
    let all = Regions::of(BYTES - 8192).count();
    let is_full = |(_, notice): &(_, Notice)| matches!(notice, Notice::Filling { regions, .. } if *regions == all);
    assert!(lab.notices.borrow().iter().any(is_full));
    let read = |id| std::fs::read(image(&folder, id)).unwrap()[..4096].to_vec();
    assert!((read(1), read(2)) == (pattern(1), pattern(1)));
}

#[test]
fn an_answer_that_nobody_waits_for_is_not_given_to_who_asks_something_else() {
    let lab = Lab::new();
    let first = lab.start_replica(1, memory(), 1, Some(77)).unwrap();
    lab.start_replica(2, memory(), 2, None).unwrap();
    settle(&lab, 2);
    let desk = lab.client();
    lab.disk(&desk, OPEN_WRITE).unwrap();
    let within = |ms| block::BlockClient::new(&desk, first).within(Timeout::from_millis(ms));
    // The write waits for a replica that is not heard, and the client gives up.
    lab.cut.borrow_mut().insert(ReplicaId(2));
    let asked = desk.lend(first, &pattern(1), |from| {
        let write = block::Write { minor: 0, bytes: 4096, position: 0, from, offset: 0, flags: 0 };
        within(50).write(&write)
    });
    assert_eq!(asked.unwrap(), Err(CallError::Exchange(dvk::Errno::TimedOut)));
    assert_eq!(within(5000).flush(&block::Flush { minor: 0 }), Ok(()));
}

#[test]
fn a_backup_that_is_not_heard_is_left_behind_and_comes_back() {
    let lab = Lab::new();
    lab.start_replica(1, memory(), 1, Some(77)).unwrap();
    lab.start_replica(2, memory(), 2, None).unwrap();
    lab.start_replica(3, memory(), 3, None).unwrap();
    settle(&lab, 3);
    let desk = lab.client();
    let mut disk = lab.disk(&desk, OPEN_WRITE).unwrap();
    lab.cut.borrow_mut().insert(ReplicaId(3));
    disk.write(0, &pattern(4), false).expect("it is answered without the third");
    let other = lab.client();
    assert_eq!(lab.disk(&other, 0).unwrap().geometry().replicas, 2);
    lab.cut.borrow_mut().clear();
    settle(&lab, 3);
}

#[test]
fn a_primary_that_was_cut_off_answers_nobody_once_another_may_serve() {
    let lab = Lab::new();
    let first = lab.start_replica(1, memory(), 1, Some(77)).unwrap();
    let second = lab.start_replica(2, memory(), 2, None).unwrap();
    settle(&lab, 2);
    let (desk, old_desk) = (lab.client(), lab.client());
    let mut disk = lab.disk(&desk, OPEN_WRITE).unwrap();
    disk.write(0, &pattern(1), false).unwrap();
    let mut old = lab.disk(&old_desk, OPEN_WRITE).unwrap();
    lab.cut.borrow_mut().insert(ReplicaId(1));
    lab.pass(Duration::from_secs(5));
    disk.read(0, &mut [0; 512]).expect("the other one serves");
    assert_eq!(disk.geometry().replicas, 1);
    disk.write(0, &pattern(2), false).unwrap();
    // The old one does not know, and does not answer either.
    let machine = lab.machine(first).unwrap();
    assert!(machine.borrow().server.clients().contains(&old_desk.me), "it still has its clients");
    let mut back = vec![0; 4096];
    let asked = old_desk.lend_mut(first, &mut back, |into| {
        let read = block::Read { minor: 0, bytes: 4096, position: 0, into, offset: 0 };
        let client = block::BlockClient::new(&old_desk, first);
        client.within(Timeout::After(Duration::from_secs(2))).read(&read)
    });
    assert_eq!(asked.unwrap(), Err(CallError::Exchange(dvk::Errno::TimedOut)));
    old.read(0, &mut back).expect("the client finds the new one");
    assert!(back == pattern(2));
    // When it hears again it is behind, and nobody has anything open there, also not when it becomes the primary once more.
    lab.cut.borrow_mut().clear();
    settle(&lab, 2);
    lab.kill(second);
    lab.pass(Duration::from_secs(1));
    assert!(machine.borrow().server.clients().is_empty());
    disk.read(0, &mut back).unwrap();
    assert!(back == pattern(2));
}

/// A store whose disk fails when it is told to.
struct Failing(Box<dyn Store>, Arc<AtomicBool>);

impl Store for Failing {
    fn shape(&self) -> Shape {
        self.0.shape()
    }

    fn lasts(&self) -> bool {
        self.0.lasts()
    }

    fn read(&self, position: u64, into: &mut [u8]) -> Result<(), StoreError> {
        self.0.read(position, into)
    }

    fn write(&mut self, position: u64, from: &[u8], safety: Safety) -> Result<(), StoreError> {
        match self.1.load(Ordering::Relaxed) {
            true => Err(StoreError::NoMemory { bytes: from.len() }),
            false => self.0.write(position, from, safety),
        }
    }

    fn zero(&mut self, position: u64, bytes: u64) -> Result<(), StoreError> {
        self.0.zero(position, bytes)
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.0.flush()
    }
}

#[test]
fn a_disk_that_fails_is_left_out_wherever_it_is() {
    for failing in [1, 2] {
        let lab = Lab::new();
        let fails = Arc::new(AtomicBool::new(false));
        for id in [1, 2] {
            let store = match id == failing {
                true => Box::new(Failing(memory(), fails.clone())),
                false => memory(),
            };
            lab.start_replica(id, store, id.into(), (id == 1).then_some(77)).unwrap();
            lab.pass(Duration::from_millis(100));
        }
        settle(&lab, 2);
        let desk = lab.client();
        let mut disk = lab.disk(&desk, OPEN_WRITE).unwrap();
        fails.store(true, Ordering::Relaxed);
        disk.write(0, &pattern(7), false).expect("the other one has it");
        let mut back = vec![0; 4096];
        disk.read(0, &mut back).unwrap();
        assert!(back == pattern(7));
        assert_eq!(*lab.failed.borrow(), [ReplicaId(failing)]);
    }
}

#[test]
fn a_device_whose_only_disk_failed_says_so() {
    let lab = Lab::new();
    let fails = Arc::new(AtomicBool::new(false));
    let store = Box::new(Failing(memory(), fails.clone()));
    lab.start_replica(1, store, 1, Some(77)).unwrap();
    settle(&lab, 1);
    let desk = lab.client();
    let mut disk = lab.disk(&desk, OPEN_WRITE).unwrap();
    fails.store(true, Ordering::Relaxed);
    let errno = |result: Result<(), DiskError>| match result.unwrap_err() {
        DiskError::Refused { errno, .. } => errno,
        other => panic!("{other}"),
    };
    assert_eq!(errno(disk.write(0, &pattern(7), false)), Errno::NoMemory);
    fails.store(false, Ordering::Relaxed);
    assert_eq!(errno(disk.write(0, &pattern(7), false)), Errno::Io);
    assert_eq!(errno(disk.read(0, &mut [0; 512])), Errno::Io);
}

/// A store of which the first read takes longer than a lease.
struct Slow(Box<dyn Store>, Arc<AtomicU64>, Arc<AtomicU64>);

impl Store for Slow {
    fn shape(&self) -> Shape {
        self.0.shape()
    }

    fn lasts(&self) -> bool {
        self.0.lasts()
    }

    fn read(&self, position: u64, into: &mut [u8]) -> Result<(), StoreError> {
        let is_asked = into.len() == 4096 && position == 0;
        if is_asked && self.2.fetch_add(1, Ordering::Relaxed) == 0 {
            self.1.fetch_add(450, Ordering::Relaxed);
        }
        self.0.read(position, into)
    }

    fn write(&mut self, position: u64, from: &[u8], safety: Safety) -> Result<(), StoreError> {
        self.0.write(position, from, safety)
    }

    fn zero(&mut self, position: u64, bytes: u64) -> Result<(), StoreError> {
        self.0.zero(position, bytes)
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.0.flush()
    }
}

#[test]
fn what_was_read_when_another_one_could_have_taken_over_is_read_again() {
    let lab = Lab::new();
    let reads = Arc::new(AtomicU64::new(1));
    let slow = Slow(memory(), lab.late_ms.clone(), reads.clone());
    lab.start_replica(1, Box::new(slow), 1, Some(77)).unwrap();
    lab.start_replica(2, memory(), 2, None).unwrap();
    settle(&lab, 2);
    let desk = lab.client();
    let mut disk = lab.disk(&desk, OPEN_WRITE).unwrap();
    disk.write(0, &pattern(1), false).unwrap();
    reads.store(0, Ordering::Relaxed);
    let mut back = vec![0; 4096];
    disk.read(0, &mut back).unwrap();
    assert_eq!(reads.load(Ordering::Relaxed), 2);
    assert!(back == pattern(1));
}

#[test]
fn a_replica_hears_a_primary_and_nobody_else() {
    let lab = Lab::new();
    lab.start_replica(1, memory(), 1, Some(77)).unwrap();
    let second = lab.start_replica(2, memory(), 2, None).unwrap();
    settle(&lab, 2);
    let client = dvk_services::Client::by(lab.services.clone());
    let mut board = mol_vdd::board::Board::new(client, "disks", ReplicaId(0), lab.new_endpoint());
    let lineup = board.look(0).unwrap().lineup;
    let life = |id| lineup.members[&ReplicaId(id)].life.0;
    let desk = lab.client();
    let ask = |minor, to, epoch| {
        desk.lend_mut(second, &mut [0; SETS_BYTES], |sets| {
            let greet = Greet { minor, from: 1, life: life(1), to, epoch, feed: 1 << 40, sets };
            ReplicaClient::new(&desk, second).greet(&greet)
        })
        .unwrap()
    };
    let refused = |error: CallError<Errno, _>| error.refusal();
    assert_eq!(ask(1, life(2), lineup.epoch).map_err(refused), Err(Some(Errno::NoSuchDevice)));
    assert_eq!(ask(0, life(2) + 1, lineup.epoch).map_err(refused), Err(Some(Errno::Stale)));
    let fenced = ask(0, life(2), lineup.epoch - 1).unwrap();
    assert_eq!((fenced.fenced, fenced.has_begun), (lineup.epoch, false));
    let heard = ask(0, life(2), lineup.epoch).unwrap();
    assert_eq!((heard.fenced, heard.has_begun), (0, true));
    for row in [&[0; 39][..], &[0; 41]] {
        let fed = desk.lend(second, row, |grant| {
            let feed = Feed { minor: 0, bytes: row.len() as u32, row: grant };
            ReplicaClient::new(&desk, second).feed(&feed)
        });
        assert_eq!(fed.unwrap().map_err(refused), Err(Some(Errno::Invalid)));
    }
}

/// A store that a test looks into and changes behind the server's back.
struct Shared(Arc<std::sync::Mutex<MemoryStore>>);

impl Store for Shared {
    fn shape(&self) -> Shape {
        self.0.lock().unwrap().shape()
    }

    fn lasts(&self) -> bool {
        false
    }

    fn read(&self, position: u64, into: &mut [u8]) -> Result<(), StoreError> {
        self.0.lock().unwrap().read(position, into)
    }

    fn write(&mut self, position: u64, from: &[u8], safety: Safety) -> Result<(), StoreError> {
        self.0.lock().unwrap().write(position, from, safety)
    }

    fn zero(&mut self, position: u64, bytes: u64) -> Result<(), StoreError> {
        self.0.lock().unwrap().zero(position, bytes)
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[test]
fn a_scrub_finds_blocks_that_went_bad() {
    let lab = Lab::new();
    let first = lab.start_replica(1, memory(), 1, Some(77)).unwrap();
    let second = Arc::new(std::sync::Mutex::new(MemoryStore::new(BYTES, 512).unwrap()));
    let other = lab.start_replica(2, Box::new(Shared(second.clone())), 2, None).unwrap();
    settle(&lab, 2);
    let desk = lab.client();
    lab.disk(&desk, OPEN_WRITE).unwrap().write(65_536, &pattern(5), false).unwrap();
    let read = || {
        let mut back = vec![0; 4096];
        second.lock().unwrap().read(65_536, &mut back).unwrap();
        back
    };
    assert!(read() == pattern(5));
    second.lock().unwrap().write(65_536, &[0xbd; 512], Safety::AtFlush).unwrap();
    let ask = |server| block::BlockClient::new(&desk, server).scrub(&block::Scrub { minor: 0 });
    assert_eq!(ask(other).unwrap_err().refusal(), Some(Errno::Elsewhere));
    assert_eq!(ask(first), Ok(()));
    lab.pass(Duration::from_secs(5));
    assert!(read() == pattern(5));
    let differs =
        |(_, notice): &(_, Notice)| matches!(notice, Notice::Differs { position: 65_536, .. });
    assert_eq!(lab.notices.borrow().iter().filter(|it| differs(it)).count(), 1);
}

#[test]
fn decisions_survive_services_that_do_not_answer() {
    let lab = Lab::new();
    let first = lab.start_replica(1, memory(), 1, Some(77)).unwrap();
    lab.start_replica(2, memory(), 2, None).unwrap();
    settle(&lab, 2);
    let desk = lab.client();
    let mut disk = lab.disk(&desk, OPEN_WRITE).unwrap();
    // What was done without anybody's being told is found when it is looked at again.
    lab.services.keep_quiet_of(3);
    lab.kill(first);
    disk.write(0, &pattern(1), false).unwrap();
    assert_eq!(disk.geometry().replicas, 1);
}

#[test]
fn a_server_that_is_not_meant_is_told_so() {
    let lab = Lab::new();
    let none = lab.start_replica(1, memory(), 1, None).unwrap_err();
    assert!(matches!(none, BoardError::NoDevice { .. }), "{none}");
    let first = lab.start_replica(1, memory(), 1, Some(77)).unwrap();
    lab.start_replica(2, memory(), 2, None).unwrap();
    settle(&lab, 2);
    let client = dvk_services::Client::by(lab.services.clone());
    let me = lab.new_endpoint();
    let mut administrator = mol_vdd::board::Board::new(client, "disks", ReplicaId(0), me);
    let standing = |board: &mut mol_vdd::board::Board<_>, id| {
        let lineup = board.look(0).unwrap().lineup;
        lineup.members.get(&ReplicaId(id)).map(|member| member.standing)
    };
    assert_eq!(standing(&mut administrator, 2), Some(Standing::InStep));
    lab.services.be_late_for(2);
    assert!(administrator.remove(0, ReplicaId(2)).unwrap());
    assert!(!administrator.remove(0, ReplicaId(2)).unwrap(), "it is none any more");
    assert!(!administrator.remove(0, ReplicaId(1)).unwrap(), "the last one stays");
    assert_eq!(standing(&mut administrator, 2), None);
    assert_eq!(standing(&mut administrator, 1), Some(Standing::InStep));
    lab.pass(Duration::from_millis(100));
    assert_eq!(*lab.retired.borrow(), [ReplicaId(2)]);
    let desk = lab.client();
    lab.disk(&desk, OPEN_WRITE).unwrap().write(0, &pattern(1), false).unwrap();
    let smaller = Box::new(MemoryStore::new(BYTES / 2, 512).unwrap());
    let refused = lab.start_replica(3, smaller, 1, None).unwrap_err();
    assert!(matches!(refused, BoardError::Shape { .. }), "{refused}");
    // Two servers by one number: the later one is it.
    lab.start_replica(1, memory(), 1, None).unwrap();
    lab.pass(Duration::from_millis(100));
    assert_eq!(*lab.retired.borrow(), [ReplicaId(2), ReplicaId(1)]);
    assert!(lab.machine(first).is_none());
}
