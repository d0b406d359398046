// SPDX-License-Identifier: GPL-2.0 OR MIT
//! What becomes of a slot when its endpoint moves to another node, when a backup takes its place, and
//! when several nodes have it.
//!
//! Every move has an epoch, by which each node tells what it has been told already. Until a move is
//! committed at a node, the endpoint speaks there from where it was; from then on, from its new
//! node only.

use super::super::abi::errno::Errno;
use super::super::abi::limits::SERVER_SLOTS;
use super::super::abi::Endpoint;
use super::super::fifo::Array;
use super::super::migration::Parked;
use super::{occupy, Binding, BlockStorage, Route, Slot, Table};

/// How the end of a move, or a promotion, changed a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<P> {
    /// Not at all: it was known.
    Repeated,
    /// The endpoint was here and lives elsewhere: the port is to depart.
    Departed(P),
    /// The endpoint lives here: the port is to settle.
    Arrived(P),
    /// It was elsewhere, and is elsewhere still.
    Passed,
    /// It did not leave: the port is to settle.
    Stayed(P),
    /// It did not come: the port made for it is to depart.
    Dropped(P),
    /// It goes on where it was, elsewhere.
    Unchanged,
}

impl<P> Change<P> {
    /// Whether the node was not told before.
    pub fn is_new(&self) -> bool {
        !matches!(self, Self::Repeated)
    }
}

/// Where an endpoint has settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled<P> {
    /// Its node before, as far as this one knows.
    pub from: Option<u16>,
    /// Its node.
    pub to: u16,
    /// What is different here.
    pub change: Change<P>,
}

/// Why nobody takes a record for an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elsewhere {
    /// It was here and has moved: the sender is to wait until it knows of this move.
    Moved {
        /// The move's epoch.
        epoch: u32,
    },
    /// It is dead, or was never here.
    Not(Errno),
}

impl<P> Slot<P> {
    fn is_moving(&self) -> bool {
        matches!(
            self.binding,
            Binding::Leaving { .. } | Binding::Arriving { .. } | Binding::Passing { .. }
        )
    }

    /// Makes the slot one of `endpoint`, of which a move or promotion `epoch` is to begin.
    fn check_epoch(&self, endpoint: Endpoint, epoch: u32) -> Result<(), Errno> {
        if !endpoint.is_name() || epoch == 0 {
            return Err(Errno::Invalid);
        }
        if self.generation > endpoint.generation() {
            return Err(Errno::Stale);
        }
        if self.generation < endpoint.generation() {
            // Who stands by for an earlier one goes when `set_remote` says that there is another.
            return if self.backup.is_some() { Err(Errno::Busy) } else { Ok(()) };
        }
        if self.is_moving() {
            return Err(Errno::Busy);
        }
        if self.replicated {
            return Err(Errno::Invalid);
        }
        if epoch <= self.epoch {
            return Err(Errno::Stale);
        }
        Ok(())
    }

    /// Checks that a move from node `from` may begin at a node where the endpoint is not.
    fn check_elsewhere(&self, endpoint: Endpoint, from: u16, epoch: u32) -> Result<(), Errno> {
        self.check_epoch(endpoint, epoch)?;
        match self.binding {
            Binding::Remote(at) if self.generation == endpoint.generation() && at != from => {
                Err(Errno::Invalid)
            }
            Binding::Free if self.generation == endpoint.generation() => Err(Errno::Stale),
            Binding::Free | Binding::Remote(_) => Ok(()),
            _ => Err(Errno::Busy),
        }
    }

    /// Notes that the move `epoch` of `endpoint` is under way.
    fn begin(&mut self, endpoint: Endpoint, epoch: u32, binding: Binding<P>) {
        if self.generation != endpoint.generation() {
            (self.replicated, self.elsewhere) = (false, None);
        }
        self.generation = endpoint.generation();
        self.epoch = epoch;
        self.stayed = false;
        self.binding = binding;
    }
}

