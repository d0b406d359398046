// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The calls of simulated threads, and what they check when a call is over.

use super::history::{Handed, Sent};
use super::{Call, Open, Simulation, Target, Task};
use crate::model::{numbered, refusal_is_pending};
use dvk_core::abi::errno::Errno;
use dvk_core::abi::wire::record::Step;
use dvk_core::abi::{Endpoint, Message};
use dvk_core::port::{Cancel, Filter, Mode, Outcome, PeerCall, Receive};
use dvk_core::table::Route;

impl Simulation {
    pub(super) fn go_on(&mut self, index: usize) {
        let port = self.threads[index].port;
        if let Some(open) = self.threads[index].open {
            if let Some(outcome) = self.ports[port].collect() {
                self.threads[index].open = None;
                return self.check_outcome(port, open, outcome);
            }
            return self.wait(index, open);
        }
        if self.dead(port) {
            self.threads[index].port = self.bind(self.peers[port].node);
            return;
        }
        match self.threads[index].program.pop_front() {
            None => {}
            Some(Call::Send { to, mode, patience, abandon }) => {
                self.begin_send(index, to, mode, patience, abandon);
            }
            Some(Call::Receive { from, requests_only, patience }) => {
                self.begin_receive(index, from, requests_only, patience);
            }
            Some(Call::Reply { to, anybody }) => self.reply(index, to, anybody),
            Some(Call::Notify { to, bits }) => {
                let to = self.peers[to as usize % self.peers.len()].endpoint;
                if let Ok(target) = self.route(port, to) {
                    self.ports[port].count_notify();
                    let (from, step) = (self.peers[port], Step::Notify { bits });
                    self.threads[index].queue.push_back(Task::Give { from, target, to, step });
                }
            }
        }
    }

    pub(super) fn wait(&mut self, index: usize, open: Open) {
        let port = self.threads[index].port;
        match open.patience {
            Some(0) if !open.cancelled => match self.ports[port].cancel(Errno::TimedOut) {
                Cancel::Over(outcome) => {
                    self.threads[index].open = None;
                    self.check_outcome(port, open, outcome);
                }
                Cancel::Nothing => panic!("the open call is gone"),
                Cancel::Ask(PeerCall { peer, call }) => {
                    assert_eq!((Some(peer), call), (open.peer, open.call));
                    self.threads[index].open = Some(Open { cancelled: true, ..open });
                    let (from, step) = (self.peers[port], Step::Cancel { call });
                    self.threads[index].queue.push_back(Task::Tell { from, to: peer, step });
                    if open.abandon {
                        self.threads[index].queue.push_back(Task::Abandon(index));
                    }
                }
            },
            Some(left) if !open.cancelled => {
                self.threads[index].open = Some(Open { patience: Some(left - 1), ..open });
            }
            _ => {}
        }
    }

    pub(super) fn route(&self, port: usize, to: Endpoint) -> Result<Target, Errno> {
        match self.tables[self.peers[port].node as usize].route(to) {
            Ok(Route::Local(port)) => Ok(Target::Local(*port)),
            Ok(Route::Remote(node)) => Ok(Target::Remote(node)),
            Err(error) => {
                assert!(self.dead(self.known[&to]), "{to} is not found, but alive");
                Err(error)
            }
        }
    }

    pub(super) fn begin_send(
        &mut self,
        index: usize,
        to: u8,
        mode: Mode,
        patience: Option<u8>,
        abandon: bool,
    ) {
        let port = self.threads[index].port;
        let peer = self.peers[to as usize % self.peers.len()];
        let Ok(target) = self.route(port, peer.endpoint) else { return };
        let call = match self.ports[port].begin_send(peer, mode) {
            Ok(call) => call,
            Err(error) => {
                assert_eq!((error, peer), (Errno::Deadlock, self.peers[port]));
                return;
            }
        };
        let number = self.history.sent.len() as u64;
        let from = self.peers[port];
        self.history.sent.push(Sent {
            from,
            to: peer.endpoint,
            mode,
            call,
            received: 0,
            replies: 0,
            transfer: None,
        });
        let message = numbered(number);
        let step = match mode {
            Mode::Send => Step::Send { call, message },
            Mode::Request => Step::Request { call, message },
        };
        let thread = &mut self.threads[index];
        thread.queue.push_back(Task::Give { from, target, to: peer.endpoint, step });
        thread.open = Some(Open {
            call,
            number: Some(number),
            filter: Filter { from: None, requests_only: false },
            peer: Some(peer),
            patience,
            abandon,
            cancelled: false,
        });
    }

