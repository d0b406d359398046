// SPDX-License-Identifier: MIT OR Apache-2.0
//! Taking and freeing blocks and inodes.

use super::map::{content_role, pointers_in};
use super::Volume;
use crate::cache::{Role, Tag};
use crate::disk::Disk;
use crate::error::{Damage, Error};
use crate::format::{Kind, Path, POINTERS_DIRECT};
use mol_protocol::Errno;

/// What it takes to free the blocks of a file from some block on: found out before anything is changed.
#[derive(Debug, Default)]
pub(super) struct Release {
    /// The blocks.
    zones: Vec<u32>,
    /// Which numbers in the inode lead to them,
    slots: Vec<usize>,
    /// and which in blocks of numbers that stay: the block and the index in it.
    cuts: Vec<(u32, u32)>,
}

impl<D: Disk> Volume<D> {
    /// Sees to it that so many blocks can be taken. What was freed can be given out only when the disk knows
    /// that it is free, so this may write everything.
    pub(super) fn reserve_zones(&mut self, count: u32) -> Result<(), Error> {
        if self.zone_map.free() < count && !self.batch.freed_zones.is_empty() {
            self.sync()?;
        }
        (self.zone_map.free() >= count).then_some(()).ok_or(Errno::NoSpace.into())
    }

    /// Sees to it that an inode can be taken.
    pub(super) fn reserve_inode(&mut self) -> Result<(), Error> {
        if self.inode_map.free() == 0 && !self.batch.freed_inodes.is_empty() {
            self.sync()?;
        }
        (self.inode_map.free() > 0).then_some(()).ok_or(Errno::NoSpace.into())
    }

    /// Takes a block, near `near` if that can be.
    fn take_zone(&mut self, near: Option<u32>) -> Result<u32, Error> {
        let near = near.filter(|zone| self.layout.is_data(*zone));
        let bit = self.zone_map.take(near.map(|zone| self.layout.zone_bit(zone)));
        let zone = self.layout.zone_of_bit(bit.ok_or(Errno::NoSpace)?);
        self.batch.fresh_zones.insert(zone);
        Ok(zone)
    }

    /// Takes an inode.
    pub(super) fn take_inode(&mut self) -> Result<u32, Error> {
        let number = self.inode_map.take(None).ok_or(Errno::NoSpace)?;
        self.batch.fresh_inodes.insert(number);
        Ok(number)
    }

    pub(super) fn drop_zone(&mut self, zone: u32) {
        self.cache.discard(zone);
        self.batch.forget_zone(zone);
        if self.batch.fresh_zones.remove(&zone) {
            self.zone_map.give(self.layout.zone_bit(zone));
        } else {
            self.batch.freed_zones.insert(zone);
        }
    }

    /// Frees an inode, whose blocks are freed already.
    pub(super) fn drop_inode(&mut self, number: u32) {
        self.nodes.remove(&number);
        if self.batch.fresh_inodes.remove(&number) {
            self.inode_map.give(number);
        } else {
            self.batch.freed_inodes.insert(number);
        }
    }

    /// Block `index` of a file, taken if there was none: then it is one of zeros. Takes up to three
    /// blocks of numbers as well.
    pub(super) fn make_zone(&mut self, number: u32, index: u32) -> Result<u32, Error> {
        let path = Path::to(&self.layout, index).ok_or(Errno::TooLarge)?;
        let kind = self.node(number)?.kind;
        let content = Tag { owner: number, role: content_role(kind) };
        let numbers = Tag { owner: number, role: Role::Pointers };
        let mut zone = self.node(number)?.inode.zones[path.slot];
        let mut parent = None;
        let mut near = None;
        for level in 0..=path.depth {
            if let Some((above, step)) = parent {
                zone = self.pointer(number, above, step)?;
            }
            if zone == 0 {
                if near.is_none() {
                    self.reserve_zones((path.depth - level + 1) as u32)?;
                    near = Some(self.place_near(number, index)?);
                }
                zone = self.take_zone(near)?;
                near = Some(zone + 1);
                let tag = if level == path.depth { content } else { numbers };
                self.cache.fresh(zone, tag);
                if let Err(error) = self.set_pointer(number, path.slot, parent, zone) {
                    self.drop_zone(zone);
                    return Err(error);
                }
            } else {
                self.check_used(number, zone)?;
            }
            parent = path.steps().get(level).map(|step| (zone, *step));
        }
        Ok(zone)
    }

    /// Where a new block of a file is best: behind the one before it, or where its inode's number says.
    fn place_near(&mut self, number: u32, index: u32) -> Result<u32, Error> {
        let before = if index == 0 { 0 } else { self.zone_at(number, index - 1)? };
        let spread = u64::from(number) * u64::from(self.layout.data_zones())
            / (u64::from(self.layout.inodes) + 1);
        Ok(if before == 0 { self.layout.first_data_zone + spread as u32 } else { before + 1 })
    }

    /// Sets a number in an inode or, with `parent`, in a block of numbers.
    fn set_pointer(
        &mut self,
        number: u32,
        slot: usize,
        parent: Option<(u32, u32)>,
        zone: u32,
    ) -> Result<(), Error> {
        if let Some((above, step)) = parent {
            self.write_pointer(number, above, step, zone)?;
        }
        let node = self.node_mut(number)?;
        if parent.is_none() {
            node.inode.zones[slot] = zone;
            node.dirty = true;
        }
        node.blocks = node.blocks.map(|blocks| blocks + 1);
        Ok(())
    }

