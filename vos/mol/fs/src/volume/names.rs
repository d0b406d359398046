// SPDX-License-Identifier: MIT OR Apache-2.0
//! Making, linking and removing.

use super::allocate::Release;
use super::directory::Slot;
use super::node::Node;
use super::user::{User, SET_GROUP};
use super::Volume;
use crate::disk::Disk;
use crate::error::{Damage, Error};
use crate::format::{Entry, Inode, Kind, DOT, DOT_DOT, ROOT};
use mol_protocol::Errno;

/// The most names of a file. The format could count a few more; MINIX and Linux do not.
pub(super) const LINKS_MAX: u16 = 65_530;

/// What is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum New<'p> {
    /// An empty file.
    File,
    /// An empty directory.
    Directory,
    /// A symbolic link with this path.
    SymbolicLink(&'p [u8]),
    /// A pipe.
    Pipe,
    /// A socket.
    Socket,
    /// A node for a character device.
    CharacterDevice(u32),
    /// A node for a block device.
    BlockDevice(u32),
}

impl New<'_> {
    fn kind(self) -> Kind {
        match self {
            Self::File => Kind::Regular,
            Self::Directory => Kind::Directory,
            Self::SymbolicLink(_) => Kind::SymbolicLink,
            Self::Pipe => Kind::Pipe,
            Self::Socket => Kind::Socket,
            Self::CharacterDevice(_) => Kind::CharacterDevice,
            Self::BlockDevice(_) => Kind::BlockDevice,
        }
    }
}

impl<D: Disk> Volume<D> {
    /// Makes something with a name in a directory. Of `mode`, the permissions count. The result is the number of
    /// its inode.
    ///
    /// # Errors
    /// Those of POSIX; `EINVAL` for a user that the format has no number for.
    pub fn make(
        &mut self,
        user: &User<'_>,
        directory: u32,
        name: &[u8],
        mode: u16,
        new: New<'_>,
    ) -> Result<u32, Error> {
        self.begin_change()?;
        self.check_name(name)?;
        self.check_directory(directory)?;
        if let New::SymbolicLink(path) = new {
            self.check_link_path(path)?;
        }
        if name == DOT || name == DOT_DOT {
            return Err(Errno::Exists.into());
        }
        let above = self.check_alive(directory)?;
        self.check_may_name(user, directory)?;
        if matches!(new, New::CharacterDevice(_) | New::BlockDevice(_)) && !user.is_superuser() {
            return Err(Errno::NotPermitted.into());
        }
        let slot = match self.find_or_room(directory, name)? {
            (Some(_), _) => return Err(Errno::Exists.into()),
            (None, slot) => slot,
        };
        if new == New::Directory && above.links >= LINKS_MAX {
            return Err(Errno::TooManyLinks.into());
        }
        let mut inode = self.new_inode(user, &above, mode, new)?;
        self.reserve_inode()?;
        let slot = self.room(directory, slot)?;
        if matches!(new, New::Directory | New::SymbolicLink(_)) {
            self.reserve_zones(1)?;
        }
        let number = self.take_inode()?;
        inode.zones[0] = match new {
            New::CharacterDevice(device) | New::BlockDevice(device) => device,
            _ => 0,
        };
        self.nodes.insert(number, Node { dirty: true, ..Node::new(inode, new.kind()) });
        let done = self.fill_new(directory, number, new);
        let done = done.and_then(|()| self.put_entry(directory, slot, name, number));
        self.fail_with(done)?;
        Ok(number)
    }

    fn new_inode(
        &self,
        user: &User<'_>,
        above: &Inode,
        mode: u16,
        new: New<'_>,
    ) -> Result<Inode, Error> {
        let number = |id: u32| u16::try_from(id).map_err(|_| Errno::Invalid);
        let inherits = above.mode & SET_GROUP;
        let mut permissions = mode & 0o7777;
        let group = if inherits != 0 { above.group } else { number(user.group)? };
        if inherits != 0 && new == New::Directory {
            permissions |= SET_GROUP;
        } else if !user.is_superuser() && !user.is_in(group.into()) {
            permissions &= !SET_GROUP;
        }
        Ok(Inode {
            mode: new.kind() as u16 | permissions,
            links: if new == New::Directory { 2 } else { 1 },
            user: number(user.user)?,
            group,
            accessed: self.now,
            modified: self.now,
            changed: self.now,
            ..Inode::default()
        })
    }

    /// Gives something new the content that it begins with.
    fn fill_new(&mut self, directory: u32, number: u32, new: New<'_>) -> Result<(), Error> {
        match new {
            New::Directory => {
                let zone = self.make_zone(number, 0)?;
                let tag = self.content_tag(number)?;
                let entry_bytes = self.layout.entry_bytes();
                let block = self.cache.change(zone, tag)?;
                Entry { inode: number, name: DOT }.encode(block);
                Entry { inode: directory, name: DOT_DOT }.encode(&mut block[entry_bytes..]);
                self.batch.add((zone, 0));
                self.batch.add((zone, entry_bytes));
                self.node_mut(number)?.inode.bytes = 2 * entry_bytes as u32;
                let above = self.node_mut(directory)?;
                above.inode.links += 1;
                above.dirty = true;
            }
            New::SymbolicLink(path) => {
                let zone = self.make_zone(number, 0)?;
                let tag = self.content_tag(number)?;
                self.cache.change(zone, tag)?[..path.len()].copy_from_slice(path);
                self.node_mut(number)?.inode.bytes = path.len() as u32;
            }
            _ => {}
        }
        Ok(())
    }

