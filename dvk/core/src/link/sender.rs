// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The sending half of a link: queue, window, what is lost.

use super::super::abi::wire::frame::{
    Chunk, CHUNK_HEAD_BYTES, HEADER_BYTES, MAX_RECORD_BYTES, MAX_WINDOW, MIN_PAYLOAD_BYTES,
};
use super::storage::{Slot, Storage};
use super::SubmitError;

/// Frames that can be queued or in flight at once.
pub(super) const QUEUE_FRAMES: usize = 256;
/// Queue length from which on a refused sender is told that there is room again.
const ROOM_FRAMES: u32 = QUEUE_FRAMES as u32 / 2;
/// Queue length beyond which no bulk data is taken: more than can be in flight, so that the link
/// has always something to send, and little enough for a short record not to wait behind it for
/// long.
const BULK_FRAMES: u32 = 112;
/// Queue length from which on a refused sender of bulk data is told that there is room again.
const BULK_ROOM_FRAMES: u32 = 80;
/// Payload of a frame that is made for a short record: room for others to come along.
const SHARED_BYTES: usize = 1_436;
/// Congestion window of a new stream, in frames.
const INITIAL_WINDOW: u32 = 16;
/// Congestion window after a timeout, and the least there is.
const LEAST_WINDOW: u32 = 2;
/// Later frames that must have arrived before one is taken for lost (RFC 6675's `DupThresh`).
const LOSS_EVIDENCE: u32 = 3;

/// The sending half of a link.
///
/// Frames are numbered when they are queued: `[first, next)` are in flight, `[next, end)` wait for
/// the window. Bitmaps are relative to `first`.
pub(super) struct Sender<S: Storage> {
    /// By sequence modulo [`QUEUE_FRAMES`].
    queue: S::Slots,
    first: u32,
    next: u32,
    end: u32,
    /// Acknowledged selectively.
    arrived: u64,
    /// Taken for lost, to be sent again.
    lost: u64,
    /// Sent again on evidence since the last timeout; only a timeout takes them for lost again.
    repeated: u64,
    /// Congestion window in frames.
    window: u32,
    /// Window size up to which it grows by slow start.
    threshold: u32,
    /// Acknowledged frames towards the next step of linear growth.
    credit: u32,
    /// The window was reduced; it is not again, nor grows linearly, until this frame is
    /// acknowledged.
    recovery: Option<u32>,
    peer_window: u32,
    /// Data frames sent since the last one that asked to be acknowledged.
    unasked: u32,
    /// Payload of a full frame.
    capacity: usize,
    /// A record was refused for want of room.
    refused: bool,
    /// A record of bulk data was, though there may have been room for a short one.
    bulk_refused: bool,
}

/// The frame to be sent next.
#[derive(Clone, Copy)]
pub(super) struct Pick {
    pub(super) sequence: u32,
    /// It was sent before.
    pub(super) again: bool,
}

/// What an acknowledgement brought.
#[derive(Clone, Copy, Default)]
pub(super) struct Progress {
    /// Frames were acknowledged cumulatively.
    pub(super) advanced: bool,
    /// Frames were acknowledged in some way that had not been before.
    pub(super) news: bool,
}

/// An acknowledgement of frames that were never sent.
pub(super) struct Impossible;

const fn low_bits(count: u32) -> u64 {
    if count >= 64 {
        u64::MAX
    } else {
        (1 << count) - 1
    }
}

const fn shift_out(bits: u64, count: u32) -> u64 {
    if count >= 64 {
        0
    } else {
        bits >> count
    }
}

impl<S: Storage> Sender<S> {
    pub(super) fn new(queue: S::Slots, first: u32) -> Self {
        Self {
            queue,
            first,
            next: first,
            end: first,
            arrived: 0,
            lost: 0,
            repeated: 0,
            window: INITIAL_WINDOW,
            threshold: MAX_WINDOW as u32,
            credit: 0,
            recovery: None,
            peer_window: 1,
            unasked: 0,
            capacity: MIN_PAYLOAD_BYTES,
            refused: false,
            bulk_refused: false,
        }
    }

