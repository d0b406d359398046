// SPDX-License-Identifier: GPL-2.0
//! A peer node: the link protocol over the transport that is attached, and what becomes of the
//! records it brings.

mod arrival;
pub(crate) mod look;
mod proxy;
#[cfg(CONFIG_DVK_TIPC)]
mod tipc;

use super::abi::errno::Errno;
use super::abi::ioctl::{
    self, LinkInfo, CONTAINER_NONE, EVENT_FORGED, EVENT_LINK_DETACHED, EVENT_LINK_FOUND,
    EVENT_LINK_INCOMPATIBLE, EVENT_LINK_LOST, EVENT_LINK_RESET, EVENT_LINK_UP,
};
use super::abi::wire::frame::{Chunk, Chunks, HEADER_BYTES, MAX_RECORD_BYTES, MAX_WINDOW};
use super::abi::wire::record::{Record, Step, RECORD_BYTES};
use super::abi::wire::transfer::{self, CopyRecord, CopyStep, DataHead};
use super::abi::Endpoint;
use super::carrier::Carrier;
use super::container::refusal;
use super::dvs::{self, Identity};
use super::local_port::Timeout;
use super::rules::fifo::Fifo;
use super::rules::link::{
    Config, Event, Link, Outgoing, Slot, State as LinkState, Storage, SubmitError, Timing,
};
use super::rules::port::Answer;
use super::serve;
use super::storage::KernelArray;
use super::sys::{self, new_bh_lock, BhLock, Packet, PollQueue, Timer, WaitQueue, WokenBy};
use super::trace;
use super::transfer::{Incoming, Request, Transfers};
use core::ffi::{c_void, CStr};
use core::num::NonZeroU32;
use core::ops::ControlFlow;
use kernel::bindings;
use kernel::container_of;
use kernel::prelude::*;
use kernel::sync::Arc;

/// Records that wait for room in the link beyond which nothing new is begun. What answers or
/// withdraws is taken beyond it: there is at most one of it for what was begun.
const BEGIN_BACKLOG: usize = 4096;

/// How long after an event about forged records there is no other, in nanoseconds.
const FORGED_INTERVAL_NS: u64 = 1_000_000_000;

/// The memory of a link. Frames are queued under spin locks and in softirqs.
struct LinkMemory;

impl Storage for LinkMemory {
    type Buffer = Packet;
    type Slots = KVec<Slot<Packet>>;

    fn slots(&mut self, count: usize) -> Option<Self::Slots> {
        let mut slots = KVec::with_capacity(count, GFP_KERNEL).ok()?;
        for _ in 0..count {
            slots.push_within_capacity(Slot::EMPTY).ok()?;
        }
        Some(slots)
    }

    fn buffer(&mut self, bytes: usize) -> Option<Packet> {
        Packet::new(bytes)
    }

    fn make_exclusive(&mut self, packet: &mut Packet) -> bool {
        packet.make_exclusive()
    }
}

/// How long a proxy may take to fetch a frame before the link looks again whether it has.
const PROXY_PATIENCE_NS: u64 = 10_000_000;

/// How long a new transport waits at most for what its frames have no room for, and how often that
/// is looked at.
const NARROW_PATIENCE_NS: u64 = 2_000_000_000;
const NARROW_LOOK_NS: u64 = 5_000_000;

/// How long to wait for memory before a record is tried again.
const MEMORY_WAIT_NS: u64 = 10_000_000;

/// A record as it goes over the wire, other than data.
#[derive(Clone, Copy)]
struct Encoded {
    bytes: [u8; RECORD_BYTES],
    len: usize,
}

impl From<&Record> for Encoded {
    fn from(record: &Record) -> Self {
        let mut bytes = [0; RECORD_BYTES];
        let len = record.encode(&mut bytes);
        Self { bytes, len }
    }
}

impl From<&CopyRecord> for Encoded {
    fn from(record: &CopyRecord) -> Self {
        let mut bytes = [0; RECORD_BYTES];
        let len = record.encode(&mut bytes);
        Self { bytes, len }
    }
}

