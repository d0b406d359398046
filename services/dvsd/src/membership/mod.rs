// SPDX-License-Identifier: MIT OR Apache-2.0
//! Membership: machines find each other, form a cluster, join it, and notice who is gone.
//!
//! [`Membership`] is told what beacons and messages arrived and what time it is, and says what to send and who
//! is a member. It does no I/O and has no clock and no randomness of its own. The rest of `dvsd`
//! sees [`View`]s only, so that another protocol can take this one's place.
//!
//! **Formation** is a two-phase commit with one place of decision ([`formation`]), by beacons. **Joining**:
//! the live member with the lowest id gives a place in the [`Roster`] to candidates that it hears, and tells them so in its beacons.
//! From then on members tell each other by messages to one at a time what they are and who is down ([`swim`]); beacons
//! say only that they are there, and by which interfaces. **Down** is whom nobody reaches, and whom this node does not reach:
//! where frames pass in one direction only, both ends see the other down.
//!
//! What this cannot do without consensus: two members that do not hear each other, while both hear
//! most of the others, may give the same id away. The rules of the records undo that as soon as
//! they meet, by sending one of the two machines to join again.

mod choices;
pub mod facts;
mod formation;
mod listing;
mod member;
mod peers;
mod removals;
mod roster;
pub mod swim;
mod view;
mod ways;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use dvs_config::Mac;

use crate::beacon::{Beacon, Phase, Place};
pub use facts::Facts;
pub use formation::SETTLE_MS;
use formation::{Formation, Step};
use member::Member;
pub use peers::Novelty;
use peers::Peers;
pub use removals::{Removal, Removals};
pub use roster::{Entry, Roster};
use swim::message::Message;
use swim::Tuning;
pub use view::{Event, Liveness, MemberView, Said, Standing, View};
pub use ways::{OwnInterface, Path};

use crate::segment::Announced;

/// Milliseconds between beacons while a cluster forms or somebody joins, for few nodes: [`forming_ms`] says for how many.
pub const BEACON_FORMING_MS: u64 = 200;
/// Milliseconds between beacons otherwise, for few nodes: more send fewer, so that there are never more than fifty in a second.
pub const BEACON_MS: u64 = 500;
/// A place that was given and was not taken for so many milliseconds is that of one that is down; and so long a way counts as
/// working by which nothing arrives, in a small cluster.
pub const DOWN_MS: u64 = 2_000;
/// A candidate that was not heard for so many milliseconds is gone.
pub const CANDIDATE_MS: u64 = 2_000;
/// A member gives up its cluster for a larger one only in the first so many milliseconds: later
/// somebody may rely on it.
const ABANDON_MS: u64 = 30_000;
/// If this node was not run for so many milliseconds, the silence of others is its own fault.
const STALL_MS: u64 = 700;
/// Milliseconds between two looks at who is there; news make the next one come at once.
const STEP_MS: u64 = 80;
/// Soonest that one beacon follows another, among few nodes.
const BEACON_GAP_MS: u64 = 40;

/// Milliseconds between beacons while so many nodes form a cluster: five fit in [`CANDIDATE_MS`].
fn forming_ms(nodes: usize) -> u64 {
    (8 * nodes as u64).clamp(BEACON_FORMING_MS, 2 * BEACON_FORMING_MS)
}

/// Milliseconds between beacons of so many members.
fn calm_ms(nodes: usize) -> u64 {
    BEACON_MS.max(20 * nodes as u64)
}

/// What does not change while `dvsd` runs.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Name of the cluster.
    pub cluster_name: String,
    /// The machine's identity.
    pub mac: Mac,
    /// A random number of this run of `dvsd`.
    pub instance: u64,
    /// How many nodes form a cluster, 1 to [`MEMBERS_MAX`](crate::beacon::MEMBERS_MAX).
    pub expect: u16,
    /// The configured name; empty if there is none.
    pub name: String,
    /// Version of `dvsd`.
    pub release: String,
    /// Address of the management interface.
    pub management: Option<IpAddr>,
    /// How failures are noticed.
    pub tuning: Tuning,
}

