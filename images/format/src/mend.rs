// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a power cut leaves of a FAT32 volume, and how it becomes a sound one again.
//!
//! A name may be left without the clusters of its file, or two names with the same ones: whoever removes or overwrites one of them damages
//! the
//! other. Clusters may be left in use that no file has: the volume gets smaller each time. Other systems' programs for that (`fsck.fat`)
//! are none
//! of a node's.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::fat32::{Layout, BAD, CELL, ENTRY, FIRST, MASK, REMOVED, SECTOR};

/// Attributes of a part of a long name.
const LONG: u8 = 0x0f;
const LABEL: u8 = 0x08;
const FOLDER: u8 = 0x10;
/// Of the sector that counts: where the number of free clusters is, all ones where nobody knows.
const FREE: usize = 488;

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mended {
    /// Names that were removed, because they had no file.
    pub names: usize,
    /// Clusters that were in use for nothing.
    pub clusters: usize,
}

/// A file or folder as a folder has it.
#[derive(Clone, Debug)]
struct Entry {
    /// Where its parts are, in bytes from the beginning of the volume.
    parts: Vec<u64>,
    /// UEFI programs have the first claim on clusters.
    is_program: bool,
    is_folder: bool,
    first: u32,
    bytes: u32,
}

struct Mending<'a, D> {
    disk: &'a mut D,
    layout: Layout,
    table: Vec<u32>,
    owned: Vec<bool>,
}

/// Makes a volume sound. What `barrier` is called after has reached the disk when it returns; names go first, so that a power cut in the
/// middle
/// leaves what can be mended the next time.
///
/// # Errors
/// When it is no FAT32 volume, its folders are damaged, or the disk fails.
pub fn mend<D: Read + Write + Seek>(
    disk: &mut D,
    mut barrier: impl FnMut(&mut D) -> io::Result<()>,
) -> io::Result<Mended> {
    let layout = Layout::read(disk)?;
    let table = layout.table(disk)?;
    let owned = vec![false; table.len()];
    let mut mending = Mending { disk, layout, table, owned };
    let mut files = mending.walk()?;
    files.sort_by_key(|file| !file.is_program);
    let mut mended = Mended::default();
    for file in files {
        if mending.claim(file.first, file.bytes).is_none() {
            mending.remove(&file)?;
            mended.names += 1;
        }
    }
    if mended.names > 0 {
        barrier(mending.disk)?;
    }
    mended.clusters = mending.release();
    if mending.write_tables()? {
        barrier(mending.disk)?;
    }
    Ok(mended)
}

