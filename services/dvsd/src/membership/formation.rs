// SPDX-License-Identifier: MIT OR Apache-2.0
//! How candidates form a cluster, or wait for one to let them in.
//!
//! A candidate counts those candidates that it hears and that hear it. Once they are at least
//! `bootstrap_expect`, all of them hear exactly each other, none of them agrees to anything else,
//! nobody belongs to a cluster already, and nothing of that has changed for [`SETTLE_MS`], the one
//! with the lowest identity **proposes**: a random cluster id and a roster. Of more than [`FOUNDERS_MAX`], that many with the lowest
//! identities do so, and the others join them: every beacon tells of these first, so that all mean the same. The others **accept**
//! it and then no other. Once the proposer has heard everybody accept, it **commits** by becoming
//! a member; the others follow when they hear it, or anybody who has followed.
//!
//! Only the proposer decides, and only by what everybody said of itself, so no lost beacon can
//! make two nodes believe different things. An accepter lets go of a proposal when its proposer
//! says something else, has restarted, or has been silent for [`LOCK_MS`]. Two proposals for
//! disjoint sets need that no beacon at all passes between these for two seconds: that is a
//! partition. One that begins just between accept and commit and lasts longer than the lock can
//! leave two clusters even if `bootstrap_expect` is above half of the nodes. If they meet within
//! half a minute the smaller one gives way; later both stay, and their nodes say so.

use std::collections::BTreeMap;

use dvs_config::Mac;

use super::peers::{Heard, Peers};
use super::roster::Roster;
use super::{Identity, CANDIDATE_MS, DOWN_MS};
use crate::beacon::{Phase, FOUNDERS_MAX, MEMBERS_MAX};

/// Milliseconds for which nothing may change before a cluster is proposed: whoever belongs to one has said so meanwhile, to each of those
/// who would form another, and one of them who hears it is enough to keep all from it.
pub const SETTLE_MS: u64 = 290;
/// The same for a node that nobody answers: longer, since what it missed might be a cluster.
const SETTLE_ALONE_MS: u64 = 2_500;
/// A proposer that was not heard for so many milliseconds no longer binds who accepted.
const LOCK_MS: u64 = 6_000;
/// A proposer gives up after so many milliseconds.
const PROPOSAL_MS: u64 = 4_000;

/// What a node that belongs to no cluster is doing.
#[derive(Debug)]
pub(super) struct Formation {
    stage: Stage,
    /// The machines that the last step saw.
    seen: BTreeMap<Mac, u64>,
    /// Since when nothing has spoken against forming a cluster of them.
    since_ms: u64,
    /// Why no cluster is formed at the moment.
    pub(super) obstacle: Obstacle,
}

#[derive(Debug)]
enum Stage {
    /// Looking for others; the cluster to join, or 0.
    Seek {
        join: u64,
    },
    Propose {
        cluster: u64,
        roster: Roster,
        since_ms: u64,
    },
    Accept {
        cluster: u64,
        proposer: (Mac, u64),
        heard_ms: u64,
        roster: Roster,
    },
}

/// Why a candidate waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// Fewer machines than `bootstrap_expect`; how many there are.
    TooFew(usize),
    /// A machine has another `bootstrap_expect`.
    Expect { mac: Mac, theirs: u16 },
    /// One machine does not hear another.
    Deaf { mac: Mac, to: Mac },
    /// A machine takes part in a proposal that leaves this one out.
    Agreed { mac: Mac },
    /// The machines have not been the same for long enough, or agree just now.
    Settling(usize),
    /// It has asked a cluster for a place.
    Asking,
    /// The cluster cannot take more members.
    Full,
    /// The cluster admits nobody new without a majority: down and all.
    NoMajority { down: usize, members: usize },
}

/// Outcome of a step.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Stay,
    /// Others should know at once.
    Tell,
    Formed {
        cluster: u64,
        roster: Roster,
    },
}

impl Formation {
    pub(super) fn new(now_ms: u64) -> Self {
        Self {
            stage: Stage::Seek { join: 0 },
            seen: BTreeMap::new(),
            since_ms: now_ms,
            obstacle: Obstacle::TooFew(1),
        }
    }

