// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who was a member and must not be one any more.
//!
//! Rosters are merged, so what one node takes off another would bring back. Therefore the nodes *agree* on who is removed,
//! and each of them leaves those out of whatever roster it hears of. The removed node may not hear of the agreement; the
//! others say it in their beacons for as long as they hear it.

use std::collections::BTreeMap;

use dvs_config::Mac;

use super::roster::{Entry, Roster};
use crate::beacon::Seat;

/// The last life of a machine that is no node any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removal {
    /// The place that it had.
    pub seat: Seat,
    /// Whether it may not come back in a later life either.
    pub barred: bool,
}

/// All that were removed, by machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removals(BTreeMap<Mac, Removal>);

impl FromIterator<(Mac, Removal)> for Removals {
    fn from_iter<T: IntoIterator<Item = (Mac, Removal)>>(removed: T) -> Self {
        Self(removed.into_iter().collect())
    }
}

impl Removals {
    /// Whether a machine must not be given a place.
    pub(super) fn bar(&self, mac: Mac) -> bool {
        self.0.get(&mac).is_some_and(|removed| removed.barred)
    }

    /// Whether a machine that has no place, and says that it belongs to the cluster or not, is to be told that it was removed.
    pub(super) fn concern(&self, mac: Mac, belongs: bool) -> bool {
        self.0.get(&mac).is_some_and(|removed| removed.barred || belongs)
    }

    /// Whether an entry must not be in a roster.
    pub(super) fn forbid(&self, entry: &Entry) -> bool {
        self.bar(entry.mac) || self.end(entry)
    }

    /// Whether it is that life of a machine, or an earlier one, in which it was removed.
    pub(super) fn end(&self, entry: &Entry) -> bool {
        let removed = self.0.get(&entry.mac);
        removed.is_some_and(|removed| entry.seat.incarnation <= removed.seat.incarnation)
    }

    /// The place that a machine had which may come back.
    pub(super) fn place(&self, mac: Mac) -> Option<Seat> {
        self.0.get(&mac).map(|removed| removed.seat)
    }

    /// Whether an id was that of a machine that is no node any more. It is not given to another one, whose incarnations would
    /// begin anew: somebody may still know endpoints of the former.
    pub(super) fn holds(&self, id: u16) -> bool {
        self.0.values().any(|removed| removed.seat.id == id)
    }

    /// Leaves out of a roster who must not be in it. Says whether anybody was.
    pub(super) fn apply(&self, roster: &mut Roster) -> bool {
        match self.0.is_empty() {
            true => false,
            false => roster.retain(|entry| !self.forbid(entry)),
        }
    }
}
