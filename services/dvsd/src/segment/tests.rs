// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keys of several nodes whose beacons get lost, over many seeds.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex};

use super::key::KeyName;
use super::*;
use crate::beacon::{Choice, Seat};
use crate::membership::{Path, Said, Standing, DOWN_MS};

const INTERFACE: u32 = 2;
const DEVICE: u32 = 7;
const TICK_MS: u64 = 50;
const BEACON_MS: u64 = 250;

/// What the kernel of one machine knows.
#[derive(Debug, Default)]
struct Kernel {
    /// Whether devices can be made on interfaces, by index.
    broken: BTreeSet<u32>,
    gone: bool,
    own: BTreeMap<u8, KeyName>,
    sends: Option<u8>,
    senders: BTreeMap<Mac, BTreeMap<u8, KeyName>>,
    packets: u32,
    spent: HashSet<KeyName>,
    /// The length of frames cannot be changed.
    rigid: bool,
    /// How often it was looked at.
    fits: u64,
}

impl Kernel {
    fn sending(&self) -> Option<KeyName> {
        self.own.get(&self.sends?).copied()
    }

    fn understands(&self, name: KeyName) -> bool {
        let keys = self.senders.get(&name.mac);
        keys.and_then(|keys| keys.get(&name.association())) == Some(&name)
    }
}

struct Fake(Arc<Mutex<Kernel>>);

impl Devices for Fake {
    fn make(&mut self, lower: &Interface) -> Result<Made, String> {
        let mut kernel = self.0.lock().unwrap();
        if kernel.broken.contains(&lower.index) {
            return Err(format!("make sec-{}: broken", lower.name));
        }
        if lower.index == INTERFACE {
            let (broken, spent) = (kernel.broken.clone(), std::mem::take(&mut kernel.spent));
            *kernel = Kernel { broken, spent, ..Kernel::default() };
        }
        Ok(Made { index: DEVICE + lower.index - INTERFACE, name: format!("sec-{}", lower.name) })
    }

    fn tell(
        &mut self,
        device: u32,
        call: &Call,
        _: &dyn Fn(&KeyName) -> Key,
    ) -> Result<(), String> {
        if device != DEVICE {
            return Ok(());
        }
        let mut kernel = self.0.lock().unwrap();
        match *call {
            Call::AddOwnKey(name) => {
                assert!(!kernel.spent.contains(&name), "{name:?} was sent with before");
                assert_eq!(kernel.own.insert(name.association(), name), None);
            }
            Call::SendWith(number) => {
                let name = kernel.own[&number];
                kernel.spent.insert(name);
                kernel.sends = Some(number);
                kernel.packets = 1;
            }
            Call::RemoveOwnKey(number) => {
                kernel.own.remove(&number).unwrap();
            }
            Call::AddSender(mac) => {
                assert_eq!(kernel.senders.insert(mac, BTreeMap::new()), None);
            }
            Call::RemoveSender(mac) => {
                kernel.senders.remove(&mac).unwrap();
            }
            Call::AddKey(name) => {
                let keys = kernel.senders.get_mut(&name.mac).unwrap();
                assert_eq!(keys.insert(name.association(), name), None);
            }
            Call::RemoveKey(mac, number) => {
                kernel.senders.get_mut(&mac).unwrap().remove(&number).unwrap();
            }
        }
        Ok(())
    }

    fn fit(&mut self, made: &Made, lower: &Interface) -> Result<(), String> {
        let mut kernel = self.0.lock().unwrap();
        assert_eq!(made.index - DEVICE, lower.index - INTERFACE);
        kernel.fits += 1;
        if kernel.rigid {
            return Err(format!("fit {}: rigid", made.name));
        }
        Ok(())
    }

    fn counts(&mut self) -> Result<BTreeMap<u32, DeviceCounts>, String> {
        let kernel = self.0.lock().unwrap();
        let next_packet = kernel.sends.map(|number| (number, kernel.packets)).into_iter().collect();
        let counts = DeviceCounts { next_packet, ..DeviceCounts::default() };
        let other = (DEVICE + 1, DeviceCounts::default());
        Ok([(DEVICE, counts), other].into_iter().skip(usize::from(kernel.gone)).collect())
    }
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % end
    }
}

