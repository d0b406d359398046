// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a node does that is a member: it follows the records that the members spread, lets others in, and says who is down.

use std::collections::{BTreeMap, BTreeSet};

use dvs_api::Transport;
use dvs_config::Mac;

use super::choices::Choices;
use super::peers::Heard;
use super::roster::{Entry, Roster};
use super::swim::message::Aside;
use super::swim::record::{Claim, Health, Record};
use super::swim::{Event as Told, Standing, Swim};
use super::view::{Event, Liveness};
use super::{Membership, Refusal, Role, CANDIDATE_MS, DOWN_MS, SETTLE_MS};
use crate::beacon::{
    transport_number, transport_of, Beacon, Choice, Seat, FOUNDERS_MAX, MEMBERS_MAX,
};

/// A node that joins waits so many milliseconds at most to hear of all members.
const WHOLE_MS: u64 = 5_000;
/// So many milliseconds after somebody came back who was down, no new machine is let in.
const MEET_MS: u64 = 1_500;
/// How often it asks for them meanwhile, in milliseconds.
const ASK_MS: u64 = 200;

#[derive(Debug)]
pub(super) struct Member {
    pub(super) cluster: u64,
    pub(super) swim: Swim,
    /// What follows from the records.
    pub(super) roster: Roster,
    /// How many members there were when this node joined.
    expected: usize,
    /// It has heard of all these.
    pub(super) whole: bool,
    asked_ms: u64,
    /// When each incarnation appeared in the roster, in milliseconds.
    pub(super) arrived_ms: BTreeMap<u16, (u32, u64)>,
    /// Who is down: id and incarnation.
    pub(super) down: BTreeMap<u16, u32>,
    /// Since when this node is a member, in milliseconds.
    pub(super) since_ms: u64,
    /// What is to carry this node's links.
    pub(super) choices: Choices,
    /// Those who formed the cluster, if this node was one of them.
    pub(super) founders: Roster,
    /// When somebody came back who was down.
    met_ms: u64,
    /// Machines without a place that ask for one, and since when they are the same.
    newcomers: (BTreeSet<Mac>, u64),
}

impl Member {
    pub(super) fn live(&self) -> usize {
        self.roster.len().saturating_sub(self.down.len())
    }
}

/// What each end of a link tells the other one: 1 + association number of the newest of the other's keys that it holds (0: none), number
/// of the transport, revision of that choice.
fn aside_of(holds: Option<u8>, choice: Choice) -> Aside {
    let mut aside = Aside::default();
    aside[0] = holds.map_or(0, |association| 1 + association);
    if choice.revision != 0 {
        aside[1] = transport_number(choice.transport) as u8;
        aside[2..6].copy_from_slice(&choice.revision.to_le_bytes());
    }
    aside
}

/// The choice in an aside, if there is one.
fn choice_in(aside: Aside) -> Option<Choice> {
    let [_, transport, a, b, c, d, ..] = aside;
    let revision = u32::from_le_bytes([a, b, c, d]);
    // Nobody chose the default.
    let transport = transport_of(transport.into()).filter(|_| revision != 0)?;
    Some(Choice { revision, transport })
}

/// The key in an aside.
pub(super) fn held_in(aside: Aside) -> Option<u8> {
    aside[0].checked_sub(1)
}

impl Membership {
    pub(super) fn become_member(
        &mut self,
        now_ms: u64,
        cluster: u64,
        seat: Seat,
        others: &Roster,
        expected: usize,
    ) {
        self.announcement = Default::default();
        self.revision += 1;
        let own = Record {
            claim: Claim { seat, refutation: 0, health: Health::Alive },
            mac: self.identity.mac,
            instance: self.identity.instance,
            revision: self.revision,
            facts: self.facts().to_bytes().into(),
        };
        let mut swim = Swim::new(now_ms, cluster, own, self.identity.tuning);
        for entry in others.entries() {
            let heard = self.peers.of_instance(entry.mac, entry.instance);
            swim.overhear(now_ms, placed(entry, heard));
        }
        self.role = Role::Member(Member {
            cluster,
            swim,
            roster: Roster::default(),
            expected,
            whole: false,
            asked_ms: now_ms,
            arrived_ms: BTreeMap::new(),
            down: BTreeMap::new(),
            since_ms: now_ms,
            choices: Choices::default(),
            founders: others.clone(),
            met_ms: 0,
            newcomers: Default::default(),
        });
        self.follow_records(now_ms);
        self.next_step_ms = now_ms;
        self.hurry(now_ms);
    }

