// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Rendezvous: what one bound endpoint is doing, and what the steps of its peers do to it.
//!
//! A [`Port`] is the state of one endpoint, and whoever runs it locks it alone. Two ports never
//! have to be locked together: they act on each other by [`Step`]s, which are applied at once
//! where the peer is on this node and travel as records where it is on another. The rules are
//! therefore the same for local and remote peers, and the checks of a hostile step are the same
//! as those of a late one.
//!
//! A port has at most one blocking call at a time, and numbers it. A step that answers a call
//! carries its number; one that names another call is of the past and is ignored.
//!
//! The life of a `sendrec` from A to B: A begins the call, which gives `Request` for B; B receives
//! it, now or later, and remembers A as its client; B's `reply` gives `Reply` for A, which ends
//! the call. If A gives up, `Cancel` goes to B, and A waits for what B says: `Cancelled` if the
//! message had not been answered, else the answer is already on its way. So a timeout never loses
//! and never doubles a message.
//!
//! The calls and their blocking rules are MINIX 3's (send, receive, sendrec, notify) with the
//! DVS's `reply` and `receive_request`; numbering calls instead of relying on shared queues is
//! what makes them hold between nodes.

use super::abi::errno::Errno;
use super::abi::ioctl::{
    Info, Privileges, HOW_NOTIFY, HOW_REPLY, HOW_REQUEST, HOW_SEND, MAY_RECEIVE, MAY_REPLY,
    MAY_REQUEST, MAY_SEND, MAY_WAIT, STATE_IDLE, STATE_MOVING, STATE_RECEIVE, STATE_REQUEST,
    STATE_SEND, STATE_WAIT,
};
use super::abi::wire::record::Step;
use super::abi::{Endpoint, Message};
use super::fifo::{Array, Fifo, Storage};
use super::privilege::Privilege;
use moving::Stage;

mod moving;
pub use moving::{Closed, Resumed};

/// An endpoint and the node where it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// Its node.
    pub node: u16,
}

/// A call of a peer that is still open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCall {
    /// Whose call.
    pub peer: Peer,
    /// Its number there.
    pub call: u32,
}

/// Whether a message asks for a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `send`: the sender goes on when the message is received.
    Send,
    /// `sendrec`: the sender goes on when it is answered.
    Request,
}

impl Mode {
    /// The step that begins number `call` of this mode.
    pub const fn step(self, call: u32, message: &Message) -> Step {
        match self {
            Self::Send => Step::Send { call, message: *message },
            Self::Request => Step::Request { call, message: *message },
        }
    }

    /// The value of [`Exchange::how`](super::abi::ioctl::Exchange::how).
    pub const fn how(self) -> u32 {
        match self {
            Self::Send => HOW_SEND,
            Self::Request => HOW_REQUEST,
        }
    }
}

/// What a `receive` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// The only source it takes from; `None` for everybody. Its node is known, so that a wait for
    /// it ends when the node goes down.
    pub from: Option<Peer>,
    /// Whether it takes only messages sent by `sendrec`.
    pub requests_only: bool,
}

impl Filter {
    fn takes_from(self, source: Endpoint) -> bool {
        self.from.is_none_or(|peer| peer.endpoint == source)
    }

    fn takes(self, source: Endpoint, mode: Mode) -> bool {
        self.takes_from(source) && (mode == Mode::Request || !self.requests_only)
    }

    fn takes_notices_of(self, source: Endpoint) -> bool {
        self.takes_from(source) && !self.requests_only
    }
}

/// How a blocking call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The message of `send` was received.
    Sent,
    /// A message arrived, for `receive` or as the reply to `sendrec`: [`Port::message`].
    Received {
        /// One of the `HOW_` values of the ABI.
        how: u32,
    },
    /// The endpoint that `wait_unbind` was about is gone.
    Gone,
    /// The slot that `wait_bind` was about has this endpoint.
    Bound(Endpoint),
    /// Nothing was transferred to the caller.
    Failed(Errno),
}