#[derive(Clone)]
struct Beacon {
    instance: u64,
    announced: Announced,
    held: BTreeMap<(Mac, u64), u8>,
}

struct Node {
    mac: Mac,
    instance: u64,
    segment: Segment,
    kernel: Arc<Mutex<Kernel>>,
    /// The latest beacon of each other node, and when it came.
    heard: BTreeMap<usize, (Beacon, u64)>,
    hasty: u32,
    /// When it sent with another key for the last time.
    switched_ms: u64,
    /// Whom it waited for before that.
    waited_for: BTreeSet<Mac>,
}

struct Cluster {
    now_ms: u64,
    random: Random,
    loss_percent: u64,
    nodes: Vec<Node>,
    /// No beacons pass between these two.
    cut: Option<(usize, usize)>,
}

fn boot(now_ms: u64, number: usize, instance: u64) -> Node {
    let mac = Mac([2, 0, 0, 0, 0, number as u8]);
    let kernel = Arc::new(Mutex::new(Kernel::default()));
    let secret = ClusterSecret::new(&"sixteen letters or more".parse().unwrap());
    let interfaces = [Interface { name: "eth0".into(), index: INTERFACE, mac }];
    let devices = Box::new(Fake(Arc::clone(&kernel)));
    let segment = Segment::new(now_ms, secret, instance, &interfaces, devices);
    let heard = BTreeMap::new();
    Node {
        mac,
        instance,
        segment,
        kernel,
        heard,
        hasty: 0,
        switched_ms: now_ms,
        waited_for: BTreeSet::new(),
    }
}

impl Cluster {
    fn new(seed: u64, nodes: usize, loss_percent: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let nodes = (0..nodes).map(|number| boot(0, number, random.below(1 << 60))).collect();
        Self { now_ms: 0, random, loss_percent, nodes, cut: None }
    }

    fn view(&self, at: usize) -> View {
        let own = &self.nodes[at];
        let member = |(number, node): (usize, &Node)| {
            let heard = own.heard.get(&number);
            let live = heard.is_some_and(|(_, at_ms)| self.now_ms - at_ms <= DOWN_MS);
            MemberView {
                seat: Seat { id: number as u16, incarnation: 1 },
                mac: node.mac,
                instance: heard.map_or(node.instance, |(beacon, _)| beacon.instance),
                local: number == at,
                liveness: match live || number == at {
                    true => Liveness::Alive,
                    false => Liveness::Down,
                },
                ready: true,
                choice: Choice::default(),
                said: heard.map(|(beacon, at_ms)| Said {
                    release: String::new(),
                    echo: 0,
                    management: None,
                    uptime_s: 0,
                    at_ms: *at_ms,
                    path: Some(Path {
                        interface: INTERFACE,
                        mac: node.mac,
                        address: Ipv6Addr::LOCALHOST,
                    }),
                    keys: Some(beacon.announced),
                    holds: beacon.held.get(&(own.mac, own.instance)).copied(),
                }),
                name: format!("node{number}"),
            }
        };
        View {
            standing: Standing::Member { cluster: 1, seat: Seat { id: at as u16, incarnation: 1 } },
            members: self.nodes.iter().enumerate().map(member).collect(),
            whole: true,
        }
    }

    fn run(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        while self.now_ms < end {
            self.now_ms += TICK_MS;
            for at in 0..self.nodes.len() {
                let view = self.view(at);
                let node = &mut self.nodes[at];
                let before = node.kernel.lock().unwrap().sending();
                let lines = node.segment.look(self.now_ms, &view);
                let now = node.kernel.lock().unwrap().sending();
                if before != now {
                    let says = |text| lines.iter().any(|line| line.contains(text));
                    let hastily = says("has not said");
                    let waited = says("from now on") && !hastily;
                    let live = |member: &&MemberView| member.liveness == Liveness::Alive && waited;
                    node.waited_for = view.members.iter().filter(live).map(|it| it.mac).collect();
                    node.switched_ms = self.now_ms;
                    node.hasty += u32::from(hastily);
                }
                if (self.now_ms / TICK_MS + at as u64).is_multiple_of(BEACON_MS / TICK_MS) {
                    self.send(at, &view);
                }
            }
            self.check();
        }
    }

