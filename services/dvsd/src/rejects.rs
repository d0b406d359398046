// SPDX-License-Identifier: MIT OR Apache-2.0
//! What becomes of datagrams that are no beacons for this node: counted, told once in a while, and
//! the hint they give to a node that understands nobody.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;
use std::net::Ipv6Addr;

use crate::beacon::{Rejected, Rejection, VERSION};

/// Milliseconds for which a line that was told is not told again.
pub const QUIET_MS: u64 = 60_000;
/// Milliseconds for which only failing beacons must arrive before the node blames itself.
pub const SUSPECT_MS: u64 = 5_000;
/// Milliseconds after which a source that is not heard any more is not counted.
const HEARD_MS: u64 = 5_000;
/// Sources and lines that are remembered at most.
const SOURCES_MAX: usize = 256;

/// What may be the fault of the node that cannot understand the others.
const SUSPICIOUS: [Rejection; 3] = [Rejection::Token, Rejection::Insecure, Rejection::Secure];

/// Lets each line through once per [`QUIET_MS`].
#[derive(Debug)]
pub struct Throttle<K>(HashMap<K, u64>);

impl<K> Default for Throttle<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> Throttle<K> {
    /// Whether the line named `key` may be told now.
    pub fn admits(&mut self, now_ms: u64, key: K) -> bool {
        let fresh = |told: u64| now_ms.saturating_sub(told) < QUIET_MS;
        if self.0.get(&key).is_some_and(|told| fresh(*told)) {
            return false;
        }
        if self.0.len() >= SOURCES_MAX {
            self.0.retain(|_, told| fresh(*told));
        }
        // Under a flood of ever new sources, silence is the better choice.
        if self.0.len() >= SOURCES_MAX {
            return false;
        }
        self.0.insert(key, now_ms);
        true
    }
}

/// How many datagrams were rejected since the start, and for what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Authentication failed.
    pub token: u64,
    /// Of another cluster's name.
    pub other_cluster: u64,
    /// Of another version of the format.
    pub version: u64,
    /// Not well-formed.
    pub malformed: u64,
    /// Of this cluster, but encrypting where this node does not, or the reverse.
    pub protection: u64,
}

/// Rejected datagrams by source.
#[derive(Debug, Default)]
pub struct Rejects {
    counts: Counts,
    /// Sources that could be of this cluster but for one thing: which, and its first and last time.
    failing: BTreeMap<Ipv6Addr, (Rejection, u64, u64)>,
    throttle: Throttle<(Ipv6Addr, Rejection)>,
    /// Nodes of other clusters that were named.
    others: HashSet<Ipv6Addr>,
}

impl Rejects {
    /// Records a rejected datagram. Gives back the line to tell, if it is time for one, with its
    /// severity in front.
    pub fn record(
        &mut self,
        now_ms: u64,
        source: Ipv6Addr,
        interface: &str,
        rejected: Rejected,
    ) -> Option<String> {
        let Rejected { mac, why } = rejected;
        match why {
            Rejection::Token => self.counts.token += 1,
            Rejection::OtherCluster => self.counts.other_cluster += 1,
            Rejection::Version(_) => self.counts.version += 1,
            Rejection::Malformed => self.counts.malformed += 1,
            Rejection::Insecure | Rejection::Secure => self.counts.protection += 1,
        }
        if SUSPICIOUS.contains(&why) {
            self.failing.retain(|_, (_, _, last)| now_ms.saturating_sub(*last) <= HEARD_MS);
            if self.failing.get(&source).is_some_and(|(before, ..)| *before != why) {
                self.failing.remove(&source);
            }
            if self.failing.len() < SOURCES_MAX {
                self.failing.entry(source).or_insert((why, now_ms, now_ms)).2 = now_ms;
            }
        }
        // Whoever sends one thing and then another is still one source of one line a minute each.
        let key = match why {
            Rejection::Version(_) => Rejection::Version(0),
            other => other,
        };
        // Several clusters on one segment are a thing to have: worth a line, but only one.
        let tell = match why {
            Rejection::OtherCluster => {
                self.others.len() < SOURCES_MAX && self.others.insert(source)
            }
            _ => self.throttle.admits(now_ms, (source, key)),
        };
        if !tell {
            return None;
        }
        let who = match mac {
            Some(mac) => format!("node {mac} ({source}%{interface})"),
            None => format!("{source}%{interface}"),
        };
        Some(match why {
            Rejection::Token => format!(
                "warning: {who} uses another cluster token; give it this cluster's token or another cluster name"
            ),
            Rejection::Version(theirs) => format!(
                "warning: {who} uses version {theirs} of the beacon format, this node version {VERSION}; \
                 boot both from the same release"
            ),
            Rejection::OtherCluster => format!(
                "note: {who} belongs to a cluster of another name and is left alone; if it should be \
                 here, give it this cluster's name"
            ),
            Rejection::Insecure => format!(
                "warning: {who} does not encrypt its messages (cluster.insecure) and is left out, since \
                 this node does; give all nodes the same cluster.insecure"
            ),
            Rejection::Secure => format!(
                "warning: {who} encrypts its messages and leaves this node out, which does not \
                 (cluster.insecure); give all nodes the same cluster.insecure"
            ),
            Rejection::Malformed => format!("warning: {who} sent a datagram that is no beacon; it was ignored"),
        })
    }