/// What the thread in the port waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// No blocking call is open.
    Idle,
    /// `receive`.
    Receive(Filter),
    /// `send` or `sendrec`: for the peer to receive or to reply.
    Peer { peer: Peer, mode: Mode },
    /// Like `Peer`, but `Cancel` has been sent; ends with `reason` if the peer agrees.
    Cancelling { peer: Peer, mode: Mode, reason: Errno },
    /// `wait_unbind`: for this peer to go.
    Unbind(Peer),
    /// `wait_bind`: for somebody to be bound; if only one node can tell, for that node.
    Bind { teller: Option<u16> },
    /// The call is over; its thread has not looked yet.
    Done(Outcome),
}

/// A message whose sender waits for it to be received.
struct Arrival {
    call: PeerCall,
    mode: Mode,
    message: Message,
}

/// Sources of undelivered notifications that a port keeps apart; beyond, `notify` fails with
/// [`Errno::Limit`]. Short-lived endpoints that notify somebody who never looks would otherwise
/// take memory without end.
pub const NOTICES: usize = 4096;

/// Notification bits that were not delivered yet.
struct Notice {
    source: Endpoint,
    bits: u64,
}

/// An answer that a step calls for, to be given to the peer that took the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// [`Step::Accepted`].
    Accepted,
    /// [`Step::Cancelled`].
    Cancelled,
    /// [`Step::Bound`], by this endpoint.
    Bound(Endpoint),
    /// [`Step::Failed`].
    Failed(Errno),
    /// The step is for the peer to keep until the endpoint has settled.
    Returned,
}

impl Answer {
    /// The step that gives this answer to the peer's call number `call`. What is returned says
    /// so otherwise: there is none then.
    pub const fn step(self, call: u32) -> Option<Step> {
        match self {
            Self::Accepted => Some(Step::Accepted { call }),
            Self::Cancelled => Some(Step::Cancelled { call }),
            Self::Bound(_) => Some(Step::Bound { call }),
            Self::Failed(error) => Some(Step::Failed { call, error }),
            Self::Returned => None,
        }
    }
}

/// What applying a step asks of whoever runs the port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// The port's blocking call is over: wake its thread.
    pub wake: bool,
    /// Something is there for the next `receive`: tell those who poll.
    pub readable: bool,
    /// What to say to the peer.
    pub answer: Option<Answer>,
}

impl Effect {
    const NONE: Self = Self { wake: false, readable: false, answer: None };
    const WAKE: Self = Self { wake: true, ..Self::NONE };
    const READABLE: Self = Self { readable: true, ..Self::NONE };

    const fn answer(answer: Answer) -> Self {
        Self { answer: Some(answer), ..Self::NONE }
    }
}

/// How a `receive` began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receive {
    /// It is over already. If the message came by `send`, the sender is to get
    /// [`Step::Accepted`].
    /// [`Port::message`] is what was received.
    Done {
        /// One of the `HOW_` values of the ABI.
        how: u32,
        /// Whose `send` it was.
        accepted: Option<PeerCall>,
    },
    /// The thread has to wait for call number `call`. Where only one source can end it, that
    /// source is to get [`Step::Watch`].
    Wait {
        /// The number of the call.
        call: u32,
    },
}

/// What giving up a call gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// The call is over; this is how it ended.
    Over(Outcome),
    /// The peer is to get [`Step::Cancel`]; the outcome follows from what it says.
    Ask(PeerCall),
    /// There was no call.
    Nothing,
}

type Queue<T, S> = Fifo<T, <S as Storage>::Array<Option<T>>>;

/// The state of one bound endpoint.
pub struct Port<S: Storage> {
    me: Endpoint,
    stage: Stage,
    wait: Wait,
    /// Number of the open call, or of the last one.
    call: u32,
    inbox: Queue<Arrival, S>,
    /// Peers whose request was received and not answered.
    clients: Queue<PeerCall, S>,
    /// Peers that want to know when this endpoint dies.
    watchers: Queue<PeerCall, S>,
    notices: Queue<Notice, S>,
    /// What was received last, its source set.
    message: Message,
    privilege: Privilege,
    received: u64,
    sent: u64,
}

impl<S: Storage> Port<S> {
    /// The state right after a bind.
    pub fn new(me: Endpoint) -> Self {
        Self {
            me,
            stage: Stage::Settled,
            wait: Wait::Idle,
            call: 0,
            inbox: Fifo::default(),
            clients: Fifo::default(),
            watchers: Fifo::default(),
            notices: Fifo::default(),
            message: Message::ZERO,
            privilege: Privilege::initial(me.slot()),
            received: 0,
            sent: 0,
        }
    }

