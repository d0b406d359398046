// SPDX-License-Identifier: MIT OR Apache-2.0
//! Changes of a FAT32 volume that a power cut does not leave half done: they are held back, and then written in an order of which every
//! part is a
//! sound volume, but for space that nobody uses. [`mend`](crate::mend) gives that back.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::fat32::{Layout, MASK, SECTOR};

/// How many sectors are written at a time.
const RUN: usize = 256;

/// What a change is, which says what of it is written first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A file comes: its content, then the tables, then its name.
    Addition,
    /// A file goes: its name, then the tables.
    Removal,
    /// A file has another name: that is one sector, where the names of the folder are one.
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
    /// When the disk fails, or a renaming would not be one sector; of that, nothing is written.
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
        if change == Change::Renaming && stages.iter().map(Vec::len).sum::<usize>() > 1 {
            let text = "the folder has too many names for one to be changed at once: remove files that are not ours from it";
            return Err(io::Error::other(text));
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
        Ok(())
    }
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

    #[test]
    fn a_renaming_that_is_not_one_sector_is_refused() {
        let rename = |disk: &mut Cursor<Vec<u8>>| {
            let mut held = Held::new(disk)?;
            volume::rename(&mut held, "EFI/Linux/image-0.efi", "EFI/Linux/image-0+0-3.efi")?;
            held.commit(Change::Renaming, |_| Ok(()))
        };
        rename(&mut disk(3)).unwrap();
        let mut full = disk(8);
        let before = full.get_ref().clone();
        let error = rename(&mut full).unwrap_err().to_string();
        assert!(error.contains("too many names"), "{error}");
        assert!(*full.get_ref() == before);
    }
}
