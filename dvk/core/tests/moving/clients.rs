// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The clients of the server that moves: their calls are made anew where the kernel's are.

use super::{message, number, Order, Place, Queue, Task, World};
use dvk_core::abi::errno::Errno;
use dvk_core::abi::ioctl::HOW_REPLY;
use dvk_core::abi::wire::record::Step;
use dvk_core::abi::Endpoint;
use dvk_core::migration::Parked;
use dvk_core::port::{Cancel, Filter, Mode, Outcome, Peer, Receive};
use std::collections::VecDeque;

/// What the outcome of a call says about its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It was received, and a request answered.
    Done,
    /// It was not received.
    Never,
    /// It was not answered.
    Unanswered,
    /// The caller died, or the link broke.
    Unknown,
}

/// A message; its number is its index.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) from: Endpoint,
    pub(super) mode: Mode,
    pub(super) fate: Option<Fate>,
}

/// What a client's thread is doing.
#[derive(Clone, Copy, Debug)]
enum Doing {
    /// It is about to try its call.
    Trying,
    /// Its port has the call open.
    Open { cancelled: bool },
    /// The server moves.
    Waiting,
}

#[derive(Clone, Copy, Debug)]
struct Current {
    order: Order,
    /// Of a `send` or `sendrec`.
    number: Option<u64>,
    patience: Option<u8>,
    /// Settlements before the last try, once one has failed.
    seen: Option<u64>,
    doing: Doing,
}

#[derive(Debug)]
pub(super) struct Client {
    pub(super) port: usize,
    /// All that it had.
    pub(super) endpoints: Vec<Endpoint>,
    program: VecDeque<Order>,
    current: Option<Current>,
    pub(super) section: Queue,
    /// Notifications that it sent.
    notifications: u32,
}

impl Client {
    pub(super) fn new(port: usize, program: Vec<Order>) -> Self {
        Self {
            port,
            endpoints: Vec::new(),
            program: program.into(),
            current: None,
            section: Queue::new(),
            notifications: 0,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.current.is_none() && self.program.is_empty() && self.section.is_empty()
    }
}

impl World {
    pub(super) fn client_can_go_on(&self, at: usize) -> bool {
        let client = &self.clients[at];
        let Some(current) = client.current.filter(|_| client.section.is_empty()) else {
            return !client.section.is_empty() || !client.program.is_empty();
        };
        match current.doing {
            Doing::Trying => true,
            Doing::Open { cancelled } => {
                self.ports[client.port].is_done() || current.patience.is_some() && !cancelled
            }
            Doing::Waiting => self.may_retry(at, &current) || current.patience.is_some(),
        }
    }

    fn node_of(&self, client: usize) -> u16 {
        self.peers[self.clients[client].port].node
    }

    fn may_retry(&self, at: usize, current: &Current) -> bool {
        let table = &self.tables[self.node_of(at) as usize];
        table.may_retry(self.endpoint(), current.seen.expect("it was tried"))
    }

    pub(super) fn client_goes_on(&mut self, at: usize) {
        let port = self.clients[at].port;
        let Some(mut current) = self.clients[at].current else {
            let me = self.peers[port].endpoint;
            if self.clients[at].endpoints.last() != Some(&me) {
                self.clients[at].endpoints.push(me);
            }
            let Some(order) = self.clients[at].program.pop_front() else { return };
            return self.begin(at, order);
        };
        match current.doing {
            Doing::Trying => self.attempt(at, current),
            Doing::Open { cancelled } => {
                if let Some(outcome) = self.ports[port].collect() {
                    return self.over(at, current, outcome);
                }
                match current.patience {
                    Some(0) if !cancelled => match self.ports[port].cancel(Errno::TimedOut) {
                        Cancel::Over(outcome) => self.over(at, current, outcome),
                        Cancel::Ask(call) => {
                            let step = Step::Cancel { call: call.call };
                            let from = self.peers[port];
                            let tell = Task::Tell { from, to: call.peer, step };
                            self.clients[at].section.push_back(tell);
                            current.doing = Doing::Open { cancelled: true };
                            self.clients[at].current = Some(current);
                        }
                        Cancel::Nothing => panic!("the open call is gone"),
                    },
                    _ => self.lose_patience(at, current),
                }
            }
            Doing::Waiting if self.may_retry(at, &current) => {
                let table = &self.tables[self.node_of(at) as usize];
                current.seen = Some(table.settlements());
                self.attempt(at, current);
            }
            Doing::Waiting if current.patience == Some(0) => {
                self.over(at, current, Outcome::Failed(Errno::TimedOut));
            }
            Doing::Waiting => self.lose_patience(at, current),
        }
    }

    fn lose_patience(&mut self, at: usize, mut current: Current) {
        current.patience = current.patience.map(|left| left.saturating_sub(1));
        self.clients[at].current = Some(current);
    }

    fn begin(&mut self, at: usize, order: Order) {
        let (mode, patience) = match order {
            Order::Send(patience) => (Some(Mode::Send), patience),
            Order::Request(patience) => (Some(Mode::Request), patience),
            Order::Notify => return self.notify(at),
            Order::Receive(patience) | Order::Watch(patience) => (None, Some(patience)),
        };
        let number = mode.map(|mode| {
            let from = self.peers[self.clients[at].port].endpoint;
            self.sent.push(Sent { from, mode, fate: None });
            self.sent.len() as u64 - 1
        });
        let current = Current { order, number, patience, seen: None, doing: Doing::Trying };
        self.clients[at].current = Some(current);
    }

