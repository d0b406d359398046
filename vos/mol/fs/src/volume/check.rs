// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finding out whether a file system is sound, and clearing up what a power cut left.

use super::directory::Slot;
use super::Volume;
use crate::disk::Disk;
use crate::error::{Damage, Error};
use crate::format::{Path, DOT, DOT_DOT, POINTERS_DIRECT, ROOT};
use std::collections::{BTreeMap, HashSet};

/// What there is on a disk that should not be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What contradicts itself. With any of it, nothing is cleared up.
    pub damage: Vec<Damage>,
    /// Blocks that are marked as used and are nobody's.
    pub zones: Vec<u32>,
    /// Inodes that are marked as used and have no name.
    pub inodes: Vec<u32>,
    /// Inodes that count more names than they have, and how many they have.
    pub links: Vec<(u32, u16)>,
    /// Directories that are found by more than one name or whose `..` leads elsewhere, as one that was being
    /// moved.
    pub moving: Vec<u32>,
    /// Entries to be removed: the directory and the place.
    stale: Vec<(u32, Slot)>,
    /// Entries `..` to be corrected: the directory and what it should lead to.
    parents: Vec<(u32, Slot, u32)>,
}

impl Report {
    /// Whether there is nothing in it.
    pub fn is_sound(&self) -> bool {
        *self == Self::default()
    }
}

/// What is known so far.
struct Walk {
    report: Report,
    /// How many names each inode has.
    names: Vec<u32>,
    /// Which inodes were looked at.
    visited: Vec<bool>,
    /// Which data blocks somebody has.
    zones: Vec<bool>,
    /// The names of each directory: in which directory, and where.
    above: BTreeMap<u32, Vec<(u32, Slot)>>,
    /// Where `..` of each directory leads.
    parents: BTreeMap<u32, (Slot, u32)>,
    /// Directories that are to be looked at.
    next: Vec<u32>,
}

impl<D: Disk> Volume<D> {
    /// Looks at everything from the root on.
    ///
    /// # Errors
    /// The disk failed. Damage is no error here, but in the report.
    pub fn check(&mut self) -> Result<Report, Error> {
        let mut walk = Walk {
            report: Report::default(),
            names: vec![0; self.layout.inodes as usize + 1],
            visited: vec![false; self.layout.inodes as usize + 1],
            zones: vec![false; self.layout.data_zones() as usize],
            above: BTreeMap::new(),
            parents: BTreeMap::new(),
            next: vec![ROOT],
        };
        if self.visit(&mut walk, ROOT)? != Some(true) && walk.report.damage.is_empty() {
            walk.report.damage.push(Damage::Dots { directory: ROOT });
        }
        while let Some(directory) = walk.next.pop() {
            self.walk_directory(&mut walk, directory)?;
        }
        settle_parents(&mut walk);
        self.compare_inodes(&mut walk)?;
        for bit in 1..=self.layout.data_zones() {
            if self.zone_map.is_set(bit) && !walk.zones[bit as usize - 1] {
                walk.report.zones.push(self.layout.zone_of_bit(bit));
            }
        }
        walk.report.damage.sort_unstable();
        walk.report.damage.dedup();
        Ok(walk.report)
    }

    /// Looks at an inode that is named for the first time. Says whether it is a directory, if it is anything.
    fn visit(&mut self, walk: &mut Walk, number: u32) -> Result<Option<bool>, Error> {
        let node = match self.node(number) {
            Ok(node) => node.clone(),
            Err(error) => return note(walk, error).map(|()| None),
        };
        if node.kind.has_content() {
            for zone in &node.inode.zones[..POINTERS_DIRECT] {
                self.visit_zone(walk, number, *zone, 0)?;
            }
            for depth in 1..=Path::depth_max(&self.layout) {
                let zone = node.inode.zones[POINTERS_DIRECT + depth - 1];
                self.visit_zone(walk, number, zone, depth)?;
            }
        }
        Ok(Some(node.inode.is_directory()))
    }

    /// Looks at a block and at what it leads to over `depth` blocks.
    fn visit_zone(
        &mut self,
        walk: &mut Walk,
        inode: u32,
        zone: u32,
        depth: usize,
    ) -> Result<(), Error> {
        if zone == 0 {
            return Ok(());
        }
        if let Err(error) = self.check_used(inode, zone) {
            return note(walk, error);
        }
        let seen = &mut walk.zones[self.layout.zone_bit(zone) as usize - 1];
        if core::mem::replace(seen, true) {
            return note(walk, Damage::ZoneTwice { inode, zone }.into());
        }
        if depth > 0 {
            match self.pointers(inode, zone) {
                Ok(numbers) => {
                    for next in numbers {
                        self.visit_zone(walk, inode, next, depth - 1)?;
                    }
                }
                Err(error) => note(walk, error)?,
            }
        }
        Ok(())
    }