    /// What was rejected since the start.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What keeps machines that are heard from being understood, and how many they are, once that has
    /// lasted long enough for a node that understands nobody to suspect itself.
    pub fn suspects(&self, now_ms: u64) -> Option<(Rejection, usize)> {
        let suspects = |why: Rejection| {
            let failing = self.failing.values().filter(move |(found, _, last)| {
                *found == why && now_ms.saturating_sub(*last) <= HEARD_MS
            });
            let lasting = failing.clone().any(|(_, first, _)| now_ms - first >= SUSPECT_MS);
            lasting.then(|| (why, failing.count()))
        };
        SUSPICIOUS.into_iter().filter_map(suspects).max_by_key(|(_, count)| *count)
    }
}

#[cfg(test)]
mod tests {
    use dvs_config::Mac;

    use super::*;

    fn rejected(why: Rejection) -> Rejected {
        Rejected { mac: Some(Mac([0x52, 0x54, 0, 0, 0, 1])), why }
    }

    fn source(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n)
    }

    #[test]
    fn a_source_is_named_once_a_minute() {
        let mut rejects = Rejects::default();
        let mut record =
            |now, n| rejects.record(now, source(n), "eth0", rejected(Rejection::Token));
        let line = record(0, 1).unwrap();
        assert!(
            line.starts_with("warning: node 52:54:00:00:00:01 (fe80::1%eth0) uses another"),
            "{line}"
        );
        assert_eq!(record(59_000, 1), None);
        assert!(record(59_000, 2).is_some());
        assert!(record(60_000, 1).is_some());
        assert_eq!(rejects.counts(), Counts { token: 4, ..Counts::default() });
    }

    #[test]
    fn a_node_of_another_cluster_is_named_once() {
        let mut rejects = Rejects::default();
        let mut record =
            |now| rejects.record(now, source(1), "eth0", rejected(Rejection::OtherCluster));
        let line = record(0).unwrap();
        assert!(line.starts_with("note: node 52:54:00:00:00:01 (fe80::1%eth0) belongs"), "{line}");
        assert_eq!(record(100_000), None);
        assert_eq!(rejects.counts().other_cluster, 2);
        assert_eq!(rejects.suspects(0), None);
    }

    #[test]
    fn a_node_suspects_itself_only_after_a_while() {
        let mut rejects = Rejects::default();
        for now in (0..5_000).step_by(500) {
            assert_eq!(rejects.suspects(now), None, "at {now}");
            for n in 1..=3 {
                rejects.record(now, source(n), "eth0", rejected(Rejection::Token));
            }
        }
        assert_eq!(rejects.suspects(5_000), Some((Rejection::Token, 3)));
        assert_eq!(rejects.suspects(9_501), None);
    }

    #[test]
    fn who_protects_its_messages_otherwise_is_told_what_to_do() {
        let mut rejects = Rejects::default();
        let mut record = |now, why| rejects.record(now, source(1), "eth0", rejected(why));
        let line = record(0, Rejection::Insecure).unwrap();
        assert!(line.contains("does not encrypt its messages (cluster.insecure)"), "{line}");
        assert_eq!(record(5_000, Rejection::Insecure), None);
        assert_eq!(rejects.suspects(5_000), Some((Rejection::Insecure, 1)));
        // It was started anew with another configuration.
        let line = rejects.record(6_000, source(1), "eth0", rejected(Rejection::Secure)).unwrap();
        assert!(line.contains("leaves this node out"), "{line}");
        assert_eq!(rejects.suspects(6_000), None);
        assert_eq!(rejects.counts().protection, 3);
    }

    #[test]
    fn a_flood_of_sources_is_bounded() {
        let mut rejects = Rejects::default();
        let lines = (0..5_000)
            .filter_map(|n| rejects.record(0, source(n), "eth0", rejected(Rejection::Token)))
            .count();
        assert_eq!(lines, SOURCES_MAX);
    }
}
