// SPDX-License-Identifier: MIT OR Apache-2.0
//! The membership protocol on a simulated segment that loses, delays, repeats and reorders
//! beacons and messages, with nodes that boot late and restart, over many seeds.

#[path = "simulation/choices.rs"]
mod choices;
#[path = "simulation/departures.rs"]
mod departures;
#[path = "simulation/large.rs"]
mod large;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::Ipv6Addr;

use dvs_config::Mac;
use dvsd::beacon::{Beacon, Key, PeerEntry, Phase, Rejection, Seat};
use dvsd::membership::swim::message::Message;
use dvsd::membership::swim::Tuning;
use dvsd::membership::{
    Announcement, Event, Identity, Liveness, Membership, Novelty, OwnInterface, Path, Standing,
    View,
};

/// xorshift64*, seeded through splitmix so that neighbouring seeds differ.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        Self((z ^ z >> 27) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[derive(Clone, Copy, Default)]
struct Weather {
    loss_percent: u64,
    duplicate_percent: u64,
    /// Milliseconds that a datagram travels at most; reorders when above the interval between two.
    delay_ms: u64,
}

struct Machine {
    mac: Mac,
    expect: u16,
    node: Option<Membership>,
    /// Incarnations that this machine ran with, by node id.
    past: Vec<Seat>,
}

/// What travels.
#[derive(Clone)]
enum Cargo {
    Beacon(Beacon),
    /// With the sender's address.
    Message(Ipv6Addr, Message),
}

/// The interface of each machine.
const INTERFACE: u32 = 2;

fn address_of(mac: Mac) -> Ipv6Addr {
    let [_, b, c, d, e, f] = mac.0.map(u16::from);
    Ipv6Addr::new(0xfe80, 0, 0, b, c, d, e, f)
}

struct Segment {
    now_ms: u64,
    random: Random,
    weather: Weather,
    machines: Vec<Machine>,
    /// Arrival, order, receiver, cargo.
    flying: BinaryHeap<Reverse<(u64, u64, usize, usize)>>,
    cargo: Vec<Cargo>,
    order: u64,
    /// Pairs of machines that do not reach each other, in either direction.
    cut: BTreeSet<(usize, usize)>,
    sent: u64,
    recorded: Vec<Beacon>,
    recorded_messages: Vec<(Ipv6Addr, Message)>,
    events: BTreeMap<usize, Vec<Event>>,
}

const TICK_MS: u64 = 20;

impl Segment {
    fn new(seed: u64, count: usize, expect: u16, weather: Weather) -> Self {
        let machines = (0..count)
            .map(|n| Machine {
                // Neither ascending nor in the order of booting.
                mac: Mac([2, 0, 0, 0, (n * 7 % 5) as u8, n as u8]),
                expect,
                node: None,
                past: Vec::new(),
            })
            .collect();
        Self {
            now_ms: 1_000,
            random: Random::new(seed),
            weather,
            machines,
            flying: BinaryHeap::new(),
            cargo: Vec::new(),
            order: 0,
            cut: BTreeSet::new(),
            sent: 0,
            recorded: Vec::new(),
            recorded_messages: Vec::new(),
            events: BTreeMap::new(),
        }
    }

    fn boot(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        let identity = Identity {
            cluster_name: "dvs".into(),
            mac: machine.mac,
            instance: self.random.next(),
            expect: machine.expect,
            name: String::new(),
            release: "0.1.0".into(),
            management: None,
            tuning: Tuning::BARE_METAL,
        };
        let mut node = Membership::new(identity, self.now_ms);
        let (mac, address) = (machine.mac, Some(address_of(machine.mac)));
        node.tell_interfaces(self.now_ms, vec![OwnInterface { index: INTERFACE, mac, address }]);
        machine.node = Some(node);
    }

    fn halt(&mut self, at: usize) {
        self.machines[at].node = None;
    }

    fn partition(&mut self, left: &[usize]) {
        for one in 0..self.machines.len() {
            for other in 0..self.machines.len() {
                if left.contains(&one) != left.contains(&other) {
                    self.cut.insert((one, other));
                }
            }
        }
    }

