// SPDX-License-Identifier: GPL-2.0
//! A Distributed Container on this node: its endpoint table, and how steps find their port.

use super::abi::errno::Errno;
use super::abi::ioctl::{
    self, Event, Info, EVENT_BOUND, EVENT_UNBOUND, ROLE_BACKUP, ROLE_PRIMARY, ROLE_REPLICA,
};
use super::abi::limits::{NAME_BYTES, SLOTS};
use super::abi::wire::record::{Record, Step};
use super::abi::Endpoint;
use super::dvs;
use super::limits::Limits;
use super::local_port::LocalPort;
use super::rules::migration::Parked;
use super::rules::port::{Answer, Peer, PeerCall, Port};
use super::rules::table::{Elsewhere, Lease, Route, Table};
use super::rules::waiters::{Waiter, Waiters};
use super::storage::KernelStorage;
use super::sys::{new_bh_lock, BhLock, PollQueue, SoftirqsHeld};
use core::num::NonZeroU32;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::workqueue::{new_work, Work};

type Ports = Table<Arc<LocalPort>, KernelStorage>;

/// One container that spans this node. Open files of its device keep it alive after it is
/// destroyed; its table is gone then.
#[pin_data]
pub(crate) struct Container {
    id: u16,
    local: u16,
    name: [u8; NAME_BYTES],
    limits: Arc<Limits>,
    #[pin]
    table: BhLock<Option<Ports>>,
    /// Who waits for a bind. Whoever waits is put here before looking at the table, and whoever
    /// binds is put into the table before looking here, so one of them sees the other.
    #[pin]
    waiters: BhLock<Waiters<KernelStorage>>,
    /// Those who wait for an endpoint to settle.
    #[pin]
    pub(crate) settled: PollQueue,
    /// Gives on what waited for endpoints to settle.
    #[pin]
    pub(crate) flushing: Work<Self>,
}

/// Where a destination is.
pub(crate) enum Target {
    /// On this node.
    Local(Arc<LocalPort>),
    /// On another.
    Remote(u16),
}

/// Which slot a file is to be bound to.
#[derive(Clone, Copy)]
pub(crate) enum SlotChoice {
    /// Any free one of this node's lease.
    Any,
    /// A server slot.
    Server(u32),
    /// The server slot of an endpoint that is bound on another node, to stand by.
    Backup(u32),
    /// A server slot that other nodes may have, too.
    Replica(u32),
    /// That of an endpoint which moves here.
    Adopt(Endpoint),
}

impl Container {
    /// A container of node `local`, with the caps that `block` gives.
    pub(crate) fn new(id: u16, local: u16, block: &ioctl::Container) -> Result<Arc<Self>> {
        let table = Ports::new(local, block.max_endpoints);
        let limits = Limits::new(block)?;
        Arc::pin_init(
            pin_init!(Self {
                id,
                local,
                name: block.name,
                limits,
                table <- new_bh_lock!(Some(table), c"dvk_table"),
                waiters <- new_bh_lock!(Waiters::default(), c"dvk_waiters"),
                settled <- PollQueue::new(),
                flushing <- new_work!("dvk_flush"),
            }),
            GFP_KERNEL,
        )
    }

    /// The container's id.
    pub(crate) fn id(&self) -> u16 {
        self.id
    }

    /// Its name for people, padded with zero bytes.
    pub(crate) fn name(&self) -> &[u8] {
        &self.name
    }

    /// How many endpoints are bound on this node, and may be; `None` once it is destroyed.
    pub(crate) fn bound(&self) -> Option<(u32, u32)> {
        self.with_table(|table| Ok((table.bound(), table.max_bound()))).ok()
    }

    /// What its endpoints may have.
    pub(crate) fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    /// See [`Table::may_speak`].
    pub(crate) fn may_speak(&self, endpoint: Endpoint, node: u16) -> bool {
        self.with_table(|table| Ok(table.may_speak(endpoint, node))).unwrap_or(false)
    }

    /// This node.
    pub(crate) fn local(&self) -> u16 {
        self.local
    }

