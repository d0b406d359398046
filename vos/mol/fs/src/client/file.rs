// SPDX-License-Identifier: MIT OR Apache-2.0
//! Open files.

use super::{told, Files, FilesError};
use core::fmt;
use mol_protocol::file::{Close, FileId, Read, SyncFile, TruncateOpen, Write, TRANSFER_MAX};
use mol_protocol::Errno;
use mol_vdd::lend::Lend;

/// An open file. It has no position: every call says where it begins.
#[derive(Debug)]
pub struct File<'f, I: Lend>
where
    I::Error: fmt::Display,
{
    files: &'f Files<'f, I>,
    id: FileId,
}

impl<I: Lend> Drop for File<'_, I>
where
    I::Error: fmt::Display,
{
    fn drop(&mut self) {
        // A server that is gone has it open no more.
        let _ = self.files.ask().close(&Close { file: self.id });
    }
}

impl<'f, I: Lend> File<'f, I>
where
    I::Error: fmt::Display,
{
    pub(super) fn new(files: &'f Files<'f, I>, id: FileId) -> Self {
        Self { files, id }
    }

    /// Reads from byte `position` on. The result is how many bytes; it is less than there is memory for only at the end
    /// of the file.
    ///
    /// # Errors
    /// [`FilesError`]. What was read before is lost.
    pub fn read(&self, position: u64, into: &mut [u8]) -> Result<usize, FilesError> {
        let what = || format!("read from byte {position} on");
        let mut done = 0;
        for piece in into.chunks_mut(TRANSFER_MAX as usize) {
            let (bytes, position) = (piece.len() as u32, position + done as u64);
            let count = self.files.with_mut(what, piece, |into| {
                let read = Read { file: self.id, position, into, offset: 0, bytes };
                self.files.ask().read(&read)
            })?;
            done += count.min(bytes) as usize;
            if count < bytes {
                break;
            }
        }
        Ok(done)
    }

    /// Writes all of `data` from byte `position` on.
    ///
    /// # Errors
    /// [`FilesError`]; `ENOSPC` if there is no room for all of it. A part may have been written.
    pub fn write(&self, position: u64, data: &[u8]) -> Result<(), FilesError> {
        let what = || format!("write {} bytes to byte {position}", data.len());
        let mut done = 0;
        while done < data.len() {
            let piece = &data[done..data.len().min(done + TRANSFER_MAX as usize)];
            let (position, bytes) = (position + done as u64, piece.len() as u32);
            let count = self.files.with(what, piece, |from| {
                let write = Write { file: self.id, position, from, offset: 0, bytes };
                self.files.ask().write(&write)
            })?;
            // Why a write was cut short is said when the rest is asked for.
            if count == 0 {
                return Err(FilesError::refused(what(), Errno::NoSpace));
            }
            done += count.min(bytes) as usize;
        }
        Ok(())
    }

    /// Cuts it, or makes it longer by zeros.
    ///
    /// # Errors
    /// [`FilesError`].
    pub fn truncate(&self, bytes: u64) -> Result<(), FilesError> {
        let truncate = TruncateOpen { file: self.id, bytes };
        let what = || format!("cut a file to {bytes} bytes");
        told(what, self.files.ask().truncate_open(&truncate)).map(drop)
    }

    /// Has everything that was written to it on stable storage.
    ///
    /// # Errors
    /// [`FilesError`]. What was written since the last success is in doubt then.
    pub fn sync(&self) -> Result<(), FilesError> {
        let sync = SyncFile { file: self.id };
        told(|| "sync a file".to_owned(), self.files.ask().sync_file(&sync))
    }
}
