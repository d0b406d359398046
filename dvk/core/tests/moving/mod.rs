// SPDX-License-Identifier: GPL-2.0 OR MIT
//! A DVS of several nodes in one thread, one of whose servers moves.
//!
//! The shell around the core takes the steps of the kernel's, cut wherever a lock is released. What
//! the kernel does without sleeping between two locks is a *section* here, too: the start of a move
//! waits for the sections of its node that are under way, as the kernel does by RCU.

mod clients;
mod control;
mod server;

use crate::model::{number_of, numbered, TestStorage};
use clients::{Client, Fate, Sent};
use control::Moving;
use dvk_core::abi::errno::Errno;
use dvk_core::abi::wire::record::Step;
use dvk_core::abi::Endpoint;
use dvk_core::migration::Parked;
use dvk_core::port::{Answer, Peer, PeerCall, Port};
use dvk_core::table::{Elsewhere, Lease, Route, Table};
use server::Server;
use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;

pub(crate) const NODES: u16 = 4;
/// The slot of the server that moves.
const SLOT: u32 = 9;

/// One call of a client's program. Patience is counted in turns of the client.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    Send(Option<u8>),
    Request(Option<u8>),
    Notify,
    /// From the server.
    Receive(u8),
    /// `wait_unbind` of the server.
    Watch(u8),
}

/// What happens next.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// The pick-th of those who can go on takes a step.
    Run(u16),
    /// The server is to move to a node.
    Move(u16),
    /// The server begins to move to a node and stays.
    Undo(u16),
    /// A client dies and binds again.
    Kill(u8),
    /// Two nodes lose each other and meet again.
    Part(u16, u16),
}

/// Work of a thread between two locks.
#[derive(Clone, Debug)]
enum Task {
    /// Gives a step to a place that was looked up before.
    Give {
        from: Peer,
        at: Place,
        to: Endpoint,
        step: Step,
    },
    /// Gives a step to a peer that is known.
    Tell {
        from: Peer,
        to: Peer,
        step: Step,
    },
    /// Gives a step to wherever the endpoint is, or keeps it until it has settled.
    GiveOrPark {
        from: Peer,
        parked: Parked,
    },
    /// Gives on what waited for the server.
    Flush {
        node: u16,
    },
    /// One of those who wait at a port that moves away, or moved, is told.
    Return(usize),
    /// The next of those who wait for a dead port is told.
    Bury(usize),
    /// Those at a node who wait for another, which is down, are told, under the table's lock.
    NodeDown {
        at: u16,
        node: u16,
    },
    Reunite(u16, u16),
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Here(usize),
    There(u16),
}

type Queue = VecDeque<Task>;
/// Records on their way: of whom, for whom, what.
type Stream = VecDeque<(Endpoint, Endpoint, Step)>;

/// Who can go on.
#[derive(Clone, Copy, Debug)]
enum Runnable {
    Client(usize),
    Server,
    Link(u16, u16),
    Other(usize),
    Control,
}

pub(crate) struct World {
    ports: Vec<Port<TestStorage>>,
    /// Where each port is.
    peers: Vec<Peer>,
    /// Ports of clients by endpoint.
    known: BTreeMap<Endpoint, usize>,
    tables: Vec<Table<usize, TestStorage>>,
    links: BTreeMap<(u16, u16), Stream>,
    parted: Vec<(u16, u16)>,
    /// A link broke at some time.
    broken: bool,
    /// Work of nobody in particular: ends of endpoints, of moves and of links.
    others: Vec<(u16, Queue)>,
    clients: Vec<Client>,
    server: Server,
    moving: Option<Moving>,
    /// Fences that were not answered: at which node, by which.
    fences: Vec<(u16, u16, u32)>,
    epoch: u32,
    sent: Vec<Sent>,
}

