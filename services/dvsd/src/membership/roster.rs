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
/// A roster is not agreed upon but follows from the records that members spread, of which there is one for each id
/// ([`swim::record`](super::swim::record) says which); a machine with two ids keeps the one with the higher incarnation, then
/// the lower id. So nodes that know the same records hold the same roster.
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

    /// The places that are in a beacon's peers.
    pub fn of_peers(peers: &[PeerEntry]) -> Self {
        let entry = |peer: &PeerEntry| {
            Some(Entry { seat: peer.seat?, mac: peer.mac, instance: peer.instance })
        };
        Self::of_entries(peers.iter().filter_map(entry))
    }

    /// The places that these stand for.
    pub fn of_entries(entries: impl Iterator<Item = Entry>) -> Self {
        let mut roster = Self(entries.map(|entry| (entry.seat.id, entry)).collect());
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

    /// Keeps only some entries. Says whether any went.
    pub(super) fn retain(&mut self, keep: impl Fn(&Entry) -> bool) -> bool {
        let before = self.0.len();
        self.0.retain(|_, entry| keep(entry));
        self.0.len() < before
    }

    /// Gives a machine a place: the id it had, even if it was removed meanwhile, with the next incarnation; or the lowest one
    /// that was nobody's: `is_taken` says of ids without a place whether they are somebody's.
    pub(super) fn admit(
        &mut self,
        mac: Mac,
        instance: u64,
        removed: &Removals,
        is_taken: impl Fn(u16) -> bool,
    ) -> Entry {
        let had = self.of_machine(mac).map(|entry| entry.seat);
        let had = had.or_else(|| removed.place(mac).filter(|seat| !self.0.contains_key(&seat.id)));
        let seat = match had {
            Some(seat) => Seat { id: seat.id, incarnation: seat.incarnation.saturating_add(1) },
            None => {
                let free =
                    |id: &u16| !self.0.contains_key(id) && !removed.holds(*id) && !is_taken(*id);
                Seat { id: (0..).find(free).unwrap_or(u16::MAX), incarnation: 1 }
            }
        };
        let entry = Entry { seat, mac, instance };
        self.0.insert(seat.id, entry);
        entry
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
        assert_eq!(
            roster.admit(mac(1), 100, &none(), |_| false).seat,
            Seat { id: 0, incarnation: 2 }
        );
        assert_eq!(
            roster.admit(mac(7), 7, &none(), |_| false).seat,
            Seat { id: 2, incarnation: 1 }
        );
        assert_eq!(roster.len(), 3);
    }

    #[test]
    fn a_machine_with_two_ids_keeps_the_later_one_and_then_the_lower() {
        let entry =
            |id, incarnation, n| Entry { seat: Seat { id, incarnation }, mac: mac(n), instance: 5 };
        let all = [entry(0, 1, 1), entry(1, 1, 2), entry(2, 2, 1), entry(3, 1, 2)];
        let roster = Roster::of_entries(all.into_iter());
        assert_eq!(Roster::of_entries(all.into_iter().rev()), roster);
        let ids: Vec<_> = roster.entries().map(|e| (e.seat.id, e.mac)).collect();
        assert_eq!(ids, [(1, mac(2)), (2, mac(1))]);
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
        assert_eq!(
            roster.admit(mac(7), 7, &gone(true), |_| false).seat,
            Seat { id: 3, incarnation: 1 }
        );
        assert_eq!(
            roster.admit(mac(2), 22, &gone(false), |_| false).seat,
            Seat { id: 1, incarnation: 5 }
        );
        assert!(!gone(false).apply(&mut roster), "a later life of it is no removed one");
        assert!(gone(true).apply(&mut roster));
    }
}
