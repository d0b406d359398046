// SPDX-License-Identifier: GPL-2.0 OR MIT
//! What happened in a simulated DVS, and what may have happened.

use dvk_core::abi::errno::Errno;
use dvk_core::abi::ioctl::{HOW_NOTIFY, HOW_REPLY};
use dvk_core::abi::{Endpoint, Message};
use dvk_core::port::{Filter, Mode, Peer};
use std::collections::BTreeMap;

use crate::model::number_of;

/// What the outcome of a call says about its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transfer {
    /// It was received; a request was answered.
    Done,
    /// It was not received; a request was not answered.
    Never,
    /// The caller died or the link went down in between: either, but not twice.
    Unknown,
}

/// One message sent by `send` or `sendrec`. Its number is its index in the history.
pub(crate) struct Sent {
    pub(crate) from: Peer,
    pub(crate) to: Endpoint,
    pub(crate) mode: Mode,
    pub(crate) call: u32,
    pub(crate) received: u32,
    pub(crate) replies: u32,
    /// `None` while the call is open.
    pub(crate) transfer: Option<Transfer>,
}

/// What was handed to a port whose thread has not looked yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handed {
    Message(u64),
    Reply(u64),
    Notice(Endpoint, u64),
}

/// A port as a naive observer sees it.
#[derive(Default)]
pub(crate) struct Observed {
    pub(crate) dead: bool,
    /// Numbers of the messages that wait to be received, in the order in which they came.
    pub(crate) queue: Vec<u64>,
    /// Numbers of the requests that were received and not answered.
    pub(crate) clients: Vec<u64>,
    pub(crate) notices: Vec<(Endpoint, u64)>,
    pub(crate) handed: Option<Handed>,
    /// The newest message of each sender that was received.
    newest: BTreeMap<Endpoint, u64>,
}

/// All messages and ports of a run.
#[derive(Default)]
pub(crate) struct History {
    pub(crate) sent: Vec<Sent>,
    /// The request that each reply answers.
    pub(crate) replies: Vec<u64>,
    pub(crate) ports: Vec<Observed>,
}

pub(crate) fn takes(filter: Filter, source: Endpoint, mode: Mode) -> bool {
    filter.from.is_none_or(|from| from.endpoint == source)
        && (!filter.requests_only || mode == Mode::Request)
}

pub(crate) fn takes_notice(filter: Filter, source: Endpoint) -> bool {
    filter.from.is_none_or(|from| from.endpoint == source) && !filter.requests_only
}

impl History {
    pub(crate) fn message(&self, number: u64) -> &Sent {
        &self.sent[number as usize]
    }

    /// The first queued message of `port` that `filter` takes.
    pub(crate) fn first(&self, port: usize, filter: Filter) -> Option<u64> {
        let wanted = |number: &&u64| {
            let sent = self.message(**number);
            takes(filter, sent.from.endpoint, sent.mode)
        };
        self.ports[port].queue.iter().find(wanted).copied()
    }

    /// The first pending notice of `port` that `filter` takes.
    pub(crate) fn first_notice(&self, port: usize, filter: Filter) -> Option<(Endpoint, u64)> {
        self.ports[port].notices.iter().find(|notice| takes_notice(filter, notice.0)).copied()
    }

    /// Notes that `port`, at `me`, received message `number`: once, for it, in order.
    pub(crate) fn received(&mut self, port: usize, me: Endpoint, number: u64) {
        let sent = &mut self.sent[number as usize];
        sent.received += 1;
        assert_eq!(sent.received, 1, "message {number} was received twice");
        assert_eq!(sent.to, me, "message {number} is not for {me}");
        let observed = &mut self.ports[port];
        let older = observed.newest.insert(sent.from.endpoint, number);
        assert!(older < Some(number), "message {number} was overtaken by {older:?}");
        observed.queue.retain(|queued| *queued != number);
        if sent.mode == Mode::Request {
            observed.clients.push(number);
        }
    }

    /// Takes call `call` of `peer` out of what `port` holds; returns whether it was there.
    pub(crate) fn withdraw(&mut self, port: usize, peer: Peer, call: u32) -> bool {
        let sent = &self.sent;
        let other = |number: &u64| {
            let message = &sent[*number as usize];
            (message.from, message.call) != (peer, call)
        };
        let observed = &mut self.ports[port];
        let before = observed.queue.len() + observed.clients.len();
        observed.queue.retain(other);
        observed.clients.retain(other);
        observed.queue.len() + observed.clients.len() < before
    }

