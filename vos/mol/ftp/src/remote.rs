// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files of a file server as a tree.

use core::fmt;
use mol_fs::client::{File, Files, FilesError, Node};
use mol_protocol::directory::Kind;
use mol_protocol::file::{OPEN_READ, OPEN_WRITE, TRANSFER_MAX};
use mol_protocol::Errno;
use mol_vdd::lend::Lend;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufReader, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use vos_transfer::{name_of, pieces, About, Error, Sink, Top};

/// What a file is called until it is whole, before a number.
const PREFIX: &str = ".mol-ftp-";
/// How many files are synced together at most, and when fewer are: when they have so many bytes.
const TOGETHER_MAX: usize = 64;
const TOGETHER_BYTES: u64 = 16 << 20;
const PERMISSIONS: u16 = 0o777;

fn other(error: FilesError) -> Error {
    Error::Other(Box::new(error))
}

/// A path of a file server: a file or tree that is read, or the place where one is to be.
pub struct Remote<'f, I: Lend>
where
    I::Error: fmt::Display,
{
    files: &'f Files<'f, I>,
    label: &'f str,
    path: Vec<u8>,
    /// Where the top is to be, and its name there. None if the top is the directory that is there.
    top: Option<(Node<'f, I>, Vec<u8>)>,
    /// Directories that are there, by their paths below the top, and what those that were made are to be in the end.
    directories: BTreeMap<PathBuf, (Node<'f, I>, Option<About>)>,
    /// What is there and has not its name yet.
    unnamed: Vec<Unnamed>,
    unnamed_bytes: u64,
    /// In the names of the next ones.
    number: u32,
}

/// A file or link under another name than its own.
struct Unnamed {
    below: PathBuf,
    name: Vec<u8>,
}

impl<I: Lend> fmt::Debug for Remote<'_, I>
where
    I::Error: fmt::Display,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = String::from_utf8_lossy(&self.path);
        f.debug_struct("Remote").field("path", &path).finish_non_exhaustive()
    }
}

impl<I: Lend> Drop for Remote<'_, I>
where
    I::Error: fmt::Display,
{
    fn drop(&mut self) {
        for Unnamed { below, name } in core::mem::take(&mut self.unnamed) {
            if let Ok((above, _)) = self.place(&below) {
                // Without a server there is nobody to tell, and what is left harms nobody.
                let _ = above.unlink(&name);
            }
        }
    }
}

