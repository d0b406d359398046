// SPDX-License-Identifier: MIT OR Apache-2.0
//! A disk of a disk server.

use super::{has_range, Attempt, Disk, DiskError};
use core::fmt;
use core::time::Duration;
use mol_protocol::block::{OPEN_EXCLUSIVE, OPEN_WRITE, READ_ONLY};
use mol_vdd::client::{self, Finder};
use mol_vdd::lend::Lend;

/// A device of a disk server, with replicas or without. If another server comes to answer for it, it goes on there.
/// It is closed when this is dropped.
#[derive(Debug)]
pub struct Remote<'i, I: Lend, F: Finder>
where
    I::Error: fmt::Display,
{
    /// There until this is dropped.
    device: Option<client::Disk<'i, I, F>>,
    bytes: u64,
    block_bytes: u64,
    read_only: bool,
}

impl<'i, I: Lend, F: Finder> Remote<'i, I, F>
where
    I::Error: fmt::Display,
{
    /// Opens a device; with `read_only`, for reading only, else alone. Whatever is asked of it is tried for as long as
    /// `patience`.
    ///
    /// # Errors
    /// Nobody answers for it in time, somebody else has it, or it takes no writes.
    pub fn open(
        ipc: &'i I,
        finder: F,
        minor: u32,
        read_only: bool,
        patience: Duration,
    ) -> Result<Self, client::DiskError> {
        let flags = if read_only { 0 } else { OPEN_WRITE | OPEN_EXCLUSIVE };
        let device = client::Disk::open(ipc, finder, minor, flags, patience)?;
        let geometry = device.geometry();
        let (bytes, block_bytes) = (geometry.bytes, u64::from(geometry.block_bytes.max(1)));
        let read_only = read_only || geometry.flags & READ_ONLY != 0;
        Ok(Self { device: Some(device), bytes, block_bytes, read_only })
    }

    fn device(&mut self) -> &mut client::Disk<'i, I, F> {
        self.device.as_mut().expect("it is there until this is dropped")
    }

    /// The whole blocks around a range: where they begin, and how many bytes they have.
    fn around(&self, position: u64, bytes: usize) -> (u64, usize) {
        let begin = position / self.block_bytes * self.block_bytes;
        let end = (position + bytes as u64).next_multiple_of(self.block_bytes);
        (begin, (end - begin) as usize)
    }

    fn check(&self, attempt: Attempt, position: u64, bytes: usize) -> Result<(), DiskError> {
        match has_range(self.bytes, position, bytes) {
            true => Ok(()),
            false => Err(DiskError::beyond(attempt, position, bytes, self.bytes)),
        }
    }

    /// Reads the whole blocks around a range.
    fn read_around(&mut self, (begin, bytes): (u64, usize)) -> Result<Vec<u8>, client::DiskError> {
        let mut blocks = vec![0; bytes];
        self.device().read(begin, &mut blocks)?;
        Ok(blocks)
    }
}

impl<I: Lend, F: Finder> Drop for Remote<'_, I, F>
where
    I::Error: fmt::Display,
{
    fn drop(&mut self) {
        if let Some(device) = self.device.take() {
            device.close();
        }
    }
}

impl<I: Lend, F: Finder> Disk for Remote<'_, I, F>
where
    I::Error: fmt::Display,
{
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn read(&mut self, position: u64, into: &mut [u8]) -> Result<(), DiskError> {
        self.check(Attempt::Read, position, into.len())?;
        let around = self.around(position, into.len());
        let done = if around == (position, into.len()) {
            self.device().read(position, into)
        } else {
            self.read_around(around).map(|blocks| {
                let at = (position - around.0) as usize;
                into.copy_from_slice(&blocks[at..at + into.len()]);
            })
        };
        done.map_err(|error| DiskError::new(Attempt::Read, position, into.len(), error))
    }

    fn write(&mut self, position: u64, from: &[u8]) -> Result<(), DiskError> {
        self.check(Attempt::Write, position, from.len())?;
        let around = self.around(position, from.len());
        let done = if around == (position, from.len()) {
            self.device().write(position, from, false)
        } else {
            self.read_around(around).and_then(|mut blocks| {
                let at = (position - around.0) as usize;
                blocks[at..at + from.len()].copy_from_slice(from);
                self.device().write(around.0, &blocks, false)
            })
        };
        done.map_err(|error| DiskError::new(Attempt::Write, position, from.len(), error))
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        self.device().flush().map_err(|error| DiskError::new(Attempt::Flush, 0, 0, error))
    }
}
