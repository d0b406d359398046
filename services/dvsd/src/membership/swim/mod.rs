// SPDX-License-Identifier: MIT OR Apache-2.0
//! Failure detection and the spreading of what members tell of themselves: SWIM (Das, Gupta,
//! Motivala, DSN 2002), with suspicion and contradiction.
//!
//! [`Swim`] does no I/O and has no clock and no randomness of its own. A node probes one member
//! after the other in an order of its own. One that does not answer is asked through
//! [`Tuning::helpers`] others; if none of them gets an answer either, it is suspected, and down
//! unless it contradicts within [`Tuning::suspect_ms`]. News travel on the messages that there are anyhow, and on
//! some more as long as there are any. What gets lost is found by comparing digests now and then.
//! So a node sends about as much in a cluster of a thousand as in one of ten.
//!
//! `docs/membership.md` has the figures of its simulation.
//!
//! **Two kinds of silence.** What nobody reaches is down, and the cluster agrees on that. A member
//! that others reach and this node does not is [unreachable](Standing::Unreachable), to this node
//! and to the other end: only answers count, and an answer needs both directions, so that both
//! ends notice alike, without telling each other. A node looks at another directly once in a
//! round, which takes N probe intervals: soon in a small cluster. In a large one, links
//! that are used notice earlier by themselves.
//!
//! **Why not the crate `foca`.** It (2.0) takes an answer through others for as good as a direct
//! one and says to nobody which it was (`Probe::succeeded`), but through a feature that it calls unstable.
//! Unreachable members could not be told from live ones.
//!
//! **Replays.** Every message names the run of the receiver's `dvsd`, and a counter that is taken
//! once. News need no more: hearing them again changes nothing ([`record`]).

mod comparison;
mod member;
pub mod message;
mod news;
mod outgoing;
mod probes;
pub mod record;
mod tuning;
mod window;

use std::collections::{BTreeMap, BTreeSet};

use member::Member;
pub use member::Standing;
use message::{Aside, Asides, Body, Message};
use news::News;
use probes::{Outcome, Probes};
use record::{mix, Claim, Health, Record};
pub use tuning::Tuning;

use crate::beacon::Seat;

/// How many asides are sent at a time, so that those for a thousand others do not overrun a queue.
const ASIDES: usize = 16;
/// How many members in doubt are probed beside the one whose turn it is.
const EXTRA_PROBES: usize = 4;

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A member stands otherwise.
    Stands {
        /// Its seat.
        seat: Seat,
        /// How now.
        standing: Standing,
    },
    /// A member is new, is another machine or run, or tells something else of itself.
    Told(Seat),
    /// A member tells this node something [aside](Swim::aside).
    Aside(Seat),
    /// This node's seat is another machine's now, or was declared left.
    Evicted,
}

/// Failure detection of one member.
#[derive(Debug)]
pub struct Swim {
    tuning: Tuning,
    cluster: u64,
    own: Record,
    members: BTreeMap<u16, Member>,
    /// Who of them is suspected.
    suspects: BTreeSet<u16>,
    /// Up to which incarnation nothing is heard of ids any more.
    forgotten: BTreeMap<u16, u32>,
    /// The order in which this node probes, and whose turn it is.
    ring: Vec<u16>,
    turn: usize,
    probes: Probes,
    news: News,
    /// What this node tells others each for itself, by id, and its version.
    asides: BTreeMap<u16, (u32, Aside)>,
    /// Who is to be sent an aside, or that its own has come.
    untold: BTreeSet<u16>,
    outbox: Vec<(u16, Message)>,
    events: Vec<Event>,
    counter: u64,
    random: u64,
    last_tick_ms: u64,
    next_probe_ms: u64,
    next_compare_ms: u64,
    next_revisit_ms: u64,
}

