// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mounting and unmounting.

use super::{Happened, MountId, News, OpenError, Outside, Server};
use crate::disk::Disk;
use crate::error::Error;
use crate::volume::{Options, Volume};
use mol_protocol::file::{FileSystem, MOUNT_READ_ONLY};
use mol_protocol::Errno;
use std::collections::HashSet;

/// How many different failures of a mount are told.
const FAILURES_MAX: usize = 64;

/// A file system that clients can reach.
pub(super) struct Mount {
    pub(super) label: String,
    pub(super) volume: Volume<Box<dyn Disk>>,
    /// What people were told of.
    told: HashSet<String>,
}

impl Mount {
    /// Whether people should be told of a failure: not of what clients do wrong, and of nothing twice.
    pub(super) fn is_new(&mut self, error: &Error) -> bool {
        !matches!(error, Error::Refused(_))
            && self.told.len() < FAILURES_MAX
            && self.told.insert(error.to_string())
    }
}

impl<O: Outside> Server<O> {
    /// Mounts the file system on the disk of this name.
    ///
    /// # Errors
    /// As [`FileServer::mount`](mol_protocol::file::FileServer::mount), and those of opening the disk. People are told
    /// more in [the news](Self::take_news).
    pub fn mount_label(&mut self, label: &str, read_only: bool) -> Result<FileSystem, Errno> {
        if self.mount_of(label).is_some() {
            return Err(Errno::Busy);
        }
        match self.try_mount(label, read_only) {
            Ok(volume) => {
                self.next_mount += 1;
                let id = self.next_mount;
                let (label, told) = (label.to_owned(), HashSet::new());
                self.tell(&label, Happened::Mounted);
                self.mounts.insert(id, Mount { label, volume, told });
                self.describe_mount(id)
            }
            Err((what, errno)) => {
                self.tell(label, what);
                Err(errno)
            }
        }
    }

    fn try_mount(
        &mut self,
        label: &str,
        read_only: bool,
    ) -> Result<Volume<Box<dyn Disk>>, (Happened, Errno)> {
        let opened = self.outside.open(label, read_only);
        let disk = opened.map_err(|error: OpenError| {
            let errno = error.errno;
            (Happened::NoDisk(error), errno)
        })?;
        let options = Options { read_only, cache_bytes: self.cache_bytes };
        Volume::mount(disk, options).map_err(|error| {
            // What cannot be mounted is no file system to who asks, but for a disk that fails.
            let errno = match &error {
                Error::Damaged(_) => Errno::NotFileSystem,
                other => other.errno(),
            };
            (Happened::Failed(error), errno)
        })
    }

    fn tell(&mut self, label: &str, what: Happened) {
        self.news.push(News { label: label.to_owned(), what });
    }

    /// The mount of this name; of the empty one, the first.
    pub(super) fn mount_of(&self, label: &str) -> Option<MountId> {
        let mut all = self.mounts.iter();
        all.find(|(_, mount)| label.is_empty() || mount.label == label).map(|(id, _)| *id)
    }

    /// Unmounts what nobody uses.
    pub(super) fn unmount_label(&mut self, label: &str) -> Result<(), Errno> {
        let id = self.mount_of(label).ok_or(Errno::NoEntry)?;
        self.forget_dead();
        if self.nodes.has_any(id) {
            return Err(Errno::Busy);
        }
        self.unmount_id(id)
    }

    pub(super) fn unmount_id(&mut self, id: MountId) -> Result<(), Errno> {
        let Some(Mount { label, volume, .. }) = self.mounts.remove(&id) else { return Ok(()) };
        match volume.unmount() {
            Ok(_) => {
                self.tell(&label, Happened::Unmounted);
                Ok(())
            }
            Err((_, error)) => {
                let errno = error.errno();
                self.tell(&label, Happened::GivenUp(error));
                Err(errno)
            }
        }
    }

    /// What a file system is.
    pub(super) fn describe_mount(&mut self, id: MountId) -> Result<FileSystem, Errno> {
        let volume = &self.mounts.get(&id).ok_or(Errno::Stale)?.volume;
        let (layout, usage) = (volume.layout(), volume.usage());
        Ok(FileSystem {
            block_bytes: layout.block_bytes,
            name_max: layout.name_bytes as u16,
            version: layout.version as u16,
            blocks: usage.blocks.into(),
            blocks_free: usage.blocks_free.into(),
            inodes: usage.inodes,
            inodes_free: usage.inodes_free,
            file_max: layout.file_max.into(),
            flags: if volume.is_read_only() { MOUNT_READ_ONLY } else { 0 },
        })
    }
}
