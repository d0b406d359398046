// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The link to a peer node: an ordered, exactly-once stream of records over frames that a
//! transport may lose, repeat, reorder or cut short.
//!
//! A [`Link`] does no I/O and has no clock. Its owner passes in the time (nanoseconds of a
//! monotonic clock), the frames that arrive and the records to be sent, and takes out frames,
//! records and events; it must not be entered twice at once. After every call that takes a time
//! the owner
//!
//! 1. handles the chunks that [`on_frame`](Link::on_frame) returned, then those of
//!    [`next_stored`](Link::next_stored) until it gives none;
//! 2. handles [`poll_event`](Link::poll_event) until it gives none;
//! 3. sends what [`poll_transmit`](Link::poll_transmit) writes until it writes nothing (several
//!    records submitted before that share frames), or what [`poll_outgoing`](Link::poll_outgoing)
//!    shows;
//! 4. sets its timer to [`next_deadline`](Link::next_deadline), to call
//!    [`on_timer`](Link::on_timer) then or later.
//!
//! **Lives.** Records flow between one incarnation of this node and one of the peer, and within
//! that between two *streams*: the life of the link at either end since its last
//! [`peer_up`](Link::peer_up). Every frame names all four. A link greets until both ends know
//! each other's stream; frames of any other life are dropped. An end that gives its stream up
//! says so, or its next greeting does; the other end then reports [`Event::Reset`] and stands
//! still ([`State::Broken`]) until its owner has drawn the consequences (whoever waits for that
//! node must be told) and calls [`peer_up`](Link::peer_up) again. So nothing of a new stream is
//! delivered before the loss of the old one is known.
//!
//! **Cost.** A small record that comes in order in a frame of its own takes on the order of 200
//! instructions in `on_frame` and no copy; sending it takes about as many and two copies (into the
//! queue, into the frame). Windows are bitmaps: no step looks at every frame in flight, but for a
//! new life of the link. The link itself is about 540 bytes, its two arrays of slots about 320
//! slots of buffer pointer and length; no function has a large stack frame.

mod config;
mod error;
mod event;
mod greeting;
mod liveness;
mod receiver;
mod reception;
mod rtt;
mod sender;
mod storage;
mod transmission;

use self::greeting::Handshake;
use self::liveness::Liveness;
use self::receiver::{Receiver, EARLY_FRAMES};
use self::rtt::RoundTrip;
use self::sender::{Sender, QUEUE_FRAMES};
use super::abi::ioctl::{LinkInfo, LINK_CONNECTING, LINK_DOWN, LINK_UP};
use super::abi::wire::frame::{
    Address, Chunks, Frame, HEADER_BYTES, MAX_PAYLOAD_BYTES, MIN_PAYLOAD_BYTES,
};
use core::num::NonZeroU32;

pub use self::config::{Config, Timing};
pub use self::error::{OutOfMemory, PayloadTooSmall, Reject, SubmitError};
pub use self::event::{Event, State};
pub use self::receiver::Stored;
pub use self::storage::{Slot, Storage};
pub use self::transmission::{Outgoing, ShortFrame};

/// The link to one peer node; there is one for each peer. The module says how to drive it.
///
/// A link of the same two nodes and the same local incarnation must not be made again within a
/// second of the end of the last, or its streams could be taken for those of that one.
pub struct Link<S: Storage> {
    config: Config,
    storage: S,
    state: State,
    /// As told by the control plane; 0 if the peer is down.
    peer_incarnation: u32,
    /// Payload of the attached transport's frames; 0 if there is none.
    transport_bytes: u16,
    handshake: Handshake,
    farewell: Option<Farewell>,
    sender: Sender<S>,
    receiver: Receiver<S>,
    round_trip: RoundTrip,
    /// When to send again what has not been acknowledged.
    repeat_at: Option<u64>,
    liveness: Liveness,
    /// Bits of [`Event`].
    events: u8,
    counters: LinkInfo,
}

/// A reset that is to be sent.
#[derive(Clone, Copy)]
struct Farewell {
    version: u8,
    source: Address,
    destination: Address,
}