/// What this node's other parts have to tell its peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Announcement {
    /// The kernel tables and links are complete.
    pub ready: bool,
    /// Endpoint of the echo server; 0 while there is none.
    pub echo: u64,
}

/// What this node has to tell its peers of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// Its own; `None` if it does not encrypt.
    pub announced: Option<Announced>,
    /// Association numbers of the newest keys of others that it holds, by machine and run.
    pub held: BTreeMap<(Mac, u64), u8>,
}

#[derive(Debug)]
enum Role {
    Candidate(Formation),
    Member(Member),
}

/// The membership protocol of one node.
#[derive(Debug)]
pub struct Membership {
    identity: Identity,
    announcement: Announcement,
    keys: Keys,
    interfaces: Vec<OwnInterface>,
    started_ms: u64,
    last_tick_ms: u64,
    next_step_ms: u64,
    peers: Peers,
    role: Role,
    counter: u64,
    next_beacon_ms: u64,
    last_beacon_ms: u64,
    /// Soonest that the next one follows it.
    gap_ms: u64,
    /// Which of those that take turns in beacons is the first of the next one, and how many the last one told.
    turn: usize,
    turns_told: usize,
    /// The last revision of the facts that this node told in a cluster.
    revision: u32,
    /// Whether this node is going.
    is_leaving: bool,
    /// Who must not be a member.
    removals: Removals,
    /// Members say that this node must not be one.
    is_removed: bool,
    events: Vec<Event>,
}

/// Why a transport cannot be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// This node is in no cluster.
    NoMember,
    /// There is no such node.
    Unknown,
    /// It is this node, and a link leads to another one.
    Itself,
    /// It is not heard.
    Down,
}

impl Membership {
    /// A node that has just started.
    pub fn new(identity: Identity, now_ms: u64) -> Self {
        Self {
            identity,
            announcement: Announcement::default(),
            keys: Keys::default(),
            interfaces: Vec::new(),
            started_ms: now_ms,
            last_tick_ms: now_ms,
            next_step_ms: now_ms,
            peers: Peers::default(),
            role: Role::Candidate(Formation::new(now_ms)),
            counter: 0,
            next_beacon_ms: now_ms,
            last_beacon_ms: 0,
            gap_ms: BEACON_GAP_MS,
            turn: 0,
            turns_told: 0,
            revision: 0,
            is_leaving: false,
            removals: Removals::default(),
            is_removed: false,
            events: Vec::new(),
        }
    }

    /// Sets what the others are told of this node's other parts.
    pub fn announce(&mut self, now_ms: u64, announcement: Announcement) {
        if self.announcement != announcement {
            self.announcement = announcement;
            self.tell_facts(now_ms);
        }
    }

    /// Sets what the others are told of keys.
    pub fn tell_keys(&mut self, now_ms: u64, keys: Keys) {
        if self.keys != keys {
            self.keys = keys;
            self.tell_facts(now_ms);
            self.tell_asides();
        }
    }

    /// Sets by which interfaces the others are reached.
    pub fn tell_interfaces(&mut self, now_ms: u64, interfaces: Vec<OwnInterface>) {
        if self.interfaces != interfaces {
            self.interfaces = interfaces;
            self.tell_facts(now_ms);
        }
    }

    /// What this node tells of itself.
    fn facts(&self) -> Facts {
        let interface = |it: &OwnInterface| Some((it.mac, it.address?));
        Facts {
            ready: self.announcement.ready,
            echo: self.announcement.echo,
            keys: self.keys.announced,
            management: self.identity.management,
            name: self.identity.name.clone(),
            release: self.identity.release.clone(),
            interfaces: self.interfaces.iter().filter_map(interface).collect(),
        }
    }

    fn tell_facts(&mut self, now_ms: u64) {
        let facts = self.facts().to_bytes();
        if let Role::Member(member) = &mut self.role {
            let before = member.swim.own().revision;
            member.swim.tell(&facts);
            self.revision = member.swim.own().revision;
            if self.revision == before {
                return;
            }
        }
        self.hurry(now_ms);
    }

