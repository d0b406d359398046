// SPDX-License-Identifier: MIT OR Apache-2.0
//! A file server, its clients and their memory in one thread, without a kernel.

use core::num::NonZeroU32;
use dvk::{Endpoint, GrantId, Granted, How, Ipc, Message, Received, Then, Timeout};
use mol_fs::disk::{Attempt, Disk, DiskError, Memory};
use mol_fs::format::make;
use mol_fs::server::{OpenError, Outside, Server};
use mol_protocol::file::{Attributes, FileClient, FileId, FileServer, NodeId, Who};
use mol_protocol::{file, Errno};
use mol_vdd::lend::Lend;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Why there is no exchange.
#[derive(Debug)]
pub(crate) struct Gone;

impl core::fmt::Display for Gone {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("nobody is there")
    }
}

pub(crate) type CallError = dvk::CallError<Errno, Gone>;

/// Memory that is lent, and whether for writing.
type Lent = (bool, Vec<u8>);

/// What is around the server.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) seconds: Cell<u32>,
    next: Cell<u32>,
    /// What is lent: by whom and as which grant.
    memory: RefCell<BTreeMap<(u64, u64), Lent>>,
    dead: RefCell<BTreeSet<Endpoint>>,
    disks: RefCell<BTreeMap<String, Rc<RefCell<Platter>>>>,
}

/// A disk that outlives its mounts.
pub(crate) struct Platter {
    pub(crate) disk: Memory,
    pub(crate) fails: bool,
}

#[derive(Clone)]
struct Shared(Rc<RefCell<Platter>>, bool);

impl Shared {
    fn check(&self, attempt: Attempt) -> Result<(), DiskError> {
        match self.0.borrow().fails {
            true => Err(DiskError::new(attempt, 0, 0, "it was told to")),
            false => Ok(()),
        }
    }
}

impl Disk for Shared {
    fn bytes(&self) -> u64 {
        self.0.borrow().disk.bytes()
    }

    fn is_read_only(&self) -> bool {
        self.1
    }

    fn read(&mut self, position: u64, into: &mut [u8]) -> Result<(), DiskError> {
        self.check(Attempt::Read)?;
        self.0.borrow_mut().disk.read(position, into)
    }

    fn write(&mut self, position: u64, from: &[u8]) -> Result<(), DiskError> {
        self.check(Attempt::Write)?;
        self.0.borrow_mut().disk.write(position, from)
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        self.check(Attempt::Flush)
    }
}

/// The world, as the server reaches it.
pub(crate) struct Reach(Rc<World>);

impl Outside for Reach {
    fn seconds(&self) -> u32 {
        self.0.seconds.get()
    }

    fn copy_from(&self, from: Granted, into: &mut [u8]) -> Result<(), Errno> {
        let memory = self.0.memory.borrow();
        let lent = memory.get(&(from.endpoint.raw(), from.grant.raw()));
        let (_, bytes) = lent.filter(|lent| !lent.0).ok_or(Errno::Fault)?;
        let range = bytes.get(from.offset as usize..).and_then(|it| it.get(..into.len()));
        into.copy_from_slice(range.ok_or(Errno::Fault)?);
        Ok(())
    }

    fn copy_to(&self, to: Granted, from: &[u8]) -> Result<(), Errno> {
        let mut memory = self.0.memory.borrow_mut();
        let lent = memory.get_mut(&(to.endpoint.raw(), to.grant.raw()));
        let (_, bytes) = lent.filter(|lent| lent.0).ok_or(Errno::Fault)?;
        let range = bytes.get_mut(to.offset as usize..).and_then(|it| it.get_mut(..from.len()));
        range.ok_or(Errno::Fault)?.copy_from_slice(from);
        Ok(())
    }

    fn is_gone(&self, client: Endpoint) -> bool {
        self.0.dead.borrow().contains(&client)
    }

    fn open(&self, label: &str, read_only: bool) -> Result<Box<dyn Disk>, OpenError> {
        let disks = self.0.disks.borrow();
        let disk = disks.get(label).ok_or_else(|| OpenError::unknown(label))?;
        Ok(Box::new(Shared(disk.clone(), read_only)))
    }
}

pub(crate) struct Lab {
    pub(crate) world: Rc<World>,
    pub(crate) server: Rc<RefCell<Server<Reach>>>,
}

pub(crate) const SERVER: Endpoint = Endpoint::new(9, NonZeroU32::MIN);

