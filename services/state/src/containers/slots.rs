// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who may bind which slots of a container, and from which generation on.
//!
//! Slots are handed out in blocks, so that a node binds them without asking anybody. A node that needs more asks; what is
//! free is given to it at once, and for the rest others are asked to give blocks of theirs in which nothing is bound (the
//! idea of the papers' SLOTS).
//!
//! Nobody but the node knows how often it has bound a slot, so a lease comes with a *window* of generations, and each window
//! of a container is given once: to one life of one node. So whoever gets a block next, be it that the holder died, was cut off
//! and goes on binding, or came back, makes endpoints that differ from all before.

use std::collections::{BTreeMap, BTreeSet};

use dvk_abi::limits::{LEASE_SLOTS, SERVER_SLOTS, SLOTS};
use serde::{Deserialize, Serialize};

use crate::nodes::{NodeId, Seat};
use crate::refusal::{Refusal, Thing};

/// How many generations a window has. A holder that has bound one of its slots nearly as often renews its lease.
pub const WINDOW: u32 = 1 << 16;
/// How many blocks a container has to hand out.
pub const BLOCKS: u32 = (SLOTS - SERVER_SLOTS) / LEASE_SLOTS;
/// Windows a container can ever give.
const WINDOWS: u32 = u32::MAX / WINDOW;

/// A block of slots, below [`BLOCKS`].
pub type Block = u16;

/// The right to bind the slots of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotLease {
    /// Whose it is.
    pub holder: Seat,
    window: u32,
}

impl SlotLease {
    /// The first generation that the holder may give.
    pub fn first_generation(self) -> u32 {
        self.window * WINDOW
    }

    /// The last generation that the holder may give.
    pub fn last_generation(self) -> u32 {
        self.first_generation() + (WINDOW - 1)
    }
}

/// The first slot of a block.
pub fn first_slot(block: Block) -> u32 {
    SERVER_SLOTS + u32::from(block) * LEASE_SLOTS
}

/// The slots of one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slots {
    leases: BTreeMap<Block, SlotLease>,
    /// The windows from which nodes bind server slots, which are nobody's.
    servers: BTreeMap<NodeId, SlotLease>,
    /// Nodes that have asked for more blocks than were free, and for how many more.
    wanted: BTreeMap<NodeId, u32>,
    next_window: u32,
}

impl Default for Slots {
    fn default() -> Self {
        // Generation 0 names nobody, so the first window is not given.
        let nothing = BTreeMap::new();
        Self { leases: BTreeMap::new(), servers: BTreeMap::new(), wanted: nothing, next_window: 1 }
    }
}

impl Slots {
    /// Who may bind a block.
    pub fn lease(&self, block: Block) -> Option<SlotLease> {
        self.leases.get(&block).copied()
    }

