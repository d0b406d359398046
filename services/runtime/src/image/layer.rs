// SPDX-License-Identifier: MIT OR Apache-2.0
//! Unpacks the layers of an image over each other (the OCI image specification, "Image Layer Filesystem Changeset").
//!
//! Every path is resolved by the kernel within the root of the image, so that no link and no `..`, in whatever order they come,
//! leads out of it; and no file is written but one that was just made.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{bail, ensure, Context, Result};
use rustix::fs::{
    chownat, fchmod, fchown, fstat, futimens, linkat, mkdirat, mknodat, open, openat, openat2,
    statat, symlinkat, unlinkat, utimensat, AtFlags, Dir, FileType, Gid, Mode, OFlags,
    ResolveFlags, Timespec, Timestamps, Uid,
};
use rustix::io::Errno;

use super::bounds::Left;
use super::entries::{each, Entry, Inner, Kind};

/// A name that begins with this says that what follows was in a layer below and is gone.
const WHITEOUT: &[u8] = b".wh.";

/// This name says that nothing of the directory is left from layers below.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Directories above each other that are removed in one go. Links can make trees deeper than any path is.
const DEPTH_MAX: usize = 1024;

/// A root that layers are unpacked into, from the lowest up.
#[derive(Debug)]
pub(super) struct Target {
    root: OwnedFd,
    /// Whether files get the owners that the image says; only root can give them away.
    owners: bool,
    /// How many devices were left out.
    devices: u64,
    /// What the present layer has made, which whiteouts in it do not concern: directory and name.
    made: HashSet<(u64, OsString)>,
}