impl<'f, I: Lend> Remote<'f, I>
where
    I::Error: fmt::Display,
{
    /// A path of the mount with this label, or of the server's first if that is empty. Something that is copied to a directory comes
    /// into it, under its own name.
    pub fn new(files: &'f Files<'f, I>, label: &'f str, path: &[u8]) -> Self {
        Self {
            files,
            label,
            path: path.to_vec(),
            top: None,
            directories: BTreeMap::new(),
            unnamed: Vec::new(),
            unnamed_bytes: 0,
            number: 0,
        }
    }

    /// Tells a sink of it; with `recursive`, of all that is in it if it is a directory. A link at the top is followed, and no other.
    ///
    /// # Errors
    /// [`Error`].
    pub fn send(&self, recursive: bool, sink: &mut dyn Sink) -> Result<(), Error> {
        let path = Path::new(OsStr::from_bytes(&self.path));
        let top = || self.files.follow(self.label, &self.path).map_err(other);
        let node = top()?;
        let kind = Kind::of_mode(node.attributes.mode);
        if kind == Kind::Directory && !recursive {
            return Err(Error::Directory(path.to_owned()));
        }
        let mut bytes = 0;
        walk(node, &mut |_, node| {
            let is_file = Kind::of_mode(node.attributes.mode) == Kind::Regular;
            bytes += if is_file { node.attributes.bytes } else { 0 };
            Ok(())
        })?;
        sink.begin(&Top { name: name_of(path), bytes: Some(bytes) })?;
        walk(top()?, &mut |below, node| tell(path, below, node, sink))?;
        sink.end()
    }

    /// The directory in which something is to be, and its name there.
    fn place<'a>(&'a self, below: &'a Path) -> Result<(&'a Node<'f, I>, &'a [u8]), Error> {
        match (below.parent(), below.file_name()) {
            (Some(above), Some(name)) => match self.directories.get(above) {
                Some((node, _)) => Ok((node, OsStrExt::as_bytes(name))),
                None => Err(Error::Strange(format!("{below:?} comes before its directory"))),
            },
            _ => match &self.top {
                Some((node, name)) => Ok((node, name)),
                // A file without a name cannot take the place of a directory.
                None => Err(Error::OnlyFile),
            },
        }
    }

    /// Makes something under a name that nobody has.
    fn make<T>(
        &mut self,
        below: &Path,
        make: impl Fn(&Node<'f, I>, &[u8]) -> Result<T, FilesError>,
    ) -> Result<T, Error> {
        loop {
            self.number += 1;
            let name = format!("{PREFIX}{}", self.number).into_bytes();
            let (above, _) = self.place(below)?;
            match make(above, &name) {
                Ok(made) => {
                    self.unnamed.push(Unnamed { below: below.to_owned(), name });
                    return Ok(made);
                }
                // Another one that is under way, or was left behind.
                Err(error) if error.errno == Some(Errno::Exists) && self.number < u32::MAX => {}
                Err(error) => return Err(other(error)),
            }
        }
    }

    /// Has the files that are written on stable storage, and gives them their names.
    fn name_files(&mut self) -> Result<(), Error> {
        if self.unnamed.is_empty() {
            return Ok(());
        }
        self.files.sync().map_err(other)?;
        self.unnamed_bytes = 0;
        while let Some(Unnamed { below, name }) = self.unnamed.last() {
            let (above, final_name) = self.place(below)?;
            above.rename(name, above, final_name).map_err(other)?;
            self.unnamed.pop();
        }
        Ok(())
    }
}

/// Shows everything, each directory before what is in it.
fn walk<'f, I: Lend>(
    top: Node<'f, I>,
    see: &mut dyn FnMut(&Path, &Node<'f, I>) -> Result<(), Error>,
) -> Result<(), Error>
where
    I::Error: fmt::Display,
{
    see(Path::new(""), &top)?;
    let mut rest = Vec::new();
    let mut open = Some((PathBuf::new(), top));
    loop {
        if let Some((below, node)) = open.take() {
            if Kind::of_mode(node.attributes.mode) == Kind::Directory {
                let mut names = node.list().map_err(other)?;
                // The same tree is told in the same order; the last of these is the first one to be taken.
                names.sort_by(|one, other| other.name.cmp(&one.name));
                let (above, below) = (Rc::new(node), Rc::new(below));
                rest.extend(names.into_iter().map(|it| (above.clone(), below.clone(), it.name)));
            }
        }
        let Some((above, below, name)) = rest.pop() else { return Ok(()) };
        let node = match above.lookup(&name) {
            // Somebody else has removed it.
            Err(error) if error.errno == Some(Errno::NoEntry) => continue,
            found => found.map_err(other)?,
        };
        let below = below.join(OsString::from_vec(name));
        see(&below, &node)?;
        open = Some((below, node));
    }
}

fn tell<I: Lend>(
    top: &Path,
    below: &Path,
    node: &Node<'_, I>,
    sink: &mut dyn Sink,
) -> Result<(), Error>
where
    I::Error: fmt::Display,
{
    let it = &node.attributes;
    let about = About { mode: (it.mode & PERMISSIONS).into(), modified_s: it.modified.into() };
    match Kind::of_mode(it.mode) {
        Kind::Directory => sink.directory(below, about),
        Kind::SymbolicLink => {
            let to = node.read_link().map_err(other)?;
            sink.link(below, Path::new(OsStr::from_bytes(&to)))
        }
        Kind::Regular => {
            let file = node.open(OPEN_READ).map_err(other)?;
            let reading = Reading { file, position: 0 };
            sink.file(below, about, &mut BufReader::with_capacity(TRANSFER_MAX as usize, reading))
        }
        _ => Err(Error::Kind(top.join(below))),
    }
}

