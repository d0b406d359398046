// SPDX-License-Identifier: MIT OR Apache-2.0
//! A disk in a file, or a block device of Linux.

use super::{Attempt, Disk, DiskError};
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// A disk that is an image file or a block device. Its size is that of the file when it was opened.
#[derive(Debug)]
pub struct Image {
    file: File,
    bytes: u64,
    read_only: bool,
}

impl Image {
    /// Opens the file at `path`; with `read_only`, for reading only. Who writes it has it alone: a file is locked, by
    /// `flock(2)`, and a block device must not be mounted.
    ///
    /// # Errors
    /// It cannot be opened so, somebody else has it, or it has no size.
    pub fn open(path: &Path, read_only: bool) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(!read_only);
        if !read_only && std::fs::metadata(path)?.file_type().is_block_device() {
            options.custom_flags(OFlags::EXCL.bits() as i32);
        }
        let file = options.open(path)?;
        let locked = if read_only { file.try_lock_shared() } else { file.try_lock() };
        locked.map_err(io::Error::from)?;
        // Only by seeking does a block device say how large it is.
        let bytes = (&file).seek(SeekFrom::End(0))?;
        Ok(Self { file, bytes, read_only })
    }
}

impl Disk for Image {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn read(&mut self, position: u64, into: &mut [u8]) -> Result<(), DiskError> {
        self.file
            .read_exact_at(into, position)
            .map_err(|error| DiskError::new(Attempt::Read, position, into.len(), error))
    }

    fn write(&mut self, position: u64, from: &[u8]) -> Result<(), DiskError> {
        // A write behind the end would make the file longer.
        if !super::has_range(self.bytes, position, from.len()) {
            return Err(DiskError::beyond(Attempt::Write, position, from.len(), self.bytes));
        }
        self.file
            .write_all_at(from, position)
            .map_err(|error| DiskError::new(Attempt::Write, position, from.len(), error))
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        self.file.sync_data().map_err(|error| DiskError::new(Attempt::Flush, 0, 0, error))
    }
}
