// SPDX-License-Identifier: MIT OR Apache-2.0
//! Changes of a FAT32 volume that a power cut does not leave half done: they are held back, and then written in an order of which every
//! part is a
//! sound volume, but for space that nobody uses. [`mend`](crate::mend) gives that back.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::fat32::{Layout, ENTRY, MASK, REMOVED, SECTOR};

/// How many sectors are written at a time.
const RUN: usize = 256;

/// What a change is, which says what of it is written first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A file comes: its content, then the tables, then its name.
    Addition,
    /// A file goes: its name, then the tables.
    Removal,
    /// A file has another name. Where both names are in one sector, they change at once. Firmware puts names where there is room, so
    /// they may be in several: then the file has both in between.
    Renaming,
}

/// A volume whose changes are in memory until they are [committed](Self::commit).
#[derive(Debug)]
pub struct Held<'a, D> {
    disk: &'a mut D,
    layout: Layout,
    at: u64,
    sectors: BTreeMap<u64, [u8; SECTOR]>,
}

impl<'a, D: Read + Seek> Held<'a, D> {
    /// A volume as it is.
    ///
    /// # Errors
    /// When it is no FAT32 volume, or cannot be read.
    pub fn new(disk: &'a mut D) -> io::Result<Self> {
        let layout = Layout::read(disk)?;
        Ok(Self { disk, layout, at: 0, sectors: BTreeMap::new() })
    }

    fn sector(&mut self, number: u64) -> io::Result<[u8; SECTOR]> {
        match self.sectors.get(&number) {
            Some(sector) => Ok(*sector),
            None => read_sector(self.disk, number),
        }
    }
}

fn read_sector(disk: &mut (impl Read + Seek), number: u64) -> io::Result<[u8; SECTOR]> {
    let mut sector = [0; SECTOR];
    disk.seek(SeekFrom::Start(number * SECTOR as u64))?;
    disk.read_exact(&mut sector)?;
    Ok(sector)
}

impl<D: Read + Write + Seek> Held<'_, D> {
    /// Writes the changes. What `barrier` is called after has reached the disk when it returns.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn commit(
        self,
        change: Change,
        mut barrier: impl FnMut(&mut D) -> io::Result<()>,
    ) -> io::Result<()> {
        let Self { disk, layout, sectors, .. } = self;
        // Which clusters are in use before.
        let table = layout.table(disk)?;
        let mut stages = [const { Vec::new() }; 3];
        for (number, sector) in sectors {
            let was_used = layout
                .cluster_at(number)
                .map(|cluster| table.get(cluster as usize).is_some_and(|cell| cell & MASK != 0));
            if was_used != Some(false) && read_sector(disk, number)? == sector {
                continue;
            }
            let stage = match (change, was_used) {
                (_, None) => 1,
                (Change::Removal, Some(true))
                | (Change::Addition | Change::Renaming, Some(false)) => 0,
                (Change::Removal, Some(false))
                | (Change::Addition | Change::Renaming, Some(true)) => 2,
            };
            stages[stage].push((number, sector));
        }
        let [.., names] = &mut stages;
        let (mut come, mut go) = (Vec::new(), Vec::new());
        if change == Change::Renaming && names.len() > 1 {
            for (number, after) in std::mem::take(names) {
                let before = read_sector(disk, number)?;
                let both = with_both(&before, &after);
                come.extend((both != before).then_some((number, both)));
                go.extend((both != after).then_some((number, after)));
            }
            // The parts of a long name come before the name that they belong to, and go after it: alone they mean nothing.
            go.reverse();
        }
        for stage in stages.into_iter().filter(|stage| !stage.is_empty()) {
            // Neighbours together: an image has tens of thousands.
            for run in stage.chunk_by(|one, next| one.0 + 1 == next.0) {
                for part in run.chunks(RUN) {
                    let bytes: Vec<u8> = part.iter().flat_map(|(_, sector)| *sector).collect();
                    disk.seek(SeekFrom::Start(part[0].0 * SECTOR as u64))?;
                    disk.write_all(&bytes)?;
                }
            }
            barrier(disk)?;
        }
        for (number, sector) in come.into_iter().chain(go) {
            disk.seek(SeekFrom::Start(number * SECTOR as u64))?;
            disk.write_all(&sector)?;
            barrier(disk)?;
        }
        Ok(())
    }
}

/// A sector of a folder with the names that it has after a change, and those that it had before it.
fn with_both(before: &[u8; SECTOR], after: &[u8; SECTOR]) -> [u8; SECTOR] {
    let mut both = *after;
    for (both, before) in both.chunks_exact_mut(ENTRY).zip(before.chunks_exact(ENTRY)) {
        if both[0] == REMOVED {
            both.copy_from_slice(before);
        }
    }
    both
}

