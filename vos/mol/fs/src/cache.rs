// SPDX-License-Identifier: MIT OR Apache-2.0
//! Blocks in memory: read once.
//!
//! A block in here is known to be somebody's: which inode has it, and what for. Whoever asks for it as
//! something else has been led astray by a damaged file system, and is refused.

use crate::disk::Disk;
use crate::error::{Damage, Error};
use std::collections::{HashMap, VecDeque};

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
    /// Whether it was used since its turn to go came last.
    used: bool,
}

/// Blocks of a disk.
pub(crate) struct Cache<D> {
    disk: D,
    block_bytes: usize,
    /// How many blocks are kept.
    capacity: usize,
    blocks: HashMap<u32, Block>,
    /// The order in which blocks get their turn to go. It may have some that are gone already.
    turns: VecDeque<u32>,
}

impl<D: Disk> Cache<D> {
    pub(crate) fn new(disk: D, block_bytes: u32, capacity: usize) -> Self {
        Self {
            disk,
            block_bytes: block_bytes as usize,
            capacity: capacity.max(16),
            blocks: HashMap::new(),
            turns: VecDeque::new(),
        }
    }

    pub(crate) fn into_disk(self) -> D {
        self.disk
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
        self.blocks.insert(zone, Block { bytes, tag, used: true });
        self.turns.push_back(zone);
    }

    /// Lets blocks go that were not used since their last turn.
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
                Some(block) if block.used => {
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
}
