// SPDX-License-Identifier: MIT OR Apache-2.0
//! A network and machines on it, in which everything follows from a seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use dvs_config::Mac;
use dvsd::beacon::{Key, Seat, BYTES_MAX};
use dvsd::membership::swim::message::{Body, Message};
use dvsd::membership::swim::record::{Claim, Health, Record};
use dvsd::membership::swim::{Event, Standing, Swim, Tuning};

/// How often a daemon lets time pass.
const TICK_MS: u64 = 20;
/// Bytes of IPv6 and UDP headers.
const HEADERS: u64 = 40 + 8;

/// Numbers that follow from a seed (splitmix64).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What the network does to datagrams.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    pub loss_percent: u64,
    pub duplicate_percent: u64,
    /// The longest way takes so many milliseconds.
    pub delay_ms: u64,
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    pub messages: u64,
    pub bytes: u64,
}

pub struct Machine {
    pub node: Option<Swim>,
    /// Until when its processors stand still.
    pub stalled_until_ms: u64,
    incarnation: u32,
    facts_bytes: usize,
}

pub struct Segment {
    pub now_ms: u64,
    pub machines: Vec<Machine>,
    pub random: Random,
    pub weather: Weather,
    tuning: Tuning,
    /// From whom to whom nothing passes.
    pub cut: BTreeSet<(usize, usize)>,
    /// In which part of the network each machine is.
    pub part: Vec<u8>,
    pub traffic: Traffic,
    pub events: Vec<(u64, usize, Event)>,
    /// Datagrams are sealed and opened as on a wire; else only counted, which takes less time.
    sealed: Option<Key>,
    flights: BTreeMap<u64, (usize, Message)>,
    arrivals: BinaryHeap<Reverse<(u64, u64)>>,
    order: u64,
    /// At which pair of machines a mistake was seen last.
    looked: usize,
}

impl Segment {
    pub fn new(
        seed: u64,
        count: usize,
        weather: Weather,
        tuning: Tuning,
        facts_bytes: usize,
    ) -> Self {
        let machine = |_| Machine { node: None, stalled_until_ms: 0, incarnation: 0, facts_bytes };
        Self {
            now_ms: 1_000,
            machines: (0..count).map(machine).collect(),
            random: Random(seed),
            weather,
            tuning,
            cut: BTreeSet::new(),
            part: vec![0; count],
            traffic: Traffic::default(),
            events: Vec::new(),
            sealed: (count <= 10).then(|| Key::new("token")),
            flights: BTreeMap::new(),
            arrivals: BinaryHeap::new(),
            order: 0,
            looked: 0,
        }
    }

    /// Starts a machine that knows one other, as from its beacon.
    pub fn boot(&mut self, at: usize, entry: Option<usize>) {
        let met = entry.and_then(|at| self.machines[at].node.as_ref()).map(|n| n.own().clone());
        let instance = self.random.next();
        let machine = &mut self.machines[at];
        machine.incarnation += 1;
        let seat = Seat { id: at as u16, incarnation: machine.incarnation };
        let [.., high, low] = (at as u64).to_be_bytes();
        let own = Record {
            claim: Claim { seat, refutation: 0, health: Health::Alive },
            mac: Mac([2, 0, 0, 0, high, low]),
            instance,
            revision: 0,
            facts: vec![0; machine.facts_bytes].into(),
        };
        let mut node = Swim::new(self.now_ms, 1, own, self.tuning);
        if let Some(record) = met {
            node.meet(self.now_ms, record);
        }
        machine.node = Some(node);
    }

    pub fn halt(&mut self, at: usize) {
        self.machines[at].node = None;
        self.machines[at].stalled_until_ms = 0;
    }

    pub fn passes(&self, from: usize, to: usize) -> bool {
        self.part[from] == self.part[to] && !self.cut.contains(&(from, to))
    }

    pub fn run(&mut self, duration_ms: u64) {
        let end_ms = self.now_ms + duration_ms;
        while self.now_ms < end_ms {
            self.now_ms += 1;
            self.deliver();
            let phase = (self.now_ms % TICK_MS) as usize;
            for at in (phase..self.machines.len()).step_by(TICK_MS as usize) {
                let entropy = self.random.next();
                let now_ms = self.now_ms;
                let machine = &mut self.machines[at];
                if machine.stalled_until_ms > now_ms {
                    continue;
                }
                if let Some(node) = &mut machine.node {
                    node.tick(now_ms, entropy);
                    self.collect(at);
                }
            }
        }
    }

