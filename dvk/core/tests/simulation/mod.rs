// SPDX-License-Identifier: GPL-2.0 OR MIT
//! A DVS of several nodes in one thread: ports, tables, links as queues, and threads as scripts.
//!
//! The shell around the core is as thin as the kernel's and takes the same steps, cut at every
//! point where a lock is released: whatever runs in the kernel at once is here a [`Task`] queue
//! of which a script picks one step at a time.

mod faults;
pub(crate) mod history;
mod threads;

use crate::model::{number_of, queues, refusal_is_pending, refuse_allocation_after, TestStorage};
use dvk_core::abi::errno::Errno;
use dvk_core::abi::wire::record::Step;
use dvk_core::abi::Endpoint;
use dvk_core::port::{Answer, Effect, Filter, Mode, Peer, PeerCall, Port};
use dvk_core::table::{Lease, Route, Table};
use history::{Handed, History, Transfer};
use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;

pub(crate) const NODES: u16 = 3;

/// One call of a thread's program. Numbers pick a port, modulo how many there have been.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    Send {
        to: u8,
        mode: Mode,
        patience: Option<u8>,
        abandon: bool,
    },
    Receive {
        from: Option<u8>,
        requests_only: bool,
        patience: Option<u8>,
    },
    /// Answers a client, or a port that may be none.
    Reply {
        to: u8,
        anybody: bool,
    },
    Notify {
        to: u8,
        bits: u64,
    },
}

/// What happens next.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// The pick-th queue that can go on takes a step.
    Run(u16),
    /// The endpoint of a thread dies; the thread binds again.
    Kill(u8),
    /// Two nodes lose each other and meet again.
    Part(u16, u16),
    RefuseMemory(u32),
    /// A step that nobody took.
    Forge {
        at: u8,
        from: u8,
        elsewhere: bool,
        call: u32,
        kind: u8,
    },
}

#[derive(Clone, Copy, Debug)]
enum Target {
    Local(usize),
    Remote(u16),
}

/// Work of one thread, cut where it holds no lock.
#[derive(Clone, Debug)]
enum Task {
    /// A step for a peer that was looked up already.
    Give {
        from: Peer,
        target: Target,
        to: Endpoint,
        step: Step,
    },
    /// A step for a peer that is looked up when it is taken.
    Tell {
        from: Peer,
        to: Peer,
        step: Step,
    },
    /// The next of those who wait for a dead port is told.
    Bury(usize),
    Abandon(usize),
    NodeDown {
        port: usize,
        node: u16,
    },
    Reunite(u16, u16),
}

type Queue = VecDeque<Task>;

/// The open call of a thread.
#[derive(Clone, Copy, Debug)]
struct Open {
    call: u32,
    /// The message, of a `send` or `sendrec`.
    number: Option<u64>,
    filter: Filter,
    /// Who can end it.
    peer: Option<Peer>,
    patience: Option<u8>,
    abandon: bool,
    cancelled: bool,
}

struct Thread {
    port: usize,
    program: VecDeque<Call>,
    open: Option<Open>,
    queue: Queue,
}

#[derive(Default)]
struct Link {
    records: VecDeque<(Endpoint, Endpoint, Step)>,
    /// What the receiving worker still has to do before it takes the next record.
    queue: Queue,
}

/// A queue that can go on.
#[derive(Clone, Copy, Debug)]
enum Runnable {
    Thread(usize),
    Link(u16, u16),
    Other(usize),
}

pub(crate) struct Simulation {
    ports: Vec<Port<TestStorage>>,
    peers: Vec<Peer>,
    known: BTreeMap<Endpoint, usize>,
    tables: Vec<Table<usize, TestStorage>>,
    threads: Vec<Thread>,
    links: BTreeMap<(u16, u16), Link>,
    /// Pairs of nodes that have lost each other.
    parted: Vec<(u16, u16)>,
    others: Vec<Queue>,
    history: History,
    refused: bool,
}

fn call_of(step: &Step) -> Option<u32> {
    match step {
        Step::Send { call, .. } | Step::Request { call, .. } | Step::Watch { call } => Some(*call),
        _ => None,
    }
}

