// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is kept for each client.

use super::{MountId, Outside, Server};
use crate::format::{Kind, ROOT};
use crate::volume::{Status, User};
use dvk::Endpoint;
use mol_protocol::file::{
    Attributes, FileId, NodeId, MAY_READ, MAY_WRITE, OPEN_APPEND, OPEN_DURABLE, OPEN_READ,
    OPEN_WRITE,
};
use mol_protocol::Errno;
use std::collections::BTreeMap;

/// How many files a client may have open.
pub const FILES_MAX: usize = 4096;
/// How many nodes a client may hold.
pub const NODES_MAX: usize = 1 << 20;

/// How a client holds a node.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hold {
    pub(super) count: u64,
    /// Whether the client made it, and may open it whatever its mode.
    pub(super) is_made: bool,
}

/// An open file or directory.
#[derive(Clone, Debug)]
pub(super) struct File {
    pub(super) node: NodeId,
    pub(super) flags: u32,
    /// Who opened it: what this user writes loses the rights to be executed as somebody else.
    pub(super) user: u32,
}

impl File {
    /// Refuses what the file is not open for.
    pub(super) fn check(&self, wanted: u32) -> Result<(), Errno> {
        if self.flags & wanted == wanted {
            Ok(())
        } else {
            Err(Errno::BadFile)
        }
    }
}

/// A client that holds something.
#[derive(Debug, Default)]
pub(super) struct Client {
    pub(super) holds: BTreeMap<NodeId, Hold>,
    pub(super) files: BTreeMap<FileId, File>,
}

impl<O: Outside> Server<O> {
    /// Refuses clients that hold as much as they may: before something is done that ends in one more.
    pub(super) fn check_room(&self, client: Endpoint) -> Result<(), Errno> {
        let full = self.clients.get(&client).is_some_and(|it| it.holds.len() >= NODES_MAX);
        if full {
            Err(Errno::TooManyOpen)
        } else {
            Ok(())
        }
    }

    /// Counts a hold of somebody on an inode, whose volume keeps it from being freed.
    fn add_hold(&mut self, mount: MountId, number: u32) -> Result<NodeId, Errno> {
        let (node, is_new) = self.nodes.hold((mount, number));
        if is_new {
            if let Err(errno) = self.on(mount, |volume| volume.hold(number)) {
                self.nodes.release(node, 1);
                return Err(errno);
            }
        }
        Ok(node)
    }

    /// Takes holds off a node. What it was the last name of is freed; if that fails, people are told.
    pub(super) fn drop_holds(&mut self, node: NodeId, count: u64) {
        if let Some((mount, number)) = self.nodes.release(node, count) {
            let _ = self.on(mount, |volume| volume.release(number, 1));
        }
    }

    /// Holds an inode for a client once more, and says what it is.
    pub(super) fn hold(
        &mut self,
        client: Endpoint,
        mount: MountId,
        number: u32,
        is_made: bool,
    ) -> Result<Attributes, Errno> {
        let status = self.on(mount, |volume| volume.status(number))?;
        let node = self.add_hold(mount, number)?;
        let hold = self.clients.entry(client).or_default().holds.entry(node).or_default();
        hold.count += 1;
        hold.is_made |= is_made;
        Ok(self.attributes(mount, node, &status))
    }

    /// Holds the root of a mount.
    pub(super) fn hold_root(
        &mut self,
        client: Endpoint,
        mount: MountId,
    ) -> Result<Attributes, Errno> {
        self.check_room(client)?;
        self.hold(client, mount, ROOT, false)
    }

    /// Gives back holds of a client.
    pub(super) fn release_holds(
        &mut self,
        client: Endpoint,
        node: NodeId,
        count: u64,
    ) -> Result<(), Errno> {
        let holds = self.clients.get_mut(&client).map(|it| &mut it.holds);
        let holds = holds.ok_or(Errno::Stale)?;
        let hold = holds.get_mut(&node).ok_or(Errno::Stale)?;
        hold.count = hold.count.checked_sub(count).ok_or(Errno::Invalid)?;
        if hold.count == 0 {
            holds.remove(&node);
        }
        self.drop_holds(node, count);
        self.forget_idle(client);
        Ok(())
    }

