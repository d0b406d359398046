// SPDX-License-Identifier: MIT OR Apache-2.0
//! The volume that a machine boots from: its slots as files, and what is done to them.
//!
//! It is not mounted: Linux gives a file of a FAT volume its new name and its clusters in two writes, and a power cut between them would
//! leave an image without content. Here a change is written in an order of which every part can be booted from ([`Held`]), and what a cut
//! has left is
//! [mended](mend) before the next.

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use dvs_image::held::{Change, Held};
use dvs_image::mend::mend;
use dvs_image::volume;
use dvs_slots::install::{Plan, Step, TEMPORARY};
use dvs_slots::record::{self, Record};
use dvs_slots::slots::{Image, Slots, FOLDER};
use rustix::fs::{Advice, OFlags};
use sha2::{Digest, Sha256};

/// Bytes that are kept free for folders, tables and the record.
const SPARE: u64 = 256 << 10;

/// Where the record is while it is written.
const NEW: &str = "dvs-images.new";
/// Most bytes of a record.
const RECORD_MAX: u64 = 64 << 10;

/// A block device.
pub trait Device: Debug + Read + Write + Seek + Send {
    /// Has everything reach the disk, and reads from there from now on.
    ///
    /// # Errors
    /// When the disk fails.
    fn sync(&mut self) -> io::Result<()>;
}

impl Device for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()?;
        // What is read is to come from the disk, not from memory.
        rustix::fs::fadvise(&*self, 0, None, Advice::DontNeed)?;
        Ok(())
    }
}

/// Where a volume is.
#[derive(Clone, Debug)]
pub enum Place {
    /// On a block device of this path.
    Device(PathBuf),
    /// On one that is open.
    Open(Arc<Mutex<dyn Device>>),
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

    /// For `map_err`: what was attempted, on what.
    pub fn when(attempt: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let attempt = attempt.into();
        move |source| Self { attempt, source }
    }
}

impl Place {
    /// Does something with the volume; if that may write, what a power cut has left there is mended before.
    ///
    /// # Errors
    /// When it cannot be opened or mended, or what `act` says.
    pub fn with<T, E: From<Error>>(
        &self,
        writable: bool,
        act: impl FnOnce(&mut Volume<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let open = |path: &PathBuf| -> io::Result<File> {
            let mut options = File::options();
            // Exclusive: nobody has it mounted meanwhile.
            let flags = if writable { OFlags::EXCL } else { OFlags::empty() };
            options.read(true).write(writable).custom_flags(flags.bits().cast_signed()).open(path)
        };
        match self {
            Place::Open(device) => {
                // Whoever panicked left nothing that is not told by the device itself.
                let mut device = device.lock().unwrap_or_else(PoisonError::into_inner);
                act(&mut Volume::new(&mut *device, writable)?)
            }
            Place::Device(path) => {
                let attempt = format!("open the boot volume {}", path.display());
                let mut device = open(path).map_err(Error::when(attempt))?;
                act(&mut Volume::new(&mut device, writable)?)
            }
        }
    }
}

/// A volume that can be read and, if it was opened so, written.
#[derive(Debug)]
pub struct Volume<'a> {
    device: &'a mut dyn Device,
}

/// The path of a file among the images.
fn image(name: &str) -> String {
    format!("{FOLDER}/{name}")
}

impl<'a> Volume<'a> {
    fn new(device: &'a mut dyn Device, writable: bool) -> Result<Self, Error> {
        let mut device = device;
        let mended = if writable {
            mend(&mut device, |device| device.sync()).map(drop)
        } else {
            // In memory only: what is damaged is to be read no more than what was mended.
            Held::new(&mut device).and_then(|mut held| mend(&mut held, |_| Ok(())).map(drop))
        };
        mended.map_err(Error::when("mend what a power cut has left on the boot volume"))?;
        Ok(Self { device })
    }

