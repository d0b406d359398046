// SPDX-License-Identifier: MIT OR Apache-2.0
//! File systems on a disk server: one in the same thread, reached by function calls.

use core::num::NonZeroU32;
use core::time::Duration;
use dvk::{Endpoint, GrantId, Granted, How, Ipc, Message, Received, Then, Timeout};
use mol_fs::disk::{Disk, Remote};
use mol_fs::format::{make, ROOT};
use mol_fs::volume::{New, Options, User};
use mol_fs::{Error, Volume};
use mol_protocol::block::BlockDevice;
use mol_protocol::Errno;
use mol_vdd::client::{DiskError, Finder};
use mol_vdd::lend::Lend;
use mol_vdd::server::{Outside, Server};
use mol_vdd::store::MemoryStore;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

const SERVER: Endpoint = Endpoint::new(5, NonZeroU32::MIN);
const PATIENCE: Duration = Duration::from_secs(1);

/// What the server and its clients share.
#[derive(Default)]
struct World {
    now: Cell<Duration>,
    memory: RefCell<BTreeMap<u64, Vec<u8>>>,
    next: Cell<u64>,
    server: RefCell<Option<Server<Reach>>>,
}

struct Reach(Rc<World>);

impl Outside for Reach {
    fn now(&self) -> Duration {
        self.0.now.get()
    }

    fn copy_from(&self, from: Granted, into: &mut [u8]) -> Result<(), Errno> {
        let memory = self.0.memory.borrow();
        let bytes = memory.get(&from.grant.raw()).ok_or(Errno::Fault)?;
        into.copy_from_slice(&bytes[from.offset as usize..][..into.len()]);
        Ok(())
    }

    fn copy_to(&self, to: Granted, from: &[u8]) -> Result<(), Errno> {
        let mut memory = self.0.memory.borrow_mut();
        let bytes = memory.get_mut(&to.grant.raw()).ok_or(Errno::Fault)?;
        bytes[to.offset as usize..][..from.len()].copy_from_slice(from);
        Ok(())
    }

    fn is_gone(&self, _: Endpoint) -> bool {
        false
    }
}

/// A client of the disk server.
struct Desk {
    world: Rc<World>,
    me: Endpoint,
}

impl Ipc for Desk {
    type Error = Errno;

    fn send(&self, _: Endpoint, _: &Message, _: Timeout) -> Result<(), Errno> {
        Err(Errno::Invalid)
    }

    fn sendrec(&self, _: Endpoint, message: &Message, _: Timeout) -> Result<Message, Errno> {
        let message = Message { source: self.me.raw(), ..*message };
        let mut server = self.world.server.borrow_mut();
        let server = server.as_mut().ok_or(Errno::Io)?;
        match BlockDevice::handle(server, &Received { message, how: How::Request }) {
            Then::Reply(reply) => Ok(reply),
            _ => server.take_out().replies.pop().map(|(_, reply)| reply).ok_or(Errno::Io),
        }
    }

    fn reply(&self, _: Endpoint, _: &Message) -> Result<(), Errno> {
        Err(Errno::Invalid)
    }

    fn notify(&self, _: Endpoint, _: u64) -> Result<(), Errno> {
        Err(Errno::Invalid)
    }
}

impl Lend for Desk {
    fn lend<R>(
        &self,
        to: Endpoint,
        memory: &[u8],
        work: impl FnOnce(GrantId) -> R,
    ) -> Result<R, Errno> {
        self.lend_mut(to, &mut memory.to_vec(), work)
    }

    fn lend_mut<R>(
        &self,
        _: Endpoint,
        memory: &mut [u8],
        work: impl FnOnce(GrantId) -> R,
    ) -> Result<R, Errno> {
        let grant = self.world.next.get() + 1;
        self.world.next.set(grant);
        self.world.memory.borrow_mut().insert(grant, memory.to_vec());
        let done = work(GrantId::from_raw(grant));
        let lent = self.world.memory.borrow_mut().remove(&grant).expect("it is lent");
        memory.copy_from_slice(&lent);
        Ok(done)
    }
}

struct Find(Rc<World>);

impl Finder for Find {
    fn find(&self) -> Option<Endpoint> {
        Some(SERVER)
    }