    /// Uses the table, if the container has not been destroyed.
    pub(crate) fn with_table<T>(
        &self,
        use_it: impl FnOnce(&mut Ports) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let mut table = self.table.lock();
        use_it(Option::as_mut(&mut table).ok_or(Errno::NoDevice)?)
    }

    /// See [`Table::lease`].
    pub(crate) fn lease(&self, lease: Lease) -> Result<(), Errno> {
        self.with_table(|table| table.lease(lease))
    }

    /// See [`Table::remove_node`].
    pub(crate) fn remove_node(&self, node: u16) -> Result<(), Errno> {
        self.with_table(|table| {
            table.remove_node(node);
            Ok(())
        })?;
        self.settled.wake();
        Ok(())
    }

    /// Notes that `endpoint` lives on `node`, and perhaps on others if it is `replicated`; or
    /// forgets it.
    pub(crate) fn set_remote(
        &self,
        endpoint: Endpoint,
        node: Option<u16>,
        replicated: bool,
    ) -> Result<(), Errno> {
        let backup = self.with_table(|table| match node {
            Some(node) => table.set_remote(endpoint, node, replicated),
            None => table.forget_remote(endpoint).map(|()| None),
        })?;
        if let Some(backup) = backup {
            self.dismiss(&backup);
        }
        self.settled.wake();
        if let Some(node) = node {
            self.announce(Peer { endpoint, node });
        }
        Ok(())
    }

    /// Tells those who wait for a bind of the slot of `bound`.
    fn announce(&self, bound: Peer) {
        loop {
            let waiter = self.waiters.lock().take(bound.endpoint.slot());
            let Some(PeerCall { peer, call }) = waiter else { return };
            if peer.node != self.local {
                self.tell(bound.endpoint, peer, &Step::Bound { call });
            } else if let Ok(Target::Local(port)) = self.route(peer.endpoint) {
                port.apply(bound, &Step::Bound { call });
            }
        }
    }

    /// Has `call` end when somebody is bound to `slot`; returns who is already. `None` with a
    /// node that leases the slot is that this node has to be asked.
    pub(crate) fn await_bind(&self, slot: u32, call: PeerCall) -> Result<Option<Peer>, Errno> {
        self.waiters.lock().add(Waiter { slot, call })?;
        let bound = self.with_table(|table| {
            Ok(table.bound_to(slot).map(|(endpoint, route)| match route {
                Route::Local(_) => Peer { endpoint, node: self.local },
                Route::Remote(node) => Peer { endpoint, node },
            }))
        });
        if !matches!(bound, Ok(None)) {
            self.forget_waiter(call);
        }
        bound
    }

    /// Takes back what [`await_bind`](Self::await_bind) did.
    pub(crate) fn forget_waiter(&self, call: PeerCall) {
        self.waiters.lock().forget(call);
    }

    /// See [`Table::lessee`].
    pub(crate) fn lessee(&self, slot: u32) -> Result<Option<u16>, Errno> {
        self.with_table(|table| Ok(table.lessee(slot)))
    }

    /// Describes the first endpoint from `slot` on.
    pub(crate) fn describe_next(&self, slot: u32) -> Result<Info, Errno> {
        let (endpoint, target) = self.with_table(|table| {
            let (endpoint, route) = table.next_bound(slot).ok_or(Errno::NoEndpoint)?;
            Ok((endpoint, Target::from(route)))
        })?;
        let mut info = Info {
            endpoint: endpoint.raw(),
            container: u32::from(self.id),
            node: u32::from(self.peer(endpoint, &target).node),
            waits_for: Endpoint::NONE.raw(),
            ..Info::default()
        };
        if let Target::Local(port) = target {
            self.describe(&port, &mut info);
        }
        info.epoch = self.epoch(endpoint);
        Ok(info)
    }

    /// Describes an endpoint of this node.
    pub(crate) fn describe(&self, port: &LocalPort, info: &mut Info) {
        port.describe(info);
        let endpoint = port.endpoint();
        info.epoch = self.epoch(endpoint);
        info.role = if port.with(|port| port.is_standby()) {
            ROLE_BACKUP
        } else if self.with_table(|table| Ok(table.is_replicated(endpoint))) == Ok(true) {
            ROLE_REPLICA
        } else {
            ROLE_PRIMARY
        };
    }

