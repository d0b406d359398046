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
    /// Others of its group have not ended by then, and do so when they are told to or killed.
    leaves: bool,
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
    /// What there is once cannot run here.
    is_broken: bool,
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
            is_broken: false,
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
    manifest: Manifest,
    /// Which revision of the keys has the manifest.
    loaded: u64,
    preference: Option<(u32, u64)>,
    revision: u64,
    /// What others can read of who says that he has a process of the only server, by lease.
    told: BTreeMap<u64, bool>,
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
            manifest: Manifest::read(MANIFEST).unwrap(),
            loaded: 0,
            preference: None,
            revision: 0,
            told: BTreeMap::new(),
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
            revision: self.loaded,
            manifest: self.manifest.clone(),
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
            self.told.remove(&id);
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
                let Some(process) = self.nodes[at].processes.get_mut(&server) else { continue };
                if core::mem::take(&mut process.leaves) {
                    process.ends = None;
                    events.push_back(Event::Leaving { server });
                } else {
                    self.nodes[at].processes.remove(&server);
                    events.push_back(Event::Ended { server, how: "it ended".into() });
                }
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
        let shown = self.told.values().filter(|has_it| **has_it).count();
        assert!(shown <= 1, "{ALONE} is shown {shown} times at {now:?}");
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
            // Others may come in between.
            if self.draw(3) == 0 {
                self.nodes[at].orders.push_front(order);
                break;
            }
            match order {
                Action::Tell(told) => {
                    let has_it =
                        |it: &mol_rs::report::Report| it.server == ALONE && it.pid.is_some();
                    if let Some(lease) = self.nodes[at].lease {
                        self.told.insert(lease.0, told.servers.iter().any(has_it));
                    }
                }
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
                let leaves = self.draw(4) == 0;
                let is_broken = self.nodes[at].is_broken && server == ALONE;
                let ends = is_broken.then_some(now);
                let process = Process { ends, leaves, term, obeys };
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
                    // That goes to all of its group.
                    process.leaves = false;
                }
            }
            Action::Tell(told) => {
                self.nodes[at].reports = told.servers.clone();
                // Only the last word counts, and it is told before anything is given up.
                self.nodes[at].orders.retain(|order| !matches!(order, Action::Tell(_)));
                self.nodes[at].orders.push_front(Action::Tell(told));
            }
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
        self.revision += 1;
        self.preference = Some((node, self.revision));
    }

    /// Loads a manifest that prefers another node, as `mol-rs load` does it.
    fn load(&mut self, prefer: u32) {
        self.revision += 1;
        self.loaded = self.revision;
        let manifest = MANIFEST.replace("prefer = 2", &format!("prefer = {prefer}"));
        let manifest = Manifest::read(&manifest).unwrap();
        if manifest != core::mem::replace(&mut self.manifest, manifest.clone()) {
            self.preference = None;
        }
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
    Load(u32),
    Break(usize, bool),
}

fn fault() -> impl Strategy<Value = Fault> {
    let node = 0..NODES as usize;
    prop_oneof![
        (node.clone(), any::<bool>()).prop_map(|(node, alone)| Fault::Kill(node, alone)),
        node.clone().prop_map(Fault::Crash),
        (node.clone(), any::<bool>()).prop_map(|(node, off)| Fault::CutOff(node, off)),
        (0..NODES).prop_map(Fault::Prefer),
        (0..NODES).prop_map(Fault::Load),
        (node, any::<bool>()).prop_map(|(node, is_broken)| Fault::Break(node, is_broken)),
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
                Fault::Load(node) => world.load(node),
                Fault::Break(at, is_broken) => world.nodes[at].is_broken = is_broken,
            }
        }
        for node in &mut world.nodes {
            (node.is_cut_off, node.is_broken) = (false, false);
        }
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

#[test]
fn what_people_have_said_last_holds() {
    let mut world = settled();
    world.prefer(0);
    world.run(Duration::from_secs(10));
    assert_eq!(world.holder(), Some(0));
    world.load(3);
    world.run(Duration::from_secs(10));
    assert_eq!(world.holder(), Some(3), "a manifest that is newer than the move");
    world.prefer(1);
    world.run(Duration::from_secs(10));
    assert_eq!(world.holder(), Some(1), "a move that is newer than the manifest");
    world.load(3);
    world.run(Duration::from_secs(10));
    assert_eq!(world.holder(), Some(1), "the manifest says nothing new");
    world.crash(3);
    world.run(Duration::from_secs(20));
    assert_eq!(world.holder(), Some(1), "nor does a node that comes back");
}

