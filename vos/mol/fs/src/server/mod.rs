// SPDX-License-Identifier: MIT OR Apache-2.0
//! The file server: requests in, answers out.
//!
//! [`Server`] implements the protocol [`FileServer`](mol_protocol::file::FileServer) over volumes. It waits for nothing but its
//! disks and for memory that is copied, and reaches clients' memory, the clock and the disks through [`Outside`]; so it
//! runs in a test without a kernel, and whoever has one moves messages only: every message goes to
//! [`handle`](mol_protocol::file::FileServer::handle), [`Server::tick`] is called about once in a second, and
//! [`Server::forget`] when a client has died.

mod clients;
mod data;
mod mounts;
mod names;
mod nodes;
mod requests;

pub use self::clients::{FILES_MAX, NODES_MAX};

use self::clients::{Client, File};
use self::mounts::Mount;
use self::nodes::Nodes;
use crate::disk::{Disk, DiskError};
use crate::error::Error;
use crate::volume::{User, Volume};
use core::fmt;
use dvk::{Endpoint, GrantId, Granted};
use mol_protocol::file::{FileId, NodeId, Who};
use mol_protocol::Errno;
use std::collections::{BTreeMap, BTreeSet};

/// After how many seconds changes are written that nobody has asked to be.
pub const WRITTEN_AFTER_SECONDS: u32 = 5;

/// What a server needs besides messages.
pub trait Outside {
    /// What time it is, in seconds since 1970.
    fn seconds(&self) -> u32;

    /// Copies memory that was lent.
    ///
    /// # Errors
    /// `EFAULT`: it is not lent for this, or not so much.
    fn copy_from(&self, from: Granted, into: &mut [u8]) -> Result<(), Errno>;

    /// Copies into memory that was lent.
    ///
    /// # Errors
    /// As [`copy_from`](Self::copy_from).
    fn copy_to(&self, to: Granted, from: &[u8]) -> Result<(), Errno>;

    /// Whether a client is known to be dead.
    fn is_gone(&self, client: Endpoint) -> bool;

    /// Opens the disk that has this name.
    ///
    /// # Errors
    /// [`OpenError`].
    fn open(&self, label: &str, read_only: bool) -> Result<Box<dyn Disk>, OpenError>;
}

/// Why there is no disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenError {
    /// What a client is told.
    pub errno: Errno,
    /// Why, for people.
    pub reason: String,
}

impl OpenError {
    /// There is none of this name.
    pub fn unknown(label: &str) -> Self {
        let reason = format!("no disk `{label}` is configured");
        Self { errno: Errno::NoSuchDevice, reason }
    }
}

/// What people may want to know. The first time that something fails in a way, it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// The disk.
    pub label: String,
    /// What happened.
    pub what: Happened,
}

/// What happened to a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    /// It is mounted.
    Mounted,
    /// It was unmounted, and everything is written.
    Unmounted,
    /// There is no disk.
    NoDisk(OpenError),
    /// It is damaged, or its disk failed.
    Failed(Error),
    /// It was given up with an error; what was not synced may be lost.
    GivenUp(Error),
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = &self.label;
        match &self.what {
            Happened::Mounted => write!(f, "disk `{label}` is mounted"),
            Happened::Unmounted => {
                write!(f, "disk `{label}` is unmounted, and everything is written")
            }
            Happened::NoDisk(error) => write!(f, "opening disk `{label}`: {}", error.reason),
            Happened::Failed(error) => write!(f, "disk `{label}`: {error}"),
            Happened::GivenUp(error) => {
                write!(f, "unmounting disk `{label}`: {error}; what was not synced may be lost")
            }
        }
    }
}

/// Which mount of a server, counted from its first.
type MountId = u32;

/// A file server.
pub struct Server<O> {
    outside: O,
    cache_bytes: usize,
    mounts: BTreeMap<MountId, Mount>,
    next_mount: MountId,
    nodes: Nodes,
    clients: BTreeMap<Endpoint, Client>,
    next_file: u64,
    written_at: u32,
    news: Vec<News>,
}

impl<O: Outside> Server<O> {
    /// A server without mounts. Each mount keeps up to `cache_bytes` of its disk in memory.
    pub fn new(outside: O, cache_bytes: usize) -> Self {
        let written_at = outside.seconds();
        Self {
            outside,
            cache_bytes,
            mounts: BTreeMap::new(),
            next_mount: 0,
            nodes: Nodes::default(),
            clients: BTreeMap::new(),
            next_file: 0,
            written_at,
            news: Vec::new(),
        }
    }

    /// What has happened since this was asked last.
    pub fn take_news(&mut self) -> Vec<News> {
        core::mem::take(&mut self.news)
    }

    /// Writes changes that are old.
    pub fn tick(&mut self) {
        let now = self.outside.seconds();
        // A clock that was set back must not keep anything from being written.
        if now.abs_diff(self.written_at) >= WRITTEN_AFTER_SECONDS {
            self.written_at = now;
            // Who has asked for nothing is told of nothing, but people are.
            let _ = self.sync_all();
        }
    }