    /// Drops everything and begins at `first`.
    pub(super) fn restart(&mut self, first: u32) {
        for slot in self.queue.iter_mut() {
            *slot = Slot::EMPTY;
        }
        self.first = first;
        self.next = first;
        self.end = first;
        self.arrived = 0;
        self.lost = 0;
        self.repeated = 0;
        self.window = INITIAL_WINDOW;
        self.threshold = u32::from(MAX_WINDOW);
        self.credit = 0;
        self.recovery = None;
        self.unasked = 0;
        self.capacity = MIN_PAYLOAD_BYTES;
        self.refused = false;
        self.bulk_refused = false;
    }

    /// The peer can take `window` frames.
    pub(super) fn open(&mut self, window: u16) {
        self.set_peer_window(window);
    }

    /// Payload of a full frame from here on; what is queued keeps its own.
    pub(super) fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
    }

    /// Whether no queued frame has a longer payload than this.
    pub(super) fn fits(&self, payload_bytes: usize) -> bool {
        let queued = (0..self.queued()).map(|ahead| self.payload(self.first.wrapping_add(ahead)));
        queued.into_iter().all(|payload| payload.len() <= payload_bytes)
    }

    /// A peer that has no window gets one frame at a time, which the retransmission timer repeats.
    fn set_peer_window(&mut self, window: u16) {
        self.peer_window = u32::from(window.clamp(1, MAX_WINDOW));
    }

    /// Number of the next new frame.
    pub(super) fn next(&self) -> u32 {
        self.next
    }

    /// Whether frames await acknowledgement.
    pub(super) fn is_waiting(&self) -> bool {
        self.outstanding() != 0
    }

    /// Frames in the queue, those in flight included.
    pub(super) fn queued(&self) -> u32 {
        self.end.wrapping_sub(self.first)
    }

    /// Frames that were sent and not acknowledged yet, or only selectively.
    pub(super) fn outstanding(&self) -> u32 {
        self.next.wrapping_sub(self.first)
    }

    /// Frames that are believed to be on their way.
    fn in_flight(&self) -> u32 {
        self.outstanding().saturating_sub((self.arrived | self.lost).count_ones())
    }

    /// Like [`submit`](Self::submit), but leaves room for short records.
    pub(super) fn submit_bulk(
        &mut self,
        storage: &mut S,
        record: &[u8],
    ) -> Result<(), SubmitError> {
        let queued = self.queued();
        let data_bytes = self.capacity.saturating_sub(CHUNK_HEAD_BYTES).max(1);
        let frames = record.len().div_ceil(data_bytes) as u32;
        if queued != 0 && queued.saturating_add(frames) > BULK_FRAMES {
            self.bulk_refused = true;
            return Err(SubmitError::Full);
        }
        self.submit(storage, record)
    }

    /// Copies a record into the queue, whole or not at all.
    pub(super) fn submit(&mut self, storage: &mut S, record: &[u8]) -> Result<(), SubmitError> {
        if record.is_empty() || record.len() > MAX_RECORD_BYTES {
            return Err(SubmitError::Length);
        }
        if self.append(record) {
            return Ok(());
        }
        let data_bytes = self.capacity.saturating_sub(CHUNK_HEAD_BYTES).max(1);
        let frames = record.len().div_ceil(data_bytes);
        let free = QUEUE_FRAMES.saturating_sub(self.end.wrapping_sub(self.first) as usize);
        if frames > free {
            self.refused = true;
            return Err(SubmitError::Full);
        }
        let begin = self.end;
        let mut rest = record;
        while !rest.is_empty() {
            let (data, after) = rest.split_at(rest.len().min(data_bytes));
            let chunk = Chunk { first: rest.len() == record.len(), last: after.is_empty(), data };
            if self.push(storage, &chunk).is_none() {
                while self.end != begin {
                    self.end = self.end.wrapping_sub(1);
                    self.release(self.end);
                }
                return Err(SubmitError::NoMemory);
            }
            rest = after;
        }
        Ok(())
    }

    /// Adds a whole record to the last frame, if that has not been sent and has room.
    fn append(&mut self, record: &[u8]) -> bool {
        if self.end == self.next {
            return false;
        }
        let last = self.end.wrapping_sub(1) as usize % QUEUE_FRAMES;
        let Some(slot) = self.queue.get_mut(last) else { return false };
        let Some(buffer) = slot.buffer.as_mut() else { return false };
        let limit = buffer.len().min(HEADER_BYTES.saturating_add(self.capacity));
        let begin = HEADER_BYTES.saturating_add(usize::from(slot.bytes));
        let Some(room) = buffer.get_mut(begin..limit) else { return false };
        match (Chunk { first: true, last: true, data: record }).encode(room) {
            Some(bytes) => {
                slot.bytes = slot.bytes.wrapping_add(bytes as u16);
                true
            }
            None => false,
        }
    }

    /// Puts a chunk into a frame of its own.
    fn push(&mut self, storage: &mut S, chunk: &Chunk<'_>) -> Option<()> {
        // Short records may share a frame, but not at the price of the longest one.
        let least = CHUNK_HEAD_BYTES.saturating_add(chunk.data.len()).max(SHARED_BYTES);
        let payload_bytes = least.min(self.capacity);
        let mut buffer = storage.buffer(HEADER_BYTES.saturating_add(payload_bytes))?;
        let bytes = chunk.encode(buffer.get_mut(HEADER_BYTES..)?)? as u16;
        *self.queue.get_mut(self.end as usize % QUEUE_FRAMES)? =
            Slot { buffer: Some(buffer), bytes };
        self.end = self.end.wrapping_add(1);
        Some(())
    }

    fn release(&mut self, sequence: u32) {
        if let Some(slot) = self.queue.get_mut(sequence as usize % QUEUE_FRAMES) {
            *slot = Slot::EMPTY;
        }
    }

    /// The frame that the windows allow to be sent now: lost ones before new ones.
    pub(super) fn pick(&self) -> Option<Pick> {
        if self.in_flight() >= self.window {
            return None;
        }
        if self.lost != 0 {
            let sequence = self.first.wrapping_add(self.lost.trailing_zeros());
            return Some(Pick { sequence, again: true });
        }
        (self.next != self.end && self.outstanding() < self.peer_window)
            .then_some(Pick { sequence: self.next, again: false })
    }

    /// The slot of a queued frame.
    pub(super) fn slot(&mut self, sequence: u32) -> Option<&mut Slot<S::Buffer>> {
        self.queue.get_mut(sequence as usize % QUEUE_FRAMES)
    }

    pub(super) fn payload(&self, sequence: u32) -> &[u8] {
        self.queue.get(sequence as usize % QUEUE_FRAMES).map_or(&[], Slot::payload)
    }

    /// Whether a picked frame is to be acknowledged at once: if there is more to send than the
    /// window has room for after it, or than half of it was used for since the last one; and if it
    /// was lost before. What nothing follows is acknowledged with the answer.
    pub(super) fn asks(&self, pick: Pick) -> bool {
        if pick.again {
            return true;
        }
        let window = self.window.min(self.peer_window);
        self.next.wrapping_add(1) != self.end
            && (self.in_flight().saturating_add(1) >= window
                || self.unasked.saturating_add(1) >= window / 2)
    }

    /// A picked frame was sent, and [`asked`](Self::asks) or not. Returns whether it is the oldest in
    /// flight.
    pub(super) fn sent(&mut self, pick: Pick, asked: bool) -> bool {
        self.unasked = if asked { 0 } else { self.unasked.saturating_add(1) };
        if pick.again {
            let bit = 1u64 << (pick.sequence.wrapping_sub(self.first) & 63);
            self.lost &= !bit;
            self.repeated |= bit;
        } else {
            self.next = self.next.wrapping_add(1);
        }
        pick.sequence == self.first
    }

    /// Takes the acknowledgement of a frame.
    pub(super) fn acknowledge(
        &mut self,
        ack: u32,
        selective: u64,
        window: u16,
    ) -> Result<Progress, Impossible> {
        let advance = ack.wrapping_sub(self.first);
        if advance > self.outstanding() {
            // An old one that was overtaken by a newer one says nothing.
            return if (advance as i32) < 0 { Ok(Progress::default()) } else { Err(Impossible) };
        }
        self.set_peer_window(window);
        let known = (self.arrived & low_bits(advance)).count_ones();
        for _ in 0..advance {
            self.release(self.first);
            self.first = self.first.wrapping_add(1);
        }
        self.arrived = shift_out(self.arrived, advance);
        self.lost = shift_out(self.lost, advance);
        self.repeated = shift_out(self.repeated, advance);
        if self.recovery.is_some_and(|until| (until.wrapping_sub(self.first) as i32) <= 0) {
            self.recovery = None;
        }

        let all = low_bits(self.outstanding());
        let fresh = selective << 1 & all & !self.arrived;
        self.arrived |= fresh;
        self.lost &= !self.arrived;
        self.grow(advance.saturating_sub(known).saturating_add(fresh.count_ones()));
        if fresh != 0 {
            self.detect_loss();
        }
        Ok(Progress { advanced: advance != 0, news: advance != 0 || fresh != 0 })
    }

    /// Slow start, then one frame per window (RFC 5681).
    fn grow(&mut self, acknowledged: u32) {
        if self.window < self.threshold {
            self.window = self.window.saturating_add(acknowledged).min(self.threshold);
        } else if self.recovery.is_none() {
            self.credit = self.credit.saturating_add(acknowledged);
            if self.credit >= self.window {
                self.credit = self.credit.saturating_sub(self.window);
                self.window = self.window.saturating_add(1).min(u32::from(MAX_WINDOW));
            }
        }
    }

    /// Takes those frames for lost after which [`LOSS_EVIDENCE`] others have arrived.
    fn detect_loss(&mut self) {
        let mut evidence = self.arrived;
        for _ in 1..LOSS_EVIDENCE {
            let highest = evidence.checked_ilog2().unwrap_or(0);
            evidence &= !(1 << highest);
        }
        let Some(below) = evidence.checked_ilog2() else { return };
        let lost = low_bits(below) & !(self.arrived | self.lost | self.repeated);
        if lost == 0 {
            return;
        }
        self.lost |= lost;
        if self.recovery.is_none() {
            self.threshold = (self.outstanding() / 2).max(LEAST_WINDOW);
            self.window = self.threshold;
            self.credit = 0;
            self.recovery = Some(self.next);
        }
    }

    /// No acknowledgement came in time: everything in flight is taken for lost, also what was
    /// acknowledged selectively, since the peer may have dropped it (RFC 2018 allows it to).
    pub(super) fn time_out(&mut self) {
        self.arrived = 0;
        self.repeated = 0;
        self.lost = low_bits(self.outstanding());
        self.threshold = (self.outstanding() / 2).max(LEAST_WINDOW);
        self.window = LEAST_WINDOW;
        self.credit = 0;
        self.recovery = Some(self.next);
    }

    /// Whether a record that was refused may be tried again; says so once.
    pub(super) fn has_room_again(&mut self) -> bool {
        let queued = self.queued();
        let short = self.refused && queued <= ROOM_FRAMES;
        let bulk = self.bulk_refused && queued <= BULK_ROOM_FRAMES;
        self.refused &= !short;
        self.bulk_refused &= !bulk;
        short || bulk
    }
}
