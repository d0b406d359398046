// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which block of the disk is which of a file.

use super::Volume;
use crate::cache::{Role, Tag};
use crate::disk::Disk;
use crate::error::{Damage, Error};
use crate::format::{Kind, Path, POINTERS_DIRECT};
use mol_protocol::Errno;

/// The role of the blocks with the content of a thing of this kind.
pub(super) fn content_role(kind: Kind) -> Role {
    if kind == Kind::Directory {
        Role::Directory
    } else {
        Role::Data
    }
}

/// The number at `index` of a block of numbers.
pub(super) fn pointer_in(bytes: &[u8], index: u32, pointer_bytes: u32) -> u32 {
    let at = (index * pointer_bytes) as usize;
    let mut number = [0; 4];
    number[..pointer_bytes as usize].copy_from_slice(&bytes[at..at + pointer_bytes as usize]);
    u32::from_le_bytes(number)
}

/// All numbers of a block of numbers.
pub(super) fn pointers_in(bytes: &[u8], pointer_bytes: u32) -> impl Iterator<Item = u32> + '_ {
    let count = bytes.len() as u32 / pointer_bytes;
    (0..count).map(move |index| pointer_in(bytes, index, pointer_bytes))
}

impl<D: Disk> Volume<D> {
    /// The number of block `index` of a file; 0 if it has none there.
    pub(super) fn zone_at(&mut self, number: u32, index: u32) -> Result<u32, Error> {
        let path = Path::to(&self.layout, index).ok_or(Errno::TooLarge)?;
        let mut zone = self.node(number)?.inode.zones[path.slot];
        for step in path.steps() {
            if zone == 0 {
                return Ok(0);
            }
            zone = self.pointer(number, zone, *step)?;
        }
        self.check_zone(number, zone)?;
        Ok(zone)
    }

    /// The number at `step` of the block of numbers `zone`.
    pub(super) fn pointer(&mut self, number: u32, zone: u32, step: u32) -> Result<u32, Error> {
        self.check_zone(number, zone)?;
        let bytes = self.layout.pointer_bytes();
        let tag = Tag { owner: number, role: Role::Pointers };
        Ok(pointer_in(self.cache.block(zone, tag)?, step, bytes))
    }

    /// Refuses a number that is no data block's.
    pub(super) fn check_zone(&self, number: u32, zone: u32) -> Result<(), Error> {
        if zone != 0 && !self.layout.is_data(zone) {
            return Err(Damage::ZoneOutside { inode: number, zone }.into());
        }
        Ok(())
    }

    /// How many blocks a file has, with those that lead to others.
    pub(super) fn count_blocks(&mut self, number: u32) -> Result<u32, Error> {
        let node = self.node(number)?;
        if !node.kind.has_content() {
            return Ok(0);
        }
        let zones = node.inode.zones;
        let mut blocks = zones[..POINTERS_DIRECT].iter().filter(|zone| **zone != 0).count() as u32;
        for depth in 1..=Path::depth_max(&self.layout) {
            let zone = zones[POINTERS_DIRECT + depth - 1];
            blocks = blocks.saturating_add(self.count_below(number, zone, depth)?);
        }
        Ok(blocks)
    }

    fn count_below(&mut self, number: u32, zone: u32, depth: usize) -> Result<u32, Error> {
        if zone == 0 || depth == 0 {
            return Ok((zone != 0).into());
        }
        self.check_zone(number, zone)?;
        let mut blocks = 1;
        for next in self.pointers(number, zone)? {
            blocks += self.count_below(number, next, depth - 1)?;
            // There cannot be so many, and counting might take for ever.
            if blocks > self.layout.data_zones() {
                return Err(Damage::ZoneTwice { inode: number, zone }.into());
            }
        }
        Ok(blocks)
    }
}