/// A file that is read from its beginning to its end.
struct Reading<'f, I: Lend>
where
    I::Error: fmt::Display,
{
    file: File<'f, I>,
    position: u64,
}

impl<I: Lend> Read for Reading<'_, I>
where
    I::Error: fmt::Display,
{
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read(self.position, into).map_err(io::Error::other)?;
        self.position += length as u64;
        Ok(length)
    }
}

/// Seconds as MINIX has them.
fn seconds(time: u64) -> u32 {
    u32::try_from(time).unwrap_or(u32::MAX)
}

impl<I: Lend> Sink for Remote<'_, I>
where
    I::Error: fmt::Display,
{
    fn begin(&mut self, top: &Top) -> Result<(), Error> {
        let there = match self.files.follow(self.label, &self.path) {
            Ok(node) => Some(node),
            Err(error) if error.errno == Some(Errno::NoEntry) => None,
            Err(error) => return Err(other(error)),
        };
        let is_directory =
            |node: &Node<'_, I>| Kind::of_mode(node.attributes.mode) == Kind::Directory;
        match (there.filter(is_directory), &top.name) {
            (Some(node), Some(name)) => self.top = Some((node, name.as_bytes().to_vec())),
            // What is in a root, or a pipe's content, which will be refused.
            (Some(_), None) => {}
            (None, _) => {
                let (above, name) = self.files.parent(self.label, &self.path).map_err(other)?;
                self.top = Some((above, name.to_vec()));
            }
        }
        Ok(())
    }

    fn directory(&mut self, below: &Path, about: About) -> Result<(), Error> {
        if below.as_os_str().is_empty() && self.top.is_none() {
            let node = self.files.follow(self.label, &self.path).map_err(other)?;
            self.directories.insert(below.to_owned(), (node, None));
            return Ok(());
        }
        let (above, name) = self.place(below)?;
        let made = match above.make_directory(name, about.mode as u16 & PERMISSIONS) {
            Err(error) if error.errno == Some(Errno::Exists) => {
                let node = above.lookup(name).map_err(other)?;
                if Kind::of_mode(node.attributes.mode) != Kind::Directory {
                    return Err(other(error));
                }
                (node, None)
            }
            made => (made.map_err(other)?, Some(about)),
        };
        self.directories.insert(below.to_owned(), made);
        Ok(())
    }

    fn file(&mut self, below: &Path, about: About, content: &mut dyn Read) -> Result<(), Error> {
        // Not at once: what came with a single file is known to be whole only when it is at its end.
        if self.unnamed.len() >= TOGETHER_MAX || self.unnamed_bytes >= TOGETHER_BYTES {
            self.name_files()?;
        }
        let mode = about.mode as u16 & PERMISSIONS;
        let file = self.make(below, |above, name| above.create(name, mode, OPEN_WRITE))?;
        let mut position = 0;
        let path = PathBuf::from(OsString::from_vec(self.path.clone())).join(below);
        pieces(&path, content, TRANSFER_MAX as usize, |piece| {
            file.write(position, piece).map_err(other)?;
            position += piece.len() as u64;
            Ok(())
        })?;
        self.unnamed_bytes += position;
        let (above, _) = self.place(below)?;
        if let Some(Unnamed { name, .. }) = self.unnamed.last() {
            let node = above.lookup(name).map_err(other)?;
            node.set_modified(seconds(about.modified_s)).map_err(other)?;
        }
        Ok(())
    }

    fn link(&mut self, below: &Path, to: &Path) -> Result<(), Error> {
        self.make(below, |above, name| above.make_link(name, to.as_os_str().as_bytes()))
    }

    fn end(&mut self) -> Result<(), Error> {
        self.name_files()?;
        for (node, about) in self.directories.values() {
            if let Some(about) = about {
                node.set_modified(seconds(about.modified_s)).map_err(other)?;
            }
        }
        self.files.sync().map_err(other)
    }
}
