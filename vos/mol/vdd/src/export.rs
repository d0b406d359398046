// SPDX-License-Identifier: MIT OR Apache-2.0
//! What gateways have: a device that somebody else than a program of ours uses.

use crate::client::{Disk, DiskError, Finder};
use crate::lend::Lend;
use mol_protocol::block::READ_ONLY;
use mol_protocol::Errno;

/// How much is written at once where zeros must be.
const ZEROS_BYTES: usize = 1 << 20;

/// What a gateway passes on to.
pub trait Export {
    /// How many bytes it has.
    fn bytes(&self) -> u64;

    /// The unit of reading and writing in bytes.
    fn block_bytes(&self) -> u32;

    /// Whether it takes no writes.
    fn is_read_only(&self) -> bool;

    /// Reads a range of whole blocks.
    ///
    /// # Errors
    /// What the client is told.
    fn read(&mut self, position: u64, into: &mut [u8]) -> Result<(), Errno>;

    /// Writes a range of whole blocks, which is safe when this returns if it is to be `durable`.
    ///
    /// # Errors
    /// What the client is told.
    fn write(&mut self, position: u64, from: &[u8], durable: bool) -> Result<(), Errno>;

    /// Makes safe what was written.
    ///
    /// # Errors
    /// What the client is told.
    fn flush(&mut self) -> Result<(), Errno>;

    /// Gives up a range.
    ///
    /// # Errors
    /// What the client is told.
    fn trim(&mut self, position: u64, bytes: u64) -> Result<(), Errno>;

    /// Makes a range zeros, as if they had been written. (A trimmed block may be what it was.)
    ///
    /// # Errors
    /// What the client is told.
    fn write_zeros(&mut self, position: u64, bytes: u64, durable: bool) -> Result<(), Errno> {
        let zeros = vec![0; ZEROS_BYTES.min(usize::try_from(bytes).unwrap_or(ZEROS_BYTES))];
        let mut done = 0;
        while done < bytes {
            let length = (bytes - done).min(zeros.len() as u64);
            self.write(position + done, &zeros[..length as usize], durable)?;
            done += length;
        }
        Ok(())
    }
}

fn told(error: DiskError) -> Errno {
    eprintln!("mol-vdd: {error}");
    match error {
        DiskError::Refused { errno, .. } => errno,
        DiskError::NoServer { .. } | DiskError::Ended { .. } | DiskError::Changed { .. } => {
            Errno::Io
        }
    }
}

impl<I: Lend, F: Finder> Export for Disk<'_, I, F>
where
    I::Error: core::fmt::Display,
{
    fn bytes(&self) -> u64 {
        self.geometry().bytes
    }

    fn block_bytes(&self) -> u32 {
        self.geometry().block_bytes
    }

    fn is_read_only(&self) -> bool {
        self.geometry().flags & READ_ONLY != 0
    }

    fn read(&mut self, position: u64, into: &mut [u8]) -> Result<(), Errno> {
        Disk::read(self, position, into).map_err(told)
    }

    fn write(&mut self, position: u64, from: &[u8], durable: bool) -> Result<(), Errno> {
        Disk::write(self, position, from, durable).map_err(told)
    }

    fn flush(&mut self) -> Result<(), Errno> {
        Disk::flush(self).map_err(told)
    }

    fn trim(&mut self, position: u64, bytes: u64) -> Result<(), Errno> {
        Disk::trim(self, position, bytes).map_err(told)
    }
}
