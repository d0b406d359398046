// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The receiving half of a link: order, duplicates, acknowledgements.

use super::super::abi::wire::frame::{
    Chunks, Frame, Header, HEADER_BYTES, MAX_RECORD_BYTES, MAX_WINDOW, VERSION_ASKING,
};
use super::storage::{Slot, Storage};
use super::{Reject, Timing};

/// Frames that can be kept until those before them arrive.
pub(super) const EARLY_FRAMES: usize = MAX_WINDOW as usize;

/// In-order frames after which an acknowledgement is no longer held back, if the peer does not say
/// when it wants one.
const ACK_EVERY: u32 = 2;
/// The same if it does: only as many as its window has room for twice, should it forget to ask.
const ACK_EVERY_ASKING: u32 = MAX_WINDOW as u32 / 2;

/// What the link has received and not yet told its peer.
#[derive(Debug)]
pub(super) struct Acknowledgement {
    /// It is to be sent without waiting for data to go along with.
    pub(super) due: bool,
    /// In-order data frames since the last one was sent.
    held_back: u32,
    /// When it becomes due.
    pub(super) deadline: Option<u64>,
    /// Timestamp of the first frame it is for.
    pub(super) echo: Option<u32>,
}

impl Acknowledgement {
    const NONE: Self = Self { due: false, held_back: 0, deadline: None, echo: None };

    /// A frame arrived that is to be acknowledged at once.
    pub(super) fn demand(&mut self, timestamp: u32) {
        self.due = true;
        self.echo.get_or_insert(timestamp);
    }

    /// A frame arrived in order.
    fn allow_delay(&mut self, now: u64, timestamp: u32, asking: bool, timing: &Timing) {
        self.echo.get_or_insert(timestamp);
        self.held_back = self.held_back.saturating_add(1);
        if self.held_back >= if asking { ACK_EVERY_ASKING } else { ACK_EVERY } {
            self.due = true;
        } else {
            self.deadline.get_or_insert(now.saturating_add(timing.ack_delay_ns.max(1)));
        }
    }

    pub(super) fn on_timer(&mut self, now: u64) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.deadline = None;
            self.due = true;
        }
    }

    /// A frame that carries it was sent.
    pub(super) fn sent(&mut self) {
        *self = Self::NONE;
    }
}

/// The receiving half of a link.
pub(super) struct Receiver<S: Storage> {
    /// Early frames, by sequence modulo [`EARLY_FRAMES`].
    early: S::Slots,
    /// Number of the frame to be delivered next.
    next: u32,
    /// Bit `i`: frame `next + i` is in `early`.
    held: u64,
    /// Bytes delivered of a record whose end has not come; 0 between records.
    partial: usize,
    pub(super) acknowledgement: Acknowledgement,
}

/// A frame that came early and whose turn it is now. Dropping it frees its buffer.
pub struct Stored<B>(Slot<B>);

impl<B: core::ops::Deref<Target = [u8]>> Stored<B> {
    /// What it carries.
    pub fn chunks(&self) -> Chunks<'_> {
        Chunks::new(self.0.payload()).unwrap_or(Chunks::NONE)
    }
}

/// What became of a data frame.
pub(super) enum Arrival<'f> {
    InOrder(Chunks<'f>),
    Early,
    Duplicate,
}

impl<S: Storage> Receiver<S> {
    pub(super) fn new(early: S::Slots) -> Self {
        Self { early, next: 0, held: 0, partial: 0, acknowledgement: Acknowledgement::NONE }
    }

    /// Forgets everything and expects `first`.
    pub(super) fn restart(&mut self, first: u32) {
        while self.held != 0 {
            let bit = self.held.trailing_zeros();
            self.held &= self.held.wrapping_sub(1);
            self.take(self.next.wrapping_add(bit));
        }
        self.next = first;
        self.partial = 0;
        self.acknowledgement = Acknowledgement::NONE;
    }

    /// Everything before this frame has been delivered.
    pub(super) fn next(&self) -> u32 {
        self.next
    }

    /// The selective acknowledgement.
    pub(super) fn selective(&self) -> u64 {
        self.held >> 1
    }

    /// Takes a data frame.
    pub(super) fn accept<'f>(
        &mut self,
        storage: &mut S,
        now: u64,
        frame: &Frame<'f>,
        timing: &Timing,
    ) -> Result<Arrival<'f>, Reject> {
        let Frame { header: Header { version, sequence, timestamp, asks, .. }, payload } = *frame;
        let ahead = sequence.wrapping_sub(self.next);
        if ahead >= EARLY_FRAMES as u32 {
            if (ahead as i32) < 0 {
                self.acknowledgement.demand(timestamp);
                return Ok(Arrival::Duplicate);
            }
            return Err(Reject::Window);
        }
        if self.held >> ahead & 1 != 0 {
            self.acknowledgement.demand(timestamp);
            return Ok(Arrival::Duplicate);
        }
        let chunks = Chunks::new(payload).map_err(Reject::Frame)?;
        if ahead == 0 {
            self.partial = follow(self.partial, chunks.clone()).ok_or(Reject::Order)?;
            if self.held == 0 && !asks {
                let asking = version >= VERSION_ASKING;
                self.acknowledgement.allow_delay(now, timestamp, asking, timing);
            } else {
                self.acknowledgement.demand(timestamp);
            }
            self.advance();
            return Ok(Arrival::InOrder(chunks));
        }
        let end = HEADER_BYTES.saturating_add(payload.len());
        let mut buffer = storage.buffer(end).ok_or(Reject::NoMemory)?;
        buffer.get_mut(HEADER_BYTES..end).ok_or(Reject::NoMemory)?.copy_from_slice(payload);
        let slot = self.early.get_mut(sequence as usize % EARLY_FRAMES).ok_or(Reject::NoMemory)?;
        *slot = Slot { buffer: Some(buffer), bytes: payload.len() as u16 };
        self.held |= 1 << ahead;
        self.acknowledgement.demand(timestamp);
        Ok(Arrival::Early)
    }

    /// The early frame whose turn it is, if it is there.
    ///
    /// # Errors
    /// [`Reject::Order`] if it does not continue the stream. It is forgotten, as if it had never
    /// come.
    pub(super) fn pop(&mut self) -> Result<Option<Stored<S::Buffer>>, Reject> {
        if self.held & 1 == 0 {
            return Ok(None);
        }
        let stored = Stored(self.take(self.next));
        let Some(partial) = follow(self.partial, stored.chunks()) else {
            self.held &= !1;
            return Err(Reject::Order);
        };
        self.partial = partial;
        self.advance();
        Ok(Some(stored))
    }

    fn advance(&mut self) {
        self.next = self.next.wrapping_add(1);
        self.held >>= 1;
    }

    fn take(&mut self, sequence: u32) -> Slot<S::Buffer> {
        match self.early.get_mut(sequence as usize % EARLY_FRAMES) {
            Some(slot) => core::mem::replace(slot, Slot::EMPTY),
            None => Slot::EMPTY,
        }
    }
}

/// Bytes of an unfinished record after `chunks`, with `partial` before; `None` if they do not fit
/// together or make a record that is too long.
fn follow(mut partial: usize, chunks: Chunks<'_>) -> Option<usize> {
    for chunk in chunks {
        if chunk.first != (partial == 0) {
            return None;
        }
        partial = partial.saturating_add(chunk.data.len());
        if partial > MAX_RECORD_BYTES {
            return None;
        }
        if chunk.last {
            partial = 0;
        }
    }
    Some(partial)
}
