// SPDX-License-Identifier: MIT OR Apache-2.0
//! A directory of the host.

use super::{Entry, Fault, Found, Kind, Source, ENTRIES_MAX};
use crate::conditions::Version;
use core::time::Duration;
use rustix::fs::{self, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

/// How often a path is walked again that somebody renames.
const TRIES: usize = 16;

/// A directory and what is below it. No path and no symbolic link leads out of it.
#[derive(Clone, Debug)]
pub struct Directory {
    root: Arc<OwnedFd>,
}

impl Directory {
    /// Opens a directory.
    ///
    /// # Errors
    /// Those of `open`.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { root: Arc::new(fs::open(path, flags, Mode::empty())?) })
    }

    fn open_below(&self, path: &[u8]) -> Result<(OwnedFd, Stat), Fault> {
        let path = if path.is_empty() { b"." } else { path };
        // A pipe would otherwise be waited for.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let mut tries = 0;
        let file = loop {
            tries += 1;
            match fs::openat2(self.root.as_fd(), path, flags, Mode::empty(), resolve) {
                // With a path that leads upwards, a rename elsewhere is enough for this.
                Err(Errno::AGAIN | Errno::INTR) if tries < TRIES => {}
                other => break other.map_err(fault)?,
            }
        };
        let stat = fs::fstat(&file).map_err(fault)?;
        Ok((file, stat))
    }
}

fn fault(errno: Errno) -> Fault {
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::INVAL => Fault::Absent,
        // Out of the directory, in circles, or nothing that can be opened.
        Errno::ACCESS | Errno::PERM | Errno::XDEV | Errno::LOOP | Errno::NXIO | Errno::NODEV => {
            Fault::Denied
        }
        Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN => {
            Fault::Full(io::Error::from(errno).to_string())
        }
        _ => Fault::Failed(io::Error::from(errno).to_string()),
    }
}

fn kind(stat: &Stat) -> Kind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Directory,
        FileType::RegularFile => Kind::File,
        _ => Kind::Other,
    }
}

fn version(stat: &Stat) -> Version {
    // What was before 1970 is rare enough to have the same time.
    let seconds = Duration::from_secs(stat.st_mtime.try_into().unwrap_or(0));
    let modified = seconds + Duration::from_nanos(stat.st_mtime_nsec);
    Version { inode: stat.st_ino, bytes: stat.st_size.try_into().unwrap_or(0), modified }
}

impl Source for Directory {
    type Open = OwnedFd;

    fn find(&mut self, path: &[u8]) -> Result<Found<OwnedFd>, Fault> {
        let (file, stat) = self.open_below(path)?;
        match kind(&stat) {
            Kind::Directory => Ok(Found::Directory),
            Kind::File => Ok(Found::File(file, version(&stat))),
            Kind::Other => Err(Fault::Denied),
        }
    }

    fn list(&mut self, path: &[u8]) -> Result<Vec<Entry>, Fault> {
        let (directory, _) = self.open_below(path)?;
        let mut entries = Vec::new();
        for entry in Dir::read_from(directory).map_err(fault)? {
            let entry = entry.map_err(fault)?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let whole = [path, name].join(&b"/"[..]);
            let whole = whole.strip_prefix(b"/").unwrap_or(&whole);
            // What cannot be asked for is not shown.
            let (kind, bytes) = match self.open_below(whole) {
                Ok((_, stat)) => (kind(&stat), version(&stat).bytes),
                Err(Fault::Absent | Fault::Denied) => (Kind::Other, 0),
                Err(other) => return Err(other),
            };
            entries.push(Entry { name: name.to_vec(), kind, bytes });
            if entries.len() > ENTRIES_MAX {
                break;
            }
        }
        Ok(entries)
    }

    fn read(&mut self, file: &OwnedFd, position: u64, into: &mut [u8]) -> Result<usize, Fault> {
        loop {
            match rustix::io::pread(file, &mut *into, position) {
                Err(Errno::INTR) => {}
                other => return other.map_err(fault),
            }
        }
    }

    fn close(&mut self, file: OwnedFd) {
        drop(file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn tree() -> (tempfile::TempDir, Directory) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir_all(root.join("d/e")).unwrap();
        std::fs::write(root.join("d/f"), "content").unwrap();
        std::fs::write(folder.path().join("secret"), "secret").unwrap();
        let directory = Directory::open(&root).unwrap();
        (folder, directory)
    }

    fn found(directory: &mut Directory, path: &str) -> Result<Option<u64>, Fault> {
        Ok(match directory.find(path.as_bytes())? {
            Found::File(_, version) => Some(version.bytes),
            Found::Directory => None,
        })
    }

    #[test]
    fn files_and_directories_are_found() {
        let (_folder, mut directory) = tree();
        assert_eq!(found(&mut directory, ""), Ok(None));
        assert_eq!(found(&mut directory, "d/e"), Ok(None));
        assert_eq!(found(&mut directory, "d/f"), Ok(Some(7)));
        assert_eq!(found(&mut directory, "d/g"), Err(Fault::Absent));
        assert_eq!(found(&mut directory, "d/f/g"), Err(Fault::Absent));
        assert_eq!(found(&mut directory, &"n".repeat(256)), Err(Fault::Absent));
        let Found::File(file, _) = directory.find(b"d/f").unwrap() else { panic!("no file") };
        let mut into = [0; 10];
        assert_eq!(directory.read(&file, 3, &mut into), Ok(4));
        assert_eq!(&into[..4], b"tent");
        assert_eq!(directory.read(&file, 7, &mut into), Ok(0));
    }

    #[test]
    fn nothing_leads_out() {
        let (folder, mut directory) = tree();
        let root = folder.path().join("root");
        symlink("../secret", root.join("up")).unwrap();
        symlink(folder.path(), root.join("absolute")).unwrap();
        symlink("d/f", root.join("inside")).unwrap();
        symlink("../d/../d", root.join("d/back")).unwrap();
        symlink("circle", root.join("circle")).unwrap();
        for path in
            ["../secret", "d/../../secret", "up", "absolute/secret", "/etc/passwd", "circle"]
        {
            assert_eq!(found(&mut directory, path), Err(Fault::Denied), "{path}");
        }
        assert_eq!(found(&mut directory, "inside"), Ok(Some(7)));
        assert_eq!(found(&mut directory, "d/back/f"), Ok(Some(7)));
        let listed = directory.list(b"").unwrap();
        let kind =
            |name: &str| listed.iter().find(|entry| entry.name == name.as_bytes()).unwrap().kind;
        assert_eq!((kind("inside"), kind("d")), (Kind::File, Kind::Directory));
        assert_eq!(
            (kind("up"), kind("absolute"), kind("circle")),
            (Kind::Other, Kind::Other, Kind::Other)
        );
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let (folder, mut directory) = tree();
        let pipe = folder.path().join("root/pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert_eq!(found(&mut directory, "pipe"), Err(Fault::Denied));
    }
}
