// SPDX-License-Identifier: MIT OR Apache-2.0
//! The roster: which machine holds which node id, and in which incarnation.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use dvs_config::Mac;

use super::removals::Removals;
use crate::beacon::{PeerEntry, Seat};

/// A machine's place in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id and incarnation.
    pub seat: Seat,
    /// Its identity.
    pub mac: Mac,
    /// Which run of its `dvsd` the incarnation stands for.
    pub instance: u64,
}

/// All places of a cluster by id. Nobody is taken off but who was [removed](super::Removals), so that a machine that comes
/// back gets its id again.
///
/// Rosters are not agreed upon but merged. Two nodes that have merged the same entries, in any
/// order and however often, hold the same roster: of two entries for an id the lower MAC address
/// wins, and of two for one run of the same machine the higher incarnation, then the higher
/// instance; a machine with two ids keeps the one with the higher incarnation, then the lower id.
/// The machine that loses its place sees so and asks to join again.
///
/// That is not consensus. If two halves of a cluster that do not hear each other both admitted
/// machines, the same id with the same incarnation could be held by two of them until the halves
/// meet. [`Membership`](super::Membership) therefore admits machines it has not known before only
/// while it hears more than half of the roster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster(BTreeMap<u16, Entry>);

impl Roster {
    /// The roster of a new cluster: ids from 0 up in the order of identities.
    pub fn bootstrap(machines: &BTreeMap<Mac, u64>) -> Self {
        let seats = machines.iter().zip(0..).map(|((mac, instance), id)| {
            (id, Entry { seat: Seat { id, incarnation: 1 }, mac: *mac, instance: *instance })
        });
        Self(seats.collect())
    }

    /// The entries of a beacon that have a seat.
    pub fn of_peers(peers: &[PeerEntry]) -> Self {
        let mut roster = Self::default();
        for peer in peers {
            if let Some(seat) = peer.seat {
                roster.insert(Entry { seat, mac: peer.mac, instance: peer.instance });
            }
        }
        roster.settle_machines();
        roster
    }

    /// Entries in the order of ids.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> + '_ {
        self.0.values()
    }

    /// How many places there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no place.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Who has an id.
    pub fn get(&self, id: u16) -> Option<&Entry> {
        self.0.get(&id)
    }

    /// The place of a machine.
    pub fn of_machine(&self, mac: Mac) -> Option<&Entry> {
        self.0.values().find(|entry| entry.mac == mac)
    }

    /// The place of one run of a machine.
    pub fn of_instance(&self, mac: Mac, instance: u64) -> Option<&Entry> {
        self.of_machine(mac).filter(|entry| entry.instance == instance)
    }

    /// Takes over what another roster knows better. Says whether anything changed.
    pub fn merge(&mut self, other: &Self) -> bool {
        // Nearly every beacon says what is known.
        if self == other {
            return false;
        }
        let before = self.clone();
        for entry in other.0.values() {
            self.insert(*entry);
        }
        self.settle_machines();
        *self != before
    }

    /// Keeps only some entries. Says whether any went.
    pub(super) fn retain(&mut self, keep: impl Fn(&Entry) -> bool) -> bool {
        let before = self.0.len();
        self.0.retain(|_, entry| keep(entry));
        self.0.len() < before
    }

    /// Gives a machine a place: the id it had, even if it was removed meanwhile, with the next incarnation; or the lowest one
    /// that was nobody's.
    pub(super) fn admit(&mut self, mac: Mac, instance: u64, removed: &Removals) -> Entry {
        let had = self.of_machine(mac).map(|entry| entry.seat);
        let had = had.or_else(|| removed.place(mac).filter(|seat| !self.0.contains_key(&seat.id)));
        let seat = match had {
            Some(seat) => Seat { id: seat.id, incarnation: seat.incarnation.saturating_add(1) },
            None => {
                let free = |id: &u16| !self.0.contains_key(id) && !removed.holds(*id);
                Seat { id: (0..).find(free).unwrap_or(u16::MAX), incarnation: 1 }
            }
        };
        let entry = Entry { seat, mac, instance };
        self.0.insert(seat.id, entry);
        entry
    }

    fn insert(&mut self, entry: Entry) {
        let rank = |entry: &Entry| (Reverse(entry.mac), entry.seat.incarnation, entry.instance);
        let held = self.0.entry(entry.seat.id).or_insert(entry);
        if rank(&entry) > rank(held) {
            *held = entry;
        }
    }

    fn settle_machines(&mut self) {
        let mut best: BTreeMap<Mac, Seat> = BTreeMap::new();
        for Entry { seat, mac, .. } in self.0.values() {
            let kept = best.entry(*mac).or_insert(*seat);
            if (seat.incarnation, Reverse(seat.id)) > (kept.incarnation, Reverse(kept.id)) {
                *kept = *seat;
            }
        }
        self.0.retain(|id, entry| best[&entry.mac].id == *id);
    }
}

