// SPDX-License-Identifier: MIT OR Apache-2.0
//! Entries of directories.

use super::batch::Place;
use super::Volume;
use crate::cache::{Role, Tag};
use crate::disk::Disk;
use crate::error::{Damage, Error};
use crate::format::{Entry, Kind, DOT_DOT, ROOT};
use mol_protocol::Errno;

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot {
    /// The block of the disk.
    pub(super) zone: u32,
    /// The byte in it.
    pub(super) offset: usize,
    /// The byte in the directory.
    pub(super) at: u32,
}

impl Slot {
    pub(super) fn place(&self) -> Place {
        (self.zone, self.offset)
    }
}

/// Where a directory has a name and for which inode, if it has, and an entry that the name can get.
type FoundOrRoom = (Option<(Slot, u32)>, Option<Slot>);

/// An entry as a list of a directory has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed<'b> {
    /// The number of the inode.
    pub number: u32,
    /// Where the next entry is.
    pub next: u64,
    /// What it is, if that could be found out.
    pub kind: Option<Kind>,
    /// The name.
    pub name: &'b [u8],
}

impl<D: Disk> Volume<D> {
    /// Refuses what is no directory.
    pub(super) fn check_directory(&mut self, number: u32) -> Result<(), Error> {
        let is_directory = self.node(number)?.kind == Kind::Directory;
        is_directory.then_some(()).ok_or(Errno::NotDirectory.into())
    }