    /// Takes what has come of what was received, or of time.
    pub(super) fn attend(&mut self, now_ms: u64) {
        let Role::Member(member) = &mut self.role else { return };
        let told = member.swim.take_events();
        let (mut records, mut asides) = (false, Vec::new());
        for told in told {
            match told {
                Told::Stands { .. } => self.next_step_ms = now_ms,
                Told::Told(_) => records = true,
                Told::Aside(seat) => asides.push(seat.id),
                Told::Evicted => {
                    self.evict(now_ms);
                    return;
                }
            }
        }
        if records {
            self.next_step_ms = now_ms;
            self.follow_records(now_ms);
        }
        asides.into_iter().for_each(|id| self.hear_aside(id));
    }

    fn evict(&mut self, now_ms: u64) {
        self.events.push(Event::Evicted { mac: self.identity.mac });
        self.become_candidate(now_ms);
    }

    /// Makes the roster what follows from the records, and forgets who was removed.
    pub(super) fn follow_records(&mut self, now_ms: u64) {
        let own = (self.identity.mac, self.identity.instance);
        let Role::Member(member) = &mut self.role else { return };
        let records = member.swim.others().chain([member.swim.own()]);
        let all = Roster::of_entries(records.map(|record| Entry {
            seat: record.claim.seat,
            mac: record.mac,
            instance: record.instance,
        }));
        let mut roster = all.clone();
        if self.removals.apply(&mut roster) {
            // One in a later life may be let in again, and others have heard of that before.
            let over = |entry: &&Entry| self.removals.end(entry);
            all.entries().filter(over).for_each(|entry| member.swim.forget(entry.seat));
        }
        if roster == member.roster {
            return;
        }
        let removed: Vec<Entry> = member
            .roster
            .entries()
            .filter(|entry| roster.get(entry.seat.id).is_none())
            .copied()
            .collect();
        for Entry { seat, mac, .. } in removed {
            member.arrived_ms.remove(&seat.id);
            member.down.remove(&seat.id);
            if mac != own.0 && self.removals.forbid(&Entry { seat, mac, instance: 0 }) {
                self.events.push(Event::NodeRemoved { seat, mac });
            }
        }
        let place = member.swim.own().claim.seat;
        let kept = roster.of_instance(own.0, own.1).map(|entry| entry.seat);
        member.roster = roster;
        if kept == Some(place) {
            self.note_arrivals(now_ms);
        } else if self.removals.forbid(&Entry { seat: place, mac: own.0, instance: own.1 }) {
            self.become_removed(now_ms);
        } else {
            self.evict(now_ms);
        }
    }

    /// Records since when each incarnation in the roster is known.
    fn note_arrivals(&mut self, now_ms: u64) {
        let Role::Member(member) = &mut self.role else { return };
        member.choices.forget_gone(|id| member.roster.get(id).map(|entry| entry.mac));
        for Entry { seat, mac, .. } in member.roster.entries() {
            let known = member.arrived_ms.get(&seat.id).map(|(incarnation, _)| *incarnation);
            if known == Some(seat.incarnation) {
                continue;
            }
            member.arrived_ms.insert(seat.id, (seat.incarnation, now_ms));
            if member.down.remove(&seat.id).is_some() {
                member.met_ms = now_ms;
            }
            match known {
                Some(_) => self.events.push(Event::NodeRestarted { seat: *seat, mac: *mac }),
                // Who has just joined hears of those who were there before.
                None if member.whole => {
                    self.events.push(Event::NodeJoined { seat: *seat, mac: *mac })
                }
                None => {}
            }
        }
        self.tell_asides();
    }

    /// Tells each member what is only its own business.
    pub(super) fn tell_asides(&mut self) {
        let Role::Member(member) = &mut self.role else { return };
        for entry in member.roster.entries().filter(|entry| entry.mac != self.identity.mac) {
            let holds = self.keys.held.get(&(entry.mac, entry.instance)).copied();
            let id = entry.seat.id;
            member.swim.tell_aside(id, aside_of(holds, member.choices.get(id)));
        }
    }