    fn notify(&mut self, at: usize) {
        let from = self.peers[self.clients[at].port];
        let bits = 1 << (self.clients[at].notifications % 64);
        self.clients[at].notifications += 1;
        *self.server.expected.entry(from.endpoint).or_default() |= bits;
        let (to, step) = (self.endpoint(), Step::Notify { bits });
        let task = match self.look_up(from.node, to) {
            Ok(place) => Task::Give { from, at: place, to, step },
            Err(Errno::Moved) => {
                let parked = Parked::of(from.endpoint, to, &step).expect("it waits");
                Task::GiveOrPark { from, parked }
            }
            Err(error) => panic!("notify: {error}"),
        };
        self.clients[at].section.push_back(task);
    }

    /// Tries a call: all of it is one section, of which only the first lock is taken here.
    fn attempt(&mut self, at: usize, mut current: Current) {
        let port = self.clients[at].port;
        let (from, to) = (self.peers[port], self.endpoint());
        let place = match self.look_up(from.node, to) {
            Ok(place) => place,
            Err(Errno::Moved) => return self.moved(at, current),
            Err(error) => return self.over(at, current, Outcome::Failed(error)),
        };
        let node = match place {
            Place::Here(_) => from.node,
            Place::There(node) => node,
        };
        let peer = Peer { endpoint: to, node };
        let mode = match current.order {
            Order::Send(_) => Some(Mode::Send),
            Order::Request(_) => Some(Mode::Request),
            _ => None,
        };
        let step = match (mode, current.order) {
            (Some(mode), _) => {
                let call = self.ports[port].begin_send(peer, mode).expect("a free port");
                mode.step(call, &message(current.number.expect("a number")))
            }
            (None, Order::Watch(_)) => {
                let call = self.ports[port].begin_wait_unbind(peer).expect("a free port");
                Step::Watch { call }
            }
            (None, _) => {
                let filter = Filter { from: Some(peer), requests_only: false };
                match self.ports[port].begin_receive(filter).expect("a free port") {
                    Receive::Wait { call } => Step::Watch { call },
                    Receive::Done { accepted, .. } => {
                        self.clients[at].current = None;
                        if let Some(call) = accepted {
                            let step = Step::Accepted { call: call.call };
                            let tell = Task::Tell { from, to: call.peer, step };
                            self.clients[at].section.push_back(tell);
                        }
                        return;
                    }
                }
            }
        };
        current.doing = Doing::Open { cancelled: false };
        self.clients[at].current = Some(current);
        self.clients[at].section.push_back(Task::Give { from, at: place, to, step });
    }

    /// The server is on the move: the call is tried again, at once for the first time.
    fn moved(&mut self, at: usize, mut current: Current) {
        let table = &self.tables[self.node_of(at) as usize];
        (current.seen, current.doing) = match current.seen {
            None => (Some(table.settlements()), Doing::Trying),
            seen => (seen, Doing::Waiting),
        };
        self.clients[at].current = Some(current);
    }

    fn over(&mut self, at: usize, current: Current, outcome: Outcome) {
        if outcome == Outcome::Failed(Errno::Moved) {
            assert!(!matches!(current.doing, Doing::Open { cancelled: true }));
            return self.moved(at, current);
        }
        self.clients[at].current = None;
        let Some(number_sent) = current.number else {
            match outcome {
                Outcome::Failed(Errno::TimedOut) | Outcome::Received { .. } => {}
                Outcome::Failed(Errno::NodeDown) => assert!(self.broken),
                other => panic!("{:?} ended with {other:?}", current.order),
            }
            return;
        };
        let sent = &mut self.sent[number_sent as usize];
        assert_eq!(sent.fate, None, "a call ended twice");
        sent.fate = Some(match outcome {
            Outcome::Sent => Fate::Done,
            Outcome::Received { how } => {
                assert_eq!(how, HOW_REPLY);
                let reply = self.ports[self.clients[at].port].message();
                assert_eq!(reply.source(), self.server.endpoint.expect("a server"));
                assert_eq!(number(reply), number_sent, "the reply to another request");
                Fate::Done
            }
            Outcome::Failed(Errno::TimedOut) if sent.mode == Mode::Send => Fate::Never,
            Outcome::Failed(Errno::TimedOut) => {
                assert!(!self.server.replied.contains(&number_sent) || self.broken);
                Fate::Unanswered
            }
            Outcome::Failed(Errno::NodeDown) => {
                assert!(self.broken, "a call failed without reason");
                Fate::Unknown
            }
            other => panic!("{:?} ended with {other:?}", current.order),
        });
    }

    /// The client's process dies; another one takes its place.
    pub(super) fn kill(&mut self, at: usize) {
        if !self.clients[at].section.is_empty() {
            return;
        }
        let port = self.clients[at].port;
        let me = self.peers[port];
        if let Some(number) = self.clients[at].current.take().and_then(|current| current.number) {
            self.sent[number as usize].fate = Some(Fate::Unknown);
        }
        assert_eq!(self.tables[me.node as usize].unbind(me.endpoint, |p| *p == port), Some(port));
        let (_, open) = self.ports[port].kill();
        let mut queue = Queue::new();
        if let Some(call) = open {
            let step = Step::Cancel { call: call.call };
            queue.push_back(Task::Tell { from: me, to: call.peer, step });
        }
        queue.push_back(Task::Bury(port));
        self.others.push((me.node, queue));
        self.clients[at].port = self.bind(me.node);
    }
}