impl<S: Storage> Link<S> {
    /// A link that is down and has no transport.
    ///
    /// # Errors
    /// [`OutOfMemory`] if `storage` does not give the slots asked for.
    pub fn new(config: Config, mut storage: S) -> Result<Self, OutOfMemory> {
        let queue = storage.slots(QUEUE_FRAMES).filter(|slots| slots.len() >= QUEUE_FRAMES);
        let early = storage.slots(EARLY_FRAMES).filter(|slots| slots.len() >= EARLY_FRAMES);
        Ok(Self {
            config,
            storage,
            state: State::Down,
            peer_incarnation: 0,
            transport_bytes: 0,
            handshake: Handshake::new(),
            farewell: None,
            sender: Sender::new(queue.ok_or(OutOfMemory)?, config.first_sequence),
            receiver: Receiver::new(early.ok_or(OutOfMemory)?),
            round_trip: RoundTrip::new(),
            repeat_at: None,
            liveness: Liveness::new(),
            events: 0,
            counters: LinkInfo { node: u32::from(config.peer_node), ..LinkInfo::default() },
        })
    }

    /// The control plane says that the peer runs with this incarnation.
    ///
    /// Begins a new stream, unless the link is connecting to, or connected with, this very
    /// incarnation: then nothing happens. A stream with another incarnation ends as by
    /// [`peer_down`](Self::peer_down). An [`Event::Reset`] that was not polled remains.
    pub fn peer_up(&mut self, now: u64, incarnation: NonZeroU32) {
        let known = self.peer_incarnation == incarnation.get();
        match self.state {
            State::Connecting | State::Up if known => return,
            State::Connecting | State::Up => self.peer_down(),
            State::Down | State::Broken => self.events &= Event::Reset.bit(),
        }
        self.peer_incarnation = incarnation.get();
        self.state = State::Connecting;
        self.handshake.start(now, &self.config.timing);
    }

    /// The control plane says that the peer is gone.
    ///
    /// Queued records and events that were not polled are dropped. One last frame tells the peer,
    /// in case it runs after all: poll for it before detaching.
    pub fn peer_down(&mut self) {
        self.end_stream(State::Down);
        self.peer_incarnation = 0;
        self.events = 0;
    }

    /// Gives the link a transport whose frames carry `payload_bytes` after the header (what
    /// exceeds [`MAX_PAYLOAD_BYTES`] is not used), in place of the one it had.
    ///
    /// A stream goes on over another transport if every queued frame fits into its frames, and
    /// ends with [`Event::Reset`] if one does not: see [`narrow`](Self::narrow). The peer is told
    /// what this end can receive from now on.
    ///
    /// # Errors
    /// [`PayloadTooSmall`] below [`MIN_PAYLOAD_BYTES`]; nothing has changed then.
    pub fn attach(&mut self, now: u64, payload_bytes: usize) -> Result<(), PayloadTooSmall> {
        if payload_bytes < MIN_PAYLOAD_BYTES {
            return Err(PayloadTooSmall);
        }
        let before = self.transport_bytes;
        let bytes = payload_bytes.min(MAX_PAYLOAD_BYTES) as u16;
        self.transport_bytes = bytes;
        let timing = self.config.timing;
        match self.state {
            State::Up if !self.sender.fits(usize::from(bytes)) => {
                self.end_stream(State::Broken);
                self.raise(Event::Reset);
            }
            State::Up => {
                self.agree();
                if bytes != before {
                    self.handshake.announce(now, &timing);
                }
                self.liveness.restart(now, &timing);
                self.round_trip.recover();
                self.rearm(now);
            }
            // The peer may have heard of a length that no longer holds.
            State::Connecting if bytes != before => self.handshake.start(now, &timing),
            State::Connecting => self.handshake.hurry(now, &timing),
            State::Down | State::Broken => {}
        }
        Ok(())
    }

    /// Prepares for a transport whose frames carry no more than `payload_bytes`: no longer frame is
    /// queued from now on. Returns whether none is, so that the stream would survive it.
    pub fn narrow(&mut self, payload_bytes: usize) -> bool {
        if self.state != State::Up {
            return true;
        }
        if payload_bytes >= MIN_PAYLOAD_BYTES {
            self.sender.set_capacity(self.agreed_bytes().min(payload_bytes));
        }
        self.sender.fits(payload_bytes)
    }

