// SPDX-License-Identifier: MIT OR Apache-2.0
//! Inodes: what there is of a file besides its content and names.

use super::{u16_at, u32_at, Version};

/// How many numbers of blocks an inode has; one of version 1 has one less.
pub const POINTERS: usize = 10;
/// How many of them are of blocks of the file itself.
pub const POINTERS_DIRECT: usize = 7;

const TYPE: u16 = 0o170_000;

/// What kind of thing an inode is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// A named pipe.
    Pipe = 0o010_000,
    /// A character device.
    CharacterDevice = 0o020_000,
    /// A directory.
    Directory = 0o040_000,
    /// A block device.
    BlockDevice = 0o060_000,
    /// A regular file.
    Regular = 0o100_000,
    /// A symbolic link.
    SymbolicLink = 0o120_000,
    /// A socket.
    Socket = 0o140_000,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::Pipe,
        Self::CharacterDevice,
        Self::Directory,
        Self::BlockDevice,
        Self::Regular,
        Self::SymbolicLink,
        Self::Socket,
    ];

    /// The kind that the file type in `mode` says, if it is one.
    pub fn of_mode(mode: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u16 == mode & TYPE)
    }

    /// Whether such a thing has blocks.
    pub fn has_content(self) -> bool {
        matches!(self, Self::Directory | Self::Regular | Self::SymbolicLink)
    }

    /// Whether it is for a device.
    pub fn is_device(self) -> bool {
        matches!(self, Self::CharacterDevice | Self::BlockDevice)
    }
}

/// An inode. Times are in seconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inode {
    /// Type and permissions; 0 if the inode is free.
    pub mode: u16,
    /// How many names it has.
    pub links: u16,
    /// The owner.
    pub user: u16,
    /// The group.
    pub group: u16,
    /// Bytes.
    pub bytes: u32,
    /// When it was read last.
    pub accessed: u32,
    /// When its content was changed last.
    pub modified: u32,
    /// When it was changed last.
    pub changed: u32,
    /// Numbers of blocks, 0 where there is none. The first one of a device node is which device it is for.
    pub zones: [u32; POINTERS],
}

impl Inode {
    /// Reads an inode of as many bytes as the version has.
    ///
    /// # Panics
    /// If there are fewer bytes.
    pub fn decode(version: Version, bytes: &[u8]) -> Self {
        let mut zones = [0; POINTERS];
        if version == Version::V1 {
            for (index, zone) in zones[..POINTERS - 1].iter_mut().enumerate() {
                *zone = u16_at(bytes, 14 + 2 * index).into();
            }
            let time = u32_at(bytes, 8);
            return Self {
                mode: u16_at(bytes, 0),
                user: u16_at(bytes, 2),
                bytes: u32_at(bytes, 4),
                accessed: time,
                modified: time,
                changed: time,
                group: bytes[12].into(),
                links: bytes[13].into(),
                zones,
            };
        }
        for (index, zone) in zones.iter_mut().enumerate() {
            *zone = u32_at(bytes, 24 + 4 * index);
        }
        Self {
            mode: u16_at(bytes, 0),
            links: u16_at(bytes, 2),
            user: u16_at(bytes, 4),
            group: u16_at(bytes, 6),
            bytes: u32_at(bytes, 8),
            accessed: u32_at(bytes, 12),
            modified: u32_at(bytes, 16),
            changed: u32_at(bytes, 20),
            zones,
        }
    }

    /// The inode as versions 2 and 3 have it.
    pub fn encode(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        for (index, half) in [self.mode, self.links, self.user, self.group].iter().enumerate() {
            bytes[2 * index..][..2].copy_from_slice(&half.to_le_bytes());
        }
        let words = [self.bytes, self.accessed, self.modified, self.changed];
        for (index, word) in words.iter().chain(&self.zones).enumerate() {
            bytes[8 + 4 * index..][..4].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// What it is for; `None` if it is free or damaged.
    pub fn kind(&self) -> Option<Kind> {
        Kind::of_mode(self.mode)
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind() == Some(Kind::Directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn version_1_has_one_time_and_short_numbers() {
        let mut bytes = [0; 32];
        bytes[..14].copy_from_slice(&[0xed, 0x41, 1, 2, 0x40, 0, 0, 0, 9, 0, 0, 0, 5, 3]);
        bytes[14..16].copy_from_slice(&[0x2f, 1]);
        bytes[30..].copy_from_slice(&[7, 0]);
        let inode = Inode::decode(Version::V1, &bytes);
        assert_eq!((inode.mode, inode.kind()), (0o040_755, Some(Kind::Directory)));
        assert_eq!((inode.user, inode.group, inode.links, inode.bytes), (0x201, 5, 3, 64));
        assert_eq!((inode.accessed, inode.modified, inode.changed), (9, 9, 9));
        assert_eq!((inode.zones[0], inode.zones[8], inode.zones[9]), (0x12f, 7, 0));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(half: [[u8; 32]; 2]) {
            let bytes = half.concat();
            prop_assert_eq!(&Inode::decode(Version::V3, &bytes).encode()[..], bytes);
        }
    }
}