    /// Changes something. It has reached the disk when this returns.
    fn change(
        &mut self,
        change: Change,
        act: impl FnOnce(&mut Held<'_, &'a mut dyn Device>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut held = Held::new(&mut self.device)?;
        act(&mut held)?;
        held.commit(change, |device| device.sync())
    }

    /// Removes a file if it is there.
    fn remove(&mut self, path: &str) -> io::Result<()> {
        match self.change(Change::Removal, |held| volume::remove(held, path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// Writes a file, over one of the same path.
    fn put(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        self.remove(path)?;
        self.change(Change::Addition, |held| volume::put(held, volume::File { path, content }))
    }

    /// The images that it has.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn slots(&mut self) -> Result<Slots, Error> {
        let attempt = format!("list the images in {FOLDER} on the boot volume");
        let names = self.read_only(|held| volume::names(held, FOLDER));
        let names = names.map_err(Error::when(attempt))?;
        Ok(Slots::of_names(names.iter().map(String::as_str)))
    }

    /// One of its images.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read_image(&mut self, which: Image) -> Result<Vec<u8>, Error> {
        let path = image(&which.to_string());
        let content = self.read_only(|held| volume::read(held, &path));
        let content =
            content.and_then(|content| content.ok_or_else(|| io::ErrorKind::NotFound.into()));
        content.map_err(Error::when(format!("read {path} on the boot volume")))
    }

    /// Reads something.
    fn read_only<T>(
        &mut self,
        act: impl FnOnce(&mut Held<'_, &'a mut dyn Device>) -> io::Result<T>,
    ) -> io::Result<T> {
        act(&mut Held::new(&mut self.device)?)
    }

    /// What is remembered of images. One that cannot be read is none: nothing depends on it.
    pub fn record(&mut self) -> Record {
        let mut read = |path| {
            let length = self.read_only(|held| volume::length(held, path)).ok().flatten()?;
            // Nothing that nodes have written is longer.
            let is_one = length <= RECORD_MAX;
            let text = is_one.then(|| self.read_only(|held| volume::read(held, path)));
            text.and_then(Result::ok).flatten()
        };
        let text = read(record::FILE).or_else(|| read(NEW)).unwrap_or_default();
        Record::parse(&String::from_utf8_lossy(&text))
    }

    /// Keeps a record.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn remember(&mut self, record: &Record) -> Result<(), Error> {
        let text = record.to_toml();
        let mut write = || -> io::Result<()> {
            // One of the two is whole at any moment.
            self.put(NEW, text.as_bytes())?;
            self.put(record::FILE, text.as_bytes())?;
            self.remove(NEW)
        };
        write().map_err(Error::when(format!("write {} on the boot volume", record::FILE)))
    }

    /// Refuses an image of so many bytes for which there would be no room once the steps before it are done.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`], or the volume cannot be asked.
    pub fn check_room(&mut self, plan: &Plan, bytes: u64) -> Result<(), Error> {
        let mut room = || -> io::Result<()> {
            let mut free = self.read_only(|held| volume::free(held))?;
            let removed = plan.steps.iter().filter_map(|step| match step {
                Step::Remove(name) => Some(name.as_str()),
                _ => None,
            });
            for name in removed.chain([TEMPORARY]) {
                let length = self.read_only(|held| volume::length(held, &image(name)))?;
                free += length.unwrap_or(0);
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
    pub fn write(&mut self, content: &[u8]) -> Result<(), Error> {
        let path = image(TEMPORARY);
        let mut write = || -> io::Result<()> {
            self.put(&path, content)?;
            if !self.read_only(|held| volume::is_same(held, &path, content))? {
                let text = "the disk does not give back what was written to it";
                return Err(io::Error::other(text));
            }
            Ok(())
        };
        write().map_err(Error::when(format!("write {path} on the boot volume")))
    }

    /// Does a step that needs no image; it has reached the disk when this returns.
    ///
    /// # Errors
    /// When it fails.
    pub fn carry_out(&mut self, step: &Step) -> Result<(), Error> {
        let (attempt, done) = match step {
            Step::Write => return Ok(()),
            Step::Remove(name) => (format!("remove the image {name}"), self.remove(&image(name))),
            Step::Rename { from, to } => {
                let rename =
                    |held: &mut Held<'_, _>| volume::rename(held, &image(from), &image(to));
                (format!("rename the image {from} to {to}"), self.change(Change::Renaming, rename))
            }
        };
        done.map_err(Error::when(attempt))
    }
}

/// The SHA-256 of `bytes`, in hexadecimal digits.
pub fn hash_of(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