    /// What beacons say of this stage.
    pub(super) fn phase(&self) -> (Phase, u64) {
        match &self.stage {
            Stage::Seek { join } => (Phase::Candidate, *join),
            Stage::Propose { cluster, .. } => (Phase::Proposer, *cluster),
            Stage::Accept { cluster, .. } => (Phase::Accepter, *cluster),
        }
    }

    /// Those who form a cluster together, this node among them, as far as it has agreed to that.
    pub(super) fn founders(&self, formed: u64) -> Roster {
        match &self.stage {
            Stage::Accept { cluster, roster, .. } if *cluster == formed => roster.clone(),
            _ => Roster::default(),
        }
    }

    /// This node's own proposal.
    pub(super) fn proposal(&self) -> Option<&Roster> {
        match &self.stage {
            Stage::Propose { roster, .. } => Some(roster),
            _ => None,
        }
    }

    pub(super) fn step(
        &mut self,
        now_ms: u64,
        entropy: u64,
        own: &Identity,
        peers: &Peers,
    ) -> Step {
        match &mut self.stage {
            Stage::Seek { .. } => self.seek(now_ms, entropy, own, peers),
            Stage::Propose { cluster, roster, since_ms } => {
                let answer = |mac: Mac, instance: u64| {
                    peers
                        .of_instance(mac, instance)
                        .filter(|heard| heard.is_live(now_ms, CANDIDATE_MS))
                        .map(|heard| (heard.beacon.phase, heard.beacon.cluster))
                };
                let others = || roster.entries().filter(|entry| entry.mac != own.mac);
                let accepted = (Phase::Accepter, *cluster);
                if others().all(|e| answer(e.mac, e.instance) == Some(accepted)) {
                    return Step::Formed { cluster: *cluster, roster: std::mem::take(roster) };
                }
                let possible =
                    |(phase, theirs)| phase == Phase::Candidate || (phase, theirs) == accepted;
                let hopeless = now_ms.saturating_sub(*since_ms) > PROPOSAL_MS
                    || others().any(|e| !answer(e.mac, e.instance).is_some_and(possible));
                self.restart_if(hopeless, now_ms)
            }
            Stage::Accept { cluster, proposer, heard_ms, .. } => {
                let stands = match peers.of_machine(proposer.0) {
                    Some(heard) if heard.beacon.instance == proposer.1 => {
                        *heard_ms = heard.at_ms;
                        let said = (heard.beacon.phase, heard.beacon.cluster);
                        said == (Phase::Proposer, *cluster)
                    }
                    _ => false,
                };
                let silent = now_ms.saturating_sub(*heard_ms) > LOCK_MS;
                self.restart_if(!stands || silent, now_ms)
            }
        }
    }

    fn restart_if(&mut self, restart: bool, now_ms: u64) -> Step {
        if !restart {
            return Step::Stay;
        }
        *self = Self::new(now_ms);
        Step::Tell
    }

