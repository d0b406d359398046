// SPDX-License-Identifier: GPL-2.0
//! Endpoints of a container that move between nodes, and calls that wait for them to settle.
//!
//! The start of a move marks the endpoint in the table and then waits for every section
//! ([`SoftirqsHeld`](super::sys::SoftirqsHeld)) that is under way on this node: whoever looked the
//! endpoint up before has given its step then. After the fence, nothing of that is on its way
//! between the nodes either.

use super::abi::errno::Errno;
use super::abi::ioctl::{Event, EVENT_MOVED, EVENT_MOVING, EVENT_PROMOTED, EVENT_STAYED};
use super::abi::wire::record::{Record, Step};
use super::abi::Endpoint;
use super::container::{Container, Forged, Target};
use super::dvs;
use super::local_port::{LocalPort, Timeout};
use super::rules::migration::{Parked, Writer};
use super::rules::port::{Answer, Closed, Peer, PeerCall, Port, Resumed};
use super::rules::table::{Change, Settled};
use super::serve;
use super::sys::{self, PollQueue};
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::workqueue::{impl_has_work, WorkItem};

/// The longest state of an endpoint that is taken: that of one with every slot as a client, and
/// with as many notifications as there can be.
pub(crate) const STATE_BYTES_MAX: usize = 4 << 20;

/// Between two looks at an endpoint that is to move and is in a call.
const LOOK_AGAIN_NS: u64 = 1_000_000;

/// A move.
pub(crate) struct Passage {
    /// The endpoint.
    pub(crate) endpoint: Endpoint,
    /// Where it is.
    pub(crate) from: u16,
    /// Where it is to be.
    pub(crate) to: u16,
    /// The move's number.
    pub(crate) epoch: u32,
}

impl Timeout {
    fn deadline_ns(self) -> Option<u64> {
        match self {
            Self::Never => Some(0),
            Self::Until(at) => Some(at),
            Self::Forever => None,
        }
    }

    /// What a wait with this timeout ends with that was told `error`.
    fn blame(self, error: Errno) -> Errno {
        if self == Self::Never && error == Errno::TimedOut {
            Errno::WouldBlock
        } else {
            error
        }
    }
}

impl_has_work! {
    impl HasWork<Self> for Container { self.flushing }
}

impl WorkItem for Container {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.flush();
    }
}

impl Container {
    /// Freezes an endpoint of this node, sends back what waits for it, and returns its state.
    pub(crate) fn start_leaving(
        &self,
        passage: &Passage,
        timeout: Timeout,
    ) -> Result<KVVec<u8>, Errno> {
        let quiet = Arc::pin_init(PollQueue::new(), GFP_KERNEL).map_err(|_| Errno::NoMemory)?;
        let port = loop {
            match self.freeze(passage) {
                Ok(port) => break port,
                Err(Errno::WouldBlock) => {}
                Err(error) => return Err(error),
            }
            let now = sys::now_ns();
            match timeout {
                Timeout::Never => return Err(Errno::WouldBlock),
                Timeout::Until(at) if at <= now => return Err(Errno::TimedOut),
                _ => {}
            }
            // Nobody wakes this: a thread leaves a call too often to be told to look.
            match quiet.wait(Some(now.saturating_add(LOOK_AGAIN_NS)), || false) {
                Err(Errno::TimedOut) => {}
                other => other?,
            }
        };
        self.moves(EVENT_MOVING, passage.endpoint, passage.to, passage.epoch);
        port.wake_pollers();
        port.send_back(|peer, step| {
            self.tell(passage.endpoint, peer, &step);
        });
        sys::await_sections();
        // What still came before they ended was sent back as it came. Clients may leave while the
        // memory is taken, so that less is written than there is room for.
        let mut state = KVVec::new();
        loop {
            let mut writer = Writer::new(&mut state);
            port.with(|port| port.export(passage.epoch, &mut writer));
            let (complete, len) = (writer.is_complete(), writer.len());
            if complete {
                state.truncate(len);
                return Ok(state);
            }
            state = KVVec::from_elem(0, len, GFP_KERNEL).map_err(|_| Errno::NoMemory)?;
        }
    }

