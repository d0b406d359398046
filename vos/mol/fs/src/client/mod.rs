// SPDX-License-Identifier: MIT OR Apache-2.0
//! File systems for a program: paths, files and directories of a file server.
//!
//! A [`Node`] and a [`File`] give back what they hold when they are dropped. Nothing is kept besides: every call is a request
//! or a few, and what is read or written is in no buffer here.

mod file;
mod path;

pub use self::file::File;

use core::fmt;
use dvk::{CallError, Endpoint, GrantId};
use mol_protocol::directory::Entries;
use mol_protocol::file::{
    Attributes, Close, Create, FileClient, FileId, FileSystem, GetFileSystem, GetRoot, Lookup,
    MakeDirectory, MakeSymbolicLink, NodeId, Open, OpenMade, ReadDirectory, ReadLink, Release,
    RemoveDirectory, Rename, SetMode, SetTime, SetTimes, Stat, Sync, Unlink, Who, OPEN_READ,
};
use mol_protocol::Errno;
use mol_vdd::lend::Lend;

/// How many bytes of entries are asked for at once.
const LIST_BYTES: usize = 16 << 10;

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesError {
    /// What was attempted, and on what.
    pub what: String,
    /// The server's reason. `None` if there was no answer, and so nobody knows whether it was done.
    pub errno: Option<Errno>,
    /// Why, for people.
    pub reason: String,
}

impl fmt::Display for FilesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.what, self.reason)
    }
}

impl core::error::Error for FilesError {}

impl FilesError {
    fn refused(what: impl Into<String>, errno: Errno) -> Self {
        Self { what: what.into(), errno: Some(errno), reason: errno.to_string() }
    }
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The name.
    pub name: Vec<u8>,
    /// What it is for.
    pub kind: mol_protocol::directory::Kind,
    /// The number of its inode.
    pub inode: u64,
}

/// A file server, as a user of it sees it.
#[derive(Debug)]
pub struct Files<'i, I> {
    ipc: &'i I,
    server: Endpoint,
    user: u32,
    group: u32,
}

/// Something that is held, so that it stays usable even without a name.
#[derive(Debug)]
pub struct Node<'f, I: Lend>
where
    I::Error: fmt::Display,
{
    files: &'f Files<'f, I>,
    /// What it was when it was found or made.
    pub attributes: Attributes,
}

impl<I: Lend> Drop for Node<'_, I>
where
    I::Error: fmt::Display,
{
    fn drop(&mut self) {
        // A server that is gone holds nothing.
        let _ = self.files.ask().release(&Release { node: self.attributes.node, count: 1 });
    }
}

impl<'i, I: Lend> Files<'i, I>
where
    I::Error: fmt::Display,
{
    /// The server at this endpoint, on behalf of a user with one group.
    pub fn new(ipc: &'i I, server: Endpoint, user: u32, group: u32) -> Self {
        Self { ipc, server, user, group }
    }

    fn ask(&self) -> FileClient<'_, I> {
        FileClient::new(self.ipc, self.server)
    }

    fn who(&self) -> Who {
        Who::new(self.user, self.group)
    }

    /// Lends bytes for the time of a request.
    fn with<T>(
        &self,
        what: impl FnOnce() -> String,
        bytes: &[u8],
        work: impl FnOnce(GrantId) -> Result<T, CallError<Errno, I::Error>>,
    ) -> Result<T, FilesError> {
        // Nothing cannot be lent, and is no name either.
        if bytes.is_empty() {
            return Err(FilesError::refused(what(), Errno::Invalid));
        }
        let lent = self.ipc.lend(self.server, bytes, work);
        told(what, lent.unwrap_or_else(|error| Err(CallError::Exchange(error))))
    }

    /// Lends memory for writing, likewise.
    fn with_mut<T>(
        &self,
        what: impl FnOnce() -> String,
        memory: &mut [u8],
        work: impl FnOnce(GrantId) -> Result<T, CallError<Errno, I::Error>>,
    ) -> Result<T, FilesError> {
        let lent = self.ipc.lend_mut(self.server, memory, work);
        told(what, lent.unwrap_or_else(|error| Err(CallError::Exchange(error))))
    }

    /// The root of a mount; of the server's first, if the label is empty.
    ///
    /// # Errors
    /// [`FilesError`]; `ENOENT` if nothing of this label is mounted.
    pub fn root(&self, label: &str) -> Result<Node<'_, I>, FilesError> {
        let what = || format!("reach the file system `{label}`");
        let attributes = if label.is_empty() {
            let what = || "reach the server's first file system".to_owned();
            told(what, self.ask().root(&GetRoot { label: GrantId::NONE, label_bytes: 0 }))?
        } else {
            let label_bytes = length(label.as_bytes(), what)?;
            self.with(what, label.as_bytes(), |label| {
                self.ask().root(&GetRoot { label, label_bytes })
            })?
        };
        Ok(self.node(attributes))
    }

    fn node(&self, attributes: Attributes) -> Node<'_, I> {
        Node { files: self, attributes }
    }

    /// Has everything that was written to all mounts on stable storage.
    ///
    /// # Errors
    /// [`FilesError`].
    pub fn sync(&self) -> Result<(), FilesError> {
        told(|| "sync".to_owned(), self.ask().sync(&Sync {}))
    }
}

