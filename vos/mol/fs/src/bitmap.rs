// SPDX-License-Identifier: MIT OR Apache-2.0
//! A map of what is used, in memory: one of inodes or of data blocks.

use crate::disk::{Disk, DiskError};
use std::collections::BTreeSet;

/// A map with bits from 1 to a count; bit 0 of the format is for nothing.
#[derive(Debug)]
pub(crate) struct Bitmap {
    words: Vec<u64>,
    /// The last bit.
    last: u32,
    free: u32,
    /// Where the search for a free bit begins.
    next: u32,
    /// The block on the disk that it begins in.
    first_block: u32,
    block_bytes: u32,
    /// Which of its blocks, counted from the first, differ from the disk.
    dirty: BTreeSet<u32>,
}

impl Bitmap {
    /// Reads the map with bits up to `last` from block `first_block` on.
    pub(crate) fn read(
        disk: &mut impl Disk,
        first_block: u32,
        block_bytes: u32,
        last: u32,
    ) -> Result<Self, DiskError> {
        let blocks = (u64::from(last) + 1).div_ceil(u64::from(block_bytes) * 8);
        let mut bytes = vec![0; (blocks * u64::from(block_bytes)) as usize];
        disk.read(u64::from(first_block) * u64::from(block_bytes), &mut bytes)?;
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("chunks of 8 bytes"));
        let words = bytes.chunks_exact(8).map(word).collect();
        let mut map = Self {
            words,
            last,
            free: 0,
            next: 1,
            first_block,
            block_bytes,
            dirty: BTreeSet::new(),
        };
        map.free = (1..=last).filter(|bit| !map.is_set(*bit)).count() as u32;
        Ok(map)
    }

    pub(crate) fn is_set(&self, bit: u32) -> bool {
        self.words[bit as usize / 64] >> (bit % 64) & 1 != 0
    }

    /// How many bits are not set.
    pub(crate) fn free(&self) -> u32 {
        self.free
    }

    /// Sets a bit that was not set: the one at `near` or the first one after it, or after the one that was
    /// taken last. `None` if all are set.
    pub(crate) fn take(&mut self, near: Option<u32>) -> Option<u32> {
        if self.free == 0 {
            return None;
        }
        let from = near.unwrap_or(self.next).clamp(1, self.last);
        let bit = self.find(from, self.last).or_else(|| self.find(1, from))?;
        self.words[bit as usize / 64] |= 1 << (bit % 64);
        self.free -= 1;
        self.next = bit;
        self.touch(bit);
        Some(bit)
    }

    fn find(&self, from: u32, to: u32) -> Option<u32> {
        let mut bit = from;
        while bit <= to {
            let rest = !self.words[bit as usize / 64] >> (bit % 64);
            if rest != 0 {
                return Some(bit + rest.trailing_zeros()).filter(|bit| *bit <= to);
            }
            bit = (bit / 64 + 1).checked_mul(64)?;
        }
        None
    }

    /// Clears a bit that was set.
    pub(crate) fn give(&mut self, bit: u32) {
        debug_assert!(self.is_set(bit), "bit {bit} is clear");
        self.words[bit as usize / 64] &= !(1 << (bit % 64));
        self.free += 1;
        self.touch(bit);
    }

    fn touch(&mut self, bit: u32) {
        self.dirty.insert(bit / (self.block_bytes * 8));
    }

    /// Takes note that the blocks given out now are written: where each goes and what it has.
    pub(crate) fn take_dirty(&mut self) -> Vec<(u32, Vec<u8>)> {
        let words_per_block = self.block_bytes as usize / 8;
        let dirty = core::mem::take(&mut self.dirty);
        let content = |block: u32| {
            let words = &self.words[block as usize * words_per_block..][..words_per_block];
            words.iter().flat_map(|word| word.to_le_bytes()).collect()
        };
        dirty.into_iter().map(|block| (self.first_block + block, content(block))).collect()
    }

    /// Whether anything differs from the disk.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Memory;

    fn map(last: u32) -> Bitmap {
        Bitmap::read(&mut Memory::new(4096), 1, 1024, last).unwrap()
    }

    #[test]
    fn every_bit_is_given_once() {
        let mut map = map(130);
        let mut taken: Vec<_> = std::iter::from_fn(|| map.take(None)).collect();
        taken.sort_unstable();
        assert_eq!(taken, (1..=130).collect::<Vec<_>>());
        map.give(64);
        assert_eq!((map.free(), map.take(Some(100)), map.take(None)), (1, Some(64), None));
    }

    #[test]
    fn a_bit_is_taken_near_another() {
        let mut map = map(1000);
        assert_eq!(map.take(Some(500)), Some(500));
        assert_eq!(map.take(Some(500)), Some(501));
        assert_eq!(map.take(None), Some(502));
        assert_eq!(map.take(Some(u32::MAX)), Some(1000));
        assert_eq!(map.take(Some(1000)), Some(1));
    }

    #[test]
    fn blocks_that_were_touched_are_written_once() {
        let mut map = map(9000);
        map.take(Some(8192));
        let dirty = map.take_dirty();
        assert_eq!(dirty.len(), 1);
        assert_eq!((dirty[0].0, &dirty[0].1[..2]), (2, &[1, 0][..]));
        assert!(!map.is_dirty());
    }
}
