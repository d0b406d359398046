// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls that end in time, whoever they are made to.

use core::cell::Cell;
use core::time::Duration;
use dvk::{Endpoint, GrantId, Ipc, Message, Timeout};
use mol_vdd::lend::Lend;
use std::time::Instant;

/// The calls of an endpoint, none of which waits beyond a point in time.
#[derive(Debug)]
pub(super) struct Hurry<'i, I> {
    ipc: &'i I,
    until: Instant,
    /// Whether a call ended without an answer.
    is_unanswered: Cell<bool>,
}

impl<'i, I> Hurry<'i, I> {
    pub(super) fn new(ipc: &'i I, limit: Duration) -> Self {
        Self { ipc, until: Instant::now() + limit, is_unanswered: Cell::new(false) }
    }

    /// Whether a call ended without an answer, so that nobody knows what the server keeps for this endpoint.
    pub(super) fn is_unanswered(&self) -> bool {
        self.is_unanswered.get()
    }

    /// How much of a time to wait is left.
    fn rest(&self, timeout: Timeout) -> Timeout {
        let rest = self.until.saturating_duration_since(Instant::now());
        match timeout {
            Timeout::Forever => Timeout::After(rest),
            Timeout::After(time) => Timeout::After(time.min(rest)),
            Timeout::NoWait => Timeout::NoWait,
        }
    }

    fn heard<T, E>(&self, result: Result<T, E>) -> Result<T, E> {
        self.is_unanswered.set(self.is_unanswered.get() || result.is_err());
        result
    }
}

impl<I: Ipc> Ipc for Hurry<'_, I> {
    type Error = I::Error;

    fn send(&self, to: Endpoint, message: &Message, timeout: Timeout) -> Result<(), I::Error> {
        self.ipc.send(to, message, self.rest(timeout))
    }

    fn sendrec(
        &self,
        to: Endpoint,
        message: &Message,
        timeout: Timeout,
    ) -> Result<Message, I::Error> {
        self.heard(self.ipc.sendrec(to, message, self.rest(timeout)))
    }

    fn reply(&self, to: Endpoint, message: &Message) -> Result<(), I::Error> {
        self.ipc.reply(to, message)
    }

    fn notify(&self, to: Endpoint, bits: u64) -> Result<(), I::Error> {
        self.ipc.notify(to, bits)
    }
}

impl<I: Lend> Lend for Hurry<'_, I> {
    fn lend<R>(
        &self,
        to: Endpoint,
        memory: &[u8],
        work: impl FnOnce(GrantId) -> R,
    ) -> Result<R, I::Error> {
        self.ipc.lend(to, memory, work)
    }

    fn lend_mut<R>(
        &self,
        to: Endpoint,
        memory: &mut [u8],
        work: impl FnOnce(GrantId) -> R,
    ) -> Result<R, I::Error> {
        self.ipc.lend_mut(to, memory, work)
    }
}
