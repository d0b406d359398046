// SPDX-License-Identifier: GPL-2.0
//! Parts of copies between this node and a peer: what frames bring for them, and those who wait.

use super::abi::errno::Errno;
use super::abi::wire::transfer::{CopyHead, CopyRecord, CopyStep, DataHead, Flow};
use super::abi::Endpoint;
use super::grants::Borrowed;
use super::limits::ByteRoom;
use super::local_port::Timeout;
use super::memory::PinnedRange;
use super::rules::fifo::Fifo;
use super::rules::transfer::{self as rules, End, Kind, Role};
use super::storage::KernelArray;
use super::sys::{new_bh_lock, BhLock, WaitQueue, WokenBy};
use kernel::prelude::*;
use kernel::sync::Arc;

/// Copies of one peer that are served at once; others wait for their turn.
const WORKERS: u32 = 16;
/// Copies of one peer that are served or wait for it. More threads than that rarely copy at once,
/// and a peer that asks without end must not take memory without end.
const WAITING: usize = 1024;

/// Where received bytes go. To be dropped where one may sleep.
pub(crate) enum Window {
    /// Memory of a process on this node, and the use of a grant if it was lent.
    Pinned { range: PinnedRange, _lent: Option<Borrowed> },
    /// Memory of the kernel, for a copy from one peer to another.
    Buffer(KVVec<u8>),
}

impl Window {
    /// Its bytes: at most a part.
    pub(crate) fn len(&self) -> u32 {
        let len = match self {
            Self::Pinned { range, .. } => range.len(),
            Self::Buffer(buffer) => buffer.len(),
        };
        u32::try_from(len).unwrap_or(u32::MAX)
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        match self {
            Self::Pinned { range, .. } => range.write(at, bytes),
            Self::Buffer(buffer) => {
                let place = buffer.get_mut(at..).and_then(|rest| rest.get_mut(..bytes.len()));
                if let Some(place) = place {
                    place.copy_from_slice(bytes);
                }
            }
        }
    }
}

struct State {
    rules: rules::Transfer,
    /// Taken out, and dropped, by the thread that put it there.
    window: Option<Window>,
}

/// One end of one part of a copy. It is in the [`Transfers`] of the peer while somebody may send
/// for it.
#[pin_data]
pub(crate) struct Transfer {
    /// As the asker writes it.
    pub(crate) head: CopyHead,
    role: Role,
    /// The first step; what is to be done, at the granter's end.
    pub(crate) step: CopyStep,
    /// The grant on this node that its bytes go to, if any.
    lent: Option<(Endpoint, u64)>,
    _room: Option<ByteRoom>,
    /// Innermost: see `dvk_main.rs`.
    #[pin]
    state: BhLock<State>,
    /// The thread that waits for something to happen.
    #[pin]
    changed: WaitQueue,
}

/// What kind of part a first step begins, and of how many bytes.
fn kind(step: &CopyStep) -> Option<(Kind, u32)> {
    match *step {
        CopyStep::CopyFrom { len, .. } => Some((Kind::From, len)),
        CopyStep::CopyTo { len, .. } => Some((Kind::To, len)),
        CopyStep::CopyBetween { len, .. } => Some((Kind::Between, len)),
        CopyStep::Open | CopyStep::Stop | CopyStep::Done { .. } => None,
    }
}

impl Transfer {
    fn new(
        head: CopyHead,
        role: Role,
        step: CopyStep,
        lent: Option<(Endpoint, u64)>,
        room: Option<ByteRoom>,
        flags: kernel::alloc::Flags,
    ) -> Result<Arc<Self>, Errno> {
        let (kind, len) = kind(&step).ok_or(Errno::Invalid)?;
        let rules = rules::Transfer::new(kind, role, len);
        let state = State { rules, window: None };
        let transfer = pin_init!(Self {
            head,
            role,
            step,
            lent,
            _room: room,
            state <- new_bh_lock!(state, c"dvk_transfer"),
            changed <- WaitQueue::new(),
        });
        Arc::pin_init(transfer, flags).map_err(|_| Errno::NoMemory)
    }

    /// Lets bytes arrive. The window is to be taken back by [`take_window`](Self::take_window),
    /// whatever happens.
    pub(crate) fn open_window(&self, window: Window) {
        let mut state = self.state.lock();
        state.rules.prepare(window.len());
        state.window = Some(window);
    }

    /// Ends the arrival of bytes.
    pub(crate) fn take_window(&self) -> Option<Window> {
        self.state.lock().window.take()
    }