    fn send(&mut self, from: usize, view: &View) {
        let node = &self.nodes[from];
        let (announced, held) = (node.segment.announced(), node.segment.held(view));
        let beacon = Beacon { instance: node.instance, announced, held };
        for to in (0..self.nodes.len()).filter(|to| *to != from) {
            let cut = [Some((from, to)), Some((to, from))].contains(&self.cut);
            if !cut && self.random.below(100) >= self.loss_percent {
                self.nodes[to].heard.insert(from, (beacon.clone(), self.now_ms));
            }
        }
    }

    /// Whoever does not understand another one has not heard of its key yet, and that one did not wait
    /// for it: it is down there, or did not answer for long.
    fn check(&self) {
        for from in &self.nodes {
            let Some(sending) = from.kernel.lock().unwrap().sending() else { continue };
            for (number, to) in self.nodes.iter().enumerate().filter(|(_, to)| to.mac != from.mac) {
                let Some((_, heard_ms)) = to.heard.get(&from.number()) else { continue };
                let understood = to.kernel.lock().unwrap().understands(sending);
                // It is looked at in the next tick.
                let news = *heard_ms > from.switched_ms && *heard_ms < self.now_ms;
                let excused = !news && !from.waited_for.contains(&to.mac);
                assert!(
                    understood || excused,
                    "at {}: {number} does not understand {sending:?}",
                    self.now_ms
                );
            }
        }
    }

    fn all_route(&self) -> bool {
        (0..self.nodes.len()).all(|at| {
            self.view(at).members.iter().filter(|member| !member.local).all(|member| {
                let plain = Route { interface: INTERFACE, mac: member.mac };
                let route = self.nodes[at].segment.route(member, plain);
                route == Some(Route { interface: DEVICE, mac: member.mac })
            })
        })
    }

    fn keys(&self) -> Vec<u32> {
        self.nodes.iter().map(|node| node.segment.announced().sending()).collect()
    }
}

impl Node {
    fn number(&self) -> usize {
        usize::from(self.mac.0[5])
    }
}

#[test]
fn lost_beacons_leave_no_pair_without_a_common_key() {
    for seed in 1..=40 {
        let mut cluster = Cluster::new(seed, 5, 30);
        cluster.run(3_000);
        assert!(cluster.all_route(), "seed {seed}");
        for round in 2..=7 {
            let wishing = cluster.random.below(5) as usize;
            for at in [wishing, (wishing + 1) % 5] {
                cluster.nodes[at].segment.wish().make();
            }
            cluster.run(7_000);
            assert!(cluster.all_route(), "seed {seed}, round {round}");
        }
        assert!(cluster.keys().iter().sum::<u32>() >= 5 + 12 - 1, "seed {seed}");
        assert_eq!(cluster.nodes.iter().map(|node| node.hasty).sum::<u32>(), 0, "seed {seed}");
    }
}

#[test]
fn one_that_is_not_heard_delays_no_change_for_ever() {
    for seed in 1..=20 {
        let mut cluster = Cluster::new(seed, 3, 20);
        cluster.run(3_000);
        cluster.cut = Some((0, 2));
        cluster.nodes[0].segment.wish().make();
        cluster.run(8_000);
        // Two that do not hear each other have no link to lose.
        assert_eq!(cluster.keys(), [2, 1, 1], "seed {seed}");
        cluster.cut = None;
        cluster.run(2_000);
        let key = cluster.nodes[0].kernel.lock().unwrap().sending().unwrap();
        assert!(cluster.nodes[2].kernel.lock().unwrap().understands(key), "seed {seed}");
    }
}

#[test]
fn one_that_hears_nothing_is_waited_for_only_so_long() {
    let mut cluster = Cluster::new(1, 2, 0);
    cluster.run(3_000);
    cluster.nodes[0].segment.wish().make();
    // It goes on sending, but what it hears is from before the announcement.
    let stale = cluster.nodes[1].heard[&0].0.clone();
    for _ in 0..10_000 / TICK_MS {
        let now_ms = cluster.now_ms;
        cluster.nodes[1].heard.insert(0, (stale.clone(), now_ms.saturating_sub(10_000)));
        cluster.run(TICK_MS);
    }
    assert_eq!((cluster.nodes[0].hasty, cluster.keys()[0]), (1, 2));
    cluster.run(1_000);
    assert!(cluster.all_route());
}

