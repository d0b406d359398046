// SPDX-License-Identifier: MIT OR Apache-2.0
//! Blocks in memory: read once, changed there, and written when the volume says so.
//!
//! A block in here is known to be somebody's: which inode has it, and what for. Whoever asks for it as
//! something else has been led astray by a damaged file system, and is refused.

use crate::disk::{Disk, DiskError};
use crate::error::{Damage, Error};
use std::collections::{BTreeSet, HashMap, VecDeque};

/// The most bytes of one request to the disk.
const TRANSFER_MAX: usize = 256 << 10;

/// What a block is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Content of a file, or the path in a symbolic link.
    Data,
    /// Entries of a directory.
    Directory,
    /// Numbers of further blocks.
    Pointers,
    /// Inodes.
    Table,
}

/// Whose block it is, and what for. The inodes are nobody's: number 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    pub(crate) owner: u32,
    pub(crate) role: Role,
}

struct Block {
    bytes: Box<[u8]>,
    tag: Tag,
    dirty: bool,
    /// Whether it was used since its turn to go came last.
    used: bool,
}

/// Blocks of a disk.
pub(crate) struct Cache<D> {
    disk: D,
    block_bytes: usize,
    /// How many blocks are kept, as long as there are clean ones to let go.
    capacity: usize,
    blocks: HashMap<u32, Block>,
    /// The order in which blocks get their turn to go. It may have some that are gone already.
    turns: VecDeque<u32>,
    dirty: BTreeSet<u32>,
    unflushed: bool,
}

impl<D: Disk> Cache<D> {
    pub(crate) fn new(disk: D, block_bytes: u32, capacity: usize) -> Self {
        Self {
            disk,
            block_bytes: block_bytes as usize,
            capacity: capacity.max(16),
            blocks: HashMap::new(),
            turns: VecDeque::new(),
            dirty: BTreeSet::new(),
            unflushed: false,
        }
    }

    pub(crate) fn disk(&mut self) -> &mut D {
        &mut self.disk
    }