impl<P: Clone, S: BlockStorage> Table<P, S> {
    /// Begins the move of an endpoint that lives here to node `to`; `freeze` freezes its port.
    /// Gives the port, also if the move has begun already.
    ///
    /// # Errors
    /// Those of [`route`](Self::route); [`Errno::NoEndpoint`] if it lives elsewhere,
    /// [`Errno::Stale`] if `epoch` is that of an earlier move, [`Errno::Busy`] during another one,
    /// [`Errno::Invalid`] for a replicated endpoint or a move to this node; or that of `freeze`.
    pub fn start_leaving(
        &mut self,
        endpoint: Endpoint,
        to: u16,
        epoch: u32,
        freeze: impl FnOnce(&P) -> Result<(), Errno>,
    ) -> Result<P, Errno> {
        match self.route(endpoint) {
            Ok(Route::Local(_)) | Err(Errno::Moved) => {}
            Ok(Route::Remote(_)) => {
                let known = self.known_slot(endpoint);
                let moved = known.is_some_and(|slot| {
                    slot.generation == endpoint.generation() && slot.epoch >= epoch
                });
                return Err(if moved { Errno::Stale } else { Errno::NoEndpoint });
            }
            Err(error) => return Err(error),
        }
        if to == self.local {
            return Err(Errno::Invalid);
        }
        let slot = self.existing_slot(endpoint.slot()).ok_or(Errno::NoEndpoint)?;
        match &slot.binding {
            Binding::Leaving { port, to: begun } if *begun == to && slot.epoch == epoch => {
                return Ok(port.clone());
            }
            _ => slot.check_epoch(endpoint, epoch)?,
        }
        let Binding::Local(port) = &slot.binding else { return Err(Errno::NoEndpoint) };
        freeze(port)?;
        let port = port.clone();
        slot.begin(endpoint, epoch, Binding::Leaving { port: port.clone(), to });
        Ok(port)
    }

    /// Begins the move of an endpoint to this node from node `from`; `port` makes its port. Does
    /// nothing if the move has begun already.
    ///
    /// # Errors
    /// [`Errno::Stale`] for a dead endpoint or the epoch of an earlier move, [`Errno::Busy`] if it
    /// is here, if somebody stands by for it here, or during another move, [`Errno::Invalid`] if
    /// this node knows it to be on a third node or replicated, [`Errno::Limit`] at the container's
    /// cap, [`Errno::NoMemory`]; or that of `port`.
    pub fn start_arriving(
        &mut self,
        endpoint: Endpoint,
        from: u16,
        epoch: u32,
        port: impl FnOnce() -> Result<P, Errno>,
    ) -> Result<(), Errno> {
        if from == self.local || !endpoint.is_name() {
            return Err(Errno::Invalid);
        }
        let cap = self.check_cap();
        let slot = self.slot(endpoint.slot())?;
        if let Binding::Arriving { from: begun, .. } = slot.binding {
            if (slot.generation, slot.epoch, begun) == (endpoint.generation(), epoch, from) {
                return Ok(());
            }
        }
        slot.check_elsewhere(endpoint, from, epoch)?;
        if slot.backup.is_some() {
            return Err(Errno::Busy);
        }
        cap?;
        let port = port()?;
        slot.begin(endpoint, epoch, Binding::Arriving { port, from, lost: false });
        self.bound += 1;
        Ok(())
    }

    /// Notes that an endpoint begins to move between two other nodes. Does nothing if that is
    /// known already.
    ///
    /// # Errors
    /// [`Errno::Stale`], [`Errno::Busy`], [`Errno::Invalid`] and [`Errno::NoMemory`] as for
    /// [`start_arriving`](Self::start_arriving).
    pub fn start_passing(
        &mut self,
        endpoint: Endpoint,
        (from, to): (u16, u16),
        epoch: u32,
    ) -> Result<(), Errno> {
        if from == self.local || to == self.local || from == to || !endpoint.is_name() {
            return Err(Errno::Invalid);
        }
        let slot = self.slot(endpoint.slot())?;
        if let Binding::Passing { from: begun, to: end, .. } = slot.binding {
            if (slot.generation, slot.epoch) == (endpoint.generation(), epoch)
                && (begun, end) == (from, to)
            {
                return Ok(());
            }
        }
        slot.check_elsewhere(endpoint, from, epoch)?;
        slot.begin(endpoint, epoch, Binding::Passing { from, to, lost: false });
        Ok(())
    }

