// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is told of a tree, by whoever has it to whoever is to have it.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Permissions that are kept.
pub(crate) const PERMISSIONS: u32 = 0o777;

/// What is known of the whole before it comes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Top {
    /// The name that it has where it comes from; a root and what comes out of a pipe have none.
    pub name: Option<OsString>,
    /// How many bytes of content are to come, as far as that is known. It is for people: files change.
    pub bytes: Option<u64>,
}

/// What is known of a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// The permissions to read, write and execute.
    pub mode: u32,
    /// When its content was changed last, in seconds since 1970.
    pub modified_s: u64,
}

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symbolic links.
    pub links: u64,
    /// Bytes of files.
    pub bytes: u64,
}

/// Why something is not copied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of Linux.
    #[error("cannot {what} {path}: {error}")]
    File {
        /// What was attempted.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// What a file is to have.
    #[error("cannot read what {path} is to have: {error}")]
    Content {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The stream.
    #[error("cannot {0} the stream: {1}")]
    Stream(&'static str, io::Error),
    /// The stream has stopped too early.
    #[error(
        "the stream was cut off after {0} bytes of content; what was not complete is not there"
    )]
    Cut(u64),
    /// What has come is not what was sent.
    #[error("the stream is damaged: its checksum is wrong after {0} bytes of content")]
    Damaged(u64),
    /// It is of another release, or none.
    #[error("the stream makes no sense: {0}; is the other end of another release?")]
    Strange(String),
    /// A directory, and nobody wanted a tree.
    #[error("{0} is a directory; it is copied with -r")]
    Directory(PathBuf),
    /// It is of a kind that cannot be copied.
    #[error("{0} is no file, directory or symbolic link, and nothing else is copied")]
    Kind(PathBuf),
    /// Several things come, and there is place for the content of one file.
    #[error("a directory cannot go where only the content of a file can; name a directory for it")]
    OnlyFile,
    /// Another kind of tree.
    #[error("{0}")]
    Other(Box<dyn std::error::Error + Send + Sync>),
}

/// Who is told what there is: a directory before what is in it, each by its path below the top, whose own path is empty.
pub trait Sink {
    /// Before everything else.
    ///
    /// # Errors
    /// [`Error`].
    fn begin(&mut self, top: &Top) -> Result<(), Error>;

    /// There is a directory.
    ///
    /// # Errors
    /// [`Error`].
    fn directory(&mut self, path: &Path, about: About) -> Result<(), Error>;

    /// There is a file. All of its content has to be read, and nothing of it must show before it is.
    ///
    /// # Errors
    /// [`Error`].
    fn file(&mut self, path: &Path, about: About, content: &mut dyn Read) -> Result<(), Error>;

    /// There is a symbolic link.
    ///
    /// # Errors
    /// [`Error`].
    fn link(&mut self, path: &Path, to: &Path) -> Result<(), Error>;

    /// There is nothing more, and all is well.
    ///
    /// # Errors
    /// [`Error`].
    fn end(&mut self) -> Result<(), Error>;
}

/// The name by which a copy of something is called, if its path has one.
pub fn name_of(path: &Path) -> Option<OsString> {
    use std::os::unix::ffi::OsStrExt;
    // A path drops `.` at its end, which means what is in the directory.
    let bytes = path.as_os_str().as_bytes();
    let is_inside = bytes == b"." || bytes.ends_with(b"/.");
    path.file_name().filter(|_| !is_inside).map(OsStr::to_owned)
}

/// Reads all there is in pieces of so many bytes, the last one excepted. The result is how many bytes there were.
///
/// # Errors
/// [`Error::Content`], and what is said of a piece.
pub fn pieces(
    path: &Path,
    content: &mut dyn Read,
    bytes: usize,
    mut each: impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<u64, Error> {
    let mut buffer = Vec::with_capacity(bytes);
    let mut all = 0;
    loop {
        buffer.clear();
        let read = Read::take(&mut *content, bytes as u64).read_to_end(&mut buffer);
        read.map_err(|error| Error::Content { path: path.to_owned(), error })?;
        if buffer.is_empty() {
            return Ok(all);
        }
        each(&buffer)?;
        all += buffer.len() as u64;
        if buffer.len() < bytes {
            return Ok(all);
        }
    }
}

/// A sink whose filling can be watched.
pub struct Watched<'s, W> {
    sink: &'s mut dyn Sink,
    copied: Copied,
    watch: W,
}

impl<W> core::fmt::Debug for Watched<'_, W> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Watched").field("copied", &self.copied).finish_non_exhaustive()
    }
}

impl<'s, W: FnMut(Option<u64>, u64)> Watched<'s, W> {
    /// Passes everything on. `watch` is told how many bytes are to come as far as that is known, and how many have.
    pub fn new(sink: &'s mut dyn Sink, watch: W) -> Self {
        Self { sink, copied: Copied::default(), watch }
    }

    /// What has gone through.
    pub fn copied(&self) -> Copied {
        self.copied
    }
}

impl<W: FnMut(Option<u64>, u64)> Sink for Watched<'_, W> {
    fn begin(&mut self, top: &Top) -> Result<(), Error> {
        (self.watch)(top.bytes, 0);
        self.sink.begin(top)
    }

    fn directory(&mut self, path: &Path, about: About) -> Result<(), Error> {
        self.copied.directories += 1;
        self.sink.directory(path, about)
    }

    fn file(&mut self, path: &Path, about: About, content: &mut dyn Read) -> Result<(), Error> {
        let (copied, watch) = (&mut self.copied, &mut self.watch);
        copied.files += 1;
        let mut read = |bytes: u64| {
            copied.bytes += bytes;
            watch(None, copied.bytes);
        };
        self.sink.file(path, about, &mut Tapped { content, read: &mut read })
    }

    fn link(&mut self, path: &Path, to: &Path) -> Result<(), Error> {
        self.copied.links += 1;
        self.sink.link(path, to)
    }

    fn end(&mut self) -> Result<(), Error> {
        self.sink.end()
    }
}

/// Content whose reading is told.
struct Tapped<'c> {
    content: &'c mut dyn Read,
    read: &'c mut dyn FnMut(u64),
}

impl Read for Tapped<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.content.read(into)?;
        (self.read)(length as u64);
        Ok(length)
    }
}