    fn seek(&mut self, now_ms: u64, entropy: u64, own: &Identity, peers: &Peers) -> Step {
        let live: Vec<&Heard> =
            peers.confirmed().filter(|heard| heard.is_live(now_ms, CANDIDATE_MS)).collect();
        if let Some(join) = self.cluster_to_join(own, &live) {
            let tell = !matches!(self.stage, Stage::Seek { join: before } if before == join);
            self.stage = Stage::Seek { join };
            self.since_ms = now_ms;
            return if tell { Step::Tell } else { Step::Stay };
        }
        self.stage = Stage::Seek { join: 0 };
        let proposal = live.iter().find(|heard| {
            heard.beacon.phase == Phase::Proposer
                && heard.beacon.peers.iter().any(|peer| {
                    peer.seat.is_some() && (peer.mac, peer.instance) == (own.mac, own.instance)
                })
        });
        if let Some(heard) = proposal {
            self.stage = Stage::Accept {
                cluster: heard.beacon.cluster,
                proposer: (heard.beacon.mac, heard.beacon.instance),
                heard_ms: heard.at_ms,
                roster: Roster::of_peers(&heard.beacon.peers),
            };
            self.obstacle = Obstacle::Settling(live.len() + 1);
            return Step::Tell;
        }
        let machines = lowest(
            live.iter()
                .map(|heard| (heard.beacon.mac, heard.beacon.instance))
                .chain([(own.mac, own.instance)]),
        );
        self.obstacle = self.obstacle_to_formation(own, &live, &machines);
        let changed = machines != self.seen;
        if changed || !matches!(self.obstacle, Obstacle::Settling(_)) {
            self.seen = machines;
            self.since_ms = now_ms;
            return Step::Stay;
        }
        let settle_ms = if machines.len() == 1 { SETTLE_ALONE_MS } else { SETTLE_MS };
        let first = machines.keys().next() == Some(&own.mac);
        if !first || now_ms.saturating_sub(self.since_ms) < settle_ms {
            return Step::Stay;
        }
        self.stage = Stage::Propose {
            // 0 stands for no cluster.
            cluster: entropy.max(1),
            roster: Roster::bootstrap(&machines),
            since_ms: now_ms,
        };
        Step::Tell
    }

    /// The formed cluster to join, if one is heard: of several the one with most live members.
    fn cluster_to_join(&mut self, own: &Identity, live: &[&Heard]) -> Option<u64> {
        let member = live
            .iter()
            .filter(|heard| heard.beacon.phase.is_member())
            .max_by_key(|heard| (heard.beacon.live, std::cmp::Reverse(heard.beacon.cluster)))?;
        let members = usize::from(member.beacon.members);
        let down = members.saturating_sub(member.beacon.live.into());
        let known = member.beacon.peers.iter().any(|peer| peer.mac == own.mac && peer.known);
        self.obstacle = if !known && members >= MEMBERS_MAX {
            Obstacle::Full
        } else if !known && (members - down) * 2 <= members {
            Obstacle::NoMajority { down, members }
        } else {
            Obstacle::Asking
        };
        Some(member.beacon.cluster)
    }

    fn obstacle_to_formation(
        &self,
        own: &Identity,
        live: &[&Heard],
        machines: &BTreeMap<Mac, u64>,
    ) -> Obstacle {
        if let Some(heard) = live.iter().find(|heard| heard.beacon.expect != own.expect) {
            return Obstacle::Expect { mac: heard.beacon.mac, theirs: heard.beacon.expect };
        }
        let found = live.len() + 1;
        if found < usize::from(own.expect) {
            return Obstacle::TooFew(found);
        }
        for heard in live {
            let hears = lowest(
                heard
                    .beacon
                    .peers
                    .iter()
                    .filter(|peer| peer.confirmed)
                    .map(|peer| (peer.mac, peer.instance))
                    .chain([(heard.beacon.mac, heard.beacon.instance)]),
            );
            let missing = |one: &BTreeMap<Mac, u64>, other: &BTreeMap<Mac, u64>| {
                one.iter().find(|(mac, i)| other.get(*mac) != Some(*i)).map(|(mac, _)| *mac)
            };
            if let Some(to) = missing(machines, &hears) {
                return Obstacle::Deaf { mac: heard.beacon.mac, to };
            }
            if let Some(to) = missing(&hears, machines) {
                return Obstacle::Deaf { mac: own.mac, to };
            }
            if heard.beacon.phase != Phase::Candidate {
                return Obstacle::Agreed { mac: heard.beacon.mac };
            }
        }
        Obstacle::Settling(found)
    }
}

/// As many machines as form a cluster together, those with the lowest identities.
fn lowest(machines: impl Iterator<Item = (Mac, u64)>) -> BTreeMap<Mac, u64> {
    machines.collect::<BTreeMap<_, _>>().into_iter().take(FOUNDERS_MAX).collect()
}

const _: () = assert!(DOWN_MS < LOCK_MS && PROPOSAL_MS < LOCK_MS);
