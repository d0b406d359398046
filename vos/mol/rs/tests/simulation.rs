// SPDX-License-Identifier: MIT OR Apache-2.0
//! Four nodes whose servers die, ignore being told to end, and lose sight of the services: a server of which there is one at a time
//! never runs twice, and comes back; those of each node run on each.

use dvk_services::Lease;
use mol_rs::manifest::Manifest;
use mol_rs::report::State;
use mol_rs::supervisor::{Action, Event, Supervisor, Time, View};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

const NODES: u32 = 4;
const STEP: Duration = Duration::from_millis(50);
const ALONE: &str = "alone";
const EACH: &str = "each";
const MANIFEST: &str = "[[server]]\nname = \"alone\"\ncommand = [\"a\"]\nprefer = 2\n\
                        [[server]]\nname = \"each\"\ncommand = [\"e\", \"{replica}\"]\neach = true\n";

struct Process {
    /// It ends by itself then, having been told to end or not.
    ends: Option<Time>,
    term: Option<u64>,
    obeys: bool,
}

struct Node {
    supervisor: Supervisor,
    processes: BTreeMap<String, Process>,
    lease: Option<Lease>,
    renewed: Time,
    orders: VecDeque<Action>,
    candidacies: BTreeMap<String, (Lease, u64)>,
    reports: Vec<mol_rs::report::Report>,
    is_cut_off: bool,
}

impl Node {
    fn new(node: u32) -> Self {
        Self {
            supervisor: Supervisor::new(node),
            processes: BTreeMap::new(),
            lease: None,
            renewed: Time::ZERO,
            orders: VecDeque::new(),
            candidacies: BTreeMap::new(),
            reports: Vec::new(),
            is_cut_off: false,
        }
    }
}