    /// All blocks that somebody may bind.
    pub fn leases(&self) -> impl Iterator<Item = (Block, SlotLease)> + '_ {
        self.leases.iter().map(|(block, lease)| (*block, *lease))
    }

    /// The window of generations from which a node binds server slots.
    pub fn servers(&self, node: NodeId) -> Option<SlotLease> {
        self.servers.get(&node).copied()
    }

    /// Nodes that want more blocks than there were, and how many. Whoever has more blocks than others should give some.
    pub fn wanted(&self) -> impl Iterator<Item = (NodeId, u32)> + '_ {
        self.wanted.iter().map(|(node, blocks)| (*node, *blocks))
    }

    /// How many blocks a node holds.
    pub fn held(&self, node: NodeId) -> u32 {
        let held = self.leases.values().filter(|lease| lease.holder.id == node).count();
        u32::try_from(held).unwrap_or(u32::MAX)
    }

    /// Lets a life of a node bind server slots. Asking again changes nothing.
    pub(super) fn admit(&mut self, holder: Seat) -> Result<(), Refusal> {
        if self.servers.get(&holder.id).is_none_or(|lease| lease.holder != holder) {
            let window = self.open_window()?;
            self.servers.insert(holder.id, SlotLease { holder, window });
        }
        Ok(())
    }

    /// Gives a node so many more blocks, as far as there are free ones; the rest is noted as wanted.
    pub(super) fn take(&mut self, holder: Seat, blocks: u32) -> Result<Vec<Block>, Refusal> {
        if blocks > BLOCKS {
            return Err(Refusal::limit("blocks of slots of a container", BLOCKS));
        }
        let free = (0..BLOCKS).filter_map(|block| Block::try_from(block).ok());
        let free = free.filter(|block| !self.leases.contains_key(block));
        let taken: Vec<Block> = free.take(blocks as usize).collect();
        // One window serves all: it is opened once, for this holder.
        if !taken.is_empty() {
            let window = self.open_window()?;
            for block in &taken {
                self.leases.insert(*block, SlotLease { holder, window });
            }
        }
        match blocks - u32::try_from(taken.len()).unwrap_or(blocks) {
            0 => drop(self.wanted.remove(&holder.id)),
            missing => drop(self.wanted.insert(holder.id, missing)),
        }
        Ok(taken)
    }

    /// Gives the holder of a block a new window for it, since the one it has is nearly used up.
    pub(super) fn renew(&mut self, holder: Seat, block: Block) -> Result<(), Refusal> {
        self.check_holder(holder, block)?;
        let window = self.open_window()?;
        self.leases.insert(block, SlotLease { holder, window });
        Ok(())
    }

    /// Takes back blocks in which the holder has bound nothing; they go to whoever wants some and has fewest.
    pub(super) fn give(&mut self, holder: Seat, blocks: &[Block]) -> Result<(), Refusal> {
        let blocks: BTreeSet<Block> = blocks.iter().copied().collect();
        for block in &blocks {
            self.check_holder(holder, *block)?;
        }
        for block in blocks {
            self.leases.remove(&block);
        }
        Ok(())
    }

    /// Hands free blocks to those who want them, fewest first; `seat` tells the present life of a node.
    pub(super) fn hand_out(&mut self, seat: impl Fn(NodeId) -> Option<Seat>) {
        self.wanted.retain(|node, _| seat(*node).is_some());
        let free: Vec<Block> = (0..BLOCKS)
            .filter_map(|block| Block::try_from(block).ok())
            .filter(|block| !self.leases.contains_key(block))
            .collect();
        let mut windows: BTreeMap<NodeId, SlotLease> = BTreeMap::new();
        for block in free {
            let neediest = self.wanted.keys().copied().min_by_key(|node| (self.held(*node), *node));
            let Some(node) = neediest else { return };
            let lease = match windows.get(&node) {
                Some(lease) => *lease,
                None => {
                    let Some(holder) = seat(node) else { return };
                    let Ok(window) = self.open_window() else { return };
                    *windows.entry(node).or_insert(SlotLease { holder, window })
                }
            };
            self.leases.insert(block, lease);
            if let Some(missing) = self.wanted.get_mut(&node) {
                *missing -= 1;
                if *missing == 0 {
                    self.wanted.remove(&node);
                }
            }
        }
    }

    /// Takes back everything of a node.
    pub(super) fn reclaim(&mut self, node: NodeId) {
        self.leases.retain(|_, lease| lease.holder.id != node);
        self.servers.remove(&node);
        self.wanted.remove(&node);
    }

    fn check_holder(&self, holder: Seat, block: Block) -> Result<(), Refusal> {
        match self.leases.get(&block) {
            Some(lease) if lease.holder == holder => Ok(()),
            Some(lease) => Err(Refusal::Invalid(format!(
                "block {block} is leased to node {}, not to node {holder}",
                lease.holder
            ))),
            None => Err(Refusal::missing(Thing::Block, block)),
        }
    }

    fn open_window(&mut self) -> Result<u32, Refusal> {
        if self.next_window >= WINDOWS {
            return Err(Refusal::limit(
                "windows of generations that a container ever gives",
                WINDOWS,
            ));
        }
        let window = self.next_window;
        self.next_window += 1;
        Ok(window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seat(id: NodeId) -> Seat {
        Seat { id, incarnation: 1 }
    }

    #[test]
    fn blocks_are_given_at_once_while_there_are_free_ones() {
        let mut slots = Slots::default();
        assert_eq!(slots.take(seat(0), 2).unwrap(), [0, 1]);
        assert_eq!(slots.take(seat(1), 1).unwrap(), [2]);
        assert_eq!(first_slot(2), 64 + 64);
        assert!(
            slots.lease(2).unwrap().first_generation() > slots.lease(0).unwrap().last_generation()
        );
        assert_eq!(slots.wanted().count(), 0);
    }

    #[test]
    fn what_is_wanted_beyond_is_donated_to_who_has_fewest() {
        let mut slots = Slots::default();
        slots.take(seat(0), BLOCKS).unwrap();
        assert_eq!(slots.take(seat(1), 2).unwrap(), []);
        assert_eq!(slots.take(seat(2), 1).unwrap(), []);
        assert_eq!(slots.wanted().collect::<Vec<_>>(), [(1, 2), (2, 1)]);
        assert!(slots.give(seat(1), &[5]).is_err(), "it is not that node's");
        slots.give(seat(0), &[5, 6, 6]).unwrap();
        slots.hand_out(|id| Some(seat(id)));
        assert_eq!(
            (slots.lease(5).unwrap().holder, slots.lease(6).unwrap().holder),
            (seat(1), seat(2))
        );
        assert_eq!(slots.wanted().collect::<Vec<_>>(), [(1, 1)]);
    }

    #[test]
    fn the_last_window_is_not_passed() {
        let mut slots = Slots { next_window: WINDOWS - 1, ..Slots::default() };
        slots.take(seat(0), 1).unwrap();
        assert_eq!(slots.lease(0).unwrap().last_generation(), u32::MAX - WINDOW);
        let before = slots.clone();
        assert!(slots.take(seat(0), 1).is_err() && slots.admit(seat(0)).is_err());
        assert!(slots.renew(seat(0), 0).is_err());
        assert_eq!(slots, before);
    }

    proptest! {
        /// Whatever happens, a window belongs to one life of one node, and a block has one holder.
        #[test]
        fn no_generation_is_ever_given_twice(
            steps in prop::collection::vec((0u8..5, 0u16..3, 0u16..4), 1..80),
        ) {
            let mut slots = Slots::default();
            let mut lives = [1u32; 3];
            let mut owners: BTreeMap<u32, Seat> = BTreeMap::new();
            let mut ended: BTreeSet<(Block, u32)> = BTreeSet::new();
            for (action, id, block) in steps {
                let holder = Seat { id, incarnation: lives[usize::from(id)] };
                let before = slots.leases.clone();
                match action {
                    0 => drop(slots.take(holder, 1 + u32::from(block)).unwrap()),
                    1 => drop(slots.give(holder, &[block])),
                    2 => drop(slots.renew(holder, block)),
                    3 => slots.admit(holder).unwrap(),
                    _ => {
                        slots.reclaim(id);
                        lives[usize::from(id)] += 1;
                    }
                }
                slots.hand_out(|id| Some(Seat { id, incarnation: lives[usize::from(id)] }));
                for (block, lease) in before {
                    if slots.lease(block) != Some(lease) {
                        ended.insert((block, lease.window));
                    }
                }
                for (block, lease) in &slots.leases {
                    prop_assert!(!ended.contains(&(*block, lease.window)));
                }
                for lease in slots.leases.values().chain(slots.servers.values()) {
                    prop_assert!(lease.first_generation() > 0);
                    prop_assert_eq!(lease.holder.incarnation, lives[usize::from(lease.holder.id)]);
                    prop_assert_eq!(*owners.entry(lease.window).or_insert(lease.holder), lease.holder);
                }
            }
        }
    }
}