    fn deliver(&mut self) {
        while let Some(Reverse((at_ms, order))) = self.arrivals.peek().copied() {
            if at_ms > self.now_ms {
                break;
            }
            self.arrivals.pop();
            let Some((to, message)) = self.flights.remove(&order) else { continue };
            let machine = &mut self.machines[to];
            // A machine that stands still finds in its buffers what has come.
            if machine.stalled_until_ms > self.now_ms {
                let until_ms = machine.stalled_until_ms;
                self.flights.insert(order, (to, message));
                self.arrivals.push(Reverse((until_ms, order)));
                continue;
            }
            if let Some(node) = &mut machine.node {
                node.receive(self.now_ms, message);
                self.collect(to);
            }
        }
    }

    /// Takes what a machine sends and what has happened to it.
    fn collect(&mut self, from: usize) {
        let Some(node) = &mut self.machines[from].node else { return };
        let messages = node.take_messages();
        let events = node.take_events();
        self.events.extend(events.into_iter().map(|event| (self.now_ms, from, event)));
        for (to, message) in messages {
            let bytes = match &self.sealed {
                Some(key) => {
                    let sealed = message.seal(key);
                    assert_eq!(Message::open(&sealed, key).as_ref(), Ok(&message));
                    sealed.len()
                }
                None => length(&message),
            };
            assert!(bytes <= BYTES_MAX, "{bytes} bytes in a datagram");
            self.traffic.messages += 1;
            self.traffic.bytes += bytes as u64 + HEADERS;
            let to = usize::from(to);
            if !self.passes(from, to) {
                continue;
            }
            let copies = 1 + u64::from(self.random.chance(self.weather.duplicate_percent));
            for _ in 0..copies {
                if self.random.chance(self.weather.loss_percent) {
                    continue;
                }
                let at_ms = self.now_ms + 1 + self.random.below(self.weather.delay_ms);
                self.order += 1;
                self.flights.insert(self.order, (to, message.clone()));
                self.arrivals.push(Reverse((at_ms, self.order)));
            }
        }
    }

    /// Where a live machine sees another one otherwise than it is, if anywhere. Looks first where something was wrong the last time,
    /// since that lasts longer than a look at all pairs should.
    pub fn mistake(&mut self) -> Option<String> {
        let count = self.machines.len();
        for step in 0..count * count {
            let pair = (self.looked + step) % (count * count);
            if let Some(mistake) = self.mistake_of(pair / count, pair % count) {
                self.looked = pair;
                return Some(mistake);
            }
        }
        None
    }

    fn mistake_of(&self, at: usize, other: usize) -> Option<String> {
        let node = self.machines[at].node.as_ref()?;
        let theirs = &self.machines[other];
        if other == at || theirs.incarnation == 0 {
            return None;
        }
        let id = other as u16;
        let Some(record) = node.record(id) else {
            return Some(format!("{at} does not know {other}"));
        };
        let standing = node.standing(id);
        let together = self.part[at] == self.part[other];
        let right = match &theirs.node {
            Some(theirs) if theirs.own().claim.health == Health::Left => {
                !together || standing == Some(Standing::Left)
            }
            Some(theirs) if together && self.both_pass(at, other) => {
                let known = (record.instance, record.revision, record.claim.health);
                let own = theirs.own();
                standing == Some(Standing::Alive)
                    && known == (own.instance, own.revision, Health::Alive)
            }
            Some(_) if together => standing == Some(Standing::Unreachable),
            _ => matches!(standing, Some(Standing::Down | Standing::Left)),
        };
        (!right).then(|| format!("{at} holds {other} to be {standing:?}: {record:?}"))
    }

    fn both_pass(&self, one: usize, other: usize) -> bool {
        self.passes(one, other) && self.passes(other, one)
    }

    /// Runs until everybody sees what is. Gives how long that took.
    pub fn settle(&mut self, most_ms: u64, what: &str) -> u64 {
        let start_ms = self.now_ms;
        loop {
            let Some(mistake) = self.mistake() else { return self.now_ms - start_ms };
            assert!(self.now_ms - start_ms < most_ms, "{what}: after {most_ms} ms, {mistake}");
            self.run(TICK_MS);
        }
    }

    /// Who was held to be down by whom since the events were cleared.
    pub fn downs(&self) -> impl Iterator<Item = (u64, usize, usize)> + '_ {
        self.events.iter().filter_map(|(at_ms, by, event)| match event {
            Event::Stands { seat, standing: Standing::Down | Standing::Unreachable } => {
                Some((*at_ms, *by, usize::from(seat.id)))
            }
            _ => None,
        })
    }
}

fn length(message: &Message) -> usize {
    let records: usize = message.records.iter().map(Message::record_bytes).sum();
    let body: &Body = &message.body;
    Message::bare_bytes(body) + Message::claim_bytes() * message.claims.len() + records
}
