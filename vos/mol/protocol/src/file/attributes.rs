// SPDX-License-Identifier: MIT OR Apache-2.0
//! What file servers say of nodes and file systems.

use super::who::NodeId;
use dvk::{Body, Field};

dvk::payload! {
    /// What a node is, for `stat` and for whoever looked it up.
    pub struct Attributes {
        /// The node.
        pub node: NodeId,
        /// Bytes of a file, of the entries of a directory, or of the path in a symbolic link.
        pub bytes: u64,
        /// The number of the inode on its device.
        pub inode: u32,
        /// Type and permissions, as in POSIX's `st_mode`.
        pub mode: u16,
        /// How many names it has.
        pub links: u16,
        /// The owner.
        pub user: u32,
        /// The group.
        pub group: u32,
        /// What it takes on the device, in units of 512 bytes; of a device node, which device it is for.
        pub blocks_or_device: u32,
        /// When it was read last, in seconds since 1970, as the others. The format has no finer times.
        pub accessed: u32,
        /// When its content was changed last.
        pub modified: u32,
        /// When its inode was changed last.
        pub changed: u32,
    }

    /// What a file system is, for `statvfs`.
    pub struct FileSystem {
        /// Bytes of a block.
        pub block_bytes: u32,
        /// The longest name in bytes.
        pub name_max: u16,
        /// The version of the format: 1, 2 or 3 for MINIX.
        pub version: u16,
        /// Blocks for data, and for what leads to them.
        pub blocks: u64,
        /// How many of them are free.
        pub blocks_free: u64,
        /// Inodes.
        pub inodes: u32,
        /// How many of them are free.
        pub inodes_free: u32,
        /// The largest file in bytes.
        pub file_max: u64,
        /// [`MOUNT_READ_ONLY`](super::MOUNT_READ_ONLY), or 0.
        pub flags: u32,
    }

    /// A part of the entries of a directory.
    pub struct DirectoryPart {
        /// Where the next part begins.
        pub next: u64,
        /// Bytes of [records](crate::directory) that were copied; 0 at the end of the directory.
        pub bytes: u32,
    }
}

const _: () = assert!(Attributes::BYTES == 48 && FileSystem::BYTES == 44);

/// What becomes of a time: one byte that says it and the seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// It stays.
    Keep,
    /// It is the server's present time. Who may write may do this.
    Now,
    /// It is this, in seconds since 1970. Only the owner may do this.
    To(u32),
}

impl Field for SetTime {
    const BYTES: usize = 5;

    fn write(&self, to: &mut [u8]) {
        let (what, seconds) = match *self {
            Self::Keep => (0_u8, 0),
            Self::Now => (1, 0),
            Self::To(seconds) => (2, seconds),
        };
        what.write(&mut to[..1]);
        seconds.write(&mut to[1..]);
    }

    fn read(from: &[u8]) -> Option<Self> {
        match (from[0], u32::read(&from[1..])?) {
            (0, 0) => Some(Self::Keep),
            (1, 0) => Some(Self::Now),
            (2, seconds) => Some(Self::To(seconds)),
            _ => None,
        }
    }
}
