// SPDX-License-Identifier: MIT OR Apache-2.0
//! Making an empty file system.

use super::layout::{self, SUPERBLOCK_AT};
use super::{Entry, Inode, Kind, Layout, Path, Version, DOT, DOT_DOT, ROOT};
use crate::disk::{Disk, DiskError};

/// Why no file system can be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MakeError {
    /// Blocks of this size there are not.
    #[error("blocks of {0} bytes cannot be made: it must be a power of two from 1024 to 32768")]
    BlockSize(u32),
    /// The disk is too small, or too large for the format.
    #[error(
        "a disk of {0} bytes cannot have a file system with so many inodes and blocks of this size"
    )]
    DiskSize(u64),
    /// The disk failed.
    #[error("{0}")]
    Disk(#[from] DiskError),
}

/// Makes an empty file system of version 3 on all of `disk`: with blocks of `block_bytes` bytes, room for
/// `inodes` files, or one for three blocks if that is 0, and a root directory of user 0 that was made at
/// `now`, in seconds since 1970. What is on the disk is lost.
///
/// # Errors
/// The sizes do not fit each other or the format, or the disk failed.
pub fn make(
    disk: &mut (impl Disk + ?Sized),
    block_bytes: u32,
    inodes: u32,
    now: u32,
) -> Result<Layout, MakeError> {
    if !block_bytes.is_power_of_two() || !(1024..=32768).contains(&block_bytes) {
        return Err(MakeError::BlockSize(block_bytes));
    }
    let layout =
        plan(disk.bytes(), block_bytes, inodes).ok_or(MakeError::DiskSize(disk.bytes()))?;
    let block = |number: u32| u64::from(number) * u64::from(block_bytes);
    let zeros = vec![0; block_bytes as usize];
    for number in 0..layout.first_data_zone {
        disk.write(block(number), &zeros)?;
    }
    write_map(disk, &layout, layout.inode_map_at(), layout.inode_map_blocks, layout.inodes)?;
    write_map(disk, &layout, layout.zone_map_at(), layout.zone_map_blocks, layout.data_zones())?;

    let mut content = zeros.clone();
    Entry { inode: ROOT, name: DOT }.encode(&mut content);
    Entry { inode: ROOT, name: DOT_DOT }.encode(&mut content[layout.entry_bytes()..]);
    disk.write(block(layout.first_data_zone), &content)?;

    let mut root = Inode {
        mode: Kind::Directory as u16 | 0o755,
        links: 2,
        bytes: 2 * layout.entry_bytes() as u32,
        accessed: now,
        modified: now,
        changed: now,
        ..Inode::default()
    };
    root.zones[0] = layout.first_data_zone;
    let (table, at) = layout.inode_place(ROOT);
    disk.write(block(table) + at as u64, &root.encode())?;
    disk.flush()?;
    // What was there before is a file system until this is written.
    disk.write(SUPERBLOCK_AT, &layout::encode(&layout))?;
    disk.flush()?;
    Ok(layout)
}

/// Writes a map in which 1 of `count` things is used, and what is no thing is as well.
fn write_map(
    disk: &mut (impl Disk + ?Sized),
    layout: &Layout,
    first: u32,
    blocks: u32,
    count: u32,
) -> Result<(), DiskError> {
    let bits = u64::from(layout.block_bytes) * 8;
    for block in 0..blocks {
        let mut bytes = vec![0; layout.block_bytes as usize];
        let begin = u64::from(block) * bits;
        let mut mark = |bit: u64| bytes[(bit / 8) as usize] |= 1 << (bit % 8);
        if block == 0 {
            mark(0);
            mark(1);
        }
        for bit in (u64::from(count) + 1).max(begin)..begin + bits {
            mark(bit - begin);
        }
        disk.write(u64::from(first + block) * u64::from(layout.block_bytes), &bytes)?;
    }
    Ok(())
}

fn plan(disk_bytes: u64, block_bytes: u32, inodes: u32) -> Option<Layout> {
    let zones = u32::try_from(disk_bytes / u64::from(block_bytes)).unwrap_or(u32::MAX);
    let per_table = block_bytes / 64;
    let bits = block_bytes * 8;
    let inodes = if inodes == 0 { zones / 3 } else { inodes };
    // The last block of the table is for inodes to the end.
    let inodes = inodes.max(1).checked_next_multiple_of(per_table)?;
    let mut layout = Layout {
        version: Version::V3,
        name_bytes: 60,
        block_bytes,
        inodes,
        zones,
        inode_map_blocks: (inodes / bits) + 1,
        // It has a bit for each block, with those that are none for data; that is hardly more.
        zone_map_blocks: zones / bits + 1,
        first_data_zone: 0,
        file_max: 0,
        clean: false,
    };
    let fits = |blocks: u32| u16::try_from(blocks).is_ok();
    if !fits(layout.inode_map_blocks) || !fits(layout.zone_map_blocks) {
        return None;
    }
    layout.first_data_zone = layout.inodes_at().checked_add(inodes / per_table)?;
    let reach = Path::reach(&layout).saturating_mul(block_bytes.into());
    layout.file_max = u32::try_from(reach).unwrap_or(u32::MAX).min(i32::MAX as u32);
    layout.clean = true;
    (layout.first_data_zone < zones).then_some(layout)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Memory;
    use crate::format::SUPERBLOCK_BYTES;

    #[test]
    fn what_is_made_is_read_back() {
        for (bytes, block_bytes) in
            [(64 << 10, 1024), (1 << 20, 1024), (3 << 20, 4096), (70_000, 1024)]
        {
            let mut disk = Memory::new(bytes);
            let made = make(&mut disk, block_bytes, 0, 77).unwrap();
            let mut superblock = [0; SUPERBLOCK_BYTES];
            disk.read(SUPERBLOCK_AT, &mut superblock).unwrap();
            assert_eq!(Layout::decode(&superblock, disk.bytes()), Ok(made));
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        let made =
            |bytes, block_bytes, inodes| make(&mut Memory::new(bytes), block_bytes, inodes, 0);
        assert_eq!(made(1 << 20, 1000, 0).unwrap_err(), MakeError::BlockSize(1000));
        assert_eq!(made(4096, 1024, 0).unwrap_err(), MakeError::DiskSize(4096));
        assert_eq!(made(1 << 20, 1024, 1 << 20).unwrap_err(), MakeError::DiskSize(1 << 20));
        assert!(made(1 << 20, 1024, u32::MAX).is_err());
    }
}
