// SPDX-License-Identifier: MIT OR Apache-2.0
//! File systems on disks that have nothing yet.
//!
//! While a file system is being made, the disk is neither blank nor has it one. So that is said first, in the disk's first sector, which no
//! file system of MINIX uses, and taken back last. Whoever finds it said starts over.

use crate::disk::{Disk, DiskError};
use crate::format::{make, Layout, MakeError, SUPERBLOCK_AT, SUPERBLOCK_BYTES};
use std::collections::BTreeMap;

/// The blocks of a file system that is made without being asked how: those that memory and disks have.
const BLOCK_BYTES: u32 = 4096;
/// What a disk writes as a whole.
const SECTOR_BYTES: usize = 512;
/// How the first sector begins while a file system is being made. The time follows, in seconds since 1970, and then zeros.
const MARK: &[u8; 32] = b"MoL-FS: a file system to be made";

type Sector = [u8; SECTOR_BYTES];

fn mark(now: u32) -> Sector {
    let mut sector = [0; SECTOR_BYTES];
    sector[..MARK.len()].copy_from_slice(MARK);
    sector[MARK.len()..][..4].copy_from_slice(&now.to_le_bytes());
    sector
}

/// When it was begun to make a file system, if the first sector says so.
fn marked_at(sector: &Sector) -> Option<u32> {
    let now = u32::from_le_bytes(*sector[MARK.len()..].first_chunk()?);
    (*sector == mark(now)).then_some(now)
}

/// Where formats of disks, volumes and file systems say what they are: the first MiB and the last 128 KiB.
fn telling(end: u64) -> [(u64, u64); 2] {
    [(0, end.min(1 << 20)), (end.saturating_sub(128 << 10), end)]
}

/// Makes an empty file system on a disk that has zeros only in its first MiB and its last 128 KiB, or what one that was being made has there;
/// says whether it did. If it is broken off after any of its writes, it can be done again.
pub(super) fn make_if_blank(disk: &mut (impl Disk + ?Sized), now: u32) -> Result<bool, MakeError> {
    let mut first = [0; SECTOR_BYTES];
    if disk.bytes() >= SECTOR_BYTES as u64 {
        disk.read(0, &mut first)?;
    }
    let begun = marked_at(&first);
    if begun.is_some() && has_superblock(disk)? {
        // All of it was made. It may have been used since.
        unmark(disk)?;
        return Ok(false);
    }
    let may_have = match begun {
        Some(then) => Sketch::of(disk.bytes(), then)?,
        None => Sketch::default(),
    };
    if !has_nothing_but(disk, &may_have)? {
        return Ok(false);
    }
    // What is there already stays right if it is made as of the same time.
    let now = begun.unwrap_or(now);
    // Sizes that do not fit are refused before anything is written.
    Sketch::of(disk.bytes(), now)?;
    disk.write(0, &mark(now))?;
    disk.flush()?;
    make(&mut Marked(disk), BLOCK_BYTES, 0, now)?;
    unmark(disk)?;
    Ok(true)
}

fn unmark(disk: &mut (impl Disk + ?Sized)) -> Result<(), DiskError> {
    disk.write(0, &[0; SECTOR_BYTES])?;
    disk.flush()
}

/// Whether a file system is there as a whole: its superblock is written last.
fn has_superblock(disk: &mut (impl Disk + ?Sized)) -> Result<bool, DiskError> {
    let mut superblock = [0; SUPERBLOCK_BYTES];
    disk.read(SUPERBLOCK_AT, &mut superblock)?;
    Ok(Layout::decode(&superblock, disk.bytes()).is_ok())
}

