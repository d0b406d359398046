// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests of Linux, answered by a server.

use crate::convert::{attributes, errno, file_type, groups, open_flags, set_time, told};
use crate::nodes::{Nodes, ROOT};
use dvk::{CallError, Endpoint, GrantId};
use fuser::{
    BsdFileFlags, Errno as Linux, FileAttr, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};
use mol_protocol::directory::Entries;
use mol_protocol::file::{
    self, Attributes, FileClient, FileId, FileSystem, NodeId, Who, GROUPS_MAX, OPEN_READ,
    RENAME_KEEP, TRANSFER_MAX,
};
use mol_protocol::Errno;
use mol_vdd::lend::Lend;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// How long Linux may believe what it was told: not at all, since others may change it.
const BELIEVED: Duration = Duration::ZERO;
/// The generation of every inode: while Linux knows a number, it is not another file's.
const GENERATION: Generation = Generation(0);
/// How many bytes of a directory are asked for at once.
const LIST_BYTES: usize = 16 << 10;

/// The most bytes that a Linux on another machine reads or writes at once: what sockets take in one piece.
pub const FAR_BYTES: u32 = 128 << 10;
/// What others need in the mode of a directory to make something in it.
const WRITE_AND_SEARCH: u16 = 0o003;

/// Linux has checked who may do what.
const CHECKED: Who = Who::new(0, 0);

/// Why there is no gateway to a server.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The server has no such mount, or does not answer.
    #[error("cannot reach the file system `{label}`: {reason}")]
    Root {
        /// Which mount.
        label: String,
        /// Why not.
        reason: String,
    },
    /// The root of the file system is none that FUSE can have.
    #[error("the root of the file system has the inode {0}; FUSE takes 1 only")]
    RootNumber(u32),
}

/// A mounted file system as Linux asks for it.
#[derive(Debug)]
pub struct Gateway<I> {
    ipc: I,
    server: Endpoint,
    block_bytes: u32,
    nodes: Mutex<Nodes>,
    /// Whether Linux is on another machine.
    is_far: bool,
}

type Result<T> = core::result::Result<T, Linux>;

