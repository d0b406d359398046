// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files of Linux.

use crate::tree::{name_of, pieces, About, Error, Sink, Top, PERMISSIONS};
use std::collections::BTreeSet;
use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{symlink, DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

const PIECE: usize = 64 << 10;
/// What a file is called until it is whole.
const PREFIX: &str = ".dvs-transfer-";

/// A file or tree of Linux that is read, or the place where one is to be.
#[derive(Debug)]
pub struct Local {
    path: PathBuf,
    /// Directories that are there, or were made, by their paths below the top.
    directories: BTreeSet<PathBuf>,
    /// What directories that were made are to become when all is in them.
    made: Vec<(PathBuf, About)>,
    /// Links that are made when everything else is, so that nothing can go through them.
    links: Vec<(PathBuf, PathBuf)>,
}

fn failed<'p>(what: &'static str, path: &'p Path) -> impl Fn(io::Error) -> Error + 'p {
    move |error| Error::File { what, path: path.to_owned(), error }
}

impl Local {
    /// This path. Something that is copied to a directory comes into it, under its own name.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { path, directories: BTreeSet::new(), made: Vec::new(), links: Vec::new() }
    }

    /// Tells a sink of it; with `recursive`, of all that is in it if it is a directory. A link at the top is followed, and no other.
    ///
    /// # Errors
    /// [`Error`].
    pub fn send(&self, recursive: bool, sink: &mut dyn Sink) -> Result<(), Error> {
        let path = &self.path;
        let metadata = fs::metadata(path).map_err(failed("read", path))?;
        if metadata.is_dir() && !recursive {
            return Err(Error::Directory(path.clone()));
        }
        let mut bytes = 0;
        self.walk(metadata.clone(), &mut |_, _, metadata| {
            bytes += if metadata.is_file() { metadata.len() } else { 0 };
            Ok(())
        })?;
        sink.begin(&Top { name: name_of(path), bytes: Some(bytes) })?;
        self.walk(metadata, &mut |below, path, metadata| tell(below, path, metadata, sink))?;
        sink.end()
    }

    /// Shows everything, each directory before what is in it.
    fn walk(
        &self,
        top: Metadata,
        see: &mut dyn FnMut(&Path, &Path, &Metadata) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut rest = vec![(PathBuf::new(), top)];
        while let Some((below, metadata)) = rest.pop() {
            let path = at(&self.path, &below);
            see(&below, &path, &metadata)?;
            if !metadata.is_dir() {
                continue;
            }
            let mut names = Vec::new();
            for entry in fs::read_dir(&path).map_err(failed("list", &path))? {
                names.push(entry.map_err(failed("list", &path))?.file_name());
            }
            // The same tree is told in the same order; the last of these is the first one to be taken.
            names.sort();
            for name in names.into_iter().rev() {
                let path = path.join(&name);
                let metadata = fs::symlink_metadata(&path).map_err(failed("read", &path))?;
                rest.push((below.join(name), metadata));
            }
        }
        Ok(())
    }

    /// The directory in which something is to be, which has to be known.
    fn above(&self, below: &Path) -> Result<PathBuf, Error> {
        match below.parent() {
            Some(above) if self.directories.contains(above) => Ok(at(&self.path, above)),
            Some(_) => Err(Error::Strange(format!("{below:?} comes before its directory"))),
            None => Ok(match self.path.parent() {
                Some(above) if !above.as_os_str().is_empty() => above.to_owned(),
                _ => PathBuf::from("."),
            }),
        }
    }

    fn finish(&self, below: &Path, about: About) -> Result<(), Error> {
        let path = at(&self.path, below);
        let directory = File::open(&path).map_err(failed("open", &path))?;
        adorn(&directory, about).map_err(failed("set permissions and time of", &path))
    }
}

/// The path of what is below another one; nothing is below a path that ends in `/` only because it is itself meant.
fn at(top: &Path, below: &Path) -> PathBuf {
    match below.as_os_str().is_empty() {
        true => top.to_owned(),
        false => top.join(below),
    }
}

fn about(metadata: &Metadata) -> About {
    let modified_s = u64::try_from(metadata.mtime()).unwrap_or(0);
    About { mode: metadata.mode() & PERMISSIONS, modified_s }
}

fn tell(below: &Path, path: &Path, metadata: &Metadata, sink: &mut dyn Sink) -> Result<(), Error> {
    if metadata.is_dir() {
        sink.directory(below, about(metadata))
    } else if metadata.is_symlink() {
        let to = fs::read_link(path).map_err(failed("read", path))?;
        sink.link(below, &to)
    } else if metadata.is_file() {
        let mut file = File::open(path).map_err(failed("open", path))?;
        sink.file(below, about(metadata), &mut file)
    } else {
        Err(Error::Kind(path.to_owned()))
    }
}

/// Gives a file or directory its permissions and its time.
fn adorn(file: &File, about: About) -> io::Result<()> {
    let modified = UNIX_EPOCH.checked_add(Duration::from_secs(about.modified_s));
    if let Some(modified) = modified {
        file.set_modified(modified)?;
    }
    file.set_permissions(Permissions::from_mode(about.mode))
}

impl Sink for Local {
    fn begin(&mut self, top: &Top) -> Result<(), Error> {
        if let Some(name) = top.name.as_ref().filter(|_| self.path.is_dir()) {
            self.path.push(name);
        }
        Ok(())
    }

    fn directory(&mut self, below: &Path, about: About) -> Result<(), Error> {
        if below.parent().is_some() {
            self.above(below)?;
        }
        let path = at(&self.path, below);
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => self.made.push((below.to_owned(), about)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                // Who names a link as the place means what it leads to. Below, it may be one that came from there earlier.
                let there = match below.parent() {
                    None => fs::metadata(&path),
                    Some(_) => fs::symlink_metadata(&path),
                };
                if !there.map_err(failed("read", &path))?.is_dir() {
                    return Err(failed("make the directory", &path)(error));
                }
            }
            Err(error) => return Err(failed("make the directory", &path)(error)),
        }
        self.directories.insert(below.to_owned());
        Ok(())
    }

    fn file(&mut self, below: &Path, about: About, content: &mut dyn Read) -> Result<(), Error> {
        let (path, above) = (at(&self.path, below), self.above(below)?);
        let made = tempfile::Builder::new().prefix(PREFIX).tempfile_in(&above);
        let mut file = made.map_err(failed("make a file in", &above))?;
        pieces(&path, content, PIECE, |piece| {
            io::Write::write_all(&mut file, piece).map_err(failed("write", &path))
        })?;
        adorn(file.as_file(), about).map_err(failed("set permissions and time of", &path))?;
        file.persist(&path).map_err(|error| failed("replace", &path)(error.error))?;
        Ok(())
    }

    fn link(&mut self, below: &Path, to: &Path) -> Result<(), Error> {
        self.above(below)?;
        self.links.push((below.to_owned(), to.to_owned()));
        Ok(())
    }

    fn end(&mut self) -> Result<(), Error> {
        for (below, to) in core::mem::take(&mut self.links) {
            let (path, above) = (at(&self.path, &below), self.above(&below)?);
            let made =
                tempfile::Builder::new().prefix(PREFIX).make_in(&above, |path| symlink(&to, path));
            let link = made.map_err(failed("make a link in", &above))?;
            link.persist(&path).map_err(|error| failed("replace", &path)(error.error))?;
        }
        // What is in a directory changes its time, and it may allow nothing more when it is done.
        for (below, about) in core::mem::take(&mut self.made).into_iter().rev() {
            self.finish(&below, about)?;
        }
        Ok(())
    }
}