impl Simulation {
    /// A DVS whose threads, spread over the nodes, have these programs.
    pub(crate) fn new(programs: Vec<Vec<Call>>) -> Self {
        let tables = (0..NODES).map(|local| {
            let mut table = Table::new(local, 0);
            for node in 0..NODES {
                let first_slot = 64 + u32::from(node) * 32;
                let first_generation = NonZeroU32::MIN;
                table
                    .lease(Lease { node, first_slot, slots: 32, first_generation })
                    .expect("lease");
            }
            table
        });
        let pairs = (0..NODES).flat_map(|a| (0..NODES).map(move |b| (a, b)));
        let mut simulation = Self {
            ports: Vec::new(),
            peers: Vec::new(),
            known: BTreeMap::new(),
            tables: tables.collect(),
            threads: Vec::new(),
            links: pairs.filter(|(a, b)| a != b).map(|pair| (pair, Link::default())).collect(),
            parted: Vec::new(),
            others: Vec::new(),
            history: History::default(),
            refused: false,
        };
        for (index, program) in programs.into_iter().enumerate() {
            let port = simulation.bind(index as u16 % NODES);
            let program = program.into();
            simulation.threads.push(Thread { port, program, open: None, queue: Queue::new() });
        }
        simulation
    }

    /// Lets `event` happen, if it can.
    pub(crate) fn happen(&mut self, event: &Event) {
        match *event {
            Event::Run(pick) => {
                let runnable = self.runnable();
                if !runnable.is_empty() {
                    self.run(runnable[pick as usize % runnable.len()]);
                }
            }
            Event::Kill(thread) => {
                self.kill(self.threads[thread as usize % self.threads.len()].port)
            }
            Event::Part(a, b) => self.part(a % NODES, b % NODES),
            Event::RefuseMemory(after) => {
                self.refused = true;
                refuse_allocation_after(after);
            }
            Event::Forge { at, from, elsewhere, call, kind } => {
                self.forge(at as usize, from as usize, elsewhere, call, kind);
            }
        }
    }

    /// Runs until nothing can go on, then checks that every wait is justified and that nothing
    /// was lost or doubled.
    pub(crate) fn finish(&mut self) {
        crate::model::allow_allocations();
        for turn in 0.. {
            assert!(turn < 1_000_000, "it never comes to rest");
            let runnable = self.runnable();
            if runnable.is_empty() {
                break;
            }
            self.run(runnable[turn % runnable.len()]);
        }
        for thread in 0..self.threads.len() {
            if let Some(open) = self.threads[thread].open {
                self.check_stuck(self.threads[thread].port, open);
            }
        }
        for (port, observed) in self.history.ports.iter().enumerate() {
            let expected = (observed.queue.len() as u32, observed.clients.len() as u32);
            assert_eq!(queues(&self.ports[port]), expected, "queues of {:?}", self.peers[port]);
        }
        self.history.check_transfers();
        // What is queued is really there.
        for thread in 0..self.threads.len() {
            while self.threads[thread].open.is_none() && !self.dead(self.threads[thread].port) {
                self.begin_receive(thread, None, false, None);
            }
        }
    }

    fn dead(&self, port: usize) -> bool {
        self.history.ports[port].dead
    }

    fn bind(&mut self, node: u16) -> usize {
        let port = self.ports.len();
        let endpoint = self.tables[node as usize].bind_any(|_| Ok(port)).expect("a free slot");
        assert_eq!(self.known.insert(endpoint, port), None, "{endpoint} came back");
        self.ports.push(Port::new(endpoint));
        self.peers.push(Peer { endpoint, node });
        self.history.ports.push(history::Observed::default());
        port
    }

    fn check_stuck(&self, port: usize, open: Open) {
        assert!(!open.cancelled, "a cancelled call is stuck");
        if let Some(peer) = open.peer {
            assert!(!self.dead(self.known[&peer.endpoint]), "waits for the dead");
        }
        match (open.number, open.peer) {
            (Some(number), Some(peer)) => {
                let there = &self.history.ports[self.known[&peer.endpoint]];
                let waits = there.queue.contains(&number) || there.clients.contains(&number);
                assert!(waits, "message {number} is stuck on its way");
            }
            _ => {
                assert_eq!(self.history.first(port, open.filter), None, "does not receive");
                assert_eq!(self.history.first_notice(port, open.filter), None);
            }
        }
    }