    fn run(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        while self.now_ms < end {
            self.now_ms += TICK_MS;
            while let Some(Reverse((at, _, to, cargo))) = self.flying.peek().copied() {
                if at > self.now_ms {
                    break;
                }
                self.flying.pop();
                let cargo = self.cargo[cargo].clone();
                if let Some(node) = &mut self.machines[to].node {
                    match cargo {
                        Cargo::Beacon(beacon) => _ = node.receive(at, path(&beacon), beacon),
                        Cargo::Message(source, message) => {
                            node.receive_message(at, INTERFACE, source, message);
                        }
                    }
                }
                self.collect(to);
            }
            for at in 0..self.machines.len() {
                self.tick(at);
            }
            self.check_always();
        }
    }

    fn tick(&mut self, at: usize) {
        let entropy = self.random.next();
        let machine = &mut self.machines[at];
        let Some(node) = &mut machine.node else { return };
        let due = node.tick(self.now_ms, entropy);
        self.events.entry(at).or_default().extend(node.take_events());
        if let Some((_, seat)) = node.place() {
            // The shell would bring the kernel's links up meanwhile.
            node.announce(self.now_ms, Announcement { ready: true, echo: u64::from(seat.id) + 1 });
            if machine.past.last() != Some(&seat) {
                machine.past.push(seat);
            }
        }
        if due {
            let beacon = node.beacon(self.now_ms, machine.mac);
            self.recorded.push(beacon.clone());
            self.send(at, Cargo::Beacon(beacon), None);
        }
        self.collect(at);
    }

    /// Takes the messages that a machine sends.
    fn collect(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        let Some(node) = &mut machine.node else { return };
        let source = address_of(machine.mac);
        for (targets, message) in node.take_messages(self.now_ms) {
            self.recorded_messages.push((source, message.clone()));
            for (interface, address) in targets {
                assert_eq!(interface, INTERFACE);
                let to = self.machines.iter().position(|it| address_of(it.mac) == address);
                self.send(at, Cargo::Message(source, message.clone()), to);
            }
        }
    }

    /// Has a machine send something to one or all others.
    fn send(&mut self, at: usize, cargo: Cargo, to: Option<usize>) {
        self.sent += 1;
        self.cargo.push(cargo);
        let index = self.cargo.len() - 1;
        let meant = |other: &usize| *other != at && to.is_none_or(|to| to == *other);
        for to in (0..self.machines.len()).filter(meant) {
            if self.cut.contains(&(at, to)) {
                continue;
            }
            let copies = 1 + u64::from(self.random.chance(self.weather.duplicate_percent));
            for _ in 0..copies {
                if self.random.chance(self.weather.loss_percent) {
                    continue;
                }
                let delay = self.random.below(self.weather.delay_ms + 1);
                self.order += 1;
                self.flying.push(Reverse((self.now_ms + delay, self.order, to, index)));
            }
        }
    }

    fn views(&self) -> Vec<(usize, View)> {
        let view = |(at, machine): (usize, &Machine)| {
            machine.node.as_ref().map(|node| (at, node.view(self.now_ms)))
        };
        self.machines.iter().enumerate().filter_map(view).collect()
    }

    /// Holds at every moment where nobody is partitioned while admitting: one cluster, and no id
    /// held by two machines.
    fn check_always(&self) {
        if !self.cut.is_empty() {
            return;
        }
        let mut holders = BTreeMap::new();
        for (at, machine) in self.machines.iter().enumerate() {
            let Some((cluster, seat)) = machine.node.as_ref().and_then(Membership::place) else {
                continue;
            };
            if let Some(other) = holders.insert((cluster, seat.id), at) {
                panic!("machines {other} and {at} both are node {}", seat.id);
            }
        }
    }

