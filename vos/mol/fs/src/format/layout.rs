// SPDX-License-Identifier: MIT OR Apache-2.0
//! The superblock: what is where.

use super::{u16_at, u32_at};

/// Where the superblock is, in bytes; whatever the size of a block.
pub const SUPERBLOCK_AT: u64 = 1024;
/// Bytes of the superblock that have a meaning or are kept.
pub const SUPERBLOCK_BYTES: usize = 1024;
/// The number of the inode of the root directory.
pub const ROOT: u32 = 1;
/// The block where the maps begin.
const MAPS_AT: u32 = 2;

const MAGIC_V1: u16 = 0x137f;
const MAGIC_V1_LONG: u16 = 0x138f;
const MAGIC_V2: u16 = 0x2468;
const MAGIC_V2_LONG: u16 = 0x2478;
const MAGIC_V3: u16 = 0x4d5a;
/// MINIX 3's flag of a file system that was unmounted properly.
const CLEAN: u16 = 1;
/// Flags of MINIX 3 that one must know, or not touch the file system.
const MANDATORY: u16 = 0xff00;
/// The flag of versions 1 and 2 for the same.
const VALID: u16 = 1;

/// Which format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// That of MINIX 1: 16-bit numbers.
    V1 = 1,
    /// That of MINIX 2: 32-bit numbers of blocks.
    V2 = 2,
    /// That of MINIX 3.
    V3 = 3,
}

/// Why there is no file system of a known kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotMinix {
    /// The disk is too small to have a superblock.
    #[error("the disk has {0} bytes only, too few for a superblock")]
    NoRoom(u64),
    /// The magic number is not one of MINIX.
    #[error("the superblock has no magic number of MINIX")]
    Magic,
    /// Block sizes that are no power of two from 1 KiB to 32 KiB.
    #[error("its blocks have {0} bytes; only powers of two from 1024 to 32768 are known")]
    BlockSize(u16),
    /// Zones of several blocks.
    #[error("its zones are of 2^{0} blocks; only zones of one block are known")]
    ZoneSize(u16),
    /// Numbers that contradict each other.
    #[error("the superblock contradicts itself: {0}")]
    Contradiction(&'static str),
    /// The disk is smaller than the file system.
    #[error("the file system has {zones} blocks of {block_bytes} bytes, the disk {disk_bytes} bytes only")]
    Truncated {
        /// Blocks that there should be.
        zones: u32,
        /// Bytes of each.
        block_bytes: u32,
        /// Bytes that there are.
        disk_bytes: u64,
    },
    /// Properties that this crate does not know and must.
    #[error("it has properties that are unknown here (flags {0:#x})")]
    Flags(u16),
}

/// Where everything is: a superblock that has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The format.
    pub version: Version,
    /// The longest name in bytes.
    pub name_bytes: usize,
    /// Bytes of a block.
    pub block_bytes: u32,
    /// Inodes; their numbers begin with 1.
    pub inodes: u32,
    /// Blocks, with those that are not for data.
    pub zones: u32,
    /// Blocks of the map of inodes.
    pub inode_map_blocks: u32,
    /// Blocks of the map of data blocks.
    pub zone_map_blocks: u32,
    /// The first block for data.
    pub first_data_zone: u32,
    /// The largest file in bytes.
    pub file_max: u32,
    /// Whether it was unmounted properly.
    pub clean: bool,
}

/// What the two kinds of superblock say in common.
struct Raw {
    version: Version,
    name_bytes: usize,
    block_bytes: u32,
    inodes: u32,
    zones: u32,
    inode_map_blocks: u16,
    zone_map_blocks: u16,
    first_data_zone: u16,
    log_zone_blocks: u16,
    file_max: u32,
    clean: bool,
}

