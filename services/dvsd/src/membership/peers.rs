// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who is heard, and whether what is heard is new.
//!
//! Beacons are authenticated, but somebody on the segment may record them and send them again
//! later. Within one instance a counter tells old from new. Between instances of a machine, of
//! which this node cannot know the order, two rules do:
//!
//! 1. An instance counts only once one of its beacons names this node's own instance as heard.
//!    Instances are random, so such a beacon was made after this node started.
//! 2. An instance that another one of the same machine has followed never comes back.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv6Addr;

use dvs_config::Mac;

use crate::beacon::Beacon;

/// Machines that are remembered; beyond, the one not heard for longest is forgotten.
const MACHINES_MAX: usize = 512;
/// Instances of a machine that are remembered as gone.
const SUPERSEDED_MAX: usize = 32;
/// Milliseconds for which a way is remembered by which nothing arrives any more.
const PATH_MS: u64 = 30_000;

/// A way by which beacons of a peer arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Index of the local interface.
    pub interface: u32,
    /// MAC address of the peer's interface.
    pub mac: Mac,
    /// Link-local address of the peer's interface.
    pub address: Ipv6Addr,
}

/// One instance of a machine, and the last that it said.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    /// Its latest beacon.
    pub(super) beacon: Beacon,
    /// When that arrived, in milliseconds.
    pub(super) at_ms: u64,
    /// By local interface and the peer's, and when each worked last.
    paths: BTreeMap<(u32, Mac), (Path, u64)>,
}

impl Heard {
    fn new(now_ms: u64, path: Path, beacon: Beacon) -> Self {
        let paths = BTreeMap::from([((path.interface, path.mac), (path, now_ms))]);
        Self { beacon, at_ms: now_ms, paths }
    }

    /// Whether something was heard in the last `within_ms` milliseconds.
    pub(super) fn is_live(&self, now_ms: u64, within_ms: u64) -> bool {
        now_ms.saturating_sub(self.at_ms) <= within_ms
    }

    /// The way to reach it: of those that worked in the last `within_ms` before the latest beacon
    /// the one over the interface with the lowest index, to the lowest address. So it stays the same
    /// where several interfaces of the peer are heard by one of this node's.
    pub(super) fn path(&self, within_ms: u64) -> Option<Path> {
        let worked = |at: u64| self.at_ms.saturating_sub(at) <= within_ms;
        self.paths.values().find(|(_, at)| worked(*at)).map(|(path, _)| *path)
    }

    /// Takes a later beacon of the same instance; `false` for one that is not later.
    fn update(&mut self, now_ms: u64, path: Path, beacon: Beacon) -> bool {
        if beacon.counter <= self.beacon.counter {
            return false;
        }
        self.paths.retain(|_, (_, at)| now_ms.saturating_sub(*at) <= PATH_MS);
        self.paths.insert((path.interface, path.mac), (path, now_ms));
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
    /// Takes an authentic beacon of another machine. `own` is this node's identity and instance.
    pub(super) fn hear(
        &mut self,
        now_ms: u64,
        own: (Mac, u64),
        provisional_ms: u64,
        path: Path,
        beacon: Beacon,
    ) -> Novelty {
        let mac = beacon.mac;
        if !self.0.contains_key(&mac) && self.0.len() >= MACHINES_MAX {
            self.forget_oldest();
        }
        let machine = self.0.entry(mac).or_default();
        if machine.superseded.contains(&beacon.instance) {
            return Novelty::Old;
        }
        if let Some(heard) = &mut machine.confirmed {
            if heard.beacon.instance == beacon.instance {
                return match heard.update(now_ms, path, beacon) {
                    true => Novelty::New,
                    false => Novelty::Old,
                };
            }
        }
        let answers_us = beacon
            .peers
            .iter()
            .any(|peer| (peer.mac, peer.instance) == own && (peer.heard || peer.seat.is_some()));
        let heard = match machine.provisional.take() {
            Some(mut heard) if heard.beacon.instance == beacon.instance => {
                let later = heard.update(now_ms, path, beacon);
                if !later {
                    machine.provisional = Some(heard);
                    return Novelty::Old;
                }
                heard
            }
            // Whoever replays beacons of ever other instances must not push out the real one.
            Some(heard) if !answers_us && heard.is_live(now_ms, provisional_ms) => {
                machine.provisional = Some(heard);
                return Novelty::Unproven;
            }
            _ => Heard::new(now_ms, path, beacon),
        };
        if !answers_us {
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
                heard.paths.values_mut().for_each(|(_, at)| *at += gap_ms);
            }
        }
    }