    /// Whether all machines that run agree on one cluster of exactly them, all alive, and on who
    /// is down besides.
    fn is_whole(&self) -> bool {
        let views = self.views();
        let Some((_, first)) = views.first() else { return true };
        let Standing::Member { cluster, .. } = first.standing else { return false };
        let running: BTreeSet<Mac> = views.iter().map(|(at, _)| self.machines[*at].mac).collect();
        let roster =
            |view: &View| -> Vec<_> { view.members.iter().map(|m| (m.seat, m.mac)).collect() };
        views.iter().all(|(_, view)| {
            matches!(view.standing, Standing::Member { cluster: theirs, .. } if theirs == cluster)
                && roster(view) == roster(first)
                && view.members.iter().all(|member| {
                    let expected = match running.contains(&member.mac) {
                        true => Liveness::Alive,
                        false => Liveness::Down,
                    };
                    member.liveness == expected && (member.ready || expected == Liveness::Down)
                })
                && running.iter().all(|mac| view.members.iter().any(|member| member.mac == *mac))
        })
    }

    /// Runs until [`is_whole`](Self::is_whole); gives back how long that took.
    fn settle(&mut self, within_ms: u64, what: &str) -> u64 {
        let start = self.now_ms;
        while !self.is_whole() {
            let standings: Vec<_> =
                self.views().iter().map(|(at, view)| (*at, view.standing.clone())).collect();
            assert!(self.now_ms - start < within_ms, "{what}: {standings:#?}");
            self.run(5 * TICK_MS);
        }
        self.now_ms - start
    }

    fn seats(&self) -> Vec<(Mac, Seat)> {
        let (_, view) = self.views().swap_remove(0);
        view.members.iter().map(|member| (member.mac, member.seat)).collect()
    }

    fn check_incarnations_grow(&self) {
        for machine in &self.machines {
            for pair in machine.past.windows(2) {
                assert!(
                    pair[0].id != pair[1].id || pair[0].incarnation < pair[1].incarnation,
                    "{pair:?}"
                );
            }
        }
    }
}

fn path(beacon: &Beacon) -> Path {
    Path { interface: INTERFACE, mac: beacon.link_mac, address: address_of(beacon.link_mac) }
}

fn weather(seed: u64) -> Weather {
    match seed % 4 {
        0 => Weather::default(),
        1 => Weather { loss_percent: 5, duplicate_percent: 0, delay_ms: 4 },
        2 => Weather { loss_percent: 15, duplicate_percent: 10, delay_ms: 60 },
        _ => Weather { loss_percent: 25, duplicate_percent: 25, delay_ms: 60 },
    }
}

/// Ids follow the order of identities, all in their first incarnation.
fn assert_bootstrap_order(segment: &Segment) {
    let seats = segment.seats();
    let mut macs: Vec<_> = segment.machines.iter().map(|machine| machine.mac).collect();
    macs.sort();
    for (id, (mac, seat)) in seats.into_iter().enumerate() {
        assert_eq!((mac, seat), (macs[id], Seat { id: id as u16, incarnation: 1 }));
    }
}

#[test]
fn machines_that_boot_together_form_one_cluster_with_ids_in_the_order_of_identities() {
    for seed in 0..96 {
        let count = 1 + seed as usize % 8;
        let mut segment = Segment::new(seed, count, count as u16, weather(seed));
        let mut order: Vec<_> = (0..count).collect();
        for left in 0..count {
            let right = segment.random.below(count as u64) as usize;
            order.swap(left, right);
        }
        for at in order {
            segment.boot(at);
            let pause = segment.random.below(3_000);
            if seed % 3 == 0 {
                segment.run(pause);
            }
        }
        let took = segment.settle(40_000, &format!("seed {seed}"));
        assert_bootstrap_order(&segment);
        if seed % 4 == 0 {
            assert!(took < 4_500, "seed {seed}: {took} ms on a perfect network");
        }
        let (_, view) = segment.views().swap_remove(0);
        segment.run(10_000);
        assert!(segment.is_whole() || seed % 4 > 1, "seed {seed}");
        assert_eq!(segment.views()[0].1.standing, view.standing, "seed {seed}");
    }
}

#[test]
fn forty_machines_form_one_cluster() {
    let weather = Weather { loss_percent: 2, duplicate_percent: 1, delay_ms: 5 };
    let mut segment = Segment::new(7, 40, 40, weather);
    for at in 0..40 {
        segment.boot(at);
    }
    segment.settle(15_000, "forty");
    assert_bootstrap_order(&segment);
}

