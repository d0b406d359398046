// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random operations on a volume and on the model at once, with every result compared.

use crate::model::{Model, Thing, ROOT_ID};
use crate::random::Random;
use mol_fs::disk::Disk;
use mol_fs::format::ROOT;
use mol_fs::volume::{New, User};
use mol_fs::{Error, Volume};
use mol_protocol::Errno;
use std::collections::BTreeMap;

/// What operations are like.
#[derive(Clone, Copy)]
pub(crate) struct Habits {
    /// How many names are in use; the fewer, the more often one is there already.
    pub(crate) names: u32,
    /// How many things there are before more is removed than made.
    pub(crate) things: usize,
    /// Where in a file content may begin, in blocks.
    pub(crate) positions: &'static [u32],
    /// The most bytes that are written at once.
    pub(crate) bytes: u32,
    /// How many operations of a hundred are a sync.
    pub(crate) syncs: u32,
}

/// Positions near the beginning, and near where the way to a block gets longer, for blocks of 1 KiB.
pub(crate) const BUSY: Habits = Habits {
    names: 40,
    things: 400,
    positions: &[0, 0, 0, 0, 0, 6, 6 + 256, 6 + 256 + 300],
    bytes: 5000,
    syncs: 2,
};

/// How many directories may lie in one another: `fsck.minix` does not look deeper than 50.
const LEVELS_MAX: usize = 40;

/// A volume and its model, in step.
pub(crate) struct Pair<D> {
    pub(crate) volume: Volume<D>,
    pub(crate) model: Model,
    /// The inode of each thing that the model has or had.
    pub(crate) inodes: Vec<u32>,
    /// What is held.
    held: Vec<usize>,
    pub(crate) random: Random,
    habits: Habits,
    /// How often the disk was full.
    pub(crate) full: u32,
}

fn answer<T>(result: Result<T, Error>) -> Result<T, Errno> {
    result.map_err(|error| match error {
        Error::Refused(errno) => errno,
        other => panic!("{other}"),
    })
}

impl<D: Disk> Pair<D> {
    pub(crate) fn new(volume: Volume<D>, habits: Habits, seed: u64) -> Self {
        let (model, random) = (Model::new(), Random::new(seed));
        Self { volume, model, inodes: vec![ROOT], held: Vec::new(), random, habits, full: 0 }
    }

    /// The same things in a file system that was mounted again.
    pub(crate) fn remounted<E>(self, mount: impl FnOnce(Volume<D>) -> Volume<E>) -> Pair<E> {
        let Self { volume, model, inodes, held, random, habits, full } = self;
        Pair { volume: mount(volume), model, inodes, held, random, habits, full }
    }

    fn any(&mut self, wanted: impl Fn(&Thing) -> bool) -> Option<usize> {
        let ids: Vec<_> = self.model.items.iter().filter(|(_, item)| wanted(&item.thing)).collect();
        (!ids.is_empty()).then(|| *ids[self.random.below(ids.len() as u32) as usize].0)
    }

    /// Mostly a directory.
    fn directory(&mut self) -> usize {
        if self.random.percent(5) {
            return self.any(|_| true).unwrap();
        }
        self.any(|thing| matches!(thing, Thing::Directory { .. })).unwrap()
    }

    /// Mostly a name that is there.
    fn name(&mut self, directory: usize) -> Vec<u8> {
        let names: Vec<_> =
            self.model.entries(directory).into_iter().flat_map(BTreeMap::keys).cloned().collect();
        if !names.is_empty() && self.random.percent(70) {
            return names[self.random.below(names.len() as u32) as usize].clone();
        }
        self.new_name()
    }

    fn new_name(&mut self) -> Vec<u8> {
        let name = format!("n{}", self.random.below(self.habits.names));
        match self.random.below(20) {
            0 => vec![b'l'; 58 + self.random.below(5) as usize],
            _ => name.into_bytes(),
        }
    }

    fn position(&mut self) -> u64 {
        let block = self.volume.layout().block_bytes;
        let index =
            self.habits.positions[self.random.below(self.habits.positions.len() as u32) as usize];
        u64::from(index * block + self.random.below(3 * block))
    }

    /// Does one operation, at a time that says which. Says whether it was a sync.
    pub(crate) fn step(&mut self, number: u32) -> bool {
        self.volume.set_time(1000 + number);
        if self.random.percent(self.habits.syncs) {
            self.volume.sync().unwrap();
            return true;
        }
        self.change();
        false
    }

