// SPDX-License-Identifier: MIT OR Apache-2.0
//! Disks with a GUID partition table (chapter 5 of the UEFI specification), and access to one partition of them.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;

use gpt::disk::LogicalBlockSize;
use gpt::mbr::ProtectiveMBR;
use gpt::partition::Partition;
use gpt::{partition_types, DiskDevice, GptConfig};
use uuid::Uuid;

/// Bytes of a sector.
const SECTOR: u64 = 512;
/// Where partitions begin: at multiples of a mebibyte, which suits every disk.
const ALIGNMENT: u64 = 1 << 20;
/// What the table at the end of the disk takes, rounded up.
const TAIL: u64 = 1 << 20;

/// Identifies the disks that are made as images: what is on them is the same, so their identifiers are as well.
const DISK: u128 = 0xd7b1_a5c4_0d15_4e0d_8f4e_6476_7301_0000;
/// Name of the partition that machines boot from.
pub const BOOT_PARTITION: &str = "dvs-boot";
/// Bytes of the volume that machines boot from: two images and a third while it is written, and some for what firmware puts there.
pub const BOOT_VOLUME: u64 = 96 << 20;

/// How many bytes a disk has at least that has a volume of so many bytes to boot from.
pub fn size_for(boot: u64) -> u64 {
    (ALIGNMENT + boot).next_multiple_of(ALIGNMENT) + TAIL
}

/// A disk with the volume `boot` as its only partition, from which UEFI firmware boots.
///
/// # Errors
/// When the volume is not made of whole sectors.
pub fn build(boot: &[u8]) -> io::Result<Vec<u8>> {
    let length = boot.len() as u64;
    let size = usize::try_from(size_for(length)).map_err(io::Error::other)?;
    let mut bytes = vec![0; size];
    let range = partition(&mut io::Cursor::new(&mut bytes[..]), length, [DISK, DISK + 1])?;
    let at = usize::try_from(range.start).map_err(io::Error::other)?;
    bytes[at..at + boot.len()].copy_from_slice(boot);
    Ok(bytes)
}

/// Gives a disk a table with one partition of `boot` bytes, from which UEFI firmware boots. Where that is, in bytes. `identifiers` tell the
/// disk and the partition from all others.
///
/// # Errors
/// When the partition is not made of whole sectors, or the disk is too small or fails.
pub fn partition(
    mut device: &mut impl DiskDevice,
    boot: u64,
    identifiers: [u128; 2],
) -> io::Result<Range<u64>> {
    if boot == 0 || !boot.is_multiple_of(SECTOR) {
        return Err(io::Error::other("a volume is made of whole sectors"));
    }
    let size = device.seek(SeekFrom::End(0))?;
    if size < size_for(boot) {
        return Err(io::Error::other("the disk is too small for what it is to hold"));
    }
    let last = u32::try_from(size / SECTOR - 1).unwrap_or(u32::MAX);
    ProtectiveMBR::with_lb_size(last).overwrite_lba0(&mut device).map_err(io::Error::other)?;
    let config = GptConfig::new().writable(true).logical_block_size(LogicalBlockSize::Lb512);
    let [disk, partition] = identifiers.map(Uuid::from_u128);
    let mut disk = config.create_from_device(device, Some(disk)).map_err(io::Error::other)?;
    let partition = Partition {
        part_type_guid: partition_types::EFI,
        part_guid: partition,
        first_lba: ALIGNMENT / SECTOR,
        last_lba: (ALIGNMENT + boot) / SECTOR - 1,
        flags: 0,
        name: BOOT_PARTITION.to_owned(),
    };
    disk.update_partitions(BTreeMap::from([(1, partition)])).map_err(io::Error::other)?;
    disk.write().map_err(io::Error::other)?;
    Ok(ALIGNMENT..ALIGNMENT + boot)
}

/// The names of the partitions of a disk.
///
/// # Errors
/// When there is no partition table, or it cannot be read.
pub fn names(disk: &mut (impl DiskDevice + ?Sized)) -> io::Result<Vec<String>> {
    let disk = GptConfig::new().open_from_device(disk).map_err(io::Error::other)?;
    Ok(disk.partitions().values().map(|partition| partition.name.clone()).collect())
}

/// Where the partition called `name` is on a disk, in bytes; `None` when there is none.
///
/// # Errors
/// When there is no partition table, or it cannot be read.
pub fn find(disk: &mut (impl DiskDevice + ?Sized), name: &str) -> io::Result<Option<Range<u64>>> {
    let disk = GptConfig::new().open_from_device(disk).map_err(io::Error::other)?;
    let found = disk.partitions().values().find(|partition| partition.name == name);
    Ok(found.map(|partition| partition.first_lba * SECTOR..(partition.last_lba + 1) * SECTOR))
}

