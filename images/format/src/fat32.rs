// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where things are on a FAT32 volume (Microsoft's "FAT: General Overview of On-Disk Format", 1.03).

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

/// Bytes of a sector.
pub(crate) const SECTOR: usize = 512;
/// Bytes of an entry of a folder.
pub(crate) const ENTRY: usize = 32;
/// The first byte of an entry that is none any more.
pub(crate) const REMOVED: u8 = 0xe5;
/// Bytes of an entry of the table.
pub(crate) const CELL: usize = 4;
/// Four bits of an entry are nobody's, and stay as they are.
pub(crate) const MASK: u32 = 0x0fff_ffff;
/// The first cluster that there is.
pub(crate) const FIRST: u32 = 2;
/// Says of a cluster that it cannot be used.
pub(crate) const BAD: u32 = 0x0fff_fff7;

/// Where things are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// Sectors of a cluster.
    pub(crate) per_cluster: u32,
    /// The sector at which the first table begins.
    pub(crate) tables: u32,
    /// How many there are.
    pub(crate) copies: u32,
    /// Sectors of each.
    pub(crate) table: u32,
    /// The sector that counts what is free.
    pub(crate) info: u32,
    /// The first cluster of the root folder.
    pub(crate) root: u32,
    /// All sectors.
    total: u32,
}

impl Layout {
    /// That of the volume on `disk`.
    pub(crate) fn read(disk: &mut (impl Read + Seek)) -> io::Result<Self> {
        let mut sector = [0; SECTOR];
        disk.seek(SeekFrom::Start(0))?;
        disk.read_exact(&mut sector)?;
        let short = |at: usize| u32::from(u16::from_le_bytes([sector[at], sector[at + 1]]));
        let long = |at: usize| short(at) | short(at + 2) << 16;
        let layout = Self {
            per_cluster: sector[13].into(),
            tables: short(14),
            copies: sector[16].into(),
            table: long(36),
            info: short(48),
            root: long(44),
            total: long(32),
        };
        let is_ours = sector[510..] == [0x55, 0xaa] && &sector[82..87] == b"FAT32";
        let is_fat32 = short(17) == 0 && short(19) == 0 && short(22) == 0;
        // With mirroring off, one of the tables is stale.
        let is_mirrored = short(40) & 0x80 == 0;
        let is_sound = short(11) as usize == SECTOR
            && layout.per_cluster.is_power_of_two()
            && layout.copies > 0
            && (1..layout.tables).contains(&layout.info)
            && is_fat32
            && is_mirrored;
        let fits = layout.first_data() < u64::from(layout.total)
            && u64::from(layout.table) * (SECTOR / CELL) as u64 >= u64::from(layout.end());
        if !(is_ours && is_sound && fits) {
            return Err(io::Error::other("it is no FAT32 volume with sectors of 512 bytes"));
        }
        Ok(layout)
    }

    fn first_data(&self) -> u64 {
        u64::from(self.tables) + u64::from(self.copies) * u64::from(self.table)
    }

    /// Bytes of the volume.
    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.total) * SECTOR as u64
    }

    /// One more than the last cluster.
    pub(crate) fn end(&self) -> u32 {
        let sectors = u64::from(self.total).saturating_sub(self.first_data());
        let clusters = sectors / u64::from(self.per_cluster);
        u32::try_from(clusters).unwrap_or(u32::MAX).saturating_add(FIRST)
    }

    /// The sectors of a cluster.
    pub(crate) fn sectors(&self, cluster: u32) -> Range<u64> {
        let begin = self.first_data() + u64::from(cluster - FIRST) * u64::from(self.per_cluster);
        begin..begin + u64::from(self.per_cluster)
    }

    /// The cluster that a sector belongs to; `None` for one before all clusters.
    pub(crate) fn cluster_at(&self, sector: u64) -> Option<u32> {
        let behind = sector.checked_sub(self.first_data())?;
        u32::try_from(behind / u64::from(self.per_cluster)).ok()?.checked_add(FIRST)
    }

    /// The first table as it is, by cluster, up to [`end`](Self::end).
    pub(crate) fn table(&self, disk: &mut (impl Read + Seek)) -> io::Result<Vec<u32>> {
        let mut bytes = vec![0; self.end() as usize * CELL];
        disk.seek(SeekFrom::Start(u64::from(self.tables) * SECTOR as u64))?;
        disk.read_exact(&mut bytes)?;
        let cells = bytes.chunks_exact(CELL);
        Ok(cells.map(|cell| u32::from_le_bytes([cell[0], cell[1], cell[2], cell[3]])).collect())
    }
}