impl<D: Read + Write + Seek> Mending<'_, D> {
    /// Claims the clusters of all folders; the files in them.
    fn walk(&mut self) -> io::Result<Vec<Entry>> {
        let (mut files, mut open) = (Vec::new(), vec![self.layout.root]);
        while let Some(folder) = open.pop() {
            let damaged = || {
                io::Error::other("a folder of the volume is damaged: make the disk anew, by `dvsctl node install --wipe`")
            };
            let chain = self.claim(folder, 1).ok_or_else(damaged)?;
            for entry in self.entries(&chain)? {
                match entry.is_folder {
                    true => open.push(entry.first),
                    false => files.push(entry),
                }
            }
        }
        Ok(files)
    }

    /// The clusters from `first` on, as many as so many bytes take at least, which nobody else has and are in use; they are claimed then.
    fn claim(&mut self, first: u32, bytes: u32) -> Option<Vec<u32>> {
        let mut chain = Vec::new();
        let mut cluster = first;
        // No bytes take no cluster, which is written as a 0.
        while !(bytes == 0 && first == 0) && cluster <= MASK && cluster < BAD {
            let owned = self.owned.get_mut(cluster as usize).filter(|_| cluster >= FIRST);
            let next = self.table.get(cluster as usize).map_or(0, |cell| cell & MASK);
            let is_ours = owned.filter(|owned| !**owned && next != 0);
            let Some(owned) = is_ours else {
                chain.iter().for_each(|cluster: &u32| self.owned[*cluster as usize] = false);
                return None;
            };
            *owned = true;
            chain.push(cluster);
            cluster = next;
        }
        let length = u64::from(self.layout.per_cluster) * SECTOR as u64;
        let is_whole = cluster != BAD && chain.len() as u64 >= u64::from(bytes).div_ceil(length);
        if !is_whole {
            chain.iter().for_each(|cluster| self.owned[*cluster as usize] = false);
        }
        is_whole.then_some(chain)
    }

    /// The entries of a folder that has these clusters, but for itself and the one above.
    fn entries(&mut self, chain: &[u32]) -> io::Result<Vec<Entry>> {
        let (mut found, mut parts) = (Vec::new(), Vec::new());
        for sector in chain.iter().flat_map(|cluster| self.layout.sectors(*cluster)) {
            let mut bytes = [0; SECTOR];
            let begin = sector * SECTOR as u64;
            self.disk.seek(SeekFrom::Start(begin))?;
            self.disk.read_exact(&mut bytes)?;
            for (number, entry) in bytes.chunks_exact(ENTRY).enumerate() {
                match (entry[0], entry[11]) {
                    (0, _) => return Ok(found),
                    (REMOVED, _) => {
                        parts.clear();
                        continue;
                    }
                    _ => parts.push(begin + (number * ENTRY) as u64),
                }
                let attributes = entry[11];
                if attributes & 0x3f == LONG {
                    continue;
                }
                let parts = std::mem::take(&mut parts);
                if attributes & LABEL != 0 || entry[0] == b'.' {
                    continue;
                }
                let short = |at: usize| u32::from(u16::from_le_bytes([entry[at], entry[at + 1]]));
                found.push(Entry {
                    parts,
                    is_program: &entry[8..11] == b"EFI",
                    is_folder: attributes & FOLDER != 0,
                    first: (short(26) | short(20) << 16) & MASK,
                    bytes: short(28) | short(30) << 16,
                });
            }
        }
        Ok(found)
    }

    fn remove(&mut self, entry: &Entry) -> io::Result<()> {
        for part in &entry.parts {
            self.disk.seek(SeekFrom::Start(*part))?;
            self.disk.write_all(&[REMOVED])?;
        }
        Ok(())
    }

    /// Gives back what nobody has; how many clusters that are.
    fn release(&mut self) -> usize {
        let mut count = 0;
        for (cell, owned) in self.table.iter_mut().zip(&self.owned).skip(FIRST as usize) {
            if ![0, BAD].contains(&(*cell & MASK)) && !owned {
                *cell &= !MASK;
                count += 1;
            }
        }
        count
    }

    /// Writes all tables, and how much is free, where they differ from what is so; whether they did.
    fn write_tables(&mut self) -> io::Result<bool> {
        let mut wanted = BTreeMap::new();
        for copy in 0..self.layout.copies {
            let begin = u64::from(self.layout.tables + copy * self.layout.table);
            for (number, cells) in self.table.chunks(SECTOR / CELL).enumerate() {
                let bytes: Vec<_> = cells.iter().flat_map(|cell| cell.to_le_bytes()).collect();
                wanted.insert(begin + number as u64, (0, bytes));
            }
        }
        let free = self.table.iter().skip(FIRST as usize).filter(|cell| *cell & MASK == 0).count();
        let free = u32::try_from(free).unwrap_or(u32::MAX).to_le_bytes();
        wanted.insert(u64::from(self.layout.info), (FREE, free.to_vec()));
        let mut differs = false;
        for (sector, (at, bytes)) in wanted {
            let at_free = at == FREE;
            let at = SeekFrom::Start(sector * SECTOR as u64 + at as u64);
            let mut there = vec![0; bytes.len()];
            self.disk.seek(at)?;
            self.disk.read_exact(&mut there)?;
            let is_unknown = at_free && there == [0xff; 4];
            if there != bytes && !is_unknown {
                self.disk.seek(at)?;
                self.disk.write_all(&bytes)?;
                differs = true;
            }
        }
        Ok(differs)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::volume::{self, File, Kind, BOOT_LABEL};

    const FILES: [File<'_>; 3] = [
        File { path: "EFI/Linux/dvs.new", content: &[1; 5000] },
        File { path: "EFI/Linux/dvs-2+3.efi", content: &[2; 7000] },
        File { path: "dvs.toml", content: b"[node]\n" },
    ];

    type Disk = Cursor<Vec<u8>>;

    fn disk() -> Disk {
        Cursor::new(volume::build(68 << 20, Kind::Fat32, BOOT_LABEL, &FILES).unwrap())
    }

    fn mended(disk: &mut Disk) -> Mended {
        mend(disk, |_| Ok(())).unwrap()
    }

    /// The entry of the file whose content begins with these bytes, and where its number of its first cluster is in the volume.
    fn entry(disk: &Disk, content: &[u8]) -> usize {
        let at = volume::position(disk.get_ref(), content).unwrap();
        let layout = Layout::read(&mut disk.clone()).unwrap();
        let cluster = layout.cluster_at((at / SECTOR) as u64).unwrap() as u16;
        let bytes = disk.get_ref();
        let is_it = |entry: &usize| {
            bytes[entry + 26..entry + 28] == cluster.to_le_bytes()
                && bytes[*entry] != REMOVED
                && bytes[entry + 28..entry + 32] == (content.len() as u32).to_le_bytes()
        };
        (0..bytes.len()).step_by(ENTRY).find(is_it).unwrap()
    }

    #[test]
    fn a_sound_volume_stays_as_it_is() {
        let mut disk = disk();
        let before = disk.get_ref().clone();
        assert_eq!(mended(&mut disk), Mended::default());
        assert!(*disk.get_ref() == before);
    }

    #[test]
    fn clusters_that_nobody_has_are_given_back() {
        let mut disk = disk();
        let free = volume::free(&mut disk).unwrap();
        let at = entry(&disk, FILES[0].content);
        // The name goes, with its first byte, and the clusters stay.
        disk.get_mut()[at] = REMOVED;
        assert_eq!(mended(&mut disk), Mended { names: 0, clusters: 5 });
        assert_eq!(volume::free(&mut disk).unwrap(), free + 5 * 1024);
        assert_eq!(mended(&mut disk), Mended::default());
    }

    #[test]
    fn a_name_without_clusters_goes() {
        let mut disk = disk();
        let at = entry(&disk, FILES[0].content);
        let layout = Layout::read(&mut disk).unwrap();
        let cluster = u16::from_le_bytes([disk.get_ref()[at + 26], disk.get_ref()[at + 27]]);
        let cell = layout.tables as usize * SECTOR + usize::from(cluster) * CELL;
        disk.get_mut()[cell..cell + 4].fill(0);
        assert_eq!(mended(&mut disk), Mended { names: 1, clusters: 4 });
        assert_eq!(volume::names(&mut disk, "EFI/Linux").unwrap(), ["dvs-2+3.efi"]);
        // The other table has it as well now.
        let copy = cell + layout.table as usize * SECTOR;
        assert_eq!(disk.get_ref()[copy..copy + 4], [0; 4]);
        assert_eq!(mended(&mut disk), Mended::default());
    }

    #[test]
    fn of_two_names_with_the_same_clusters_a_program_keeps_them() {
        let mut disk = disk();
        let (new, image) = (entry(&disk, FILES[0].content), entry(&disk, FILES[1].content));
        assert!(new < image);
        disk.get_mut().copy_within(image + 26..image + 32, new + 26);
        assert_eq!(mended(&mut disk), Mended { names: 1, clusters: 5 });
        let path = FILES[1].path;
        assert_eq!(volume::read(&mut disk, path).unwrap().unwrap(), FILES[1].content);
        assert_eq!(volume::names(&mut disk, "EFI/Linux").unwrap(), ["dvs-2+3.efi"]);
    }

    #[test]
    fn a_file_that_is_shorter_than_it_says_goes() {
        let mut disk = disk();
        let image = entry(&disk, FILES[1].content);
        disk.get_mut()[image + 28..image + 32].copy_from_slice(&7169_u32.to_le_bytes());
        assert_eq!(mended(&mut disk), Mended { names: 1, clusters: 7 });
    }

    #[test]
    fn what_cannot_be_mended_is_left_alone() {
        let mut disk = disk();
        let layout = Layout::read(&mut disk).unwrap();
        let cell = layout.tables as usize * SECTOR + layout.root as usize * CELL;
        disk.get_mut()[cell..cell + 4].fill(0);
        let before = disk.get_ref().clone();
        let error = mend(&mut disk, |_| Ok(())).unwrap_err().to_string();
        assert!(error.contains("a folder of the volume is damaged"), "{error}");
        assert!(*disk.get_ref() == before);
        let small = volume::build(4 << 20, Kind::Fitting, BOOT_LABEL, &FILES).unwrap();
        let error = mend(&mut Cursor::new(small), |_| Ok(())).unwrap_err().to_string();
        assert!(error.contains("no FAT32 volume"), "{error}");
    }
}