/// The parts of `content` that are not all zeros, and where they are: what has to be written to a fresh file to make it the same.
pub fn occupied(content: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    const PIECE: usize = 1 << 16;
    let pieces = content.chunks(PIECE).enumerate();
    let pieces = pieces.map(|(number, piece)| ((number * PIECE) as u64, piece));
    pieces.filter(|(_, piece)| piece.iter().any(|byte| *byte != 0))
}

/// A part of a disk, as if it were all of one.
#[derive(Debug)]
pub struct Part<'a, D> {
    disk: &'a mut D,
    range: Range<u64>,
    at: u64,
}

impl<'a, D: Read + Write + Seek> Part<'a, D> {
    /// The bytes `range` of `disk`.
    pub fn new(disk: &'a mut D, range: Range<u64>) -> Self {
        Self { disk, range, at: 0 }
    }

    /// Goes to the place that is read or written next; says how much there is from there, at most `wanted`.
    fn approach(&mut self, wanted: usize) -> io::Result<usize> {
        let left = (self.range.end - self.range.start).saturating_sub(self.at);
        self.disk.seek(SeekFrom::Start(self.range.start + self.at))?;
        Ok(wanted.min(usize::try_from(left).unwrap_or(usize::MAX)))
    }
}

impl<D: Read + Write + Seek> Read for Part<'_, D> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.approach(buffer.len())?;
        let count = self.disk.read(&mut buffer[..length])?;
        self.at += count as u64;
        Ok(count)
    }
}

impl<D: Read + Write + Seek> Write for Part<'_, D> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let length = self.approach(buffer.len())?;
        let count = self.disk.write(&buffer[..length])?;
        self.at += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.disk.flush()
    }
}

impl<D: Read + Write + Seek> Seek for Part<'_, D> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let length = self.range.end - self.range.start;
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => length.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::other("that is before the part's beginning"))?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::{self, File, Kind, BOOT_LABEL};

    const CONFIG: &str = "dvs.toml";

    fn boot() -> Vec<u8> {
        let file = File { path: "EFI/BOOT/BOOTX64.EFI", content: b"program" };
        volume::build(3 << 20, Kind::Fitting, BOOT_LABEL, &[file]).unwrap()
    }

    #[test]
    fn a_disk_holds_its_volume_in_a_partition_that_is_found_by_name() {
        let boot = boot();
        let mut disk = io::Cursor::new(build(&boot).unwrap());
        assert_eq!(find(&mut disk, "other").unwrap(), None);
        let range = find(&mut disk, BOOT_PARTITION).unwrap().unwrap();
        assert_eq!(range, 1 << 20..4 << 20);
        assert!(disk.get_ref()[1 << 20..4 << 20] == boot);
    }

    #[test]
    fn a_file_can_be_put_into_a_partition_and_the_rest_stays() {
        let mut disk = io::Cursor::new(build(&boot()).unwrap());
        let before = disk.get_ref().clone();
        let range = find(&mut disk, BOOT_PARTITION).unwrap().unwrap();
        let file = File { path: CONFIG, content: b"[node]\n" };
        volume::put(&mut Part::new(&mut disk, range.clone()), file).unwrap();
        let content = volume::read(&mut Part::new(&mut disk, range), CONFIG).unwrap();
        assert_eq!(content.as_deref(), Some(&b"[node]\n"[..]));
        assert!(disk.get_ref()[..1 << 20] == before[..1 << 20]);
        assert!(disk.get_ref()[4 << 20..] == before[4 << 20..]);
    }

    #[test]
    fn the_same_volume_gives_the_same_disk() {
        assert!(build(&boot()).unwrap() == build(&boot()).unwrap());
        assert!(build(&[0; 100]).is_err());
        assert!(build(&[]).is_err());
    }

    #[test]
    fn zeros_are_left_out_and_nothing_else() {
        let mut content = vec![0; 300_000];
        (content[70_000], content[299_999]) = (1, 2);
        let mut copy = vec![0; content.len()];
        let mut written = 0;
        for (at, piece) in occupied(&content) {
            copy[at as usize..][..piece.len()].copy_from_slice(piece);
            written += piece.len();
        }
        assert!(copy == content && written < 150_000);
    }

    #[test]
    fn a_part_does_not_reach_beyond_its_ends() {
        let mut disk = io::Cursor::new(vec![0_u8; 30]);
        let mut part = Part::new(&mut disk, 10..20);
        assert!(part.write_all(&[1; 11]).is_err());
        assert_eq!(part.seek(SeekFrom::End(-2)).unwrap(), 8);
        assert_eq!(part.read(&mut [0; 5]).unwrap(), 2);
        assert!(part.seek(SeekFrom::Current(-11)).is_err());
        assert_eq!(disk.get_ref()[..10], [0; 10]);
        assert_eq!(disk.get_ref()[20..], [0; 10]);
        assert_eq!(disk.get_ref()[10..20], [1; 10]);
    }
}
