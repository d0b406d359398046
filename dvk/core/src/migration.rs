// SPDX-License-Identifier: GPL-2.0 OR MIT
//! What a moving endpoint takes along, as bytes that one kernel writes and another reads, carried
//! by the control plane; and what waits at other nodes for the end of the move.
//!
//! A move, of endpoint E from node S to D, seen from all nodes of the container:
//!
//! 1. *Start* at S: E's port is frozen, and everything that waits for it sent back; its [state](
//!    Writer) is written. Then at every other node: what is new for E waits where it is, and a fence
//!    makes sure that nothing is on its way between that node and S any more. D makes a port out of
//!    the state.
//! 2. A process on D adopts the port.
//! 3. *Commit* everywhere, at S next to last, at D last: whoever waited for E's reply waits for it
//!    from D, what waited to be sent goes there, and S cannot speak as E any more. Or *rollback*, at S
//!    first: E goes on where it was.

use super::abi::errno::Errno;
use super::abi::wire::record::Step;
use super::abi::Endpoint;
use super::fifo::{Fifo, NoMemory, Storage};

/// The first four bytes of a state: "DVM" and the version of what follows.
const MAGIC: u32 = u32::from_le_bytes(*b"DVM\x01");

/// Writes a state. Beyond the end of the buffer it only counts.
pub struct Writer<'b> {
    out: &'b mut [u8],
    len: usize,
}

impl<'b> Writer<'b> {
    /// Writes into `out`.
    pub fn new(out: &'b mut [u8]) -> Self {
        Self { out, len: 0 }
    }

    /// Bytes written, or needed.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the buffer took everything.
    pub fn is_complete(&self) -> bool {
        self.len <= self.out.len()
    }

    pub(super) fn begin(&mut self, endpoint: Endpoint, epoch: u32) {
        self.u32(MAGIC);
        self.u32(epoch);
        self.u64(endpoint.raw());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn count(&mut self, count: usize) {
        // A slot has one entry at most, and slots are fewer.
        self.u32(u32::try_from(count).unwrap_or(u32::MAX));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        if let Some(place) = self.out.get_mut(self.len..end) {
            place.copy_from_slice(bytes);
        }
        self.len = end;
    }
}

/// Bytes that are no state of the endpoint and move in question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

impl Broken {
    pub(super) fn errno(self) -> Errno {
        Errno::Invalid
    }
}

/// Reads what a [`Writer`] wrote.
pub struct Reader<'b> {
    rest: &'b [u8],
}

impl<'b> Reader<'b> {
    pub(super) fn begin(bytes: &'b [u8], endpoint: Endpoint, epoch: u32) -> Result<Self, Broken> {
        let mut reader = Self { rest: bytes };
        let head = (reader.u32()?, reader.u32()?, reader.u64()?);
        if head == (MAGIC, epoch, endpoint.raw()) {
            Ok(reader)
        } else {
            Err(Broken)
        }
    }

    pub(super) fn u32(&mut self) -> Result<u32, Broken> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(Broken)?;
        self.rest = rest;
        Ok(u32::from_le_bytes(*bytes))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Broken> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(Broken)?;
        self.rest = rest;
        Ok(u64::from_le_bytes(*bytes))
    }

    pub(super) fn end(self) -> Result<(), Broken> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Broken)
        }
    }
}

/// Notifications and withdrawals that a node keeps apart while their endpoints move; beyond, they
/// are refused with [`Errno::Limit`].
pub const PARKED: usize = 65_536;

/// A step that waits until the endpoint it is for has settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parked {
    /// Whose step it is: an endpoint of this node, dead or alive.
    pub from: Endpoint,
    /// Whom it is for.
    pub to: Endpoint,
    /// The call that is withdrawn; 0 for a notification.
    call: u32,
    /// The notification's bits.
    bits: u64,
    /// The move that this node has to know of before the step is given to anybody.
    pub(super) epoch: u32,
}

impl Parked {
    /// `step`, if it is one that waits.
    pub fn of(from: Endpoint, to: Endpoint, step: &Step) -> Option<Self> {
        match *step {
            Step::Notify { bits } => Some(Self { from, to, call: 0, bits, epoch: 0 }),
            Step::Cancel { call } => Some(Self { from, to, call, bits: 0, epoch: 0 }),
            _ => None,
        }
    }

    /// The step of `from` that came back from `to` by [`Step::Returned`].
    pub fn returned(from: Endpoint, to: Endpoint, call: u32, bits: u64, epoch: u32) -> Self {
        Self { from, to, call, bits, epoch }
    }

    /// The step.
    pub fn step(&self) -> Step {
        if self.bits == 0 {
            Step::Cancel { call: self.call }
        } else {
            Step::Notify { bits: self.bits }
        }
    }
}

/// All steps of a container's endpoints on this node that wait for others to settle.
pub struct Parking<S: Storage> {
    queue: Fifo<Parked, S::Array<Option<Parked>>>,
}

impl<S: Storage> Default for Parking<S> {
    fn default() -> Self {
        Self { queue: Fifo::default() }
    }
}

impl<S: Storage> Parking<S> {
    /// Keeps a step. Notifications of one source are put together.
    ///
    /// # Errors
    /// [`Errno::Limit`] or [`Errno::NoMemory`] if there is no room.
    pub fn keep(&mut self, parked: Parked) -> Result<(), Errno> {
        if parked.bits != 0 {
            let same = |other: &Parked| {
                (other.from, other.to) == (parked.from, parked.to) && other.bits != 0
            };
            if let Some(other) = self.queue.find(same) {
                other.bits |= parked.bits;
                other.epoch = other.epoch.max(parked.epoch);
                return Ok(());
            }
        }
        if self.queue.len() >= PARKED {
            return Err(Errno::Limit);
        }
        self.queue.push(parked).map_err(|NoMemory| Errno::NoMemory)
    }

    /// Takes the first step of which `ready` holds.
    pub fn take(&mut self, ready: impl FnMut(&Parked) -> bool) -> Option<Parked> {
        self.queue.take(ready)
    }

    /// Drops the steps of which `lost` holds.
    pub fn drop_if(&mut self, mut lost: impl FnMut(&Parked) -> bool) {
        self.queue.retain(|parked| !lost(parked));
    }

    /// How many steps wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