fn read(bytes: &[u8; SUPERBLOCK_BYTES]) -> Result<Raw, NotMinix> {
    let old = |version, name_bytes| {
        let v1 = version == Version::V1;
        Raw {
            version,
            name_bytes,
            block_bytes: 1024,
            inodes: u16_at(bytes, 0).into(),
            zones: if v1 { u16_at(bytes, 2).into() } else { u32_at(bytes, 20) },
            inode_map_blocks: u16_at(bytes, 4),
            zone_map_blocks: u16_at(bytes, 6),
            first_data_zone: u16_at(bytes, 8),
            log_zone_blocks: u16_at(bytes, 10),
            file_max: u32_at(bytes, 12),
            clean: u16_at(bytes, 18) & VALID != 0,
        }
    };
    match u16_at(bytes, 16) {
        MAGIC_V1 => return Ok(old(Version::V1, 14)),
        MAGIC_V1_LONG => return Ok(old(Version::V1, 30)),
        MAGIC_V2 => return Ok(old(Version::V2, 14)),
        MAGIC_V2_LONG => return Ok(old(Version::V2, 30)),
        _ => {}
    }
    if u16_at(bytes, 24) != MAGIC_V3 {
        return Err(NotMinix::Magic);
    }
    let block_bytes = u16_at(bytes, 28);
    if !block_bytes.is_power_of_two() || block_bytes < 1024 {
        return Err(NotMinix::BlockSize(block_bytes));
    }
    let flags = u16_at(bytes, 14);
    if flags & MANDATORY != 0 {
        return Err(NotMinix::Flags(flags));
    }
    Ok(Raw {
        version: Version::V3,
        name_bytes: 60,
        block_bytes: block_bytes.into(),
        inodes: u32_at(bytes, 0),
        zones: u32_at(bytes, 20),
        inode_map_blocks: u16_at(bytes, 6),
        zone_map_blocks: u16_at(bytes, 8),
        first_data_zone: u16_at(bytes, 10),
        log_zone_blocks: u16_at(bytes, 12),
        file_max: u32_at(bytes, 16),
        clean: flags & CLEAN != 0,
    })
}

impl Layout {
    /// Reads and checks a superblock.
    ///
    /// # Errors
    /// It is none, contradicts itself, or is of a file system that is larger than the disk.
    pub fn decode(bytes: &[u8; SUPERBLOCK_BYTES], disk_bytes: u64) -> Result<Self, NotMinix> {
        let raw = read(bytes)?;
        if raw.log_zone_blocks != 0 {
            return Err(NotMinix::ZoneSize(raw.log_zone_blocks));
        }
        let mut layout = Self {
            version: raw.version,
            name_bytes: raw.name_bytes,
            block_bytes: raw.block_bytes,
            inodes: raw.inodes,
            zones: raw.zones,
            inode_map_blocks: raw.inode_map_blocks.into(),
            zone_map_blocks: raw.zone_map_blocks.into(),
            first_data_zone: 0,
            file_max: raw.file_max,
            clean: raw.clean,
        };
        let contradiction = |what| Err(NotMinix::Contradiction(what));
        if layout.inodes == 0 || layout.inodes == u32::MAX {
            return contradiction("its number of inodes is none");
        }
        let first = u64::from(layout.inodes_at()) + u64::from(layout.inode_blocks());
        // A number that does not fit its 16 bits is 0, and follows from the rest.
        let said = u64::from(raw.first_data_zone);
        let said = if said == 0 && layout.version == Version::V3 { first } else { said };
        if said < first || said >= u64::from(layout.zones) {
            return contradiction("the data begins before the inodes end, or behind the end");
        }
        layout.first_data_zone = said as u32;
        let bits = |blocks: u32| u64::from(blocks) * u64::from(layout.block_bytes) * 8;
        if bits(layout.inode_map_blocks) < u64::from(layout.inodes) + 1 {
            return contradiction("the map of inodes is too small");
        }
        if bits(layout.zone_map_blocks) < u64::from(layout.data_zones()) + 1 {
            return contradiction("the map of data blocks is too small");
        }
        if u64::from(layout.zones) * u64::from(layout.block_bytes) > disk_bytes {
            let Self { zones, block_bytes, .. } = layout;
            return Err(NotMinix::Truncated { zones, block_bytes, disk_bytes });
        }
        // Sizes are of 31 bits: MINIX and Linux read them with a sign.
        let reach = super::Path::reach(&layout).saturating_mul(layout.block_bytes.into());
        layout.file_max =
            raw.file_max.min(i32::MAX as u32).min(reach.try_into().unwrap_or(u32::MAX));
        if layout.file_max < layout.block_bytes {
            return contradiction("its largest file has less than a block");
        }
        Ok(layout)
    }