    fn forget_oldest(&mut self) {
        let latest = |machine: &Machine| {
            machine.confirmed.iter().chain(&machine.provisional).map(|heard| heard.at_ms).max()
        };
        if let Some(mac) = self.0.iter().min_by_key(|(_, m)| latest(m)).map(|(mac, _)| *mac) {
            self.0.remove(&mac);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::beacon::{PeerEntry, Phase};

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
            echo: 0,
            keys: None,
            uptime_s: 0,
            management: None,
            name: String::new(),
            release: String::new(),
            peers: hears
                .map(|(mac, instance)| PeerEntry {
                    mac,
                    instance,
                    seat: None,
                    heard: true,
                    confirmed: false,
                    down: false,
                    holds: None,
                    removed: false,
                })
                .into_iter()
                .collect(),
            choices: Vec::new(),
        }
    }

    #[test]
    fn an_instance_counts_once_it_names_ours() {
        let mut peers = Peers::default();
        let mut hear = |now, beacon| peers.hear(now, OWN, 1000, PATH, beacon);
        assert_eq!(hear(0, beacon(5, 1, None)), Novelty::Unproven);
        assert_eq!(hear(10, beacon(5, 2, Some((OWN.0, 10)))), Novelty::Unproven);
        assert_eq!(hear(20, beacon(5, 3, Some(OWN))), Novelty::New);
        assert_eq!(hear(30, beacon(5, 3, Some(OWN))), Novelty::Old);
        assert_eq!(hear(30, beacon(5, 2, Some(OWN))), Novelty::Old);
        assert_eq!(hear(40, beacon(5, 4, None)), Novelty::New);
        assert_eq!(peers.of_machine(PATH.mac).unwrap().at_ms, 40);
    }

    #[test]
    fn a_recorded_beacon_of_an_earlier_boot_is_never_taken_for_new() {
        let mut peers = Peers::default();
        let mut hear = |now, beacon| peers.hear(now, OWN, 1000, PATH, beacon);
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
    fn of_two_interfaces_on_one_segment_the_same_is_taken_as_long_as_it_works() {
        let other = Path { mac: Mac([2, 0, 0, 0, 0, 3]), ..PATH };
        let mut heard = Heard::new(0, PATH, beacon(5, 1, None));
        for counter in 1..20 {
            let path = if counter % 2 == 0 { PATH } else { other };
            assert!(heard.update(100 * counter, path, beacon(5, 1 + counter, None)));
            assert_eq!(heard.path(1_000), Some(other), "{counter}");
        }
        assert!(heard.update(3_000, PATH, beacon(5, 100, None)));
        assert_eq!(heard.path(1_000), Some(PATH));
    }

    #[test]
    fn memory_is_bounded() {
        let mut peers = Peers::default();
        for n in 0..3 * MACHINES_MAX as u64 {
            let [.., a, b] = n.to_be_bytes();
            let beacon = Beacon { mac: Mac([2, 0, 0, 1, a, b]), ..beacon(n, 1, None) };
            peers.hear(n, OWN, 1000, PATH, beacon);
        }
        assert_eq!(peers.0.len(), MACHINES_MAX);
        assert_eq!(peers.provisional(3 * MACHINES_MAX as u64, 5).count(), 5);
    }
}