    fn runnable(&self) -> Vec<Runnable> {
        let threads = (0..self.threads.len()).filter(|index| self.can_go_on(*index));
        let links = self
            .links
            .iter()
            .filter(|(_, link)| !link.queue.is_empty() || !link.records.is_empty());
        let others = (0..self.others.len()).filter(|index| !self.others[*index].is_empty());
        threads
            .map(Runnable::Thread)
            .chain(links.map(|((a, b), _)| Runnable::Link(*a, *b)))
            .chain(others.map(Runnable::Other))
            .collect()
    }

    fn can_go_on(&self, index: usize) -> bool {
        let thread = &self.threads[index];
        if !thread.queue.is_empty() {
            return true;
        }
        match thread.open {
            None => !thread.program.is_empty(),
            Some(open) => {
                self.ports[thread.port].is_done() || (open.patience.is_some() && !open.cancelled)
            }
        }
    }

    fn run(&mut self, runnable: Runnable) {
        let task = match runnable {
            Runnable::Thread(index) => self.threads[index].queue.pop_front(),
            Runnable::Link(a, b) => self.link(a, b).queue.pop_front(),
            Runnable::Other(index) => self.others[index].pop_front(),
        };
        match (task, runnable) {
            (Some(task), _) => {
                let mut follow = Vec::new();
                self.take(task, &mut follow);
                let queue = match runnable {
                    Runnable::Thread(index) => &mut self.threads[index].queue,
                    Runnable::Link(a, b) => &mut self.link(a, b).queue,
                    Runnable::Other(index) => &mut self.others[index],
                };
                for task in follow.into_iter().rev() {
                    queue.push_front(task);
                }
            }
            (None, Runnable::Thread(index)) => self.go_on(index),
            (None, Runnable::Link(a, b)) => self.deliver(a, b),
            (None, Runnable::Other(_)) => {}
        }
    }

    fn link(&mut self, a: u16, b: u16) -> &mut Link {
        self.links.get_mut(&(a, b)).expect("a link")
    }

    fn take(&mut self, task: Task, follow: &mut Vec<Task>) {
        match task {
            Task::Give { from, target: Target::Local(at), to, step } => {
                let Some(answer) = self.apply(at, from, &step) else { return };
                // A notify that fails says so to its caller at once: there is no call to end.
                if let Step::Send { call, .. }
                | Step::Request { call, .. }
                | Step::Watch { call }
                | Step::Cancel { call } = step
                {
                    let me = Peer { endpoint: to, node: from.node };
                    let target = Target::Local(self.known[&from.endpoint]);
                    let step = answer.step(call).expect("an answer");
                    follow.push(Task::Give { from: me, target, to: from.endpoint, step });
                }
            }
            Task::Give { from, target: Target::Remote(node), to, step } => {
                let (low, high) = (from.node.min(node), from.node.max(node));
                if !self.parted.contains(&(low, high)) {
                    self.link(from.node, node).records.push_back((from.endpoint, to, step));
                } else if let Some(call) = call_of(&step) {
                    self.ports[self.known[&from.endpoint]].fail(call, Errno::NodeDown);
                }
            }
            Task::Tell { from, to, step } => {
                let target = if to.node != from.node {
                    Target::Remote(to.node)
                } else {
                    match self.tables[to.node as usize].route(to.endpoint) {
                        Ok(Route::Local(port)) => Target::Local(*port),
                        _ => return,
                    }
                };
                follow.push(Task::Give { from, target, to: to.endpoint, step });
            }
            Task::Bury(port) => {
                let Some(PeerCall { peer, call }) = self.ports[port].next_bereaved() else {
                    return;
                };
                self.history.withdraw(port, peer, call);
                let step = Step::Failed { call, error: Errno::OwnerDead };
                follow.push(Task::Tell { from: self.peers[port], to: peer, step });
                follow.push(Task::Bury(port));
            }
            Task::Abandon(thread) => {
                let port = self.threads[thread].port;
                self.ports[port].abandon();
                self.history.ports[port].handed = None;
                if let Some(number) = self.threads[thread].open.take().and_then(|open| open.number)
                {
                    self.history.sent[number as usize].transfer = Some(Transfer::Unknown);
                }
            }
            Task::NodeDown { port, node } => {
                self.ports[port].node_down(node);
                self.history.node_down(port, node);
            }
            Task::Reunite(a, b) => self.parted.retain(|pair| *pair != (a, b)),
        }
    }

