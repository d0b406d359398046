// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who is heard, and whether what is heard is new.
//!
//! Beacons are authenticated, but somebody on the segment may record them and send them again
//! later. Within one instance a counter tells old from new. Between instances of a machine, of
//! which this node cannot know the order, two rules do:
//!
//! 1. An instance counts only once one of its beacons names this node's own instance as heard, or once members vouch for it.
//!    Instances are random, so such a beacon was made after this node started; and messages of members are no replays.
//! 2. An instance that another one of the same machine has followed never comes back.

use std::collections::{BTreeMap, VecDeque};

use dvs_config::Mac;

use super::ways::{Path, Ways};
use super::CANDIDATE_MS;
use crate::beacon::Beacon;

/// Machines that are remembered; beyond, the one not heard for longest is forgotten.
const MACHINES_MAX: usize = 2_048;
/// Instances of a machine that are remembered as gone.
const SUPERSEDED_MAX: usize = 32;
/// One instance of a machine, and the last that it said.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    /// Its latest beacon.
    pub(super) beacon: Beacon,
    /// When that arrived, in milliseconds.
    pub(super) at_ms: u64,
}

impl Heard {
    fn new(now_ms: u64, beacon: Beacon) -> Self {
        Self { beacon, at_ms: now_ms }
    }

    /// Which run of which machine.
    pub(super) fn run(&self) -> (Mac, u64) {
        (self.beacon.mac, self.beacon.instance)
    }

    /// Whether something was heard in the last `within_ms` milliseconds.
    pub(super) fn is_live(&self, now_ms: u64, within_ms: u64) -> bool {
        now_ms.saturating_sub(self.at_ms) <= within_ms
    }

    /// Takes a later beacon of the same instance; `false` for one that is not later.
    fn update(&mut self, now_ms: u64, beacon: Beacon) -> bool {
        if beacon.counter <= self.beacon.counter {
            return false;
        }
        self.at_ms = now_ms;
        self.beacon = beacon;
        true
    }
}

#[derive(Debug, Default)]
struct Machine {
    /// The instance that is known to live now, or to have lived last.
    confirmed: Option<Heard>,
    /// An instance that may be a replay.
    provisional: Option<Heard>,
    superseded: VecDeque<u64>,
    ways: Ways,
}

/// What became of a beacon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Novelty {
    /// It says something new, and what it says can be relied upon.
    New,
    /// It may be a replay: the sender is to be answered, and its next beacon will tell.
    Unproven,
    /// It is a replay, or was overtaken.
    Old,
}

/// All machines that were heard, by identity.
#[derive(Debug, Default)]
pub(super) struct Peers(BTreeMap<Mac, Machine>);

impl Peers {
    /// Takes an authentic beacon of another machine. `own` is this node's identity and instance; `vouched` says that the
    /// members know the beacon's instance.
    pub(super) fn hear(
        &mut self,
        now_ms: u64,
        own: (Mac, u64),
        vouched: bool,
        path: Path,
        beacon: Beacon,
    ) -> Novelty {
        let mac = beacon.mac;
        let novelty = self.take(now_ms, own, vouched, beacon);
        if novelty == Novelty::New {
            self.note_way(now_ms, mac, path);
        }
        novelty
    }

    /// Something authentic and new has come from a machine.
    pub(super) fn note_way(&mut self, now_ms: u64, mac: Mac, path: Path) {
        self.room_for(mac).ways.note(now_ms, path);
    }

    /// The ways to a machine.
    pub(super) fn ways(&self, mac: Mac) -> Option<&Ways> {
        self.0.get(&mac).map(|machine| &machine.ways)
    }

    fn room_for(&mut self, mac: Mac) -> &mut Machine {
        if !self.0.contains_key(&mac) && self.0.len() >= MACHINES_MAX {
            self.forget_oldest();
        }
        self.0.entry(mac).or_default()
    }