    fn hear_aside(&mut self, id: u16) {
        let Role::Member(member) = &mut self.role else { return };
        let Some(entry) = member.roster.get(id) else { return };
        let Some(choice) = choice_in(member.swim.aside(id)) else { return };
        if member.choices.hear(id, entry.mac, choice) {
            self.events.push(Event::Chosen { peer: id, choice });
            self.tell_asides();
        }
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
            self.tell_asides();
        }
        Ok(choice)
    }

    /// Takes a beacon of a member of this node's cluster.
    pub(super) fn hear_fellow(&mut self, now_ms: u64, beacon: &Beacon) {
        let Role::Member(member) = &mut self.role else { return };
        let Some(record) = beacon.record() else { return };
        let (mac, instance) = (record.mac, record.instance);
        if self.removals.forbid(&Entry { seat: record.claim.seat, mac, instance }) {
            return;
        }
        // Two parts of a cluster may have let somebody in of whom the other one has not heard.
        match member.roster.of_instance(mac, instance) {
            Some(_) => member.swim.overhear(now_ms, record),
            None => member.swim.meet(now_ms, record),
        }
        self.attend(now_ms);
    }

    /// Takes a beacon that says goodbye.
    pub(super) fn hear_goodbye(&mut self, now_ms: u64, beacon: &Beacon) {
        let Role::Member(member) = &mut self.role else { return };
        let Some(mut record) = beacon.record() else { return };
        let known = member.roster.of_instance(record.mac, record.instance);
        if member.cluster == beacon.cluster && known.is_some_and(|e| e.seat == record.claim.seat) {
            record.claim.health = Health::Left;
            member.swim.meet(now_ms, record);
            self.attend(now_ms);
        }
    }

    pub(super) fn liveness(&self, member: &Member, now_ms: u64, entry: &Entry) -> Liveness {
        if entry.mac == self.identity.mac {
            return Liveness::Alive;
        }
        let id = entry.seat.id;
        let record = member.swim.record(id).filter(|record| record.instance == entry.instance);
        let Some(record) = record else { return Liveness::Expected };
        // Whoever lets a machine in makes its first record; all others are its own.
        let taken = record.revision > 0;
        let since = member.arrived_ms.get(&id).map_or(0, |(_, at)| *at);
        let fresh = now_ms.saturating_sub(since) <= DOWN_MS;
        match member.swim.standing(id) {
            Some(Standing::Alive) if taken => Liveness::Alive,
            Some(Standing::Alive) => Liveness::Expected,
            Some(Standing::Down | Standing::Unreachable) if fresh && !taken => Liveness::Expected,
            _ => Liveness::Down,
        }
    }

    /// Live candidates that ask this cluster for a place, in the order of identities.
    fn applicants<'a>(
        &'a self,
        member: &'a Member,
        now_ms: u64,
    ) -> impl Iterator<Item = &'a Heard> + 'a {
        self.peers.confirmed().filter(move |heard| {
            heard.is_live(now_ms, CANDIDATE_MS)
                && heard.beacon.phase == crate::beacon::Phase::Candidate
                && heard.beacon.cluster == member.cluster
                && !self.removals.bar(heard.beacon.mac)
        })
    }

    pub(super) fn admit_candidates(&mut self, now_ms: u64) {
        let Role::Member(member) = &self.role else { return };
        let applicants: Vec<Heard> = self.applicants(member, now_ms).cloned().collect();
        if applicants.is_empty() || !member.whole {
            return;
        }
        let alive = |entry: &&Entry| self.liveness(member, now_ms, entry) != Liveness::Down;
        // Whoever asks for its place back cannot be the one to give it.
        let first = member
            .roster
            .entries()
            .filter(alive)
            .find(|entry| !applicants.iter().any(|heard| heard.beacon.mac == entry.mac));
        if first.is_none_or(|first| first.mac != self.identity.mac) {
            return;
        }
        let majority = member.roster.entries().filter(alive).count() * 2 > member.roster.len();
        let Role::Member(member) = &mut self.role else { return };
        let mut roster = member.roster.clone();
        let unknown = applicants.iter().filter(|it| roster.of_machine(it.beacon.mac).is_none());
        let unknown: BTreeSet<Mac> = unknown.map(|heard| heard.beacon.mac).collect();
        let many = unknown.len() + roster.len() > FOUNDERS_MAX;
        if member.newcomers.0 != unknown {
            member.newcomers = (unknown, now_ms);
        }
        // Of many that come at once, ids follow the order of identities.
        let settled = !many || now_ms.saturating_sub(member.newcomers.1) >= SETTLE_MS;
        // Those who were cut off may have let somebody in of whom this node has not heard yet, and it would give the same id away.
        let met = now_ms.saturating_sub(member.met_ms) >= MEET_MS;
        let fellows = self.peers.confirmed().filter(|heard| {
            heard.beacon.cluster == member.cluster && heard.is_live(now_ms, CANDIDATE_MS)
        });
        let knows_all = fellows.map(|heard| usize::from(heard.beacon.members)).max();
        let settled = settled && met && knows_all.is_none_or(|all| all <= roster.len());
        let mut admitted = false;
        for heard in applicants {
            let (mac, instance) = heard.run();
            let admit = match roster.of_machine(mac) {
                // It has its place and has not heard so yet, or has given it up.
                Some(entry) if entry.instance == instance => {
                    member.swim.standing(entry.seat.id) == Some(Standing::Left)
                }
                Some(_) => true,
                None => majority && settled && roster.len() < MEMBERS_MAX,
            };
            if admit {
                let taken = |id| member.swim.record(id).is_some();
                let entry = roster.admit(mac, instance, &self.removals, taken);
                member.swim.meet(now_ms, placed(&entry, Some(&heard)));
                admitted = true;
            }
        }
        if admitted {
            self.attend(now_ms);
            self.hurry(now_ms);
        }
    }

    /// Asks for the members of whom a node that has just joined has not heard yet.
    pub(super) fn become_whole(&mut self, now_ms: u64) {
        let Role::Member(member) = &mut self.role else { return };
        if member.whole {
            return;
        }
        let waited_ms = now_ms.saturating_sub(member.since_ms);
        if member.roster.len() >= member.expected || waited_ms >= WHOLE_MS {
            member.whole = true;
        } else if now_ms.saturating_sub(member.asked_ms) >= ASK_MS {
            member.asked_ms = now_ms;
            member.swim.hurry_comparison(now_ms);
        }
    }

    pub(super) fn detect_failures(&mut self, now_ms: u64) {
        let Role::Member(member) = &self.role else { return };
        let (mut down, mut back) = (BTreeMap::new(), false);
        for entry in member.roster.entries() {
            let Entry { seat, mac, .. } = *entry;
            let was_down = member.down.get(&seat.id) == Some(&seat.incarnation);
            match self.liveness(member, now_ms, entry) {
                Liveness::Down => {
                    down.insert(seat.id, seat.incarnation);
                    if !was_down {
                        self.events.push(match member.swim.standing(seat.id) {
                            Some(Standing::Left) => Event::NodeLeft { seat, mac },
                            Some(Standing::Unreachable) => Event::NodeDeaf { seat, mac },
                            _ => Event::NodeDown { seat, mac },
                        });
                    }
                }
                Liveness::Alive if was_down => {
                    self.events.push(Event::NodeBack { seat, mac });
                    back = true;
                }
                Liveness::Expected if was_down => {
                    down.insert(seat.id, seat.incarnation);
                }
                Liveness::Alive | Liveness::Expected => {}
            }
        }
        if let Role::Member(member) = &mut self.role {
            member.down = down;
            if back {
                member.met_ms = now_ms;
                member.swim.hurry_comparison(now_ms);
            }
        }
    }
}

/// The first record of a member, before it has taken its place.
fn placed(entry: &Entry, heard: Option<&Heard>) -> Record {
    let facts = heard.map(|heard| heard.beacon.facts.to_bytes());
    Record {
        claim: Claim { seat: entry.seat, refutation: 0, health: Health::Alive },
        mac: entry.mac,
        instance: entry.instance,
        revision: 0,
        facts: facts.unwrap_or_default().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_ends_of_a_link_tell_each_other_is_read_as_it_was_told() {
        for transport in Transport::ALL {
            let choice = Choice { revision: 0x0102_0304, transport };
            for holds in [None, Some(0), Some(3)] {
                let aside = aside_of(holds, choice);
                assert_eq!((held_in(aside), choice_in(aside)), (holds, Some(choice)));
            }
        }
        let nothing = aside_of(None, Choice::default());
        assert_eq!(nothing, Aside::default(), "there is nothing to tell");
        assert_eq!((held_in(nothing), choice_in(nothing)), (None, None));
        assert_eq!(choice_in([0, 99, 1, 0, 0, 0, 0, 0]), None, "a transport of a later release");
    }
}