#[test]
fn more_machines_than_expected_end_in_one_cluster() {
    for seed in 0..60 {
        let mut segment = Segment::new(seed, 6, 1 + (seed % 3) as u16, weather(seed % 3));
        for at in 0..6 {
            segment.boot(at);
            let pause = segment.random.below(2_000);
            segment.run(if seed % 2 == 0 { 0 } else { pause });
        }
        segment.settle(40_000, &format!("seed {seed}"));
        let ids: Vec<_> = segment.seats().iter().map(|(_, seat)| seat.id).collect();
        assert_eq!(ids, [0, 1, 2, 3, 4, 5], "seed {seed}");
    }
}

#[test]
fn restarts_keep_ids_and_raise_incarnations() {
    for seed in 0..60 {
        let mut segment = Segment::new(seed, 4, 4, weather(seed % 3));
        for at in 0..4 {
            segment.boot(at);
        }
        segment.settle(40_000, &format!("seed {seed}: boot"));
        let before: BTreeMap<Mac, Seat> = segment.seats().into_iter().collect();
        let mut restarts = BTreeMap::new();
        for round in 0..5 {
            // One to three at once, some so fast that nobody notices that they were gone.
            let first = segment.random.below(4) as usize;
            let count = 1 + segment.random.below(3) as usize;
            let chosen: Vec<_> = (0..count).map(|n| (first + n) % 4).collect();
            for at in &chosen {
                segment.halt(*at);
                *restarts.entry(segment.machines[*at].mac).or_insert(0) += 1;
            }
            let pause = [20, 500, 4_000][segment.random.below(3) as usize];
            segment.run(pause);
            for at in &chosen {
                segment.boot(*at);
            }
            segment.settle(20_000, &format!("seed {seed} round {round}"));
        }
        for (mac, seat) in segment.seats() {
            assert_eq!(seat.id, before[&mac].id, "seed {seed}");
            let restarted = restarts.get(&mac).copied().unwrap_or(0);
            assert_eq!(seat.incarnation, 1 + restarted, "seed {seed}");
        }
        segment.check_incarnations_grow();
    }
}

#[test]
fn a_dead_node_is_noticed_in_time_and_a_live_one_is_not_taken_for_dead() {
    for seed in 0..30 {
        let weather = Weather { loss_percent: 5, duplicate_percent: 1, delay_ms: 10 };
        let mut segment = Segment::new(seed, 4, 4, weather);
        for at in 0..4 {
            segment.boot(at);
        }
        segment.settle(20_000, "boot");
        segment.events.clear();
        segment.run(60_000);
        for events in segment.events.values() {
            let down = |e: &Event| matches!(e, Event::NodeDown { .. } | Event::NodeDeaf { .. });
            assert!(!events.iter().any(down), "{events:?}");
        }
        segment.halt(2);
        let took = segment.settle(3_000, "death noticed");
        assert!(took >= 900, "{took}");
        segment.boot(2);
        segment.settle(5_000, "back");
    }
}

#[test]
fn a_cut_off_part_is_down_and_comes_back_as_it_was() {
    for seed in 0..40 {
        let mut segment = Segment::new(seed, 5, 5, weather(seed % 3));
        for at in 0..5 {
            segment.boot(at);
        }
        segment.settle(40_000, "boot");
        let before = segment.seats();
        let left: Vec<_> = (0..=(seed as usize % 4)).collect();
        segment.partition(&left);
        segment.run(6_000);
        for (at, view) in segment.views() {
            for member in &view.members {
                let other = segment.machines.iter().position(|m| m.mac == member.mac).unwrap();
                let cut = left.contains(&at) != left.contains(&other);
                if cut {
                    assert_eq!(member.liveness, Liveness::Down, "seed {seed}");
                }
            }
        }
        segment.cut.clear();
        segment.settle(10_000, &format!("seed {seed}: healed"));
        assert_eq!(segment.seats(), before);
    }
}

#[test]
fn a_partition_while_forming_never_leaves_two_clusters() {
    for seed in 0..120 {
        // More than half are needed, so that one side at most can form a cluster.
        let expect = 3 + (seed % 3) as u16;
        let mut segment = Segment::new(seed, 5, expect, weather(seed % 3));
        for at in 0..5 {
            segment.boot(at);
        }
        let start = segment.random.below(2_500);
        segment.run(start);
        let left: Vec<_> = (0..5).filter(|_| segment.random.chance(50)).collect();
        segment.partition(&left);
        let length = segment.random.below(12_000);
        segment.run(length);
        segment.cut.clear();
        segment.settle(40_000, &format!("seed {seed}"));
        segment.check_incarnations_grow();
    }
}

