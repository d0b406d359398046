// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was changed since the last commit, as far as the order of writing depends on it.

use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Where an entry of a directory is: the block of the disk and the byte in it.
pub(super) type Place = (u32, usize);

/// Changes since the last [commit](super::commit).
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Blocks that were taken: nothing on the disk leads to them.
    pub(super) fresh_zones: HashSet<u32>,
    /// Blocks that were let go: something on the disk leads to them still, so they are not given out again.
    pub(super) freed_zones: HashSet<u32>,
    /// Inodes that were taken: nothing on the disk names them.
    pub(super) fresh_inodes: HashSet<u32>,
    /// Inodes that were let go, and may have a name on the disk still.
    pub(super) freed_inodes: BTreeSet<u32>,
    /// Blocks that a directory of the disk has got: they must be seen there as empty at first.
    pub(super) zeroed: BTreeSet<u32>,
    /// Entries that the disk does not have.
    added: BTreeSet<Place>,
    /// Entries that were removed, and which inode they have on the disk. They are removed from it when all
    /// that was added is there.
    held: BTreeMap<Place, u32>,
    /// Entries that have another inode than on the disk, and which that is.
    replaced: BTreeMap<Place, u32>,
    /// Inodes whose names on the disk have to stay until all that was added is there: those that got another
    /// name, and directories that were removed, since what was moved out of them is found only there.
    needed: HashSet<u32>,
    /// Directories that got another parent.
    pub(super) moved: HashSet<u32>,
    /// The entries `..` of those that the disk has.
    parents: BTreeSet<Place>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.fresh_zones.is_empty()
            && self.freed_zones.is_empty()
            && self.fresh_inodes.is_empty()
            && self.freed_inodes.is_empty()
            && self.added.is_empty()
            && self.held.is_empty()
            && self.replaced.is_empty()
    }

    /// Takes note that a free entry got a name. If the disk has one there still, it is the same name.
    pub(super) fn add(&mut self, place: Place) {
        match self.held.remove(&place) {
            Some(on_disk) => self.replaced.insert(place, on_disk).is_some(),
            None => self.added.insert(place),
        };
    }

    /// Takes note that the names that an inode has on the disk have to stay until all that was added is there.
    pub(super) fn need(&mut self, inode: u32) {
        self.needed.insert(inode);
    }

    /// Whether the name of `inode` at a place must not be replaced before what was added is on the disk.
    pub(super) fn is_needed(&self, place: Place, inode: u32) -> bool {
        let on_disk = self.held.get(&place).copied().unwrap_or(inode);
        // What the disk does not have need not stay, and what goes anyway did not have to.
        let goes = self.added.contains(&place) || self.replaced.contains_key(&place);
        !goes && self.needed.contains(&on_disk)
    }

    /// Takes note that an entry of inode `old` got another inode.
    pub(super) fn replace(&mut self, place: Place, old: u32) {
        if !self.added.contains(&place) {
            self.replaced.entry(place).or_insert(old);
        }
    }

    /// Takes note that an entry of inode `old` was removed.
    pub(super) fn remove(&mut self, place: Place, old: u32) {
        if !self.added.remove(&place) {
            let on_disk = self.replaced.remove(&place).unwrap_or(old);
            self.held.insert(place, on_disk);
        }
    }

    /// Whether an entry that was removed is there on the disk, and so cannot get another name yet.
    pub(super) fn is_held(&self, place: Place) -> bool {
        self.held.contains_key(&place)
    }

    pub(super) fn has_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// The entries of block `zone` that were removed: where they are and which inode they have on the disk.
    pub(super) fn held_in(&self, zone: u32) -> impl Iterator<Item = (usize, u32)> + '_ {
        self.held.range(all_of(zone)).map(|((_, offset), inode)| (*offset, *inode))
    }

    /// Takes note that the entry `..` of a directory leads to another one.
    pub(super) fn move_parent(&mut self, place: Place) {
        if !self.added.contains(&place) {
            self.parents.insert(place);
        }
    }

    /// The blocks with entries `..` that lead to another directory than on the disk.
    pub(super) fn parent_zones(&self) -> Vec<u32> {
        self.parents.iter().map(|(zone, _)| *zone).collect()
    }

    /// The entries of block `zone` that differ from the disk but for `..`: where they are and which inode they have on
    /// the disk, 0 for none.
    pub(super) fn names_in(&self, zone: u32) -> impl Iterator<Item = (usize, u32)> + '_ {
        let added = self.added.range(all_of(zone)).map(|(_, offset)| (*offset, 0));
        let replaced = self.replaced.range(all_of(zone));
        let replaced = replaced.filter(|(place, _)| !self.parents.contains(place));
        let replaced = replaced.map(|((_, offset), inode)| (*offset, *inode));
        added.chain(replaced).chain(self.held_in(zone))
    }

    /// Forgets block `zone`, which is not its directory's any more.
    pub(super) fn forget_zone(&mut self, zone: u32) {
        self.zeroed.remove(&zone);
        let places: Vec<_> = self
            .added
            .range(all_of(zone))
            .chain(self.held.range(all_of(zone)).map(|(place, _)| place))
            .chain(self.replaced.range(all_of(zone)).map(|(place, _)| place))
            .copied()
            .collect();
        for place in places {
            self.parents.remove(&place);
            self.added.remove(&place);
            self.held.remove(&place);
            self.replaced.remove(&place);
        }
    }
}

fn all_of(zone: u32) -> core::ops::RangeInclusive<Place> {
    (zone, 0)..=(zone, usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_disk_has_is_held() {
        let mut batch = Batch::default();
        batch.add((9, 64));
        batch.remove((9, 64), 5);
        assert!(!batch.is_held((9, 64)), "it was never there");
        batch.replace((9, 128), 6);
        batch.replace((9, 128), 7);
        batch.remove((9, 128), 8);
        batch.remove((10, 0), 3);
        assert_eq!(batch.held_in(9).collect::<Vec<_>>(), [(128, 6)], "the one on the disk");
        batch.forget_zone(9);
        assert!(!batch.is_held((9, 128)) && batch.is_held((10, 0)));
    }

    #[test]
    fn a_name_that_comes_back_replaces_what_the_disk_has() {
        let mut batch = Batch::default();
        batch.remove((9, 64), 5);
        assert!(!batch.is_needed((9, 64), 0));
        batch.need(5);
        assert!(batch.is_needed((9, 64), 0) && batch.is_needed((9, 128), 5));
        batch.add((9, 64));
        assert!(!batch.is_held((9, 64)) && !batch.is_needed((9, 64), 7));
        batch.remove((9, 64), 7);
        assert_eq!(batch.held_in(9).collect::<Vec<_>>(), [(64, 5)], "the one on the disk");
    }
}
