// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The server that moves: a process on one node at a time, whose memory goes with it.

use super::{number, Queue, Task, World};
use crate::model::numbered;
use dvk_core::abi::errno::Errno;
use dvk_core::abi::ioctl::{HOW_NOTIFY, HOW_REQUEST};
use dvk_core::abi::wire::record::Step;
use dvk_core::abi::Endpoint;
use dvk_core::port::{Cancel, Filter, Mode, Outcome, Peer, Receive};
use std::collections::{BTreeMap, BTreeSet};

/// What the server sends of its own accord says this.
const GREETING: u64 = 1 << 40;

#[derive(Debug, Default)]
pub(super) struct Server {
    pub(super) endpoint: Option<Endpoint>,
    /// The port that its process has.
    pub(super) port: usize,
    /// The port that it had before it was taken over by another process.
    pub(super) previous: Option<usize>,
    pub(super) section: Queue,
    /// Whether a call is open, and for how many turns at most.
    open: Option<Option<u8>>,
    cancelled: bool,
    /// Requests that were not answered: of whom, and which.
    pending: Vec<(Endpoint, u64)>,
    /// All messages that were received, in order.
    pub(super) log: Vec<u64>,
    pub(super) replied: BTreeSet<u64>,
    pub(super) notified: BTreeMap<Endpoint, u64>,
    pub(super) expected: BTreeMap<Endpoint, u64>,
    turn: usize,
}

impl World {
    /// Whether the server's process knows that it is to move, and has nothing under way.
    pub(super) fn server_rests(&self) -> bool {
        let server = &self.server;
        server.section.is_empty()
            && server.open.is_none()
            && self.ports[server.port].is_moving()
            && !self.ports[server.port].is_adopted()
    }

    pub(super) fn server_can_go_on(&self) -> bool {
        let server = &self.server;
        if !server.section.is_empty() {
            return true;
        }
        match server.open {
            Some(patience) => {
                self.ports[server.port].is_done() || patience.is_some() && !server.cancelled
            }
            None => !self.server_rests(),
        }
    }

    pub(super) fn server_goes_on(&mut self) {
        let port = self.server.port;
        if let Some(patience) = self.server.open {
            if let Some(outcome) = self.ports[port].collect() {
                return self.server_call_over(outcome);
            }
            match patience {
                Some(0) => match self.ports[port].cancel(Errno::TimedOut) {
                    Cancel::Over(outcome) => self.server_call_over(outcome),
                    Cancel::Ask(call) => {
                        self.server.cancelled = true;
                        let step = Step::Cancel { call: call.call };
                        let tell = Task::Tell { from: self.peers[port], to: call.peer, step };
                        self.server.section.push_back(tell);
                    }
                    Cancel::Nothing => panic!("the open call is gone"),
                },
                Some(left) => self.server.open = Some(Some(left - 1)),
                None => {}
            }
            return;
        }
        if self.ports[port].is_dead() {
            // The move was undone: the process that had it goes on.
            self.server.port = self.server.previous.take().expect("it was taken over");
            return;
        }
        self.server.turn += 1;
        let turn = self.server.turn;
        let pending = self.server.pending.len();
        let alive: Vec<_> = self.clients.iter().map(|client| client.port).collect();
        let somebody = self.peers[alive[turn % alive.len()]];
        // Until it has settled, a process that took the server over can only receive.
        let arriving = self.ports[port].is_adopted();
        if arriving {
            self.server_receives(false, (pending > 0).then_some(3));
        } else if turn % 3 == 0 && pending > 0 {
            let (to, number) = self.server.pending.remove(turn / 3 % pending);
            self.server_replies(to, number);
        } else if turn % 11 == 5 {
            self.server_sends(somebody);
        } else if turn % 13 == 7 {
            let (from, to) = (self.peers[port], somebody.endpoint);
            self.ports[port].check_speaks().expect("it has settled");
            if let Ok(at) = self.look_up(from.node, to) {
                let step = Step::Notify { bits: 1 };
                self.server.section.push_back(Task::Give { from, at, to, step });
            }
        } else {
            let patience = (pending > 0).then_some(3);
            self.server_receives(turn % 5 == 2 && pending > 0, patience);
        }
    }

    fn server_receives(&mut self, requests_only: bool, patience: Option<u8>) {
        let port = self.server.port;
        match self.ports[port].begin_receive(Filter { from: None, requests_only }) {
            Ok(Receive::Wait { .. }) => self.server.open = Some(patience),
            Ok(Receive::Done { how, accepted }) => {
                if let Some(call) = accepted {
                    let step = Step::Accepted { call: call.call };
                    let tell = Task::Tell { from: self.peers[port], to: call.peer, step };
                    self.server.section.push_back(tell);
                }
                self.server_received(how);
            }
            Err(error) => panic!("receive: {error}"),
        }
    }

    fn server_received(&mut self, how: u32) {
        let message = *self.ports[self.server.port].message();
        let source = message.source();
        if how == HOW_NOTIFY {
            let bits = message.notify_bits().expect("bits");
            *self.server.notified.entry(source).or_default() |= bits;
            return;
        }
        let number = number(&message);
        assert_eq!(self.sent[number as usize].from, source);
        self.server.log.push(number);
        if how == HOW_REQUEST {
            // Who asks anew does not wait for an earlier answer any more.
            self.server.pending.retain(|(client, _)| *client != source);
            self.server.pending.push((source, number));
        }
    }

    fn server_replies(&mut self, to: Endpoint, number: u64) {
        let port = self.server.port;
        match self.ports[port].reply(to) {
            Ok(call) => {
                self.server.replied.insert(number);
                let step = Step::Reply { call: call.call, message: numbered(number) };
                let tell = Task::Tell { from: self.peers[port], to: call.peer, step };
                self.server.section.push_back(tell);
            }
            // The client gave up.
            Err(Errno::WouldBlock) => {}
            Err(error) => panic!("reply: {error}"),
        }
    }

    fn server_sends(&mut self, to: Peer) {
        let port = self.server.port;
        let from = self.peers[port];
        let Ok(at) = self.look_up(from.node, to.endpoint) else { return };
        let call = self.ports[port].begin_send(to, Mode::Send).expect("it has settled");
        let step = Mode::Send.step(call, &numbered(GREETING));
        self.server.open = Some(Some(6));
        self.server.section.push_back(Task::Give { from, at, to: to.endpoint, step });
    }

    fn server_call_over(&mut self, outcome: Outcome) {
        self.server.open = None;
        self.server.cancelled = false;
        match outcome {
            Outcome::Received { how } => self.server_received(how),
            Outcome::Failed(Errno::NodeDown) => assert!(self.broken),
            Outcome::Sent
            | Outcome::Failed(Errno::TimedOut | Errno::Busy | Errno::Stale | Errno::OwnerDead) => {}
            other => panic!("a call of the server ended with {other:?}"),
        }
    }
}
