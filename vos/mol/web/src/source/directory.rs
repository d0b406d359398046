// SPDX-License-Identifier: MIT OR Apache-2.0
//! A directory of the host.

use super::{Entry, Fault, Found, Kind, Source, ENTRIES_MAX};
use crate::conditions::Version;
use core::time::Duration;
use rustix::fs::{self, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

/// How many symbolic links a path may lead through, as in Linux.
const LINKS_MAX: usize = 40;

/// A directory and what everybody may read below it. No path and no symbolic link leads out of it.
///
/// What the process may do besides does not matter: paths are walked here and not by the kernel, a name at a time, and what decides are the
/// rights of others at what was opened. So it does not matter either what is renamed meanwhile. The directory itself is given by who starts the
/// server, and its own rights are not asked for.
#[derive(Clone, Debug)]
pub struct Directory {
    root: Arc<OwnedFd>,
}

/// Something on the way along a path.
struct Step {
    name: Vec<u8>,
    /// Only to be looked at, or to go on from.
    file: OwnedFd,
    stat: Stat,
}

/// The steps from the root on to what a path leads to.
struct Way<'d> {
    root: &'d OwnedFd,
    steps: Vec<Step>,
}

impl Way<'_> {
    fn at(&self) -> &OwnedFd {
        self.steps.last().map_or(self.root, |step| &step.file)
    }

    /// Whether names may be looked up where it has come to.
    fn check_passable(&self) -> Result<(), Fault> {
        match self.steps.last() {
            Some(step) if kind(&step.stat) != Kind::Directory => Err(Fault::Absent),
            Some(step) if !may(&step.stat, Mode::XOTH) => Err(Fault::Denied),
            _ => Ok(()),
        }
    }

    /// One name further. If that is a symbolic link, the result is where it leads to.
    fn go(&mut self, name: Vec<u8>) -> Result<Option<Vec<u8>>, Fault> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(self.at(), &name[..], flags, Mode::empty()).map_err(fault)?;
        let stat = fs::fstat(&file).map_err(fault)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            let path = fs::readlinkat(&file, c"", Vec::new()).map_err(fault)?;
            return Ok(Some(path.into_bytes()));
        }
        self.steps.push(Step { name, file, stat });
        Ok(None)
    }

    /// What it is where it has come to.
    fn stat(&self) -> Result<Stat, Fault> {
        self.steps.last().map_or_else(|| fs::fstat(self.root).map_err(fault), |step| Ok(step.stat))
    }

    /// Opens it for reading. What is opened is what others may read, even if it is not what it was on the way any more.
    fn open(&self) -> Result<(OwnedFd, Stat), Fault> {
        // What became a pipe would otherwise be waited for.
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let Some((last, before)) = self.steps.split_last() else {
            let root = fs::openat(self.root, c".", flags, Mode::empty()).map_err(fault)?;
            let stat = fs::fstat(&root).map_err(fault)?;
            return Ok((root, stat));
        };
        if !may(&last.stat, Mode::ROTH) {
            return Err(Fault::Denied);
        }
        let above = before.last().map_or(self.root, |step| &step.file);
        let file = fs::openat(above, &last.name[..], flags, Mode::empty()).map_err(fault)?;
        let stat = fs::fstat(&file).map_err(fault)?;
        match may(&stat, Mode::ROTH) {
            true => Ok((file, stat)),
            false => Err(Fault::Denied),
        }
    }
}