    fn freeze(&self, passage: &Passage) -> Result<Arc<LocalPort>, Errno> {
        self.with_table(|table| {
            table.start_leaving(passage.endpoint, passage.to, passage.epoch, |port| {
                port.with_waking(|port| match port.freeze() {
                    Ok(wake) => (wake, Ok(())),
                    Err(error) => (false, Err(error)),
                })
            })
        })
    }

    /// Notes that an endpoint of another node begins to move, to this node if there is a `state`,
    /// and waits until nothing is on its way any more that it said or was told there.
    pub(crate) fn start_elsewhere(
        &self,
        passage: &Passage,
        state: Option<&[u8]>,
        timeout: Timeout,
    ) -> Result<(), Errno> {
        let Passage { endpoint, from, to, epoch } = *passage;
        match state {
            Some(state) => {
                let poll = Arc::pin_init(PollQueue::new(), GFP_KERNEL);
                let poll = poll.map_err(|_| Errno::NoMemory)?;
                let port = Port::import(endpoint, epoch, state)?;
                let port = LocalPort::new(port, poll).map_err(|_| Errno::NoMemory)?;
                self.with_table(|table| table.start_arriving(endpoint, from, epoch, || Ok(port)))?;
            }
            None => self.with_table(|table| table.start_passing(endpoint, (from, to), epoch))?,
        }
        sys::await_sections();
        let dvs = dvs::get()?;
        if let Some(peer) = dvs.peers.get(from) {
            let fenced = peer.fence(self.id(), endpoint, timeout.deadline_ns());
            fenced.map_err(|error| timeout.blame(error))?;
        }
        // A node that is being set down is down when those who wait for it were told.
        drop(dvs.control.lock());
        Ok(())
    }

    /// Ends a move: the endpoint lives on its new node.
    pub(crate) fn commit(&self, endpoint: Endpoint, epoch: u32) -> Result<(), Errno> {
        let settled = self.with_table(|table| {
            let settled =
                table.commit(endpoint, epoch, |port| port.with(|port| port.is_adopted()))?;
            if let (Some(from), true) = (settled.from, settled.change.is_new()) {
                table.for_each_local(|port| {
                    port.with_waking(|port| (port.follow(endpoint, from, settled.to), ()));
                });
            }
            let tasks = turn(&settled.change, Clients::Carried);
            Ok((settled, tasks))
        })?;
        self.resume(settled, (endpoint, epoch), EVENT_MOVED);
        Ok(())
    }

    /// Ends a move: the endpoint stays where it was.
    pub(crate) fn roll_back(&self, endpoint: Endpoint, epoch: u32) -> Result<(), Errno> {
        let settled = self.with_table(|table| {
            let settled = table.roll_back(endpoint, epoch)?;
            let tasks = turn(&settled.change, Clients::Carried);
            Ok((settled, tasks))
        })?;
        self.resume(settled, (endpoint, epoch), EVENT_STAYED);
        Ok(())
    }

    /// The backup on `node` takes the place of an endpoint.
    pub(crate) fn promote(&self, endpoint: Endpoint, node: u16, epoch: u32) -> Result<(), Errno> {
        let settled = self.with_table(|table| {
            let settled = table.promote(endpoint, node, epoch)?;
            if let (Some(from), true) = (settled.from, settled.change.is_new()) {
                table.for_each_local(|port| {
                    port.with_waking(|port| (port.lose(endpoint, from), ()));
                });
            }
            // The backup does not know the clients of the one that it replaces.
            let tasks = turn(&settled.change, Clients::Lost);
            Ok((settled, tasks))
        })?;
        self.resume(settled, (endpoint, epoch), EVENT_PROMOTED);
        Ok(())
    }