    /// The endpoint.
    pub fn endpoint(&self) -> Endpoint {
        self.me
    }

    /// Whether [`kill`](Self::kill) or [`depart`](Self::depart) was called.
    pub fn is_dead(&self) -> bool {
        matches!(self.stage, Stage::Dead | Stage::Gone)
    }

    /// What was received by the call that ended last; until the next call begins.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// What the endpoint may do.
    pub fn privilege(&self) -> Privilege {
        self.privilege
    }

    /// Says what the endpoint may do from its next call on.
    pub fn set_privilege(&mut self, privilege: Privilege) {
        self.privilege = privilege;
    }

    /// Describes the endpoint, but for what only its container knows.
    pub fn describe(&self, info: &mut Info) {
        let count = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
        info.endpoint = self.me.raw();
        (info.received, info.sent) = (self.received, self.sent);
        info.senders = count(self.inbox.len());
        info.clients = count(self.clients.len());
        info.notices = count(self.notices.len());
        let (state, waits_for) = match self.wait {
            Wait::Idle | Wait::Done(_) => (STATE_IDLE, Endpoint::NONE),
            Wait::Receive(Filter { from: Some(peer), .. }) => (STATE_RECEIVE, peer.endpoint),
            Wait::Receive(Filter { from: None, .. }) => (STATE_RECEIVE, Endpoint::ANY),
            Wait::Peer { peer, mode } | Wait::Cancelling { peer, mode, .. } => match mode {
                Mode::Send => (STATE_SEND, peer.endpoint),
                Mode::Request => (STATE_REQUEST, peer.endpoint),
            },
            Wait::Unbind(peer) => (STATE_WAIT, peer.endpoint),
            Wait::Bind { .. } => (STATE_WAIT, Endpoint::NONE),
        };
        let state = if self.is_moving() { STATE_MOVING } else { state };
        (info.state, info.waits_for) = (state, waits_for.raw());
    }

    /// The only peer that can end the open call, and the call's number; `None` where there is
    /// none, or several. Following this from port to port leads back to the first one exactly if
    /// they wait for each other.
    pub fn waits_for(&self) -> Option<PeerCall> {
        let peer = match self.wait {
            Wait::Peer { peer, .. } => peer,
            Wait::Receive(Filter { from: Some(peer), .. }) => peer,
            _ => return None,
        };
        Some(PeerCall { peer, call: self.call })
    }

    /// Whether `peer` waits for this endpoint, as far as this endpoint knows: its message was not
    /// received, or its request not answered.
    pub fn is_awaited_by(&mut self, peer: Peer) -> bool {
        self.inbox.find(|arrival| arrival.call.peer == peer).is_some()
            || self.clients.find(|client| client.peer == peer).is_some()
    }

    /// Whether `receive` from anybody would not wait.
    pub fn is_readable(&self) -> bool {
        self.stage == Stage::Settled && !(self.inbox.is_empty() && self.notices.is_empty())
    }

    /// Number of the open call, or of the last one.
    pub fn call(&self) -> u32 {
        self.call
    }

    /// Whether the open call is over, so that [`collect`](Self::collect) gives something.
    pub fn is_done(&self) -> bool {
        matches!(self.wait, Wait::Done(_))
    }

    /// Whether call number `call` waits for an answer.
    pub fn is_open(&self, call: u32) -> bool {
        call == self.call && !matches!(self.wait, Wait::Idle | Wait::Done(_))
    }

    /// Begins `send` or `sendrec` to `peer` and returns the call's number, to be given to the peer
    /// with [`Step::Send`] or [`Step::Request`].
    ///
    /// # Errors
    /// [`Errno::Denied`] without the privilege, [`Errno::Deadlock`] to oneself, [`Errno::Busy`]
    /// while another call is open, [`Errno::NotConnected`] after [`kill`](Self::kill).
    pub fn begin_send(&mut self, peer: Peer, mode: Mode) -> Result<u32, Errno> {
        self.check_free()?;
        let may = match mode {
            Mode::Send => MAY_SEND,
            Mode::Request => MAY_REQUEST,
        };
        self.privilege.check_to(may, peer.endpoint)?;
        if peer.endpoint == self.me {
            return Err(Errno::Deadlock);
        }
        self.sent += 1;
        Ok(self.begin(Wait::Peer { peer, mode }))
    }