    pub(super) fn begin_receive(
        &mut self,
        index: usize,
        from: Option<u8>,
        requests_only: bool,
        patience: Option<u8>,
    ) {
        let port = self.threads[index].port;
        let peer = from.map(|from| self.peers[from as usize % self.peers.len()]);
        let target = match peer.map(|peer| self.route(port, peer.endpoint)) {
            Some(Err(_)) => return,
            Some(Ok(target)) => Some(target),
            None => None,
        };
        let filter = Filter { from: peer, requests_only };
        let (notice, first) =
            (self.history.first_notice(port, filter), self.history.first(port, filter));
        let memory_was_low = refusal_is_pending();
        match self.ports[port].begin_receive(filter) {
            Ok(Receive::Done { how, accepted }) => {
                let message = *self.ports[port].message();
                match notice {
                    Some((source, bits)) => {
                        self.history.ports[port].notices.retain(|notice| notice.0 != source);
                        self.hand(port, Handed::Notice(source, bits));
                        assert_eq!(accepted, None);
                    }
                    None => {
                        let number = first.expect("nothing was there to receive");
                        self.history.received(port, self.peers[port].endpoint, number);
                        self.hand(port, Handed::Message(number));
                        let sent = self.history.message(number);
                        let sender = PeerCall { peer: sent.from, call: sent.call };
                        assert_eq!(accepted, (sent.mode == Mode::Send).then_some(sender));
                    }
                }
                self.history.check_received(port, filter, &message, how);
                if let Some(PeerCall { peer, call }) = accepted {
                    let (from, step) = (self.peers[port], Step::Accepted { call });
                    self.threads[index].queue.push_back(Task::Tell { from, to: peer, step });
                }
            }
            Ok(Receive::Wait { call }) => {
                assert_eq!((notice, first), (None, None), "did not receive what was there");
                let thread = &mut self.threads[index];
                if let (Some(peer), Some(target)) = (peer, target) {
                    let (from, step) = (self.peers[port], Step::Watch { call });
                    thread.queue.push_back(Task::Give { from, target, to: peer.endpoint, step });
                }
                let (number, abandon, cancelled) = (None, false, false);
                thread.open =
                    Some(Open { call, number, filter, peer, patience, abandon, cancelled });
            }
            Err(error) => {
                assert!(memory_was_low && !refusal_is_pending() && error == Errno::NoMemory);
            }
        }
    }

    pub(super) fn reply(&mut self, index: usize, to: u8, anybody: bool) {
        let port = self.threads[index].port;
        let clients = &self.history.ports[port].clients;
        let to = match clients.get(to as usize % clients.len().max(1)) {
            Some(number) if !anybody => self.history.message(*number).from.endpoint,
            _ => self.peers[to as usize % self.peers.len()].endpoint,
        };
        let served = |number: &&u64| self.history.message(**number).from.endpoint == to;
        let expected = clients.iter().find(served).copied();
        let found = self.ports[port].reply(to);
        let Some(number) = expected else {
            assert_eq!(found, Err(Errno::WouldBlock));
            return;
        };
        self.history.ports[port].clients.retain(|client| *client != number);
        let request = &mut self.history.sent[number as usize];
        request.replies += 1;
        let client = PeerCall { peer: request.from, call: request.call };
        assert_eq!(found, Ok(client));
        let message = Message { source: 0, ..numbered(self.history.replies.len() as u64) };
        self.history.replies.push(number);
        let (from, step) = (self.peers[port], Step::Reply { call: client.call, message });
        self.threads[index].queue.push_back(Task::Tell { from, to: client.peer, step });
    }

    pub(super) fn check_outcome(&mut self, port: usize, open: Open, outcome: Outcome) {
        let dead = self.dead(port);
        let error = match outcome {
            Outcome::Failed(error) => Some(error),
            _ => None,
        };
        match (outcome, open.number) {
            (Outcome::Sent, Some(number)) => {
                assert_eq!(self.history.message(number).mode, Mode::Send);
            }
            (Outcome::Received { how }, Some(number)) => {
                let message = *self.ports[port].message();
                self.history.check_reply(port, number, &message, how);
            }
            (Outcome::Received { how }, None) => {
                let message = *self.ports[port].message();
                self.history.check_received(port, open.filter, &message, how);
            }
            (Outcome::Gone | Outcome::Bound(_), _) => unreachable!("nobody waits for that"),
            (Outcome::Failed(error), _) => {
                assert_eq!(self.history.ports[port].handed, None, "something was lost");
                let peer_dead = open.peer.is_some_and(|peer| self.dead(self.known[&peer.endpoint]));
                let justified = match error {
                    Errno::TimedOut => open.patience == Some(0),
                    Errno::OwnerDead => dead || peer_dead,
                    Errno::Stale | Errno::NoEndpoint => peer_dead || open.peer.is_some() && dead,
                    Errno::NodeDown => {
                        open.peer.is_some_and(|peer| peer.node != self.peers[port].node)
                    }
                    Errno::NoMemory => self.refused,
                    _ => false,
                };
                assert!(justified, "{open:?} failed with {error}");
            }
            (Outcome::Sent, None) => panic!("a receive was sent"),
        }
        if let Some(number) = open.number {
            self.history.ended(number, error, dead);
        }
    }
}