impl Target {
    /// An empty directory.
    pub(super) fn at(path: &Path) -> Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let root = open(path, flags, Mode::empty())
            .with_context(|| format!("opening {}", path.display()))?;
        let owners = rustix::process::geteuid().is_root();
        Ok(Self { root, owners, devices: 0, made: HashSet::new() })
    }

    /// How many devices the layers had, none of which was made.
    pub(super) fn devices(&self) -> u64 {
        self.devices
    }

    /// Unpacks one layer, uncompressed.
    ///
    /// # Errors
    /// When it is damaged, too large, or not allowed.
    pub(super) fn unpack(&mut self, layer: impl Read, left: &mut Left) -> Result<()> {
        self.made.clear();
        each(layer, |entry, content| {
            let size = if let Kind::File { size } = entry.kind { size } else { 0 };
            left.take(size)?;
            let path = entry.path.to_path();
            self.put(entry, content).with_context(|| format!("unpacking {}", path.display()))
        })
    }

    fn put(&mut self, entry: Entry, content: &mut dyn Read) -> Result<()> {
        let Some((directory, name)) = entry.path.split() else {
            ensure!(entry.kind == Kind::Directory, "the root can be nothing but a directory");
            return self.adorn(&self.root, &entry);
        };
        let directory = self.directory(&directory)?;
        if name.as_bytes() == OPAQUE {
            return self.clear(&directory);
        }
        if let Some(gone) = name.as_bytes().strip_prefix(WHITEOUT) {
            return self.white_out(&directory, OsStr::from_bytes(gone));
        }
        if entry.kind == Kind::Device {
            self.devices += 1;
            return Ok(());
        }
        self.made.insert((fstat(&directory)?.st_ino, name.to_owned()));
        if entry.kind == Kind::Directory {
            return self.put_directory(&directory, name, &entry);
        }
        // Found before the name is free, or a link to itself would remove what it links to.
        let source = match &entry.kind {
            Kind::Hardlink(target) => Some(self.link_source(target)?),
            _ => None,
        };
        remove(&directory, name, DEPTH_MAX)?;
        match &entry.kind {
            Kind::File { size } => {
                let flags = OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::WRONLY
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let file = openat(&directory, name, flags, Mode::RUSR | Mode::WUSR)?;
                let mut file = File::from(file);
                let copied =
                    io::copy(&mut content.take(*size), &mut file).context("copying its content")?;
                ensure!(copied == *size, "its content ends early");
                self.adorn(&file, &entry)
            }
            Kind::Symlink(target) => {
                symlinkat(target, &directory, name)?;
                self.adorn_at(&directory, name, &entry)
            }
            Kind::Pipe => {
                mknodat(&directory, name, FileType::Fifo, Mode::from_raw_mode(entry.mode), 0)?;
                self.adorn_at(&directory, name, &entry)
            }
            Kind::Hardlink(_) => {
                let (from, old) = source.context("a link leads to nothing")?;
                linkat(from, old, &directory, name, AtFlags::empty())
                    .context("linking it to another file of the image")
            }
            Kind::Directory | Kind::Device => Ok(()),
        }
    }

    fn put_directory(&self, parent: &OwnedFd, name: &OsStr, entry: &Entry) -> Result<()> {
        let is_directory = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
            Err(Errno::NOENT) => false,
            Err(error) => return Err(error.into()),
        };
        if !is_directory {
            remove(parent, name, DEPTH_MAX)?;
            mkdirat(parent, name, Mode::RWXU)?;
        }
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = openat(parent, name, flags, Mode::empty())?;
        self.adorn(&directory, entry)
    }

    /// The directory and the name of the file that a hard link is to lead to.
    fn link_source(&mut self, target: &Inner) -> Result<(OwnedFd, OsString)> {
        let (directory, name) = target.split().context("a link cannot lead to the root")?;
        let directory = self.directory(&directory)?;
        let stat = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW).with_context(|| {
            format!("finding {}, which it links to", target.to_path().display())
        })?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        ensure!(kind != FileType::Directory, "a link cannot lead to a directory");
        Ok((directory, name.to_owned()))
    }

    /// Opens a directory of the image, and makes what is missing of the way to it.
    fn directory(&mut self, path: &Inner) -> Result<OwnedFd> {
        match self.open(path) {
            Err(Errno::NOENT) => {}
            other => {
                return other.with_context(|| format!("entering {}", path.to_path().display()))
            }
        }
        for prefix in path.prefixes() {
            if !matches!(self.open(&prefix), Err(Errno::NOENT)) {
                continue;
            }
            let Some((parent, name)) = prefix.split() else { continue };
            let made = self.open(&parent).and_then(|parent| {
                let mode = Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH;
                mkdirat(&parent, name, mode)?;
                fstat(&parent)
            });
            let made = made.with_context(|| format!("making {}", prefix.to_path().display()))?;
            self.made.insert((made.st_ino, name.to_owned()));
        }
        self.open(path).with_context(|| format!("entering {}", path.to_path().display()))
    }

    fn open(&self, path: &Inner) -> Result<OwnedFd, Errno> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        openat2(&self.root, path.to_path(), flags, Mode::empty(), within)
    }

    /// Removes what layers below have in a directory.
    fn clear(&self, directory: &OwnedFd) -> Result<()> {
        let number = fstat(directory)?.st_ino;
        for name in names(directory)? {
            if !self.made.contains(&(number, name.clone())) {
                remove(directory, &name, DEPTH_MAX)?;
            }
        }
        Ok(())
    }

    fn white_out(&self, directory: &OwnedFd, name: &OsStr) -> Result<()> {
        // Some old tools left notes of their own behind, with a doubled prefix.
        if name.as_bytes().starts_with(WHITEOUT) {
            return Ok(());
        }
        ensure!(
            !matches!(name.as_bytes(), b"" | b"." | b".."),
            "it takes away {name:?}, which cannot be a file"
        );
        if self.made.contains(&(fstat(directory)?.st_ino, name.to_owned())) {
            return Ok(());
        }
        remove(directory, name, DEPTH_MAX)
    }

    /// Owner, mode and time of an open file.
    fn adorn(&self, file: impl std::os::fd::AsFd, entry: &Entry) -> Result<()> {
        if self.owners {
            fchown(&file, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))?;
        }
        // After the owner, whose change takes some bits away.
        fchmod(&file, Mode::from_raw_mode(entry.mode))?;
        futimens(&file, &times(entry.time)).context("setting its time")
    }

    /// The same for what cannot be opened.
    fn adorn_at(&self, directory: &OwnedFd, name: &OsStr, entry: &Entry) -> Result<()> {
        let link = AtFlags::SYMLINK_NOFOLLOW;
        if self.owners {
            let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
            chownat(directory, name, Some(uid), Some(gid), link)?;
        }
        utimensat(directory, name, &times(entry.time), link).context("setting its time")
    }
}

fn times(seconds: u64) -> Timestamps {
    // Beyond what anybody means by a time, there is only the end of time.
    let time = Timespec { tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX), tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

fn names(directory: &OwnedFd) -> Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory).context("listing a directory of the image")? {
        let entry = entry.context("listing a directory of the image")?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(names)
}

/// Removes a file, or a directory with all that is in it, if it is there. No link is followed.
fn remove(directory: &OwnedFd, name: &OsStr, depth: usize) -> Result<()> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error).with_context(|| format!("removing {}", name.display())),
    }
    let Some(depth) = depth.checked_sub(1) else {
        bail!(
            "removing {}: it has more than {DEPTH_MAX} directories above each other",
            name.display()
        );
    };
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let inner = openat(directory, name, flags, Mode::empty())
        .with_context(|| format!("removing {}", name.display()))?;
    for child in names(&inner)? {
        remove(&inner, &child, depth)?;
    }
    unlinkat(directory, name, AtFlags::REMOVEDIR)
        .with_context(|| format!("removing {}", name.display()))
}