    fn write_pointer(&mut self, number: u32, zone: u32, step: u32, to: u32) -> Result<(), Error> {
        let tag = Tag { owner: number, role: Role::Pointers };
        let at = step as usize * 4;
        self.cache.change(zone, tag)?[at..at + 4].copy_from_slice(&to.to_le_bytes());
        Ok(())
    }

    /// Refuses a block that is none for data, or marked as free.
    pub(super) fn check_used(&self, number: u32, zone: u32) -> Result<(), Error> {
        self.check_zone(number, zone)?;
        if !self.zone_map.is_set(self.layout.zone_bit(zone))
            || self.batch.freed_zones.contains(&zone)
        {
            return Err(Damage::ZoneFree { inode: number, zone }.into());
        }
        Ok(())
    }

    /// What it takes to free the blocks of a file from block `keep` on. Changes nothing.
    pub(super) fn plan_release(&mut self, number: u32, keep: u32) -> Result<Release, Error> {
        let node = self.node(number)?;
        let (kind, zones) = (node.kind, node.inode.zones);
        let mut release = Release::default();
        if !kind.has_content() {
            return Ok(release);
        }
        for (slot, zone) in zones.iter().enumerate().take(POINTERS_DIRECT).skip(keep as usize) {
            if *zone != 0 {
                self.collect(&mut release, number, *zone, 0)?;
                release.slots.push(slot);
            }
        }
        let mut first = POINTERS_DIRECT as u64;
        for depth in 1..=Path::depth_max(&self.layout) {
            let span = u64::from(self.layout.pointers_per_block()).pow(depth as u32);
            let slot = POINTERS_DIRECT + depth - 1;
            let skip = u64::from(keep).saturating_sub(first);
            if zones[slot] != 0 && skip == 0 {
                self.collect(&mut release, number, zones[slot], depth)?;
                release.slots.push(slot);
            } else if zones[slot] != 0 && skip < span {
                self.collect_behind(&mut release, number, zones[slot], depth, skip)?;
            }
            first += span;
        }
        let mut sorted = release.zones.clone();
        sorted.sort_unstable();
        if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Damage::ZoneTwice { inode: number, zone: twice[0] }.into());
        }
        Ok(release)
    }

    /// Collects `zone` and what it leads to over `depth` blocks.
    fn collect(
        &mut self,
        release: &mut Release,
        number: u32,
        zone: u32,
        depth: usize,
    ) -> Result<(), Error> {
        self.check_used(number, zone)?;
        release.zones.push(zone);
        if release.zones.len() > self.layout.data_zones() as usize {
            return Err(Damage::ZoneTwice { inode: number, zone }.into());
        }
        if depth > 0 {
            for next in self.pointers(number, zone)? {
                if next != 0 {
                    self.collect(release, number, next, depth - 1)?;
                }
            }
        }
        Ok(())
    }

    /// Collects what `zone` leads to over `depth` blocks, but for the first `skip`, which are some.
    fn collect_behind(
        &mut self,
        release: &mut Release,
        number: u32,
        zone: u32,
        depth: usize,
        skip: u64,
    ) -> Result<(), Error> {
        self.check_used(number, zone)?;
        let span = u64::from(self.layout.pointers_per_block()).pow(depth as u32 - 1);
        let (first, rest) = (skip / span, skip % span);
        for (step, next) in (0..).zip(self.pointers(number, zone)?).skip(first as usize) {
            if next == 0 {
                continue;
            }
            if u64::from(step) == first && rest > 0 {
                self.collect_behind(release, number, next, depth - 1, rest)?;
            } else {
                self.collect(release, number, next, depth - 1)?;
                release.cuts.push((zone, step));
            }
        }
        Ok(())
    }

    /// The numbers in the block of numbers `zone`.
    pub(super) fn pointers(&mut self, number: u32, zone: u32) -> Result<Vec<u32>, Error> {
        let bytes = self.layout.pointer_bytes();
        let tag = Tag { owner: number, role: Role::Pointers };
        Ok(pointers_in(self.cache.block(zone, tag)?, bytes).collect())
    }

    /// Frees what was planned.
    pub(super) fn release_zones(&mut self, number: u32, release: Release) -> Result<(), Error> {
        for (zone, step) in release.cuts {
            self.write_pointer(number, zone, step, 0)?;
        }
        let node = self.node_mut(number)?;
        for slot in release.slots {
            node.inode.zones[slot] = 0;
        }
        node.dirty = true;
        node.ahead = 0;
        let freed = release.zones.len() as u32;
        node.blocks = node.blocks.map(|blocks| blocks.saturating_sub(freed));
        for zone in release.zones {
            self.drop_zone(zone);
        }
        Ok(())
    }

    /// What it takes to free an inode and its blocks.
    pub(super) fn plan_free(&mut self, number: u32) -> Result<Release, Error> {
        self.plan_release(number, 0)
    }

    /// Frees an inode and its blocks.
    pub(super) fn free(&mut self, number: u32, release: Release) {
        for zone in release.zones {
            self.drop_zone(zone);
        }
        self.drop_inode(number);
    }

    /// The tag of the content of a file.
    pub(super) fn content_tag(&mut self, number: u32) -> Result<Tag, Error> {
        let kind: Kind = self.node(number)?.kind;
        Ok(Tag { owner: number, role: content_role(kind) })
    }
}