    /// Says from now on that this node is going, so that the others need not wait until they miss it.
    pub fn leave(&mut self, now_ms: u64) {
        self.is_leaving = true;
        if let Role::Member(member) = &mut self.role {
            member.swim.leave();
        }
        self.hurry(now_ms);
    }

    /// Leaves out who was removed, as the nodes have agreed.
    pub fn remove(&mut self, now_ms: u64, removals: Removals) {
        if self.removals == removals {
            return;
        }
        self.removals = removals;
        self.follow_records(now_ms);
        self.hurry(now_ms);
    }

    fn become_removed(&mut self, now_ms: u64) {
        if let Role::Member(member) = &self.role {
            self.events.push(Event::Removed { cluster: member.cluster });
            self.become_candidate(now_ms);
        }
        self.is_removed = true;
    }

    /// Takes what a member says of whether this node may be one.
    fn hear_removal(&mut self, now_ms: u64, beacon: &Beacon) {
        let own = (self.identity.mac, self.identity.instance);
        let told = beacon.peers.iter().find(|peer| (peer.mac, peer.instance) == own);
        let Some(told) = told else { return };
        match &self.role {
            Role::Member(member) if member.cluster != beacon.cluster || !told.removed => {}
            _ if told.removed => self.become_removed(now_ms),
            _ => self.is_removed = false,
        }
    }

    /// Takes an authentic beacon of this cluster's name.
    pub fn receive(&mut self, now_ms: u64, path: Path, beacon: Beacon) -> Novelty {
        let own = (self.identity.mac, self.identity.instance);
        if beacon.mac == own.0 {
            // Its own beacons come back where a switch floods them. Another instance that hears
            // this one is another machine.
            let hears_us =
                beacon.peers.iter().any(|peer| peer.heard && (peer.mac, peer.instance) == own);
            if beacon.instance != own.1 && hears_us {
                self.events.push(Event::SameIdentity { mac: own.0, address: path.address });
            }
            return Novelty::Old;
        }
        let (mac, instance) = (beacon.mac, beacon.instance);
        let phase = self.peers.of_instance(mac, instance).map(|heard| heard.beacon.phase);
        let vouched = match &self.role {
            Role::Member(member) => member.roster.of_instance(mac, instance).is_some(),
            Role::Candidate(_) => false,
        };
        let novelty = self.peers.hear(now_ms, own, vouched, path, beacon);
        match novelty {
            Novelty::Old => {}
            Novelty::Unproven => self.hurry(now_ms),
            Novelty::New => {
                if let Some(heard) = self.peers.of_instance(mac, instance) {
                    let beacon = heard.beacon.clone();
                    if phase != Some(beacon.phase) {
                        self.next_step_ms = now_ms;
                        // Of what becomes of a member, the others need not hear by this one.
                        if !phase.is_some_and(Phase::is_member) {
                            self.hurry(now_ms);
                        }
                    }
                    match beacon.phase {
                        Phase::Member | Phase::Ready => self.hear_member(now_ms, &beacon),
                        Phase::Leaving => self.hear_goodbye(now_ms, &beacon),
                        Phase::Candidate | Phase::Proposer | Phase::Accepter => {}
                    }
                }
            }
        }
        novelty
    }

    /// Takes an authentic message of a member, which came by this interface from this address.
    pub fn receive_message(
        &mut self,
        now_ms: u64,
        interface: u32,
        source: Ipv6Addr,
        message: Message,
    ) {
        let Role::Member(member) = &mut self.role else { return };
        let from = message.from;
        if member.swim.receive(now_ms, message) {
            if let Some(record) = member.swim.record(from) {
                let told = Facts::read(&record.facts).map(|facts| facts.interfaces);
                let told = told.into_iter().flatten().find(|(_, address)| *address == source);
                if let Some((mac, address)) = told {
                    let path = Path { interface, mac, address };
                    self.peers.note_way(now_ms, record.mac, path);
                }
            }
        }
        self.attend(now_ms);
    }