impl World {
    /// Clients with these programs, spread over the nodes; the server is on node 0.
    pub(crate) fn new(programs: Vec<Vec<Order>>) -> Self {
        let tables = (0..NODES).map(|local| {
            let mut table = Table::new(local, 0);
            for node in 0..NODES {
                let first_slot = 64 + u32::from(node) * 32;
                let first_generation = NonZeroU32::MIN;
                let lease = Lease { node, first_slot, slots: 32, first_generation };
                table.lease(lease).expect("lease");
            }
            table
        });
        let pairs = (0..NODES).flat_map(|a| (0..NODES).map(move |b| (a, b)));
        let mut world = Self {
            ports: Vec::new(),
            peers: Vec::new(),
            known: BTreeMap::new(),
            tables: tables.collect(),
            links: pairs.filter(|(a, b)| a != b).map(|pair| (pair, VecDeque::new())).collect(),
            parted: Vec::new(),
            broken: false,
            others: Vec::new(),
            clients: Vec::new(),
            server: Server::default(),
            moving: None,
            fences: Vec::new(),
            epoch: 0,
            sent: Vec::new(),
        };
        let endpoint = world.tables[0].bind_server(SLOT, |_| Ok(0)).expect("a free slot");
        world.add(Port::new(endpoint), Peer { endpoint, node: 0 });
        for node in 1..NODES {
            world.tables[node as usize].set_remote(endpoint, 0, false).expect("a server");
        }
        world.server.endpoint = Some(endpoint);
        for (number, program) in programs.into_iter().enumerate() {
            let port = world.bind(number as u16 % NODES);
            world.clients.push(Client::new(port, program));
        }
        world
    }

    fn add(&mut self, port: Port<TestStorage>, peer: Peer) -> usize {
        self.ports.push(port);
        self.peers.push(peer);
        self.ports.len() - 1
    }

    fn bind(&mut self, node: u16) -> usize {
        let at = self.ports.len();
        let endpoint = self.tables[node as usize].bind_any(|_| Ok(at)).expect("a free slot");
        assert_eq!(self.known.insert(endpoint, at), None, "{endpoint} came back");
        self.add(Port::new(endpoint), Peer { endpoint, node })
    }