    /// Bytes of an entry of a directory.
    pub fn entry_bytes(&self) -> usize {
        self.name_bytes + self.entry_number_bytes()
    }

    /// Bytes of the number in an entry of a directory.
    pub(super) fn entry_number_bytes(&self) -> usize {
        if self.version == Version::V3 {
            4
        } else {
            2
        }
    }

    /// Bytes of an inode.
    pub fn inode_bytes(&self) -> u32 {
        if self.version == Version::V1 {
            32
        } else {
            64
        }
    }

    /// Bytes of the number of a block.
    pub fn pointer_bytes(&self) -> u32 {
        if self.version == Version::V1 {
            2
        } else {
            4
        }
    }

    /// How many numbers of blocks a block has.
    pub fn pointers_per_block(&self) -> u32 {
        self.block_bytes / self.pointer_bytes()
    }

    /// The first block of the map of inodes.
    pub fn inode_map_at(&self) -> u32 {
        MAPS_AT
    }

    /// The first block of the map of data blocks.
    pub fn zone_map_at(&self) -> u32 {
        MAPS_AT + self.inode_map_blocks
    }

    /// The first block of the inodes.
    pub fn inodes_at(&self) -> u32 {
        self.zone_map_at() + self.zone_map_blocks
    }

    fn inode_blocks(&self) -> u32 {
        self.inodes.div_ceil(self.block_bytes / self.inode_bytes())
    }

    /// How many blocks are for data.
    pub fn data_zones(&self) -> u32 {
        self.zones - self.first_data_zone
    }

    /// Whether block `zone` is one for data.
    pub fn is_data(&self, zone: u32) -> bool {
        (self.first_data_zone..self.zones).contains(&zone)
    }

    /// Whether there is an inode of this number.
    pub fn has_inode(&self, number: u32) -> bool {
        (1..=self.inodes).contains(&number)
    }

    /// The block and the byte in it where inode `number` is.
    pub fn inode_place(&self, number: u32) -> (u32, usize) {
        let per_block = self.block_bytes / self.inode_bytes();
        let index = number - 1;
        (self.inodes_at() + index / per_block, (index % per_block * self.inode_bytes()) as usize)
    }

    /// The bit of data block `zone` in the map.
    pub fn zone_bit(&self, zone: u32) -> u32 {
        zone - self.first_data_zone + 1
    }

    /// The data block that `bit`, not 0, of the map is for.
    pub fn zone_of_bit(&self, bit: u32) -> u32 {
        bit - 1 + self.first_data_zone
    }
}

/// Sets in `bytes`, the superblock of version 3, whether the file system is unmounted properly.
pub(crate) fn mark_clean(bytes: &mut [u8; SUPERBLOCK_BYTES], clean: bool) {
    let flags = u16_at(bytes, 14) & !CLEAN | (u16::from(clean) * CLEAN);
    bytes[14..16].copy_from_slice(&flags.to_le_bytes());
}

