// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the rest of `dvsd` sees of the membership.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use dvs_config::Mac;

use super::formation::Obstacle;
use super::member::held_in;
use super::ways::Path;
use super::{Facts, Membership, Role, CANDIDATE_MS};
use crate::beacon::{Choice, Seat, MEMBERS_MAX};
use crate::segment::Announced;

/// What a node says of itself that was removed.
const REMOVED: &str =
    "it was removed from the cluster and stays out until `dvsctl node reset` lets it come back";

/// The membership at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Where this node stands.
    pub standing: Standing,
    /// All members in the order of ids, this node included; empty for one that is none.
    pub members: Vec<MemberView>,
    /// A node that has just joined has heard of all who were members before.
    pub whole: bool,
}

/// See [`View::standing`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// In no cluster.
    Discovering {
        /// What it waits for, for people.
        detail: String,
        /// Whether other machines with the same cluster token are heard.
        heard: bool,
    },
    /// Member of a cluster.
    Member {
        /// Id of the cluster.
        cluster: u64,
        /// This node's id and incarnation.
        seat: Seat,
    },
}

/// A member as this node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberView {
    /// Its id and incarnation.
    pub seat: Seat,
    /// Its identity.
    pub mac: Mac,
    /// Which run of its `dvsd`.
    pub instance: u64,
    /// Whether it is this node.
    pub local: bool,
    /// Whether it is reached.
    pub liveness: Liveness,
    /// Whether it says that it can exchange messages with everybody.
    pub ready: bool,
    /// What it said last in this incarnation; `None` if it has not said anything yet, and for this node.
    pub said: Option<Said>,
    /// Its name; `node` and its id if it has no other.
    pub name: String,
    /// What is to carry the link to it; of no meaning for this node.
    pub choice: Choice,
}

/// What is known of another member only from itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Version of its `dvsd`.
    pub release: String,
    /// Endpoint of its echo server; 0 while it has none.
    pub echo: u64,
    /// Address of its management interface.
    pub management: Option<IpAddr>,
    /// Seconds since its `dvsd` started, when something came of it last; 0 before its first beacon came.
    pub uptime_s: u32,
    /// When something came of it last, in milliseconds.
    pub at_ms: u64,
    /// How to reach it.
    pub path: Option<Path>,
    /// Its keys; `None` if it does not encrypt.
    pub keys: Option<Announced>,
    /// Association number of the newest of this node's keys that it holds.
    pub holds: Option<u8>,
}

/// Whether a member is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// It is new in the roster, or about to take its place, and has said nothing as a member yet.
    Expected,
    /// It answers.
    Alive,
    /// It does not, or not to this node.
    Down,
}

/// Something that people may want to read in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// This node formed a cluster.
    Formed {
        /// Id of the cluster.
        cluster: u64,
        /// Number of members.
        members: usize,
    },
    /// This node became a member of a cluster.
    Joined {
        /// Id of the cluster.
        cluster: u64,
    },
    /// A machine has a place in the roster for the first time.
    NodeJoined {
        /// Its id and incarnation.
        seat: Seat,
        /// Its identity.
        mac: Mac,
    },
    /// A machine has a new incarnation.
    NodeRestarted {
        /// Its id and incarnation.
        seat: Seat,
        /// Its identity.
        mac: Mac,
    },
    /// A member does not answer any more, to nobody.
    NodeDown {
        /// Its id and incarnation.
        seat: Seat,
        /// Its identity.
        mac: Mac,
    },
    /// A member has said that it is going.
    NodeLeft {
        /// Its id and incarnation.
        seat: Seat,
        /// Its identity.
        mac: Mac,
    },
    /// A member was removed from the cluster.
    NodeRemoved {
        /// Its id and incarnation.
        seat: Seat,
        /// Its identity.
        mac: Mac,
    },
    /// This node was removed from its cluster.
    Removed {
        /// Id of the cluster.
        cluster: u64,
    },
    /// A member answers others, but not this node.
    NodeDeaf {
        /// Its id and incarnation.
        seat: Seat,
        /// Its identity.
        mac: Mac,
    },
    /// A member that was down answers again.
    NodeBack {
        /// Its id and incarnation.
        seat: Seat,
        /// Its identity.
        mac: Mac,
    },
    /// Somebody chose what is to carry the link to another node.
    Chosen {
        /// The other node.
        peer: u16,
        /// The choice.
        choice: Choice,
    },
    /// This node lost its place to another machine and asks for a new one.
    Evicted {
        /// The identity that lost its place.
        mac: Mac,
    },
    /// This node gave up the cluster it had just become a member of for a larger one.
    Abandoned {
        /// Id of the cluster given up.
        ours: u64,
        /// Id of the other one.
        theirs: u64,
    },
    /// Two clusters of the same name and token run on one segment.
    TwoClusters {
        /// A member of the other one.
        mac: Mac,
        /// This node's cluster.
        ours: u64,
        /// The other cluster.
        theirs: u64,
    },
    /// Another machine has this one's identity.
    SameIdentity {
        /// The identity.
        mac: Mac,
        /// Where the other machine is heard.
        address: Ipv6Addr,
    },
}