    /// Asks the rules.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&rules::Transfer) -> T) -> T {
        look(&self.state.lock().rules)
    }

    /// Lets the rules know something that its thread does; nobody has to be woken for it.
    pub(crate) fn act<T>(&self, act: impl FnOnce(&mut rules::Transfer) -> T) -> T {
        act(&mut self.state.lock().rules)
    }

    /// Lets the rules know something that others do, and wakes the thread if `act` says so.
    fn happen(&self, act: impl FnOnce(&mut State) -> bool) {
        let news = act(&mut self.state.lock());
        if news {
            self.changed.wake_all();
        }
    }

    /// Ends it, for this reason: from here on nothing is written to its memory.
    pub(crate) fn fail(&self, error: Errno) {
        self.happen(|state| state.rules.fail(error));
    }

    /// Takes bytes that arrived for `offset`.
    fn deliver(&self, offset: u32, bytes: &[u8]) {
        self.happen(|state| {
            let State { rules, window: Some(window), .. } = state else { return false };
            // What does not fit is late, or made up, and has no effect.
            let Ok((at, taken)) = rules.place(offset, bytes.len()) else { return false };
            window.write(at as usize, &bytes[..taken as usize]);
            rules.role() == Role::Granter && rules.is_full()
        });
    }

    /// Waits until `ready` holds, or the part has ended.
    ///
    /// # Errors
    /// [`Errno::TimedOut`] or [`Errno::Interrupted`] if it came to nothing.
    pub(crate) fn wait(
        &self,
        timeout: Timeout,
        by: WokenBy,
        ready: impl Fn(&rules::Transfer) -> bool,
    ) -> Result<(), Errno> {
        let deadline = match timeout {
            Timeout::Until(at) => Some(at),
            Timeout::Never | Timeout::Forever => None,
        };
        self.changed
            .wait_until(by, deadline, || self.look(|rules| rules.end().is_some() || ready(rules)))
    }

    /// The same for a thread of the kernel, which has as long as it takes.
    pub(crate) fn wait_idly(&self, ready: impl Fn(&rules::Transfer) -> bool) {
        self.changed.wait(|| self.look(|rules| rules.end().is_some() || ready(rules)));
    }

    /// The record that answers the asker.
    pub(crate) fn answer(&self, step: CopyStep) -> CopyRecord {
        CopyRecord { head: self.head.back(), step }
    }

    /// Whether it has to do with an endpoint of this node.
    fn concerns(&self, container: u16, endpoint: Endpoint) -> bool {
        let here = match self.role {
            Role::Asker => self.head.from,
            Role::Granter => self.head.to,
        };
        let receiver = match self.step {
            CopyStep::CopyBetween { receiver, .. } if self.role == Role::Granter => Some(receiver),
            _ => None,
        };
        let lender = self.lent.map(|(lender, _)| lender);
        self.head.container == container
            && (here == endpoint || receiver == Some(endpoint) || lender == Some(endpoint))
    }
}

/// What a peer's node wants of this one.
pub(crate) enum Request {
    /// A worker has to be started for it.
    Start,
    /// One will come to it.
    Queued,
    /// It is not served.
    Refused(Errno),
}

struct Open {
    all: KVec<Arc<Transfer>>,
    /// Those that wait for a worker.
    queue: Fifo<Arc<Transfer>, KernelArray<Option<Arc<Transfer>>>>,
    workers: u32,
    /// Granters' ends in `all`.
    served: usize,
    next_call: u32,
}

/// The parts of copies between this node and one peer.
#[pin_data]
pub(crate) struct Transfers {
    /// Taken under `PeerLink::state`, and before that of a [`Transfer`].
    #[pin]
    open: BhLock<Open>,
}

impl Transfers {
    pub(crate) fn new() -> impl PinInit<Self> {
        let open =
            Open { all: KVec::new(), queue: Fifo::default(), workers: 0, served: 0, next_call: 0 };
        pin_init!(Self { open <- new_bh_lock!(open, c"dvk_transfers") })
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.open.lock().all.len()
    }

    /// Begins the asker's end of a part that begins with `step`.
    pub(crate) fn ask(
        &self,
        container: u16,
        from: Endpoint,
        to: Endpoint,
        step: CopyStep,
        lent: Option<(Endpoint, u64)>,
        room: ByteRoom,
    ) -> Result<Arc<Transfer>, Errno> {
        let call = {
            let mut open = self.open.lock();
            open.next_call = open.next_call.wrapping_add(1);
            open.next_call
        };
        let head = CopyHead { container, call, from, to };
        let transfer = Transfer::new(head, Role::Asker, step, lent, Some(room), GFP_KERNEL)?;
        let mut open = self.open.lock();
        open.all.push(transfer.clone(), GFP_ATOMIC).map_err(|_| Errno::NoMemory)?;
        Ok(transfer)
    }