impl Swim {
    /// A member that knows nobody yet.
    pub fn new(now_ms: u64, cluster: u64, own: Record, tuning: Tuning) -> Self {
        let random = mix(own.instance);
        let mut news = News::default();
        news.add(own.claim.seat.id, true);
        Self {
            tuning,
            cluster,
            own,
            members: BTreeMap::new(),
            suspects: BTreeSet::new(),
            forgotten: BTreeMap::new(),
            ring: Vec::new(),
            turn: 0,
            probes: Probes::default(),
            news,
            asides: BTreeMap::new(),
            untold: BTreeSet::new(),
            outbox: Vec::new(),
            events: Vec::new(),
            // A run that became a member before has used lower ones: it sends less than a thousand messages in a millisecond.
            counter: now_ms * 1_000,
            random,
            last_tick_ms: now_ms,
            next_probe_ms: now_ms,
            next_compare_ms: now_ms,
            next_revisit_ms: now_ms,
        }
    }

    /// This node's own record.
    pub fn own(&self) -> &Record {
        &self.own
    }

    /// The records of all others.
    pub fn others(&self) -> impl Iterator<Item = &Record> {
        self.members.values().map(|member| &member.record)
    }

    /// What is held of another member; `None` if there is none of this id.
    pub fn record(&self, id: u16) -> Option<&Record> {
        self.members.get(&id).map(|member| &member.record)
    }

    /// How another member stands to this node; `None` if there is none of this id.
    pub fn standing(&self, id: u16) -> Option<Standing> {
        self.members.get(&id).map(Member::standing)
    }

    /// Whatever happened since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// The messages to send now, with the ids of the receivers.
    pub fn take_messages(&mut self) -> Vec<(u16, Message)> {
        std::mem::take(&mut self.outbox)
    }

    /// Learns of a member from elsewhere: a roster, or a beacon of one that can be asked for the others.
    pub fn meet(&mut self, now_ms: u64, record: Record) {
        self.hear_record(now_ms, record, true);
    }

    /// Tells something else of this node.
    pub fn tell(&mut self, facts: &[u8]) {
        if *self.own.facts != *facts {
            self.own.facts = facts.into();
            self.own.revision += 1;
            self.news.add(self.own.claim.seat.id, true);
        }
    }

    /// Learns of a member from a beacon of its own, which the others have heard as well.
    pub fn overhear(&mut self, now_ms: u64, record: Record) {
        let (id, instance) = (record.claim.seat.id, record.instance);
        self.hear_record(now_ms, record, false);
        // It does not know what is said of it, or it would have contradicted.
        let doubted = self.members.get(&id).is_some_and(|member| {
            let health = member.record.claim.health;
            member.record.instance == instance && matches!(health, Health::Suspect | Health::Down)
        });
        if doubted {
            self.send(id, Body::News);
        }
    }

    /// Tells one member something that is nobody else's business. What is told last holds; it is told again until the member is known to
    /// have it, and to each later run of it.
    pub fn tell_aside(&mut self, id: u16, told: Aside) {
        let (version, before) = self.asides.entry(id).or_default();
        if *before != told {
            (*version, *before) = (*version + 1, told);
            self.untold.insert(id);
        }
    }

    /// What a member tells this node and nobody else; zeros if nothing.
    pub fn aside(&self, id: u16) -> Aside {
        self.members.get(&id).map(|member| member.aside.1).unwrap_or_default()
    }

    /// Compares with somebody as soon as possible what is known.
    pub fn hurry_comparison(&mut self, now_ms: u64) {
        self.next_compare_ms = now_ms;
    }

    /// Says goodbye to some at once, who tell the others.
    pub fn leave(&mut self) {
        self.own.claim.health = Health::Left;
        self.news.add(self.own.claim.seat.id, false);
        self.gossip(self.tuning.fanout_max);
    }

    /// Removes a member whose removal was agreed on: nothing is heard of this incarnation again.
    pub fn forget(&mut self, seat: Seat) {
        let last = self.forgotten.entry(seat.id).or_default();
        *last = seat.incarnation.max(*last);
        self.asides.remove(&seat.id);
        if self.members.get(&seat.id).is_some_and(|m| m.record.claim.seat.incarnation <= *last) {
            self.members.remove(&seat.id);
            self.suspects.remove(&seat.id);
            self.news.drop(seat.id);
            self.probes.drop(seat.id);
        }
    }