#[test]
fn a_node_that_restarts_begins_with_a_key_that_nobody_has_seen() {
    for seed in 1..=20 {
        let mut cluster = Cluster::new(seed, 3, 20);
        cluster.run(3_000);
        let before = cluster.nodes[1].kernel.lock().unwrap().sending().unwrap();
        let instance = cluster.random.below(1 << 60);
        let restarted = boot(cluster.now_ms, 1, instance);
        cluster.nodes[1] = restarted;
        cluster.run(3_000);
        let after = cluster.nodes[1].kernel.lock().unwrap().sending().unwrap();
        assert_eq!((after.generation, before.generation), (1, 1));
        assert_ne!(
            before.derive(&cluster.nodes[0].segment.secret),
            after.derive(&cluster.nodes[0].segment.secret)
        );
        assert!(cluster.all_route(), "seed {seed}");
        assert!(!cluster.nodes[0].kernel.lock().unwrap().understands(before), "seed {seed}");
    }
}

#[test]
fn a_lost_device_gets_another_key_at_once() {
    let mut cluster = Cluster::new(1, 2, 0);
    cluster.run(3_000);
    cluster.nodes[0].kernel.lock().unwrap().gone = true;
    cluster.run(3_000);
    assert_eq!(cluster.keys(), [2, 1]);
    assert!(cluster.all_route());
}

#[test]
fn packets_that_run_low_and_a_member_that_leaves_change_the_key() {
    let mut cluster = Cluster::new(1, 3, 0);
    cluster.run(3_000);
    cluster.nodes[0].kernel.lock().unwrap().packets = schedule::PACKETS_MAX;
    cluster.run(3_000);
    assert_eq!(cluster.keys(), [2, 1, 1]);
    cluster.nodes.pop();
    cluster.nodes.iter_mut().for_each(|node| drop(node.heard.remove(&2)));
    cluster.run(3_000);
    assert_eq!(cluster.keys(), [3, 2]);
}

#[test]
fn an_interface_that_does_not_work_keeps_no_other_from_working() {
    let mut cluster = Cluster::new(1, 2, 0);
    let kernel = Arc::clone(&cluster.nodes[0].kernel);
    kernel.lock().unwrap().broken.insert(INTERFACE - 1);
    let secret = ClusterSecret::new(&"sixteen letters or more".parse().unwrap());
    let mac = cluster.nodes[0].mac;
    let interface = |index| Interface { name: format!("eth{index}"), index, mac };
    let interfaces = [interface(INTERFACE - 1), interface(INTERFACE)];
    let devices = Box::new(Fake(kernel));
    cluster.nodes[0].segment =
        Segment::new(0, secret, cluster.nodes[0].instance, &interfaces, devices);
    cluster.run(3_000);
    assert!(cluster.all_route());
    assert_eq!(cluster.nodes[0].segment.trouble(), "make sec-eth1: broken");
    cluster.nodes[0].segment.wish().make();
    cluster.run(3_000);
    assert_eq!(cluster.keys(), [2, 1]);
}

#[test]
fn frames_are_fitted_again_and_again_and_keys_change_though_that_fails() {
    let mut cluster = Cluster::new(1, 2, 0);
    cluster.run(3_000);
    let kernel = Arc::clone(&cluster.nodes[0].kernel);
    kernel.lock().unwrap().fits = 0;
    cluster.run(10 * COUNT_MS);
    assert_eq!(kernel.lock().unwrap().fits, 10);
    kernel.lock().unwrap().rigid = true;
    cluster.nodes[0].segment.wish().make();
    cluster.run(5_000);
    assert_eq!(cluster.nodes[0].segment.trouble(), "fit sec-eth0: rigid");
    assert_eq!(cluster.keys(), [2, 1]);
    assert!(cluster.all_route());
    kernel.lock().unwrap().rigid = false;
    cluster.run(2 * RETRY_MS);
    assert_eq!(cluster.nodes[0].segment.trouble(), "");
}