impl<I: Lend> Gateway<I>
where
    I::Error: core::fmt::Display,
{
    /// The gateway to a mount of the server at this endpoint; to its first, if the label is empty.
    ///
    /// # Errors
    /// [`GatewayError`].
    pub fn new(ipc: I, server: Endpoint, label: &str) -> core::result::Result<Self, GatewayError> {
        let failed = |reason: String| GatewayError::Root { label: label.to_owned(), reason };
        let found = {
            let client = FileClient::new(&ipc, server);
            let label_bytes =
                u16::try_from(label.len()).map_err(|_| failed("its label is too long".into()))?;
            let root = |label| client.root(&file::GetRoot { label, label_bytes });
            let root = match label_bytes {
                0 => root(GrantId::NONE),
                _ => ipc
                    .lend(server, label.as_bytes(), root)
                    .map_err(|error| failed(error.to_string()))?,
            };
            let root = root.map_err(|error| failed(error.to_string()))?;
            let get = file::GetFileSystem { node: root.node };
            let of = client.file_system(&get).map_err(|error| failed(error.to_string()))?;
            (root, of)
        };
        let (root, of): (Attributes, FileSystem) = found;
        if u64::from(root.inode) != ROOT {
            return Err(GatewayError::RootNumber(root.inode));
        }
        let nodes = Mutex::new(Nodes::new(root.node));
        Ok(Self { ipc, server, block_bytes: of.block_bytes, nodes, is_far: false })
    }

    /// The same for a Linux on another machine: its processes cannot be looked at, and its requests are of [`FAR_BYTES`] at most.
    pub fn far(self) -> Self {
        Self { is_far: true, ..self }
    }

    fn ask(&self) -> FileClient<'_, I> {
        FileClient::new(&self.ipc, self.server)
    }

    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn node(&self, number: INodeNo) -> Result<NodeId> {
        self.nodes().node(number.0).ok_or(told(Errno::Stale))
    }

    /// Lends bytes for the time of a request.
    fn with<T>(
        &self,
        bytes: &[u8],
        work: impl FnOnce(GrantId) -> core::result::Result<T, CallError<Errno, I::Error>>,
    ) -> Result<T> {
        if bytes.is_empty() {
            return Err(told(Errno::Invalid));
        }
        let lent = self.ipc.lend(self.server, bytes, work);
        lent.map_err(|_| told(Errno::Io))?.map_err(|error| errno(&error))
    }

    /// The same with a name.
    fn named<T>(
        &self,
        name: &OsStr,
        work: impl FnOnce(GrantId, u16) -> core::result::Result<T, CallError<Errno, I::Error>>,
    ) -> Result<T> {
        let bytes = u16::try_from(name.len()).map_err(|_| told(Errno::NameTooLong))?;
        self.with(name.as_bytes(), |grant| work(grant, bytes))
    }

    /// Lends memory for writing.
    fn with_memory<T>(
        &self,
        memory: &mut [u8],
        work: impl FnOnce(GrantId) -> core::result::Result<T, CallError<Errno, I::Error>>,
    ) -> Result<T> {
        let lent = self.ipc.lend_mut(self.server, memory, work);
        lent.map_err(|_| told(Errno::Io))?.map_err(|error| errno(&error))
    }

    /// The further groups of who asks for something in a directory.
    fn groups(&self, request: &Request, directory: NodeId) -> Result<Vec<u32>> {
        if self.is_far {
            // Linux knows them, and has found that this user may write there. If that is so by one of the groups, it is this one.
            let found = self.ask().stat(&file::Stat { node: directory });
            let found = found.map_err(|error| errno(&error))?;
            let by_others = found.mode & WRITE_AND_SEARCH == WRITE_AND_SEARCH;
            return Ok(if by_others { Vec::new() } else { vec![found.group] });
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", request.pid()));
        let mut groups = groups(&status.unwrap_or_default());
        groups.truncate(GROUPS_MAX.into());
        Ok(groups)
    }

    /// Does something in a directory on behalf of the user who asks, with all its groups.
    fn as_user<T>(
        &self,
        request: &Request,
        directory: NodeId,
        work: impl FnOnce(Who) -> Result<T>,
    ) -> Result<T> {
        let who = Who::new(request.uid(), request.gid());
        if who.user == 0 {
            return work(who);
        }
        let groups = self.groups(request, directory)?;
        if groups.is_empty() {
            return work(who);
        }
        let list: Vec<u8> = groups.iter().flat_map(|group| group.to_le_bytes()).collect();
        let groups_count = groups.len() as u16;
        let lent =
            self.ipc.lend(self.server, &list, |groups| work(Who { groups, groups_count, ..who }));
        lent.map_err(|_| told(Errno::Io))?
    }

    /// Takes note that Linux knows a node, which the server holds once more.
    fn known(&self, found: &Attributes) -> FileAttr {
        self.nodes().add(found.inode.into(), found.node);
        attributes(found, self.block_bytes)
    }

    fn describe(&self, number: INodeNo) -> Result<FileAttr> {
        let stat = file::Stat { node: self.node(number)? };
        let found = self.ask().stat(&stat).map_err(|error| errno(&error))?;
        Ok(attributes(&found, self.block_bytes))
    }

    fn find(&self, directory: NodeId, name: &OsStr) -> Result<FileAttr> {
        let found = self.named(name, |name, name_bytes| {
            self.ask().lookup(&file::Lookup { directory, name, name_bytes, who: CHECKED })
        })?;
        Ok(self.known(&found))
    }

    fn set_attributes(&self, number: INodeNo, set: &Set) -> Result<FileAttr> {
        let (node, who) = (self.node(number)?, CHECKED);
        if let Some(bytes) = set.bytes {
            let done = match set.file {
                Some(file) => self.ask().truncate_open(&file::TruncateOpen { file, bytes }),
                None => self.ask().truncate(&file::Truncate { node, bytes, who }),
            };
            done.map_err(|error| errno(&error))?;
        }
        if set.user.is_some() || set.group.is_some() {
            let (user, group) = (set.user.unwrap_or(u32::MAX), set.group.unwrap_or(u32::MAX));
            let owner = file::SetOwner { node, user, group, who };
            self.ask().set_owner(&owner).map_err(|error| errno(&error))?;
        }
        if let Some(mode) = set.mode {
            let mode = (mode & 0o7777) as u16;
            let set = file::SetMode { node, mode, who };
            self.ask().set_mode(&set).map_err(|error| errno(&error))?;
        }
        let (accessed, modified) = (set_time(set.accessed), set_time(set.modified));
        if set.accessed.is_some() || set.modified.is_some() {
            let times = file::SetTimes { node, accessed, modified, who };
            self.ask().set_times(&times).map_err(|error| errno(&error))?;
        }
        self.describe(number)
    }

    fn read_part(&self, file: FileId, position: u64, bytes: u32) -> Result<Vec<u8>> {
        let mut data = vec![0; bytes as usize];
        let mut done = 0;
        for piece in data.chunks_mut(TRANSFER_MAX as usize) {
            let (position, bytes) = (position + done as u64, piece.len() as u32);
            let count = self.with_memory(piece, |into| {
                self.ask().read(&file::Read { file, position, into, offset: 0, bytes })
            })?;
            done += count.min(bytes) as usize;
            if count < bytes {
                break;
            }
        }
        data.truncate(done);
        Ok(data)
    }

    fn write_part(&self, file: FileId, position: u64, data: &[u8]) -> Result<u32> {
        let mut done = 0;
        for piece in data.chunks(TRANSFER_MAX as usize) {
            let (position, bytes) = (position + done, piece.len() as u32);
            let written = self.with(piece, |from| {
                self.ask().write(&file::Write { file, position, from, offset: 0, bytes })
            });
            match written {
                Ok(count) => done += u64::from(count),
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
            if written.is_ok_and(|count| count < bytes) {
                break;
            }
        }
        Ok(done as u32)
    }

    fn list(&self, file: FileId, position: u64, reply: &mut ReplyDirectory) -> Result<()> {
        let mut position = position;
        let mut records = vec![0; LIST_BYTES];
        loop {
            let part = self.with_memory(&mut records, |into| {
                let bytes = LIST_BYTES as u32;
                self.ask().read_directory(&file::ReadDirectory { file, position, into, bytes })
            })?;
            if part.bytes == 0 {
                return Ok(());
            }
            for entry in Entries::new(&records[..(part.bytes as usize).min(LIST_BYTES)]) {
                let entry = entry.map_err(|_| told(Errno::Io))?;
                let (number, kind) = (INodeNo(entry.inode), file_type(entry.kind));
                if reply.add(number, entry.next, kind, OsStr::from_bytes(entry.name)) {
                    return Ok(());
                }
            }
            position = part.next;
        }
    }

    fn sync_open(&self, file: FileHandle) -> Result<()> {
        let sync = file::SyncFile { file: FileId::from_raw(file.0) };
        self.ask().sync_file(&sync).map_err(|error| errno(&error))
    }

    fn open_node(&self, number: INodeNo, flags: u32) -> Result<FileHandle> {
        let open = file::Open { node: self.node(number)?, flags, who: CHECKED };
        let file = self.ask().open(&open).map_err(|error| errno(&error))?;
        Ok(FileHandle(file.raw()))
    }

    fn make_file(
        &self,
        request: &Request,
        directory: NodeId,
        name: &OsStr,
        mode: u16,
        flags: u32,
    ) -> Result<(FileAttr, FileHandle)> {
        let made = self.as_user(request, directory, |who| {
            self.named(name, |name, name_bytes| {
                self.ask().create(&file::Create { directory, name, name_bytes, mode, who })
            })
        })?;
        let known = self.known(&made);
        let open = file::OpenMade { node: made.node, flags };
        match self.ask().open_made(&open) {
            Ok(file) => Ok((known, FileHandle(file.raw()))),
            Err(error) => {
                // Linux does not get to know it.
                self.give_back(made.inode.into(), 1);
                Err(errno(&error))
            }
        }
    }

    fn give_back(&self, number: u64, lookups: u64) {
        let given = self.nodes().forget(number, lookups);
        if let Some((node, count)) = given {
            // A server that is gone holds nothing.
            let _ = self.ask().release(&file::Release { node, count });
        }
    }

    fn rename_node(
        &self,
        (from, old): (INodeNo, &OsStr),
        (to, new): (INodeNo, &OsStr),
        flags: RenameFlags,
    ) -> Result<()> {
        let flags = match flags {
            flags if flags.is_empty() => 0,
            RenameFlags::RENAME_NOREPLACE => RENAME_KEEP,
            _ => return Err(told(Errno::Invalid)),
        };
        let short = |name: &OsStr| u8::try_from(name.len()).map_err(|_| told(Errno::NameTooLong));
        let (old_bytes, new_bytes) = (short(old)?, short(new)?);
        let (from, to, who) = (self.node(from)?, self.node(to)?, CHECKED);
        self.with(&[old.as_bytes(), new.as_bytes()].concat(), |names| {
            let rename = file::Rename { from, to, names, old_bytes, new_bytes, flags, who };
            self.ask().rename(&rename)
        })
    }
}

/// What is to become of attributes.
struct Set {
    mode: Option<u32>,
    user: Option<u32>,
    group: Option<u32>,
    bytes: Option<u64>,
    accessed: Option<TimeOrNow>,
    modified: Option<TimeOrNow>,
    file: Option<FileId>,
}

macro_rules! answer {
    ($reply:ident, $result:expr, $value:pat => $good:expr) => {
        match $result {
            Ok($value) => $good,
            Err(error) => $reply.error(error),
        }
    };
}

impl<I: Lend + Send + Sync + 'static> Filesystem for Gateway<I>
where
    I::Error: core::fmt::Display,
{
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        if self.is_far {
            // Linux may want less.
            let (_, _) = (config.set_max_write(FAR_BYTES), config.set_max_readahead(FAR_BYTES));
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.node(parent).and_then(|directory| self.find(directory, name));
        answer!(reply, found, found => reply.entry(&BELIEVED, &found, GENERATION));
    }

    fn forget(&self, _: &Request, number: INodeNo, lookups: u64) {
        self.give_back(number.0, lookups);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        answer!(reply, self.describe(number), found => reply.attr(&BELIEVED, &found));
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        mode: Option<u32>,
        user: Option<u32>,
        group: Option<u32>,
        bytes: Option<u64>,
        accessed: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _: Option<SystemTime>,
        file: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let file = file.map(|file| FileId::from_raw(file.0));
        let set = Set { mode, user, group, bytes, accessed, modified, file };
        answer!(reply, self.set_attributes(number, &set), set => reply.attr(&BELIEVED, &set));
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        let mut path = vec![0; u16::MAX.into()];
        let read = self.node(number).and_then(|node| {
            let bytes = path.len() as u32;
            self.with_memory(&mut path, |into| {
                self.ask().read_link(&file::ReadLink { node, into, bytes })
            })
        });
        answer!(reply, read, length => reply.data(&path[..(length as usize).min(path.len())]));
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        device: u32,
        reply: ReplyEntry,
    ) {
        let made = self.node(parent).and_then(|directory| {
            self.as_user(request, directory, |who| {
                self.named(name, |name, name_bytes| {
                    let mode = mode as u16;
                    let make = file::MakeNode { directory, name, name_bytes, mode, device, who };
                    self.ask().make_node(&make)
                })
            })
        });
        let made = made.map(|made| self.known(&made));
        answer!(reply, made, made => reply.entry(&BELIEVED, &made, GENERATION));
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        let made = self.node(parent).and_then(|directory| {
            self.as_user(request, directory, |who| {
                self.named(name, |name, name_bytes| {
                    let mode = (mode & 0o7777) as u16;
                    let make = file::MakeDirectory { directory, name, name_bytes, mode, who };
                    self.ask().make_directory(&make)
                })
            })
        });
        let made = made.map(|made| self.known(&made));
        answer!(reply, made, made => reply.entry(&BELIEVED, &made, GENERATION));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = self.node(parent).and_then(|directory| {
            self.named(name, |name, name_bytes| {
                self.ask().unlink(&file::Unlink { directory, name, name_bytes, who: CHECKED })
            })
        });
        answer!(reply, done, () => reply.ok());
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = self.node(parent).and_then(|directory| {
            self.named(name, |name, name_bytes| {
                let remove = file::RemoveDirectory { directory, name, name_bytes, who: CHECKED };
                self.ask().remove_directory(&remove)
            })
        });
        answer!(reply, done, () => reply.ok());
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let path = target.as_os_str();
        let made = self.node(parent).and_then(|directory| {
            let length = |name: &OsStr| u16::try_from(name.len());
            let (Ok(name_bytes), Ok(path_bytes)) = (length(name), length(path)) else {
                return Err(told(Errno::NameTooLong));
            };
            let names = [name.as_bytes(), path.as_bytes()].concat();
            self.as_user(request, directory, |who| {
                self.with(&names, |names| {
                    self.ask().make_symbolic_link(&file::MakeSymbolicLink {
                        directory,
                        names,
                        name_bytes,
                        path_bytes,
                        who,
                    })
                })
            })
        });
        let made = made.map(|made| self.known(&made));
        answer!(reply, made, made => reply.entry(&BELIEVED, &made, GENERATION));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let done = self.rename_node((parent, name), (new_parent, new_name), flags);
        answer!(reply, done, () => reply.ok());
    }

    fn link(
        &self,
        _: &Request,
        number: INodeNo,
        new_parent: INodeNo,
        new_name: &OsStr,
        reply: ReplyEntry,
    ) {
        let linked = self.node(number).and_then(|node| {
            let directory = self.node(new_parent)?;
            self.named(new_name, |name, name_bytes| {
                self.ask().link(&file::Link { node, directory, name, name_bytes, who: CHECKED })
            })?;
            self.find(directory, new_name)
        });
        answer!(reply, linked, linked => reply.entry(&BELIEVED, &linked, GENERATION));
    }

    fn open(&self, _: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let opened = self.open_node(number, open_flags(flags));
        answer!(reply, opened, file => reply.opened(file, FopenFlags::empty()));
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        file: FileHandle,
        position: u64,
        bytes: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = self.read_part(FileId::from_raw(file.0), position, bytes);
        answer!(reply, read, data => reply.data(&data));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        file: FileHandle,
        position: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.write_part(FileId::from_raw(file.0), position, data);
        answer!(reply, written, count => reply.written(count));
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // What was written is with the server already.
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        file: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let closed = self.ask().close(&file::Close { file: FileId::from_raw(file.0) });
        answer!(reply, closed.map_err(|error| errno(&error)), () => reply.ok());
    }

    fn fsync(&self, _: &Request, _: INodeNo, file: FileHandle, _: bool, reply: ReplyEmpty) {
        answer!(reply, self.sync_open(file), () => reply.ok());
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let opened = self.open_node(number, OPEN_READ);
        answer!(reply, opened, file => reply.opened(file, FopenFlags::empty()));
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        file: FileHandle,
        position: u64,
        mut reply: ReplyDirectory,
    ) {
        let listed = self.list(FileId::from_raw(file.0), position, &mut reply);
        answer!(reply, listed, () => reply.ok());
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        file: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        let closed = self.ask().close(&file::Close { file: FileId::from_raw(file.0) });
        answer!(reply, closed.map_err(|error| errno(&error)), () => reply.ok());
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, file: FileHandle, _: bool, reply: ReplyEmpty) {
        answer!(reply, self.sync_open(file), () => reply.ok());
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let of = self.node(INodeNo(ROOT)).and_then(|node| {
            let get = file::GetFileSystem { node };
            self.ask().file_system(&get).map_err(|error| errno(&error))
        });
        answer!(reply, of, of => reply.statfs(
            of.blocks,
            of.blocks_free,
            of.blocks_free,
            of.inodes.into(),
            of.inodes_free.into(),
            of.block_bytes,
            of.name_max.into(),
            of.block_bytes,
        ));
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let made = self.node(parent).and_then(|directory| {
            let flags = open_flags(OpenFlags(flags));
            self.make_file(request, directory, name, (mode & 0o7777) as u16, flags)
        });
        answer!(reply, made, (made, file) => {
            reply.created(&BELIEVED, &made, GENERATION, file, FopenFlags::empty());
        });
    }
}