    fn take(&mut self, now_ms: u64, own: (Mac, u64), vouched: bool, beacon: Beacon) -> Novelty {
        let machine = self.room_for(beacon.mac);
        if machine.superseded.contains(&beacon.instance) {
            return Novelty::Old;
        }
        if let Some(heard) = &mut machine.confirmed {
            if heard.beacon.instance == beacon.instance {
                return match heard.update(now_ms, beacon) {
                    true => Novelty::New,
                    false => Novelty::Old,
                };
            }
        }
        let names_us = || {
            let mut peers = beacon.peers.iter();
            peers.any(|it| (it.mac, it.instance) == own && (it.heard || it.seat.is_some()))
        };
        let certain = vouched || names_us();
        let heard = match machine.provisional.take() {
            Some(mut heard) if heard.beacon.instance == beacon.instance => {
                let later = heard.update(now_ms, beacon);
                if !later {
                    machine.provisional = Some(heard);
                    return Novelty::Old;
                }
                heard
            }
            // Whoever replays beacons of ever other instances must not push out the real one.
            Some(heard) if !certain && heard.is_live(now_ms, CANDIDATE_MS) => {
                machine.provisional = Some(heard);
                return Novelty::Unproven;
            }
            _ => Heard::new(now_ms, beacon),
        };
        if !certain {
            machine.provisional = Some(heard);
            return Novelty::Unproven;
        }
        if let Some(gone) = machine.confirmed.replace(heard) {
            machine.superseded.push_back(gone.beacon.instance);
            if machine.superseded.len() > SUPERSEDED_MAX {
                machine.superseded.pop_front();
            }
        }
        Novelty::New
    }