    fn now(&self) -> Duration {
        self.0.now.get()
    }

    fn pause(&self, time: Duration) {
        self.0.now.set(self.0.now.get() + time);
    }
}

/// A disk server with one device.
fn world(bytes: u64, block_bytes: u32) -> Rc<World> {
    let world = Rc::new(World::default());
    let mut server = Server::new(SERVER, Reach(world.clone()));
    server.add(Box::new(MemoryStore::new(bytes, block_bytes).unwrap()));
    *world.server.borrow_mut() = Some(server);
    world
}

fn desk(world: &Rc<World>, slot: u32) -> Desk {
    Desk { world: world.clone(), me: Endpoint::new(slot, NonZeroU32::MIN) }
}

fn open(desk: &Desk, read_only: bool) -> Result<Remote<'_, Desk, Find>, DiskError> {
    Remote::open(desk, Find(desk.world.clone()), 0, read_only, PATIENCE)
}

#[test]
fn a_file_system_lives_on_a_device_whatever_its_blocks() {
    // The superblock has a block of its own, is a part of one, and shares it with the maps.
    for block_bytes in [512, 1024, 4096, 16_384] {
        let world = world(4 << 20, block_bytes);
        let one = desk(&world, 70);
        let mut remote = open(&one, false).unwrap();
        make(&mut remote, 1024, 64, 0).unwrap();
        let mut volume = Volume::mount(remote, Options::default()).unwrap();
        let file = volume.make(&User::SUPERUSER, ROOT, b"f", 0o644, New::File).unwrap();
        let content: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
        assert_eq!(volume.write(file, 0, &content), Ok(content.len()));
        drop(volume.unmount().map_err(|(_, error)| error).unwrap());

        // Another one has it next, since the first has closed it.
        let other = desk(&world, 71);
        let options = Options { read_only: true, ..Options::default() };
        let mut volume = Volume::mount(open(&other, true).unwrap(), options).unwrap();
        assert!(volume.check().unwrap().is_sound());
        let mut read = vec![0; content.len()];
        assert_eq!(volume.read(file, 0, &mut read), Ok(read.len()));
        assert!(read == content, "blocks of {block_bytes} bytes");
    }
}

#[test]
fn parts_of_blocks_are_written_and_nothing_else() {
    let world = world(1 << 20, 4096);
    let one = desk(&world, 70);
    let mut remote = open(&one, false).unwrap();
    remote.write(0, &[1; 12_288]).unwrap();
    remote.write(4000, &[2; 200]).unwrap();
    let mut content = vec![9; 12_288];
    remote.read(0, &mut content).unwrap();
    let expected = [vec![1; 4000], vec![2; 200], vec![1; 8088]].concat();
    assert_eq!(content, expected);
    let mut part = [0; 5];
    remote.read(3998, &mut part).unwrap();
    assert_eq!(part, [1, 1, 2, 2, 2]);
    assert!(remote.read((1 << 20) - 2, &mut part).is_err(), "behind the end");
    assert!(remote.write(u64::MAX - 1, &part).is_err());
}

#[test]
fn who_writes_a_device_has_it_alone() {
    let world = world(1 << 20, 512);
    let (one, other) = (desk(&world, 70), desk(&world, 71));
    let held = open(&one, false).unwrap();
    assert!(open(&other, false).is_err());
    drop(held);
    assert!(open(&other, false).is_ok());
}

#[test]
fn a_device_whose_server_ends_is_a_disk_that_fails() {
    let world = world(1 << 20, 512);
    let one = desk(&world, 70);
    let mut remote = open(&one, false).unwrap();
    make(&mut remote, 1024, 64, 0).unwrap();
    let mut volume = Volume::mount(remote, Options::default()).unwrap();
    volume.make(&User::SUPERUSER, ROOT, b"f", 0o644, New::File).unwrap();
    *world.server.borrow_mut() = None;
    let error = volume.sync().unwrap_err();
    assert!(matches!(error, Error::Disk(_)), "{error}");
    assert_eq!(error.errno(), Errno::Io);
    assert_eq!(volume.sync(), Err(Error::Failed));
}