    /// Forgets a client that has nothing.
    fn forget_idle(&mut self, client: Endpoint) {
        let idle = |it: &Client| it.holds.is_empty() && it.files.is_empty();
        if self.clients.get(&client).is_some_and(idle) {
            self.clients.remove(&client);
        }
    }

    /// What a node is, without holding it.
    pub(super) fn describe(
        &mut self,
        mount: MountId,
        node: NodeId,
        number: u32,
    ) -> Result<Attributes, Errno> {
        let status = self.on(mount, |volume| volume.status(number))?;
        Ok(self.attributes(mount, node, &status))
    }

    fn attributes(&self, mount: MountId, node: NodeId, status: &Status) -> Attributes {
        let block_bytes = self.mounts[&mount].volume.layout().block_bytes;
        let inode = status.inode;
        let is_device = inode.kind().is_some_and(Kind::is_device);
        let blocks = status.blocks.saturating_mul(block_bytes / 512);
        Attributes {
            node,
            bytes: inode.bytes.into(),
            inode: status.number,
            mode: inode.mode,
            links: inode.links,
            user: inode.user.into(),
            group: inode.group.into(),
            blocks_or_device: if is_device { inode.zones[0] } else { blocks },
            accessed: inode.accessed,
            modified: inode.modified,
            changed: inode.changed,
        }
    }

    /// Opens a node for a client: one that it made, if nobody is named.
    pub(super) fn open_node(
        &mut self,
        client: Endpoint,
        node: NodeId,
        flags: u32,
        who: Option<&User<'_>>,
    ) -> Result<FileId, Errno> {
        super::check_flags(flags, OPEN_READ | OPEN_WRITE | OPEN_APPEND | OPEN_DURABLE)?;
        if flags & (OPEN_READ | OPEN_WRITE) == 0 {
            return Err(Errno::Invalid);
        }
        let (mount, number) = self.held(client, node)?;
        let open = self.clients.get(&client).map_or(0, |it| it.files.len());
        if open >= FILES_MAX {
            return Err(Errno::TooManyOpen);
        }
        let status = self.on(mount, |volume| volume.status(number))?;
        match status.inode.kind() {
            Some(Kind::Regular) => {}
            Some(Kind::Directory) if flags & OPEN_WRITE == 0 => {}
            Some(Kind::Directory) => return Err(Errno::IsDirectory),
            Some(Kind::SymbolicLink) => return Err(Errno::LinkLoop),
            // What is behind the others is not in a file system.
            _ => return Err(Errno::NoSuchDevice),
        }
        let rights = [(OPEN_READ, MAY_READ), (OPEN_WRITE, MAY_WRITE)];
        let rights = rights.iter().filter(|(flag, _)| flags & flag != 0);
        let rights = rights.fold(0, |all, (_, right)| all | right);
        match who {
            Some(user) => self.on(mount, |volume| volume.access(user, number, rights))?,
            None if flags & OPEN_WRITE != 0 && self.mounts[&mount].volume.is_read_only() => {
                return Err(Errno::ReadOnly);
            }
            None => {}
        }
        let node = self.add_hold(mount, number)?;
        self.next_file += 1;
        let id = FileId::from_raw(self.next_file);
        // Who made a file may write it, and it is its owner that does.
        let user = who.map_or(status.inode.user.into(), |who| who.user);
        let client = self.clients.entry(client).or_default();
        client.files.insert(id, File { node, flags, user });
        Ok(id)
    }

    /// Whether a client made a node that it has not let go of since.
    pub(super) fn has_made(&self, client: Endpoint, node: NodeId) -> Result<bool, Errno> {
        let hold = self.clients.get(&client).and_then(|it| it.holds.get(&node));
        hold.map(|hold| hold.is_made).ok_or(Errno::Stale)
    }

    /// Closes a file of a client.
    pub(super) fn close_file(&mut self, client: Endpoint, file: FileId) -> Result<(), Errno> {
        let files = self.clients.get_mut(&client).map(|it| &mut it.files);
        let file = files.and_then(|files| files.remove(&file)).ok_or(Errno::BadFile)?;
        self.drop_holds(file.node, 1);
        self.forget_idle(client);
        Ok(())
    }
}
