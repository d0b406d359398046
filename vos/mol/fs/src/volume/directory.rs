// SPDX-License-Identifier: MIT OR Apache-2.0
//! Entries of directories.

use super::Volume;
use crate::cache::{Role, Tag};
use crate::disk::Disk;
use crate::error::{Damage, Error};
use crate::format::{Entry, Kind};
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
        if from % entry_bytes != 0 {
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
}
