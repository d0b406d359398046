// SPDX-License-Identifier: MIT OR Apache-2.0
//! A disk that remembers what was written to it, and what a power cut can leave of that.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Seek, SeekFrom, Write};

use dvs_bootdisk::volume::Device;

const SECTOR: usize = 512;
type Sector = [u8; SECTOR];
/// Of so few sectors, all parts are left by some cut; of more, so many that are chosen by a fixed rule, each sector alone, and all but
/// each.
const FEW: usize = 6;
const CHOSEN: u64 = 16;

/// What happens to a disk.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A sector gets this content.
    Write(u64, Sector),
    /// All before has reached the disk.
    Barrier,
}

/// A disk. Sectors that it does not list are zeros.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    sectors: BTreeMap<u64, Sector>,
    bytes: u64,
    at: u64,
    pub(crate) events: Vec<Event>,
}

impl Disk {
    /// One of zeros.
    pub(crate) fn new(bytes: u64) -> Self {
        Self { sectors: BTreeMap::new(), bytes, at: 0, events: Vec::new() }
    }

    fn set(&mut self, number: u64, sector: Sector) {
        self.sectors.insert(number, sector);
    }

    /// Tells disks of different content apart.
    pub(crate) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let written = self.sectors.iter().filter(|(_, sector)| **sector != [0; SECTOR]);
        written.for_each(|entry| entry.hash(&mut hasher));
        hasher.finish()
    }

    fn here(&self) -> (u64, usize) {
        (self.at / SECTOR as u64, (self.at % SECTOR as u64) as usize)
    }

    fn length(&self, wanted: usize) -> usize {
        let (_, offset) = self.here();
        let left = self.bytes.saturating_sub(self.at);
        wanted.min(SECTOR - offset).min(usize::try_from(left).unwrap_or(usize::MAX))
    }
}

impl Read for Disk {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let ((number, offset), length) = (self.here(), self.length(buffer.len()));
        let sector = self.sectors.get(&number).copied().unwrap_or([0; SECTOR]);
        buffer[..length].copy_from_slice(&sector[offset..offset + length]);
        self.at += length as u64;
        Ok(length)
    }
}

impl Write for Disk {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let ((number, offset), length) = (self.here(), self.length(buffer.len()));
        let mut sector = self.sectors.get(&number).copied().unwrap_or([0; SECTOR]);
        sector[offset..offset + length].copy_from_slice(&buffer[..length]);
        self.set(number, sector);
        self.events.push(Event::Write(number, sector));
        self.at += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Disk {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.bytes.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

impl Device for Disk {
    fn sync(&mut self) -> io::Result<()> {
        self.events.push(Event::Barrier);
        Ok(())
    }
}

/// What a power cut can leave of `disk` while `events` happen to it, the beginning and the end included.
pub(crate) fn cuts(disk: &Disk, events: &[Event]) -> Vec<Disk> {
    let mut before = disk.clone();
    let mut found = vec![before.clone()];
    for epoch in events.split(|event| matches!(event, Event::Barrier)) {
        let writes: Vec<_> = epoch
            .iter()
            .filter_map(|event| match event {
                Event::Write(number, sector) => Some((*number, *sector)),
                Event::Barrier => None,
            })
            .collect();
        // In the order in which they were made.
        let mut after = before.clone();
        for (number, sector) in &writes {
            after.set(*number, *sector);
            found.push(after.clone());
        }
        // In any other: of each sector the last that was written, or what it was before.
        let last: BTreeMap<_, _> = writes.into_iter().collect();
        for part in parts(last.len()) {
            let mut state = before.clone();
            for ((number, sector), _) in last.iter().zip(part).filter(|(_, is_there)| *is_there) {
                state.set(*number, *sector);
            }
            found.push(state);
        }
        before = after;
    }
    found
}

/// Which of so many sectors are there: all parts of few, and of many some.
fn parts(count: usize) -> Vec<Vec<bool>> {
    if count <= FEW {
        return (0..1_u32 << count)
            .map(|part| (0..count).map(|bit| part >> bit & 1 == 1).collect())
            .collect();
    }
    let alone = (0..count).map(|own| (0..count).map(|bit| bit == own).collect());
    let missing = (0..count).map(|own| (0..count).map(|bit| bit != own).collect());
    let chosen = (0..CHOSEN).map(|choice| {
        (0..count)
            .map(|bit| {
                let mut hasher = DefaultHasher::new();
                (choice, bit).hash(&mut hasher);
                hasher.finish() & 1 == 1
            })
            .collect()
    });
    alone.chain(missing).chain(chosen).collect()
}
