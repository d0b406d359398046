// SPDX-License-Identifier: MIT OR Apache-2.0
//! Membership: machines find each other, form a cluster, join it, and notice who is gone.
//!
//! [`Membership`] is told what beacons arrived and what time it is, and says what to send and who
//! is a member. It does no I/O and has no clock and no randomness of its own. The rest of `dvsd`
//! sees [`View`]s only, so that another protocol can take this one's place.
//!
//! **Formation** is a two-phase commit with one place of decision ([`formation`]). **Joining**:
//! the live member with the lowest id gives a place in the [`Roster`] to candidates that it hears.
//! Rosters travel whole in every beacon and are merged. **Failure detection**: who has not been
//! heard for [`DOWN_MS`] is down, and up again with its next beacon. So is a member that says it does
//! not hear this node: where frames pass in one direction only, both ends see the other down.
//!
//! What this cannot do without consensus: two members that do not hear each other, while both hear
//! most of the others, may give the same id away. The rules of the roster undo that as soon as
//! their rosters meet, by sending one of the two machines to join again.

mod choices;
pub mod facts;
mod formation;
mod peers;
mod removals;
mod roster;
pub mod swim;
mod view;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;

use dvs_api::Transport;
use dvs_config::Mac;

use crate::beacon::{Beacon, Choice, PeerEntry, Phase, MEMBERS_MAX, PEERS_MAX};
use choices::Choices;
pub use formation::SETTLE_MS;
use formation::{Formation, Step};
use peers::{Heard, Peers};
pub use peers::{Novelty, Path};
pub use removals::{Removal, Removals};
pub use roster::{Entry, Roster};
pub use view::{Event, Liveness, MemberView, Said, Standing, View};

use crate::segment::Announced;

/// Milliseconds between beacons while a cluster forms or somebody joins.
pub const BEACON_FORMING_MS: u64 = 200;
/// Milliseconds between beacons otherwise: eight fit in [`DOWN_MS`], so that even with 5 % loss a
/// live node is taken for dead once in years.
pub const BEACON_MS: u64 = 250;
/// A member that was not heard for so many milliseconds is down.
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
/// Soonest that one beacon follows another.
const BEACON_GAP_MS: u64 = 40;

/// What does not change while `dvsd` runs.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Name of the cluster.
    pub cluster_name: String,
    /// The machine's identity.
    pub mac: Mac,
    /// A random number of this run of `dvsd`.
    pub instance: u64,
    /// How many nodes form a cluster, 1 to [`MEMBERS_MAX`].
    pub expect: u16,
    /// The configured name; empty if there is none.
    pub name: String,
    /// Version of `dvsd`.
    pub release: String,
    /// Address of the management interface.
    pub management: Option<IpAddr>,
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

#[derive(Debug)]
struct Member {
    cluster: u64,
    roster: Roster,
    /// When each incarnation appeared in the roster, in milliseconds.
    arrived_ms: BTreeMap<u16, (u32, u64)>,
    /// Who is down: id and incarnation.
    down: BTreeMap<u16, u32>,
    /// Since when this node is a member, in milliseconds.
    since_ms: u64,
    /// What is to carry this node's links.
    choices: Choices,
    /// Those who formed the cluster, if this node was one of them.
    founders: Roster,
}

