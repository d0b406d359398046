// SPDX-License-Identifier: GPL-2.0 OR MIT
//! A port on its way between nodes.
//!
//! A migration carries little: what waits for the endpoint is sent back to who waits, with
//! [`Errno::Moved`], and is tried anew when the endpoint has settled. What cannot be sent back is
//! carried in the endpoint's [`State`](super::super::migration::State): the clients whose requests
//! were received and not answered, and notifications that were not received.
//!
//! The original DVS carried the queues as well, and lost notifications and commands on the way.

use super::super::abi::errno::Errno;
use super::super::abi::ioctl::HOW_NOTIFY;
use super::super::abi::wire::record::Step;
use super::super::abi::{Endpoint, Message};
use super::super::fifo::Storage;
use super::super::migration::{Broken, Reader, Writer};
use super::Privilege;
use super::{
    Answer, Arrival, Effect, Filter, Mode, Notice, Outcome, Peer, PeerCall, Port, Receive, Wait,
    NOTICES,
};

/// Where a port is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It is the endpoint.
    Settled,
    /// It is frozen and about to move away.
    Leaving {
        /// Its file is closed: if it stays after all, it dies.
        closed: bool,
    },
    /// The endpoint is moving here: what comes waits.
    Arriving {
        /// A file has taken it over.
        adopted: bool,
    },
    /// It stands by for another that is the endpoint.
    Standby,
    /// The endpoint is elsewhere.
    Gone,
    /// The endpoint is dead.
    Dead,
}

impl Stage {
    /// Whether what waits for the endpoint waits here.
    pub(super) fn takes(self) -> bool {
        matches!(self, Self::Settled | Self::Arriving { .. } | Self::Standby)
    }

    /// Why the endpoint says nothing to others.
    pub(super) fn check_speaks(self) -> Result<(), Errno> {
        match self {
            Self::Settled => Ok(()),
            Self::Leaving { .. } | Self::Arriving { .. } => Err(Errno::Busy),
            Self::Standby => Err(Errno::Denied),
            Self::Gone => Err(Errno::Stale),
            Self::Dead => Err(Errno::NotConnected),
        }
    }
}

/// What becomes of a port whose file is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The endpoint dies.
    Dies,
    /// Its move decides.
    Moves,
    /// It has moved away: nothing is left to do.
    Gone,
}

/// What the end of a move asks of whoever runs the port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resumed {
    /// The port's blocking call is over: wake its thread.
    pub wake: bool,
    /// Whose `send` is to get [`Step::Accepted`].
    pub accepted: Option<PeerCall>,
    /// The open call, and who is to get [`Step::Watch`] for it.
    pub watch: Option<PeerCall>,
}

impl<S: Storage> Port<S> {
    /// A port that stands by for `me`, which is bound on another node.
    pub fn standby(me: Endpoint) -> Self {
        Self { stage: Stage::Standby, ..Self::new(me) }
    }

    /// Whether it neither takes nor says anything until its move is decided.
    pub fn is_moving(&self) -> bool {
        matches!(self.stage, Stage::Leaving { .. } | Stage::Arriving { .. })
    }

    /// Whether it [stands by](Self::standby).
    pub fn is_standby(&self) -> bool {
        self.stage == Stage::Standby
    }

    /// Freezes the port, which is about to move. A call that waits for nothing in particular ends
    /// with [`Errno::Busy`]. Returns whether a thread is to be woken.
    ///
    /// # Errors
    /// [`Errno::WouldBlock`] while a call is open that a peer has to end, [`Errno::Busy`] of a port
    /// that is not the endpoint.
    pub fn freeze(&mut self) -> Result<bool, Errno> {
        if self.stage != Stage::Settled {
            return Err(Errno::Busy);
        }
        let wake = match self.wait {
            Wait::Idle | Wait::Done(_) => false,
            Wait::Receive(_) | Wait::Unbind(_) | Wait::Bind { .. } => {
                self.wait = Wait::Done(Outcome::Failed(Errno::Busy));
                true
            }
            Wait::Peer { .. } | Wait::Cancelling { .. } => return Err(Errno::WouldBlock),
        };
        self.stage = Stage::Leaving { closed: false };
        Ok(wake)
    }

    /// One peer that waits in vain for this port, to be given [`Step::Failed`] with
    /// [`Errno::Moved`]. `None` when all have been told.
    pub fn next_returned(&mut self) -> Option<PeerCall> {
        let queued = self.inbox.take(|_| true).map(|arrival| arrival.call);
        queued.or_else(|| self.watchers.take(|_| true))
    }

    /// Ends a move, or a standing by, with the endpoint here.
    pub fn settle(&mut self) -> Resumed {
        self.stage = Stage::Settled;
        let Wait::Receive(filter) = self.wait else { return Resumed::default() };
        // As if the call began now: nothing was handed to it so far.
        self.wait = Wait::Idle;
        let call = self.call;
        match self.take_for(filter) {
            Ok(Some((how, accepted))) => {
                self.wait = Wait::Done(Outcome::Received { how });
                // `collect` counts it.
                self.received = self.received.wrapping_sub(1);
                Resumed { wake: true, accepted, watch: None }
            }
            Ok(None) => {
                self.wait = Wait::Receive(filter);
                let watch = filter.from.map(|peer| PeerCall { peer, call });
                Resumed { watch, ..Resumed::default() }
            }
            Err(error) => {
                self.wait = Wait::Done(Outcome::Failed(error));
                Resumed { wake: true, ..Resumed::default() }
            }
        }
    }