    /// Begins a call that ends when `peer` has taken its step, as if that were a message sent.
    ///
    /// # Errors
    /// [`Errno::Busy`] while another call is open, [`Errno::NotConnected`] after
    /// [`kill`](Self::kill).
    pub fn begin_step(&mut self, peer: Peer) -> Result<u32, Errno> {
        self.check_free()?;
        Ok(self.begin(Wait::Peer { peer, mode: Mode::Send }))
    }

    /// Begins `wait_unbind`; `peer` is to get [`Step::Watch`] with the call's number.
    ///
    /// # Errors
    /// As [`begin_send`](Self::begin_send).
    pub fn begin_wait_unbind(&mut self, peer: Peer) -> Result<u32, Errno> {
        self.check_free()?;
        self.privilege.check(MAY_WAIT)?;
        if peer.endpoint == self.me {
            return Err(Errno::Deadlock);
        }
        Ok(self.begin(Wait::Unbind(peer)))
    }

    /// Begins `wait_bind`; whoever knows of binds in the slot, perhaps only the node `teller`, is
    /// to answer with [`Step::Bound`].
    ///
    /// # Errors
    /// As [`begin_send`](Self::begin_send).
    pub fn begin_wait_bind(&mut self, teller: Option<u16>) -> Result<u32, Errno> {
        self.check_free()?;
        self.privilege.check(MAY_WAIT)?;
        Ok(self.begin(Wait::Bind { teller }))
    }

    /// Opens a call and returns its number, which is never 0.
    fn begin(&mut self, wait: Wait) -> u32 {
        self.wait = wait;
        self.call = self.call.checked_add(1).unwrap_or(1);
        self.call
    }

    /// Begins `receive`.
    ///
    /// # Errors
    /// [`Errno::Denied`] without the privilege, [`Errno::Busy`] while another call is open,
    /// [`Errno::NotConnected`] after [`kill`](Self::kill), [`Errno::NoMemory`] if the client
    /// cannot be remembered (its message stays queued).
    pub fn begin_receive(&mut self, filter: Filter) -> Result<Receive, Errno> {
        if matches!(self.stage, Stage::Arriving { .. } | Stage::Standby) {
            self.check_idle()?;
            self.privilege.check(MAY_RECEIVE)?;
            return Ok(self.begin_waiting(filter));
        }
        self.check_free()?;
        self.privilege.check(MAY_RECEIVE)?;
        if let Some((how, accepted)) = self.take_for(filter)? {
            return Ok(Receive::Done { how, accepted });
        }
        Ok(self.begin_waiting(filter))
    }

    /// Takes `to` off the clients and returns whom, and which of its calls, to give
    /// [`Step::Reply`].
    ///
    /// # Errors
    /// [`Errno::WouldBlock`] if `to` does not wait for a reply of this endpoint,
    /// [`Errno::Denied`] without the privilege, [`Errno::NotConnected`] after
    /// [`kill`](Self::kill).
    pub fn reply(&mut self, to: Endpoint) -> Result<PeerCall, Errno> {
        self.check_speaks()?;
        self.privilege.check(MAY_REPLY)?;
        let client =
            self.clients.take_last(|client| client.peer.endpoint == to).ok_or(Errno::WouldBlock)?;
        self.sent += 1;
        Ok(client)
    }

    /// Fails unless the endpoint may say something to others now.
    ///
    /// # Errors
    /// [`Errno::Busy`] while it moves, [`Errno::Stale`] after it has moved away,
    /// [`Errno::Denied`] while it stands by, [`Errno::NotConnected`] after [`kill`](Self::kill).
    pub fn check_speaks(&self) -> Result<(), Errno> {
        self.stage.check_speaks()
    }

    /// Counts a notification sent.
    pub fn count_notify(&mut self) {
        self.sent += 1;
    }

    /// The outcome of the call, once it is over; the port is free for the next one then.
    pub fn collect(&mut self) -> Option<Outcome> {
        let Wait::Done(outcome) = self.wait else { return None };
        self.wait = Wait::Idle;
        if matches!(outcome, Outcome::Received { .. }) {
            self.received += 1;
        }
        Some(outcome)
    }