    fn change(&mut self) {
        match self.random.below(98) {
            0..=17 if self.model.items.len() < self.habits.things => self.make(),
            0..=9 | 18..=27 => {
                let directory = self.directory();
                let name = self.name(directory);
                let number = self.inodes[directory];
                let done = self.volume.unlink(&User::SUPERUSER, number, &name);
                self.compare_result(done, "unlink", |model| model.unlink(directory, &name));
            }
            10..=17 | 28..=32 => {
                let directory = self.directory();
                let name = self.name(directory);
                let number = self.inodes[directory];
                let done = self.volume.remove_directory(&User::SUPERUSER, number, &name);
                self.compare_result(done, "rmdir", |model| {
                    model.remove_directory(directory, &name)
                });
            }
            33..=46 => self.rename(),
            47..=52 => {
                let (id, directory) = (self.any(|_| true).unwrap(), self.directory());
                let name = self.name(directory);
                let (number, above) = (self.inodes[id], self.inodes[directory]);
                let done = self.volume.link(&User::SUPERUSER, number, above, &name);
                self.compare_result(done, "link", |model| model.link(id, directory, &name));
            }
            53..=57 => self.hold_or_release(),
            58..=77 => self.write(),
            78..=84 => self.truncate(),
            85..=95 => self.read(),
            _ => {
                let status = answer(self.volume.status(ROOT)).unwrap();
                assert_eq!(status.inode.links, self.model.item(ROOT_ID).links);
            }
        }
    }

    /// Does to the model what was done to the volume. A disk may be full only if there is hardly anything free,
    /// and then nothing has been changed.
    fn compare_result<T, U>(
        &mut self,
        done: Result<T, Error>,
        what: &str,
        model: impl FnOnce(&mut Model) -> Result<U, Errno>,
    ) -> Option<T> {
        match answer(done) {
            Err(Errno::NoSpace) => {
                self.assert_full();
                assert!(model(&mut self.model.clone()).is_ok(), "{what}: no space");
                None
            }
            Ok(result) => {
                assert_eq!(model(&mut self.model).err(), None, "{what}");
                Some(result)
            }
            Err(errno) => {
                assert_eq!(model(&mut self.model).err(), Some(errno), "{what}");
                None
            }
        }
    }

    /// A block and those that lead to it are four, and a directory may need one more.
    fn assert_full(&mut self) {
        self.full += 1;
        let usage = self.volume.usage();
        assert!(usage.blocks_free < 5 || usage.inodes_free == 0, "{usage:?}");
    }

    fn make(&mut self) {
        let directory = self.directory();
        if self.model.depth(directory) >= LEVELS_MAX {
            return;
        }
        let name = if self.random.percent(80) { self.new_name() } else { self.name(directory) };
        let path = vec![b'p'; 1 + self.random.below(900) as usize];
        let (thing, new) = match self.random.below(10) {
            0..=5 => (Thing::File(Vec::new()), New::File),
            6 => (Thing::Link(path.clone()), New::SymbolicLink(&path)),
            _ => {
                let entries = BTreeMap::new();
                (Thing::Directory { entries, parent: directory }, New::Directory)
            }
        };
        let number = self.inodes[directory];
        let made = self.volume.make(&User::SUPERUSER, number, &name, 0o755, new);
        let made = self.compare_result(made, "make", |model| model.make(directory, &name, thing));
        self.inodes.extend(made);
    }

    fn rename(&mut self) {
        let (from, to) = (self.directory(), self.directory());
        let (old, new) = (self.name(from), self.name(to));
        let keep = self.random.percent(10);
        let moved = self.model.entries(from).and_then(|entries| entries.get(&old).copied());
        let levels = self.model.depth(to) + moved.map_or(0, |moved| self.model.height(moved));
        if levels > LEVELS_MAX {
            return;
        }
        let (from_number, to_number) = (self.inodes[from], self.inodes[to]);
        let done = self.volume.rename(&User::SUPERUSER, from_number, &old, to_number, &new, keep);
        self.compare_result(done, "rename", |model| model.rename((from, &old), (to, &new), keep));
    }

