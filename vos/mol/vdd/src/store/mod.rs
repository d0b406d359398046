// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the blocks of a device are: in memory, in a file, on a disk of Linux, or on the volume of a foreign server.
//!
//! A store is one range of bytes. What was never written reads as zeros. Whoever writes sees to it that
//! nobody else does: a store has no locks.

mod error;
mod file;
mod memory;
mod nbd;
mod spec;
mod unflushed;

pub use self::error::{OpenError, Operation, StoreError};
pub use self::file::{FileStore, Intent, BLOCK_BYTES_OF_A_FILE};
pub use self::memory::{MemoryStore, CHUNK_BYTES};
pub use self::nbd::{NbdStore, NBD_LIMIT};
pub use self::spec::{read_size, SpecError, StoreSpec, BLOCK_BYTES_OF_MEMORY};

/// What a store is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How many bytes it has; a multiple of the block.
    pub bytes: u64,
    /// The smallest piece that is written as a whole, in bytes: a power of two from 512 up.
    pub block_bytes: u32,
    /// Whether it takes writes.
    pub writable: bool,
}

impl Shape {
    /// Whether a range is one of whole blocks in the store. That of no bytes is none.
    pub fn has(&self, position: u64, bytes: u64) -> bool {
        let block = u64::from(self.block_bytes);
        bytes != 0
            && position % block == 0
            && bytes % block == 0
            && position.checked_add(bytes).is_some_and(|end| end <= self.bytes)
    }

    fn check(&self, operation: Operation, position: u64, bytes: u64) -> Result<(), StoreError> {
        if self.has(position, bytes) {
            return Ok(());
        }
        let (block_bytes, of) = (self.block_bytes, self.bytes);
        Err(StoreError::Range { operation, position, bytes, block_bytes, of })
    }
}

/// When a write is safe from a loss of power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Safety {
    /// When a later [`Store::flush`] has succeeded.
    AtFlush,
    /// When the write has.
    AtOnce,
}

/// Blocks that are read and written.
///
/// Each method refuses a range that is not one of whole blocks of the store, and does nothing then. After any
/// other error a part may have been done, in whole blocks.
pub trait Store: Send {
    /// What it is like. It stays the same.
    fn shape(&self) -> Shape;

    /// Whether what was flushed outlasts the process.
    fn lasts(&self) -> bool;

    /// Reads a range.
    ///
    /// # Errors
    /// The range is none of the store, or the medium failed.
    fn read(&self, position: u64, into: &mut [u8]) -> Result<(), StoreError>;

    /// Writes a range.
    ///
    /// # Errors
    /// As [`read`](Self::read); or the store takes no writes, or has no space for what was not written before.
    fn write(&mut self, position: u64, from: &[u8], safety: Safety) -> Result<(), StoreError>;

    /// Makes a range read as zeros, and gives up its space where that can be.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    fn zero(&mut self, position: u64, bytes: u64) -> Result<(), StoreError>;

    /// Makes what was written and zeroed safe from a loss of power, as far as the medium is.
    ///
    /// # Errors
    /// The medium failed. What was written since the last success is in doubt from then on, whatever
    /// later calls say: Linux tells of a failure once, and may have dropped what it could not write.
    fn flush(&mut self) -> Result<(), StoreError>;
}