    /// Gives up the open call with `reason`, unless it is over already.
    pub fn cancel(&mut self, reason: Errno) -> Cancel {
        match self.wait {
            Wait::Idle => Cancel::Nothing,
            Wait::Done(_) => self.collect().map_or(Cancel::Nothing, Cancel::Over),
            // What the peers were told of these does no harm: their answers find no call open.
            Wait::Receive(_) | Wait::Unbind(_) | Wait::Bind { .. } => {
                self.wait = Wait::Idle;
                Cancel::Over(Outcome::Failed(reason))
            }
            Wait::Peer { peer, mode } => {
                self.wait = Wait::Cancelling { peer, mode, reason };
                Cancel::Ask(PeerCall { peer, call: self.call })
            }
            Wait::Cancelling { peer, .. } => Cancel::Ask(PeerCall { peer, call: self.call }),
        }
    }

    /// Ends the open call without waiting for the peer's word: its thread is being killed.
    pub fn abandon(&mut self) {
        self.wait = Wait::Idle;
    }

    /// Ends call number `call` with `error`, if it is still open: its step could not be given to
    /// the peer. Returns whether it was.
    pub fn fail(&mut self, call: u32, error: Errno) -> bool {
        if !self.is_open(call) {
            return false;
        }
        self.wait = Wait::Done(self.failure(error));
        true
    }

    /// How the open call ends if its peer fails it with `error`.
    fn failure(&self, error: Errno) -> Outcome {
        match (self.wait, error) {
            (Wait::Unbind(_), Errno::OwnerDead | Errno::Stale) => Outcome::Gone,
            _ => Outcome::Failed(error),
        }
    }

    /// Applies a step that `peer` takes towards this port.
    pub fn apply(&mut self, peer: Peer, step: &Step) -> Effect {
        if !self.stage.takes() && (step.begins() || matches!(step, Step::Cancel { .. })) {
            return self.send_back(peer, step);
        }
        match step {
            Step::Send { call, message } => {
                self.arrive(PeerCall { peer, call: *call }, Mode::Send, message)
            }
            Step::Request { call, message } => {
                self.arrive(PeerCall { peer, call: *call }, Mode::Request, message)
            }
            Step::Accepted { call } => {
                self.end(peer, *call, |mode, _| (mode == Mode::Send).then_some(Outcome::Sent))
            }
            Step::Reply { call, message } => self.answered(PeerCall { peer, call: *call }, message),
            Step::Cancelled { call } => {
                self.end(peer, *call, |_, reason| reason.map(Outcome::Failed))
            }
            Step::Failed { call, error } => self.peer_failed(peer, *call, *error),
            Step::Cancel { call } => self.withdraw(PeerCall { peer, call: *call }),
            Step::Watch { call } => self.watch(PeerCall { peer, call: *call }),
            Step::Notify { bits } => self.notice(peer.endpoint, *bits),
            Step::Bound { call } => self.slot_bound(*call, peer),
            Step::Privilege { privileges, .. } => self.restrict(privileges),
            // For the table: nobody may be bound yet.
            Step::AwaitBind { .. } => Effect::NONE,
            // For the node: the endpoint may be gone.
            Step::Returned { .. } | Step::Fence { .. } | Step::Fenced { .. } => Effect::NONE,
        }
    }

    /// Applies the reply `message` to call number `call` that went to its peer.
    pub fn answered(&mut self, to: PeerCall, message: &Message) -> Effect {
        let effect = self.end(to.peer, to.call, |mode, _| {
            (mode == Mode::Request).then_some(Outcome::Received { how: HOW_REPLY })
        });
        if effect.wake {
            self.deliver(to.peer.endpoint, message);
        }
        effect
    }

    /// Puts `message` of `source` where the call that it ends finds it.
    fn deliver(&mut self, source: Endpoint, message: &Message) {
        self.message = *message;
        self.message.source = source.raw();
    }

    /// Tells call number `call`, a `wait_bind`, that `bound` has the slot it waits for.
    fn slot_bound(&mut self, call: u32, bound: Peer) -> Effect {
        match self.wait {
            Wait::Bind { teller }
                if call == self.call && teller.is_none_or(|node| node == bound.node) =>
            {
                self.wait = Wait::Done(Outcome::Bound(bound.endpoint));
                Effect::WAKE
            }
            _ => Effect::NONE,
        }
    }