/// A result with what was attempted.
fn told<T, E: fmt::Display>(
    what: impl FnOnce() -> String,
    result: Result<T, CallError<Errno, E>>,
) -> Result<T, FilesError> {
    result.map_err(|error| match error.refusal() {
        Some(errno) => FilesError::refused(what(), errno),
        None => FilesError { what: what(), errno: None, reason: error.to_string() },
    })
}

fn length(bytes: &[u8], what: impl FnOnce() -> String) -> Result<u16, FilesError> {
    u16::try_from(bytes.len()).map_err(|_| FilesError::refused(what(), Errno::NameTooLong))
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

impl<'f, I: Lend> Node<'f, I>
where
    I::Error: fmt::Display,
{
    fn id(&self) -> NodeId {
        self.attributes.node
    }

    /// What it is now.
    ///
    /// # Errors
    /// [`FilesError`].
    pub fn stat(&self) -> Result<Attributes, FilesError> {
        let stat = Stat { node: self.id() };
        told(|| "look at a file".to_owned(), self.files.ask().stat(&stat))
    }

    /// What its file system is.
    ///
    /// # Errors
    /// [`FilesError`].
    pub fn file_system(&self) -> Result<FileSystem, FilesError> {
        let get = GetFileSystem { node: self.id() };
        told(|| "look at a file system".to_owned(), self.files.ask().file_system(&get))
    }

    /// Gives it other permissions.
    ///
    /// # Errors
    /// [`FilesError`].
    pub fn set_mode(&self, mode: u16) -> Result<(), FilesError> {
        let set = SetMode { node: self.id(), mode, who: self.files.who() };
        let what = || format!("set the permissions {mode:04o}");
        told(what, self.files.ask().set_mode(&set)).map(drop)
    }

    /// Says when its content was changed last, in seconds since 1970. Every later change says so anew.
    ///
    /// # Errors
    /// [`FilesError`].
    pub fn set_modified(&self, seconds: u32) -> Result<(), FilesError> {
        let (node, who) = (self.id(), self.files.who());
        let (accessed, modified) = (SetTime::Keep, SetTime::To(seconds));
        let set = SetTimes { node, accessed, modified, who };
        told(|| "set the time of a change".to_owned(), self.files.ask().set_times(&set)).map(drop)
    }

    /// What has a name in this directory; a symbolic link is not followed.
    ///
    /// # Errors
    /// [`FilesError`].
    pub fn lookup(&self, name: &[u8]) -> Result<Node<'f, I>, FilesError> {
        let what = || format!("find `{}`", text(name));
        let (directory, name_bytes, who) = (self.id(), length(name, what)?, self.files.who());
        let found = self.files.with(what, name, |name| {
            self.files.ask().lookup(&Lookup { directory, name, name_bytes, who })
        })?;
        Ok(self.files.node(found))
    }

    /// Makes an empty file in this directory and opens it.
    ///
    /// # Errors
    /// [`FilesError`].
    pub fn create(&self, name: &[u8], mode: u16, flags: u32) -> Result<File<'f, I>, FilesError> {
        let what = || format!("make the file `{}`", text(name));
        let (directory, name_bytes, who) = (self.id(), length(name, what)?, self.files.who());
        let made = self.files.with(what, name, |name| {
            self.files.ask().create(&Create { directory, name, name_bytes, mode, who })
        })?;
        let made = self.files.node(made);
        let open = OpenMade { node: made.id(), flags };
        let file = told(what, self.files.ask().open_made(&open))?;
        Ok(File::new(self.files, file))
    }

    /// Makes a directory in this one.
    ///
    /// # Errors
    /// [`FilesError`].
    pub fn make_directory(&self, name: &[u8], mode: u16) -> Result<Node<'f, I>, FilesError> {
        let what = || format!("make the directory `{}`", text(name));
        let (directory, name_bytes, who) = (self.id(), length(name, what)?, self.files.who());
        let made = self.files.with(what, name, |name| {
            let make = MakeDirectory { directory, name, name_bytes, mode, who };
            self.files.ask().make_directory(&make)
        })?;
        Ok(self.files.node(made))
    }

    /// Makes a symbolic link in this directory.
    ///
    /// # Errors
    /// [`FilesError`].
    pub fn make_link(&self, name: &[u8], path: &[u8]) -> Result<(), FilesError> {
        let what = || format!("make the link `{}`", text(name));
        let (directory, who) = (self.id(), self.files.who());
        let (name_bytes, path_bytes) = (length(name, what)?, length(path, what)?);
        let made = self.files.with(what, &[name, path].concat(), |names| {
            let make = MakeSymbolicLink { directory, names, name_bytes, path_bytes, who };
            self.files.ask().make_symbolic_link(&make)
        })?;
        drop(self.files.node(made));
        Ok(())
    }

    /// The path in this symbolic link.
    ///
    /// # Errors
    /// [`FilesError`].
    pub fn read_link(&self) -> Result<Vec<u8>, FilesError> {
        let node = self.id();
        let mut path = vec![0; self.attributes.bytes.clamp(1, u16::MAX.into()) as usize];
        let bytes = path.len() as u32;
        let length = self.files.with_mut(
            || "read a link".to_owned(),
            &mut path,
            |into| self.files.ask().read_link(&ReadLink { node, into, bytes }),
        )?;
        path.truncate(length as usize);
        Ok(path)
    }

    /// Removes a name of something that is no directory.
    ///
    /// # Errors
    /// [`FilesError`].
    pub fn unlink(&self, name: &[u8]) -> Result<(), FilesError> {
        let what = || format!("remove `{}`", text(name));
        let (directory, name_bytes, who) = (self.id(), length(name, what)?, self.files.who());
        self.files.with(what, name, |name| {
            self.files.ask().unlink(&Unlink { directory, name, name_bytes, who })
        })
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// [`FilesError`].
    pub fn remove_directory(&self, name: &[u8]) -> Result<(), FilesError> {
        let what = || format!("remove the directory `{}`", text(name));
        let (directory, name_bytes, who) = (self.id(), length(name, what)?, self.files.who());
        self.files.with(what, name, |name| {
            let remove = RemoveDirectory { directory, name, name_bytes, who };
            self.files.ask().remove_directory(&remove)
        })
    }

    /// Gives what has a name here another one in `to`, in place of what has that.
    ///
    /// # Errors
    /// [`FilesError`].
    pub fn rename(&self, old: &[u8], to: &Self, new: &[u8]) -> Result<(), FilesError> {
        let what = || format!("rename `{}` to `{}`", text(old), text(new));
        let short = |name: &[u8]| u8::try_from(name.len());
        let (Ok(old_bytes), Ok(new_bytes)) = (short(old), short(new)) else {
            return Err(FilesError::refused(what(), Errno::NameTooLong));
        };
        let (from, to, who) = (self.id(), to.id(), self.files.who());
        self.files.with(what, &[old, new].concat(), |names| {
            let rename = Rename { from, to, names, old_bytes, new_bytes, flags: 0, who };
            self.files.ask().rename(&rename)
        })
    }

    /// Opens it, with flags such as [`OPEN_READ`].
    ///
    /// # Errors
    /// [`FilesError`].
    pub fn open(&self, flags: u32) -> Result<File<'f, I>, FilesError> {
        let open = Open { node: self.id(), flags, who: self.files.who() };
        let file = told(|| "open a file".to_owned(), self.files.ask().open(&open))?;
        Ok(File::new(self.files, file))
    }

    /// The names in this directory but for `.` and `..`.
    ///
    /// # Errors
    /// [`FilesError`].
    pub fn list(&self) -> Result<Vec<Named>, FilesError> {
        self.list_some(usize::MAX)
    }

    /// The first names in this directory but for `.` and `..`, and no more than `most`.
    ///
    /// # Errors
    /// [`FilesError`].
    pub fn list_some(&self, most: usize) -> Result<Vec<Named>, FilesError> {
        let what = || "list a directory".to_owned();
        let open = Open { node: self.id(), flags: OPEN_READ, who: self.files.who() };
        let file: FileId = told(what, self.files.ask().open(&open))?;
        let listed = self.list_open(file, most);
        let _ = self.files.ask().close(&Close { file });
        listed
    }

    fn list_open(&self, file: FileId, most: usize) -> Result<Vec<Named>, FilesError> {
        let what = || "list a directory".to_owned();
        let (mut position, mut all) = (0, Vec::new());
        let mut records = vec![0; LIST_BYTES];
        loop {
            let part = self.files.with_mut(what, &mut records, |into| {
                let bytes = LIST_BYTES as u32;
                self.files.ask().read_directory(&ReadDirectory { file, position, into, bytes })
            })?;
            if part.bytes == 0 {
                return Ok(all);
            }
            for entry in Entries::new(&records[..(part.bytes as usize).min(LIST_BYTES)]) {
                let strange =
                    |_| FilesError { what: what(), errno: None, reason: "it has no sense".into() };
                let entry = entry.map_err(strange)?;
                if entry.name != b"." && entry.name != b".." {
                    if all.len() == most {
                        return Ok(all);
                    }
                    let name = entry.name.to_vec();
                    all.push(Named { name, kind: entry.kind, inode: entry.inode });
                }
            }
            position = part.next;
        }
    }
}