    /// The messages to send now, each with where to: interfaces and addresses.
    pub fn take_messages(&mut self, now_ms: u64) -> Vec<(Vec<(u32, Ipv6Addr)>, Message)> {
        let silence_ms = self.silence_ms();
        let Role::Member(member) = &mut self.role else { return Vec::new() };
        let messages = member.swim.take_messages();
        let targets = |id: u16| {
            let record = member.swim.record(id)?;
            let told = Facts::read(&record.facts);
            let ways = self.peers.ways(record.mac).cloned().unwrap_or_default();
            Some(ways.targets(now_ms, silence_ms, &self.interfaces, told.as_ref()))
        };
        let with_targets = |(id, message)| Some((targets(id)?, message));
        messages.into_iter().filter_map(with_targets).collect()
    }

    /// A way by which nothing arrives for so many milliseconds does not work.
    fn silence_ms(&self) -> u64 {
        let members = match &self.role {
            Role::Member(member) => member.roster.len(),
            Role::Candidate(_) => 0,
        };
        DOWN_MS.max(5 * calm_ms(members))
    }

    /// Lets time pass. Says whether a beacon is to be sent now, on every interface. To be called
    /// about every 20 ms, and after [`receive`](Self::receive).
    pub fn tick(&mut self, now_ms: u64, entropy: u64) -> bool {
        let gap_ms = now_ms.saturating_sub(self.last_tick_ms);
        if gap_ms > STALL_MS {
            self.peers.forgive(gap_ms);
        }
        self.last_tick_ms = now_ms;
        if let Role::Member(member) = &mut self.role {
            member.swim.tick(now_ms, entropy);
        }
        self.attend(now_ms);
        if now_ms >= self.next_step_ms {
            self.next_step_ms = now_ms + STEP_MS;
            self.step(now_ms, entropy);
        }
        if now_ms < self.next_beacon_ms {
            return false;
        }
        let nodes = match &self.role {
            Role::Member(member) => member.roster.len(),
            Role::Candidate(_) => {
                self.peers.confirmed().filter(|heard| heard.is_live(now_ms, CANDIDATE_MS)).count()
            }
        };
        let interval = match self.is_calm(now_ms) {
            true => calm_ms(nodes),
            false => forming_ms(nodes),
        };
        // Many would answer each other's beacons all at once.
        self.gap_ms = (4 * nodes as u64).clamp(BEACON_GAP_MS, BEACON_FORMING_MS);
        // A quarter of jitter either way, so that nodes that booted together don't send together.
        self.next_beacon_ms = now_ms + interval * 3 / 4 + entropy % (interval / 2);
        self.last_beacon_ms = now_ms;
        // All interfaces tell the same, since not every peer is on each.
        self.turn = self.turn.wrapping_add(std::mem::take(&mut self.turns_told));
        true
    }

    fn step(&mut self, now_ms: u64, entropy: u64) {
        match &mut self.role {
            // It neither asks for a place nor founds another cluster behind the back of who removed it.
            Role::Candidate(_) if self.is_removed => {}
            Role::Candidate(formation) => {
                match formation.step(now_ms, entropy, &self.identity, &self.peers) {
                    Step::Stay => {}
                    Step::Tell => self.hurry(now_ms),
                    Step::Formed { cluster, roster } => {
                        self.events.push(Event::Formed { cluster, members: roster.len() });
                        self.found(now_ms, cluster, &roster);
                    }
                }
            }
            Role::Member(_) => {
                self.become_whole(now_ms);
                self.detect_failures(now_ms);
                self.admit_candidates(now_ms);
            }
        }
    }

    /// Becomes a member of the cluster that it formed with these.
    fn found(&mut self, now_ms: u64, cluster: u64, founders: &Roster) {
        let own = founders.of_instance(self.identity.mac, self.identity.instance);
        if let Some(seat) = own.map(|entry| entry.seat) {
            self.become_member(now_ms, cluster, seat, founders, founders.len());
        }
    }