    /// Does what follows from a slot's having settled, and its port's having [turned](turn), without
    /// the table's lock.
    fn resume(
        &self,
        (settled, tasks): (Settled<Arc<LocalPort>>, Tasks),
        (endpoint, epoch): (Endpoint, u32),
        event: u32,
    ) {
        match settled.change {
            Change::Repeated => return,
            Change::Arrived(port) => {
                self.go_on(&port, tasks);
                self.moves(event, endpoint, settled.to, epoch);
            }
            Change::Stayed(port) => {
                self.moves(event, endpoint, settled.to, epoch);
                let closed = tasks.closed;
                self.go_on(&port, tasks);
                if closed {
                    // Its file is gone: the endpoint dies now, as it would have then.
                    self.unbind(&port);
                }
            }
            Change::Departed(port) => {
                self.leave(&port, tasks);
                self.moves(event, endpoint, settled.to, epoch);
            }
            Change::Dropped(port) => self.leave(&port, tasks),
            Change::Passed | Change::Unchanged => {}
        }
        self.settled.wake();
        self.flush();
    }

    /// Tells the control plane of a move from or to this node.
    fn moves(&self, kind: u32, endpoint: Endpoint, node: u16, epoch: u32) {
        dvs::happened(Event {
            endpoint: endpoint.raw(),
            kind,
            container: u32::from(self.id()),
            node: u32::from(node),
            detail: epoch,
            ..Event::default()
        });
    }

    /// Tells those whom it concerns that a port goes on as the endpoint.
    fn go_on(&self, port: &LocalPort, tasks: Tasks) {
        let Resumed { accepted, watch, .. } = tasks.resumed;
        port.wake_pollers();
        if let Some(PeerCall { peer, call }) = accepted {
            self.tell(port.endpoint(), peer, &Step::Accepted { call });
        }
        if let Some(PeerCall { peer, call }) = watch {
            self.watch(port, peer, call);
        }
    }

    /// Asks the source that a waiting `receive` is about to say when it dies.
    fn watch(&self, port: &LocalPort, peer: Peer, call: u32) {
        let step = Step::Watch { call };
        let given = self.route(peer.endpoint).and_then(|target| {
            // It may have moved since the call began; the answer is to come from where it was.
            self.give(port.endpoint(), &target, peer.endpoint, &step, || port.is_open(call))
        });
        let error = match given {
            Ok(Some(Answer::Failed(error))) | Err(error) => error,
            Ok(_) => return,
        };
        port.with_waking(|port| (port.fail(call, error), ()));
    }

    /// Ends a port that stood by for an endpoint which is dead, and is in no table any more.
    pub(crate) fn dismiss(&self, port: &LocalPort) {
        let open = port.with_waking(|port| port.depart(false));
        self.leave(port, Tasks { open, ..Tasks::default() });
    }

    /// The endpoint of a port is elsewhere: tells those who wait here.
    fn leave(&self, port: &LocalPort, tasks: Tasks) {
        port.wake_pollers();
        let tell = |peer, step: Step| {
            self.tell(port.endpoint(), peer, &step);
        };
        if let Some(PeerCall { peer, call }) = tasks.open {
            tell(peer, Step::Cancel { call });
        }
        port.send_back(tell);
        port.bury(tell);
        self.end_grants(port);
    }

    /// The file of a port is closed. Returns whether the endpoint dies with it, and is in no table
    /// any more.
    pub(crate) fn close(&self, port: &LocalPort) -> bool {
        let mine = |kept: &Arc<LocalPort>| core::ptr::eq(&**kept, port);
        let closed = self.with_table(|table| {
            let closed = port.with(|port| port.close());
            let kept = match closed {
                Closed::Dies => table.unbind(port.endpoint(), mine),
                Closed::Moves | Closed::Gone => None,
            };
            Ok((closed, kept))
        });
        match closed {
            Ok((closed, kept)) => {
                drop(kept);
                closed == Closed::Dies
            }
            // The container was destroyed, and the port killed by that.
            Err(_) => true,
        }
    }

    /// Waits until a call to `endpoint` may be made anew that found it on the move. `seen` is what
    /// the call remembers from try to try: the first one is followed by another at once.
    pub(crate) fn await_settled(
        &self,
        endpoint: Endpoint,
        seen: &mut Option<u64>,
        timeout: Timeout,
    ) -> Result<(), Errno> {
        let (before, mut now) = (*seen, None);
        // Asked more often than it says yes.
        let mut ready = || {
            let settlements = self.with_table(|table| {
                let may = before.is_none_or(|before| table.may_retry(endpoint, before));
                Ok(may.then(|| table.settlements()))
            });
            match settlements {
                Ok(None) => false,
                Ok(settlements) => {
                    now = settlements;
                    true
                }
                // The container is gone, as the next try will find.
                Err(_) => true,
            }
        };
        if !ready() {
            if timeout == Timeout::Never {
                return Err(Errno::WouldBlock);
            }
            self.settled.wait(timeout.deadline_ns(), ready)?;
        }
        *seen = now;
        Ok(())
    }