    /// The machines whose present instance is known for certain, in the order of identities.
    pub(super) fn confirmed(&self) -> impl Iterator<Item = &Heard> + '_ {
        self.0.values().filter_map(|machine| machine.confirmed.as_ref())
    }

    /// The present instance of a machine.
    pub(super) fn of_machine(&self, mac: Mac) -> Option<&Heard> {
        self.0.get(&mac)?.confirmed.as_ref()
    }

    /// A certain instance of a machine, if it is the present one.
    pub(super) fn of_instance(&self, mac: Mac, instance: u64) -> Option<&Heard> {
        self.of_machine(mac).filter(|heard| heard.beacon.instance == instance)
    }

    /// Instances that may be replays and were heard in the last `within_ms` milliseconds.
    pub(super) fn provisional(
        &self,
        now_ms: u64,
        within_ms: u64,
    ) -> impl Iterator<Item = &Heard> + '_ {
        self.0
            .values()
            .filter_map(|machine| machine.provisional.as_ref())
            .filter(move |heard| heard.is_live(now_ms, within_ms))
    }

    /// Shifts every time by `gap_ms`: this node itself slept so long and could hear nothing.
    pub(super) fn forgive(&mut self, gap_ms: u64) {
        for machine in self.0.values_mut() {
            for heard in machine.confirmed.iter_mut().chain(&mut machine.provisional) {
                heard.at_ms += gap_ms;
            }
            machine.ways.forgive(gap_ms);
        }
    }

    fn forget_oldest(&mut self) {
        let latest = |machine: &Machine| {
            let heard = machine.confirmed.iter().chain(&machine.provisional);
            heard.map(|heard| heard.at_ms).chain(machine.ways.latest_ms()).max()
        };
        if let Some(mac) = self.0.iter().min_by_key(|(_, m)| latest(m)).map(|(mac, _)| *mac) {
            self.0.remove(&mac);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;
    use crate::beacon::{PeerEntry, Phase};
    use crate::membership::Facts;

    const OWN: (Mac, u64) = (Mac([2, 0, 0, 0, 0, 1]), 11);
    const PATH: Path =
        Path { interface: 2, mac: Mac([2, 0, 0, 0, 0, 9]), address: Ipv6Addr::LOCALHOST };

    fn beacon(instance: u64, counter: u64, hears: Option<(Mac, u64)>) -> Beacon {
        Beacon {
            cluster_name: "dvs".into(),
            mac: PATH.mac,
            instance,
            counter,
            link_mac: PATH.mac,
            phase: Phase::Candidate,
            expect: 2,
            cluster: 0,
            uptime_s: 0,
            place: None,
            members: 0,
            live: 0,
            facts: Facts::default(),
            peers: hears
                .map(|(mac, instance)| PeerEntry {
                    mac,
                    instance,
                    seat: None,
                    heard: true,
                    confirmed: false,
                    removed: false,
                    known: false,
                })
                .into_iter()
                .collect(),
        }
    }

    #[test]
    fn an_instance_counts_once_it_names_ours() {
        let mut peers = Peers::default();
        let mut hear = |now, beacon| peers.hear(now, OWN, false, PATH, beacon);
        assert_eq!(hear(0, beacon(5, 1, None)), Novelty::Unproven);
        assert_eq!(hear(10, beacon(5, 2, Some((OWN.0, 10)))), Novelty::Unproven);
        assert_eq!(hear(20, beacon(5, 3, Some(OWN))), Novelty::New);
        assert_eq!(hear(30, beacon(5, 3, Some(OWN))), Novelty::Old);
        assert_eq!(hear(30, beacon(5, 2, Some(OWN))), Novelty::Old);
        assert_eq!(hear(40, beacon(5, 4, None)), Novelty::New);
        assert_eq!(peers.of_machine(PATH.mac).unwrap().at_ms, 40);
    }

    #[test]
    fn an_instance_counts_at_once_where_the_members_know_it() {
        let mut peers = Peers::default();
        assert_eq!(peers.hear(0, OWN, false, PATH, beacon(5, 1, None)), Novelty::Unproven);
        assert_eq!(peers.ways(PATH.mac).unwrap().path(1_000), None, "it may be a replay");
        assert_eq!(peers.hear(10, OWN, true, PATH, beacon(5, 2, None)), Novelty::New);
        assert_eq!(peers.ways(PATH.mac).unwrap().path(1_000), Some(PATH));
        assert_eq!(peers.hear(20, OWN, true, PATH, beacon(5, 2, None)), Novelty::Old);
        assert_eq!(peers.hear(30, OWN, true, PATH, beacon(6, 1, None)), Novelty::New);
        assert_eq!(peers.hear(40, OWN, true, PATH, beacon(5, 3, None)), Novelty::Old);
    }

    #[test]
    fn a_recorded_beacon_of_an_earlier_boot_is_never_taken_for_new() {
        let mut peers = Peers::default();
        let mut hear = |now, beacon| peers.hear(now, OWN, false, PATH, beacon);
        assert_eq!(hear(0, beacon(5, 1, Some(OWN))), Novelty::New);
        assert_eq!(hear(10, beacon(6, 1, Some(OWN))), Novelty::New);
        for counter in 1..9 {
            assert_eq!(hear(20, beacon(5, counter, Some(OWN))), Novelty::Old);
        }
        // From before this node started: it cannot name this instance.
        assert_eq!(hear(30, beacon(4, 70, Some((OWN.0, 10)))), Novelty::Unproven);
        // Nor does its presence keep the next real instance out.
        assert_eq!(hear(40, beacon(7, 1, Some(OWN))), Novelty::New);
        assert_eq!(peers.of_machine(PATH.mac).unwrap().beacon.instance, 7);
    }

    #[test]
    fn memory_is_bounded() {
        let mut peers = Peers::default();
        for n in 0..3 * MACHINES_MAX as u64 {
            let [.., a, b] = n.to_be_bytes();
            let beacon = Beacon { mac: Mac([2, 0, 0, 1, a, b]), ..beacon(n, 1, None) };
            peers.hear(n, OWN, false, PATH, beacon);
        }
        assert_eq!(peers.0.len(), MACHINES_MAX);
        assert_eq!(peers.provisional(3 * MACHINES_MAX as u64, 5).count(), 5);
    }
}