/// The membership protocol of one node.
#[derive(Debug)]
pub struct Membership {
    identity: Identity,
    announcement: Announcement,
    keys: Keys,
    started_ms: u64,
    last_tick_ms: u64,
    next_step_ms: u64,
    peers: Peers,
    role: Role,
    counter: u64,
    next_beacon_ms: u64,
    last_beacon_ms: u64,
    /// The last of the choices that the latest beacon told.
    last_told: Option<u16>,
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
            started_ms: now_ms,
            last_tick_ms: now_ms,
            next_step_ms: now_ms,
            peers: Peers::default(),
            role: Role::Candidate(Formation::new(now_ms)),
            counter: 0,
            next_beacon_ms: now_ms,
            last_beacon_ms: 0,
            last_told: None,
            is_leaving: false,
            removals: Removals::default(),
            is_removed: false,
            events: Vec::new(),
        }
    }

    /// Sets what the beacons say of this node's other parts.
    pub fn announce(&mut self, now_ms: u64, announcement: Announcement) {
        if self.announcement != announcement {
            self.announcement = announcement;
            self.hurry(now_ms);
        }
    }

    /// Sets what the beacons say of keys.
    pub fn tell_keys(&mut self, now_ms: u64, keys: Keys) {
        if self.keys != keys {
            self.keys = keys;
            self.hurry(now_ms);
        }
    }

    /// Says from now on that this node is going, so that the others need not wait until they miss it.
    pub fn leave(&mut self, now_ms: u64) {
        self.is_leaving = true;
        self.hurry(now_ms);
    }

    /// Leaves out who was removed, as the nodes have agreed.
    pub fn remove(&mut self, now_ms: u64, removals: Removals) {
        if self.removals == removals {
            return;
        }
        self.removals = removals;
        let Role::Member(member) = &mut self.role else { return };
        let before = member.roster.clone();
        if !self.removals.apply(&mut member.roster) {
            return;
        }
        if member.roster.of_machine(self.identity.mac).is_none() {
            self.become_removed(now_ms);
            return;
        }
        for Entry { seat, mac, .. } in before.entries() {
            if member.roster.get(seat.id).is_none() {
                member.arrived_ms.remove(&seat.id);
                member.down.remove(&seat.id);
                self.events.push(Event::NodeRemoved { seat: *seat, mac: *mac });
            }
        }
        self.note_arrivals(now_ms);
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
        let novelty = self.peers.hear(now_ms, own, CANDIDATE_MS, path, beacon);
        match novelty {
            Novelty::Old => {}
            Novelty::Unproven => self.hurry(now_ms),
            Novelty::New => {
                if let Some(heard) = self.peers.of_instance(mac, instance) {
                    let beacon = heard.beacon.clone();
                    if phase != Some(beacon.phase) {
                        self.next_step_ms = now_ms;
                        self.hurry(now_ms);
                    }
                    if beacon.phase.is_member() {
                        self.hear_member(now_ms, &beacon);
                    }
                }
            }
        }
        novelty
    }

    /// Lets time pass. Says whether a beacon is to be sent now, on every interface. To be called
    /// about every 20 ms, and after [`receive`](Self::receive).
    pub fn tick(&mut self, now_ms: u64, entropy: u64) -> bool {
        let gap_ms = now_ms.saturating_sub(self.last_tick_ms);
        if gap_ms > STALL_MS {
            self.peers.forgive(gap_ms);
        }
        self.last_tick_ms = now_ms;
        if now_ms >= self.next_step_ms {
            self.next_step_ms = now_ms + STEP_MS;
            self.step(now_ms, entropy);
        }
        if now_ms < self.next_beacon_ms {
            return false;
        }
        let interval = match self.is_calm(now_ms) {
            true => BEACON_MS,
            false => BEACON_FORMING_MS,
        };
        // A quarter of jitter either way, so that nodes that booted together don't send together.
        self.next_beacon_ms = now_ms + interval * 3 / 4 + entropy % (interval / 2);
        self.last_beacon_ms = now_ms;
        // All interfaces tell the same choices, since not every peer is on each.
        if let (Role::Member(member), Some(last)) = (&mut self.role, self.last_told.take()) {
            member.choices.told(last);
        }
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
                        let founders = roster.clone();
                        self.become_member(now_ms, cluster, roster, founders);
                    }
                }
            }
            Role::Member(_) => {
                self.admit_candidates(now_ms);
                self.detect_failures(now_ms);
            }
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
            echo: self.announcement.echo,
            keys: self.keys.announced,
            uptime_s: (now_ms.saturating_sub(self.started_ms) / 1000) as u32,
            management: self.identity.management,
            name: self.identity.name.clone(),
            release: self.identity.release.clone(),
            peers: self.peer_entries(now_ms),
            choices: Vec::new(),
        };
        if let Role::Member(member) = &self.role {
            let live = |id: u16| {
                let entry = member.roster.get(id)?;
                let heard = self.peers.of_instance(entry.mac, entry.instance)?;
                heard.is_live(now_ms, DOWN_MS).then_some(entry.seat.incarnation)
            };
            beacon.choices = member.choices.telling(beacon.room(), live);
            self.last_told = beacon.choices.last().map(|entry| entry.peer);
        }
        beacon
    }

    /// Chooses what is to carry the link between this node and another one. Says which choice
    /// holds now.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn choose(
        &mut self,
        now_ms: u64,
        peer: u16,
        transport: Transport,
    ) -> Result<Choice, Refusal> {
        let Role::Member(member) = &self.role else { return Err(Refusal::NoMember) };
        let entry = *member.roster.get(peer).ok_or(Refusal::Unknown)?;
        if entry.mac == self.identity.mac {
            return Err(Refusal::Itself);
        }
        // It may have been chosen otherwise before this node started, and only the peer knows.
        if self.liveness(member, now_ms, &entry) != Liveness::Alive {
            return Err(Refusal::Down);
        }
        let Role::Member(member) = &mut self.role else { return Err(Refusal::NoMember) };
        let changed = member.choices.set(peer, entry.mac, transport);
        let choice = member.choices.get(peer);
        if changed {
            self.events.push(Event::Chosen { peer, choice });
            self.hurry(now_ms);
        }
        Ok(choice)
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
        let soonest = now_ms.max(self.last_beacon_ms + BEACON_GAP_MS);
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

    fn become_member(&mut self, now_ms: u64, cluster: u64, roster: Roster, founders: Roster) {
        let arrived_ms =
            roster.entries().map(|e| (e.seat.id, (e.seat.incarnation, now_ms))).collect();
        self.role = Role::Member(Member {
            cluster,
            roster,
            arrived_ms,
            down: BTreeMap::new(),
            since_ms: now_ms,
            choices: Choices::default(),
            founders,
        });
        self.announcement = Announcement::default();
        self.hurry(now_ms);
    }

    fn become_candidate(&mut self, now_ms: u64) {
        self.role = Role::Candidate(Formation::new(now_ms));
        self.announcement = Announcement::default();
        self.hurry(now_ms);
    }

    fn hear_member(&mut self, now_ms: u64, beacon: &Beacon) {
        self.hear_removal(now_ms, beacon);
        let own = (self.identity.mac, self.identity.instance);
        let mut told = Roster::of_peers(&beacon.peers);
        self.removals.apply(&mut told);
        let member = match &mut self.role {
            Role::Candidate(formation) => {
                if told.of_instance(own.0, own.1).is_some() {
                    let founders = formation.founders(beacon.cluster);
                    self.events.push(Event::Joined { cluster: beacon.cluster });
                    self.become_member(now_ms, beacon.cluster, told, founders);
                    self.hear_choices(now_ms, beacon);
                }
                return;
            }
            Role::Member(member) => member,
        };
        if member.cluster == beacon.cluster {
            if member.roster.merge(&told) {
                if member.roster.of_instance(own.0, own.1).is_none() {
                    self.events.push(Event::Evicted { mac: own.0 });
                    self.become_candidate(now_ms);
                    return;
                }
                self.note_arrivals(now_ms);
                self.hurry(now_ms);
            }
            self.hear_choices(now_ms, beacon);
            return;
        }
        // Two clusters formed apart, in a partition. The smaller one gives way while it is young.
        let young = now_ms.saturating_sub(member.since_ms) < ABANDON_MS;
        let ours = member.roster.len() - member.down.len();
        let theirs = beacon.peers.iter().filter(|peer| peer.seat.is_some() && !peer.down).count();
        let smaller = (ours, Reverse(member.cluster)) < (theirs, Reverse(beacon.cluster));
        let (ours, theirs) = (member.cluster, beacon.cluster);
        if young && smaller {
            self.events.push(Event::Abandoned { ours, theirs });
            self.become_candidate(now_ms);
        } else {
            self.events.push(Event::TwoClusters { mac: beacon.mac, ours, theirs });
        }
    }

    /// Takes what a member says of the link to this node.
    fn hear_choices(&mut self, now_ms: u64, beacon: &Beacon) {
        let Role::Member(member) = &mut self.role else { return };
        let Some(own) = member.roster.of_machine(self.identity.mac) else { return };
        // Only the end of a link speaks of it, in its present incarnation.
        let Some(sender) = member.roster.of_instance(beacon.mac, beacon.instance) else { return };
        let (own, peer) = (own.seat, sender.seat);
        let told = beacon.choices.iter().find(|entry| entry.peer == own.id);
        let Some(told) = told else { return };
        if member.choices.hear(peer, beacon.mac, told.choice) {
            self.events.push(Event::Chosen { peer: peer.id, choice: told.choice });
            self.hurry(now_ms);
        }
    }

    /// Records since when each incarnation in the roster is known.
    fn note_arrivals(&mut self, now_ms: u64) {
        let Role::Member(member) = &mut self.role else { return };
        member.choices.forget_gone(|id| member.roster.get(id).map(|entry| entry.mac));
        for Entry { seat, mac, .. } in member.roster.entries() {
            let known = member.arrived_ms.get(&seat.id).map(|(incarnation, _)| *incarnation);
            if known != Some(seat.incarnation) {
                member.arrived_ms.insert(seat.id, (seat.incarnation, now_ms));
                member.down.remove(&seat.id);
                self.events.push(match known {
                    None => Event::NodeJoined { seat: *seat, mac: *mac },
                    Some(_) => Event::NodeRestarted { seat: *seat, mac: *mac },
                });
            }
        }
    }

    fn liveness(&self, member: &Member, now_ms: u64, entry: &Entry) -> Liveness {
        if entry.mac == self.identity.mac {
            return Liveness::Alive;
        }
        let heard = self.peers.of_instance(entry.mac, entry.instance);
        // A member whose beacons say it is in no cluster, or in another one, has lost its place.
        let belongs = |heard: &Heard| {
            heard.beacon.phase.is_member() && heard.beacon.cluster == member.cluster
        };
        let since = member.arrived_ms.get(&entry.seat.id).map_or(0, |(_, at)| *at);
        let fresh = now_ms.saturating_sub(since) <= DOWN_MS;
        if let Some(heard) = heard.filter(|heard| heard.is_live(now_ms, DOWN_MS)) {
            if heard.beacon.phase == Phase::Leaving {
                return Liveness::Down;
            }
            if !belongs(heard) {
                return Liveness::Expected;
            }
            // One that does not hear this node has it down. The two agree on that, or this one
            // would wait for answers that are never sent.
            let settled = !fresh && now_ms.saturating_sub(member.since_ms) > DOWN_MS;
            let deaf = settled && !self.is_heard_by(heard);
            return if deaf { Liveness::Down } else { Liveness::Alive };
        }
        if fresh && self.peers.of_instance(entry.mac, entry.instance).is_none() {
            Liveness::Expected
        } else {
            Liveness::Down
        }
    }

    /// Whether the sender of these beacons says that this node's arrive there.
    fn is_heard_by(&self, heard: &Heard) -> bool {
        let own = (self.identity.mac, self.identity.instance);
        heard.beacon.peers.iter().any(|peer| peer.heard && (peer.mac, peer.instance) == own)
    }

    /// Live candidates that ask this cluster for a place, in the order of identities.
    fn applicants<'a>(
        &'a self,
        member: &'a Member,
        now_ms: u64,
    ) -> impl Iterator<Item = &'a Heard> + 'a {
        self.peers.confirmed().filter(move |heard| {
            heard.is_live(now_ms, CANDIDATE_MS)
                && heard.beacon.phase == Phase::Candidate
                && heard.beacon.cluster == member.cluster
                && !self.removals.bar(heard.beacon.mac)
        })
    }

    fn admit_candidates(&mut self, now_ms: u64) {
        let Role::Member(member) = &self.role else { return };
        let applicants: Vec<_> = self
            .applicants(member, now_ms)
            .map(|heard| (heard.beacon.mac, heard.beacon.instance))
            .collect();
        if applicants.is_empty() {
            return;
        }
        let alive = |entry: &&Entry| self.liveness(member, now_ms, entry) != Liveness::Down;
        // Whoever asks for its place back cannot be the one to give it.
        let first = member
            .roster
            .entries()
            .filter(alive)
            .find(|entry| !applicants.iter().any(|(mac, _)| *mac == entry.mac));
        if first.is_none_or(|first| first.mac != self.identity.mac) {
            return;
        }
        let majority = member.roster.entries().filter(alive).count() * 2 > member.roster.len();
        let mut changed = false;
        let Role::Member(member) = &mut self.role else { return };
        for (mac, instance) in applicants {
            let known = member.roster.of_machine(mac);
            let admit = match known {
                // It has its place and has not heard so yet.
                Some(entry) if entry.instance == instance => false,
                Some(_) => true,
                None => majority && member.roster.len() < MEMBERS_MAX,
            };
            if admit {
                member.roster.admit(mac, instance, &self.removals);
                changed = true;
            }
        }
        if changed {
            self.note_arrivals(now_ms);
            self.hurry(now_ms);
        }
    }

    fn detect_failures(&mut self, now_ms: u64) {
        let Role::Member(member) = &self.role else { return };
        let mut down = BTreeMap::new();
        for entry in member.roster.entries() {
            let Entry { seat, mac, .. } = *entry;
            let was_down = member.down.get(&seat.id) == Some(&seat.incarnation);
            match self.liveness(member, now_ms, entry) {
                Liveness::Down => {
                    down.insert(seat.id, seat.incarnation);
                    if !was_down {
                        let heard = self.peers.of_instance(mac, entry.instance);
                        let deaf = heard.is_some_and(|heard| heard.is_live(now_ms, DOWN_MS));
                        let left = heard.is_some_and(|heard| heard.beacon.phase == Phase::Leaving);
                        self.events.push(match (left, deaf) {
                            (true, _) => Event::NodeLeft { seat, mac },
                            (false, true) => Event::NodeDeaf { seat, mac },
                            (false, false) => Event::NodeDown { seat, mac },
                        });
                    }
                }
                Liveness::Alive if was_down => self.events.push(Event::NodeBack { seat, mac }),
                Liveness::Expected if was_down => {
                    down.insert(seat.id, seat.incarnation);
                }
                Liveness::Alive | Liveness::Expected => {}
            }
        }
        let changed = down != member.down;
        if let Role::Member(member) = &mut self.role {
            member.down = down;
        }
        if changed {
            self.hurry(now_ms);
        }
    }

    /// The roster or proposal and whoever else is heard, as many as a beacon holds.
    fn peer_entries(&self, now_ms: u64) -> Vec<PeerEntry> {
        let empty = Roster::default();
        let (roster, down) = match &self.role {
            Role::Candidate(formation) => (formation.proposal().unwrap_or(&empty), None),
            Role::Member(member) => (&member.roster, Some(&member.down)),
        };
        let own = (self.identity.mac, self.identity.instance);
        let live = |heard: &Heard| heard.is_live(now_ms, CANDIDATE_MS);
        let mut peers: Vec<_> = roster
            .entries()
            .map(|entry| {
                let heard = (entry.mac, entry.instance) == own
                    || self.peers.of_instance(entry.mac, entry.instance).is_some_and(live);
                PeerEntry {
                    mac: entry.mac,
                    instance: entry.instance,
                    seat: Some(entry.seat),
                    heard,
                    confirmed: heard,
                    down: down.is_some_and(|down| down.contains_key(&entry.seat.id)),
                    holds: self.keys.held.get(&(entry.mac, entry.instance)).copied(),
                    removed: false,
                }
            })
            .collect();
        let confirmed = self.peers.confirmed().filter(|heard| live(heard)).map(|h| (h, true));
        let provisional = self.peers.provisional(now_ms, CANDIDATE_MS).map(|h| (h, false));
        for (heard, confirmed) in confirmed.chain(provisional) {
            let Beacon { mac, instance, phase, .. } = heard.beacon;
            if roster.of_instance(mac, instance).is_none() && peers.len() < PEERS_MAX {
                peers.push(PeerEntry {
                    mac,
                    instance,
                    seat: None,
                    heard: true,
                    confirmed,
                    down: false,
                    holds: None,
                    removed: self.removals.concern(mac, phase.is_member()),
                });
            }
        }
        peers
    }
}