/// Whether everybody has this right.
fn may(stat: &Stat, right: Mode) -> bool {
    Mode::from_raw_mode(stat.st_mode).contains(right)
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

    fn walk(&self, path: &[u8]) -> Result<Way<'_>, Fault> {
        let names =
            |path: &[u8]| path.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec).collect();
        if path.starts_with(b"/") {
            return Err(Fault::Denied);
        }
        // What the root is called is nothing.
        let mut rest: Vec<Vec<u8>> = if path.is_empty() { Vec::new() } else { names(path) };
        let mut way = Way { root: &self.root, steps: Vec::new() };
        let mut links = 0;
        while let Some(name) = rest.pop() {
            way.check_passable()?;
            match &name[..] {
                b"" | b"." => {}
                b".." => drop(way.steps.pop().ok_or(Fault::Denied)?),
                _ => {
                    let Some(to) = way.go(name)? else { continue };
                    links += 1;
                    if links > LINKS_MAX || to.starts_with(b"/") {
                        return Err(Fault::Denied);
                    }
                    rest.extend::<Vec<_>>(names(&to));
                }
            }
        }
        Ok(way)
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

    fn find(&mut self, path: &[u8], _: Duration) -> Result<Found<OwnedFd>, Fault> {
        let way = self.walk(path)?;
        match kind(&way.stat()?) {
            Kind::Directory => return Ok(Found::Directory),
            Kind::Other => return Err(Fault::Denied),
            Kind::File => {}
        }
        let (file, stat) = way.open()?;
        match kind(&stat) {
            Kind::Directory => Ok(Found::Directory),
            Kind::File => Ok(Found::File(file, version(&stat))),
            Kind::Other => Err(Fault::Denied),
        }
    }

    fn list(&mut self, path: &[u8], _: Duration) -> Result<Vec<Entry>, Fault> {
        let (directory, _) = self.walk(path)?.open()?;
        let mut names = Vec::new();
        for entry in Dir::read_from(directory).map_err(fault)? {
            let entry = entry.map_err(fault)?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            if names.len() == ENTRIES_MAX {
                return Err(Fault::TooMany);
            }
            names.push(name.to_vec());
        }
        let look = |name: Vec<u8>| {
            let whole = [path, &name].join(&b"/"[..]);
            let whole = whole.strip_prefix(b"/").unwrap_or(&whole);
            // What cannot be asked for is not shown.
            let (kind, bytes) = match self.walk(whole).and_then(|way| way.stat()) {
                Ok(stat) => (kind(&stat), version(&stat).bytes),
                Err(Fault::Absent | Fault::Denied) => (Kind::Other, 0),
                Err(other) => return Err(other),
            };
            Ok(Entry { name, kind, bytes })
        };
        names.into_iter().map(look).collect()
    }

    fn read(
        &mut self,
        file: &OwnedFd,
        position: u64,
        into: &mut [u8],
        _: Duration,
    ) -> Result<usize, Fault> {
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
    use std::os::unix::fs::{symlink, PermissionsExt};

    const LIMIT: Duration = Duration::from_secs(1);

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
        Ok(match directory.find(path.as_bytes(), LIMIT)? {
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
        let Found::File(file, _) = directory.find(b"d/f", LIMIT).unwrap() else {
            panic!("no file")
        };
        let mut into = [0; 10];
        assert_eq!(directory.read(&file, 3, &mut into, LIMIT), Ok(4));
        assert_eq!(&into[..4], b"tent");
        assert_eq!(directory.read(&file, 7, &mut into, LIMIT), Ok(0));
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
        let listed = directory.list(b"", LIMIT).unwrap();
        let kind =
            |name: &str| listed.iter().find(|entry| entry.name == name.as_bytes()).unwrap().kind;
        assert_eq!((kind("inside"), kind("d")), (Kind::File, Kind::Directory));
        assert_eq!(
            (kind("up"), kind("absolute"), kind("circle")),
            (Kind::Other, Kind::Other, Kind::Other)
        );
    }

    fn set_mode(root: &Path, path: &str, mode: u32) {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(root.join(path), permissions).unwrap();
    }

    /// All of this, the process itself may read.
    #[test]
    fn what_is_not_for_everybody_is_not_for_anybody() {
        let (folder, mut directory) = tree();
        let root = folder.path().join("root");
        symlink("d/f", root.join("link")).unwrap();
        for (path, mode) in [("d/f", 0o640), ("d/f", 0o750), ("d", 0o750), ("d", 0o754)] {
            set_mode(&root, path, mode);
            for way in ["d/f", "link", "d/e/../f", "d/../link"] {
                assert_eq!(found(&mut directory, way), Err(Fault::Denied), "{path} {mode:o} {way}");
            }
            set_mode(&root, path, 0o755);
        }
        set_mode(&root, "d", 0o711);
        assert_eq!(found(&mut directory, "d/f"), Ok(Some(7)), "who knows the name may read it");
        assert_eq!(found(&mut directory, "d"), Ok(None));
        assert_eq!(directory.list(b"d", LIMIT), Err(Fault::Denied));
        set_mode(&root, "d", 0o744);
        let listed = directory.list(b"d", LIMIT).unwrap();
        assert!(listed.iter().all(|entry| entry.kind == Kind::Other), "{listed:?}");
        set_mode(&root, "", 0o700);
        assert_eq!(
            directory.list(b"", LIMIT).map(|all| all.len()),
            Ok(2),
            "its own rights are not asked for"
        );
    }

    #[test]
    fn a_path_is_walked_as_linux_does_it() {
        let (folder, mut directory) = tree();
        let root = folder.path().join("root");
        symlink("../f", root.join("d/e/up")).unwrap();
        symlink("e/", root.join("d/slash")).unwrap();
        symlink("f/", root.join("d/no-directory")).unwrap();
        assert_eq!(found(&mut directory, "d/slash/up"), Ok(Some(7)));
        assert_eq!(found(&mut directory, "d/slash"), Ok(None));
        assert_eq!(found(&mut directory, "d/no-directory"), Err(Fault::Absent));
        assert_eq!(found(&mut directory, "d/f/.."), Err(Fault::Absent));
        assert_eq!(found(&mut directory, "."), Ok(None));
        symlink("0", root.join("link0")).unwrap();
        std::fs::write(root.join("0"), "").unwrap();
        for link in 1..=LINKS_MAX {
            symlink(format!("link{}", link - 1), root.join(format!("link{link}"))).unwrap();
        }
        assert_eq!(found(&mut directory, "link39"), Ok(Some(0)));
        assert_eq!(found(&mut directory, "link40"), Err(Fault::Denied));
    }

    #[test]
    fn no_more_names_are_read_than_are_listed() {
        let (folder, mut directory) = tree();
        let many = folder.path().join("root/many");
        std::fs::create_dir(&many).unwrap();
        for name in 0..ENTRIES_MAX {
            symlink("none", many.join(name.to_string())).unwrap();
        }
        assert_eq!(directory.list(b"many", LIMIT).map(|all| all.len()), Ok(ENTRIES_MAX));
        symlink("none", many.join("more")).unwrap();
        assert_eq!(directory.list(b"many", LIMIT), Err(Fault::TooMany));
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let (folder, mut directory) = tree();
        let pipe = folder.path().join("root/pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert_eq!(found(&mut directory, "pipe"), Err(Fault::Denied));
    }
}