impl<D: Read + Seek> Read for Held<'_, D> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.layout.bytes() {
            return Ok(0);
        }
        let (number, offset) = (self.at / SECTOR as u64, (self.at % SECTOR as u64) as usize);
        let sector = self.sector(number)?;
        let length = buffer.len().min(SECTOR - offset);
        buffer[..length].copy_from_slice(&sector[offset..offset + length]);
        self.at += length as u64;
        Ok(length)
    }
}

impl<D: Read + Seek> Write for Held<'_, D> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if self.at >= self.layout.bytes() {
            return Ok(0);
        }
        let (number, offset) = (self.at / SECTOR as u64, (self.at % SECTOR as u64) as usize);
        let length = buffer.len().min(SECTOR - offset);
        let mut sector = if length == SECTOR { [0; SECTOR] } else { self.sector(number)? };
        sector[offset..offset + length].copy_from_slice(&buffer[..length]);
        self.sectors.insert(number, sector);
        self.at += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<D> Seek for Held<'_, D> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.layout.bytes().checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::other("that is before the volume's beginning"))?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::volume::{self, File, Kind, BOOT_LABEL};

    const FOLDER: &str = "EFI/Linux";

    fn disk(files: usize) -> Cursor<Vec<u8>> {
        let names: Vec<_> =
            (0..files).map(|number| format!("{FOLDER}/image-{number}.efi")).collect();
        let files: Vec<_> = names.iter().map(|path| File { path, content: b"x" }).collect();
        Cursor::new(volume::build(68 << 20, Kind::Fat32, BOOT_LABEL, &files).unwrap())
    }

    #[test]
    fn nothing_is_written_before_it_is_committed() {
        let mut disk = disk(1);
        let before = disk.get_ref().clone();
        let mut held = Held::new(&mut disk).unwrap();
        let file = File { path: "EFI/Linux/new", content: &[3; 3000] };
        volume::put(&mut held, file).unwrap();
        assert_eq!(volume::read(&mut held, file.path).unwrap().unwrap(), file.content);
        drop(held);
        assert!(*disk.get_ref() == before);
        let mut held = Held::new(&mut disk).unwrap();
        volume::put(&mut held, file).unwrap();
        // Its content, the tables, its name.
        let mut barriers = 0;
        held.commit(Change::Addition, |disk| {
            barriers += 1;
            let is_named = volume::read(disk, file.path)?.is_some();
            assert_eq!(is_named, barriers == 3);
            Ok(())
        })
        .unwrap();
        assert_eq!(barriers, 3);
        assert_eq!(volume::read(&mut disk, file.path).unwrap().unwrap(), file.content);
    }

    /// At each barrier, and so after a power cut between any two, the file has one of its names, or both, with all that is in it.
    #[test]
    fn a_file_has_a_name_at_every_moment_of_a_renaming() {
        let names = ["EFI/Linux/image-0.efi", "EFI/Linux/image-0+0-3.efi"];
        let rename = |disk: &mut Cursor<Vec<u8>>, from: &str, to: &str| {
            let mut held = Held::new(disk).unwrap();
            volume::rename(&mut held, from, to).unwrap();
            let mut moments = Vec::new();
            held.commit(Change::Renaming, |disk| {
                let mut there = [false; 2];
                for (name, there) in names.iter().zip(&mut there) {
                    let content = volume::read(disk, name)?;
                    *there = content.is_some_and(|content| content == b"x");
                }
                moments.push(there);
                // What a cut there leaves can be mended, and has the file once.
                let mut left = disk.clone();
                crate::mend::mend(&mut left, |_| Ok(()))?;
                let found =
                    names.iter().filter(|name| volume::read(&mut left, name).unwrap().is_some());
                assert_eq!(found.count(), 1);
                Ok(())
            })
            .unwrap();
            moments
        };
        assert_eq!(rename(&mut disk(3), names[0], names[1]), [[false, true]]);
        // The first sector is full: the longer name is in the second one, or in both.
        for files in 5..9 {
            let mut disk = disk(files);
            let moments = rename(&mut disk, names[0], names[1]);
            assert!(moments.iter().all(|[old, new]| *old || *new), "{moments:?}");
            assert_eq!(moments.last(), Some(&[false, true]));
            let moments = rename(&mut disk, names[1], names[0]);
            assert!(moments.iter().all(|[new, old]| *old || *new), "{moments:?}");
            assert_eq!(moments.last(), Some(&[true, false]));
            let mut all = volume::names(&mut disk, FOLDER).unwrap();
            all.sort();
            assert_eq!(all.len(), files);
        }
    }
}