/// What the lock of a peer guards.
struct State {
    link: KBox<Link<LinkMemory>>,
    carrier: Option<Carrier>,
    /// Records that the link had no room for, in order.
    backlog: Fifo<Encoded, KernelArray<Option<Encoded>>>,
    /// The highest incarnation that the peer was said to run with.
    newest: u32,
    /// The beginning of a record whose end is in a later frame.
    partial: KVec<u8>,
    /// The data record whose end is in a later frame.
    incoming: Option<Incoming>,
    /// When the timer will expire at the latest; 0 if it is not set.
    armed_ns: u64,
    /// Records that were malformed, or whose sender may not speak for their source.
    forged: u64,
    /// Until when more of them are no event.
    quiet_until_ns: u64,
    /// Fences asked for and answered, as running numbers.
    fences: (u32, u32),
}

/// One peer node. There is one for each that was up since this node joined the DVS.
#[pin_data]
pub(crate) struct PeerLink {
    node: u16,
    #[pin]
    timer: Timer,
    /// The copies between this node and the peer.
    #[pin]
    pub(crate) transfers: Transfers,
    /// Those who wait for room in the link.
    #[pin]
    room: WaitQueue,
    /// The proxies that wait for a frame.
    #[pin]
    outgoing: PollQueue,
    /// Those who wait for a fence.
    #[pin]
    fenced: PollQueue,
    /// Outermost spin lock of the driver: see `dvk_main.rs`. Held while records are delivered, so
    /// that two CPUs never deliver the records of one peer at once.
    #[pin]
    state: BhLock<State>,
}

impl PeerLink {
    /// The link of this node, `identity`, to `node`; it is down.
    pub(crate) fn new(identity: Identity, node: u16) -> Result<Arc<Self>, Errno> {
        let config = Config {
            cluster: identity.cluster,
            local_node: identity.node,
            peer_node: node,
            local_incarnation: NonZeroU32::new(identity.incarnation).ok_or(Errno::Invalid)?,
            versions: super::versions(),
            receive_window: MAX_WINDOW,
            first_sequence: 0,
            timing: Timing::DEFAULT,
        };
        let link = Link::new(config, LinkMemory).map_err(|_| Errno::NoMemory)?;
        let link = KBox::new(link, GFP_KERNEL).map_err(|_| Errno::NoMemory)?;
        let state = State {
            link,
            carrier: None,
            backlog: Fifo::default(),
            partial: KVec::new(),
            incoming: None,
            newest: 0,
            armed_ns: 0,
            forged: 0,
            quiet_until_ns: 0,
            fences: (0, 0),
        };
        let peer = pin_init!(Self {
            node,
            fenced <- PollQueue::new(),
            timer <- Timer::new(),
            transfers <- Transfers::new(),
            room <- WaitQueue::new(),
            outgoing <- PollQueue::new(),
            state <- new_bh_lock!(state, c"dvk_peer"),
        });
        Arc::pin_init(peer, GFP_KERNEL).map_err(|_| Errno::NoMemory)
    }

    /// Whether the peer is up.
    pub(crate) fn is_up(&self) -> bool {
        self.state.lock().link.peer_incarnation().is_some()
    }

    /// The peer runs with this incarnation. Whoever waits for an earlier one was told before.
    pub(crate) fn up(&self, incarnation: NonZeroU32) {
        let now = sys::now_ns();
        let mut state = self.state.lock();
        state.newest = incarnation.get();
        state.link.peer_up(now, incarnation);
        trace::link_changed(self.node, c"node-up");
        self.pump(&mut state, now);
    }

    /// Whether the peer may come up with this incarnation.
    ///
    /// # Errors
    /// [`Errno::Exists`] if it is up with it, [`Errno::Stale`] if a later one is known.
    pub(crate) fn check_up(&self, incarnation: NonZeroU32) -> Result<(), Errno> {
        let state = self.state.lock();
        match state.link.peer_incarnation() {
            Some(known) if known == incarnation => Err(Errno::Exists),
            _ if incarnation.get() < state.newest => Err(Errno::Stale),
            _ => Ok(()),
        }
    }

    /// The peer is gone. Whoever waits for it is for the caller to tell.
    pub(crate) fn down(&self) {
        let now = sys::now_ns();
        let mut state = self.state.lock();
        if state.link.peer_incarnation().is_some() {
            trace::link_changed(self.node, c"node-down");
        }
        state.link.peer_down();
        self.forget_stream(&mut state);
        self.pump(&mut state, now);
    }