    /// Takes in a part that the peer asks for.
    pub(crate) fn asked(&self, record: &CopyRecord) -> Request {
        let lent = match record.step {
            CopyStep::CopyTo { destination, .. } => Some((record.head.to, destination.grant)),
            _ => None,
        };
        let mut open = self.open.lock();
        if open.served >= WAITING {
            return Request::Refused(Errno::Limit);
        }
        let same = |known: &Arc<Transfer>| known.role == Role::Granter && known.head == record.head;
        if open.all.iter().any(same) {
            return Request::Refused(Errno::Invalid);
        }
        let made = Transfer::new(record.head, Role::Granter, record.step, lent, None, GFP_ATOMIC);
        let Ok(transfer) = made else { return Request::Refused(Errno::NoMemory) };
        if open.all.push(transfer.clone(), GFP_ATOMIC).is_err() {
            return Request::Refused(Errno::NoMemory);
        }
        if open.queue.push(transfer).is_err() {
            open.all.pop();
            return Request::Refused(Errno::NoMemory);
        }
        open.served += 1;
        if open.workers < WORKERS {
            open.workers += 1;
            Request::Start
        } else {
            Request::Queued
        }
    }

    /// A worker could not be started. Returns what was to be served, if no other will.
    pub(crate) fn not_started(&self) -> Option<Arc<Transfer>> {
        let mut open = self.open.lock();
        open.workers = open.workers.saturating_sub(1);
        if open.workers == 0 {
            open.queue.take(|_| true)
        } else {
            None
        }
    }

    /// What a worker does next; `None` ends it.
    pub(crate) fn next_served(&self) -> Option<Arc<Transfer>> {
        let mut open = self.open.lock();
        let next = open.queue.take(|_| true);
        if next.is_none() {
            open.workers = open.workers.saturating_sub(1);
        }
        next
    }

    /// Takes a part out: what arrives for it from here on is late.
    pub(crate) fn finish(&self, transfer: &Transfer) {
        let taken = {
            let mut open = self.open.lock();
            let at = open.all.iter().position(|known| core::ptr::eq(&raw const **known, transfer));
            let taken = at.and_then(|at| open.all.remove(at).ok());
            if taken.is_some() && transfer.role == Role::Granter {
                open.served = open.served.saturating_sub(1);
            }
            taken
        };
        drop(taken);
    }

    fn find(&self, role: Role, head: &CopyHead) -> Option<Arc<Transfer>> {
        let open = self.open.lock();
        let wanted = |known: &&Arc<Transfer>| known.role == role && known.head == *head;
        open.all.iter().find(wanted).cloned()
    }

    /// Takes an answer to a part that was asked for here, or the asker's wish to end one.
    pub(crate) fn arrived(&self, record: &CopyRecord) {
        let (role, head) = match record.step {
            CopyStep::Stop => (Role::Granter, record.head),
            _ => (Role::Asker, record.head.back()),
        };
        // One that is over needs no answer.
        let Some(transfer) = self.find(role, &head) else { return };
        transfer.happen(|state| match record.step {
            CopyStep::Open => state.rules.opened().is_ok(),
            CopyStep::Done { copied, error } => state.rules.done(copied, error).is_ok(),
            CopyStep::Stop => state.rules.stop(),
            _ => false,
        });
    }

    /// For whom data is that begins like this.
    pub(crate) fn receiver(&self, data: &DataHead) -> Incoming {
        let transfer = match data.flow {
            Flow::Supplied => self.find(Role::Asker, &data.head.back()),
            Flow::Stored => self.find(Role::Granter, &data.head),
        };
        Incoming { transfer, offset: data.offset }
    }

    /// Ends all parts that `concern` accepts.
    fn fail_if(&self, error: Errno, concern: impl Fn(&Transfer) -> bool) {
        let open = self.open.lock();
        for transfer in open.all.iter().filter(|transfer| concern(transfer)) {
            transfer.fail(error);
        }
    }

    /// The stream with the peer is lost.
    pub(crate) fn lost(&self) {
        self.fail_if(Errno::NodeDown, |_| true);
    }

    /// An endpoint of this node is dead.
    pub(crate) fn died(&self, container: u16, endpoint: Endpoint) {
        self.fail_if(Errno::OwnerDead, |transfer| transfer.concerns(container, endpoint));
    }

    /// A grant of an endpoint of this node is revoked.
    pub(crate) fn revoked(&self, container: u16, granter: Endpoint, grant: u64) {
        self.fail_if(Errno::Denied, |transfer| {
            transfer.head.container == container && transfer.lent == Some((granter, grant))
        });
    }
}

/// A data record whose end is in a later frame.
pub(crate) struct Incoming {
    /// `None` if nobody waits for it.
    transfer: Option<Arc<Transfer>>,
    offset: u32,
}

impl Incoming {
    /// One that is malformed.
    pub(crate) const NOBODYS: Self = Self { transfer: None, offset: 0 };

    /// Takes the next bytes of it.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        if let Some(transfer) = &self.transfer {
            transfer.deliver(self.offset, bytes);
            self.offset = self.offset.saturating_add(bytes.len() as u32);
        }
    }
}

/// How a part ended; nothing is known of one that has not.
pub(crate) fn end(transfer: &Transfer) -> End {
    let unknown = End { copied: 0, error: Some(Errno::Interrupted) };
    transfer.look(|rules| rules.end().unwrap_or(unknown))
}