/// The superblock of version 3 for `layout`.
pub(super) fn encode(layout: &Layout) -> [u8; SUPERBLOCK_BYTES] {
    let mut bytes = [0; SUPERBLOCK_BYTES];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &layout.inodes.to_le_bytes());
    put(6, &(layout.inode_map_blocks as u16).to_le_bytes());
    put(8, &(layout.zone_map_blocks as u16).to_le_bytes());
    put(10, &u16::try_from(layout.first_data_zone).unwrap_or(0).to_le_bytes());
    put(14, &(u16::from(layout.clean) * CLEAN).to_le_bytes());
    put(16, &layout.file_max.to_le_bytes());
    put(20, &layout.zones.to_le_bytes());
    put(24, &MAGIC_V3.to_le_bytes());
    put(28, &(layout.block_bytes as u16).to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 1,376 inodes and 4,096 blocks, as `mkfs.minix -3` makes them on 4 MiB.
    fn sound() -> [u8; SUPERBLOCK_BYTES] {
        let mut bytes = [0; SUPERBLOCK_BYTES];
        bytes[..32].copy_from_slice(&[
            0x60, 5, 0, 0, 0, 0, 1, 0, 1, 0, 0x5a, 0, 0, 0, 0, 0, // inodes, maps, first data
            0xff, 0xff, 0xff, 0x7f, 0, 0x10, 0, 0, 0x5a, 0x4d, 0, 0, 0, 4, 0, 0,
        ]);
        bytes
    }

    const DISK: u64 = 4 << 20;

    fn with(at: usize, value: &[u8]) -> Result<Layout, NotMinix> {
        let mut bytes = sound();
        bytes[at..at + value.len()].copy_from_slice(value);
        Layout::decode(&bytes, DISK)
    }

    #[test]
    fn a_superblock_says_where_everything_is() {
        let layout = Layout::decode(&sound(), DISK).unwrap();
        assert_eq!((layout.inodes, layout.zones, layout.block_bytes), (1376, 4096, 1024));
        assert_eq!(layout.inode_place(1), (4, 0));
        assert_eq!(layout.inode_place(17), (5, 0));
        assert_eq!(layout.first_data_zone, 90);
        assert!(!layout.is_data(89) && layout.is_data(90) && !layout.is_data(4096));
        assert_eq!(layout.zone_of_bit(layout.zone_bit(100)), 100);
        assert_eq!(encode(&layout), sound());
        assert_eq!(with(10, &[0, 0]).unwrap().first_data_zone, 90, "one that does not fit");
    }

    #[test]
    fn superblocks_that_contradict_themselves_are_refused() {
        let contradicts =
            |at, value: &[u8]| matches!(with(at, value), Err(NotMinix::Contradiction(_)));
        assert!(contradicts(0, &[0; 4]), "no inodes");
        assert!(contradicts(0, &[0xff; 4]), "more inodes than there are numbers");
        assert!(contradicts(0, &[0, 0x10, 0, 0]), "inodes reach into the data");
        assert!(contradicts(6, &[0, 0]), "no map of inodes");
        assert!(contradicts(8, &[0, 0]), "no map of data");
        assert!(contradicts(10, &[89, 0]), "data where the inodes are");
        assert!(contradicts(10, &[0, 0x10]), "data behind the end");
        assert!(contradicts(16, &[0; 4]), "no file");
        assert_eq!(with(12, &[1, 0]), Err(NotMinix::ZoneSize(1)));
        assert_eq!(with(15, &[1]), Err(NotMinix::Flags(0x100)));
        assert_eq!(with(24, &[0, 0]), Err(NotMinix::Magic));
        for size in [0, 512, 1000, 1536] {
            assert_eq!(with(28, &u16::to_le_bytes(size)), Err(NotMinix::BlockSize(size)));
        }
        let truncated = NotMinix::Truncated { zones: 4097, block_bytes: 1024, disk_bytes: DISK };
        assert_eq!(with(20, &[1, 0x10]), Err(truncated));
    }

    #[test]
    fn what_is_marked_clean_is_read_as_clean() {
        let mut bytes = sound();
        mark_clean(&mut bytes, true);
        assert!(Layout::decode(&bytes, DISK).unwrap().clean);
        mark_clean(&mut bytes, false);
        assert_eq!(bytes, sound());
    }

    proptest! {
        #[test]
        fn any_superblock_is_sound_or_refused(
            changes in proptest::collection::vec((0_usize..32, any::<u8>()), 1..6),
            disk in 0_u64..1 << 45,
        ) {
            let mut bytes = sound();
            for (at, value) in changes {
                bytes[at] = value;
            }
            if let Ok(layout) = Layout::decode(&bytes, disk) {
                let (last, at) = layout.inode_place(layout.inodes);
                prop_assert!(last < layout.first_data_zone && layout.first_data_zone < layout.zones);
                prop_assert!(at + layout.inode_bytes() as usize <= layout.block_bytes as usize);
                prop_assert!(u64::from(layout.zones) * u64::from(layout.block_bytes) <= disk);
            }
        }
    }
}