    /// Binds a slot; `poll` is woken when something arrives.
    pub(crate) fn bind(
        &self,
        slot: SlotChoice,
        poll: Arc<PollQueue>,
    ) -> Result<Arc<LocalPort>, Errno> {
        if let SlotChoice::Adopt(endpoint) = slot {
            let port = self.with_table(|table| table.arriving(endpoint))?;
            port.adopt(poll)?;
            self.happened(EVENT_BOUND, endpoint);
            return Ok(port);
        }
        let mut bound = None;
        let make = |endpoint| {
            let state = match slot {
                SlotChoice::Backup(_) => Port::standby(endpoint),
                _ => Port::new(endpoint),
            };
            let port = LocalPort::new(state, poll).map_err(|_| Errno::NoMemory)?;
            bound = Some(port.clone());
            Ok(port)
        };
        self.with_table(|table| match slot {
            SlotChoice::Any => table.bind_any(make),
            SlotChoice::Server(number) => table.bind_server(number, make),
            SlotChoice::Backup(number) => table.bind_backup(number, make),
            SlotChoice::Replica(number) => table.bind_replica(number, make),
            SlotChoice::Adopt(_) => Err(Errno::Invalid),
        })?;
        let port = bound.ok_or(Errno::NoMemory)?;
        self.happened(EVENT_BOUND, port.endpoint());
        if let SlotChoice::Backup(_) = slot {
            return Ok(port);
        }
        self.announce(Peer { endpoint: port.endpoint(), node: self.local });
        Ok(port)
    }

    /// Ends the binding of `port` and tells everybody who waits for it, unless it is on the move.
    pub(crate) fn unbind(&self, port: &LocalPort) {
        if self.close(port) {
            self.kill(port);
        }
    }

    fn happened(&self, kind: u32, endpoint: Endpoint) {
        dvs::happened(Event {
            endpoint: endpoint.raw(),
            kind,
            container: u32::from(self.id),
            node: u32::from(self.local),
            ..Event::default()
        });
    }

    fn kill(&self, port: &LocalPort) {
        if !port.is_dead() {
            self.happened(EVENT_UNBOUND, port.endpoint());
        }
        port.kill(|peer, step| {
            self.tell(port.endpoint(), peer, &step);
        });
        self.end_grants(port);
    }

    /// Ends what a port lent, and returns when nobody uses it any more.
    pub(crate) fn end_grants(&self, port: &LocalPort) {
        port.grants.close(|| {
            if let Ok(dvs) = dvs::get() {
                dvs.peers.for_each(|_, peer| peer.transfers.died(self.id, port.endpoint()));
            }
        });
    }

    /// Destroys the container: every endpoint on this node dies.
    pub(crate) fn destroy(&self) {
        let Some(mut table) = self.table.lock().take() else { return };
        while let Some(port) = table.take_local() {
            self.kill(&port);
        }
    }

    /// Ends everything that waits for `node`, which is down.
    pub(crate) fn node_down(&self, node: u16) {
        self.waiters.lock().node_down(node);
        // An error means that the container was destroyed: nobody waits any more.
        let _ = self.with_table(|table| {
            table.for_each_local(|port| port.node_down(node));
            Ok(())
        });
    }

    /// Notes that `node` is down, or up again: see [`Table::set_node_down`].
    pub(crate) fn set_node_down(&self, node: u16, down: bool) {
        // An error means that the container was destroyed: nobody waits any more.
        let _ = self.with_table(|table| {
            table.set_node_down(node, down);
            Ok(())
        });
        self.settled.wake();
    }

    /// Where `endpoint` is.
    pub(crate) fn route(&self, endpoint: Endpoint) -> Result<Target, Errno> {
        self.with_table(|table| Ok(Target::from(table.route(endpoint)?)))
    }

