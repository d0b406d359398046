// SPDX-License-Identifier: GPL-2.0
//! An endpoint bound on this node: its state, the thread that waits in it, and those who poll it.
//!
//! # The way of a local round trip
//! A thread that begins a call registers itself as the sleeper in the very critical section that
//! begins it, gives the peer its step, and then wakes the peer and sleeps in one go
//! ([`SoftirqsHeld::sleep`]): the peer's lock is taken once, the own one twice, and softirqs are
//! held off once for all of it. A thread whose partner runs on another CPU does not register but
//! spins for a while ([`Spin`]); it registers, under the lock, before it sleeps after all, so that
//! whoever ends its call finds either a sleeper to wake or a thread that will look again.

use super::abi::errno::Errno;
use super::abi::ioctl::Info;
use super::abi::wire::record::Step;
use super::abi::{Endpoint, Message};
use super::grants::GrantBook;
use super::rules::port::{Answer, Cancel, Effect, Mode, Outcome, Peer, PeerCall, Port};
use super::rules::spin::Patience;
use super::storage::KernelStorage;
use super::sys::{self, new_bh_lock, BhLock, PollQueue, Sleeper, SoftirqsHeld, WokenBy};
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Relaxed, Release};
use kernel::sync::Arc;

/// How long a call may wait.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timeout {
    /// Not at all.
    Never,
    /// Until this time, in nanoseconds since boot.
    Until(u64),
    /// As long as it takes.
    Forever,
}

impl Timeout {
    /// The timeout that an argument block gives in nanoseconds from now.
    pub(crate) fn from_ns(timeout_ns: i64) -> Self {
        match u64::try_from(timeout_ns) {
            Err(_) => Self::Forever,
            Ok(0) => Self::Never,
            Ok(ns) => Self::Until(sys::now_ns().saturating_add(ns)),
        }
    }
}

/// What a thread does first when its call does not end at once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Sleep: the partner needs this CPU, or is far away.
    Sleep,
    /// Look again for a while: the partner runs on another CPU.
    Spin,
}

/// What the lock of a port guards.
struct State {
    port: Port<KernelStorage>,
    /// The thread to wake when the open call is over.
    sleeper: Option<Sleeper>,
    /// Those who poll the file.
    poll: Arc<PollQueue>,
}

/// One endpoint bound on this node. There is one per bind; the table of the container and the
/// open file share it.
#[pin_data]
pub(crate) struct LocalPort {
    endpoint: Endpoint,
    /// Innermost lock of the driver but for the scheduler's: see `dvk_main.rs`.
    #[pin]
    state: BhLock<State>,
    /// The CPU on which the endpoint's thread was last seen. A hint.
    cpu: Atomic<u32>,
    /// Number of the call that ended last.
    ended: Atomic<u32>,
    /// [`Patience`] of the endpoint's thread, in nanoseconds.
    patience: Atomic<u32>,
    /// What it has lent.
    #[pin]
    pub(crate) grants: GrantBook,
}

impl LocalPort {
    /// Memory for a port with this state; `poll` are those who poll its file.
    pub(crate) fn new(port: Port<KernelStorage>, poll: Arc<PollQueue>) -> Result<Arc<Self>> {
        let endpoint = port.endpoint();
        let state = State { port, sleeper: None, poll };
        Arc::pin_init(
            pin_init!(Self {
                endpoint,
                state <- new_bh_lock!(state, c"dvk_port"),
                cpu: Atomic::new(sys::this_cpu()),
                ended: Atomic::new(0),
                patience: Atomic::new(Patience::INITIAL.ns()),
                grants <- GrantBook::new(),
            }),
            GFP_ATOMIC,
        )
    }

