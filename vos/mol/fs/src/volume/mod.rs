// SPDX-License-Identifier: MIT OR Apache-2.0
//! A mounted file system: what can be done with files, by the numbers of their inodes.
//!
//! A volume has no clock: [`Volume::set_time`] says what time it is. It knows no clients either; who keeps an
//! inode in use says so by [`Volume::hold`].

mod content;
mod directory;
mod lookup;
mod map;
mod node;

use crate::bitmap::Bitmap;
use crate::cache::Cache;
use crate::disk::Disk;
use crate::error::Error;
use crate::format::{Layout, SUPERBLOCK_AT, SUPERBLOCK_BYTES};
use node::Node;
use std::collections::HashMap;

pub use self::directory::Listed;
pub use self::node::Status;

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
}

impl<D: Disk> Volume<D> {
    /// Mounts the file system on `disk`.
    ///
    /// # Errors
    /// There is none of a known kind, or the disk failed.
    pub fn mount(mut disk: D, options: Options) -> Result<Self, Error> {
        let layout = read_layout(&mut disk)?;
        let block_bytes = layout.block_bytes;
        let inode_map = Bitmap::read(&mut disk, layout.inode_map_at(), block_bytes, layout.inodes)?;
        let zone_map =
            Bitmap::read(&mut disk, layout.zone_map_at(), block_bytes, layout.data_zones())?;
        let capacity = options.cache_bytes / block_bytes as usize;
        Ok(Self {
            cache: Cache::new(disk, block_bytes, capacity),
            layout,
            inode_map,
            zone_map,
            nodes: HashMap::new(),
            nodes_limit: node::KEPT,
            now: 0,
        })
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
            blocks_free: self.zone_map.free(),
            inodes: self.layout.inodes,
            inodes_free: self.inode_map.free(),
        }
    }

    /// Gives back the disk.
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