    /// The endpoint is elsewhere for good. Returns whether a thread is to be woken, and the call
    /// that its peer is to get [`Step::Cancel`] for. [`next_returned`](Self::next_returned) gives
    /// those who are to try elsewhere, and [`next_bereaved`](Self::next_bereaved) then those whose
    /// requests are lost; there are none if the clients were `carried`.
    pub fn depart(&mut self, carried: bool) -> (bool, Option<PeerCall>) {
        self.stage = Stage::Gone;
        if carried {
            self.clients = Default::default();
        }
        self.notices = Default::default();
        self.end_for(Errno::Stale)
    }

    /// Ends the open call of an endpoint that is no more here; as [`kill`](Self::kill) says.
    pub(super) fn end_for(&mut self, error: Errno) -> (bool, Option<PeerCall>) {
        let open = match self.wait {
            Wait::Idle | Wait::Done(_) => return (false, None),
            Wait::Receive(_) | Wait::Unbind(_) | Wait::Bind { .. } => None,
            Wait::Peer { peer, .. } | Wait::Cancelling { peer, .. } => {
                Some(PeerCall { peer, call: self.call })
            }
        };
        self.wait = Wait::Done(Outcome::Failed(error));
        (true, open)
    }

    /// Gives a port that is moving here to a file.
    ///
    /// # Errors
    /// [`Errno::Busy`] if one has it, [`Errno::NoEndpoint`] if it is not moving here.
    pub fn adopt(&mut self) -> Result<(), Errno> {
        match self.stage {
            Stage::Arriving { adopted: false } => {
                self.stage = Stage::Arriving { adopted: true };
                Ok(())
            }
            Stage::Arriving { adopted: true } => Err(Errno::Busy),
            _ => Err(Errno::NoEndpoint),
        }
    }

    /// Whether a file has [adopted](Self::adopt) it.
    pub fn is_adopted(&self) -> bool {
        self.stage == Stage::Arriving { adopted: true }
    }

    /// The port's file is closed; no thread is in it.
    pub fn close(&mut self) -> Closed {
        match &mut self.stage {
            Stage::Leaving { closed } => {
                *closed = true;
                Closed::Moves
            }
            Stage::Arriving { adopted } => {
                *adopted = false;
                self.wait = Wait::Idle;
                Closed::Moves
            }
            Stage::Gone => Closed::Gone,
            Stage::Settled | Stage::Standby | Stage::Dead => Closed::Dies,
        }
    }

    /// Whether its file was closed while it was moving away.
    pub fn is_closed(&self) -> bool {
        self.stage == Stage::Leaving { closed: true }
    }

    /// `endpoint` has moved from one node to another with everything it knew of this port. Returns
    /// whether a thread is to be woken.
    pub fn follow(&mut self, endpoint: Endpoint, from: u16, to: u16) -> bool {
        let was = Peer { endpoint, node: from };
        let is = Peer { endpoint, node: to };
        match &mut self.wait {
            Wait::Peer { peer, .. } | Wait::Cancelling { peer, .. } if *peer == was => *peer = is,
            _ => return self.look_elsewhere(was),
        }
        false
    }

    /// `endpoint`, which was on `from`, lives on elsewhere without knowing of this port. Returns
    /// whether a thread is to be woken.
    pub fn lose(&mut self, endpoint: Endpoint, from: u16) -> bool {
        let was = Peer { endpoint, node: from };
        match self.wait {
            Wait::Peer { peer, .. } | Wait::Cancelling { peer, .. } if peer == was => {
                self.wait = Wait::Done(Outcome::Failed(Errno::OwnerDead));
                true
            }
            _ => self.look_elsewhere(was),
        }
    }

    /// Lets a call begin anew that waits for something only `was` could do.
    fn look_elsewhere(&mut self, was: Peer) -> bool {
        let waits = match self.wait {
            Wait::Receive(Filter { from: Some(peer), .. }) | Wait::Unbind(peer) => peer == was,
            _ => false,
        };
        if waits {
            self.wait = Wait::Done(Outcome::Failed(Errno::Moved));
        }
        waits
    }

    /// Applies a step that begins or withdraws something at a port where nothing can begin.
    pub(super) fn send_back(&mut self, peer: Peer, step: &Step) -> Effect {
        if self.stage == Stage::Dead {
            return match step {
                Step::Cancel { call } => self.withdraw(PeerCall { peer, call: *call }),
                _ => Effect::answer(Answer::Failed(Errno::Stale)),
            };
        }
        match step {
            Step::Notify { .. } => Effect::answer(Answer::Returned),
            Step::Cancel { call } => {
                // A request that was received is known where the endpoint will be. One that was
                // queued has been sent back, and one that was answered needs no word.
                let call = PeerCall { peer, call: *call };
                if self.stage == Stage::Gone
                    || self.clients.find(|client| *client == call).is_some()
                {
                    Effect::answer(Answer::Returned)
                } else {
                    Effect::NONE
                }
            }
            _ => Effect::answer(Answer::Failed(Errno::Moved)),
        }
    }

