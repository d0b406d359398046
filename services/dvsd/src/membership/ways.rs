// SPDX-License-Identifier: MIT OR Apache-2.0
//! By which interfaces other machines are reached: those by which beacons and messages of them arrive.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use dvs_config::Mac;

use super::facts::Facts;

/// Milliseconds for which a way is remembered by which nothing arrives any more.
const WAY_MS: u64 = 30_000;

/// A way by which something of a machine arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Index of the local interface.
    pub interface: u32,
    /// MAC address of the peer's interface.
    pub mac: Mac,
    /// Link-local address of the peer's interface.
    pub address: Ipv6Addr,
}

/// This node's interfaces to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnInterface {
    /// Its index.
    pub index: u32,
    /// Its MAC address.
    pub mac: Mac,
    /// Its link-local address, once it has one.
    pub address: Option<Ipv6Addr>,
}

/// The ways to one machine, by local interface and the machine's, and when each worked last.
#[derive(Clone, Debug, Default)]
pub(super) struct Ways {
    worked: BTreeMap<(u32, Mac), (Path, u64)>,
    latest_ms: u64,
}

impl Ways {
    /// Something has come.
    pub(super) fn note(&mut self, now_ms: u64, path: Path) {
        self.worked.retain(|_, (_, at)| now_ms.saturating_sub(*at) <= WAY_MS);
        self.worked.insert((path.interface, path.mac), (path, now_ms));
        self.latest_ms = now_ms;
    }

    /// When something came last.
    pub(super) fn latest_ms(&self) -> Option<u64> {
        (!self.worked.is_empty()).then_some(self.latest_ms)
    }

    /// The way to reach it: of those that worked in the last `within_ms` before the latest one
    /// that over the interface with the lowest index, to the lowest address. So it stays the same
    /// where several interfaces of the peer are heard by one of this node's.
    pub(super) fn path(&self, within_ms: u64) -> Option<Path> {
        self.working(within_ms).next()
    }

    fn working(&self, within_ms: u64) -> impl Iterator<Item = Path> + '_ {
        let worked = move |at: u64| self.latest_ms.saturating_sub(at) <= within_ms;
        self.worked.values().filter(move |(_, at)| worked(*at)).map(|(path, _)| *path)
    }

    /// Shifts every time by `gap_ms`: this node itself slept so long and nothing could arrive.
    pub(super) fn forgive(&mut self, gap_ms: u64) {
        self.latest_ms += gap_ms;
        self.worked.values_mut().for_each(|(_, at)| *at += gap_ms);
    }

    /// Where to send a message: one copy by each of this node's interfaces, and to as many interfaces of the peer as there are, so that
    /// one cable less costs no answer. Where nothing has come for `within_ms`, what the machine told of itself is tried as well.
    pub(super) fn targets(
        &self,
        now_ms: u64,
        within_ms: u64,
        own: &[OwnInterface],
        told: Option<&Facts>,
    ) -> Vec<(u32, Ipv6Addr)> {
        let mut targets = Vec::new();
        for (turn, interface) in own.iter().enumerate() {
            let by = |path: &Path| path.interface == interface.index;
            let working: Vec<Path> = self.working(within_ms).filter(by).collect();
            if !working.is_empty() {
                targets.push((interface.index, working[turn % working.len()].address));
            }
        }
        let silent = now_ms.saturating_sub(self.latest_ms) > within_ms;
        if targets.is_empty() || silent {
            for (_, address) in told.iter().flat_map(|facts| &facts.interfaces) {
                for interface in own {
                    let target = (interface.index, *address);
                    if !targets.contains(&target) {
                        targets.push(target);
                    }
                }
            }
        }
        targets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(interface: u32, n: u8) -> Path {
        let address = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n.into());
        Path { interface, mac: Mac([2, 0, 0, 0, 0, n]), address }
    }

    fn own(indices: &[u32]) -> Vec<OwnInterface> {
        let interface =
            |index: &u32| OwnInterface { index: *index, mac: Mac([4; 6]), address: None };
        indices.iter().map(interface).collect()
    }

    #[test]
    fn of_two_interfaces_on_one_segment_the_same_is_taken_as_long_as_it_works() {
        let mut ways = Ways::default();
        for round in 0..20 {
            ways.note(100 * round, path(2, if round % 2 == 0 { 3 } else { 9 }));
            assert_eq!(ways.path(1_000), Some(path(2, 3)), "{round}");
        }
        ways.note(3_000, path(2, 9));
        assert_eq!(ways.path(1_000), Some(path(2, 9)));
    }

    #[test]
    fn a_copy_goes_by_each_interface_to_another_one_of_the_peer() {
        let mut ways = Ways::default();
        for (interface, n) in [(2, 3), (2, 9), (5, 3), (5, 9)] {
            ways.note(0, path(interface, n));
        }
        let (to_3, to_9) = (path(2, 3).address, path(2, 9).address);
        let targets = |now_ms, own: &[OwnInterface]| ways.targets(now_ms, 1_000, own, None);
        assert_eq!(targets(500, &own(&[2, 5])), [(2, to_3), (5, to_9)]);
        assert_eq!(targets(500, &own(&[5])), [(5, to_3)]);
        assert_eq!(targets(5_000, &own(&[2])), [(2, to_3)], "there is nothing better");
    }

    #[test]
    fn where_nothing_comes_what_the_machine_told_is_tried() {
        let told = Facts {
            interfaces: [path(0, 3), path(0, 9)].map(|path| (path.mac, path.address)).into(),
            ..Facts::default()
        };
        let (to_3, to_9) = (path(2, 3).address, path(2, 9).address);
        let nothing = Ways::default();
        let all = [(2, to_3), (5, to_3), (2, to_9), (5, to_9)];
        assert_eq!(nothing.targets(0, 1_000, &own(&[2, 5]), Some(&told)), all);
        assert!(nothing.targets(0, 1_000, &own(&[2]), None).is_empty());
        let mut ways = Ways::default();
        ways.note(0, path(2, 3));
        assert_eq!(ways.targets(500, 1_000, &own(&[2]), Some(&told)), [(2, to_3)]);
        assert_eq!(ways.targets(1_500, 1_000, &own(&[2]), Some(&told)), [(2, to_3), (2, to_9)]);
    }

    #[test]
    fn a_node_that_slept_blames_no_way() {
        let mut ways = Ways::default();
        ways.note(0, path(2, 3));
        ways.forgive(9_000);
        ways.note(9_100, path(2, 9));
        assert_eq!(ways.path(1_000), Some(path(2, 3)));
        assert_eq!(ways.latest_ms(), Some(9_100));
    }
}