    fn hold_or_release(&mut self) {
        if self.held.len() < 5 && self.random.percent(60) {
            let id = self.any(|_| true).unwrap();
            self.volume.hold(self.inodes[id]).unwrap();
            self.model.item_mut(id).holds += 1;
            self.held.push(id);
        } else if !self.held.is_empty() {
            let id = self.held.swap_remove(self.random.below(self.held.len() as u32) as usize);
            self.volume.release(self.inodes[id], 1).unwrap();
            self.model.release(id);
        }
    }

    fn write(&mut self) {
        let Some(id) = self.any(|thing| matches!(thing, Thing::File(_))) else { return };
        let at = self.position();
        let data: Vec<u8> = (0..=self.random.below(self.habits.bytes))
            .map(|_| self.random.below(255) as u8 + 1)
            .collect();
        let written =
            answer(self.volume.write(self.inodes[id], at, &data)).unwrap_or_else(|errno| {
                assert_eq!(errno, Errno::NoSpace, "write");
                0
            });
        if written < data.len() {
            self.assert_full();
        }
        if written == 0 {
            return;
        }
        let Thing::File(content) = &mut self.model.item_mut(id).thing else { unreachable!() };
        let end = at as usize + written;
        content.resize(content.len().max(end), 0);
        content[at as usize..end].copy_from_slice(&data[..written]);
    }

    fn truncate(&mut self) {
        let Some(id) = self.any(|thing| matches!(thing, Thing::File(_))) else { return };
        let to = if self.random.percent(30) { 0 } else { self.position() };
        assert_eq!(answer(self.volume.truncate(self.inodes[id], to)), Ok(()), "truncate");
        let Thing::File(content) = &mut self.model.item_mut(id).thing else { unreachable!() };
        content.resize(to as usize, 0);
    }

    fn read(&mut self) {
        let Some(id) = self.any(|_| true) else { return };
        let (at, number) = (self.position(), self.inodes[id]);
        let mut buffer = vec![0xaa; 1 + self.random.below(4000) as usize];
        let read = answer(self.volume.read(number, at, &mut buffer));
        match &self.model.item(id).thing {
            Thing::File(content) => {
                let rest = content.get(at as usize..).unwrap_or_default();
                let expected = &rest[..rest.len().min(buffer.len())];
                assert_eq!(&buffer[..read.unwrap()], expected, "read at {at}");
            }
            Thing::Link(path) => assert_eq!(self.volume.read_link(number).as_ref(), Ok(path)),
            Thing::Directory { .. } => self.compare_directory(id),
        }
    }

    fn compare_directory(&mut self, id: usize) {
        let mut found = BTreeMap::new();
        let number = self.inodes[id];
        self.volume
            .list(number, 0, |entry| found.insert(entry.name.to_vec(), entry.number).is_none())
            .unwrap();
        assert_eq!(found.remove(&b"."[..]), Some(number));
        assert!(found.remove(&b".."[..]).is_some());
        let entries = self.model.entries(id).unwrap();
        let expected: BTreeMap<_, _> =
            entries.iter().map(|(name, id)| (name.clone(), self.inodes[*id])).collect();
        assert_eq!(found, expected);
    }

    /// Compares everything.
    pub(crate) fn compare(&mut self) {
        let ids: Vec<_> = self.model.items.keys().copied().collect();
        let usage = self.volume.usage();
        assert_eq!((usage.inodes - usage.inodes_free) as usize, ids.len(), "inodes in use");
        for id in ids {
            let item = self.model.item(id).clone();
            let status = self.volume.status(self.inodes[id]).unwrap();
            assert_eq!(status.inode.links, item.links, "links of {id}");
            match item.thing {
                Thing::File(content) => {
                    assert_eq!(status.inode.bytes as usize, content.len());
                    let mut buffer = vec![0; content.len()];
                    self.volume.read(self.inodes[id], 0, &mut buffer).unwrap();
                    assert!(buffer == content, "content of {id}");
                }
                Thing::Link(path) => assert_eq!(self.volume.read_link(self.inodes[id]), Ok(path)),
                Thing::Directory { .. } => self.compare_directory(id),
            }
        }
    }

    /// Lets go of what is held.
    pub(crate) fn release_all(&mut self) {
        for id in core::mem::take(&mut self.held) {
            self.volume.release(self.inodes[id], 1).unwrap();
            self.model.release(id);
        }
    }
}
