// SPDX-License-Identifier: GPL-2.0
//! A Distributed Container on this node: its endpoint table, and how steps find their port.

use super::abi::errno::Errno;
use super::abi::wire::record::{Record, Step};
use super::abi::Endpoint;
use super::dvs;
use super::local_port::LocalPort;
use super::rules::port::{Answer, Peer};
use super::rules::table::{Lease, Route, Table};
use super::storage::KernelStorage;
use super::sys::{new_bh_lock, BhLock, PollQueue};
use core::num::NonZeroU32;
use kernel::prelude::*;
use kernel::sync::Arc;

type Ports = Table<Arc<LocalPort>, KernelStorage>;

/// One container that spans this node. Open files of its device keep it alive after it is
/// destroyed; its table is gone then.
#[pin_data]
pub(crate) struct Container {
    id: u16,
    local: u16,
    #[pin]
    table: BhLock<Option<Ports>>,
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
}

impl Container {
    /// A container of node `local`, with room for `max_endpoints` binds there (0: no cap).
    pub(crate) fn new(id: u16, local: u16, max_endpoints: u32) -> Result<Arc<Self>> {
        let table = Ports::new(local, max_endpoints);
        Arc::pin_init(
            pin_init!(Self {
                id,
                local,
                table <- new_bh_lock!(Some(table), c"dvk_table"),
            }),
            GFP_KERNEL,
        )
    }

    /// The container's id.
    pub(crate) fn id(&self) -> u16 {
        self.id
    }

    /// This node.
    pub(crate) fn local(&self) -> u16 {
        self.local
    }

    fn with_table<T>(
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
        })
    }

    /// Notes that `endpoint` lives on `node`, or forgets it.
    pub(crate) fn set_remote(&self, endpoint: Endpoint, node: Option<u16>) -> Result<(), Errno> {
        self.with_table(|table| match node {
            Some(node) => table.set_remote(endpoint, node),
            None => table.forget_remote(endpoint),
        })
    }

    /// Binds a slot; `poll` is woken when something arrives.
    pub(crate) fn bind(
        &self,
        slot: SlotChoice,
        poll: Arc<PollQueue>,
    ) -> Result<Arc<LocalPort>, Errno> {
        let mut bound = None;
        let make = |endpoint| {
            let port = LocalPort::new(endpoint, poll).map_err(|_| Errno::NoMemory)?;
            bound = Some(port.clone());
            Ok(port)
        };
        self.with_table(|table| match slot {
            SlotChoice::Any => table.bind_any(make),
            SlotChoice::Server(number) => table.bind_server(number, make),
        })?;
        bound.ok_or(Errno::NoMemory)
    }

    /// Ends the binding of `port` and tells everybody who waits for it.
    pub(crate) fn unbind(&self, port: &LocalPort) {
        // An error means that the container was destroyed, and the port killed by that.
        let bound = self.with_table(|table| Ok(table.unbind(port.endpoint())));
        drop(bound);
        self.kill(port);
    }

    fn kill(&self, port: &LocalPort) {
        port.kill(|peer, step| {
            self.tell(port.endpoint(), peer, &step);
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
        // An error means that the container was destroyed: nobody waits any more.
        let _ = self.with_table(|table| {
            table.for_each_local(|port| port.node_down(node));
            Ok(())
        });
    }

    /// Where `endpoint` is.
    pub(crate) fn route(&self, endpoint: Endpoint) -> Result<Target, Errno> {
        self.with_table(|table| {
            Ok(match table.route(endpoint)? {
                Route::Local(port) => Target::Local(port.clone()),
                Route::Remote(node) => Target::Remote(node),
            })
        })
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
            Target::Local(port) => Ok(port.apply(Peer { endpoint: from, node: self.local }, step)),
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
            // One that is gone meanwhile needs no answer.
            self.route(peer.endpoint).ok().filter(|target| matches!(target, Target::Local(_)))?
        } else {
            Target::Remote(peer.node)
        };
        self.give(from, &target, peer.endpoint, step, || true).ok()?
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
            match table.route(record.to) {
                Ok(Route::Local(port)) => port.clone(),
                Ok(Route::Remote(_)) => return Ok(refusal(&record.step, Errno::NoEndpoint)),
                Err(error) => return Ok(refusal(&record.step, error)),
            }
        };
        Ok(target.apply(peer, &record.step))
    }
}

/// A record whose sender may not speak for its source.
pub(crate) struct Forged;

/// What to answer to a step that cannot be given to anybody.
pub(crate) fn refusal(step: &Step, error: Errno) -> Option<Answer> {
    match step {
        Step::Send { .. } | Step::Request { .. } | Step::Watch { .. } => {
            Some(Answer::Failed(error))
        }
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