impl Event {
    /// Whether somebody should do something about it.
    pub fn is_warning(&self) -> bool {
        matches!(
            self,
            Self::NodeDown { .. }
                | Self::NodeDeaf { .. }
                | Self::Evicted { .. }
                | Self::Removed { .. }
                | Self::Abandoned { .. }
                | Self::TwoClusters { .. }
                | Self::SameIdentity { .. }
        )
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Formed { cluster, members } => {
                write!(f, "formed cluster {cluster:016x} of {members} nodes")
            }
            Self::Joined { cluster } => write!(f, "joined cluster {cluster:016x}"),
            Self::NodeJoined { seat, mac } => write!(f, "node {} ({mac}) joined", seat.id),
            Self::NodeRestarted { seat, mac } => {
                let Seat { id, incarnation } = seat;
                write!(f, "node {id} ({mac}) restarted, incarnation {incarnation}")
            }
            Self::NodeDown { seat, mac } => {
                write!(f, "node {} ({mac}) is down: it does not answer", seat.id)
            }
            Self::NodeLeft { seat, mac } => {
                write!(f, "node {} ({mac}) is down: it said that it is going", seat.id)
            }
            Self::NodeRemoved { seat, mac } => {
                write!(f, "node {} ({mac}) was removed from the cluster", seat.id)
            }
            Self::Removed { cluster } => {
                write!(f, "cluster {cluster:016x} has removed this node")
            }
            Self::NodeDeaf { seat, mac } => write!(
                f,
                "node {} ({mac}) is down: it answers other nodes, but not this one; check the \
                 network between them",
                seat.id
            ),
            Self::NodeBack { seat, mac } => write!(f, "node {} ({mac}) is back", seat.id),
            Self::Chosen { peer, choice: Choice { revision, transport } } => write!(
                f,
                "the link to node {peer} is to be carried over {transport} (choice {revision})"
            ),
            Self::Evicted { mac } => write!(
                f,
                "this node ({mac}) lost its place in the cluster to another machine and asks for a \
                 new one; if that repeats, look for two machines with the same MAC address"
            ),
            Self::Abandoned { ours, theirs } => write!(
                f,
                "cluster {theirs:016x} has formed apart and is larger: leaving {ours:016x} for it"
            ),
            Self::TwoClusters { mac, ours, theirs } => write!(
                f,
                "node {mac} belongs to another cluster of the same name and cluster token ({theirs:016x}, \
                 this node's is {ours:016x}); restart the nodes of one of them to merge the two"
            ),
            Self::SameIdentity { mac, address } => write!(
                f,
                "another machine ({address}) has this machine's MAC address {mac}; give one of them \
                 another"
            ),
        }
    }
}

impl Membership {
    /// The cluster this node is a member of, and its id and incarnation there.
    pub fn place(&self) -> Option<(u64, Seat)> {
        match &self.role {
            Role::Candidate(_) => None,
            Role::Member(member) => {
                let entry = member.roster.of_machine(self.identity.mac)?;
                Some((member.cluster, entry.seat))
            }
        }
    }