/// The nodes, and the services that they ask.
struct World {
    now: Time,
    nodes: Vec<Node>,
    /// When each lease ends, and whose it is.
    leases: BTreeMap<u64, (Time, u32)>,
    next: u64,
    /// Who stands for the lead of the only server, first come first served, and the term of the first one.
    line: Vec<Lease>,
    term: u64,
    preference: Option<(u32, u64)>,
    stopped: BTreeSet<String>,
    /// Decides what processes do.
    chance: u64,
    starts: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            now: Time::ZERO,
            nodes: (0..NODES).map(Node::new).collect(),
            leases: BTreeMap::new(),
            next: 0,
            line: Vec::new(),
            term: 0,
            preference: None,
            stopped: BTreeSet::new(),
            chance: seed | 1,
            starts: 0,
        }
    }

    fn draw(&mut self, below: u64) -> u64 {
        // A linear congruential generator, after Knuth's MMIX.
        self.chance = self
            .chance
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.chance >> 33) % below
    }

    fn view(&self) -> View {
        let alive = self.leases.values().map(|(_, node)| *node).collect();
        let preferences = self.preference.iter().map(|it| (ALONE.to_owned(), *it)).collect();
        View {
            revision: 0,
            manifest: Manifest::read(MANIFEST).unwrap(),
            alive,
            preferences,
            stopped: self.stopped.clone(),
            running: BTreeSet::new(),
        }
    }

    fn leave(&mut self, lease: Lease) {
        let was_first = self.line.first() == Some(&lease);
        self.line.retain(|it| *it != lease);
        self.term += u64::from(was_first);
    }

    fn step(&mut self) {
        self.now += STEP;
        let now = self.now;
        let ended: Vec<u64> =
            self.leases.iter().filter(|(_, (end, _))| *end <= now).map(|(id, _)| *id).collect();
        for id in ended {
            self.leases.remove(&id);
            self.leave(Lease(id));
        }
        for at in 0..self.nodes.len() {
            let mut events = VecDeque::new();
            if !self.nodes[at].is_cut_off {
                self.serve(at, &mut events);
            }
            let over = |(name, process): (&String, &Process)| {
                process.ends.is_some_and(|end| end <= now).then(|| name.clone())
            };
            let over: Vec<String> = self.nodes[at].processes.iter().filter_map(over).collect();
            for server in over {
                self.nodes[at].processes.remove(&server);
                events.push_back(Event::Ended { server, how: "it ended".into() });
            }
            events.push_back(Event::Tick);
            while let Some(event) = events.pop_front() {
                for action in self.nodes[at].supervisor.handle(now, event) {
                    self.act(at, action, &mut events);
                }
            }
        }
        let terms: Vec<_> =
            self.nodes.iter().filter_map(|node| node.processes.get(ALONE)?.term).collect();
        assert!(terms.len() <= 1, "{ALONE} runs {} times at {now:?}", terms.len());
    }

    /// What keeper and clerk of a node do that reaches the services.
    fn serve(&mut self, at: usize, events: &mut VecDeque<Event>) {
        let (now, ends) = (self.now, self.now + Supervisor::TTL);
        if let Some(lease) = self.nodes[at].lease {
            match self.leases.get_mut(&lease.0) {
                Some((end, _)) if now >= self.nodes[at].renewed + Duration::from_secs(1) => {
                    *end = ends;
                    self.nodes[at].renewed = now;
                    events.push_back(Event::Lasts(lease, now));
                }
                Some(_) => {}
                None => {
                    self.nodes[at].lease = None;
                    self.nodes[at].candidacies.clear();
                    events.push_back(Event::LeaseEnded(lease));
                }
            }
        } else {
            self.next += 1;
            let lease = Lease(self.next);
            self.leases.insert(lease.0, (ends, at as u32));
            self.nodes[at].lease = Some(lease);
            self.nodes[at].renewed = now;
            events.push_back(Event::Lasts(lease, now));
        }
        // It does not always come to its orders at once.
        if self.draw(4) == 0 {
            return;
        }
        while let Some(order) = self.nodes[at].orders.pop_front() {
            match order {
                Action::Stand { server, lease, attempt } if self.leases.contains_key(&lease.0) => {
                    if !self.line.contains(&lease) {
                        self.line.push(lease);
                    }
                    self.nodes[at].candidacies.insert(server, (lease, attempt));
                }
                Action::Resign { server, lease } => {
                    self.nodes[at].candidacies.remove(&server);
                    self.leave(lease);
                }
                _ => {}
            }
        }
        events.push_back(Event::View(self.view()));
        let first = self.line.first().copied();
        let candidacies = &mut self.nodes[at].candidacies;
        if let Some((lease, attempt)) = candidacies.get(ALONE).copied() {
            if first == Some(lease) {
                candidacies.remove(ALONE);
                let term = self.term;
                events.push_back(Event::Won { server: ALONE.into(), lease, attempt, term });
            }
        }
    }

    fn act(&mut self, at: usize, action: Action, events: &mut VecDeque<Event>) {
        let now = self.now;
        match action {
            Action::Start { server, term, .. } => {
                self.starts += 1;
                let obeys = self.draw(3) > 0;
                let process = Process { ends: None, term, obeys };
                let before = self.nodes[at].processes.insert(server.clone(), process);
                assert!(before.is_none(), "{server} runs twice on node {at}");
                assert_eq!(term.is_some(), server == ALONE);
                events.push_back(Event::Started { server, pid: self.starts });
            }
            Action::Terminate(server) => {
                let delay = Duration::from_millis(self.draw(6_000));
                if let Some(process) = self.nodes[at].processes.get_mut(&server) {
                    if process.obeys {
                        process.ends = Some(now + delay);
                    }
                }
            }
            Action::Kill(server) => {
                let delay = Duration::from_millis(self.draw(500));
                if let Some(process) = self.nodes[at].processes.get_mut(&server) {
                    process.ends = Some(process.ends.unwrap_or(now + delay).min(now + delay));
                }
            }
            Action::Tell(told) => self.nodes[at].reports = told.servers,
            Action::End => {}
            order => self.nodes[at].orders.push_back(order),
        }
    }

    fn run(&mut self, time: Duration) {
        for _ in 0..time.as_millis() / STEP.as_millis() {
            self.step();
        }
    }

    fn holder(&self) -> Option<usize> {
        self.nodes.iter().position(|node| node.processes.contains_key(ALONE))
    }

    fn prefer(&mut self, node: u32) {
        let revision = self.preference.map_or(1, |(_, revision)| revision + 1);
        self.preference = Some((node, revision));
    }

    fn kill(&mut self, at: usize, server: &str) {
        let now = self.now;
        if let Some(process) = self.nodes[at].processes.get_mut(server) {
            process.ends = Some(now);
        }
    }

    /// The power of a node is cut, and comes back.
    fn crash(&mut self, at: usize) {
        self.nodes[at] = Node::new(at as u32);
    }
}