    /// The endpoint that moves.
    fn endpoint(&self) -> Endpoint {
        self.server.endpoint.expect("a server")
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
            Event::Move(to) => self.start_move(to, true),
            Event::Undo(to) => self.start_move(to, false),
            Event::Kill(client) => self.kill(client as usize % self.clients.len()),
            Event::Part(a, b) => self.part(a, b),
        }
    }

    /// Runs until nothing can go on, and checks what came of everything.
    pub(crate) fn finish(&mut self) {
        for turn in 0.. {
            assert!(turn < 200_000, "it never comes to rest: {:?}", self.moving);
            let runnable = self.runnable();
            if runnable.is_empty() {
                break;
            }
            self.run(runnable[turn % runnable.len()]);
        }
        assert!(self.moving.is_none(), "a move is stuck: {:?}", self.moving);
        for client in &self.clients {
            assert!(client.is_over(), "a call is stuck: {client:?}");
        }
        for table in &self.tables {
            assert_eq!(table.parked(), 0, "steps wait for nothing");
        }
        self.check();
    }

    fn runnable(&self) -> Vec<Runnable> {
        let clients = (0..self.clients.len()).filter(|at| self.client_can_go_on(*at));
        let links = self.links.iter().filter(|(_, link)| !link.is_empty());
        let others = (0..self.others.len()).filter(|at| !self.others[*at].1.is_empty());
        let mut runnable: Vec<_> = clients
            .map(Runnable::Client)
            .chain(links.map(|((a, b), _)| Runnable::Link(*a, *b)))
            .chain(others.map(Runnable::Other))
            .collect();
        if self.server_can_go_on() {
            runnable.push(Runnable::Server);
        }
        if self.control_can_go_on() {
            runnable.push(Runnable::Control);
        }
        runnable
    }

    fn run(&mut self, runnable: Runnable) {
        match runnable {
            Runnable::Client(at) => match self.clients[at].section.pop_front() {
                Some(task) => {
                    let follow = self.take(task);
                    follow.into_iter().rev().for_each(|t| self.clients[at].section.push_front(t));
                }
                None => self.client_goes_on(at),
            },
            Runnable::Server => match self.server.section.pop_front() {
                Some(task) => {
                    let follow = self.take(task);
                    follow.into_iter().rev().for_each(|t| self.server.section.push_front(t));
                }
                None => self.server_goes_on(),
            },
            Runnable::Other(at) => {
                if let Some(task) = self.others[at].1.pop_front() {
                    let follow = self.take(task);
                    follow.into_iter().rev().for_each(|t| self.others[at].1.push_front(t));
                }
            }
            Runnable::Link(a, b) => self.deliver(a, b),
            Runnable::Control => self.control_goes_on(),
        }
    }

    /// Whether a section of `node` is under way.
    fn in_section(&self, node: u16) -> Vec<usize> {
        let clients = self.clients.iter().enumerate().filter(|(_, client)| {
            !client.section.is_empty() && self.peers[client.port].node == node
        });
        let mut busy: Vec<_> = clients.map(|(at, _)| at).collect();
        if !self.server.section.is_empty() && self.peers[self.server.port].node == node {
            busy.push(usize::MAX);
        }
        busy
    }

    fn look_up(&self, node: u16, to: Endpoint) -> Result<Place, Errno> {
        self.tables[node as usize].route(to).map(|route| match route {
            Route::Local(port) => Place::Here(*port),
            Route::Remote(node) => Place::There(node),
        })
    }

    /// Does a piece of work and says what follows at once.
    fn take(&mut self, task: Task) -> Vec<Task> {
        match task {
            Task::Give { from, at: Place::Here(port), to, step } => {
                let effect = self.ports[port].apply(from, &step);
                match effect.answer {
                    None => vec![],
                    Some(Answer::Returned) => {
                        let parked = Parked::of(from.endpoint, to, &step).expect("it waits");
                        vec![Task::GiveOrPark { from, parked }]
                    }
                    Some(Answer::Failed(Errno::Stale)) if matches!(step, Step::Notify { .. }) => {
                        vec![]
                    }
                    Some(answer) => {
                        let me = Peer { endpoint: to, node: from.node };
                        let step = answer.step(step.call()).expect("it is not returned");
                        match self.port_of(from) {
                            Some(port) => {
                                let (at, to) = (Place::Here(port), from.endpoint);
                                vec![Task::Give { from: me, at, to, step }]
                            }
                            None => vec![],
                        }
                    }
                }
            }
            Task::Give { from, at: Place::There(node), to, step } => {
                self.submit(from, node, to, step);
                vec![]
            }
            Task::Tell { from, to, step } => {
                let at = if to.node == from.node {
                    match self.tables[to.node as usize].receiver(to.endpoint) {
                        Ok(port) => Place::Here(*port),
                        Err(Elsewhere::Moved { .. }) => {
                            let parked = Parked::of(from.endpoint, to.endpoint, &step);
                            return parked
                                .map(|parked| Task::GiveOrPark { from, parked })
                                .into_iter()
                                .collect();
                        }
                        Err(_) => return vec![],
                    }
                } else {
                    Place::There(to.node)
                };
                vec![Task::Give { from, at, to: to.endpoint, step }]
            }
            Task::GiveOrPark { from, parked } => {
                match self.tables[from.node as usize].park(parked) {
                    Ok(true) => vec![],
                    Ok(false) => match self.look_up(from.node, parked.to) {
                        Ok(at) => {
                            vec![Task::Give { from, at, to: parked.to, step: parked.step() }]
                        }
                        Err(Errno::Moved) => {
                            vec![Task::GiveOrPark { from, parked }]
                        }
                        Err(_) => vec![],
                    },
                    Err(error) => {
                        assert_eq!(error, Errno::Stale);
                        vec![]
                    }
                }
            }
            Task::Flush { node } => match self.tables[node as usize].next_parked() {
                Some(parked) => {
                    let from = Peer { endpoint: parked.from, node };
                    let give = Task::GiveOrPark { from, parked };
                    vec![give, Task::Flush { node }]
                }
                None => vec![],
            },
            Task::Return(port) => match self.ports[port].next_returned() {
                Some(PeerCall { peer, call }) => {
                    let step = Step::Failed { call, error: Errno::Moved };
                    let tell = Task::Tell { from: self.peers[port], to: peer, step };
                    vec![tell, Task::Return(port)]
                }
                None => vec![],
            },
            Task::Bury(port) => match self.ports[port].next_bereaved() {
                Some(PeerCall { peer, call }) => {
                    let step = Step::Failed { call, error: Errno::OwnerDead };
                    let tell = Task::Tell { from: self.peers[port], to: peer, step };
                    vec![tell, Task::Bury(port)]
                }
                None => vec![],
            },
            Task::NodeDown { at, node } => {
                for (port, peer) in self.ports.iter_mut().zip(&self.peers) {
                    if peer.node == at {
                        port.node_down(node);
                    }
                }
                // Nothing is on its way any more, and nobody waits for it.
                self.fences.retain(|(waits, by, _)| (*waits, *by) != (at, node));
                vec![]
            }
            Task::Reunite(a, b) => {
                self.parted.retain(|pair| *pair != (a, b));
                vec![]
            }
        }
    }

    fn submit(&mut self, from: Peer, node: u16, to: Endpoint, step: Step) {
        let pair = (from.node.min(node), from.node.max(node));
        if !self.parted.contains(&pair) {
            let link = self.links.get_mut(&(from.node, node)).expect("a link");
            link.push_back((from.endpoint, to, step));
        } else if step.begins() && !matches!(step, Step::Notify { .. }) {
            if let Some(port) = self.port_of(from) {
                self.ports[port].fail(step.call(), Errno::NodeDown);
            }
        }
    }

    /// The port of an endpoint at a node, whatever its stage.
    fn port_of(&self, peer: Peer) -> Option<usize> {
        self.peers.iter().rposition(|known| *known == peer)
    }

    /// Node `b` takes a record from `a`, and answers it, all under the lock of the link.
    fn deliver(&mut self, a: u16, b: u16) {
        let link = self.links.get_mut(&(a, b)).expect("a link");
        let Some((from, to, step)) = link.pop_front() else { return };
        let peer = Peer { endpoint: from, node: a };
        let answer =
            |world: &mut Self, step| world.submit(Peer { endpoint: to, node: b }, a, from, step);
        match step {
            Step::Fence { call } => return answer(self, Step::Fenced { call }),
            Step::Fenced { call } => return self.fences.retain(|fence| *fence != (b, a, call)),
            Step::Returned { call, bits, epoch } => {
                assert_eq!(from, self.endpoint());
                let parked = Parked::returned(to, from, call, bits, epoch);
                let from = Peer { endpoint: to, node: b };
                let task = Task::GiveOrPark { from, parked };
                return self.others.push((b, Queue::from([task])));
            }
            _ => {}
        }
        let table = &self.tables[b as usize];
        assert!(
            !step.begins() || table.may_speak(from, a),
            "{from} speaks at {b} from {a}: {step:?}"
        );
        let returned = |epoch| match step {
            Step::Notify { bits } => Some(Step::Returned { call: 0, bits, epoch }),
            Step::Cancel { call } => Some(Step::Returned { call, bits: 0, epoch }),
            _ => None,
        };
        let reply = match table.receiver(to) {
            Ok(port) => {
                let port = *port;
                match self.ports[port].apply(peer, &step).answer {
                    Some(Answer::Returned) => returned(self.tables[b as usize].epoch(to)),
                    Some(_) if matches!(step, Step::Notify { .. }) => None,
                    Some(answer) => answer.step(step.call()),
                    None => None,
                }
            }
            Err(Elsewhere::Moved { epoch }) => match step {
                Step::Notify { .. } | Step::Cancel { .. } => returned(epoch),
                _ if step.begins() => Answer::Failed(Errno::Moved).step(step.call()),
                _ => None,
            },
            Err(Elsewhere::Not(error)) => match step {
                Step::Notify { .. } => None,
                _ if step.begins() => Answer::Failed(error).step(step.call()),
                _ => None,
            },
        };
        if let Some(step) = reply {
            answer(self, step);
        }
    }

    /// The link between two nodes breaks, both tell who waits, and it comes back.
    fn part(&mut self, a: u16, b: u16) {
        let (low, high) = (a.min(b), a.max(b));
        if low == high || self.parted.contains(&(low, high)) {
            return;
        }
        self.broken = true;
        self.parted.push((low, high));
        let mut queue = Queue::new();
        for (from, to) in [(low, high), (high, low)] {
            self.links.get_mut(&(from, to)).expect("a link").clear();
            queue.push_back(Task::NodeDown { at: from, node: to });
        }
        queue.push_back(Task::Reunite(low, high));
        self.others.push((low, queue));
    }

    /// What all clients and the server saw, taken together.
    fn check(&self) {
        for (number, sent) in self.sent.iter().enumerate() {
            let received = self.server.log.iter().filter(|known| **known == number as u64).count();
            match sent.fate.expect("every call is over") {
                Fate::Done => assert_eq!(received, 1, "message {number} {sent:?}"),
                Fate::Never => assert_eq!(received, 0, "message {number} {sent:?}"),
                // Withdrawn requests may have been received, but were not answered.
                Fate::Unanswered | Fate::Unknown => assert!(received <= 1, "message {number}"),
            }
        }
        for client in &self.clients {
            let of = |number: &&u64| client.endpoints.contains(&self.sent[**number as usize].from);
            let numbers: Vec<_> = self.server.log.iter().filter(of).collect();
            assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "reordered: {numbers:?}");
        }
        for (source, bits) in &self.server.notified {
            let sent = self.server.expected.get(source).copied().unwrap_or_default();
            assert_eq!(bits & !sent, 0, "invented notifications of {source}");
        }
        if !self.broken {
            assert_eq!(self.server.notified, self.server.expected, "notifications were lost");
        }
    }
}

/// The number of the message that a call sends.
fn message(number: u64) -> dvk_core::abi::Message {
    numbered(number)
}

fn number(message: &dvk_core::abi::Message) -> u64 {
    number_of(message)
}