    /// The slot of an endpoint whose move ends.
    fn ending(&mut self, endpoint: Endpoint, epoch: u32) -> Result<&mut Slot<P>, Errno> {
        let slot = self.existing_slot(endpoint.slot()).ok_or(Errno::NoEndpoint)?;
        if slot.generation < endpoint.generation() {
            return Err(Errno::NoEndpoint);
        }
        if slot.generation > endpoint.generation() || slot.is_moving() && slot.epoch != epoch {
            return Err(Errno::Stale);
        }
        Ok(slot)
    }

    /// Ends the move `epoch`: the endpoint lives on its new node. `adopted` says whether a port
    /// that moves here has been taken over.
    ///
    /// # Errors
    /// [`Errno::NotConnected`] if it has not; [`Errno::NoEndpoint`] for an endpoint not known here;
    /// [`Errno::Stale`] if `epoch` is not that of the last move, or that was rolled back. Nothing is
    /// changed then.
    pub fn commit(
        &mut self,
        endpoint: Endpoint,
        epoch: u32,
        adopted: impl FnOnce(&P) -> bool,
    ) -> Result<Settled<P>, Errno> {
        let local = self.local;
        let slot = self.ending(endpoint, epoch)?;
        let settled = match &slot.binding {
            Binding::Leaving { port, to } => {
                Settled { from: Some(local), to: *to, change: Change::Departed(port.clone()) }
            }
            Binding::Arriving { port, from, .. } => {
                if !adopted(port) {
                    return Err(Errno::NotConnected);
                }
                Settled { from: Some(*from), to: local, change: Change::Arrived(port.clone()) }
            }
            Binding::Passing { from, to, .. } => {
                Settled { from: Some(*from), to: *to, change: Change::Passed }
            }
            _ if slot.epoch != epoch || slot.stayed => return Err(Errno::Stale),
            Binding::Remote(at) => Settled { from: None, to: *at, change: Change::Repeated },
            Binding::Local(_) => Settled { from: None, to: local, change: Change::Repeated },
            Binding::Free => return Err(Errno::Stale),
        };
        slot.binding = match &settled.change {
            Change::Departed(_) | Change::Passed => Binding::Remote(settled.to),
            Change::Arrived(port) => Binding::Local(port.clone()),
            _ => return Ok(settled),
        };
        if let Change::Departed(_) = settled.change {
            self.bound -= 1;
        }
        self.settlements += 1;
        Ok(settled)
    }

    /// Ends the move `epoch`: the endpoint stays where it was. Of a move that this node was not
    /// told of, it notes that it is over.
    ///
    /// # Errors
    /// [`Errno::NoEndpoint`] for an endpoint not known here; [`Errno::Stale`] if there was a later
    /// move, or this one was committed.
    pub fn roll_back(&mut self, endpoint: Endpoint, epoch: u32) -> Result<Settled<P>, Errno> {
        let local = self.local;
        let holder = match self.route(endpoint) {
            Ok(Route::Remote(node)) => Some(node),
            _ => None,
        };
        let slot = match (self.ending(endpoint, epoch), holder) {
            (Ok(_), _) => self.ending(endpoint, epoch)?,
            (Err(Errno::NoEndpoint), Some(node)) => {
                // Known by its lease only.
                let slot = self.slot(endpoint.slot())?;
                let backup = slot.backup.take();
                *slot = Slot { binding: Binding::Remote(node), backup, ..Slot::new() };
                slot.generation = endpoint.generation();
                slot
            }
            (Err(error), _) => return Err(error),
        };
        let settled = match &slot.binding {
            Binding::Leaving { port, .. } => {
                Settled { from: Some(local), to: local, change: Change::Stayed(port.clone()) }
            }
            Binding::Arriving { port, from, .. } => {
                Settled { from: Some(*from), to: *from, change: Change::Dropped(port.clone()) }
            }
            Binding::Passing { from, .. } => {
                Settled { from: Some(*from), to: *from, change: Change::Unchanged }
            }
            _ if epoch < slot.epoch || epoch == slot.epoch && !slot.stayed => {
                return Err(Errno::Stale);
            }
            binding => {
                let to = match binding {
                    Binding::Remote(at) => *at,
                    Binding::Local(_) => local,
                    _ => return Err(Errno::Stale),
                };
                let known = epoch == slot.epoch;
                let change = if known { Change::Repeated } else { Change::Unchanged };
                Settled { from: Some(to), to, change }
            }
        };
        match &settled.change {
            Change::Stayed(port) => slot.binding = Binding::Local(port.clone()),
            Change::Dropped(_) => slot.binding = Binding::Remote(settled.to),
            Change::Unchanged if slot.is_moving() => slot.binding = Binding::Remote(settled.to),
            _ => {}
        }
        slot.epoch = epoch;
        slot.stayed = true;
        if let Change::Dropped(_) = settled.change {
            self.bound -= 1;
        }
        if !matches!(settled.change, Change::Repeated) {
            self.settlements += 1;
        }
        Ok(settled)
    }