    fn check_link_path(&self, path: &[u8]) -> Result<(), Error> {
        if path.is_empty() {
            return Err(Errno::NoEntry.into());
        }
        if path.contains(&0) {
            return Err(Errno::Invalid.into());
        }
        // Linux and MINIX end a path in its block by a zero.
        if path.len() >= self.layout.block_bytes as usize {
            return Err(Errno::NameTooLong.into());
        }
        Ok(())
    }

    /// The inode of a directory that has a name itself; in one that was removed nothing is made.
    pub(super) fn check_alive(&mut self, directory: u32) -> Result<Inode, Error> {
        let inode = self.node(directory)?.inode;
        if inode.links == 0 {
            return Err(Errno::NoEntry.into());
        }
        Ok(inode)
    }

    pub(super) fn room(&mut self, directory: u32, slot: Option<Slot>) -> Result<Slot, Error> {
        slot.map_or_else(|| self.room_at_end(directory), Ok)
    }

    /// Gives a file a further name.
    ///
    /// # Errors
    /// Those of POSIX.
    pub fn link(
        &mut self,
        user: &User<'_>,
        number: u32,
        directory: u32,
        name: &[u8],
    ) -> Result<(), Error> {
        self.begin_change()?;
        self.check_name(name)?;
        self.check_directory(directory)?;
        if self.node(number)?.kind == Kind::Directory {
            return Err(Errno::NotPermitted.into());
        }
        if name == DOT || name == DOT_DOT {
            return Err(Errno::Exists.into());
        }
        let inode = self.check_alive(number)?;
        self.check_alive(directory)?;
        self.check_may_name(user, directory)?;
        let slot = match self.find_or_room(directory, name)? {
            (Some(_), _) => return Err(Errno::Exists.into()),
            (None, slot) => slot,
        };
        if inode.links >= LINKS_MAX {
            return Err(Errno::TooManyLinks.into());
        }
        let slot = self.room(directory, slot)?;
        let done = self.put_entry(directory, slot, name, number);
        self.fail_with(done)?;
        let node = self.node_mut(number)?;
        node.inode.links += 1;
        self.touch(number)
    }

    /// Removes a name of something that is no directory. What has no name left and is not held is freed.
    ///
    /// # Errors
    /// Those of POSIX.
    pub fn unlink(&mut self, user: &User<'_>, directory: u32, name: &[u8]) -> Result<(), Error> {
        self.begin_change()?;
        let (slot, number) = self.check_unname(user, directory, name, Errno::IsDirectory)?;
        if self.node(number)?.kind == Kind::Directory {
            return Err(Errno::IsDirectory.into());
        }
        let release = self.plan_unlink(number, 1)?;
        let done = self.remove_entry(directory, slot);
        self.fail_with(done)?;
        self.lose_links(number, 1, release)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// Those of POSIX.
    pub fn remove_directory(
        &mut self,
        user: &User<'_>,
        directory: u32,
        name: &[u8],
    ) -> Result<(), Error> {
        self.begin_change()?;
        let dots = if name == DOT { Errno::Invalid } else { Errno::NotEmpty };
        let (slot, number) = self.check_unname(user, directory, name, dots)?;
        self.check_directory(number)?;
        self.check_empty(number)?;
        if number == ROOT {
            return Err(Damage::Loop { directory: number }.into());
        }
        let all = self.node(number)?.inode.links;
        let release = self.plan_unlink(number, all)?;
        let done = self.remove_entry(directory, slot);
        self.fail_with(done)?;
        self.batch.need(number);
        self.lose_links(directory, 1, None)?;
        self.lose_links(number, all, release)
    }

    /// Where a name is that a user wants removed, and what it is for; with `dots` as the answer to `.` and `..`.
    pub(super) fn check_unname(
        &mut self,
        user: &User<'_>,
        directory: u32,
        name: &[u8],
        dots: Errno,
    ) -> Result<(Slot, u32), Error> {
        self.check_name(name)?;
        self.check_directory(directory)?;
        if name == DOT || name == DOT_DOT {
            return Err(dots.into());
        }
        self.check_may_name(user, directory)?;
        let found = self.find(directory, name)?.ok_or(Errno::NoEntry)?;
        self.check_may_unname(user, directory, found.1)?;
        Ok(found)
    }

    /// What it takes to free something that is about to lose names, if it is to be freed then.
    pub(super) fn plan_unlink(
        &mut self,
        number: u32,
        names: u16,
    ) -> Result<Option<Release>, Error> {
        let node = self.node(number)?;
        let Some(left) = node.inode.links.checked_sub(names.max(1)) else {
            return Err(Damage::Links { inode: number, names: 1, links: node.inode.links }.into());
        };
        if left > 0 || node.holds > 0 {
            return Ok(None);
        }
        Ok(Some(self.plan_free(number)?))
    }

    /// Takes note that something has lost names, which the disk may still have, and frees it as planned.
    pub(super) fn lose_links(
        &mut self,
        number: u32,
        names: u16,
        release: Option<Release>,
    ) -> Result<(), Error> {
        if let Some(release) = release {
            self.free(number, release);
            return Ok(());
        }
        let node = self.node_mut(number)?;
        node.inode.links = node.inode.links.saturating_sub(names);
        node.lost_links = node.lost_links.saturating_add(names);
        self.touch(number)
    }
}
