// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a store is not there, and why it does not do what it is asked.

use crate::nbd::SessionError;
use core::fmt;
use mol_protocol::Errno;
use std::io;
use std::path::PathBuf;

/// Why a store cannot be opened or made.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be opened.
    #[error("cannot open {path} for a store: {error}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What Linux says.
        error: io::Error,
    },
    /// Somebody has it for a store, or mounted.
    #[error("cannot use {path} for a store: somebody else uses it; stop the other server or unmount it first")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It is something without blocks.
    #[error("cannot use {path} for a store: it is neither a file nor a block device")]
    Kind {
        /// The file.
        path: PathBuf,
    },
    /// Its length is not one of blocks.
    #[error(
        "cannot use {path} for a store: its {bytes} bytes are not a positive number of blocks of \
         {block_bytes} bytes; make it as long as a multiple of them"
    )]
    Length {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// The block.
        block_bytes: u32,
    },
    /// What it is like cannot be found out.
    #[error("cannot find out {what} of {path}: {error}")]
    Look {
        /// What was asked for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What Linux says.
        error: io::Error,
    },
    /// A new file cannot be made.
    #[error("cannot make {path} for a store of {bytes} bytes: {error}")]
    Create {
        /// The file.
        path: PathBuf,
        /// How many bytes it was to have.
        bytes: u64,
        /// What Linux says.
        error: io::Error,
    },
    /// The volume of a server is not to be had.
    #[error("cannot open {uri} for a store: {error}")]
    Nbd {
        /// The volume.
        uri: String,
        /// Why not.
        error: SessionError,
    },
    /// The volume of a server takes no writes.
    #[error("cannot open {uri} for writing: its server lets it be read only; write `,read-only` behind it")]
    NbdReadOnly {
        /// The volume.
        uri: String,
    },
    /// A store in memory cannot be like this.
    #[error(
        "cannot make a store of {bytes} bytes in blocks of {block_bytes}: blocks have a power of two of bytes, \
         512 to 65536, and a store has a positive number of them"
    )]
    Shape {
        /// How many bytes it was to have.
        bytes: u64,
        /// The block.
        block_bytes: u32,
    },
}

/// What a store was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// To read.
    Read,
    /// To write.
    Write,
    /// To make a range zeros.
    Zero,
    /// To make safe what was written.
    Flush,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Zero => "zero",
            Self::Flush => "flush",
        })
    }
}

/// Why a store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The range is not one of whole blocks of the store.
    #[error(
        "cannot {operation} {bytes} bytes from byte {position} on: they are not whole blocks of {block_bytes} bytes \
         within the {of} of the store"
    )]
    Range {
        /// What was asked.
        operation: Operation,
        /// The first byte.
        position: u64,
        /// How many bytes.
        bytes: u64,
        /// The block.
        block_bytes: u32,
        /// How many bytes the store has.
        of: u64,
    },
    /// The store takes no writes.
    #[error("cannot {operation} {store}: it was opened for reading only")]
    ReadOnly {
        /// What was asked.
        operation: Operation,
        /// The store.
        store: String,
    },
    /// There is no memory for what was not written before.
    #[error("cannot write to the store in memory: there are no {bytes} bytes more")]
    NoMemory {
        /// How many bytes were needed.
        bytes: usize,
    },
    /// The medium failed.
    #[error("cannot {operation} {bytes} bytes from byte {position} of {store} on: {error}")]
    Medium {
        /// What was asked.
        operation: Operation,
        /// The store.
        store: String,
        /// The first byte.
        position: u64,
        /// How many bytes.
        bytes: u64,
        /// What Linux says.
        error: io::Error,
    },
}

impl StoreError {
    /// What a client is told.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Range { .. } => Errno::Invalid,
            Self::ReadOnly { .. } => Errno::ReadOnly,
            Self::NoMemory { .. } => Errno::NoMemory,
            Self::Medium { error, .. } if error.kind() == io::ErrorKind::StorageFull => {
                Errno::NoSpace
            }
            Self::Medium { .. } => Errno::Io,
        }
    }
}
