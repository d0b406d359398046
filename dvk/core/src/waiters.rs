// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Who waits for somebody to be bound to which slot.

use super::abi::errno::Errno;
use super::fifo::{Fifo, Storage};
use super::port::PeerCall;

/// One `wait_bind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// The slot that somebody is to be bound to.
    pub slot: u32,
    /// The call that waits.
    pub call: PeerCall,
}

/// Those of one container on one node. There is at most one for each slot that waits, as an
/// endpoint has one call open at a time; that bounds the queue, whatever a peer does.
pub struct Waiters<S: Storage> {
    queue: Fifo<Waiter, S::Array<Option<Waiter>>>,
}

impl<S: Storage> Default for Waiters<S> {
    fn default() -> Self {
        Self { queue: Fifo::default() }
    }
}

impl<S: Storage> Waiters<S> {
    /// Adds a waiter, in place of an earlier one of the same slot.
    ///
    /// # Errors
    /// [`Errno::NoMemory`].
    pub fn add(&mut self, waiter: Waiter) -> Result<(), Errno> {
        let who = waiter.call.peer.endpoint.slot();
        self.queue.take(|known| known.call.peer.endpoint.slot() == who);
        self.queue.push(waiter).map_err(|_| Errno::NoMemory)
    }

    /// Takes a call off that no longer waits.
    pub fn forget(&mut self, call: PeerCall) {
        self.queue.take(|known| known.call == call);
    }

    /// Takes one of those off who wait for `slot`, which somebody is bound to now.
    pub fn take(&mut self, slot: u32) -> Option<PeerCall> {
        self.queue.take(|known| known.slot == slot).map(|waiter| waiter.call)
    }

    /// Takes all off that are on `node`, which is down.
    pub fn node_down(&mut self, node: u16) {
        self.queue.retain(|known| known.call.peer.node != node);
    }
}