impl Lab {
    /// A server without mounts, and an empty file system on each of these disks.
    pub(crate) fn new(labels: &[&str]) -> Self {
        let world = Rc::new(World::default());
        world.next.set(100);
        world.seconds.set(1000);
        for label in labels {
            let mut disk = Memory::new(1 << 20);
            make(&mut disk, 1024, 128, 1000).unwrap();
            let platter = Rc::new(RefCell::new(Platter { disk, fails: false }));
            world.disks.borrow_mut().insert((*label).to_owned(), platter);
        }
        let server = Rc::new(RefCell::new(Server::new(Reach(world.clone()), 1 << 20)));
        Self { world, server }
    }

    /// The same with all of them mounted, the first one as the first.
    pub(crate) fn mounted(labels: &[&str]) -> Self {
        let lab = Self::new(labels);
        for label in labels {
            lab.server.borrow_mut().mount_label(label, false).unwrap();
        }
        lab.news();
        lab
    }

    pub(crate) fn platter(&self, label: &str) -> Rc<RefCell<Platter>> {
        self.world.disks.borrow()[label].clone()
    }

    pub(crate) fn add_disk(&self, label: &str, disk: Memory) {
        let platter = Rc::new(RefCell::new(Platter { disk, fails: false }));
        self.world.disks.borrow_mut().insert(label.to_owned(), platter);
    }

    pub(crate) fn news(&self) -> Vec<String> {
        self.server.borrow_mut().take_news().iter().map(ToString::to_string).collect()
    }

    pub(crate) fn client(&self) -> Desk {
        let next = self.world.next.get() + 1;
        self.world.next.set(next);
        let me = Endpoint::new(next, NonZeroU32::MIN);
        Desk { world: self.world.clone(), server: self.server.clone(), me }
    }
}

/// A client.
pub(crate) struct Desk {
    world: Rc<World>,
    server: Rc<RefCell<Server<Reach>>>,
    pub(crate) me: Endpoint,
}

impl core::fmt::Debug for Desk {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Desk({})", self.me)
    }
}

impl Ipc for Desk {
    type Error = Gone;

    fn send(&self, _: Endpoint, _: &Message, _: Timeout) -> Result<(), Gone> {
        Err(Gone)
    }

    fn sendrec(&self, to: Endpoint, message: &Message, _: Timeout) -> Result<Message, Gone> {
        if to != SERVER {
            return Err(Gone);
        }
        let message = Message { source: self.me.raw(), ..*message };
        match self.server.borrow_mut().handle(&Received { message, how: How::Request }) {
            Then::Reply(reply) => Ok(reply),
            other => panic!("{other:?}, where a reply is due"),
        }
    }

    fn reply(&self, _: Endpoint, _: &Message) -> Result<(), Gone> {
        Err(Gone)
    }

    fn notify(&self, _: Endpoint, _: u64) -> Result<(), Gone> {
        Err(Gone)
    }
}

impl Lend for Desk {
    fn lend<R>(
        &self,
        _: Endpoint,
        memory: &[u8],
        work: impl FnOnce(GrantId) -> R,
    ) -> Result<R, Gone> {
        Ok(self.lend_bytes(false, memory.to_vec(), work).0)
    }

    fn lend_mut<R>(
        &self,
        _: Endpoint,
        memory: &mut [u8],
        work: impl FnOnce(GrantId) -> R,
    ) -> Result<R, Gone> {
        let (done, bytes) = self.lend_bytes(true, memory.to_vec(), work);
        memory.copy_from_slice(&bytes);
        Ok(done)
    }
}

/// The superuser.
pub(crate) const ROOT: Who = Who::new(0, 0);