    /// Number of the last move of `endpoint`.
    pub(crate) fn epoch(&self, endpoint: Endpoint) -> u32 {
        self.with_table(|table| Ok(table.epoch(endpoint))).unwrap_or(0)
    }

    /// A step of an endpoint of this node came back from where the one it was for does not live
    /// any more: `node`. The link that brought it is locked, so that it goes on from elsewhere.
    pub(crate) fn returned(self: &Arc<Self>, node: u16, record: &Record) -> Result<(), Forged> {
        let Step::Returned { call, bits, epoch } = record.step else { return Err(Forged) };
        let parked = Parked::returned(record.to, record.from, call, bits, epoch);
        let kept = self.with_table(|table| {
            if !table.may_return(record.from, node) {
                return Err(Errno::Denied);
            }
            table.keep(parked)
        });
        match kept {
            Ok(()) => {
                if let Some(queue) = serve::queue() {
                    // An error is that it is about to run.
                    let _ = queue.enqueue(self.clone());
                }
                Ok(())
            }
            Err(Errno::Denied) => Err(Forged),
            // There is no room, or the container is gone.
            Err(_) => Ok(()),
        }
    }

    /// Gives on what waited for endpoints that have settled.
    pub(crate) fn flush(&self) {
        while let Ok(Some(parked)) = self.with_table(|table| Ok(table.next_parked())) {
            // Its endpoint may have died meanwhile, or its node gone down.
            let _ = self.hand(parked);
        }
    }

    /// Gives a notification, or the withdrawal of a call, to wherever its endpoint is, or keeps it
    /// until that has settled.
    pub(crate) fn hand(&self, parked: Parked) -> Result<(), Errno> {
        loop {
            let target = self.with_table(|table| {
                if table.park(parked)? {
                    return Ok(None);
                }
                Ok(Some(Target::from(table.route(parked.to)?)))
            });
            let Some(target) = target? else { return Ok(()) };
            let step = parked.step();
            match self.give(parked.from, &target, parked.to, &step, || true)? {
                // It began to move in between: the table knows.
                Some(Answer::Returned) => {}
                Some(Answer::Failed(error)) => return Err(error),
                Some(answer) => {
                    let caller = self.route(parked.from);
                    if let (Ok(Target::Local(caller)), Some(step)) =
                        (caller, answer.step(step.call()))
                    {
                        let peer = Peer { endpoint: parked.to, node: self.local() };
                        caller.apply(peer, &step);
                    }
                    return Ok(());
                }
                None => return Ok(()),
            }
        }
    }
}

/// Whether a port's clients are known where its endpoint goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Clients {
    Carried,
    Lost,
}

/// What is left to do for a port that [`turn`] has changed.
#[derive(Default)]
struct Tasks {
    resumed: Resumed,
    /// The call that its peer is to get [`Step::Cancel`] for.
    open: Option<PeerCall>,
    /// Its file was closed while it moved.
    closed: bool,
}

/// Lets the port of a slot that has settled be what the table says. Under the table's lock, so that
/// nobody who finds the endpoint there finds its port still on the move.
fn turn(change: &Change<Arc<LocalPort>>, clients: Clients) -> Tasks {
    match change {
        Change::Arrived(port) | Change::Stayed(port) => port.with_waking(|port| {
            let closed = port.is_closed();
            let resumed = port.settle();
            (resumed.wake, Tasks { resumed, closed, ..Tasks::default() })
        }),
        Change::Departed(port) | Change::Dropped(port) => port.with_waking(|port| {
            let (wake, open) = port.depart(clients == Clients::Carried);
            (wake, Tasks { open, ..Tasks::default() })
        }),
        Change::Repeated | Change::Passed | Change::Unchanged => Tasks::default(),
    }
}
