// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a disk may have when the power has gone.

use crate::random::Random;
use mol_fs::disk::{Disk, DiskError, Memory};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

const SECTOR: usize = 512;

pub(crate) enum Event {
    Write(usize, Vec<u8>),
    Flush,
}

/// A disk that takes note of what happens to it.
#[derive(Clone)]
pub(crate) struct Recorder(Rc<RefCell<(Memory, Vec<Event>)>>);

impl Recorder {
    pub(crate) fn new(disk: Memory) -> Self {
        Self(Rc::new(RefCell::new((disk, Vec::new()))))
    }

    /// What is on it now.
    pub(crate) fn content(&self) -> Memory {
        self.0.borrow().0.clone()
    }

    pub(crate) fn take_events(&self) -> Vec<Event> {
        core::mem::take(&mut self.0.borrow_mut().1)
    }
}

impl Disk for Recorder {
    fn bytes(&self) -> u64 {
        self.0.borrow().0.bytes()
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn read(&mut self, position: u64, into: &mut [u8]) -> Result<(), DiskError> {
        self.0.borrow_mut().0.read(position, into)
    }

    fn write(&mut self, position: u64, from: &[u8]) -> Result<(), DiskError> {
        let (disk, events) = &mut *self.0.borrow_mut();
        events.push(Event::Write(position as usize, from.to_vec()));
        disk.write(position, from)
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        self.0.borrow_mut().1.push(Event::Flush);
        Ok(())
    }
}

/// What a disk has for certain, and what it may have instead: of each sector, the versions since the last flush.
pub(crate) struct Platter {
    bytes: Vec<u8>,
    pending: BTreeMap<usize, Vec<Vec<u8>>>,
}

impl Platter {
    pub(crate) fn new(disk: &Memory) -> Self {
        Self { bytes: disk.content().to_vec(), pending: BTreeMap::new() }
    }

    pub(crate) fn apply(&mut self, event: &Event) {
        match event {
            Event::Write(position, bytes) => {
                assert!(position % SECTOR == 0 || bytes.len() <= SECTOR, "a part of a sector");
                let (first, last) = (position / SECTOR, (position + bytes.len() - 1) / SECTOR);
                for sector in first..=last {
                    let begin = sector * SECTOR;
                    let before = match self.pending.get(&sector).and_then(|all| all.last()) {
                        Some(before) => before.clone(),
                        None => self.bytes[begin..begin + SECTOR].to_vec(),
                    };
                    let mut after = before;
                    let from = begin.max(*position);
                    let to = (begin + SECTOR).min(position + bytes.len());
                    after[from - begin..to - begin]
                        .copy_from_slice(&bytes[from - position..to - position]);
                    self.pending.entry(sector).or_default().push(after);
                }
            }
            Event::Flush => {
                for (sector, mut versions) in core::mem::take(&mut self.pending) {
                    let last = versions.pop().expect("there is one at least");
                    self.bytes[sector * SECTOR..][..SECTOR].copy_from_slice(&last);
                }
            }
        }
    }

    /// What may be there after the power has gone now. Of the sectors in doubt, mostly `percent` are the last
    /// that was written.
    pub(crate) fn cut(&self, random: &mut Random, percent: u32) -> Memory {
        let mut bytes = self.bytes.clone();
        for (sector, versions) in &self.pending {
            let version = match random.percent(percent) {
                true => versions.len(),
                false => random.below(versions.len() as u32 + 1) as usize,
            };
            if version > 0 {
                bytes[sector * SECTOR..][..SECTOR].copy_from_slice(&versions[version - 1]);
            }
        }
        Memory::from(bytes)
    }
}
