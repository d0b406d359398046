// SPDX-License-Identifier: GPL-2.0
//! An endpoint bound on this node: its state, the thread that waits in it, and those who poll it.

use super::abi::errno::Errno;
use super::abi::wire::record::Step;
use super::abi::Endpoint;
use super::rules::port::{Answer, Cancel, Filter, Mode, Outcome, Peer, PeerCall, Port, Receive};
use super::storage::KernelStorage;
use super::sys::{self, new_bh_lock, BhLock, PollQueue, Sleeper, WokenBy};
use kernel::prelude::*;
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

/// What the lock of a port guards.
struct State {
    port: Port<KernelStorage>,
    /// The thread to wake when the open call is over.
    sleeper: Option<Sleeper>,
}

/// One endpoint bound on this node. There is one per bind; the table of the container and the
/// open file share it.
#[pin_data]
pub(crate) struct LocalPort {
    endpoint: Endpoint,
    /// Innermost lock of the driver but for the scheduler's: see `dvk_main.rs`.
    #[pin]
    state: BhLock<State>,
    poll: Arc<PollQueue>,
}

impl LocalPort {
    /// Memory for a port whose endpoint is not known yet.
    pub(crate) fn new(endpoint: Endpoint, poll: Arc<PollQueue>) -> Result<Arc<Self>> {
        let state = State { port: Port::new(endpoint), sleeper: None };
        Arc::pin_init(
            pin_init!(Self {
                endpoint,
                state <- new_bh_lock!(state, c"dvk_port"),
                poll,
            }),
            GFP_ATOMIC,
        )
    }

    /// The endpoint.
    pub(crate) fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// See [`Port::counts`] and [`Port::queues`].
    pub(crate) fn numbers(&self) -> ((u64, u64), (usize, usize)) {
        let state = self.state.lock();
        (state.port.counts(), state.port.queues())
    }

    /// See [`Port::is_readable`].
    pub(crate) fn is_readable(&self) -> bool {
        self.state.lock().port.is_readable()
    }

    /// See [`Port::is_dead`].
    pub(crate) fn is_dead(&self) -> bool {
        self.state.lock().port.is_dead()
    }

    /// See [`Port::is_open`].
    pub(crate) fn is_open(&self, call: u32) -> bool {
        self.state.lock().port.is_open(call)
    }

    /// See [`Port::begin_send`].
    pub(crate) fn begin_send(&self, peer: Peer, mode: Mode) -> Result<u32, Errno> {
        self.state.lock().port.begin_send(peer, mode)
    }

    /// See [`Port::begin_receive`].
    pub(crate) fn begin_receive(&self, filter: Filter) -> Result<Receive, Errno> {
        self.state.lock().port.begin_receive(filter)
    }

    /// See [`Port::reply`].
    pub(crate) fn reply(&self, to: Endpoint) -> Result<PeerCall, Errno> {
        self.state.lock().port.reply(to)
    }

    /// See [`Port::count_notify`].
    pub(crate) fn count_notify(&self) {
        self.state.lock().port.count_notify();
    }

    /// See [`Port::fail`].
    pub(crate) fn fail(&self, call: u32, error: Errno) {
        self.state.lock().port.fail(call, error);
    }

    /// Applies a step of `peer`, wakes whom that concerns, and returns what to answer.
    pub(crate) fn apply(&self, peer: Peer, step: &Step) -> Option<Answer> {
        let (effect, sleeper) = {
            let mut state = self.state.lock();
            let effect = state.port.apply(peer, step);
            let sleeper = if effect.wake { state.sleeper.take() } else { None };
            (effect, sleeper)
        };
        if effect.readable {
            self.poll.wake();
        }
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
        effect.answer
    }

    /// See [`Port::node_down`].
    pub(crate) fn node_down(&self, node: u16) {
        let sleeper = {
            let mut state = self.state.lock();
            if !state.port.node_down(node) {
                return;
            }
            state.sleeper.take()
        };
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
    }

    /// Marks the endpoint dead and wakes its thread. `tell` gives a step to a peer: those who
    /// wait for this endpoint hear that it died, and the one it waited for that it no longer does.
    pub(crate) fn kill(&self, mut tell: impl FnMut(Peer, Step)) {
        let (sleeper, open) = {
            let mut state = self.state.lock();
            let (wake, open) = state.port.kill();
            (if wake { state.sleeper.take() } else { None }, open)
        };
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
        self.poll.wake();
        if let Some(PeerCall { peer, call }) = open {
            tell(peer, Step::Cancel { call });
        }
        loop {
            let bereaved = self.state.lock().port.next_bereaved();
            let Some(PeerCall { peer, call }) = bereaved else { break };
            tell(peer, Step::Failed { call, error: Errno::OwnerDead });
        }
    }

    /// Waits until the open call is over. `cancel` gives the peer [`Step::Cancel`].
    ///
    /// Giving up takes two stages: the peer is asked, and what it says ends the call. Only a
    /// thread that is being killed does not wait for that.
    pub(crate) fn wait(&self, timeout: Timeout, cancel: impl Fn(PeerCall)) -> Outcome {
        let mut by = WokenBy::Signals;
        let mut deadline = match timeout {
            Timeout::Until(at) => Some(at),
            Timeout::Never | Timeout::Forever => None,
        };
        let mut reason = (timeout == Timeout::Never).then_some(Errno::WouldBlock);
        loop {
            if let Some(reason) = reason.take() {
                let killed = by == WokenBy::FatalSignals;
                let ended = {
                    let mut state = self.state.lock();
                    let ended = state.port.cancel(reason);
                    if killed {
                        // Asked before, and now being killed: the answer finds no call open.
                        state.port.abandon();
                    }
                    if killed || !matches!(ended, Cancel::Ask(_)) {
                        state.sleeper = None;
                    }
                    ended
                };
                match ended {
                    Cancel::Over(outcome) => return outcome,
                    Cancel::Nothing => return Outcome::Failed(reason),
                    Cancel::Ask(_) if killed => return Outcome::Failed(Errno::Interrupted),
                    Cancel::Ask(call) => {
                        (by, deadline) = (WokenBy::FatalSignals, None);
                        cancel(call);
                    }
                }
            }
            {
                let mut state = self.state.lock();
                if let Some(outcome) = state.port.collect() {
                    state.sleeper = None;
                    return outcome;
                }
                if state.sleeper.is_none() {
                    state.sleeper = Sleeper::current();
                }
                sys::prepare_sleep(by);
            }
            let in_time = sys::sleep_until(deadline);
            sys::finish_sleep();
            if !in_time {
                reason = Some(Errno::TimedOut);
            } else if sys::signal_pending(by) {
                reason = Some(Errno::Interrupted);
            }
        }
    }
}
