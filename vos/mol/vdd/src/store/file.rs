// SPDX-License-Identifier: MIT OR Apache-2.0
//! A store in a file, or on a block device of Linux, which is a file that has blocks of its own.

use super::{OpenError, Operation, Safety, Shape, Store, StoreError};
use rustix::fs::{FallocateFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::{Errno, IoSlice, ReadWriteFlags};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The block of a store in a file, in bytes.
pub const BLOCK_BYTES_OF_A_FILE: u32 = 512;
/// How much is written at once where zeros must be written.
const ZEROS_BYTES: usize = 1 << 18;

/// What a store is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Reading; others may read it, too.
    Read,
    /// Reading and writing, alone.
    Write,
}

/// Blocks in a file or on a block device.
#[derive(Debug)]
pub struct FileStore {
    file: File,
    path: PathBuf,
    shape: Shape,
}

impl FileStore {
    /// Opens an image file or a block device, with a lock that other stores respect. A block device
    /// that is mounted is not opened for writing.
    ///
    /// # Errors
    /// [`OpenError`]: it cannot be opened, somebody else uses it, or it is not a row of blocks.
    pub fn open(path: impl AsRef<Path>, intent: Intent) -> Result<Self, OpenError> {
        let path = path.as_ref().to_path_buf();
        let access = match intent {
            Intent::Read => OFlags::RDONLY,
            Intent::Write => OFlags::RDWR,
        };
        // Without O_NONBLOCK the opening of a pipe would wait.
        let flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let failed = |error: Errno| OpenError::Open { path: path.clone(), error: error.into() };
        let mut file = rustix::fs::open(&path, flags, Mode::empty()).map_err(failed)?;
        let status = rustix::fs::fstat(&file).map_err(|error| look("what", &path, error.into()))?;
        let block_bytes = match FileType::from_raw_mode(status.st_mode) {
            FileType::RegularFile => BLOCK_BYTES_OF_A_FILE,
            FileType::BlockDevice => {
                if intent == Intent::Write {
                    // Of a block device, O_EXCL means that nobody has it mounted, or open likewise.
                    file = rustix::fs::open(&path, flags | OFlags::EXCL, Mode::empty()).map_err(
                        |error| match error {
                            Errno::BUSY => OpenError::InUse { path: path.clone() },
                            error => failed(error),
                        },
                    )?;
                }
                rustix::fs::ioctl_blksszget(&file)
                    .map_err(|error| look("the size of blocks", &path, error.into()))?
            }
            _ => return Err(OpenError::Kind { path }),
        };
        let lock = match intent {
            Intent::Read => FlockOperation::NonBlockingLockShared,
            Intent::Write => FlockOperation::NonBlockingLockExclusive,
        };
        rustix::fs::flock(&file, lock).map_err(|error| match error {
            Errno::WOULDBLOCK => OpenError::InUse { path: path.clone() },
            error => failed(error),
        })?;
        // The end of a block device is where its size says; a file's, too.
        let bytes = rustix::fs::seek(&file, rustix::fs::SeekFrom::End(0))
            .map_err(|error| look("the size", &path, error.into()))?;
        if bytes == 0 || bytes % u64::from(block_bytes) != 0 {
            return Err(OpenError::Length { path, bytes, block_bytes });
        }
        let shape = Shape { bytes, block_bytes, writable: intent == Intent::Write };
        Ok(Self { file: file.into(), path, shape })
    }

    /// Makes an image file of zeros, which takes no space yet, and opens it for writing.
    ///
    /// # Errors
    /// [`OpenError::Create`], also if there is a file of this name; [`OpenError::Length`] if a store cannot
    /// have so many bytes.
    pub fn create(path: impl AsRef<Path>, bytes: u64) -> Result<Self, OpenError> {
        let path = path.as_ref();
        let block_bytes = BLOCK_BYTES_OF_A_FILE;
        if bytes == 0 || bytes % u64::from(block_bytes) != 0 {
            return Err(OpenError::Length { path: path.to_path_buf(), bytes, block_bytes });
        }
        let made = File::create_new(path).and_then(|file| {
            file.set_len(bytes)?;
            file.sync_all()
        });
        made.map_err(|error| OpenError::Create { path: path.to_path_buf(), bytes, error })?;
        Self::open(path, Intent::Write)
    }

    fn failed(
        &self,
        operation: Operation,
        position: u64,
        bytes: u64,
    ) -> impl FnOnce(io::Error) -> StoreError {
        let store = self.path.display().to_string();
        move |error| StoreError::Medium { operation, store, position, bytes, error }
    }

    fn check_change(
        &self,
        operation: Operation,
        position: u64,
        bytes: u64,
    ) -> Result<(), StoreError> {
        self.shape.check(operation, position, bytes)?;
        if !self.shape.writable {
            return Err(StoreError::ReadOnly { operation, store: self.path.display().to_string() });
        }
        Ok(())
    }

    fn write_zeros(&self, position: u64, bytes: u64) -> io::Result<()> {
        let zeros = vec![0; ZEROS_BYTES.min(usize::try_from(bytes).unwrap_or(ZEROS_BYTES))];
        let mut done = 0;
        while done < bytes {
            let length = (bytes - done).min(zeros.len() as u64);
            self.file.write_all_at(&zeros[..length as usize], position + done)?;
            done += length;
        }
        Ok(())
    }
}

fn look(what: &'static str, path: &Path, error: io::Error) -> OpenError {
    OpenError::Look { what, path: path.to_path_buf(), error }
}

/// Writes all of `from` so that it is safe when this returns, without a flush of what else was written.
fn write_synced(file: &File, mut position: u64, mut from: &[u8]) -> io::Result<()> {
    while !from.is_empty() {
        match rustix::io::pwritev2(file, &[IoSlice::new(from)], position, ReadWriteFlags::DSYNC) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                from = &from[written..];
                position += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

impl Store for FileStore {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn lasts(&self) -> bool {
        true
    }

    fn read(&self, position: u64, into: &mut [u8]) -> Result<(), StoreError> {
        let bytes = into.len() as u64;
        self.shape.check(Operation::Read, position, bytes)?;
        let read = self.file.read_exact_at(into, position);
        read.map_err(self.failed(Operation::Read, position, bytes))
    }

    fn write(&mut self, position: u64, from: &[u8], safety: Safety) -> Result<(), StoreError> {
        let bytes = from.len() as u64;
        self.check_change(Operation::Write, position, bytes)?;
        let written = match safety {
            Safety::AtFlush => self.file.write_all_at(from, position),
            Safety::AtOnce => write_synced(&self.file, position, from),
        };
        written.map_err(self.failed(Operation::Write, position, bytes))
    }

    fn zero(&mut self, position: u64, bytes: u64) -> Result<(), StoreError> {
        self.check_change(Operation::Zero, position, bytes)?;
        // File systems and disks differ in what they can do, and all of them can write.
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let zeroed = rustix::fs::fallocate(&self.file, hole, position, bytes)
            .or_else(|_| {
                rustix::fs::fallocate(&self.file, FallocateFlags::ZERO_RANGE, position, bytes)
            })
            .or_else(|_| self.write_zeros(position, bytes));
        zeroed.map_err(self.failed(Operation::Zero, position, bytes))
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        if !self.shape.writable {
            return Ok(());
        }
        self.file.sync_data().map_err(self.failed(Operation::Flush, 0, self.shape.bytes))
    }
}