impl Desk {
    pub(crate) fn ask(&self) -> FileClient<'_, Self> {
        FileClient::new(self, SERVER)
    }

    fn lend_bytes<R>(
        &self,
        writes: bool,
        bytes: Vec<u8>,
        work: impl FnOnce(GrantId) -> R,
    ) -> (R, Vec<u8>) {
        let next = self.world.next.get() + 1;
        self.world.next.set(next);
        let grant = GrantId::from_raw(next.into());
        let key = (self.me.raw(), grant.raw());
        self.world.memory.borrow_mut().insert(key, (writes, bytes));
        let done = work(grant);
        (done, self.world.memory.borrow_mut().remove(&key).expect("it is lent").1)
    }

    pub(crate) fn lend<R>(&self, bytes: &[u8], work: impl FnOnce(GrantId) -> R) -> R {
        self.lend_bytes(false, bytes.to_vec(), work).0
    }

    pub(crate) fn lend_mut<R>(
        &self,
        bytes: usize,
        work: impl FnOnce(GrantId) -> R,
    ) -> (R, Vec<u8>) {
        self.lend_bytes(true, vec![0xaa; bytes], work)
    }

    /// It ends, and the server is told.
    pub(crate) fn die(self) {
        self.server.borrow_mut().forget(self.me);
    }

    /// It ends, and the server could find out.
    pub(crate) fn vanish(self) {
        self.world.dead.borrow_mut().insert(self.me);
    }

    pub(crate) fn root(&self) -> NodeId {
        let root = file::GetRoot { label: GrantId::NONE, label_bytes: 0 };
        self.ask().root(&root).unwrap().node
    }

    pub(crate) fn lookup_as(
        &self,
        directory: NodeId,
        name: &str,
        who: Who,
    ) -> Result<Attributes, Option<Errno>> {
        let name_bytes = name.len() as u16;
        let ask = |name| file::Lookup { directory, name, name_bytes, who };
        self.lend(name.as_bytes(), |name| self.ask().lookup(&ask(name))).map_err(refusal)
    }

    pub(crate) fn lookup(
        &self,
        directory: NodeId,
        name: &str,
    ) -> Result<Attributes, Option<Errno>> {
        self.lookup_as(directory, name, ROOT)
    }

    pub(crate) fn create_as(
        &self,
        directory: NodeId,
        name: &str,
        mode: u16,
        who: Who,
    ) -> Result<Attributes, Option<Errno>> {
        let name_bytes = name.len() as u16;
        let ask = |name| file::Create { directory, name, name_bytes, mode, who };
        self.lend(name.as_bytes(), |name| self.ask().create(&ask(name))).map_err(refusal)
    }

    pub(crate) fn create(&self, directory: NodeId, name: &str) -> NodeId {
        self.create_as(directory, name, 0o644, ROOT).unwrap().node
    }

    pub(crate) fn make_directory(&self, directory: NodeId, name: &str) -> NodeId {
        let (name_bytes, mode) = (name.len() as u16, 0o755);
        let ask = |name| file::MakeDirectory { directory, name, name_bytes, mode, who: ROOT };
        self.lend(name.as_bytes(), |name| self.ask().make_directory(&ask(name))).unwrap().node
    }

    pub(crate) fn unlink(&self, directory: NodeId, name: &str) -> Result<(), Option<Errno>> {
        let name_bytes = name.len() as u16;
        let ask = |name| file::Unlink { directory, name, name_bytes, who: ROOT };
        self.lend(name.as_bytes(), |name| self.ask().unlink(&ask(name))).map_err(refusal)
    }

    pub(crate) fn rename(
        &self,
        (from, old): (NodeId, &str),
        (to, new): (NodeId, &str),
    ) -> Result<(), Option<Errno>> {
        let (old_bytes, new_bytes) = (old.len() as u8, new.len() as u8);
        let ask = |names| {
            let (flags, who) = (0, ROOT);
            file::Rename { from, to, names, old_bytes, new_bytes, flags, who }
        };
        let names = [old, new].concat();
        self.lend(names.as_bytes(), |names| self.ask().rename(&ask(names))).map_err(refusal)
    }

    pub(crate) fn open(&self, node: NodeId, flags: u32) -> Result<FileId, Option<Errno>> {
        self.ask().open(&file::Open { node, flags, who: ROOT }).map_err(refusal)
    }

    pub(crate) fn write(
        &self,
        file: FileId,
        position: u64,
        data: &[u8],
    ) -> Result<u32, Option<Errno>> {
        let bytes = data.len() as u32;
        let ask = |from| file::Write { file, position, from, offset: 0, bytes };
        self.lend(data, |from| self.ask().write(&ask(from))).map_err(refusal)
    }

    pub(crate) fn read(
        &self,
        file: FileId,
        position: u64,
        bytes: u32,
    ) -> Result<Vec<u8>, Option<Errno>> {
        let ask = |into| file::Read { file, position, into, offset: 0, bytes };
        let (done, mut data) = self.lend_mut(bytes as usize, |into| self.ask().read(&ask(into)));
        data.truncate(done.map_err(refusal)? as usize);
        Ok(data)
    }

    pub(crate) fn free(&self, node: NodeId) -> (u64, u32) {
        let of = self.ask().file_system(&file::GetFileSystem { node }).unwrap();
        (of.blocks_free, of.inodes_free)
    }
}

/// Why it was refused; `None` if the protocol does not name the reason.
pub(crate) fn refusal(error: CallError) -> Option<Errno> {
    error.refusal()
}