    /// Whether `port` already holds a message of a later binding of the slot of `source`; if not,
    /// drops what it holds of earlier calls from there, which must be over.
    pub(crate) fn supersede(&mut self, port: usize, source: Endpoint) -> bool {
        let sent = &self.sent;
        let observed = &mut self.ports[port];
        let mut newer = false;
        let mut check = |number: &u64| {
            let known = &sent[*number as usize];
            if known.from.endpoint.slot() != source.slot() {
                return true;
            }
            if known.from.endpoint.generation() > source.generation() {
                newer = true;
                return true;
            }
            assert_eq!(known.transfer, Some(Transfer::Unknown), "an open call was replaced");
            false
        };
        observed.queue.retain(&mut check);
        observed.clients.retain(&mut check);
        newer
    }

    /// Drops what `port` holds of callers on `node`.
    pub(crate) fn node_down(&mut self, port: usize, node: u16) {
        let sent = &self.sent;
        let elsewhere = |number: &u64| sent[*number as usize].from.node != node;
        self.ports[port].queue.retain(elsewhere);
        self.ports[port].clients.retain(elsewhere);
    }

    /// Adds bits to what `port` is to be notified of.
    pub(crate) fn notified(&mut self, port: usize, source: Endpoint, bits: u64) {
        let notices = &mut self.ports[port].notices;
        match notices.iter_mut().find(|notice| notice.0 == source) {
            Some(notice) => notice.1 |= bits,
            None => notices.push((source, bits)),
        }
    }

    /// Checks what a `receive` with `filter` at `port` got against what was handed to it.
    pub(crate) fn check_received(
        &mut self,
        port: usize,
        filter: Filter,
        message: &Message,
        how: u32,
    ) {
        let handed = self.ports[port].handed.take();
        match message.notify_bits() {
            Some(bits) => {
                assert_eq!(handed, Some(Handed::Notice(message.source(), bits)));
                assert_eq!(how, HOW_NOTIFY);
                assert!(takes_notice(filter, message.source()), "a notice of another");
            }
            None => {
                let number = number_of(message);
                assert_eq!(handed, Some(Handed::Message(number)));
                let sent = self.message(number);
                assert_eq!((message.source(), how), (sent.from.endpoint, sent.mode.how()));
                assert!(takes(filter, message.source(), sent.mode), "a message of another");
            }
        }
    }

    /// Checks the reply that ended request `number` of `port`.
    pub(crate) fn check_reply(&mut self, port: usize, number: u64, message: &Message, how: u32) {
        assert_eq!(how, HOW_REPLY, "something else ended sendrec");
        let reply = number_of(message);
        assert_eq!(self.ports[port].handed.take(), Some(Handed::Reply(reply)));
        assert_eq!(self.replies[reply as usize], number, "the reply to another request");
        assert_eq!(message.source(), self.message(number).to);
    }

    /// Notes how call `number` of a thread ended. `caller_died`: its own port was killed.
    pub(crate) fn ended(&mut self, number: u64, error: Option<Errno>, caller_died: bool) {
        let sent = &mut self.sent[number as usize];
        assert_eq!(sent.transfer, None, "call ended twice");
        sent.transfer = Some(match error {
            None => Transfer::Done,
            Some(Errno::NodeDown) => Transfer::Unknown,
            Some(Errno::OwnerDead) if caller_died => Transfer::Unknown,
            Some(_) => Transfer::Never,
        });
    }

    /// Checks every message after all that could happen has happened.
    pub(crate) fn check_transfers(&self) {
        for (number, sent) in self.sent.iter().enumerate() {
            let moved = if sent.mode == Mode::Send { sent.received } else { sent.replies };
            match sent.transfer {
                Some(Transfer::Done) => assert_eq!(moved, 1, "message {number} was lost"),
                Some(Transfer::Never) | None => {
                    assert_eq!(moved, 0, "message {number} was transferred, but its call failed");
                }
                Some(Transfer::Unknown) => assert!(moved <= 1),
            }
        }
    }
}