#[cfg(test)]
mod tests {
    use super::super::removals::Removal;
    use super::*;

    fn none() -> Removals {
        Removals::default()
    }

    fn mac(n: u8) -> Mac {
        Mac([2, 0, 0, 0, 0, n])
    }

    fn roster(machines: &[u8]) -> Roster {
        Roster::bootstrap(&machines.iter().map(|n| (mac(*n), u64::from(*n))).collect())
    }

    #[test]
    fn ids_follow_the_order_of_identities() {
        let ids: Vec<_> = roster(&[9, 3, 5]).entries().map(|e| (e.seat.id, e.mac)).collect();
        assert_eq!(ids, [(0, mac(3)), (1, mac(5)), (2, mac(9))]);
    }

    #[test]
    fn a_machine_that_comes_back_has_its_id_and_the_next_incarnation() {
        let mut roster = roster(&[1, 2]);
        assert_eq!(roster.admit(mac(1), 100, &none()).seat, Seat { id: 0, incarnation: 2 });
        assert_eq!(roster.admit(mac(7), 7, &none()).seat, Seat { id: 2, incarnation: 1 });
        assert_eq!(roster.len(), 3);
    }

    #[test]
    fn merging_is_the_same_in_any_order_and_leaves_no_id_and_no_machine_twice() {
        let (mut left, mut right) = (roster(&[1, 2]), roster(&[1, 2]));
        left.admit(mac(8), 8, &none());
        right.admit(mac(7), 7, &none());
        left.admit(mac(1), 100, &none());
        right.admit(mac(1), 200, &none());
        right.admit(mac(8), 8, &none());
        left.admit(mac(2), 300, &none());
        let (mut a, mut b) = (left.clone(), right.clone());
        assert!(a.merge(&right));
        assert!(b.merge(&left));
        assert_eq!(a, b);
        assert!(!a.merge(&right) && !a.merge(&left));
        assert_eq!(a.of_machine(mac(1)).unwrap().instance, 200);
        assert_eq!(a.of_machine(mac(7)).unwrap().seat.id, 2);
        assert_eq!(a.of_machine(mac(8)).unwrap().seat.id, 3);
        assert_eq!(a.len(), 4);
    }

    #[test]
    fn an_id_of_a_removed_machine_is_kept_for_it_and_given_to_nobody_else() {
        let mut roster = roster(&[1, 2, 3]);
        let gone = |barred| {
            let seat = Seat { id: 1, incarnation: 4 };
            Removals::from_iter([(mac(2), Removal { seat, barred })])
        };
        assert!(gone(true).apply(&mut roster));
        assert!(!gone(true).apply(&mut roster));
        let other = self::roster(&[1, 2, 3]);
        roster.merge(&other);
        assert!(gone(false).apply(&mut roster), "what others still have is left out again");
        assert_eq!(roster.admit(mac(7), 7, &gone(true)).seat, Seat { id: 3, incarnation: 1 });
        assert_eq!(roster.admit(mac(2), 22, &gone(false)).seat, Seat { id: 1, incarnation: 5 });
        assert!(!gone(false).apply(&mut roster), "a later life of it is no removed one");
        assert!(gone(true).apply(&mut roster));
    }
}