/// Whether each sector that tells what a disk has is one of zeros, or what is sketched.
fn has_nothing_but(disk: &mut (impl Disk + ?Sized), sketch: &Sketch) -> Result<bool, DiskError> {
    for (from, to) in telling(disk.bytes()) {
        let mut part = vec![0; (to - from) as usize];
        disk.read(from, &mut part)?;
        for (at, sector) in (from..).step_by(SECTOR_BYTES).zip(part.chunks(SECTOR_BYTES)) {
            let is_sketched =
                sketch.sectors.get(&at).is_some_and(|it| it[..sector.len()] == *sector);
            if !is_sketched && sector.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// A disk whose first sector stays what it is.
struct Marked<'d, D: ?Sized>(&'d mut D);

impl<D: Disk + ?Sized> Disk for Marked<'_, D> {
    fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    fn is_read_only(&self) -> bool {
        self.0.is_read_only()
    }

    fn read(&mut self, position: u64, into: &mut [u8]) -> Result<(), DiskError> {
        self.0.read(position, into)
    }

    fn write(&mut self, position: u64, from: &[u8]) -> Result<(), DiskError> {
        let marked = (SECTOR_BYTES as u64).saturating_sub(position).min(from.len() as u64);
        match &from[marked as usize..] {
            [] => Ok(()),
            rest => self.0.write(position + marked, rest),
        }
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        self.0.flush()
    }
}

/// What a disk that had zeros only has when a file system is made on it, as far as it tells what the disk has.
#[derive(Default)]
struct Sketch {
    end: u64,
    sectors: BTreeMap<u64, Sector>,
}

impl Sketch {
    fn of(end: u64, now: u32) -> Result<Self, MakeError> {
        let mut sketch = Self { end, sectors: BTreeMap::from([(0, mark(now))]) };
        make(&mut Marked(&mut sketch), BLOCK_BYTES, 0, now)?;
        Ok(sketch)
    }
}

impl Disk for Sketch {
    fn bytes(&self) -> u64 {
        self.end
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn read(&mut self, position: u64, into: &mut [u8]) -> Result<(), DiskError> {
        for (at, byte) in (position..).zip(into) {
            let (sector, at) = (at - at % SECTOR_BYTES as u64, at as usize % SECTOR_BYTES);
            *byte = self.sectors.get(&sector).map_or(0, |sector| sector[at]);
        }
        Ok(())
    }

    fn write(&mut self, position: u64, from: &[u8]) -> Result<(), DiskError> {
        let (end, mut position, mut rest) = (self.end, position, from);
        let is_telling = |at| telling(end).iter().any(|(from, to)| (*from..*to).contains(&at));
        while !rest.is_empty() {
            let at = (position % SECTOR_BYTES as u64) as usize;
            let (part, more) = rest.split_at(rest.len().min(SECTOR_BYTES - at));
            let sector = position - at as u64;
            // Where nothing is kept, there are zeros.
            let is_news = is_telling(position) && part.iter().any(|byte| *byte != 0);
            if is_news || self.sectors.contains_key(&sector) {
                let kept = self.sectors.entry(sector).or_insert([0; SECTOR_BYTES]);
                kept[at..at + part.len()].copy_from_slice(part);
            }
            (position, rest) = (position + part.len() as u64, more);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Attempt, Memory};
    use crate::volume::{Options, Volume};

    const NOW: u32 = 1_700_000_000;
    const BYTES: u64 = 3 << 19;

    #[test]
    fn only_a_blank_disk_gets_a_file_system() {
        let mut blank = Memory::new(1 << 20);
        assert_eq!(make_if_blank(&mut blank, NOW), Ok(true));
        assert!(Volume::mount(blank.clone(), Options::default()).is_ok());
        assert_eq!(make_if_blank(&mut blank, NOW), Ok(false));
        let last = (4 << 20) - 1;
        for at in [0, 64 << 10, (1 << 20) - 1, last - (128 << 10) + 1, last] {
            let mut other = Memory::new(4 << 20);
            other.write(at, &[1]).unwrap();
            let before = other.clone();
            assert_eq!(
                (make_if_blank(&mut other, NOW), other == before),
                (Ok(false), true),
                "{at}"
            );
        }
        assert!(make_if_blank(&mut Memory::new(1024), NOW).is_err(), "too small");
    }

    /// A disk whose power is cut after so many writes and flushes.
    struct Cut {
        stable: Memory,
        seen: Memory,
        /// The sectors that were written since the last flush.
        unflushed: Vec<u64>,
        left: usize,
    }

    impl Cut {
        fn new(stable: Memory, left: usize) -> Self {
            Self { seen: stable.clone(), stable, unflushed: Vec::new(), left }
        }

        fn count(&mut self, attempt: Attempt) -> Result<(), DiskError> {
            self.left =
                self.left.checked_sub(1).ok_or(DiskError::new(attempt, 0, 0, "no power"))?;
            Ok(())
        }

        /// What is there after the power cut: of the sectors that were not flushed, those of which it is said so.
        fn after(mut self, mut keeps: impl FnMut(u64) -> bool) -> Memory {
            for at in self.unflushed {
                if keeps(at / SECTOR_BYTES as u64) {
                    let mut sector = [0; SECTOR_BYTES];
                    self.seen.read(at, &mut sector).unwrap();
                    self.stable.write(at, &sector).unwrap();
                }
            }
            self.stable
        }
    }

    impl Disk for Cut {
        fn bytes(&self) -> u64 {
            self.seen.bytes()
        }

        fn is_read_only(&self) -> bool {
            false
        }

        fn read(&mut self, position: u64, into: &mut [u8]) -> Result<(), DiskError> {
            self.seen.read(position, into)
        }

        fn write(&mut self, position: u64, from: &[u8]) -> Result<(), DiskError> {
            self.count(Attempt::Write)?;
            let end = position + from.len() as u64;
            let begin = position - position % SECTOR_BYTES as u64;
            self.unflushed.extend((begin..end).step_by(SECTOR_BYTES));
            self.seen.write(position, from)
        }

        fn flush(&mut self) -> Result<(), DiskError> {
            self.count(Attempt::Flush)?;
            self.unflushed.clear();
            self.stable = self.seen.clone();
            Ok(())
        }
    }

    fn is_mountable(disk: &Memory) -> bool {
        let mounted = Volume::mount(disk.clone(), Options::default());
        mounted.is_ok_and(|mut volume| volume.check().unwrap().is_sound())
    }

    #[test]
    fn wherever_it_is_broken_off_it_is_done_the_next_time() {
        let mut whole = Cut::new(Memory::new(BYTES as usize), usize::MAX);
        make_if_blank(&mut whole, NOW).unwrap();
        let (steps, whole) = (usize::MAX - whole.left, whole.stable);
        assert!(steps > 10 && is_mountable(&whole), "{steps}");
        let mut first = [1; SECTOR_BYTES];
        whole.clone().read(0, &mut first).unwrap();
        assert_eq!(first, [0; SECTOR_BYTES], "it is not marked any more");
        for step in 0..steps {
            // What of the last writes is there: nothing, all of it, or this or that.
            for pattern in 0..6_u64 {
                let keeps = |sector: u64| match pattern {
                    0 => false,
                    1 => true,
                    _ => (sector.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (20 + pattern)) & 1 == 0,
                };
                let mut cut = Cut::new(Memory::new(BYTES as usize), step);
                assert!(make_if_blank(&mut cut, NOW).is_err());
                let left = cut.after(keeps);
                // It is broken off once more, half way, and at another time.
                let mut again = Cut::new(left, step / 2);
                let _ = make_if_blank(&mut again, NOW + 1);
                let mut left = again.after(keeps);
                make_if_blank(&mut left, NOW + 2).unwrap();
                assert!(is_mountable(&left), "cut after step {step}, pattern {pattern}");
                assert_eq!(make_if_blank(&mut left, NOW), Ok(false));
            }
        }
    }

    #[test]
    fn a_mark_does_not_cost_what_came_to_the_disk_later() {
        // All is made but for taking back the mark.
        let mut cut = Cut::new(Memory::new(BYTES as usize), usize::MAX);
        make_if_blank(&mut cut, NOW).unwrap();
        let steps = usize::MAX - cut.left;
        let broken_off = |steps| {
            let mut cut = Cut::new(Memory::new(BYTES as usize), steps);
            assert!(make_if_blank(&mut cut, NOW).is_err());
            cut.after(|_| true)
        };
        let mut used = broken_off(steps - 2);
        used.write(BYTES - 512, b"a file").unwrap();
        assert_eq!(make_if_blank(&mut used, NOW), Ok(false));
        assert!(is_mountable(&used));
        let mut end = [0; 6];
        used.read(BYTES - 512, &mut end).unwrap();
        assert_eq!(&end, b"a file");
        // Half of it is made, and then it is used for something else.
        for at in [512, 4086, 64 << 10, BYTES - 1] {
            let mut other = broken_off(steps / 2);
            other.write(at, b"x").unwrap();
            let before = other.clone();
            assert_eq!(
                (make_if_blank(&mut other, NOW), other == before),
                (Ok(false), true),
                "{at}"
            );
        }
    }
}