    /// Payload that both ends can take.
    fn agreed_bytes(&self) -> usize {
        let peer = self.handshake.peer.map_or(0, |peer| peer.payload_bytes);
        usize::from(peer.min(self.transport_bytes)).max(MIN_PAYLOAD_BYTES)
    }

    /// Fills frames from now on with what both ends can take.
    fn agree(&mut self) {
        self.sender.set_capacity(self.agreed_bytes());
    }

    /// Takes the transport away. The stream stands still until another is attached.
    pub fn detach(&mut self) {
        self.transport_bytes = 0;
        self.farewell = None;
    }

    /// Queues a record: in [`State::Up`] and, for when records flow, in [`State::Connecting`].
    ///
    /// It is copied, whole or not at all. Call [`poll_transmit`](Self::poll_transmit) after it, or
    /// after several.
    ///
    /// # Errors
    /// Says why it was not queued.
    pub fn submit(&mut self, record: &[u8]) -> Result<(), SubmitError> {
        match self.state {
            State::Down | State::Broken => Err(SubmitError::NotUp),
            State::Connecting | State::Up => self.sender.submit(&mut self.storage, record),
        }
    }

    /// Like [`submit`](Self::submit), but refuses a record of bulk data with
    /// [`SubmitError::Full`] while there is still room for what is short and urgent.
    ///
    /// # Errors
    /// Says why it was not queued.
    pub fn submit_bulk(&mut self, record: &[u8]) -> Result<(), SubmitError> {
        match self.state {
            State::Down | State::Broken => Err(SubmitError::NotUp),
            State::Connecting | State::Up => self.sender.submit_bulk(&mut self.storage, record),
        }
    }