    fn restrict(&mut self, privileges: &Privileges) -> Effect {
        match Privilege::from_block(privileges) {
            Ok(privilege) => {
                self.privilege = privilege;
                Effect::answer(Answer::Accepted)
            }
            Err(error) => Effect::answer(Answer::Failed(error)),
        }
    }

    /// Ends everything that has to do with endpoints on `node`, which is down. Returns whether
    /// the open call is over by it.
    pub fn node_down(&mut self, node: u16) -> bool {
        self.inbox.retain(|arrival| arrival.call.peer.node != node);
        // Clients that came along wait for the node that the endpoint comes from.
        if !matches!(self.stage, Stage::Arriving { .. }) {
            self.clients.retain(|client| client.peer.node != node);
        }
        self.watchers.retain(|watcher| watcher.peer.node != node);
        match self.wait {
            Wait::Peer { peer, .. }
            | Wait::Cancelling { peer, .. }
            | Wait::Unbind(peer)
            | Wait::Receive(Filter { from: Some(peer), .. })
                if peer.node == node =>
            {
                self.wait = Wait::Done(Outcome::Failed(Errno::NodeDown));
                true
            }
            Wait::Bind { teller: Some(teller) } if teller == node => {
                self.wait = Wait::Done(Outcome::Failed(Errno::NodeDown));
                true
            }
            _ => false,
        }
    }

    /// Marks the endpoint dead: from here on it takes no step and no call. Returns whether a
    /// thread is to be woken, and the call that its peer is to get [`Step::Cancel`] for.
    pub fn kill(&mut self) -> (bool, Option<PeerCall>) {
        self.stage = Stage::Dead;
        self.end_for(Errno::OwnerDead)
    }

    /// After [`kill`](Self::kill): one peer that waits for this endpoint, to be given
    /// [`Step::Failed`] with [`Errno::OwnerDead`]. `None` when all have been told.
    pub fn next_bereaved(&mut self) -> Option<PeerCall> {
        if let Some(arrival) = self.inbox.take(|_| true) {
            return Some(arrival.call);
        }
        self.clients.take(|_| true).or_else(|| self.watchers.take(|_| true))
    }

    fn check_free(&self) -> Result<(), Errno> {
        self.check_speaks()?;
        self.check_idle()
    }

    fn check_idle(&self) -> Result<(), Errno> {
        match self.wait {
            Wait::Idle => Ok(()),
            _ => Err(Errno::Busy),
        }
    }

    fn arrive(&mut self, call: PeerCall, mode: Mode, message: &Message) -> Effect {
        if !supersede(&mut self.inbox, call.peer, |arrival| arrival.call.peer)
            || !supersede(&mut self.clients, call.peer, |client| client.peer)
        {
            return Effect::answer(Answer::Failed(Errno::Stale));
        }
        self.arrive_in_turn(call, mode, message)
    }

    /// Applies `send` or `sendrec` of a peer on this node. Such a peer has withdrawn its earlier
    /// calls before it makes another, so nothing is looked for that it might have left behind.
    pub fn arrive_in_turn(&mut self, call: PeerCall, mode: Mode, message: &Message) -> Effect {
        if self.stage != Stage::Settled && !self.stage.takes() {
            return self.send_back(call.peer, &mode.step(call.call, message));
        }
        let source = call.peer.endpoint;
        if self.hands_out(|filter| filter.takes(source, mode)) {
            if mode == Mode::Request && self.clients.push(call).is_err() {
                return Effect::answer(Answer::Failed(Errno::NoMemory));
            }
            self.deliver(source, message);
            self.wait = Wait::Done(Outcome::Received { how: mode.how() });
            let answer = (mode == Mode::Send).then_some(Answer::Accepted);
            return Effect { answer, ..Effect::WAKE };
        }
        let message = Message { source: source.raw(), ..*message };
        match self.inbox.push(Arrival { call, mode, message }) {
            Ok(()) => self.readable(),
            Err(_) => Effect::answer(Answer::Failed(Errno::NoMemory)),
        }
    }

    /// Whether a `receive` waits for what `wanted` says it takes.
    fn hands_out(&self, wanted: impl FnOnce(Filter) -> bool) -> bool {
        self.stage == Stage::Settled && matches!(self.wait, Wait::Receive(filter) if wanted(filter))
    }

