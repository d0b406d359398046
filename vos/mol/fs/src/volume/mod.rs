// SPDX-License-Identifier: MIT OR Apache-2.0
//! A mounted file system: what can be done with files, by the numbers of their inodes.
//!
//! Changes are made in memory, and written by [`Volume::sync`] or when memory is short, always in an order in which a
//! power cut does no harm; see the module `commit`. A volume has no clock: [`Volume::set_time`] says what time it is. It knows no clients either; who keeps an
//! inode in use says so by [`Volume::hold`].

mod allocate;
mod attributes;
mod batch;
mod check;
mod commit;
mod content;
mod directory;
mod lookup;
mod map;
mod names;
mod node;
mod rename;
mod user;

use crate::bitmap::Bitmap;
use crate::cache::Cache;
use crate::disk::Disk;
use crate::error::Error;
use crate::format::{Layout, Version, SUPERBLOCK_AT, SUPERBLOCK_BYTES};
use batch::Batch;
use mol_protocol::Errno;
use node::Node;
use std::collections::HashMap;

pub use self::check::Report;
pub use self::directory::Listed;
pub use self::names::New;
pub use self::node::Status;
pub use self::user::User;

/// How a file system is mounted.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Nothing is changed.
    pub read_only: bool,
    /// How many bytes of blocks are kept in memory.
    pub cache_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { read_only: false, cache_bytes: 16 << 20 }
    }
}

/// What a file system is, for `statvfs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Blocks for data, and for what leads to them.
    pub blocks: u32,
    /// How many of them are free.
    pub blocks_free: u32,
    /// Inodes.
    pub inodes: u32,
    /// How many of them are free.
    pub inodes_free: u32,
}

/// What may become of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// It is changed.
    Writable,
    /// It was mounted to be read only.
    ReadOnly,
    /// Writing failed, so what is on the disk is in doubt.
    Failed,
}

/// A mounted file system.
pub struct Volume<D> {
    layout: Layout,
    cache: Cache<D>,
    inode_map: Bitmap,
    zone_map: Bitmap,
    nodes: HashMap<u32, Node>,
    /// How many nodes there may be before those that nobody needs are forgotten.
    nodes_limit: usize,
    now: u32,
    mode: Mode,
    batch: Batch,
    /// Whether the disk says that the file system is unmounted.
    clean: bool,
}

impl<D: Disk> Volume<D> {
    /// Mounts the file system on `disk`. If it is to be changed and was not unmounted properly, it is
    /// [checked](Self::check) and cleared up first.
    ///
    /// # Errors
    /// There is none of a known kind, it is damaged, or the disk failed. `EROFS` if it is to be changed, and the
    /// disk is read-only or the format is one that is not written.
    pub fn mount(mut disk: D, options: Options) -> Result<Self, Error> {
        let layout = read_layout(&mut disk)?;
        if !options.read_only && (layout.version != Version::V3 || disk.is_read_only()) {
            return Err(Errno::ReadOnly.into());
        }
        let block_bytes = layout.block_bytes;
        let inode_map = Bitmap::read(&mut disk, layout.inode_map_at(), block_bytes, layout.inodes)?;
        let zone_map =
            Bitmap::read(&mut disk, layout.zone_map_at(), block_bytes, layout.data_zones())?;
        let capacity = options.cache_bytes / block_bytes as usize;
        let mut volume = Self {
            cache: Cache::new(disk, block_bytes, capacity),
            clean: layout.clean,
            layout,
            inode_map,
            zone_map,
            nodes: HashMap::new(),
            nodes_limit: node::KEPT,
            now: 0,
            mode: if options.read_only { Mode::ReadOnly } else { Mode::Writable },
            batch: Batch::default(),
        };
        if !options.read_only && !volume.clean {
            let report = volume.check()?;
            volume.clear_up(&report)?;
        }
        volume.check_directory(crate::format::ROOT)?;
        Ok(volume)
    }

    /// Whether nothing can be changed because it was mounted so.
    pub fn is_read_only(&self) -> bool {
        self.mode == Mode::ReadOnly
    }

    /// What comes before every change: whether there may be one, and memory for it.
    fn begin_change(&mut self) -> Result<(), Error> {
        match self.mode {
            Mode::Writable => self.make_headroom(),
            Mode::ReadOnly => Err(Errno::ReadOnly.into()),
            Mode::Failed => Err(Error::Failed),
        }
    }

    /// Says what time it is, in seconds since 1970.
    pub fn set_time(&mut self, now: u32) {
        self.now = now;
    }

    /// Where everything is on the disk.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// How much there is and how much is free.
    pub fn usage(&self) -> Usage {
        Usage {
            blocks: self.layout.data_zones(),
            blocks_free: self.zone_map.free() + self.batch.freed_zones.len() as u32,
            inodes: self.layout.inodes,
            inodes_free: self.inode_map.free() + self.batch.freed_inodes.len() as u32,
        }
    }

    /// Gives back the disk without writing anything, as a power cut would.
    pub fn into_disk(self) -> D {
        self.cache.into_disk()
    }
}

fn read_layout(disk: &mut impl Disk) -> Result<Layout, Error> {
    let disk_bytes = disk.bytes();
    if disk_bytes < SUPERBLOCK_AT + SUPERBLOCK_BYTES as u64 {
        return Err(crate::format::NotMinix::NoRoom(disk_bytes).into());
    }
    let mut superblock = [0; SUPERBLOCK_BYTES];
    disk.read(SUPERBLOCK_AT, &mut superblock)?;
    Ok(Layout::decode(&superblock, disk_bytes)?)
}