    /// The beacon to send now from the interface with this MAC address.
    pub fn beacon(&mut self, now_ms: u64, link_mac: Mac) -> Beacon {
        self.counter += 1;
        let (phase, cluster) = match &self.role {
            Role::Candidate(formation) => formation.phase(),
            Role::Member(member) if self.is_leaving => (Phase::Leaving, member.cluster),
            Role::Member(member) if self.announcement.ready => (Phase::Ready, member.cluster),
            Role::Member(member) => (Phase::Member, member.cluster),
        };
        let mut beacon = Beacon {
            cluster_name: self.identity.cluster_name.clone(),
            mac: self.identity.mac,
            instance: self.identity.instance,
            counter: self.counter,
            link_mac,
            phase,
            expect: self.identity.expect,
            cluster,
            uptime_s: (now_ms.saturating_sub(self.started_ms) / 1000) as u32,
            place: None,
            members: 0,
            live: 0,
            facts: self.facts(),
            peers: Vec::new(),
        };
        if let Role::Member(member) = &self.role {
            let own = member.swim.own();
            let (seat, refutation) = (own.claim.seat, own.claim.refutation);
            beacon.place = Some(Place { seat, refutation, revision: own.revision });
            beacon.members = member.roster.len() as u16;
            beacon.live = member.live() as u16;
        }
        self.list(now_ms, &mut beacon);
        beacon
    }

    /// Those who formed the cluster, the same on each of them; empty for a node that joined it later,
    /// or has forgotten what it agreed to before it heard that the others had.
    pub fn founders(&self) -> Roster {
        match &self.role {
            Role::Member(member) => member.founders.clone(),
            Role::Candidate(_) => Roster::default(),
        }
    }

    /// Whatever happened since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Sends the next beacon at once, since there is something new to say.
    fn hurry(&mut self, now_ms: u64) {
        let soonest = now_ms.max(self.last_beacon_ms + self.gap_ms);
        self.next_beacon_ms = self.next_beacon_ms.min(soonest);
    }

    /// Nobody is about to form or join a cluster.
    fn is_calm(&self, now_ms: u64) -> bool {
        matches!(self.role, Role::Member(_))
            && !self
                .peers
                .confirmed()
                .any(|heard| heard.is_live(now_ms, CANDIDATE_MS) && !heard.beacon.phase.is_member())
    }

    fn become_candidate(&mut self, now_ms: u64) {
        self.role = Role::Candidate(Formation::new(now_ms));
        self.announcement = Announcement::default();
        self.hurry(now_ms);
    }

    fn hear_member(&mut self, now_ms: u64, beacon: &Beacon) {
        self.hear_removal(now_ms, beacon);
        let own = (self.identity.mac, self.identity.instance);
        let member = match &self.role {
            Role::Candidate(_) if self.is_removed => return,
            Role::Candidate(formation) => {
                let founders = formation.founders(beacon.cluster);
                let mut named = beacon.peers.iter();
                let named = named.find(|peer| (peer.mac, peer.instance) == own);
                if !founders.is_empty() {
                    self.events.push(Event::Joined { cluster: beacon.cluster });
                    self.found(now_ms, beacon.cluster, &founders);
                } else if let Some(seat) = named.and_then(|peer| peer.seat) {
                    self.events.push(Event::Joined { cluster: beacon.cluster });
                    let (none, expected) = (Roster::default(), beacon.members.into());
                    self.become_member(now_ms, beacon.cluster, seat, &none, expected);
                } else {
                    return;
                }
                self.hear_fellow(now_ms, beacon);
                return;
            }
            Role::Member(member) => member,
        };
        if member.cluster == beacon.cluster {
            self.hear_fellow(now_ms, beacon);
            return;
        }
        // Two clusters formed apart, in a partition. The smaller one gives way while it is young.
        let young = now_ms.saturating_sub(member.since_ms) < ABANDON_MS;
        let (ours, theirs) = (member.live(), usize::from(beacon.live));
        let smaller = (ours, Reverse(member.cluster)) < (theirs, Reverse(beacon.cluster));
        let (ours, theirs) = (member.cluster, beacon.cluster);
        if young && smaller {
            self.events.push(Event::Abandoned { ours, theirs });
            self.become_candidate(now_ms);
        } else {
            self.events.push(Event::TwoClusters { mac: beacon.mac, ours, theirs });
        }
    }
}
