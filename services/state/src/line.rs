// SPDX-License-Identifier: MIT OR Apache-2.0
//! A line of those who want something that only so many can have at once: what locks, semaphores and elections have in common.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::leases::LeaseId;
use crate::tickets::Tickets;

/// Where somebody stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// It has what it wanted.
    Holding {
        /// Greater than that of everybody who held it before. Whoever guards a resource refuses requests with a lower token
        /// than it has seen: their sender has lost what it held and does not know yet (fencing tokens, after Kleppmann).
        fence: u64,
    },
    /// It waits.
    Waiting {
        /// For so many who wait before it.
        ahead: u32,
    },
}

/// Somebody who holds a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its fencing token.
    pub fence: u64,
    /// What it says of itself.
    pub label: Vec<u8>,
}

/// Somebody who waits for a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiter {
    /// Under which lease.
    pub lease: LeaseId,
    /// What it says of itself.
    pub label: Vec<u8>,
}

/// Those who hold one of `places`, and those who wait, first come first served. A lease is in it at most once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    places: u32,
    holders: BTreeMap<LeaseId, Holder>,
    waiting: VecDeque<Waiter>,
}

impl Line {
    /// Nobody in it.
    pub fn new(places: u32) -> Self {
        Self { places, holders: BTreeMap::new(), waiting: VecDeque::new() }
    }

    /// How many can hold a place at once.
    pub fn places(&self) -> u32 {
        self.places
    }

    /// Whether nobody holds a place or waits for one.
    pub fn is_empty(&self) -> bool {
        self.holders.is_empty() && self.waiting.is_empty()
    }

    /// How many are in it.
    pub fn len(&self) -> usize {
        self.holders.len() + self.waiting.len()
    }

    /// Who holds a place.
    pub fn holders(&self) -> impl Iterator<Item = (LeaseId, &Holder)> + '_ {
        self.holders.iter().map(|(lease, holder)| (*lease, holder))
    }

    /// Who waits, the next first.
    pub fn waiting(&self) -> impl Iterator<Item = &Waiter> + '_ {
        self.waiting.iter()
    }

    /// Where a lease stands.
    pub fn standing(&self, lease: LeaseId) -> Option<Standing> {
        if let Some(holder) = self.holders.get(&lease) {
            return Some(Standing::Holding { fence: holder.fence });
        }
        let ahead = self.waiting.iter().position(|waiter| waiter.lease == lease)?;
        Some(Standing::Waiting { ahead: u32::try_from(ahead).unwrap_or(u32::MAX) })
    }

    /// Whether whoever comes now gets a place at once.
    pub fn has_room(&self) -> bool {
        self.waiting.is_empty() && self.holders.len() < self.places as usize
    }

    /// Puts a lease at the end of the line. Who is in it already stays where it stands, so that asking again is harmless.
    pub fn enter(&mut self, tickets: &mut Tickets, lease: LeaseId, label: &[u8]) -> Standing {
        if let Some(standing) = self.standing(lease) {
            return standing;
        }
        self.waiting.push_back(Waiter { lease, label: label.to_owned() });
        self.admit(tickets);
        self.standing(lease).unwrap_or(Standing::Waiting { ahead: 0 })
    }

    /// Takes a lease out of the line; whoever is next gets its place. Says whether it was in it.
    pub fn leave(&mut self, tickets: &mut Tickets, lease: LeaseId) -> bool {
        let before = self.len();
        self.holders.remove(&lease);
        self.waiting.retain(|waiter| waiter.lease != lease);
        self.admit(tickets);
        self.len() < before
    }

    /// Changes what a holder says of itself. Says whether it holds a place.
    pub fn relabel(&mut self, lease: LeaseId, label: &[u8]) -> bool {
        let Some(holder) = self.holders.get_mut(&lease) else { return false };
        holder.label = label.to_owned();
        true
    }

    fn admit(&mut self, tickets: &mut Tickets) {
        while self.holders.len() < self.places as usize {
            let Some(Waiter { lease, label }) = self.waiting.pop_front() else { return };
            self.holders.insert(lease, Holder { fence: tickets.draw(), label });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a plain list: the first `places` of it hold, in the order in which they came.
        #[test]
        fn a_line_is_a_list_whose_first_hold(
            places in 1u32..4,
            steps in prop::collection::vec((any::<bool>(), 0u64..6), 1..60),
        ) {
            let (mut line, mut tickets) = (Line::new(places), Tickets::default());
            let mut model: Vec<u64> = Vec::new();
            let mut fences: BTreeMap<u64, u64> = BTreeMap::new();
            let mut newest = 0;
            for (enter, who) in steps {
                if enter {
                    line.enter(&mut tickets, LeaseId(who), b"");
                    if !model.contains(&who) {
                        model.push(who);
                    }
                } else {
                    prop_assert_eq!(line.leave(&mut tickets, LeaseId(who)), model.contains(&who));
                    model.retain(|other| *other != who);
                    fences.remove(&who);
                }
                for (at, who) in model.iter().enumerate() {
                    match line.standing(LeaseId(*who)) {
                        Some(Standing::Holding { fence }) => {
                            prop_assert!(at < places as usize);
                            // It keeps its token as long as it holds; a new one is above all before.
                            if let Some(kept) = fences.insert(*who, fence) {
                                prop_assert_eq!(kept, fence);
                            } else {
                                prop_assert!(fence > newest);
                                newest = fence;
                            }
                        }
                        Some(Standing::Waiting { ahead }) => {
                            prop_assert_eq!(at, places as usize + ahead as usize);
                        }
                        None => prop_assert!(false, "{} is lost", who),
                    }
                }
                prop_assert_eq!(line.holders().count(), model.len().min(places as usize));
                prop_assert_eq!(line.len(), model.len());
            }
        }
    }
}