    /// The membership as of now.
    pub fn view(&self, now_ms: u64) -> View {
        let member = match &self.role {
            Role::Candidate(formation) => {
                let heard = self.peers.confirmed().any(|heard| heard.is_live(now_ms, CANDIDATE_MS));
                let detail = match self.is_removed {
                    true => REMOVED.to_owned(),
                    false => self.explain(&formation.obstacle),
                };
                return View {
                    standing: Standing::Discovering { detail, heard },
                    members: Vec::new(),
                    whole: false,
                };
            }
            Role::Member(member) => member,
        };
        let mut seat = Seat { id: 0, incarnation: 0 };
        let members = member
            .roster
            .entries()
            .map(|entry| {
                let local = entry.mac == self.identity.mac;
                if local {
                    seat = entry.seat;
                }
                // The first record is made by whoever lets a machine in.
                let record = member.swim.record(entry.seat.id).filter(|record| record.revision > 0);
                let facts = record.and_then(|record| Facts::read(&record.facts));
                let name = match &facts {
                    _ if local => self.identity.name.clone(),
                    Some(facts) => facts.name.clone(),
                    None => String::new(),
                };
                MemberView {
                    seat: entry.seat,
                    mac: entry.mac,
                    instance: entry.instance,
                    local,
                    liveness: self.liveness(member, now_ms, entry),
                    ready: match &facts {
                        _ if local => self.announcement.ready,
                        Some(facts) => facts.ready,
                        None => false,
                    },
                    said: facts.filter(|_| !local).map(|facts| {
                        let ways = self.peers.ways(entry.mac);
                        let arrived = member.arrived_ms.get(&entry.seat.id).map(|(_, at)| *at);
                        let latest_ms = ways.and_then(|ways| ways.latest_ms());
                        let at_ms = latest_ms.or(arrived).unwrap_or_default();
                        let heard = self.peers.of_instance(entry.mac, entry.instance);
                        let uptime_s = heard.map_or(0, |heard| {
                            let since_ms = at_ms.saturating_sub(heard.at_ms);
                            heard.beacon.uptime_s + (since_ms / 1000) as u32
                        });
                        Said {
                            release: facts.release,
                            echo: facts.echo,
                            management: facts.management,
                            uptime_s,
                            at_ms,
                            path: ways.and_then(|ways| ways.path(self.silence_ms())),
                            keys: facts.keys,
                            holds: held_in(member.swim.aside(entry.seat.id)),
                        }
                    }),
                    name: match name.is_empty() {
                        true => format!("node{}", entry.seat.id),
                        false => name,
                    },
                    choice: member.choices.get(entry.seat.id),
                }
            })
            .collect();
        let standing = Standing::Member { cluster: member.cluster, seat };
        View { standing, members, whole: member.whole }
    }

    fn explain(&self, obstacle: &Obstacle) -> String {
        let expect = self.identity.expect;
        match obstacle {
            Obstacle::TooFew(heard) => format!("{heard} of {expect} nodes found"),
            Obstacle::Expect { mac, theirs } => format!(
                "node {mac} has cluster.bootstrap_expect = {theirs}, this node {expect}; give all \
                 nodes the same number"
            ),
            Obstacle::Deaf { mac, to } => {
                format!("node {mac} does not hear node {to}; check the network between them")
            }
            Obstacle::Agreed { mac } => format!("node {mac} forms a cluster with others"),
            Obstacle::Settling(found) => {
                format!("{found} nodes found ({expect} expected), forming a cluster")
            }
            Obstacle::Asking => "asking the cluster for a place".into(),
            Obstacle::Full => {
                format!("the cluster has {MEMBERS_MAX} members, the most it can have")
            }
            Obstacle::NoMajority { down, members } => format!(
                "{down} of the {members} members of the cluster are down; it admits a new node once \
                 more than half of them are up"
            ),
        }
    }
}