    /// Takes a frame. The caller has decoded it, if only to find the link by its source node.
    ///
    /// Returns the parts of records that it brings in order; they belong before those of
    /// [`next_stored`](Self::next_stored). Frames that come a second time or early bring none.
    ///
    /// # Errors
    /// Says why the frame was dropped.
    pub fn on_frame<'f>(&mut self, now: u64, frame: &Frame<'f>) -> Result<Chunks<'f>, Reject> {
        let taken = self.take_frame(now, frame);
        match taken {
            Ok(_) => {
                let bytes = HEADER_BYTES.wrapping_add(frame.payload.len()) as u64;
                count(&mut self.counters.frames_received, 1);
                count(&mut self.counters.bytes_received, bytes);
            }
            Err(_) => count(&mut self.counters.rejected, 1),
        }
        taken
    }

    /// Goes up if the link is still connecting: the peer has shown that it knows this stream.
    fn connect(&mut self, now: u64, window: u16) {
        if self.state == State::Connecting && self.handshake.peer.is_some() {
            self.state = State::Up;
            self.agree();
            self.sender.open(window);
            self.handshake.due = false;
            self.liveness = Liveness::new();
            self.liveness.restart(now, &self.config.timing);
            self.raise(Event::Up);
        }
    }

    /// The peer is alive.
    fn hear(&mut self, now: u64) {
        if self.liveness.heard(now, &self.config.timing) {
            self.raise(Event::Found);
            self.round_trip.recover();
            if self.sender.is_waiting() {
                self.sender.time_out();
                self.rearm(now);
            }
        }
    }

    /// Drops what is queued, tells the peer if there is one, and enters `state`.
    fn end_stream(&mut self, state: State) {
        if let (Some(peer), State::Connecting | State::Up) = (self.handshake.peer, self.state) {
            self.farewell = Some(Farewell {
                version: peer.version,
                source: self.local_address(),
                destination: self.peer_address(peer.stream),
            });
        }
        self.state = state;
        self.handshake.due = false;
        self.repeat_at = None;
        self.round_trip = RoundTrip::new();
        self.sender.restart(self.config.first_sequence);
        self.receiver.restart(0);
        self.events = 0;
    }

    /// Sets the retransmission timer anew.
    fn rearm(&mut self, now: u64) {
        let timeout = self.round_trip.timeout(&self.config.timing);
        self.repeat_at = self.sender.is_waiting().then(|| now.saturating_add(timeout));
    }

    fn raise(&mut self, event: Event) {
        // Of lost and found only what is news to the owner is kept.
        let opposite = match event {
            Event::Lost => Event::Found.bit(),
            Event::Found => Event::Lost.bit(),
            _ => 0,
        };
        if self.events & opposite != 0 {
            self.events &= !opposite;
        } else {
            self.events |= event.bit();
        }
    }

    /// A frame that came early, now that those before it have been handled.
    pub fn next_stored(&mut self) -> Option<Stored<S::Buffer>> {
        match self.receiver.pop() {
            Ok(stored) => stored,
            Err(_) => {
                count(&mut self.counters.rejected, 1);
                None
            }
        }
    }

    /// What has happened, in the order of [`Event`].
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = Event::ALL.into_iter().find(|event| self.events & event.bit() != 0)?;
        self.events &= !event.bit();
        Some(event)
    }

    fn local_address(&self) -> Address {
        Address {
            node: self.config.local_node,
            incarnation: self.config.local_incarnation.get(),
            stream: self.handshake.stream,
        }
    }

    fn peer_address(&self, stream: u32) -> Address {
        Address { node: self.config.peer_node, incarnation: self.peer_incarnation, stream }
    }

    /// When [`on_timer`](Self::on_timer) is to be called; later than the time given to the last
    /// call of it.
    pub fn next_deadline(&self) -> Option<u64> {
        match self.state {
            _ if self.transport_bytes == 0 => None,
            State::Down | State::Broken => None,
            State::Connecting => Some(self.handshake.deadline()),
            State::Up => {
                let ack = self.receiver.acknowledgement.deadline.unwrap_or(u64::MAX);
                let repeat = self.repeat_at.unwrap_or(u64::MAX);
                let announce = self.handshake.deadline_up().unwrap_or(u64::MAX);
                Some(self.liveness.deadline().min(ack).min(repeat).min(announce))
            }
        }
    }

    /// Does what is due by now. Early and needless calls do no harm.
    pub fn on_timer(&mut self, now: u64) {
        if self.transport_bytes == 0 {
            return;
        }
        match self.state {
            State::Down | State::Broken => {}
            State::Connecting => self.handshake.on_timer(now, &self.config.timing),
            State::Up => {
                self.receiver.acknowledgement.on_timer(now);
                self.handshake.on_timer_up(now, &self.config.timing);
                if self.repeat_at.is_some_and(|at| at <= now) {
                    self.round_trip.back_off();
                    self.sender.time_out();
                    self.rearm(now);
                }
                if self.liveness.on_timer(now, &self.config.timing) {
                    self.raise(Event::Lost);
                }
            }
        }
    }

    /// The storage given to [`new`](Self::new), to fill a pool for instance.
    pub fn storage_mut(&mut self) -> &mut S {
        &mut self.storage
    }

    /// What the link is about.
    pub fn state(&self) -> State {
        self.state
    }

    /// The peer's incarnation as last told by [`peer_up`](Self::peer_up).
    pub fn peer_incarnation(&self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.peer_incarnation)
    }

    /// Frames that were sent and that the peer may not have yet.
    pub fn in_flight(&self) -> u32 {
        self.sender.outstanding()
    }

    /// Frames that wait to be sent for the first time.
    pub fn queued(&self) -> u32 {
        self.sender.queued().saturating_sub(self.sender.outstanding())
    }

    /// State and counters; the owner fills in the transport. Counters last as long as the link.
    pub fn info(&self) -> LinkInfo {
        let state = match self.state {
            _ if self.transport_bytes == 0 => LINK_DOWN,
            State::Down | State::Broken => LINK_DOWN,
            State::Connecting => LINK_CONNECTING,
            State::Up => LINK_UP,
        };
        LinkInfo { state, rtt_us: self.round_trip.smoothed_us(), ..self.counters }
    }
}

fn count(counter: &mut u64, by: u64) {
    *counter = counter.wrapping_add(by);
}
