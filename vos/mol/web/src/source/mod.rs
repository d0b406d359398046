// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where files are. A source waits for whatever it does, and belongs to one thread.

mod directory;
mod hurry;
mod server;

pub use self::directory::Directory;
pub use self::server::{Access, Door, FileServer, Opened};

use crate::conditions::Version;
use core::fmt;
use core::time::Duration;

/// More names of a directory than these are not listed.
pub const ENTRIES_MAX: usize = 10_000;

/// What has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A file with bytes.
    File,
    /// What is not served, such as a device node, or what nobody may look at.
    Other,
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: Vec<u8>,
    /// What it is for; what a link leads to, if it is one.
    pub kind: Kind,
    /// How many bytes a file has.
    pub bytes: u64,
}

/// Why a source does not do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nobody answers for the files now, or it is not known what was answered. What was open is not any more; looking again may help.
    Lost(String),
    /// Nothing has this name.
    Absent,
    /// It may not be read, or is nothing to be read.
    Denied,
    /// There are too many open files, or there is no memory.
    Full(String),
    /// A directory has more than [`ENTRIES_MAX`] names.
    TooMany,
    /// The disk, or what is on it.
    Failed(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(why) => write!(f, "no file server answers: {why}"),
            Self::Absent => f.write_str("there is no such file"),
            Self::Denied => f.write_str("it may not be read"),
            Self::Full(why) => write!(f, "there is too much to do: {why}"),
            Self::TooMany => write!(f, "the directory has more than {ENTRIES_MAX} names"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

impl core::error::Error for Fault {}

/// What a path leads to.
#[derive(Debug)]
pub enum Found<O> {
    /// A file, which is open now.
    File(O, Version),
    /// A directory.
    Directory,
}

/// Where files are. Paths go from the root on, without `/` at their ends; the root's is empty.
///
/// Whoever is asked may be silent: it is waited for at most `limit`, and then lost.
pub trait Source {
    /// A file that is open.
    type Open;

    /// What a path leads to; a file is opened.
    ///
    /// # Errors
    /// [`Fault`].
    fn find(&mut self, path: &[u8], limit: Duration) -> Result<Found<Self::Open>, Fault>;

    /// What a directory has. Of one with more than [`ENTRIES_MAX`] names, no more are read.
    ///
    /// # Errors
    /// [`Fault`].
    fn list(&mut self, path: &[u8], limit: Duration) -> Result<Vec<Entry>, Fault>;

    /// Reads from byte `position` on. The result is how many bytes; 0 at the end of the file only.
    ///
    /// # Errors
    /// [`Fault`].
    fn read(
        &mut self,
        file: &Self::Open,
        position: u64,
        into: &mut [u8],
        limit: Duration,
    ) -> Result<usize, Fault>;

    /// Is done with a file.
    fn close(&mut self, file: Self::Open);
}