    /// Who has something. Whoever of them dies has to be [forgotten](Self::forget).
    pub fn clients(&self) -> BTreeSet<Endpoint> {
        self.clients.keys().copied().collect()
    }

    /// Writes everything and lets go of all disks.
    pub fn end(&mut self) {
        self.clients().into_iter().for_each(|client| self.forget(client));
        for id in self.mounts.keys().copied().collect::<Vec<_>>() {
            let _ = self.unmount_id(id);
        }
    }

    fn forget_dead(&mut self) {
        let mut dead = self.clients();
        dead.retain(|client| self.outside.is_gone(*client));
        dead.into_iter().for_each(|client| self.forget(client));
    }

    /// Gives back all that a client has.
    pub fn forget(&mut self, client: Endpoint) {
        let Some(client) = self.clients.remove(&client) else { return };
        for file in client.files.into_values() {
            self.drop_holds(file.node, 1);
        }
        for (node, hold) in client.holds {
            self.drop_holds(node, hold.count);
        }
    }

    fn sync_all(&mut self) -> Result<(), Errno> {
        let ids: Vec<_> = self.mounts.keys().copied().collect();
        let mut done = Ok(());
        for id in ids {
            done = done.and(self.on(id, Volume::sync));
        }
        done
    }

    /// Does something with the volume of a mount.
    fn on<T>(
        &mut self,
        id: MountId,
        work: impl FnOnce(&mut Volume<Box<dyn Disk>>) -> Result<T, Error>,
    ) -> Result<T, Errno> {
        let mount = self.mounts.get_mut(&id).ok_or(Errno::Stale)?;
        mount.volume.set_time(self.outside.seconds());
        work(&mut mount.volume).map_err(|error| {
            if mount.is_new(&error) {
                let what = Happened::Failed(error.clone());
                self.news.push(News { label: mount.label.clone(), what });
            }
            error.errno()
        })
    }

    /// The mount and inode of a node that a client holds.
    fn held(&self, client: Endpoint, node: NodeId) -> Result<(MountId, u32), Errno> {
        let holds = self.clients.get(&client).is_some_and(|it| it.holds.contains_key(&node));
        let place = if holds { self.nodes.place(node) } else { None };
        place.ok_or(Errno::Stale)
    }

    /// Two nodes that a client holds, on one file system.
    fn held_both(
        &self,
        client: Endpoint,
        one: NodeId,
        other: NodeId,
    ) -> Result<(MountId, u32, u32), Errno> {
        let (one, other) = (self.held(client, one)?, self.held(client, other)?);
        if one.0 != other.0 {
            return Err(Errno::CrossDevice);
        }
        Ok((one.0, one.1, other.1))
    }

    /// An open file of a client, and its mount and inode.
    fn file(&self, client: Endpoint, file: FileId) -> Result<(File, MountId, u32), Errno> {
        let file = self.clients.get(&client).and_then(|it| it.files.get(&file));
        let file = file.ok_or(Errno::BadFile)?.clone();
        let (mount, number) = self.nodes.place(file.node).ok_or(Errno::BadFile)?;
        Ok((file, mount, number))
    }

    /// A name that a client has lent.
    fn copy_name(&self, client: Endpoint, name: GrantId, bytes: u16) -> Result<Vec<u8>, Errno> {
        self.copy_bytes(client, name, bytes, mol_protocol::directory::NAME_MAX)
    }

    fn copy_bytes(
        &self,
        client: Endpoint,
        grant: GrantId,
        bytes: impl Into<usize>,
        most: usize,
    ) -> Result<Vec<u8>, Errno> {
        match bytes.into() {
            0 => Err(Errno::Invalid),
            bytes if bytes > most => Err(Errno::NameTooLong),
            bytes => {
                let mut copy = vec![0; bytes];
                self.outside.copy_from(grant.of(client, 0), &mut copy)?;
                Ok(copy)
            }
        }
    }

    /// The groups of a user, whose list a client has lent.
    fn copy_groups(&self, client: Endpoint, who: &Who) -> Result<Vec<u32>, Errno> {
        if who.groups_count == 0 {
            return Ok(Vec::new());
        }
        let mut list = vec![0; usize::from(who.groups_count) * 4];
        self.outside.copy_from(who.groups.of(client, 0), &mut list)?;
        let number = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        Ok(list.chunks_exact(4).map(number).collect())
    }
}

fn user<'g>(who: &Who, groups: &'g [u32]) -> User<'g> {
    User { user: who.user, group: who.group, groups }
}

fn check_flags(flags: u32, known: u32) -> Result<(), Errno> {
    if flags & !known == 0 {
        Ok(())
    } else {
        Err(Errno::Invalid)
    }
}

impl Disk for Box<dyn Disk> {
    fn bytes(&self) -> u64 {
        (**self).bytes()
    }

    fn is_read_only(&self) -> bool {
        (**self).is_read_only()
    }

    fn read(&mut self, position: u64, into: &mut [u8]) -> Result<(), DiskError> {
        (**self).read(position, into)
    }

    fn write(&mut self, position: u64, from: &[u8]) -> Result<(), DiskError> {
        (**self).write(position, from)
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        (**self).flush()
    }
}
