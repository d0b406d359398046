// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why something cannot be done.

use crate::disk::DiskError;
use crate::format::NotMinix;
use mol_protocol::Errno;

/// Why a request to a file system has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It must not or cannot be done, and nothing is wrong with the file system.
    #[error("{0}")]
    Refused(Errno),
    /// What is on the disk contradicts itself.
    #[error("the file system is damaged: {0}")]
    Damaged(#[from] Damage),
    /// What is on the disk is no file system that this crate knows.
    #[error("there is no usable file system on the disk: {0}")]
    NotMinix(#[from] NotMinix),
    /// The disk failed.
    #[error("{0}")]
    Disk(#[from] DiskError),
    /// The disk failed while changes were written, at some time before. Until the file system is mounted
    /// again, nothing is changed.
    #[error("an earlier write to the disk failed; mount the file system again to find out what is on it")]
    Failed,
}

impl Error {
    /// What a client is told.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Refused(errno) => *errno,
            Self::Damaged(_) | Self::Disk(_) | Self::Failed => Errno::Io,
            Self::NotMinix(_) => Errno::NotFileSystem,
        }
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Self::Refused(errno)
    }
}

/// Something on the disk that no correct file system has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Damage {
    /// A file leads to a block that is not one for data.
    #[error("inode {inode} leads to block {zone}, which is none for data")]
    ZoneOutside {
        /// Whose.
        inode: u32,
        /// The block.
        zone: u32,
    },
    /// A file has a block that is marked as free.
    #[error("inode {inode} has block {zone}, which is marked as free")]
    ZoneFree {
        /// Whose.
        inode: u32,
        /// The block.
        zone: u32,
    },
    /// Two files have one block, or one file has it twice.
    #[error("block {zone} is used twice, by inode {inode} at least")]
    ZoneTwice {
        /// One of those who have it.
        inode: u32,
        /// The block.
        zone: u32,
    },
    /// A name is for an inode that does not exist.
    #[error("directory {directory} has a name for inode {inode}, which does not exist")]
    InodeOutside {
        /// The directory.
        directory: u32,
        /// The number.
        inode: u32,
    },
    /// A name is for an inode that is marked as free, or has no type or no links.
    #[error("inode {inode} has a name and is free")]
    InodeFree {
        /// The number.
        inode: u32,
    },
    /// An inode has a mode that is none.
    #[error("inode {inode} has the mode {mode:#o}, which is none")]
    Mode {
        /// The number.
        inode: u32,
        /// The mode.
        mode: u16,
    },
    /// An inode says that it is larger than it can be, or a directory is smaller than any.
    #[error("inode {inode} has {bytes} bytes, which it cannot have")]
    Size {
        /// The number.
        inode: u32,
        /// The bytes.
        bytes: u32,
    },
    /// There are more names than an inode counts.
    #[error("inode {inode} has {names} names and counts {links}")]
    Links {
        /// The number.
        inode: u32,
        /// How many it has.
        names: u32,
        /// How many it counts.
        links: u16,
    },
    /// A directory lacks `.` or `..`, or they are wrong.
    #[error("directory {directory} does not begin with `.` and `..` as it should")]
    Dots {
        /// The directory.
        directory: u32,
    },
    /// A name is empty or has a `/` in it, or a directory has it twice.
    #[error("directory {directory} has a name that it cannot have, at byte {at}")]
    Name {
        /// The directory.
        directory: u32,
        /// Where the entry is.
        at: u32,
    },
    /// A directory is above itself.
    #[error("directory {directory} is not below the root")]
    Loop {
        /// The directory.
        directory: u32,
    },
    /// A directory has several names, and it is not one that was being moved.
    #[error("directory {directory} has {names} names")]
    Names {
        /// The directory.
        directory: u32,
        /// How many.
        names: usize,
    },
    /// A directory has a block missing.
    #[error("directory {directory} has a hole")]
    Hole {
        /// The directory.
        directory: u32,
    },
}
