// SPDX-License-Identifier: MIT OR Apache-2.0
//! A map of what is used, in memory: one of inodes or of data blocks.

use crate::disk::{Disk, DiskError};

/// A map with bits from 1 to a count; bit 0 of the format is for nothing.
#[derive(Debug)]
pub(crate) struct Bitmap {
    words: Vec<u64>,
    free: u32,
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
        let mut map = Self { words, free: 0 };
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
}