#[test]
fn a_server_that_cannot_run_where_it_is_is_left_to_another_node() {
    let mut world = World::new(1);
    world.nodes[2].is_broken = true;
    // Pauses of 31 s together, and what lies between.
    world.run(Duration::from_secs(29));
    assert_ne!(world.line.first(), None);
    assert!(world
        .nodes
        .iter()
        .enumerate()
        .all(|(at, node)| at == 2 || !node.processes.contains_key(ALONE)));
    world.run(Duration::from_secs(30));
    let holder = world.holder();
    assert!(holder.is_some_and(|node| node != 2), "{holder:?}");
    world.nodes[2].is_broken = false;
    world.run(Duration::from_secs(60));
    assert_eq!(world.holder(), holder, "it stays where it runs");
}

#[test]
fn a_server_that_cannot_run_anywhere_else_is_started_again_where_it_is() {
    let mut world = World::new(1);
    for at in [0, 1, 3] {
        world.nodes[at].is_cut_off = true;
    }
    world.nodes[2].is_broken = true;
    world.run(Duration::from_secs(70));
    world.nodes[2].is_broken = false;
    world.run(Duration::from_secs(35));
    assert_eq!(world.holder(), Some(2));
}

/// One that ends by itself leaves others of its group behind.
#[test]
fn what_a_server_leaves_behind_has_its_grace_and_counts_as_the_server() {
    let manifest = Manifest::read(MANIFEST).unwrap();
    let mut supervisor = Supervisor::new(2);
    let alive = BTreeSet::from([2]);
    supervisor.handle(Time::ZERO, Event::View(View { manifest, alive, ..View::default() }));
    let mut now = Time::ZERO;
    let mut attempt = 0;
    for action in supervisor.handle(now, Event::Lasts(Lease(1), now)) {
        if let Action::Stand { attempt: of, .. } = action {
            attempt = of;
        }
    }
    let won = Event::Won { server: ALONE.into(), lease: Lease(1), attempt, term: 1 };
    let is = |wanted: &'static str| {
        move |it: &Action| match it {
            Action::Start { server, .. } => wanted == "start" && server == ALONE,
            Action::Terminate(server) => wanted == "terminate" && server == ALONE,
            Action::Kill(server) => wanted == "kill" && server == ALONE,
            _ => false,
        }
    };
    assert!(supervisor.handle(now, won).iter().any(is("start")));
    supervisor.handle(now, Event::Started { server: ALONE.into(), pid: 7 });
    let keep = |supervisor: &mut Supervisor, now: Time, event: Event| {
        let mut actions = supervisor.handle(now, Event::Lasts(Lease(1), now));
        actions.extend(supervisor.handle(now, event));
        actions
    };
    now += STEP;
    let left_at = now;
    let left = keep(&mut supervisor, now, Event::Leaving { server: ALONE.into() });
    assert!(left.iter().any(is("terminate")) && !left.iter().any(is("kill")), "{left:?}");
    while now < left_at + Supervisor::GRACE - STEP {
        now += STEP;
        let actions = keep(&mut supervisor, now, Event::Tick);
        assert!(!actions.iter().any(is("kill")) && !actions.iter().any(is("start")), "{now:?}");
    }
    now += STEP;
    assert!(keep(&mut supervisor, now, Event::Tick).iter().any(is("kill")));
    let ended = Event::Ended { server: ALONE.into(), how: "it ended with status 1".into() };
    let actions = keep(&mut supervisor, now, ended);
    assert!(actions.iter().any(is("start")), "the pause is over: it began when the server ended");
    let failures = supervisor.reports().iter().find(|it| it.server == ALONE).map(|it| it.failures);
    assert_eq!(failures, Some(1));
}

#[test]
fn that_a_server_has_ended_is_told_before_its_lead_is_given_up() {
    let mut world = settled();
    let lease = world.nodes[2].lease.unwrap();
    let now = world.now;
    let mut view = world.view();
    view.stopped.insert(ALONE.into());
    let node = &mut world.nodes[2].supervisor;
    node.handle(now, Event::View(view));
    let ended = Event::Ended { server: ALONE.into(), how: "it ended".into() };
    let actions = node.handle(now, ended);
    let at = |wanted: &dyn Fn(&Action) -> bool| actions.iter().position(wanted).unwrap();
    let told = at(&|it| matches!(it, Action::Tell(_)));
    let resigned = at(&|it| *it == Action::Resign { server: ALONE.into(), lease });
    assert!(told < resigned, "{actions:?}");
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