    /// As [`route`](Self::route), where softirqs are held off.
    pub(crate) fn route_in(
        &self,
        held: &SoftirqsHeld,
        endpoint: Endpoint,
    ) -> Result<Target, Errno> {
        let table = self.table.lock_in(held);
        Ok(Target::from(Option::as_ref(&table).ok_or(Errno::NoDevice)?.route(endpoint)?))
    }

    /// Whether the open call of `from` closes a cycle of endpoints that wait for each other.
    ///
    /// Every endpoint on the way is looked at alone, so what was seen first may be over when the
    /// last is seen. Calls have numbers and do not come back: if the same calls are found open
    /// twice, all of them were open between the two looks.
    pub(crate) fn closes_cycle(&self, from: &LocalPort) -> bool {
        let goal = Peer { endpoint: from.endpoint(), node: self.local };
        let way = || self.follow(from, goal);
        way().is_some_and(|first| way() == Some(first))
    }

    /// Follows who waits for whom from `from` to `goal`, and returns a mark of the calls on the
    /// way; `None` if the way ends elsewhere. An endpoint on another node is known to wait for
    /// `from` if its message is with `from`.
    fn follow(&self, from: &LocalPort, goal: Peer) -> Option<u64> {
        let mut mark = 0_u64;
        let mut next = from.with(|port| port.waits_for())?;
        for _ in 0..SLOTS {
            let PeerCall { peer, call } = next;
            for part in [u64::from(call), peer.endpoint.raw()] {
                mark = (mark.rotate_left(5) ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            }
            if peer == goal {
                return Some(mark);
            }
            if peer.node != self.local {
                let known =
                    goal.endpoint == from.endpoint() && from.with(|port| port.is_awaited_by(peer));
                return known.then_some(mark);
            }
            let Ok(Target::Local(port)) = self.route(peer.endpoint) else { return None };
            next = port.with(|port| port.waits_for())?;
        }
        None
    }

    /// The peer that `endpoint`, which is at `target`, is.
    pub(crate) fn peer(&self, endpoint: Endpoint, target: &Target) -> Peer {
        let node = match target {
            Target::Local(_) => self.local,
            Target::Remote(node) => *node,
        };
        Peer { endpoint, node }
    }

    /// Gives a step of the local endpoint `from` to `to`, which is at `target`. A local peer's
    /// answer is returned; a remote one's comes as a record.
    ///
    /// `wanted` is asked before a step goes to another node: see
    /// [`PeerLink::submit`](super::peer::PeerLink::submit).
    pub(crate) fn give(
        &self,
        from: Endpoint,
        target: &Target,
        to: Endpoint,
        step: &Step,
        wanted: impl FnOnce() -> bool,
    ) -> Result<Option<Answer>, Errno> {
        match target {
            Target::Local(port) => {
                Ok(port.apply(Peer { endpoint: from, node: self.local }, step).answer)
            }
            Target::Remote(node) => {
                let record = Record { container: self.id, from, to, step: *step };
                dvs::submit(*node, &record, wanted)?;
                Ok(None)
            }
        }
    }

    /// Gives a step to a peer that is known already: an answer, or a call withdrawn. A link that
    /// cannot take it is reset, or down, and whoever waits hears that from it.
    pub(crate) fn tell(&self, from: Endpoint, peer: Peer, step: &Step) -> Option<Answer> {
        let target = if peer.node == self.local {
            let receiver = self.with_table(|table| Ok(table.receiver(peer.endpoint).cloned()));
            match receiver {
                Ok(Ok(port)) => Target::Local(port),
                Ok(Err(Elsewhere::Moved { .. })) => return self.tell_elsewhere(from, peer, step),
                // One that is gone meanwhile needs no answer.
                _ => return None,
            }
        } else {
            Target::Remote(peer.node)
        };
        match self.give(from, &target, peer.endpoint, step, || true).ok()? {
            Some(Answer::Returned) => self.tell_elsewhere(from, peer, step),
            answer => answer,
        }
    }

    /// Withdraws a call from a peer that has moved, or moves. Who is to be answered hears from
    /// there.
    fn tell_elsewhere(&self, from: Endpoint, peer: Peer, step: &Step) -> Option<Answer> {
        let parked = Parked::of(from, peer.endpoint, step)?;
        // An error is that the peer has died, or its node is down, which the caller was told.
        let _ = self.hand(parked);
        None
    }

    /// Applies a record that arrived from `node`; the answer, if any, is for its sender.
    ///
    /// A step that begins something must come from the node that may speak for its source. Steps
    /// that answer are checked by the port itself, which knows whom it asked, and where.
    pub(crate) fn arrived(&self, node: u16, record: &Record) -> Result<Option<Answer>, Forged> {
        let peer = Peer { endpoint: record.from, node };
        let target = {
            let table = self.table.lock();
            let Some(table) = &*table else {
                return Ok(refusal(&record.step, Errno::NoDevice));
            };
            if record.step.begins() && !table.may_speak(record.from, node) {
                return Err(Forged);
            }
            if let Step::AwaitBind { .. } = record.step {
                return Ok(self.asked_for_bind(table, peer, record));
            }
            match table.receiver(record.to) {
                Ok(port) => port.clone(),
                Err(Elsewhere::Moved { .. }) => {
                    return Ok(match record.step {
                        Step::Notify { .. } | Step::Cancel { .. } => Some(Answer::Returned),
                        _ => refusal(&record.step, Errno::Moved),
                    });
                }
                Err(Elsewhere::Not(error)) => return Ok(refusal(&record.step, error)),
            }
        };
        let effect = target.apply(peer, &record.step);
        if effect.readable && effect.answer.is_none() && record.step.call() != 0 {
            return Ok(self.refuse_cycle(&target, peer, record.step.call()));
        }
        Ok(effect.answer)
    }

    /// Takes a message of `peer` back that closes a cycle.
    fn refuse_cycle(&self, target: &LocalPort, peer: Peer, call: u32) -> Option<Answer> {
        let way = || self.follow(target, peer);
        let first = way()?;
        if way() != Some(first) {
            return None;
        }
        match target.apply(peer, &Step::Cancel { call }).answer {
            Some(Answer::Cancelled) => Some(Answer::Failed(Errno::Deadlock)),
            _ => None,
        }
    }

    /// `peer` waits for a bind in a slot that this node leases. The table is locked, and so is
    /// the link: the answer is returned.
    fn asked_for_bind(&self, table: &Ports, peer: Peer, record: &Record) -> Option<Answer> {
        let (slot, call) = (record.to.slot(), record.step.call());
        let waiter = Waiter { slot, call: PeerCall { peer, call } };
        match table.bound_to(slot) {
            Some((endpoint, Route::Local(_))) => Some(Answer::Bound(endpoint)),
            _ if table.lessee(slot).is_some() => Some(Answer::Failed(Errno::NoEndpoint)),
            // Whoever binds has to have the table first, and looks at the waiters after that.
            _ => self.waiters.lock().add(waiter).err().map(Answer::Failed),
        }
    }
}

impl From<Route<'_, Arc<LocalPort>>> for Target {
    fn from(route: Route<'_, Arc<LocalPort>>) -> Self {
        match route {
            Route::Local(port) => Self::Local(port.clone()),
            Route::Remote(node) => Self::Remote(node),
        }
    }
}

/// A record whose sender may not speak for its source.
pub(crate) struct Forged;

/// What to answer to a step that cannot be given to anybody.
pub(crate) fn refusal(step: &Step, error: Errno) -> Option<Answer> {
    match step {
        Step::Send { .. }
        | Step::Request { .. }
        | Step::Watch { .. }
        | Step::AwaitBind { .. }
        | Step::Privilege { .. } => Some(Answer::Failed(error)),
        _ => None,
    }
}

/// A lease as an argument block gives it.
pub(crate) fn lease(
    node: u16,
    first_slot: u32,
    slots: u32,
    first_generation: u32,
) -> Result<Lease, Errno> {
    let first_generation = NonZeroU32::new(first_generation).ok_or(Errno::Invalid)?;
    Ok(Lease { node, first_slot, slots, first_generation })
}
