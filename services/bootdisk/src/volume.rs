// SPDX-License-Identifier: MIT OR Apache-2.0
//! The volume that a machine boots from: its slots as files, and what is done to them.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use dvs_slots::install::{Plan, Step, TEMPORARY};
use dvs_slots::record::{self, Record};
use dvs_slots::slots::{Slots, FOLDER};
use rustix::mount::{mount, unmount, MountFlags, UnmountFlags};
use sha2::{Digest, Sha256};

/// Bytes that are kept free for folders, tables and the record.
const SPARE: u64 = 256 << 10;
const CHUNK: usize = 64 << 10;
const INERT: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// Where a volume is.
#[derive(Clone, Debug)]
pub enum Place {
    /// On a block device, mounted at the second path while something is done with it.
    Device(PathBuf, PathBuf),
    /// In a folder that is there already.
    Folder(PathBuf),
}

/// What could not be done.
#[derive(Debug, thiserror::Error)]
#[error("{attempt}: {source}")]
pub struct Error {
    attempt: String,
    source: io::Error,
}

impl Error {
    /// Whether there was no room for something.
    pub fn is_full(&self) -> bool {
        self.source.kind() == io::ErrorKind::StorageFull
    }

    pub(crate) fn when(attempt: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let attempt = attempt.into();
        move |source| Self { attempt, source }
    }
}

impl Place {
    /// Makes the volume accessible for as long as the answer lives.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub fn open(&self, writable: bool) -> Result<Volume, Error> {
        let (device, point) = match self {
            Place::Folder(folder) => return Ok(Volume { root: folder.clone(), mounted: false }),
            Place::Device(device, point) => (device, point),
        };
        let attempt = || Error::when(format!("mount {}", device.display()));
        fs::create_dir_all(point).map_err(attempt())?;
        let flags = if writable { INERT } else { INERT | MountFlags::RDONLY };
        mount(device, point, "vfat", flags, c"umask=0077")
            .map_err(|errno| attempt()(errno.into()))?;
        Ok(Volume { root: point.clone(), mounted: true })
    }
}

/// A volume that can be read and, if it was opened so, written.
#[derive(Debug)]
pub struct Volume {
    root: PathBuf,
    mounted: bool,
}

impl Drop for Volume {
    fn drop(&mut self) {
        if self.mounted {
            if let Err(error) = unmount(&self.root, UnmountFlags::empty()) {
                println!("error: unmount {}: {error}", self.root.display());
            }
        }
    }
}

impl Volume {
    fn folder(&self) -> PathBuf {
        self.root.join(FOLDER)
    }

    /// The images that it has.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn slots(&self) -> Result<Slots, Error> {
        let folder = self.folder();
        let list = || -> io::Result<Vec<String>> {
            let names = fs::read_dir(&folder)?
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
            names.collect()
        };
        let names =
            list().map_err(Error::when(format!("list the images in {}", folder.display())))?;
        Ok(Slots::of_names(names.iter().map(String::as_str)))
    }

    /// What is remembered of images. One that cannot be read is none: nothing depends on it.
    pub fn record(&self) -> Record {
        fs::read_to_string(self.root.join(record::FILE))
            .map(|text| Record::parse(&text))
            .unwrap_or_default()
    }

    /// Keeps a record.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn remember(&self, record: &Record) -> Result<(), Error> {
        let path = self.root.join(record::FILE);
        let new = path.with_extension("new");
        let write = || -> io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(record.to_toml().as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            self.sync()
        };
        write().map_err(Error::when(format!("write {}", path.display())))
    }

    /// Refuses an image of so many bytes for which there would be no room once the steps before it are done.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`], or the volume cannot be asked.
    pub fn check_room(&self, plan: &Plan, bytes: u64) -> Result<(), Error> {
        let room = || -> io::Result<()> {
            let stat = rustix::fs::statvfs(&self.root)?;
            let mut free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let leftover = fs::metadata(self.folder().join(TEMPORARY)).map(|file| file.len());
            free += leftover.unwrap_or(0);
            for step in &plan.steps {
                if let Step::Remove(name) = step {
                    free += fs::metadata(self.folder().join(name))?.len();
                }
            }
            if free < bytes.saturating_add(SPARE) {
                let text = format!("it needs {bytes} bytes, and {SPARE} are to stay free, but only {free} can be had");
                return Err(io::Error::new(io::ErrorKind::StorageFull, text));
            }
            Ok(())
        };
        room().map_err(Error::when("make room for the image on the boot volume"))
    }

    /// Writes an image to the file that the loader does not look at, and reads it back.
    ///
    /// # Errors
    /// When the disk is full or fails, or has something else afterwards.
    pub fn write(&self, image: &[u8]) -> Result<(), Error> {
        let path = self.folder().join(TEMPORARY);
        let write = || -> io::Result<()> {
            let mut file = File::create(&path)?;
            file.write_all(image)?;
            file.sync_all()?;
            // What is read is to come from the disk, not from memory.
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
            if !is_same(&path, image)? {
                let text = "the disk does not give back what was written to it";
                return Err(io::Error::other(text));
            }
            self.sync()
        };
        write().map_err(Error::when(format!("write {}", path.display())))
    }

    /// Does a step that needs no image; it has reached the disk when this returns.
    ///
    /// # Errors
    /// When it fails.
    pub fn carry_out(&self, step: &Step) -> Result<(), Error> {
        let (attempt, done) = match step {
            Step::Write => return Ok(()),
            Step::Remove(name) => {
                (format!("remove the image {name}"), fs::remove_file(self.folder().join(name)))
            }
            Step::Rename { from, to } => (
                format!("rename the image {from} to {to}"),
                fs::rename(self.folder().join(from), self.folder().join(to)),
            ),
        };
        done.and_then(|()| self.sync()).map_err(Error::when(attempt))
    }

    /// Has everything reach the disk.
    fn sync(&self) -> io::Result<()> {
        rustix::fs::syncfs(File::open(&self.root)?)?;
        Ok(())
    }
}

/// The SHA-256 of `bytes`, in hexadecimal digits.
pub fn hash_of(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a file is these bytes, without having it in memory at once.
fn is_same(path: &Path, content: &[u8]) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let (mut left, mut chunk) = (content, vec![0; CHUNK]);
    loop {
        let length = file.read(&mut chunk)?;
        match left.split_at_checked(length) {
            _ if length == 0 => return Ok(left.is_empty()),
            Some((same, rest)) if same == &chunk[..length] => left = rest,
            _ => return Ok(false),
        }
    }
}