    /// The endpoint.
    pub(crate) fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// Uses the state of the rendezvous for something that neither ends nor opens a call.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut Port<KernelStorage>) -> T) -> T {
        look(&mut self.state.lock().port)
    }

    /// As [`with`](Self::with), where softirqs are held off.
    pub(crate) fn with_in<T>(
        &self,
        held: &SoftirqsHeld,
        look: impl FnOnce(&mut Port<KernelStorage>) -> T,
    ) -> T {
        look(&mut self.state.lock_in(held).port)
    }

    /// See [`Port::describe`].
    pub(crate) fn describe(&self, info: &mut Info) {
        self.with(|port| port.describe(info));
        info.grants = self.grants.len();
    }

    /// See [`Port::is_readable`].
    pub(crate) fn is_readable(&self) -> bool {
        self.with(|port| port.is_readable())
    }

    /// See [`Port::is_dead`].
    pub(crate) fn is_dead(&self) -> bool {
        self.with(|port| port.is_dead())
    }

    /// See [`Port::is_open`].
    pub(crate) fn is_open(&self, call: u32) -> bool {
        self.with(|port| port.is_open(call))
    }

    /// How to wait for this endpoint's thread.
    pub(crate) fn rest_of_partner(&self) -> Rest {
        if self.cpu.load(Relaxed) == sys::this_cpu() {
            Rest::Sleep
        } else {
            Rest::Spin
        }
    }

    /// Begins a call, by `begin`, which says its number if it opened one. The caller then has to
    /// [`wait`](Self::wait).
    pub(crate) fn begin<T>(
        &self,
        held: &SoftirqsHeld,
        rest: Rest,
        begin: impl FnOnce(&mut Port<KernelStorage>) -> Result<(T, Option<u32>), Errno>,
    ) -> Result<(T, Option<u32>), Errno> {
        let mut state = self.state.lock_in(held);
        let begun = begin(&mut state.port)?;
        self.cpu.store(sys::this_cpu(), Relaxed);
        if begun.1.is_some() && rest == Rest::Sleep {
            state.sleeper = Sleeper::current();
            sys::prepare_sleep(WokenBy::Signals);
        }
        Ok(begun)
    }

    /// See [`Port::fail`]. For the thread that began the call, which need not sleep then.
    pub(crate) fn fail(&self, call: u32, error: Errno) {
        self.with(|port| port.fail(call, error));
        self.ended.store(call, Release);
        sys::finish_sleep();
    }

    /// Applies `send` or `sendrec` of the endpoint `from` on this node. Returns what to answer
    /// and whom to wake, and whether the message waits.
    pub(crate) fn arrive(
        &self,
        held: &SoftirqsHeld,
        from: PeerCall,
        mode: Mode,
        message: &Message,
    ) -> (Effect, Option<Sleeper>) {
        self.act(held, |port| port.arrive_in_turn(from, mode, message))
    }

    /// Applies the reply `message` of an endpoint on this node. Returns whether a call ended by it,
    /// and whom to wake.
    pub(crate) fn answered(
        &self,
        held: &SoftirqsHeld,
        to: PeerCall,
        message: &Message,
    ) -> (bool, Option<Sleeper>) {
        let (effect, sleeper) = self.act(held, |port| port.answered(to, message));
        (effect.wake, sleeper)
    }

    /// Changes the state, tells those who poll, and returns whom to wake.
    fn act(
        &self,
        held: &SoftirqsHeld,
        change: impl FnOnce(&mut Port<KernelStorage>) -> Effect,
    ) -> (Effect, Option<Sleeper>) {
        let (effect, sleeper, poll) = {
            let mut state = self.state.lock_in(held);
            let effect = change(&mut state.port);
            let sleeper = if effect.wake { self.ended(&mut state) } else { None };
            // Only who polls costs something.
            let polled = effect.readable && state.poll.is_polled();
            let poll = polled.then(|| state.poll.clone());
            (effect, sleeper, poll)
        };
        if let Some(poll) = poll {
            poll.wake();
        }
        (effect, sleeper)
    }

    /// Tells a spinning thread that its call is over, and returns a sleeping one.
    fn ended(&self, state: &mut State) -> Option<Sleeper> {
        self.ended.store(state.port.call(), Release);
        state.sleeper.take()
    }

    /// Applies a step of `peer`, wakes whom that concerns, and returns what comes of it.
    pub(crate) fn apply(&self, peer: Peer, step: &Step) -> Effect {
        let held = SoftirqsHeld::new();
        let (effect, sleeper) = self.act(&held, |port| port.apply(peer, step));
        if let Some(sleeper) = sleeper {
            sleeper.wake(&held);
        }
        effect
    }

    /// Applies what came at once of a step of the own call. For the thread that began the call,
    /// which need not sleep then.
    pub(crate) fn take_answer(&self, peer: Peer, call: u32, answer: Answer) {
        // Nothing that begins or withdraws a call is returned to a thread that is in one.
        if let Some(step) = answer.step(call) {
            if self.with(|port| port.apply(peer, &step)).wake {
                self.ended.store(call, Release);
            }
        }
        sys::finish_sleep();
    }

    /// Uses the state for something that may end the open call, and wakes its thread then.
    pub(crate) fn with_waking<T>(
        &self,
        change: impl FnOnce(&mut Port<KernelStorage>) -> (bool, T),
    ) -> T {
        let held = SoftirqsHeld::new();
        let (sleeper, result) = {
            let mut state = self.state.lock_in(&held);
            let (wake, result) = change(&mut state.port);
            (if wake { self.ended(&mut state) } else { None }, result)
        };
        if let Some(sleeper) = sleeper {
            sleeper.wake(&held);
        }
        result
    }

    /// See [`Port::node_down`].
    pub(crate) fn node_down(&self, node: u16) {
        self.with_waking(|port| (port.node_down(node), ()));
    }

    /// Gives the port, which is moving here, to a file; `poll` are those who poll that.
    pub(crate) fn adopt(&self, poll: Arc<PollQueue>) -> Result<(), Errno> {
        let before = {
            let mut state = self.state.lock();
            state.port.adopt()?;
            core::mem::replace(&mut state.poll, poll)
        };
        drop(before);
        Ok(())
    }

    /// Wakes everybody who polls the file.
    pub(crate) fn wake_pollers(&self) {
        let poll = self.state.lock().poll.clone();
        poll.wake();
    }

    /// Marks the endpoint dead and wakes its thread. `tell` gives a step to a peer: those who
    /// wait for this endpoint hear that it died, and the one it waited for that it no longer does.
    pub(crate) fn kill(&self, mut tell: impl FnMut(Peer, Step)) {
        let open = self.with_waking(Port::kill);
        self.wake_pollers();
        if let Some(PeerCall { peer, call }) = open {
            tell(peer, Step::Cancel { call });
        }
        self.bury(tell);
    }

    /// Tells those who wait for an endpoint that is dead.
    pub(crate) fn bury(&self, mut tell: impl FnMut(Peer, Step)) {
        loop {
            let bereaved = self.with(|port| port.next_bereaved());
            let Some(PeerCall { peer, call }) = bereaved else { break };
            tell(peer, Step::Failed { call, error: Errno::OwnerDead });
        }
    }

    /// Tells those who wait for an endpoint that is on the move, or elsewhere.
    pub(crate) fn send_back(&self, mut tell: impl FnMut(Peer, Step)) {
        loop {
            let returned = self.with(|port| port.next_returned());
            let Some(PeerCall { peer, call }) = returned else { break };
            tell(peer, Step::Failed { call, error: Errno::Moved });
        }
    }

    /// Waits until the call that [`begin`](Self::begin) opened is over, and puts what it received
    /// into `message`. `wake` is the thread that the call's step woke; `cancel` gives the peer
    /// [`Step::Cancel`].
    ///
    /// Giving up takes two stages: the peer is asked, and what it says ends the call. Only a
    /// thread that is being killed does not wait for that.
    pub(crate) fn wait(
        &self,
        held: SoftirqsHeld,
        wake: Option<Sleeper>,
        (call, rest): (u32, Rest),
        timeout: Timeout,
        message: &mut Message,
        cancel: impl Fn(PeerCall),
    ) -> Outcome {
        let mut by = WokenBy::Signals;
        let mut deadline = match timeout {
            Timeout::Until(at) => Some(at),
            Timeout::Never | Timeout::Forever => None,
        };
        let mut reason = (timeout == Timeout::Never).then_some(Errno::WouldBlock);
        // Since when the thread has slept, and how long it had spun in vain before.
        let mut slept = None;
        if (rest, timeout) == (Rest::Sleep, Timeout::Forever) {
            held.sleep(wake);
        } else {
            if let Some(sleeper) = wake {
                sleeper.wake(&held);
            }
            drop(held);
            if rest == Rest::Spin && timeout != Timeout::Never {
                slept = self.spin(call).err().map(|spun_ns| (sys::now_ns(), spun_ns));
            }
        }
        sys::finish_sleep();
        loop {
            if let Some(outcome) = self.collect(message) {
                if let Some((from, spun_ns)) = slept {
                    let patience = Patience::from_ns(self.patience.load(Relaxed));
                    let waited_ns = sys::now_ns().saturating_sub(from) + u64::from(spun_ns);
                    self.patience.store(patience.after_sleep(waited_ns).ns(), Relaxed);
                }
                return outcome;
            }
            if reason.is_none() && sys::signal_pending(by) {
                reason = Some(Errno::Interrupted);
            }
            if let Some(reason) = reason.take() {
                match self.give_up(reason, by, message) {
                    GivenUp::Over(outcome) => return outcome,
                    GivenUp::Ask(call) => {
                        (by, deadline) = (WokenBy::FatalSignals, None);
                        cancel(call);
                    }
                }
            }
            if self.prepare_sleep(by) {
                if !sys::sleep_until(deadline) {
                    reason = Some(Errno::TimedOut);
                }
                sys::finish_sleep();
            }
        }
    }

    /// Spins for the end of the call, as long as experience says that it is worth it.
    ///
    /// # Errors
    /// If the call did not end meanwhile: for how long it may have spun, in nanoseconds.
    fn spin(&self, call: u32) -> Result<(), u32> {
        let patience = Patience::from_ns(self.patience.load(Relaxed));
        if patience.ns() == 0 {
            return Err(0);
        }
        let ended = || self.ended.load(Acquire) == call;
        let answered = sys::spin_until(patience.ns(), ended);
        self.patience.store(patience.after_spin(answered).ns(), Relaxed);
        if answered {
            Ok(())
        } else {
            Err(patience.ns())
        }
    }

    /// How the call ended, if it is over, and the message that it received.
    fn collect(&self, message: &mut Message) -> Option<Outcome> {
        let mut state = self.state.lock();
        let outcome = state.port.collect()?;
        state.sleeper = None;
        if matches!(outcome, Outcome::Received { .. }) {
            *message = *state.port.message();
        }
        Some(outcome)
    }

    /// Gets the thread ready to sleep, unless its call is over.
    fn prepare_sleep(&self, by: WokenBy) -> bool {
        let mut state = self.state.lock();
        if state.port.is_done() {
            return false;
        }
        state.sleeper = Sleeper::current();
        sys::prepare_sleep(by);
        true
    }

    /// Ends the call, or learns whom to ask for it.
    fn give_up(&self, reason: Errno, by: WokenBy, message: &mut Message) -> GivenUp {
        let killed = by == WokenBy::FatalSignals;
        let mut state = self.state.lock();
        let ended = state.port.cancel(reason);
        if killed {
            // Asked before, and now being killed: the answer finds no call open.
            state.port.abandon();
        }
        match ended {
            Cancel::Ask(call) if !killed => return GivenUp::Ask(call),
            _ => state.sleeper = None,
        }
        GivenUp::Over(match ended {
            Cancel::Over(outcome) => {
                if matches!(outcome, Outcome::Received { .. }) {
                    *message = *state.port.message();
                }
                outcome
            }
            Cancel::Ask(_) => Outcome::Failed(Errno::Interrupted),
            Cancel::Nothing => Outcome::Failed(reason),
        })
    }
}

/// What giving up a call gives.
enum GivenUp {
    Over(Outcome),
    /// The peer is to be asked; the call goes on until it has answered.
    Ask(PeerCall),
}