#[derive(Clone, Debug)]
enum Fault {
    Kill(usize, bool),
    Crash(usize),
    CutOff(usize, bool),
    Prefer(u32),
}

fn fault() -> impl Strategy<Value = Fault> {
    let node = 0..NODES as usize;
    prop_oneof![
        (node.clone(), any::<bool>()).prop_map(|(node, alone)| Fault::Kill(node, alone)),
        node.clone().prop_map(Fault::Crash),
        (node, any::<bool>()).prop_map(|(node, off)| Fault::CutOff(node, off)),
        (0..NODES).prop_map(Fault::Prefer),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn one_never_runs_twice_and_all_come_back(
        seed: u64,
        faults in prop::collection::vec((0_u64..9_000, fault()), 1..25),
    ) {
        let mut world = World::new(seed);
        for (pause_ms, fault) in faults {
            world.run(Duration::from_millis(pause_ms));
            match fault {
                Fault::Kill(at, alone) => world.kill(at, if alone { ALONE } else { EACH }),
                Fault::Crash(at) => world.crash(at),
                Fault::CutOff(at, off) => world.nodes[at].is_cut_off = off,
                Fault::Prefer(node) => world.prefer(node),
            }
        }
        world.nodes.iter_mut().for_each(|node| node.is_cut_off = false);
        // Longer than any pause, and all that has to end before.
        world.run(Duration::from_secs(60));
        prop_assert!(world.holder().is_some(), "nobody runs it");
        prop_assert!(world.nodes.iter().all(|node| node.processes.contains_key(EACH)));
    }
}

fn settled() -> World {
    let mut world = World::new(1);
    world.run(Duration::from_secs(10));
    world
}

#[test]
fn the_preferred_node_has_it_at_first() {
    assert_eq!(settled().holder(), Some(2));
}

#[test]
fn a_server_moves_to_where_it_is_wanted_and_stays_there() {
    let mut world = settled();
    for node in [0, 3, 1] {
        world.prefer(node);
        world.run(Duration::from_secs(8));
        assert_eq!(world.holder(), Some(node as usize));
    }
    // That the node comes back later is no reason to move again.
    world.crash(1);
    world.nodes[1].is_cut_off = true;
    world.run(Duration::from_secs(12));
    let holder = world.holder();
    assert!(holder.is_some_and(|node| node != 1));
    world.nodes[1].is_cut_off = false;
    world.run(Duration::from_secs(12));
    assert_eq!(world.holder(), holder);
}

#[test]
fn who_is_cut_off_ends_what_there_is_once_and_nothing_else() {
    let mut world = settled();
    world.nodes[2].is_cut_off = true;
    world.run(Supervisor::TTL);
    assert!(!world.nodes[2].processes.contains_key(ALONE));
    world.run(Duration::from_secs(5));
    assert!(world.holder().is_some_and(|node| node != 2), "{:?}", world.holder());
    assert!(world.nodes[2].processes.contains_key(EACH), "that runs on each node all the same");
    let state = |server: &str| {
        world.nodes[2].reports.iter().find(|it| it.server == server).map(|it| it.state)
    };
    assert_eq!(state(EACH), Some(State::Running));
}

#[test]
fn a_stopped_server_runs_nowhere_until_it_is_started() {
    let mut world = settled();
    world.stopped = BTreeSet::from([ALONE.to_owned(), EACH.to_owned()]);
    world.run(Duration::from_secs(8));
    assert!(world.nodes.iter().all(|node| node.processes.is_empty()));
    world.stopped.clear();
    world.run(Duration::from_secs(8));
    assert!(world.holder().is_some());
    assert!(world.nodes.iter().all(|node| node.processes.contains_key(EACH)));
}

/// When a server that ends `life` after each start is started, from a moment at which it runs.
fn pauses(life: Duration, count: usize) -> Vec<Duration> {
    let manifest = "[[server]]\nname = \"each\"\ncommand = [\"e\"]\neach = true\n";
    let manifest = Manifest::read(manifest).unwrap();
    let mut supervisor = Supervisor::new(0);
    let mut now = Time::ZERO;
    let view = View { manifest, ..View::default() };
    let is_start = |it: &Action| matches!(it, Action::Start { .. });
    assert!(supervisor.handle(now, Event::View(view)).iter().any(is_start));
    let mut pauses = Vec::new();
    for _ in 0..count {
        supervisor.handle(now, Event::Started { server: EACH.into(), pid: 1 });
        now += life;
        let ended = Event::Ended { server: EACH.into(), how: "it ended".into() };
        let mut actions = supervisor.handle(now, ended);
        let ended_at = now;
        while !actions.iter().any(is_start) {
            now += STEP;
            actions = supervisor.handle(now, Event::Tick);
        }
        pauses.push(now - ended_at);
    }
    pauses
}

#[test]
fn pauses_double_and_begin_anew_after_a_good_run() {
    let seconds = |all: Vec<Duration>| all.iter().map(Duration::as_secs).collect::<Vec<_>>();
    assert_eq!(seconds(pauses(Duration::from_secs(1), 7)), [1, 2, 4, 8, 16, 30, 30]);
    assert_eq!(seconds(pauses(Duration::from_secs(30), 3)), [1, 1, 1]);
}

#[test]
fn a_server_starts_first_after_those_that_it_needs() {
    let manifest = "[[server]]\nname = \"a\"\ncommand = [\"a\"]\neach = true\nafter = [\"b\"]\n\
                    [[server]]\nname = \"b\"\ncommand = [\"b\"]\nnodes = [1]\n";
    let manifest = Manifest::read(manifest).unwrap();
    let mut supervisor = Supervisor::new(0);
    let mut view = View { manifest, ..View::default() };
    let started = |actions: &[Action]| actions.iter().any(|it| matches!(it, Action::Start { .. }));
    assert!(!started(&supervisor.handle(Time::ZERO, Event::View(view.clone()))));
    view.running.insert("b".into());
    assert!(started(&supervisor.handle(Time::ZERO, Event::View(view.clone()))));
    supervisor.handle(Time::ZERO, Event::Started { server: "a".into(), pid: 1 });
    view.running.clear();
    supervisor.handle(Time::ZERO, Event::View(view));
    supervisor.handle(Time::ZERO, Event::Ended { server: "a".into(), how: "it ended".into() });
    assert!(
        started(&supervisor.handle(Supervisor::PAUSE_MIN, Event::Tick)),
        "it is not the first time"
    );
}

#[test]
fn others_stand_later_while_the_preferred_node_is_there() {
    let stood = |alive: &[u32]| {
        let manifest = Manifest::read(MANIFEST).unwrap();
        let alive = alive.iter().copied().collect();
        let mut supervisor = Supervisor::new(0);
        supervisor.handle(Time::ZERO, Event::View(View { manifest, alive, ..View::default() }));
        let is_stand = |it: &Action| matches!(it, Action::Stand { .. });
        let mut now = Time::ZERO;
        let mut actions = supervisor.handle(now, Event::Lasts(Lease(1), now));
        while !actions.iter().any(is_stand) {
            now += STEP;
            actions = supervisor.handle(now, Event::Tick);
        }
        now
    };
    assert_eq!(stood(&[0, 2]), Supervisor::PATIENCE);
    assert_eq!(stood(&[0]), Time::ZERO);
    assert!(
        Supervisor::PATIENCE >= Duration::from_secs(1),
        "it covers a look of the preferred node"
    );
}