    pub(crate) fn into_disk(self) -> D {
        self.disk
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// What is in block `zone`.
    pub(crate) fn block(&mut self, zone: u32, tag: Tag) -> Result<&[u8], Error> {
        Ok(&self.load(zone, tag)?.bytes)
    }

    fn load(&mut self, zone: u32, tag: Tag) -> Result<&mut Block, Error> {
        if !self.blocks.contains_key(&zone) {
            let mut bytes = vec![0; self.block_bytes].into_boxed_slice();
            self.disk.read(self.position(zone), &mut bytes)?;
            self.insert(zone, tag, bytes);
        }
        let block = self.blocks.get_mut(&zone).expect("it was put there");
        if block.tag != tag {
            return Err(Damage::ZoneTwice { inode: tag.owner, zone }.into());
        }
        block.used = true;
        Ok(block)
    }

    fn position(&self, zone: u32) -> u64 {
        u64::from(zone) * self.block_bytes as u64
    }

    fn insert(&mut self, zone: u32, tag: Tag, bytes: Box<[u8]>) {
        self.make_room();
        self.blocks.insert(zone, Block { bytes, tag, dirty: false, used: true });
        self.turns.push_back(zone);
    }

    /// Lets blocks go that are clean and were not used since their last turn.
    fn make_room(&mut self) {
        if self.turns.len() > 2 * self.capacity.max(self.blocks.len()) {
            self.turns = self.blocks.keys().copied().collect();
        }
        let mut turns = 2 * self.turns.len();
        while self.blocks.len() >= self.capacity && turns > 0 {
            turns -= 1;
            let Some(zone) = self.turns.pop_front() else { return };
            match self.blocks.get_mut(&zone) {
                None => {}
                Some(block) if block.dirty || block.used => {
                    block.used = false;
                    self.turns.push_back(zone);
                }
                Some(_) => {
                    self.blocks.remove(&zone);
                }
            }
        }
    }

    /// Reads up to `count` blocks from `zone` on, as far as they are not there yet, in one request. The caller
    /// has checked that they are blocks of the disk.
    pub(crate) fn read_ahead(&mut self, zone: u32, count: u32, tag: Tag) -> Result<(), Error> {
        let most = (TRANSFER_MAX / self.block_bytes).min(self.capacity / 2) as u32;
        let absent = |zone: &u32| !self.blocks.contains_key(zone);
        let count = (zone..zone + count.min(most)).take_while(absent).count();
        if count == 0 {
            return Ok(());
        }
        let mut bytes = vec![0; count * self.block_bytes];
        self.disk.read(self.position(zone), &mut bytes)?;
        for (zone, bytes) in (zone..).zip(bytes.chunks_exact(self.block_bytes)) {
            self.insert(zone, tag, bytes.into());
        }
        Ok(())
    }

    /// What is in block `zone`, to be changed.
    pub(crate) fn change(&mut self, zone: u32, tag: Tag) -> Result<&mut [u8], Error> {
        self.load(zone, tag)?;
        Ok(self.mark_dirty(zone))
    }

    fn mark_dirty(&mut self, zone: u32) -> &mut [u8] {
        self.dirty.insert(zone);
        let block = self.blocks.get_mut(&zone).expect("only what is here is changed");
        block.dirty = true;
        &mut block.bytes
    }

    /// Block `zone` as one of zeros, whatever is on the disk.
    pub(crate) fn fresh(&mut self, zone: u32, tag: Tag) -> &mut [u8] {
        self.discard(zone);
        self.insert(zone, tag, vec![0; self.block_bytes].into_boxed_slice());
        self.mark_dirty(zone)
    }

    /// Gives block `zone` the content `bytes`, without reading what it had.
    pub(crate) fn overwrite(&mut self, zone: u32, tag: Tag, bytes: &[u8]) -> Result<(), Error> {
        if self.blocks.contains_key(&zone) {
            self.load(zone, tag)?.bytes.copy_from_slice(bytes);
        } else {
            self.insert(zone, tag, bytes.into());
        }
        self.mark_dirty(zone);
        Ok(())
    }

    /// Forgets block `zone` and what was changed in it.
    pub(crate) fn discard(&mut self, zone: u32) {
        self.blocks.remove(&zone);
        self.dirty.remove(&zone);
    }

    /// How many blocks differ from the disk.
    pub(crate) fn dirty_count(&self) -> usize {
        self.dirty.len()
    }

    /// The blocks that differ from the disk and are wanted, in their order.
    pub(crate) fn dirty(&self, wanted: impl Fn(u32, Tag) -> bool) -> Vec<u32> {
        self.dirty.iter().copied().filter(|zone| wanted(*zone, self.blocks[zone].tag)).collect()
    }

    /// Writes `zones`, which are here and in their order, as `view` makes them of their content. It says
    /// whether that is all of it; a block that is not written in full still differs from the disk.
    pub(crate) fn write(
        &mut self,
        zones: &[u32],
        mut view: impl FnMut(u32, &mut [u8]) -> bool,
    ) -> Result<(), DiskError> {
        let most = TRANSFER_MAX / self.block_bytes;
        for run in zones.chunk_by(|before, after| before + 1 == *after) {
            for run in run.chunks(most) {
                let mut bytes = Vec::with_capacity(run.len() * self.block_bytes);
                let mut whole = Vec::new();
                for zone in run {
                    let at = bytes.len();
                    bytes.extend_from_slice(&self.blocks[zone].bytes);
                    if view(*zone, &mut bytes[at..]) {
                        whole.push(*zone);
                    }
                }
                self.write_bytes(self.position(run[0]), &bytes)?;
                for zone in whole {
                    self.dirty.remove(&zone);
                    self.blocks.get_mut(&zone).expect("it was written").dirty = false;
                }
            }
        }
        Ok(())
    }

    /// Writes what is in no block here.
    pub(crate) fn write_bytes(&mut self, position: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.unflushed = true;
        self.disk.write(position, bytes)
    }

    /// Returns when all that was written is on stable storage.
    pub(crate) fn flush(&mut self) -> Result<(), DiskError> {
        if self.unflushed {
            self.disk.flush()?;
            self.unflushed = false;
        }
        Ok(())
    }
}