    fn walk_directory(&mut self, walk: &mut Walk, directory: u32) -> Result<(), Error> {
        let mut entries = Vec::new();
        let scanned = self.scan(directory, 0, |slot, entry| {
            if entry.inode != 0 || slot.at == 0 {
                entries.push((slot, entry.inode, entry.name.to_vec()));
            }
            None::<()>
        });
        if let Err(error) = scanned {
            note(walk, error)?;
        }
        let mut names = HashSet::new();
        for (slot, inode, name) in entries {
            let (is_dot, is_dot_dot) = (name == DOT, name == DOT_DOT);
            let in_place = match slot.at / self.layout.entry_bytes() as u32 {
                0 => is_dot && inode == directory,
                1 => is_dot_dot,
                _ => !is_dot && !is_dot_dot,
            };
            if !in_place {
                note(walk, Damage::Dots { directory }.into())?;
                continue;
            }
            if name.is_empty() || name.contains(&b'/') || !names.insert(name) {
                note(walk, Damage::Name { directory, at: slot.at }.into())?;
                continue;
            }
            if !self.layout.has_inode(inode) {
                note(walk, Damage::InodeOutside { directory, inode }.into())?;
                continue;
            }
            walk.names[inode as usize] += 1;
            if is_dot_dot {
                walk.parents.insert(directory, (slot, inode));
            } else if !is_dot {
                self.walk_name(walk, directory, slot, inode)?;
            }
        }
        let is_root = directory == ROOT;
        match walk.parents.get(&directory) {
            Some((_, parent)) if !is_root || *parent == ROOT => Ok(()),
            _ => note(walk, Damage::Dots { directory }.into()),
        }
    }

    fn walk_name(
        &mut self,
        walk: &mut Walk,
        directory: u32,
        slot: Slot,
        inode: u32,
    ) -> Result<(), Error> {
        if let Some(above) = walk.above.get_mut(&inode) {
            above.push((directory, slot));
            return Ok(());
        }
        if inode == ROOT {
            return note(walk, Damage::Loop { directory: inode }.into());
        }
        // A file with several names is looked at once.
        if core::mem::replace(&mut walk.visited[inode as usize], true) {
            return Ok(());
        }
        if self.visit(walk, inode)? == Some(true) {
            walk.above.insert(inode, vec![(directory, slot)]);
            walk.next.push(inode);
        }
        Ok(())
    }

    fn compare_inodes(&mut self, walk: &mut Walk) -> Result<(), Error> {
        for inode in 1..=self.layout.inodes {
            let names = walk.names[inode as usize];
            if !self.inode_map.is_set(inode) {
                continue;
            }
            if names == 0 {
                walk.report.inodes.push(inode);
                continue;
            }
            let Ok(node) = self.node(inode) else { continue };
            let links = node.inode.links;
            if names > links.into() {
                note(walk, Damage::Links { inode, names, links }.into())?;
            } else if names < links.into() {
                walk.report.links.push((inode, names as u16));
            }
        }
        Ok(())
    }

    /// Clears up what a report has found besides damage.
    ///
    /// # Errors
    /// There is damage, or the disk failed.
    pub fn clear_up(&mut self, report: &Report) -> Result<(), Error> {
        if let Some(damage) = report.damage.first() {
            return Err((*damage).into());
        }
        self.begin_change()?;
        let done = self.clear_up_all(report);
        self.fail_with(done)?;
        self.sync()
    }

    fn clear_up_all(&mut self, report: &Report) -> Result<(), Error> {
        for (directory, slot) in &report.stale {
            self.remove_entry(*directory, *slot)?;
        }
        for (directory, slot, parent) in &report.parents {
            self.replace_entry(*directory, *slot, *parent)?;
        }
        for (number, names) in &report.links {
            let node = self.node_mut(*number)?;
            // The disk counts as many as now until the names that go are gone.
            node.lost_links = node.inode.links - names;
            node.inode.links = *names;
            node.dirty = true;
        }
        for number in &report.inodes {
            self.drop_inode(*number);
        }
        for zone in &report.zones {
            self.drop_zone(*zone);
        }
        Ok(())
    }
}

/// Takes note of damage. Another error is one of the check.
fn note(walk: &mut Walk, error: Error) -> Result<(), Error> {
    match error {
        Error::Damaged(damage) => walk.report.damage.push(damage),
        other => return Err(other),
    }
    Ok(())
}

/// Decides which name of a directory with two stays, and corrects `..` where it leads elsewhere. Such
/// there are when the power went while a directory was being moved: the name that agrees with `..` stays. Of two
/// names in the same directory, nothing says which is the new one, and the first stays.
fn settle_parents(walk: &mut Walk) {
    let mut settled = BTreeMap::new();
    for (directory, above) in &walk.above {
        let Some((slot, parent)) = walk.parents.get(directory) else { continue };
        let agreeing = above.iter().position(|(in_directory, _)| in_directory == parent);
        let keep = agreeing.unwrap_or(0);
        let right = above[keep].0;
        settled.insert(*directory, right);
        if above.len() > 2 || above.len() == 2 && agreeing.is_none() {
            let names = above.len();
            walk.report.damage.push(Damage::Names { directory: *directory, names });
            continue;
        }
        if agreeing.is_none() {
            walk.names[*parent as usize] -= 1;
            walk.names[right as usize] += 1;
            walk.report.parents.push((*directory, *slot, right));
        }
        for (index, (in_directory, slot)) in above.iter().enumerate() {
            if index != keep {
                walk.names[*directory as usize] -= 1;
                walk.report.stale.push((*in_directory, *slot));
            }
        }
        if agreeing.is_none() || above.len() > 1 {
            walk.report.moving.push(*directory);
        }
    }
    walk.report.damage.extend(find_loop(&settled));
}

/// A directory that is above itself, where each has but one above it.
fn find_loop(above: &BTreeMap<u32, u32>) -> Option<Damage> {
    let mut good = HashSet::from([ROOT]);
    for first in above.keys() {
        let mut way = HashSet::new();
        let mut at = *first;
        while !good.contains(&at) {
            // What is above one that is damaged itself is not known here.
            let Some(next) = above.get(&at) else { break };
            if !way.insert(at) {
                return Some(Damage::Loop { directory: at });
            }
            at = *next;
        }
        good.extend(way);
    }
    None
}