    /// The backup on `node` takes the place of the endpoint, wherever that was.
    ///
    /// # Errors
    /// [`Errno::NotConnected`] if that is this node, and nobody stands by; [`Errno::Busy`] while it
    /// moves, or while somebody stands by for an earlier endpoint of the slot; [`Errno::Stale`], [`Errno::Invalid`] and [`Errno::NoMemory`] as for
    /// [`start_arriving`](Self::start_arriving).
    pub fn promote(
        &mut self,
        endpoint: Endpoint,
        node: u16,
        epoch: u32,
    ) -> Result<Settled<P>, Errno> {
        if !endpoint.is_name() {
            return Err(Errno::Invalid);
        }
        let local = self.local;
        let slot = self.slot(endpoint.slot())?;
        if (slot.generation, slot.epoch, slot.stayed) == (endpoint.generation(), epoch, false) {
            let there = match slot.binding {
                Binding::Local(_) => Some(local),
                Binding::Remote(at) => Some(at),
                _ => None,
            };
            if there == Some(node) {
                return Ok(Settled { from: None, to: node, change: Change::Repeated });
            }
        }
        slot.check_epoch(endpoint, epoch)?;
        let same_generation = slot.generation == endpoint.generation();
        let from = match &slot.binding {
            Binding::Local(_) if !same_generation || node == local => return Err(Errno::Busy),
            Binding::Local(_) => Some(local),
            Binding::Remote(at) => Some(*at).filter(|_| same_generation),
            _ => None,
        };
        if node == local {
            let backup = slot.backup.take().filter(|_| same_generation);
            let port = backup.ok_or(Errno::NotConnected)?;
            slot.begin(endpoint, epoch, Binding::Local(port.clone()));
            self.settlements += 1;
            return Ok(Settled { from, to: node, change: Change::Arrived(port) });
        }
        let change = match &slot.binding {
            Binding::Local(port) => Change::Departed(port.clone()),
            _ => Change::Passed,
        };
        slot.begin(endpoint, epoch, Binding::Remote(node));
        if let Change::Departed(_) = change {
            self.bound -= 1;
        }
        self.settlements += 1;
        Ok(Settled { from, to: node, change })
    }

    /// Binds a backup of the server in slot `number`, which is bound on another node.
    ///
    /// # Errors
    /// [`Errno::NoEndpoint`] if it is not known to be, [`Errno::Busy`] if it is bound, or has a
    /// backup, here, [`Errno::Invalid`] for a replicated one; [`Errno::Invalid`] and
    /// [`Errno::Limit`] as for [`bind_server`](Self::bind_server); or that of `port`.
    pub fn bind_backup(
        &mut self,
        number: u32,
        port: impl FnOnce(Endpoint) -> Result<P, Errno>,
    ) -> Result<Endpoint, Errno> {
        let slot = self.server_slot(number)?.1;
        let generation = core::num::NonZeroU32::new(slot.generation);
        match slot.binding {
            _ if slot.replicated => return Err(Errno::Invalid),
            _ if slot.backup.is_some() => return Err(Errno::Busy),
            Binding::Remote(_) | Binding::Passing { .. } => {}
            Binding::Free => return Err(Errno::NoEndpoint),
            _ => return Err(Errno::Busy),
        }
        let endpoint = Endpoint::new(number, generation.ok_or(Errno::NoEndpoint)?);
        slot.backup = Some(port(endpoint)?);
        self.bound += 1;
        Ok(endpoint)
    }