#[test]
fn single_nodes_that_formed_apart_become_one_cluster_when_they_meet_soon() {
    for seed in 0..20 {
        let mut segment = Segment::new(seed, 2, 1, weather(seed % 3));
        segment.partition(&[0]);
        segment.boot(0);
        segment.boot(1);
        segment.run(8_000);
        assert!(segment
            .views()
            .iter()
            .all(|(_, view)| matches!(view.standing, Standing::Member { .. })));
        segment.cut.clear();
        segment.settle(10_000, &format!("seed {seed}"));
    }
}

#[test]
fn both_sides_of_a_partition_that_restart_machines_converge_without_a_double_id() {
    for seed in 0..60 {
        let mut segment = Segment::new(seed, 7, 5, weather(seed % 3));
        for at in 0..5 {
            segment.boot(at);
        }
        segment.settle(40_000, "boot");
        segment.partition(&[0, 1, 5]);
        segment.run(4_000);
        segment.halt(1);
        segment.halt(4);
        segment.run(1_000);
        // Known machines come back on either side, new ones only where the majority is.
        for at in [1, 4, 5, 6] {
            segment.boot(at);
        }
        segment.run(12_000);
        let standing = |segment: &Segment, at: usize| {
            segment.machines[at].node.as_ref().unwrap().view(segment.now_ms).standing
        };
        assert!(matches!(standing(&segment, 6), Standing::Member { .. }), "seed {seed}");
        match standing(&segment, 5) {
            Standing::Discovering { detail, .. } => {
                assert!(detail.contains("of the 5 members of the cluster are down"), "{detail}");
            }
            other => panic!("seed {seed}: {other:?}"),
        }
        segment.cut.clear();
        segment.settle(20_000, &format!("seed {seed}"));
        segment.check_incarnations_grow();
        assert_eq!(segment.seats().len(), 7);
    }
}

#[test]
fn different_expectations_are_named_and_nothing_is_formed() {
    let mut segment = Segment::new(3, 3, 3, Weather::default());
    segment.machines[1].expect = 2;
    for at in 0..3 {
        segment.boot(at);
    }
    segment.run(10_000);
    for (_, view) in segment.views() {
        let Standing::Discovering { detail, heard } = view.standing else { panic!("formed") };
        assert!(heard && detail.contains("bootstrap_expect"), "{detail}");
    }
}

#[test]
fn one_way_silence_is_named() {
    let mut segment = Segment::new(3, 3, 3, Weather::default());
    segment.cut.insert((1, 2));
    for at in 0..3 {
        segment.boot(at);
    }
    segment.run(10_000);
    let (_, view) = segment.views().swap_remove(0);
    let Standing::Discovering { detail, .. } = view.standing else { panic!("formed") };
    assert!(detail.contains("does not hear"), "{detail}");
}

#[test]
fn members_of_which_one_does_not_hear_the_other_are_down_to_both() {
    for seed in 0..20 {
        let mut segment = Segment::new(seed, 4, 4, weather(seed % 3));
        for at in 0..4 {
            segment.boot(at);
        }
        segment.settle(40_000, "boot");
        let before = segment.seats();
        segment.events.clear();
        segment.cut.insert((2, 1));
        segment.run(10_000);
        for (at, view) in segment.views() {
            for member in &view.members {
                let other = segment.machines.iter().position(|m| m.mac == member.mac).unwrap();
                let apart = [(1, 2), (2, 1)].contains(&(at, other));
                assert_eq!(member.liveness == Liveness::Down, apart, "seed {seed}: {at}, {other}");
            }
        }
        let deaf = |events: &Vec<Event>| events.iter().any(|e| matches!(e, Event::NodeDeaf { .. }));
        assert_eq!(segment.events.values().filter(|events| deaf(events)).count(), 2, "seed {seed}");
        segment.cut.clear();
        segment.settle(10_000, &format!("seed {seed}: healed"));
        assert_eq!(segment.seats(), before);
    }
}