    /// Takes an authentic message. Says whether it is of a member, to this run of this node, and was not taken before.
    pub fn receive(&mut self, now_ms: u64, message: Message) -> bool {
        let Message {
            cluster,
            from,
            instance,
            to_instance,
            counter,
            asides,
            body,
            claims,
            records,
        } = message;
        let own_id = self.own.claim.seat.id;
        if cluster != self.cluster || from == own_id || to_instance != self.own.instance {
            return false;
        }
        // What a comparison brought everybody else knows already or will find out likewise.
        let spread = body != Body::Records;
        let before = self.members.len();
        records.into_iter().for_each(|record| self.hear_record(now_ms, record, spread));
        if !spread && self.members.len() > before {
            self.compare_soon(now_ms);
        }
        let contradicted = self.own.claim.refutation;
        claims.iter().for_each(|claim| self.hear_claim(now_ms, claim));
        if self.own.claim.refutation != contradicted {
            // Whoever has lost all others has nobody else to tell it.
            self.send(from, Body::News);
        }
        let Some(sender) = self.members.get_mut(&from) else { return false };
        if sender.record.instance != instance || !sender.window.admits(counter) {
            return false;
        }
        let Asides { version, seen, told } = asides;
        sender.aside_seen = seen.max(sender.aside_seen);
        if version > sender.aside.0 {
            sender.aside = (version, told);
            self.events.push(Event::Aside(sender.record.claim.seat));
            // It tells it again until it hears that it has come.
            self.untold.insert(from);
        }
        match body {
            Body::Ping { number } => self.send(from, Body::Answer { number, whose: own_id }),
            Body::PingFor { number, target } => {
                if self.members.contains_key(&target) {
                    let until_ms = now_ms + self.tuning.help_ms;
                    let relayed = self.probes.relay(target, from, number, until_ms);
                    self.send(target, Body::Ping { number: relayed });
                }
            }
            Body::Answer { number, whose } => self.answered(now_ms, from, number, whose),
            Body::Digests(theirs) => self.answer_comparison(now_ms, from, &theirs),
            Body::News | Body::Records => {}
        }
        true
    }

    fn answered(&mut self, now_ms: u64, from: u16, number: u32, whose: u16) {
        if let Some((origin, number)) = self.probes.relayed(from, number) {
            self.send(origin, Body::Answer { number, whose: from });
            return;
        }
        if !self.probes.answered(from, number, whose) || from != whose {
            return;
        }
        if let Some(member) = self.members.get_mut(&from) {
            member.answered = true;
            member.doubted_ms = None;
            member.unreachable = false;
            self.note(now_ms, from);
        }
    }

    fn hear_record(&mut self, now_ms: u64, record: Record, spread: bool) {
        let seat = record.claim.seat;
        if self.forgotten.get(&seat.id).is_some_and(|last| seat.incarnation <= *last) {
            return;
        }
        if seat.id == self.own.claim.seat.id {
            let run = (self.own.mac, self.own.instance);
            let mut held = self.own.clone();
            held.merge(&record);
            if (held.mac, held.instance) != run {
                self.events.push(Event::Evicted);
            } else {
                self.hear_claim(now_ms, &record.claim);
            }
            return;
        }
        let Some(member) = self.members.get_mut(&seat.id) else {
            self.members.insert(seat.id, Member::new(record));
            let at = self.below(self.ring.len() + 1);
            self.ring.insert(at, seat.id);
            if spread {
                self.news.add(seat.id, true);
            }
            self.events.push(Event::Told(seat));
            self.note(now_ms, seat.id);
            return;
        };
        let run = (member.record.instance, member.record.claim.seat);
        let change = member.record.merge(&record);
        if change.facts {
            self.events.push(Event::Told(member.record.claim.seat));
        }
        if (member.record.instance, member.record.claim.seat) != run {
            let record = member.record.clone();
            let same = record.instance == run.0;
            let window = if same { member.window } else { Default::default() };
            *member = Member { told: member.told, window, ..Member::new(record) };
            self.probes.drop(seat.id);
        }
        if change.facts && spread {
            self.news.add(seat.id, true);
        } else if change.claim {
            self.news.add(seat.id, false);
        }
        self.note(now_ms, seat.id);
    }