    /// Binds a replica of the server in slot `number`: the first one, or another one of an endpoint
    /// that is known to be replicated.
    ///
    /// # Errors
    /// [`Errno::Busy`] if the slot is bound here, or elsewhere to an endpoint that is not
    /// replicated; [`Errno::Invalid`] and [`Errno::Limit`] as for
    /// [`bind_server`](Self::bind_server); or that of `port`.
    pub fn bind_replica(
        &mut self,
        number: u32,
        port: impl FnOnce(Endpoint) -> Result<P, Errno>,
    ) -> Result<Endpoint, Errno> {
        let (floor, slot) = self.server_slot(number)?;
        let generation = core::num::NonZeroU32::new(slot.generation);
        let endpoint = match (&slot.binding, generation) {
            (Binding::Remote(at), Some(generation)) if slot.replicated => {
                let endpoint = Endpoint::new(number, generation);
                let elsewhere = Some(*at);
                slot.binding = Binding::Local(port(endpoint)?);
                slot.elsewhere = elsewhere;
                endpoint
            }
            (Binding::Free, _) if slot.backup.is_none() => {
                let endpoint = occupy(slot, number, floor, port)?;
                slot.replicated = true;
                endpoint
            }
            _ => return Err(Errno::Busy),
        };
        self.bound += 1;
        Ok(endpoint)
    }

    fn server_slot(&mut self, number: u32) -> Result<(core::num::NonZeroU32, &mut Slot<P>), Errno> {
        if number >= SERVER_SLOTS {
            return Err(Errno::Invalid);
        }
        self.check_cap()?;
        let floor = self.server_floor.ok_or(Errno::Limit)?;
        Ok((floor, self.slot(number)?))
    }

    /// The port of an endpoint that is moving here.
    ///
    /// # Errors
    /// [`Errno::NoEndpoint`] if it is not.
    pub fn arriving(&self, endpoint: Endpoint) -> Result<P, Errno> {
        match self.known_slot(endpoint) {
            Some(Slot { generation, binding: Binding::Arriving { port, .. }, .. })
                if *generation == endpoint.generation() =>
            {
                Ok(port.clone())
            }
            _ => Err(Errno::NoEndpoint),
        }
    }

    /// Who takes a record for `endpoint`.
    ///
    /// # Errors
    /// Says why nobody does.
    pub fn receiver(&self, endpoint: Endpoint) -> Result<&P, Elsewhere> {
        let known = self.known_slot(endpoint);
        let Some(slot) = known.filter(|slot| slot.generation == endpoint.generation()) else {
            return Err(Elsewhere::Not(match self.route(endpoint) {
                Err(error) => error,
                Ok(_) => Errno::NoEndpoint,
            }));
        };
        match &slot.binding {
            Binding::Local(port)
            | Binding::Leaving { port, .. }
            | Binding::Arriving { port, .. } => Ok(port),
            // Other nodes know of its promotion before it does.
            Binding::Remote(_) | Binding::Passing { .. } => match &slot.backup {
                Some(port) => Ok(port),
                None if slot.epoch != 0 => Err(Elsewhere::Moved { epoch: slot.epoch }),
                None => Err(Elsewhere::Not(Errno::NoEndpoint)),
            },
            Binding::Free => Err(Elsewhere::Not(Errno::Stale)),
        }
    }
}

impl<P, S: BlockStorage> Table<P, S> {
    /// Number of the last move of `endpoint`, or of its last promotion.
    pub fn epoch(&self, endpoint: Endpoint) -> u32 {
        let known = self.known_slot(endpoint);
        let slot = known.filter(|slot| slot.generation == endpoint.generation());
        slot.map_or(0, |slot| slot.epoch)
    }