#[test]
fn what_was_recorded_before_a_restart_has_no_effect_after_it() {
    for seed in 0..20 {
        let mut segment = Segment::new(seed, 3, 3, Weather::default());
        for at in 0..3 {
            segment.boot(at);
        }
        segment.settle(10_000, "boot");
        let old: Vec<_> = std::mem::take(&mut segment.recorded);
        let old_messages = std::mem::take(&mut segment.recorded_messages);
        segment.halt(2);
        segment.run(500);
        segment.boot(2);
        segment.settle(10_000, "back");
        let seats = segment.seats();
        segment.halt(2);
        segment.settle(5_000, "down");
        for beacon in old {
            let now_ms = segment.now_ms;
            for at in 0..2 {
                let own = segment.machines[at].mac;
                let node = segment.machines[at].node.as_mut().unwrap();
                let novelty = node.receive(now_ms, path(&beacon), beacon.clone());
                assert!(novelty == Novelty::Old || beacon.mac == own, "{novelty:?}");
            }
            segment.run(TICK_MS);
        }
        for (source, message) in old_messages {
            let now_ms = segment.now_ms;
            for at in 0..2 {
                let node = segment.machines[at].node.as_mut().unwrap();
                node.receive_message(now_ms, INTERFACE, source, message.clone());
                assert!(node.take_messages(now_ms).is_empty(), "a recorded message is answered");
            }
        }
        segment.run(TICK_MS);
        assert!(segment.is_whole(), "node 2 is still down");
        assert_eq!(segment.seats(), seats);
        // A machine that has just booted can't know: it must still not believe them.
        let lost = segment.recorded.clone();
        segment.halt(1);
        segment.run(100);
        segment.boot(1);
        let now_ms = segment.now_ms;
        let own = segment.machines[1].mac;
        let node = segment.machines[1].node.as_mut().unwrap();
        for beacon in lost.into_iter().filter(|beacon| beacon.mac != own) {
            assert_eq!(node.receive(now_ms, path(&beacon), beacon), Novelty::Unproven);
        }
        segment.settle(10_000, "node 1 back");
    }
}

#[test]
fn strangers_do_not_get_past_the_envelope() {
    let (key, wrong) = (Key::new("the token of this cluster"), Key::new("another token"));
    let peers = vec![PeerEntry {
        removed: false,
        known: false,
        mac: Mac([2, 0, 0, 0, 0, 1]),
        instance: 1,
        seat: Some(Seat { id: 0, incarnation: 9 }),
        heard: true,
        confirmed: true,
    }];
    let mut segment = Segment::new(1, 1, 1, Weather::default());
    segment.boot(0);
    segment.run(100);
    let beacon = Beacon {
        phase: Phase::Ready,
        peers,
        ..segment.machines[0].node.as_mut().unwrap().beacon(1_100, Mac([2, 0, 0, 0, 0, 1]))
    };
    let why = |beacon: &Beacon, by: &Key| {
        Beacon::open(&beacon.seal(by), "dvs", &key).map_err(|rejected| rejected.why)
    };
    assert_eq!(why(&beacon, &wrong), Err(Rejection::Token));
    let other = Beacon { cluster_name: "lab".into(), ..beacon.clone() };
    assert_eq!(why(&other, &key), Err(Rejection::OtherCluster));
    assert_eq!(why(&beacon, &key), Ok(beacon));
}

#[test]
fn a_node_that_was_stopped_does_not_take_the_others_for_dead() {
    let mut segment = Segment::new(9, 3, 3, Weather::default());
    for at in 0..3 {
        segment.boot(at);
    }
    segment.settle(10_000, "boot");
    segment.events.clear();
    // Only machine 0 sleeps: the others go on.
    let mut asleep = segment.machines[0].node.take();
    segment.run(10_000);
    std::mem::swap(&mut segment.machines[0].node, &mut asleep);
    segment.run(1_000);
    assert!(!segment.events[&0].iter().any(|event| matches!(event, Event::NodeDown { .. })));
    segment.settle(3_000, "awake");
}
