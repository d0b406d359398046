// SPDX-License-Identifier: MIT OR Apache-2.0
//! MINIX file systems as they lie on a disk: superblock, inodes, bit maps, directory entries.
//!
//! A disk is a row of blocks, which the format calls zones. The first is for booting; the superblock is at
//! byte 1024; from block 2 on are the map of inodes, the map of data blocks, the inodes, and the data.
//! Everything is little-endian. Versions 1 and 2 are those of MINIX 1 and 2 and of early Linux, with names of
//! 14 or 30 bytes; version 3 is that of MINIX 3, with names of 60 bytes, 32-bit numbers of inodes and blocks,
//! and blocks of 1 KiB and more.

mod entry;
mod inode;
mod layout;
mod make;
mod path;

pub use self::entry::{Entry, DOT, DOT_DOT};
pub use self::inode::{Inode, Kind, POINTERS, POINTERS_DIRECT};
pub(crate) use self::layout::mark_clean;
pub use self::layout::{Layout, NotMinix, Version, ROOT, SUPERBLOCK_AT, SUPERBLOCK_BYTES};
pub use self::make::{make, MakeError};
pub use self::path::Path;

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