    fn hear_claim(&mut self, now_ms: u64, claim: &Claim) {
        let own = &mut self.own.claim;
        if claim.seat.id == own.seat.id {
            if claim.seat != own.seat || !claim.beats(own) || own.health == Health::Left {
                return;
            }
            if claim.health == Health::Left {
                self.events.push(Event::Evicted);
                return;
            }
            own.refutation = claim.refutation + u32::from(claim.health != Health::Alive);
            self.news.add(own.seat.id, false);
            return;
        }
        let Some(member) = self.members.get_mut(&claim.seat.id) else { return };
        if member.record.hear(claim) {
            self.news.add(claim.seat.id, false);
            self.note(now_ms, claim.seat.id);
        }
    }

    /// Brings what follows from a member's record up to date.
    fn note(&mut self, now_ms: u64, id: u16) {
        let Some(member) = self.members.get_mut(&id) else { return };
        let Claim { health, refutation, .. } = member.record.claim;
        match health {
            // A suspicion that was contradicted and raised again gives the whole time again.
            Health::Suspect => {
                if member.suspected.is_none_or(|(of, _)| of != refutation) {
                    member.suspected = Some((refutation, now_ms + self.tuning.suspect_ms));
                }
                self.suspects.insert(id);
            }
            Health::Alive | Health::Down | Health::Left => {
                member.suspected = None;
                self.suspects.remove(&id);
            }
        }
        let standing = member.standing();
        if member.told != standing {
            member.told = standing;
            self.events.push(Event::Stands { seat: member.record.claim.seat, standing });
        }
    }

    /// Lets time pass. To be called about every 20 ms.
    pub fn tick(&mut self, now_ms: u64, entropy: u64) {
        self.random = mix(self.random ^ entropy);
        let gap_ms = now_ms.saturating_sub(self.last_tick_ms);
        self.last_tick_ms = now_ms;
        if gap_ms > self.tuning.stall_ms {
            self.forgive(gap_ms);
        }
        for outcome in self.probes.due(now_ms, self.tuning.help_ms) {
            self.conclude(now_ms, outcome);
        }
        let certain: Vec<Claim> = self
            .suspects
            .iter()
            .filter_map(|id| self.members.get(id))
            .filter(|member| member.suspected.is_some_and(|(_, until_ms)| until_ms <= now_ms))
            .map(|member| Claim { health: Health::Down, ..member.record.claim })
            .collect();
        certain.iter().for_each(|claim| self.hear_claim(now_ms, claim));
        if now_ms >= self.next_probe_ms {
            let probe_ms = self.tuning.probe_ms;
            self.next_probe_ms =
                now_ms + probe_ms * 3 / 4 + self.below(probe_ms as usize / 2) as u64;
            self.probe(now_ms);
            let fanout = match self.news.is_much() {
                true => self.tuning.fanout_max,
                false => self.tuning.fanout,
            };
            self.gossip(fanout);
            self.repeat_asides();
        }
        self.send_asides();
        if now_ms >= self.next_revisit_ms {
            self.next_revisit_ms = now_ms + self.tuning.revisit_ms;
            self.revisit();
        }
        if now_ms >= self.next_compare_ms {
            self.compare(now_ms);
        }
    }

    /// This node did not run: nobody can be blamed for not having answered.
    fn forgive(&mut self, gap_ms: u64) {
        self.probes.forgive();
        for member in self.members.values_mut() {
            if let Some((_, until_ms)) = &mut member.suspected {
                *until_ms += gap_ms;
            }
            if let Some(doubted_ms) = &mut member.doubted_ms {
                *doubted_ms += gap_ms;
            }
        }
    }

