// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writing changes to the disk, in an order in which a power cut does no harm.
//!
//! A commit writes everything that was changed since the last one, in steps with a flush after each:
//!
//! 1. *what nothing leads to yet*: the maps with what was taken, new blocks of files and of new directories,
//!    new blocks of numbers, and the content of files. Blocks that old directories have got are written
//!    as zeros;
//! 2. *inodes and blocks of numbers*. An inode that lost names counts them still, and one that was freed is
//!    left as it is. Also `..` of directories that are moved, so that of two names it has the new one is
//!    known;
//! 3. *names that were added*, and those that are for another inode now. What was removed is written as it
//!    was;
//! 4. *names that were removed*;
//! 5. *inodes* again: those that lost names, and zeros for those that were freed;
//! 6. *the maps* without what was freed.
//!
//! So wherever the power goes, what a name leads to is there and complete, nothing that is in use is marked as
//! free, and nothing is used twice, since what was freed is given out only after the last step. What may be
//! left are blocks and inodes that are marked as used and are nobody's, counts of names that are too high,
//! and, of what was renamed, the old name beside the new one. [`Volume::check`] finds them, and mounting
//! clears them up: a directory keeps one name, a file both. The order is that of soft updates (Ganger and
//! Patt, 1994), with one wait for all changes in place of dependencies between blocks.
//!
//! Within step 3 there is no order. A change that would need one commits the earlier ones first:
//! - replacing what a name is for, if that got another name since the last commit, or was a directory out of
//!   which something may have been moved: without its other name, it would be lost;
//! - making a name that was removed for the same reason; otherwise it gets its old entry back, since no
//!   directory may have a name twice;
//! - moving a directory into one that was moved: half of it could be two that lie in each other.
//!
//! The content of files is written whenever there is need of memory, since nothing depends on it.

use super::node::TABLE;
use super::{Mode, Volume};
use crate::cache::{Role, Tag};
use crate::disk::Disk;
use crate::error::Error;
use crate::format::{mark_clean, Inode, SUPERBLOCK_AT, SUPERBLOCK_BYTES};

impl<D: Disk> Volume<D> {
    /// Returns when everything that was changed is on stable storage.
    ///
    /// # Errors
    /// The disk failed, now or in an earlier commit. What was changed since the last success is in doubt,
    /// and nothing more is changed.
    pub fn sync(&mut self) -> Result<(), Error> {
        match self.mode {
            Mode::ReadOnly => return Ok(()),
            Mode::Failed => return Err(Error::Failed),
            Mode::Writable => {}
        }
        let done = if self.has_changes() { self.commit() } else { self.flush() };
        self.fail_with(done)
    }

    /// Ends all changes if a part of one was not done, or what was written is in doubt.
    pub(super) fn fail_with<T>(&mut self, done: Result<T, Error>) -> Result<T, Error> {
        if done.is_err() {
            self.mode = Mode::Failed;
        }
        done
    }

    /// Whether there is anything that a commit would write.
    pub fn has_changes(&self) -> bool {
        self.mode == Mode::Writable
            && (self.cache.dirty_count() != 0
                || self.inode_map.is_dirty()
                || self.zone_map.is_dirty()
                || !self.batch.is_empty()
                || self.nodes.values().any(|node| node.is_changed()))
    }

    fn flush(&mut self) -> Result<(), Error> {
        Ok(self.cache.flush()?)
    }

    fn commit(&mut self) -> Result<(), Error> {
        self.mark_clean(false)?;
        self.write_new()?;
        self.write_inodes()?;
        self.write_names()?;
        self.write_freed_inodes()?;
        self.write_freed_maps()
    }

    /// Step 1.
    fn write_new(&mut self) -> Result<(), Error> {
        self.write_maps()?;
        let batch = &self.batch;
        let is_new = |zone: u32, tag: Tag| {
            tag.role == Role::Data
                || batch.fresh_zones.contains(&zone) && !batch.zeroed.contains(&zone)
        };
        let new = self.cache.dirty(is_new);
        self.cache.write(&new, |_, _| true)?;
        let zeroed: Vec<_> = self.batch.zeroed.iter().copied().collect();
        self.cache.write(&zeroed, |_, bytes| {
            bytes.fill(0);
            false
        })?;
        self.flush()
    }

    fn write_maps(&mut self) -> Result<(), Error> {
        let block_bytes = u64::from(self.layout.block_bytes);
        for (block, content) in
            self.inode_map.take_dirty().into_iter().chain(self.zone_map.take_dirty())
        {
            self.cache.write_bytes(u64::from(block) * block_bytes, &content)?;
        }
        Ok(())
    }