    /// Gives the entries from byte `from` of a directory on, free ones too, to `visit`, until that says
    /// something.
    pub(super) fn scan<T>(
        &mut self,
        directory: u32,
        from: u32,
        mut visit: impl FnMut(Slot, Entry<'_>) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        self.check_directory(directory)?;
        let bytes = self.node(directory)?.inode.bytes;
        let entry_bytes = self.layout.entry_bytes();
        let mut at = from;
        while at < bytes {
            let index = at / self.layout.block_bytes;
            let zone = self.zone_at(directory, index)?;
            if zone == 0 {
                return Err(Damage::Hole { directory }.into());
            }
            let block = self.cache.block(zone, Tag { owner: directory, role: Role::Directory })?;
            let mut offset = (at % self.layout.block_bytes) as usize;
            while offset < block.len() && at < bytes {
                let entry = Entry::decode(&self.layout, &block[offset..]);
                if let Some(found) = visit(Slot { zone, offset, at }, entry) {
                    return Ok(Some(found));
                }
                offset += entry_bytes;
                at += entry_bytes as u32;
            }
        }
        Ok(None)
    }

    /// Where a directory has a name, and for which inode.
    pub(super) fn find(
        &mut self,
        directory: u32,
        name: &[u8],
    ) -> Result<Option<(Slot, u32)>, Error> {
        let found = self.scan(directory, 0, |slot, entry| {
            (entry.inode != 0 && entry.name == name).then_some((slot, entry.inode))
        })?;
        if let Some((_, inode)) = found {
            if !self.layout.has_inode(inode) {
                return Err(Damage::InodeOutside { directory, inode }.into());
            }
        }
        Ok(found)
    }

    /// Gives the entries from position `from` of a directory on to `visit`, until that says false. Entries
    /// whose name is none are left out. A position is 0 or what came with an entry before.
    ///
    /// # Errors
    /// It is no directory or damaged, or the position is none.
    pub fn list(
        &mut self,
        directory: u32,
        from: u64,
        mut visit: impl FnMut(Listed<'_>) -> bool,
    ) -> Result<(), Error> {
        let entry_bytes = self.layout.entry_bytes() as u64;
        if !from.is_multiple_of(entry_bytes) {
            return Err(Errno::Invalid.into());
        }
        let Ok(mut at) = u32::try_from(from) else { return Ok(()) };
        loop {
            let found = self.scan(directory, at, |slot, entry| {
                let is_listed = entry.inode != 0 && entry.has_name();
                is_listed.then(|| (slot.at, entry.inode, entry.name.to_vec()))
            })?;
            let Some((found_at, number, name)) = found else { return Ok(()) };
            at = found_at + entry_bytes as u32;
            let kind = self.kind_at(number);
            if !visit(Listed { number, next: at.into(), kind, name: &name }) {
                return Ok(());
            }
        }
    }

    /// Where a directory has a name and for which inode, and a free entry if it has one. The disk must not have a
    /// name twice, so a name that was removed and is there still gets its entry back, or goes first.
    pub(super) fn find_or_room(
        &mut self,
        directory: u32,
        name: &[u8],
    ) -> Result<FoundOrRoom, Error> {
        let (mut free, mut same) = (Vec::new(), Vec::new());
        let found = self.scan(directory, 0, |slot, entry| {
            if entry.inode == 0 && entry.name == name {
                same.push(slot);
            } else if entry.inode == 0 {
                free.push(slot);
            }
            (entry.inode != 0 && entry.name == name).then_some((slot, entry.inode))
        })?;
        if let Some((_, inode)) = found {
            if !self.layout.has_inode(inode) {
                return Err(Damage::InodeOutside { directory, inode }.into());
            }
        }
        let removed = same.iter().find(|slot| self.batch.is_held(slot.place())).copied();
        if removed.is_some_and(|slot| self.batch.is_needed(slot.place(), 0)) {
            self.sync()?;
        }
        let mut free = same.into_iter().chain(free);
        let free = free.find(|slot| !self.batch.is_held(slot.place()));
        Ok((found, removed.or(free)))
    }

    /// A place for a new entry behind the others. The directory has it only when an entry is put there.
    pub(super) fn room_at_end(&mut self, directory: u32) -> Result<Slot, Error> {
        let at = self.node(directory)?.inode.bytes;
        if at + self.layout.entry_bytes() as u32 > self.layout.file_max {
            return Err(Errno::NoSpace.into());
        }
        let (index, offset) =
            (at / self.layout.block_bytes, (at % self.layout.block_bytes) as usize);
        let zone = self.make_zone(directory, index)?;
        let tag = Tag { owner: directory, role: Role::Directory };
        if self.batch.fresh_zones.contains(&zone) {
            if !self.batch.fresh_inodes.contains(&directory) {
                self.batch.zeroed.insert(zone);
            }
        } else if self.cache.block(zone, tag)?[offset..].iter().any(|byte| *byte != 0) {
            // What somebody left behind the end must not become an entry.
            self.cache.change(zone, tag)?[offset..].fill(0);
            self.sync()?;
        }
        Ok(Slot { zone, offset, at })
    }

    /// Puts a name into a free entry.
    pub(super) fn put_entry(
        &mut self,
        directory: u32,
        slot: Slot,
        name: &[u8],
        inode: u32,
    ) -> Result<(), Error> {
        let tag = Tag { owner: directory, role: Role::Directory };
        Entry { inode, name }.encode(&mut self.cache.change(slot.zone, tag)?[slot.offset..]);
        self.batch.add(slot.place());
        self.batch.need(inode);
        let end = slot.at + self.layout.entry_bytes() as u32;
        let node = self.node_mut(directory)?;
        node.inode.bytes = node.inode.bytes.max(end);
        self.touch_content(directory)
    }

    /// Gives an entry another inode.
    pub(super) fn replace_entry(
        &mut self,
        directory: u32,
        slot: Slot,
        inode: u32,
    ) -> Result<(), Error> {
        let old = self.set_entry(directory, slot, inode)?;
        self.batch.replace(slot.place(), old);
        self.touch_content(directory)
    }

    /// Frees an entry.
    pub(super) fn remove_entry(&mut self, directory: u32, slot: Slot) -> Result<(), Error> {
        let old = self.set_entry(directory, slot, 0)?;
        self.batch.remove(slot.place(), old);
        self.touch_content(directory)
    }

    fn set_entry(&mut self, directory: u32, slot: Slot, inode: u32) -> Result<u32, Error> {
        let tag = Tag { owner: directory, role: Role::Directory };
        let number = &mut self.cache.change(slot.zone, tag)?[slot.offset..slot.offset + 4];
        let old = u32::from_le_bytes([number[0], number[1], number[2], number[3]]);
        number.copy_from_slice(&inode.to_le_bytes());
        Ok(old)
    }

    /// Refuses a directory that has more than `.` and `..`.
    pub(super) fn check_empty(&mut self, directory: u32) -> Result<(), Error> {
        let other =
            self.scan(directory, 0, |_, entry| (entry.inode != 0 && !entry.is_dot()).then_some(()));
        other?.is_none().then_some(()).ok_or(Errno::NotEmpty.into())
    }

    /// The entry `..` of a directory and where that leads.
    pub(super) fn parent(&mut self, directory: u32) -> Result<(Slot, u32), Error> {
        self.find(directory, DOT_DOT)?.ok_or(Damage::Dots { directory }.into())
    }

    /// A directory and all that it is in, up to the root.
    pub(super) fn with_parents(&mut self, directory: u32) -> Result<Vec<u32>, Error> {
        let mut all = vec![directory];
        let mut at = directory;
        while at != ROOT {
            at = self.parent(at)?.1;
            all.push(at);
            if all.len() > self.layout.inodes as usize {
                return Err(Damage::Loop { directory }.into());
            }
        }
        Ok(all)
    }
}