    /// Takes what a `receive` with `filter` would get, if something is there: how it was sent, and
    /// whose `send` it was.
    pub(super) fn take_for(
        &mut self,
        filter: Filter,
    ) -> Result<Option<(u32, Option<PeerCall>)>, Errno> {
        if let Some(notice) = self.notices.take(|notice| filter.takes_notices_of(notice.source)) {
            self.received += 1;
            self.message = Message::notification(notice.source, notice.bits);
            return Ok(Some((HOW_NOTIFY, None)));
        }
        let wanted = |arrival: &Arrival| filter.takes(arrival.call.peer.endpoint, arrival.mode);
        let Some(arrival) = self.inbox.find(wanted) else { return Ok(None) };
        // The client is remembered before its message is taken, so that running out of memory
        // loses nothing.
        if arrival.mode == Mode::Request {
            self.clients.push(arrival.call).map_err(|_| Errno::NoMemory)?;
        }
        let Some(arrival) = self.inbox.take(wanted) else { return Ok(None) };
        self.received += 1;
        let accepted = (arrival.mode == Mode::Send).then_some(arrival.call);
        self.message = arrival.message;
        Ok(Some((arrival.mode.how(), accepted)))
    }

    /// Begins `receive` at a port that gives nothing out yet.
    pub(super) fn begin_waiting(&mut self, filter: Filter) -> Receive {
        Receive::Wait { call: self.begin(Wait::Receive(filter)) }
    }

    /// Writes what the port on the endpoint's next node needs to know; `epoch` is that of the
    /// move.
    pub fn export(&mut self, epoch: u32, out: &mut Writer<'_>) {
        out.begin(self.me, epoch);
        out.u32(self.call);
        out.u64(self.received);
        out.u64(self.sent);
        let block = self.privilege.to_block(self.me);
        out.u64(block.servers);
        out.u64(block.notify);
        out.u32(block.calls);
        out.count(self.clients.len());
        self.clients.for_each(|client| {
            out.u64(client.peer.endpoint.raw());
            out.u32(u32::from(client.peer.node));
            out.u32(client.call);
        });
        out.count(self.notices.len());
        self.notices.for_each(|notice| {
            out.u64(notice.source.raw());
            out.u64(notice.bits);
        });
    }

    /// The port that [`export`](Self::export) described, moving here.
    ///
    /// # Errors
    /// [`Errno::Invalid`] for bytes that `export` of this endpoint and epoch never writes,
    /// [`Errno::NoMemory`].
    pub fn import(me: Endpoint, epoch: u32, bytes: &[u8]) -> Result<Self, Errno> {
        let mut port = Self { stage: Stage::Arriving { adopted: false }, ..Self::new(me) };
        let mut read = Reader::begin(bytes, me, epoch).map_err(Broken::errno)?;
        port.fill(&mut read)?;
        read.end().map_err(Broken::errno)?;
        Ok(port)
    }

    fn fill(&mut self, read: &mut Reader<'_>) -> Result<(), Errno> {
        self.call = read.u32().map_err(Broken::errno)?;
        self.received = read.u64().map_err(Broken::errno)?;
        self.sent = read.u64().map_err(Broken::errno)?;
        let mut block = self.privilege.to_block(self.me);
        block.servers = read.u64().map_err(Broken::errno)?;
        block.notify = read.u64().map_err(Broken::errno)?;
        block.calls = read.u32().map_err(Broken::errno)?;
        self.privilege = Privilege::from_block(&block)?;
        for _ in 0..read.u32().map_err(Broken::errno)? {
            let endpoint = Endpoint::from_raw(read.u64().map_err(Broken::errno)?);
            let node = u16::try_from(read.u32().map_err(Broken::errno)?);
            let node = node.map_err(|_| Errno::Invalid)?;
            let call = read.u32().map_err(Broken::errno)?;
            if !endpoint.is_name() || endpoint == self.me {
                return Err(Errno::Invalid);
            }
            let client = PeerCall { peer: Peer { endpoint, node }, call };
            self.clients.push(client).map_err(|_| Errno::NoMemory)?;
        }
        let notices = read.u32().map_err(Broken::errno)?;
        if notices as usize > NOTICES {
            return Err(Errno::Invalid);
        }
        for _ in 0..notices {
            let source = Endpoint::from_raw(read.u64().map_err(Broken::errno)?);
            let bits = read.u64().map_err(Broken::errno)?;
            if !source.is_name() || bits == 0 {
                return Err(Errno::Invalid);
            }
            self.notices.push(Notice { source, bits }).map_err(|_| Errno::NoMemory)?;
        }
        Ok(())
    }
}