    fn readable(&self) -> Effect {
        if self.stage == Stage::Settled {
            Effect::READABLE
        } else {
            Effect::NONE
        }
    }

    /// Ends the call that `peer` answers, if it is the open one and `outcome`, given how it was
    /// sent and why it is being cancelled, says how.
    fn end(
        &mut self,
        from: Peer,
        call: u32,
        outcome: impl FnOnce(Mode, Option<Errno>) -> Option<Outcome>,
    ) -> Effect {
        let (peer, mode, reason) = match self.wait {
            Wait::Peer { peer, mode } => (peer, mode, None),
            Wait::Cancelling { peer, mode, reason } => (peer, mode, Some(reason)),
            _ => return Effect::NONE,
        };
        if peer != from || call != self.call {
            return Effect::NONE;
        }
        match outcome(mode, reason) {
            Some(outcome) => {
                self.wait = Wait::Done(outcome);
                Effect::WAKE
            }
            None => Effect::NONE,
        }
    }

    fn peer_failed(&mut self, from: Peer, call: u32, error: Errno) -> Effect {
        let concerned = match self.wait {
            Wait::Receive(filter) => filter.from == Some(from),
            Wait::Unbind(peer) => peer == from,
            Wait::Bind { teller } => teller == Some(from.node),
            // A call that is given up anyway is not made anew.
            _ if error == Errno::Moved => {
                return self.end(from, call, |_, reason| {
                    Some(Outcome::Failed(reason.unwrap_or(Errno::Moved)))
                })
            }
            _ => return self.end(from, call, |_, _| Some(Outcome::Failed(error))),
        };
        if !concerned || call != self.call {
            return Effect::NONE;
        }
        self.wait = Wait::Done(self.failure(error));
        Effect::WAKE
    }

    fn withdraw(&mut self, call: PeerCall) -> Effect {
        let queued = self.inbox.take(|arrival| arrival.call == call).is_some();
        if queued || self.clients.take(|client| *client == call).is_some() {
            return Effect::answer(Answer::Cancelled);
        }
        Effect::NONE
    }

    fn watch(&mut self, call: PeerCall) -> Effect {
        if !supersede(&mut self.watchers, call.peer, |watcher| watcher.peer) {
            return Effect::answer(Answer::Failed(Errno::Stale));
        }
        match self.watchers.push(call) {
            Ok(()) => Effect::NONE,
            Err(_) => Effect::answer(Answer::Failed(Errno::NoMemory)),
        }
    }

    fn notice(&mut self, source: Endpoint, bits: u64) -> Effect {
        if self.hands_out(|filter| filter.takes_notices_of(source)) {
            self.message = Message::notification(source, bits);
            self.wait = Wait::Done(Outcome::Received { how: HOW_NOTIFY });
            return Effect::WAKE;
        }
        if let Some(pending) = self.notices.find(|notice| notice.source == source) {
            pending.bits |= bits;
            return Effect::NONE;
        }
        if self.notices.len() >= NOTICES {
            return Effect::answer(Answer::Failed(Errno::Limit));
        }
        match self.notices.push(Notice { source, bits }) {
            Ok(()) => self.readable(),
            Err(_) => Effect::answer(Answer::Failed(Errno::NoMemory)),
        }
    }
}

/// Drops what `queue` holds of an earlier call from the slot of `source`, before a new call of
/// `source` is put there. Returns whether `source` is alive as far as the queue tells.
///
/// An endpoint has one call open at a time and a slot one binding at a time, so the earlier call
/// is over, even if nobody could say so (the link to its node was down for a while). One entry
/// per slot and node is also what bounds the queue, whatever a peer does. Replicas are the only
/// ones of one slot that may have calls open on several nodes at once.
fn supersede<T, A: Array<Option<T>>>(
    queue: &mut Fifo<T, A>,
    source: Peer,
    peer: impl Fn(&T) -> Peer,
) -> bool {
    let (slot, generation) = (source.endpoint.slot(), source.endpoint.generation());
    let same_slot = |entry: &T| {
        let known = peer(entry);
        known.endpoint.slot() == slot
            && (known.node == source.node || known.endpoint != source.endpoint)
    };
    match queue.find(same_slot) {
        Some(known) if peer(known).endpoint.generation() > generation => false,
        Some(_) => {
            queue.take(same_slot);
            true
        }
        None => true,
    }
}