    /// Whether `node` may send back a step that was for `endpoint`: it has it, or it may have had it
    /// before a move.
    pub fn may_return(&self, endpoint: Endpoint, node: u16) -> bool {
        self.epoch(endpoint) != 0 || self.may_speak(endpoint, node)
    }

    /// Whether several nodes may have `endpoint`.
    pub fn is_replicated(&self, endpoint: Endpoint) -> bool {
        let known = self.known_slot(endpoint);
        known.is_some_and(|slot| slot.generation == endpoint.generation() && slot.replicated)
    }

    /// Keeps a step for an endpoint until it has settled. Returns whether it is kept; else it is
    /// to be given to where the endpoint is.
    ///
    /// # Errors
    /// Those of [`route`](Self::route) if the endpoint is dead; [`Errno::Limit`],
    /// [`Errno::NoMemory`].
    pub fn park(&mut self, parked: Parked) -> Result<bool, Errno> {
        let ready = self.is_ready(&parked)?;
        if !ready {
            self.parking.keep(parked)?;
        }
        Ok(!ready)
    }

    /// Keeps a step until [`next_parked`](Self::next_parked) gives it.
    ///
    /// # Errors
    /// [`Errno::Limit`], [`Errno::NoMemory`].
    pub fn keep(&mut self, parked: Parked) -> Result<(), Errno> {
        self.parking.keep(parked)
    }

    /// Whether a step can be given to its endpoint, as far as this node knows.
    fn is_ready(&self, parked: &Parked) -> Result<bool, Errno> {
        match self.route(parked.to) {
            Err(Errno::Moved | Errno::NodeDown) => Ok(false),
            Err(error) => Err(error),
            Ok(_) => Ok(self.epoch(parked.to) >= parked.epoch),
        }
    }

    /// Takes a step whose endpoint has settled.
    pub fn next_parked(&mut self) -> Option<Parked> {
        if self.parking.is_empty() {
            return None;
        }
        let mut parking = core::mem::take(&mut self.parking);
        // One for the dead goes the way of all.
        let ready = parking.take(|parked| self.is_ready(parked) != Ok(false));
        self.parking = parking;
        ready
    }

    /// Steps that wait.
    pub fn parked(&self) -> usize {
        self.parking.len()
    }

    /// Counts what may let a call succeed that found its peer on the move: see
    /// [`may_retry`](Self::may_retry).
    pub fn settlements(&self) -> u64 {
        self.settlements
    }

    /// Whether a call to `endpoint` may be made anew that found it on the move after the
    /// settlements were `seen`.
    pub fn may_retry(&self, endpoint: Endpoint, seen: u64) -> bool {
        self.settlements != seen && self.route(endpoint).err() != Some(Errno::Moved)
    }

    /// `node` is down, or up again. While it is down, what moves away from it is not waited for.
    pub fn set_node_down(&mut self, node: u16, down: bool) {
        for block in self.blocks.as_mut_slice().iter_mut().flatten() {
            for slot in &mut block.slots {
                match &mut slot.binding {
                    Binding::Arriving { from, lost, .. } | Binding::Passing { from, lost, .. }
                        if *from == node =>
                    {
                        *lost = down;
                    }
                    _ => {}
                }
            }
        }
        if down {
            let mut parking = core::mem::take(&mut self.parking);
            parking.drop_if(
                |parked| matches!(self.route(parked.to), Ok(Route::Remote(at)) if at == node),
            );
            self.parking = parking;
        }
        self.settlements += 1;
    }

    /// Drops steps for endpoints that are gone, and lets those look again who wait for them.
    pub(super) fn forget_lost_steps(&mut self) {
        let mut parking = core::mem::take(&mut self.parking);
        parking.drop_if(|parked| {
            matches!(self.route(parked.to), Err(Errno::Stale | Errno::NoEndpoint))
        });
        self.parking = parking;
        self.settlements += 1;
    }
}