    /// Step 2.
    fn write_inodes(&mut self) -> Result<(), Error> {
        let mut changed: Vec<_> =
            self.nodes.iter().filter(|(_, node)| node.dirty).map(|(number, _)| *number).collect();
        changed.sort_unstable();
        for number in changed {
            let node = self.nodes.get_mut(&number).expect("it was there");
            node.dirty = false;
            let links = node.inode.links.saturating_add(node.lost_links);
            let inode = Inode { links, ..node.inode };
            self.put_inode(number, &inode)?;
        }
        let written = self.cache.dirty(|_, tag| matches!(tag.role, Role::Table | Role::Pointers));
        self.cache.write(&written, |_, _| true)?;
        let batch = &self.batch;
        self.cache.write(&batch.parent_zones(), |zone, bytes| {
            batch.names_in(zone).for_each(|(offset, inode)| set_number(bytes, offset, inode));
            false
        })?;
        self.flush()
    }

    fn put_inode(&mut self, number: u32, inode: &Inode) -> Result<(), Error> {
        let (block, at) = self.layout.inode_place(number);
        let encoded = inode.encode();
        self.cache.change(block, TABLE)?[at..at + encoded.len()].copy_from_slice(&encoded);
        Ok(())
    }

    /// Steps 3 and 4.
    fn write_names(&mut self) -> Result<(), Error> {
        let directories = self.cache.dirty(|_, tag| tag.role == Role::Directory);
        let batch = &self.batch;
        self.cache.write(&directories, |zone, bytes| {
            let mut whole = true;
            for (offset, inode) in batch.held_in(zone) {
                set_number(bytes, offset, inode);
                whole = false;
            }
            whole
        })?;
        self.flush()?;
        if self.batch.has_held() {
            let directories = self.cache.dirty(|_, tag| tag.role == Role::Directory);
            self.cache.write(&directories, |_, _| true)?;
        }
        self.flush()
    }

    /// Step 5.
    fn write_freed_inodes(&mut self) -> Result<(), Error> {
        let lost = |node: &super::Node| node.lost_links != 0;
        let mut fewer: Vec<_> =
            self.nodes.iter().filter(|(_, node)| lost(node)).map(|(number, _)| *number).collect();
        fewer.sort_unstable();
        for number in fewer {
            let node = self.nodes.get_mut(&number).expect("it was there");
            node.lost_links = 0;
            let inode = node.inode;
            self.put_inode(number, &inode)?;
        }
        let freed: Vec<_> = self.batch.freed_inodes.iter().copied().collect();
        for number in freed {
            self.put_inode(number, &Inode::default())?;
        }
        let written = self.cache.dirty(|_, tag| tag.role == Role::Table);
        self.cache.write(&written, |_, _| true)?;
        self.flush()
    }

    /// Step 6. It needs no flush of its own: what is lost of it is marked as used and nobody's.
    fn write_freed_maps(&mut self) -> Result<(), Error> {
        let batch = core::mem::take(&mut self.batch);
        for zone in batch.freed_zones {
            self.zone_map.give(self.layout.zone_bit(zone));
        }
        for number in batch.freed_inodes {
            self.inode_map.give(number);
        }
        self.write_maps()
    }

    /// Sees to it that there is memory for a change, by writing earlier ones.
    pub(super) fn make_headroom(&mut self) -> Result<(), Error> {
        if self.cache.dirty_count() > self.cache.capacity() / 2 {
            let content = self.cache.dirty(|_, tag| tag.role == Role::Data);
            let written = self.cache.write(&content, |_, _| true).map_err(Error::from);
            self.fail_with(written)?;
        }
        if self.cache.dirty_count() > self.cache.capacity() / 4 {
            self.sync()?;
        }
        Ok(())
    }

    /// Writes, if that is not so on the disk, whether the file system is unmounted.
    fn mark_clean(&mut self, clean: bool) -> Result<(), Error> {
        if self.clean == clean {
            return Ok(());
        }
        let mut superblock = [0; SUPERBLOCK_BYTES];
        self.cache.disk().read(SUPERBLOCK_AT, &mut superblock)?;
        mark_clean(&mut superblock, clean);
        self.cache.write_bytes(SUPERBLOCK_AT, &superblock)?;
        self.flush()?;
        self.clean = clean;
        Ok(())
    }

    /// Writes everything, marks the file system as properly unmounted, and gives back the disk.
    ///
    /// # Errors
    /// The disk failed; what was changed since the last success is in doubt. The file system is then the
    /// same as after a power cut.
    pub fn unmount(mut self) -> Result<D, (D, Error)> {
        let mut done = self.free_unnamed().and_then(|()| self.sync());
        if done.is_ok() && self.mode == Mode::Writable {
            done = self.flush().and_then(|()| self.mark_clean(true));
        }
        let disk = self.cache.into_disk();
        match done {
            Ok(()) => Ok(disk),
            Err(error) => Err((disk, error)),
        }
    }
}

/// Sets the number of the entry at byte `offset` of a block.
fn set_number(block: &mut [u8], offset: usize, inode: u32) {
    block[offset..offset + 4].copy_from_slice(&inode.to_le_bytes());
}
