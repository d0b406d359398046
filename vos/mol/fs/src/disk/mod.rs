// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a file system is stored: something that reads, writes and flushes.

mod image;
mod memory;
mod remote;

pub use self::image::Image;
pub use self::memory::Memory;
pub use self::remote::Remote;

use core::fmt;

/// A store of bytes, such as a disk.
///
/// What it promises is what a block device of MoL promises (see `mol_protocol::block`): a write that
/// returned is seen by later reads; it is safe from a power cut once a [`flush`](Self::flush) that began
/// after it has succeeded. Until then a power cut may undo any of the writes since the last flush,
/// in any order, but never a part of a sector of 512 bytes.
pub trait Disk {
    /// How many bytes it has.
    fn bytes(&self) -> u64;

    /// Whether it takes no writes.
    fn is_read_only(&self) -> bool;

    /// Copies what is at byte `position` into all of `into`.
    ///
    /// # Errors
    /// The disk failed, or has no such place.
    fn read(&mut self, position: u64, into: &mut [u8]) -> Result<(), DiskError>;

    /// Copies all of `from` to byte `position`.
    ///
    /// # Errors
    /// The disk failed, is read-only or has no such place. A part may have been written.
    fn write(&mut self, position: u64, from: &[u8]) -> Result<(), DiskError>;

    /// Returns when every write that returned before is on stable storage.
    ///
    /// # Errors
    /// The disk failed. What was written since the last flush is then in doubt for good.
    fn flush(&mut self) -> Result<(), DiskError>;
}

/// What was attempted when a disk failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Flushing; it has no place.
    Flush,
}

/// A disk did not do as it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskError {
    /// What it was told.
    pub attempt: Attempt,
    /// The first byte.
    pub position: u64,
    /// How many bytes.
    pub bytes: u64,
    /// Why, for people.
    pub reason: String,
}

impl DiskError {
    /// A failed attempt at `bytes` bytes from byte `position` on.
    pub fn new(attempt: Attempt, position: u64, bytes: usize, reason: impl fmt::Display) -> Self {
        Self { attempt, position, bytes: bytes as u64, reason: reason.to_string() }
    }

    /// An attempt beyond the end of a disk.
    fn beyond(attempt: Attempt, position: u64, bytes: usize, end: u64) -> Self {
        Self::new(attempt, position, bytes, format_args!("the disk has {end} bytes only"))
    }
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { attempt, position, bytes, reason } = self;
        match attempt {
            Attempt::Read => {
                write!(f, "reading {bytes} bytes from byte {position} of the disk: {reason}")
            }
            Attempt::Write => {
                write!(f, "writing {bytes} bytes to byte {position} of the disk: {reason}")
            }
            Attempt::Flush => write!(f, "flushing the disk: {reason}"),
        }
    }
}

impl core::error::Error for DiskError {}

/// Whether the range is on a disk of `end` bytes.
fn has_range(end: u64, position: u64, bytes: usize) -> bool {
    position.checked_add(bytes as u64).is_some_and(|last| last <= end)
}