    /// The worker of `b` takes a record from `a`.
    fn deliver(&mut self, a: u16, b: u16) {
        let Some((from, to, step)) = self.link(a, b).records.pop_front() else { return };
        let table = &self.tables[b as usize];
        assert!(table.may_speak(from, a), "{from} may not speak on {a}");
        let at = match table.route(to) {
            Ok(Route::Local(port)) => Ok(*port),
            Ok(Route::Remote(_)) => panic!("a record for {to} came to {b}"),
            Err(error) => Err(error),
        };
        let answer = match at {
            Ok(port) => self.apply(port, Peer { endpoint: from, node: a }, &step),
            Err(error) => {
                assert!(self.dead(self.known[&to]), "{to} is not found, but alive");
                call_of(&step).map(|_| Answer::Failed(error))
            }
        };
        let call = match step {
            Step::Cancel { call } => Some(call),
            _ => call_of(&step),
        };
        if let (Some(answer), Some(call)) = (answer, call) {
            let me = Peer { endpoint: to, node: b };
            let step = answer.step(call).expect("an answer");
            let task = Task::Give { from: me, target: Target::Remote(a), to: from, step };
            self.link(a, b).queue.push_back(task);
        }
    }

    /// Applies a step and checks its effect against what was observed so far.
    fn apply(&mut self, at: usize, from: Peer, step: &Step) -> Option<Answer> {
        let memory_was_low = refusal_is_pending();
        let effect = self.ports[at].apply(from, step);
        let refused = memory_was_low && !refusal_is_pending();
        let (me, dead) = (self.peers[at].endpoint, self.dead(at));
        let failed = match effect.answer {
            Some(Answer::Failed(error)) => {
                assert!(!effect.wake && !effect.readable);
                Some(error)
            }
            _ => None,
        };
        match step {
            Step::Send { message, .. } | Step::Request { message, .. } => {
                let number = number_of(message);
                let mode = self.history.message(number).mode;
                let stale = dead || self.history.supersede(at, from.endpoint);
                match failed {
                    Some(Errno::Stale) => assert!(stale),
                    Some(error) => assert!(refused && error == Errno::NoMemory, "{error}"),
                    None if effect.wake => {
                        assert_eq!(effect.answer.is_some(), mode == Mode::Send);
                        self.history.received(at, me, number);
                        self.hand(at, Handed::Message(number));
                    }
                    None => {
                        assert!(
                            !stale
                                && effect == Effect { wake: false, readable: true, answer: None }
                        );
                        self.history.ports[at].queue.push(number);
                    }
                }
            }
            Step::Reply { message, .. } if effect.wake => {
                self.hand(at, Handed::Reply(number_of(message)));
            }
            Step::Notify { bits } => match failed {
                Some(Errno::Stale) => assert!(dead),
                Some(error) => assert!(refused && error == Errno::NoMemory, "{error}"),
                None if effect.wake => self.hand(at, Handed::Notice(from.endpoint, *bits)),
                None => self.history.notified(at, from.endpoint, *bits),
            },
            Step::Cancel { call } => {
                let there = self.history.withdraw(at, from, *call);
                assert_eq!(effect.answer, there.then_some(Answer::Cancelled));
            }
            Step::Watch { .. } => match failed {
                Some(Errno::Stale) => {}
                Some(error) => assert!(refused && error == Errno::NoMemory, "{error}"),
                None => assert!(!dead),
            },
            _ => assert_eq!(effect.answer, None),
        }
        effect.answer
    }

    fn hand(&mut self, at: usize, what: Handed) {
        let before = self.history.ports[at].handed.replace(what);
        assert_eq!(before, None, "one call got two things");
    }
}