    fn conclude(&mut self, now_ms: u64, outcome: Outcome) {
        match outcome {
            Outcome::Help { target, number, started_ms } => {
                if let Some(member) = self.members.get_mut(&target) {
                    member.doubted_ms.get_or_insert(started_ms);
                }
                self.send(target, Body::Ping { number });
                for _ in 0..self.tuning.helpers {
                    // The same helper twice is one helper less, and that is all.
                    if let Some(helper) = self.somebody(Some(target)) {
                        self.send(helper, Body::PingFor { number, target });
                    }
                }
            }
            Outcome::Reached { target } => {
                let Some(member) = self.members.get_mut(&target) else { return };
                let long = |since| now_ms.saturating_sub(since) >= self.tuning.unreachable_ms;
                if member.doubted_ms.is_some_and(long) {
                    member.unreachable = true;
                    self.note(now_ms, target);
                }
            }
            Outcome::Silent { target } => {
                let Some(member) = self.members.get(&target) else { return };
                let claim = Claim { health: Health::Suspect, ..member.record.claim };
                if member.record.claim.health == Health::Alive {
                    self.hear_claim(now_ms, &claim);
                }
            }
        }
    }

    /// Probes the one whose turn it is, and those in doubt.
    fn probe(&mut self, now_ms: u64) {
        let mut targets: Vec<u16> = self
            .members
            .iter()
            .filter(|(_, m)| m.record.claim.health.is_present() && m.doubted_ms.is_some())
            .map(|(id, _)| *id)
            .collect();
        while targets.len() > EXTRA_PROBES {
            let at = self.below(targets.len());
            targets.swap_remove(at);
        }
        targets.extend(self.next_in_ring());
        for target in targets {
            if let Some(number) = self.probes.start(target, now_ms, self.tuning.answer_ms) {
                self.send(target, Body::Ping { number });
            }
        }
    }

    fn next_in_ring(&mut self) -> Option<u16> {
        for _ in 0..=self.ring.len() {
            if self.turn >= self.ring.len() {
                self.turn = 0;
                self.ring = self.members.keys().copied().collect();
                for at in (1..self.ring.len()).rev() {
                    let other = self.below(at + 1);
                    self.ring.swap(at, other);
                }
            }
            let id = *self.ring.get(self.turn)?;
            self.turn += 1;
            if self.is_present(id) {
                return Some(id);
            }
        }
        None
    }

    fn is_present(&self, id: u16) -> bool {
        self.members.get(&id).is_some_and(|m| m.record.claim.health.is_present())
    }

    /// Any present member but `not`.
    fn somebody(&mut self, not: Option<u16>) -> Option<u16> {
        if self.ring.is_empty() {
            return None;
        }
        let start = self.below(self.ring.len());
        let (after, before) = (self.ring[start..].iter(), self.ring[..start].iter());
        after.chain(before).copied().find(|id| Some(*id) != not && self.is_present(*id))
    }

    /// Whoever has not got what it was told aside is told again.
    fn repeat_asides(&mut self) {
        let lack = |id: &u16, version: u32| {
            self.members.get(id).is_some_and(|member| {
                member.record.claim.health.is_present() && member.aside_seen < version
            })
        };
        let lacking = self.asides.iter().filter(|(id, (version, _))| lack(id, *version));
        let lacking: Vec<u16> = lacking.map(|(id, _)| *id).collect();
        self.untold.extend(lacking);
    }

    fn send_asides(&mut self) {
        for _ in 0..ASIDES {
            let Some(id) = self.untold.pop_first() else { return };
            if self.is_present(id) {
                self.send(id, Body::News);
            }
        }
    }

    fn gossip(&mut self, fanout: usize) {
        for _ in 0..fanout {
            if self.news.is_empty() {
                return;
            }
            if let Some(to) = self.somebody(None) {
                self.send(to, Body::News);
            }
        }
    }

    /// Asks somebody who is down: whoever was only cut off contradicts.
    fn revisit(&mut self) {
        let down = |m: &Member| m.record.claim.health == Health::Down;
        let count = self.members.values().filter(|m| down(m)).count();
        if count > 0 {
            let at = self.below(count);
            let chosen = self.members.iter().filter(|(_, m)| down(m)).nth(at).map(|(id, _)| *id);
            if let Some(id) = chosen {
                self.send(id, Body::News);
            }
        }
    }

    fn below(&mut self, limit: usize) -> usize {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (mix(self.random) % limit.max(1) as u64) as usize
    }
}