    /// Gives up everything for good.
    pub(crate) fn shutdown(&self) {
        self.down();
        self.timer.shutdown();
        let carrier = self.state.lock().carrier.take();
        drop(carrier);
    }

    /// Waits, for a while, until no queued frame is longer than a transport to come can carry in its
    /// frames of `frame_bytes`, so that the stream goes on over it.
    ///
    /// # Errors
    /// [`Errno::Interrupted`].
    pub(crate) fn narrow(&self, frame_bytes: usize) -> Result<(), Errno> {
        let payload_bytes = frame_bytes.saturating_sub(HEADER_BYTES);
        let patience = sys::now_ns().saturating_add(NARROW_PATIENCE_NS);
        while !self.state.lock().link.narrow(payload_bytes) {
            let now = sys::now_ns();
            if now >= patience {
                break;
            }
            let soon = now.saturating_add(NARROW_LOOK_NS);
            match self.room.wait_until(WokenBy::Signals, Some(soon), || false) {
                Err(Errno::TimedOut) => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Carries the link's frames by `carrier`, in place of the one before.
    ///
    /// # Errors
    /// [`Errno::TooLong`] if its frames are too short for the protocol.
    pub(crate) fn attach(&self, carrier: Carrier) -> Result<(), Errno> {
        let now = sys::now_ns();
        let old = {
            let mut state = self.state.lock();
            let payload_bytes = carrier.payload_bytes();
            state.link.attach(now, payload_bytes).map_err(|_| Errno::TooLong)?;
            trace::link_changed(self.node, c"attached");
            let old = state.carrier.replace(carrier);
            self.pump(&mut state, now);
            old
        };
        drop(old);
        // A proxy that waits for frames of the transport before is to learn that there are none.
        self.outgoing.wake();
        Ok(())
    }

    /// Stops carrying frames; what is queued waits for another transport.
    pub(crate) fn detach(&self) -> Result<(), Errno> {
        self.detach_if(|_| true).ok_or(Errno::NotConnected)?;
        trace::link_changed(self.node, c"detached");
        Ok(())
    }

    /// Detaches from a device that is going away.
    pub(crate) fn device_gone(&self, device: *const c_void) {
        if self.detach_if(|carrier| carrier.is_by(device)).is_some() {
            self.happened(EVENT_LINK_DETACHED);
        }
    }

    /// Detaches from a carrier that `unwanted` accepts.
    fn detach_if(&self, unwanted: impl FnOnce(&Carrier) -> bool) -> Option<()> {
        let old = {
            let mut state = self.state.lock();
            if !state.carrier.as_ref().is_some_and(unwanted) {
                return None;
            }
            state.link.detach();
            state.carrier.take()
        };
        self.outgoing.wake();
        old.map(drop)
    }

    /// Takes the new MTU of `device` into account, if it is the one attached. A stream whose
    /// frames no longer fit begins anew.
    pub(crate) fn device_resized(&self, device: *const c_void) {
        let now = sys::now_ns();
        let mut state = self.state.lock();
        let Some(carrier) = &state.carrier else { return };
        if !carrier.is_by(device) {
            return;
        }
        let payload_bytes = carrier.payload_bytes();
        if state.link.attach(now, payload_bytes).is_err() {
            state.link.detach();
        }
        self.pump(&mut state, now);
    }

    /// State and counters.
    pub(crate) fn info(&self) -> LinkInfo {
        let state = self.state.lock();
        let mut info = state.link.info();
        info.transport = state.carrier.as_ref().map_or(0, Carrier::transport);
        info.rejected = info.rejected.wrapping_add(state.forged);
        info
    }

    /// Queues a record. `wanted` is asked under the link's lock whether it is still to be sent:
    /// a call that ended meanwhile, because the link was reset, must not reach the peer.
    pub(crate) fn submit(
        &self,
        record: &Record,
        wanted: impl FnOnce() -> bool,
    ) -> Result<(), Errno> {
        self.submit_encoded(&record.into(), record.step.begins(), wanted)
    }

    /// Queues the first record of a part of a copy, as [`submit`](Self::submit).
    pub(crate) fn ask_copy(
        &self,
        record: &CopyRecord,
        wanted: impl FnOnce() -> bool,
    ) -> Result<(), Errno> {
        self.submit_encoded(&record.into(), true, wanted)
    }

    /// Queues another record of it. A link that cannot take it is reset, or down, and whoever waits
    /// hears that from it.
    pub(crate) fn answer_copy(&self, record: &CopyRecord) {
        let _ = self.submit_encoded(&record.into(), false, || true);
    }

    /// Queues a data record once there is room for it, for as long as `wanted` says that it is to
    /// be sent. Returns whether it was.
    ///
    /// Data leaves room in the link for what is short, so that a copy holds up no message for long.
    ///
    /// # Errors
    /// [`Errno::NodeDown`], [`Errno::TimedOut`], [`Errno::Interrupted`].
    pub(crate) fn submit_data(
        &self,
        record: &[u8],
        timeout: Timeout,
        wanted: impl Fn() -> bool,
    ) -> Result<bool, Errno> {
        let deadline = match timeout {
            Timeout::Until(at) => Some(at),
            Timeout::Never | Timeout::Forever => None,
        };
        loop {
            let mut tried = Err(SubmitError::Full);
            self.room.wait_until(WokenBy::Signals, deadline, || {
                tried = self.try_data(record, &wanted);
                tried != Err(SubmitError::Full)
            })?;
            match tried {
                Ok(sent) => return Ok(sent),
                Err(SubmitError::NotUp) => return Err(Errno::NodeDown),
                Err(SubmitError::Length) => return Err(Errno::TooLong),
                Err(SubmitError::Full) => {}
                Err(SubmitError::NoMemory) => {
                    // Nobody says when there is some again.
                    let soon = sys::now_ns().saturating_add(MEMORY_WAIT_NS);
                    let until = deadline.map_or(soon, |at| at.min(soon));
                    match self.room.wait_until(WokenBy::Signals, Some(until), || false) {
                        Err(Errno::TimedOut) if deadline != Some(until) => {}
                        other => other?,
                    }
                }
            }
        }
    }

    /// Queues a data record if it is wanted and there is room for it; says whether it was wanted.
    fn try_data(&self, record: &[u8], wanted: impl Fn() -> bool) -> Result<bool, SubmitError> {
        let now = sys::now_ns();
        let mut state = self.state.lock();
        if !state.is_live() {
            return Err(SubmitError::NotUp);
        }
        if !wanted() {
            return Ok(false);
        }
        if !state.backlog.is_empty() {
            // What is short goes first; when it has gone, there is room.
            return Err(SubmitError::Full);
        }
        state.link.submit_bulk(record)?;
        self.pump(&mut state, now);
        Ok(true)
    }

    fn submit_encoded(
        &self,
        record: &Encoded,
        begins: bool,
        wanted: impl FnOnce() -> bool,
    ) -> Result<(), Errno> {
        let now = sys::now_ns();
        let mut state = self.state.lock();
        if state.link.peer_incarnation().is_none() {
            return Err(Errno::NodeDown);
        }
        // What answers or withdraws waits for a transport; somebody waits for it.
        if state.carrier.is_none() && begins {
            return Err(Errno::NotConnected);
        }
        if !wanted() {
            return Ok(());
        }
        if begins && state.backlog.len() >= BEGIN_BACKLOG {
            return Err(Errno::Limit);
        }
        let queued = state.queue(record);
        if queued.is_err() && !begins {
            self.restart(&mut state);
        }
        self.pump(&mut state, now);
        queued
    }

    /// Waits until everything has been delivered, on both sides, that the link carries now. A link
    /// whose stream is lost carries nothing.
    ///
    /// # Errors
    /// [`Errno::TimedOut`], [`Errno::Interrupted`].
    pub(crate) fn fence(
        &self,
        container: u16,
        endpoint: Endpoint,
        deadline_ns: Option<u64>,
    ) -> Result<(), Errno> {
        let now = sys::now_ns();
        let number = {
            let mut state = self.state.lock();
            if state.link.peer_incarnation().is_none() {
                return Ok(());
            }
            let number = state.fences.0.wrapping_add(1);
            let step = Step::Fence { call: number };
            let record = Record { container, from: endpoint, to: endpoint, step };
            state.queue(&(&record).into())?;
            state.fences.0 = number;
            self.pump(&mut state, now);
            number
        };
        self.fenced.wait(deadline_ns, || {
            let (_, answered) = self.state.lock().fences;
            // The numbers run round.
            answered.wrapping_sub(number) < u32::MAX / 2
        })
    }

    /// The stream is lost, and whoever waited for something in it was told.
    pub(crate) fn release_fences(&self) {
        {
            let mut state = self.state.lock();
            state.fences.1 = state.fences.0;
        }
        self.fenced.wake();
    }

    fn take_chunks(&self, state: &mut State, mut chunks: Chunks<'_>) -> ControlFlow<()> {
        chunks.try_for_each(|chunk| self.take_chunk(state, &chunk))
    }

    /// Breaks if the stream was given up.
    fn take_chunk(&self, state: &mut State, chunk: &Chunk<'_>) -> ControlFlow<()> {
        if chunk.first {
            state.partial.clear();
            state.incoming = if DataHead::begins(chunk.data) {
                // Data goes straight to where it belongs. Every frame has room for its head.
                let Ok((head, data)) = DataHead::decode(chunk.data) else {
                    self.forged(state, c"data");
                    state.incoming = Some(Incoming::NOBODYS);
                    return ControlFlow::Continue(());
                };
                let mut incoming = self.transfers.receiver(&head);
                incoming.take(data);
                Some(incoming)
            } else {
                None
            };
        } else if let Some(incoming) = &mut state.incoming {
            incoming.take(chunk.data);
        }
        if state.incoming.is_some() {
            if chunk.last {
                state.incoming = None;
            }
            return ControlFlow::Continue(());
        }
        if chunk.first && chunk.last {
            return self.take_record(state, chunk.data);
        }
        // Other records are short; the beginning of a longer one is enough to refuse it.
        let room = (RECORD_BYTES + 1).saturating_sub(state.partial.len());
        let kept = &chunk.data[..chunk.data.len().min(room)];
        if state.partial.extend_from_slice(kept, GFP_ATOMIC).is_err() {
            self.restart(state);
            return ControlFlow::Break(());
        }
        if chunk.last {
            let record = core::mem::take(&mut state.partial);
            return self.take_record(state, &record);
        }
        ControlFlow::Continue(())
    }

    /// Breaks if the stream was given up.
    fn take_record(&self, state: &mut State, bytes: &[u8]) -> ControlFlow<()> {
        if bytes.first().is_some_and(|kind| transfer::KINDS.contains(kind)) {
            return self.take_copy_record(state, bytes);
        }
        let Ok(record) = Record::decode(bytes) else {
            self.forged(state, c"record");
            return ControlFlow::Continue(());
        };
        if let Step::Fence { call } = record.step {
            let answer = Record { step: Step::Fenced { call }, ..record };
            return self.queue_answer(state, &(&answer).into());
        }
        if let Step::Fenced { call } = record.step {
            let (asked, answered) = state.fences;
            if call.wrapping_sub(answered) <= asked.wrapping_sub(answered) {
                state.fences.1 = call;
                self.fenced.wake();
            }
            return ControlFlow::Continue(());
        }
        let container = dvs::get().ok().and_then(|dvs| dvs.containers.get(record.container));
        if let Step::Returned { .. } = record.step {
            if container.is_some_and(|container| container.returned(self.node, &record).is_err()) {
                self.forged(state, c"source");
            }
            return ControlFlow::Continue(());
        }
        let arrived = match &container {
            Some(container) => container.arrived(self.node, &record),
            None => Ok(refusal(&record.step, Errno::NoDevice)),
        };
        let answer = arrived.unwrap_or_else(|_| {
            self.forged(state, c"source");
            refusal(&record.step, Errno::Denied)
        });
        let call = record.step.call();
        let (from, step) = match (answer, &record.step) {
            (None, _) => return ControlFlow::Continue(()),
            (Some(Answer::Returned), step) => {
                let epoch = container.map_or(0, |container| container.epoch(record.to));
                let bits = if let Step::Notify { bits } = *step { bits } else { 0 };
                (record.to, Step::Returned { call, bits, epoch })
            }
            // Nobody waits for what becomes of a notification.
            (Some(_), Step::Notify { .. }) => return ControlFlow::Continue(()),
            (Some(answer), _) => match (answer, answer.step(call)) {
                (_, None) => return ControlFlow::Continue(()),
                (Answer::Bound(endpoint), Some(step)) => (endpoint, step),
                (_, Some(step)) => (record.to, step),
            },
        };
        let answer = Record { from, to: record.from, step, ..record };
        self.queue_answer(state, &(&answer).into())
    }

    /// Breaks if the stream was given up.
    fn queue_answer(&self, state: &mut State, answer: &Encoded) -> ControlFlow<()> {
        if state.queue(answer).is_err() {
            // The peer would wait for ever for what cannot be said.
            self.restart(state);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    /// Breaks if the stream was given up.
    fn take_copy_record(&self, state: &mut State, bytes: &[u8]) -> ControlFlow<()> {
        let Ok(record) = CopyRecord::decode(bytes) else {
            self.forged(state, c"record");
            return ControlFlow::Continue(());
        };
        if !record.step.begins() {
            self.transfers.arrived(&record);
            return ControlFlow::Continue(());
        }
        let (head, refused) = match self.admit(state, &record) {
            Ok(()) => return ControlFlow::Continue(()),
            Err(refused) => refused,
        };
        let step = CopyStep::Done { copied: 0, error: Some(refused) };
        self.queue_answer(state, &(&CopyRecord { head: head.back(), step }).into())
    }

    /// Takes in a part of a copy that the peer asks for, or says whose is refused, and why.
    fn admit(
        &self,
        state: &mut State,
        record: &CopyRecord,
    ) -> Result<(), (transfer::CopyHead, Errno)> {
        let refuse = |error| (record.head, error);
        let dvs = dvs::get().map_err(refuse)?;
        let container = dvs.containers.get(record.head.container);
        let container = container.ok_or(refuse(Errno::NoDevice))?;
        if !container.may_speak(record.head.from, self.node) {
            self.forged(state, c"source");
            return Err(refuse(Errno::Denied));
        }
        match self.transfers.asked(record) {
            Request::Queued => return Ok(()),
            Request::Refused(error) => return Err(refuse(error)),
            Request::Start => {}
        }
        let started = dvs.peers.get(self.node).is_some_and(serve::start);
        match if started { None } else { self.transfers.not_started() } {
            None => Ok(()),
            Some(transfer) => {
                // It may be an earlier one than that of this record.
                self.transfers.finish(&transfer);
                Err((transfer.head, Errno::NoMemory))
            }
        }
    }

    /// Gives the stream up and begins a new one: both sides tell whoever waits.
    fn restart(&self, state: &mut State) {
        let Some(incarnation) = state.link.peer_incarnation() else { return };
        state.link.peer_down();
        self.reset(state, incarnation);
    }

    /// The stream is lost with everything in it.
    fn reset(&self, state: &mut State, incarnation: NonZeroU32) {
        self.forget_stream(state);
        if let Ok(dvs) = dvs::get() {
            dvs.fail_waiters(self.node);
        }
        state.fences.1 = state.fences.0;
        self.fenced.wake();
        state.link.peer_up(sys::now_ns(), incarnation);
    }

    /// Tells those who watch this node.
    fn report(&self, event: Event) {
        let kind = match event {
            Event::Up => EVENT_LINK_UP,
            Event::Lost => EVENT_LINK_LOST,
            Event::Found => EVENT_LINK_FOUND,
            Event::Reset => EVENT_LINK_RESET,
            Event::Incompatible => EVENT_LINK_INCOMPATIBLE,
            Event::Room => return,
        };
        self.happened(kind);
    }

    fn happened(&self, kind: u32) {
        dvs::happened(ioctl::Event {
            kind,
            container: CONTAINER_NONE,
            node: u32::from(self.node),
            ..ioctl::Event::default()
        });
    }

    /// The peer sent what it may not, or what nobody understands. A flood of that is one event.
    fn forged(&self, state: &mut State, what: &'static CStr) {
        trace::frame_rejected(Some(self.node), what);
        state.forged = state.forged.wrapping_add(1);
        let now = sys::now_ns();
        if now >= state.quiet_until_ns {
            state.quiet_until_ns = now.saturating_add(FORGED_INTERVAL_NS);
            self.happened(EVENT_FORGED);
        }
    }

    /// Drops what was to be sent, and ends the copies that it was for.
    fn forget_stream(&self, state: &mut State) {
        state.backlog = Fifo::default();
        state.partial.clear();
        state.incoming = None;
        self.transfers.lost();
        self.room.wake_all();
    }

    /// Does what the link asks for after each call: handles its events, sends its frames, sets
    /// its timer.
    fn pump(&self, state: &mut State, now: u64) {
        while let Some(event) = state.link.poll_event() {
            self.report(event);
            match event {
                Event::Reset => {
                    if let Some(incarnation) = state.link.peer_incarnation() {
                        self.reset(state, incarnation);
                    }
                }
                Event::Incompatible => {
                    kernel::pr_warn_once!(
                        "node {} speaks no version of the link protocol that this node does\n",
                        self.node
                    );
                }
                Event::Room => self.room.wake_all(),
                Event::Up | Event::Lost | Event::Found => {}
            }
        }
        state.drain_backlog();
        let State { link, carrier, .. } = state;
        let mut earliest = 0;
        match carrier {
            Some(Carrier::Ethernet { device, address }) => {
                let mut burst = device.burst(address);
                while let Some(frame) = link.poll_outgoing(now) {
                    match frame {
                        Outgoing::Data(packet, bytes) => burst.add(packet, bytes),
                        Outgoing::Short(frame) => burst.add_bytes(&frame),
                    }
                }
            }
            #[cfg(CONFIG_DVK_TIPC)]
            Some(Carrier::Tipc { socket, .. }) => {
                while !socket.is_congested() {
                    match link.poll_outgoing(now) {
                        Some(Outgoing::Data(packet, bytes)) => socket.transmit(&packet[..bytes]),
                        Some(Outgoing::Short(frame)) => socket.transmit(&frame),
                        None => break,
                    }
                }
                if socket.is_congested() {
                    // As for a proxy.
                    earliest = now.saturating_add(PROXY_PATIENCE_NS);
                }
            }
            Some(Carrier::Proxy { .. }) => {
                // It takes the frames itself. What is overdue until then is not to be looked at
                // at every tick.
                self.outgoing.wake();
                earliest = now.saturating_add(PROXY_PATIENCE_NS);
            }
            None => {}
        }
        self.arm(state, now, earliest);
    }

    /// Sets the timer anew after frames were taken out of the link.
    fn rearm(&self, state: &mut State, now: u64) {
        self.arm(state, now, 0);
    }

    /// Sets the timer to when the link wants to be looked at; what it wanted before now, to
    /// `earliest`.
    fn arm(&self, state: &mut State, now: u64, earliest: u64) {
        if let Some(deadline) = state.link.next_deadline() {
            let deadline = if deadline <= now { deadline.max(earliest) } else { deadline };
            if state.armed_ns == 0 || deadline < state.armed_ns {
                state.armed_ns = deadline;
                self.timer.set(now, deadline);
            }
        }
    }

    /// # Safety
    /// `timer` is the `timer` of a `PeerLink`.
    pub(crate) unsafe fn timer_expired(timer: *mut bindings::timer_list) {
        let timer: *mut Timer = timer.cast();
        // SAFETY: by this function's contract; a peer outlives its timer, which is shut down
        // before the last reference is dropped.
        let peer = unsafe { &*container_of!(timer, Self, timer) };
        let now = sys::now_ns();
        let mut state = peer.state.lock();
        state.armed_ns = 0;
        state.link.on_timer(now);
        peer.pump(&mut state, now);
    }
}

impl State {
    fn is_live(&self) -> bool {
        matches!(self.link.state(), LinkState::Connecting | LinkState::Up)
    }

    /// Queues a record in the link, or behind those that it has no room for.
    fn queue(&mut self, record: &Encoded) -> Result<(), Errno> {
        if !self.is_live() {
            return Err(Errno::NodeDown);
        }
        if self.backlog.is_empty() && self.offer(record) {
            return Ok(());
        }
        self.backlog.push(*record).map_err(|_| Errno::NoMemory)
    }

    /// Whether the link took the record.
    fn offer(&mut self, record: &Encoded) -> bool {
        match self.link.submit(&record.bytes[..record.len]) {
            Ok(()) => true,
            Err(SubmitError::Full | SubmitError::NoMemory | SubmitError::NotUp) => false,
            Err(SubmitError::Length) => {
                const { assert!(RECORD_BYTES <= MAX_RECORD_BYTES) };
                false
            }
        }
    }

    fn drain_backlog(&mut self) {
        while self.is_live() {
            let Some(record) = self.backlog.find(|_| true).map(|record| *record) else { return };
            if !self.offer(&record) {
                return;
            }
            self.backlog.take(|_| true);
        }
    }
}
