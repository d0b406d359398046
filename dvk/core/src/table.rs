// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The endpoint table of one Distributed Container on one node: which slot is bound where.
//!
//! Slots from [`SERVER_SLOTS`] up are leased to nodes in blocks, so that a node binds them
//! without asking anybody (the papers' SLOTS). Server slots are bound wherever a server starts;
//! the control plane tells the other nodes. Memory grows by blocks that are in use.

use super::abi::errno::Errno;
use super::abi::limits::{LEASE_SLOTS, SERVER_SLOTS, SLOTS};
use super::abi::Endpoint;
use super::fifo::{Array, Storage};
use super::migration::Parking;
use core::num::NonZeroU32;

mod moves;
pub use moves::{Change, Elsewhere, Settled};

/// Slots of a block: leases start and end at multiples of it.
const BLOCK_SLOTS: usize = LEASE_SLOTS as usize;

/// Who is bound to a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Binding<P> {
    Free,
    Local(P),
    Remote(u16),
    /// Frozen on this node, on its way to another.
    Leaving {
        port: P,
        to: u16,
    },
    /// On its way from another node to this one.
    Arriving {
        port: P,
        from: u16,
        /// That node went down meanwhile.
        lost: bool,
    },
    /// On its way from one node to another, neither of which is this one.
    Passing {
        from: u16,
        to: u16,
        /// The first of them went down meanwhile.
        lost: bool,
    },
}

/// One slot: its newest known generation (0: never bound) and who has it.
#[derive(Clone, Debug)]
struct Slot<P> {
    generation: u32,
    /// Number of the last move or promotion; the one under way, if there is one.
    epoch: u32,
    /// That move was undone.
    stayed: bool,
    /// Several nodes may have the endpoint.
    replicated: bool,
    binding: Binding<P>,
    /// The node of another replica, of an endpoint that has one here.
    elsewhere: Option<u16>,
    /// Who stands by here for the endpoint, which is elsewhere.
    backup: Option<P>,
}

impl<P> Slot<P> {
    const fn new() -> Self {
        Self {
            generation: 0,
            epoch: 0,
            stayed: false,
            replicated: false,
            binding: Binding::Free,
            elsewhere: None,
            backup: None,
        }
    }

    /// Everything that is kept here for the endpoint.
    fn ports(&self) -> impl Iterator<Item = &P> {
        let port = match &self.binding {
            Binding::Local(port)
            | Binding::Leaving { port, .. }
            | Binding::Arriving { port, .. } => Some(port),
            Binding::Free | Binding::Remote(_) | Binding::Passing { .. } => None,
        };
        port.into_iter().chain(&self.backup)
    }
}

/// The node that may bind the slots of a block, and the generation it starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holder {
    node: u16,
    first_generation: NonZeroU32,
}

/// A block of slots.
pub struct Block<P> {
    holder: Option<Holder>,
    slots: [Slot<P>; BLOCK_SLOTS],
}

impl<P> Block<P> {
    fn new() -> Self {
        Self { holder: None, slots: core::array::from_fn(|_| Slot::new()) }
    }
}

/// Where blocks are allocated.
pub trait BlockStorage: Storage {
    /// An owned block.
    type Boxed<T>: core::ops::DerefMut<Target = T>;
    /// Allocates without sleeping; `None` where there is no memory.
    fn boxed<T>(value: T) -> Option<Self::Boxed<T>>;
}

/// Where an endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'t, P> {
    /// On this node.
    Local(&'t P),
    /// On that node, as far as is known here; the node itself checks the generation.
    Remote(u16),
}

type Blocks<P, S> = <S as Storage>::Array<Option<<S as BlockStorage>::Boxed<Block<P>>>>;

/// The table. `P` is what the caller keeps for a port of this node.
pub struct Table<P, S: BlockStorage> {
    local: u16,
    blocks: Blocks<P, S>,
    /// Generations of server slots bound here start from it; set by this node's lease.
    server_floor: Option<NonZeroU32>,
    bound: u32,
    max_bound: u32,
    /// Block where the last slot was bound or taken: where the next one is looked for.
    hint: usize,
    /// Steps for endpoints that move.
    parking: Parking<S>,
    /// Counts what may let a call succeed that found its peer on the move.
    settlements: u64,
}

/// A lease of slots, as [`Table::lease`] takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Who may bind the slots.
    pub node: u16,
    /// The first slot: a multiple of [`LEASE_SLOTS`], not below [`SERVER_SLOTS`].
    pub first_slot: u32,
    /// How many: a multiple of [`LEASE_SLOTS`], perhaps 0.
    pub slots: u32,
    /// Generation of the first bind of each slot.
    pub first_generation: NonZeroU32,
}

impl<P, S: BlockStorage> Table<P, S> {
    /// The empty table of node `local`, which may bind at most `max_bound` endpoints at once
    /// (0: as many as there are slots).
    pub fn new(local: u16, max_bound: u32) -> Self {
        Self {
            local,
            blocks: Blocks::<P, S>::default(),
            server_floor: None,
            bound: 0,
            max_bound: if max_bound == 0 { SLOTS } else { max_bound },
            hint: 0,
            parking: Parking::default(),
            settlements: 0,
        }
    }

    /// Endpoints bound on this node.
    pub fn bound(&self) -> u32 {
        self.bound
    }

    /// How many may be bound on this node at once.
    pub fn max_bound(&self) -> u32 {
        self.max_bound
    }

    /// Gives a node the right to bind slots. A later lease of the same slots to the same node
    /// raises the generation they start from; generations never go back.
    ///
    /// # Errors
    /// [`Errno::Invalid`] for a range out of bounds or not in whole blocks, [`Errno::Busy`] if
    /// another node holds one of the slots, [`Errno::NoMemory`]. Nothing is changed then.
    pub fn lease(&mut self, lease: Lease) -> Result<(), Errno> {
        let end = lease.first_slot.checked_add(lease.slots).ok_or(Errno::Invalid)?;
        let aligned = |n: u32| n % LEASE_SLOTS == 0;
        if lease.slots != 0
            && (lease.first_slot < SERVER_SLOTS
                || end > SLOTS
                || !aligned(lease.first_slot)
                || !aligned(lease.slots))
        {
            return Err(Errno::Invalid);
        }
        let blocks = (lease.first_slot / LEASE_SLOTS) as usize..(end / LEASE_SLOTS) as usize;
        for at in blocks.clone() {
            if self.holder(at).is_some_and(|holder| holder.node != lease.node) {
                return Err(Errno::Busy);
            }
        }
        for at in blocks.clone() {
            self.block(at)?;
        }
        for at in blocks {
            let block = self.block(at)?;
            let floor = block.holder.map_or(1, |holder| holder.first_generation.get());
            let first_generation = if lease.first_generation.get() > floor {
                Some(lease.first_generation)
            } else {
                NonZeroU32::new(floor)
            };
            block.holder = first_generation
                .map(|first_generation| Holder { node: lease.node, first_generation });
        }
        if lease.node == self.local
            && self.server_floor.is_none_or(|floor| floor < lease.first_generation)
        {
            self.server_floor = Some(lease.first_generation);
        }
        Ok(())
    }

    /// Ends every lease of `node` and forgets the endpoints known to be there. Endpoints bound
    /// on this node stay.
    pub fn remove_node(&mut self, node: u16) {
        for block in self.blocks.as_mut_slice().iter_mut().flatten() {
            if block.holder.is_some_and(|holder| holder.node == node) {
                block.holder = None;
            }
            for slot in &mut block.slots {
                if matches!(slot.binding, Binding::Remote(at) if at == node) {
                    slot.binding = Binding::Free;
                }
                if slot.elsewhere == Some(node) {
                    slot.elsewhere = None;
                }
            }
        }
        if node == self.local {
            self.server_floor = None;
        }
        self.forget_lost_steps();
    }

    /// Binds any free slot of this node's lease; `port` makes what is kept for the endpoint. If it
    /// cannot, nothing is bound.
    ///
    /// # Errors
    /// [`Errno::Limit`] where no slot is free, the container's cap is reached or the node holds
    /// no lease; or that of `port`.
    pub fn bind_any(
        &mut self,
        port: impl FnOnce(Endpoint) -> Result<P, Errno>,
    ) -> Result<Endpoint, Errno> {
        self.check_cap()?;
        let count = self.blocks.as_slice().len();
        for step in 0..count {
            let at = (self.hint + step) % count;
            let Some(first_generation) = self.local_floor(at) else { continue };
            let Some(block) = self.existing(at) else { continue };
            let free = |slot: &Slot<P>| {
                matches!(slot.binding, Binding::Free)
                    && next_generation(slot, first_generation).is_some()
            };
            let Some(index) = block.slots.iter().position(free) else { continue };
            let slot = &mut block.slots[index];
            let endpoint = occupy(slot, (at * BLOCK_SLOTS + index) as u32, first_generation, port)?;
            self.hint = at;
            self.bound += 1;
            return Ok(endpoint);
        }
        Err(Errno::Limit)
    }

    /// Binds the server slot `number`.
    ///
    /// # Errors
    /// [`Errno::Invalid`] if it is no server slot, [`Errno::Busy`] if it is bound, here or on
    /// another node, [`Errno::Limit`] without a lease on this node, at the container's cap or where
    /// the slot has used up its generations, [`Errno::NoMemory`]; or that of `port`.
    pub fn bind_server(
        &mut self,
        number: u32,
        port: impl FnOnce(Endpoint) -> Result<P, Errno>,
    ) -> Result<Endpoint, Errno> {
        if number >= SERVER_SLOTS {
            return Err(Errno::Invalid);
        }
        self.check_cap()?;
        let floor = self.server_floor.ok_or(Errno::Limit)?;
        let slot = self.slot(number)?;
        if !matches!(slot.binding, Binding::Free) || slot.backup.is_some() {
            return Err(Errno::Busy);
        }
        let endpoint = occupy(slot, number, floor, port)?;
        self.bound += 1;
        Ok(endpoint)
    }

    /// Ends the binding of a local endpoint, and gives back what was kept for it, if it is what
    /// `mine` accepts: after a move away and back it may be another.
    pub fn unbind(&mut self, endpoint: Endpoint, mine: impl Fn(&P) -> bool) -> Option<P> {
        let slot = self.existing_slot(endpoint.slot())?;
        if slot.generation != endpoint.generation() {
            return None;
        }
        let port = if slot.backup.as_ref().is_some_and(&mine) {
            slot.backup.take()?
        } else if matches!(&slot.binding, Binding::Local(port) if mine(port)) {
            // Of several replicas, another may still be known.
            let rest = slot.elsewhere.take().map_or(Binding::Free, Binding::Remote);
            let Binding::Local(port) = core::mem::replace(&mut slot.binding, rest) else {
                return None;
            };
            port
        } else {
            return None;
        };
        self.bound -= 1;
        Some(port)
    }

    /// Notes that `endpoint` lives on another node; if it is `replicated`, perhaps on several.
    /// Gives back who stood by for an earlier generation, which nobody needs any more.
    ///
    /// # Errors
    /// [`Errno::Stale`] if a higher generation of the slot is known or this one was bound and is
    /// not any more, [`Errno::Busy`] if this node or, at the same generation, a third node has it
    /// bound and it is not replicated, or it moves, [`Errno::Invalid`] if the value names nobody or
    /// the node is this one, [`Errno::NoMemory`].
    pub fn set_remote(
        &mut self,
        endpoint: Endpoint,
        node: u16,
        replicated: bool,
    ) -> Result<Option<P>, Errno> {
        if !endpoint.is_name() || node == self.local {
            return Err(Errno::Invalid);
        }
        let slot = self.slot(endpoint.slot())?;
        if slot.generation > endpoint.generation() {
            return Err(Errno::Stale);
        }
        let same_generation = slot.generation == endpoint.generation();
        match slot.binding {
            Binding::Local(_) if same_generation && replicated && slot.replicated => {
                slot.elsewhere = Some(node);
                return Ok(None);
            }
            Binding::Local(_) | Binding::Leaving { .. } => return Err(Errno::Busy),
            Binding::Arriving { .. } | Binding::Passing { .. } => return Err(Errno::Busy),
            Binding::Remote(at) if same_generation && at != node && !slot.replicated => {
                return Err(Errno::Busy);
            }
            Binding::Free if same_generation => return Err(Errno::Stale),
            _ => {}
        }
        let old_backup = if same_generation { None } else { slot.backup.take() };
        if !same_generation {
            let backup = core::mem::replace(slot, Slot::new()).backup;
            debug_assert!(backup.is_none());
        }
        slot.generation = endpoint.generation();
        slot.replicated = replicated;
        slot.binding = Binding::Remote(node);
        self.bound -= u32::from(old_backup.is_some());
        self.settlements += 1;
        Ok(old_backup)
    }

    /// Forgets where a remote endpoint lives; its generation stays dead. A replica on this node
    /// goes on, and so does standing by for what may be promoted.
    ///
    /// # Errors
    /// [`Errno::NoEndpoint`] if it is not known as remote.
    pub fn forget_remote(&mut self, endpoint: Endpoint) -> Result<(), Errno> {
        let slot = self.existing_slot(endpoint.slot()).ok_or(Errno::NoEndpoint)?;
        if slot.generation != endpoint.generation() {
            return Err(Errno::NoEndpoint);
        }
        match slot.binding {
            Binding::Remote(_) => slot.binding = Binding::Free,
            Binding::Local(_) if slot.elsewhere.is_some() => slot.elsewhere = None,
            _ => return Err(Errno::NoEndpoint),
        }
        self.forget_lost_steps();
        Ok(())
    }

    /// Where `endpoint` is.
    ///
    /// # Errors
    /// [`Errno::Invalid`] for a value that names nobody, [`Errno::Stale`] for a dead generation,
    /// [`Errno::NoEndpoint`] for a slot that nobody has or had, [`Errno::Moved`] while it is on the
    /// move, [`Errno::NodeDown`] if the node that it was leaving went down.
    pub fn route(&self, endpoint: Endpoint) -> Result<Route<'_, P>, Errno> {
        if !endpoint.is_name() {
            return Err(Errno::Invalid);
        }
        let number = endpoint.slot() as usize;
        let block = self.blocks.as_slice().get(number / BLOCK_SLOTS).and_then(Option::as_ref);
        let block = block.ok_or(Errno::NoEndpoint)?;
        let slot = &block.slots[number % BLOCK_SLOTS];
        if slot.generation == endpoint.generation() {
            return match &slot.binding {
                Binding::Local(port) => Ok(Route::Local(port)),
                Binding::Remote(node) => Ok(Route::Remote(*node)),
                Binding::Free => Err(Errno::Stale),
                Binding::Passing { lost: true, .. } | Binding::Arriving { lost: true, .. } => {
                    Err(Errno::NodeDown)
                }
                Binding::Leaving { .. } | Binding::Arriving { .. } | Binding::Passing { .. } => {
                    Err(Errno::Moved)
                }
            };
        }
        if slot.generation > endpoint.generation() {
            return Err(Errno::Stale);
        }
        match block.holder {
            Some(holder) if holder.node != self.local => Ok(Route::Remote(holder.node)),
            _ => Err(Errno::NoEndpoint),
        }
    }

    /// Who is bound to a slot, as far as is known here.
    pub fn bound_to(&self, slot: u32) -> Option<(Endpoint, Route<'_, P>)> {
        let number = slot as usize;
        let block = self.blocks.as_slice().get(number / BLOCK_SLOTS)?.as_ref()?;
        let known = &block.slots[number % BLOCK_SLOTS];
        let route = match &known.binding {
            Binding::Local(port) | Binding::Leaving { port, .. } => Route::Local(port),
            Binding::Remote(node) => Route::Remote(*node),
            Binding::Arriving { from, .. } | Binding::Passing { from, .. } => Route::Remote(*from),
            Binding::Free => return None,
        };
        Some((Endpoint::new(slot, NonZeroU32::new(known.generation)?), route))
    }

    /// The first slot from `slot` on that somebody is bound to, as far as is known here.
    pub fn next_bound(&self, slot: u32) -> Option<(Endpoint, Route<'_, P>)> {
        let blocks = self.blocks.as_slice();
        let mut at = slot as usize;
        while let Some(block) = blocks.get(at / BLOCK_SLOTS) {
            if block.is_none() {
                at = (at / BLOCK_SLOTS + 1) * BLOCK_SLOTS;
                continue;
            }
            if let Some(found) = u32::try_from(at).ok().and_then(|slot| self.bound_to(slot)) {
                return Some(found);
            }
            at += 1;
        }
        None
    }

    /// The other node that leases a slot, and so knows of binds there before this one does.
    pub fn lessee(&self, slot: u32) -> Option<u16> {
        let holder = self.holder(slot as usize / BLOCK_SLOTS)?;
        (holder.node != self.local).then_some(holder.node)
    }

    /// Whether a record from `node` may name `endpoint` as its source: the endpoint is known to
    /// be there, or lies in the node's lease, or is a server of a later generation than is known
    /// here, in a slot that nobody else is known to have.
    pub fn may_speak(&self, endpoint: Endpoint, node: u16) -> bool {
        let known = self.known_slot(endpoint);
        if let Some(slot) = known.filter(|slot| slot.generation == endpoint.generation()) {
            return match slot.binding {
                _ if slot.replicated => node != self.local,
                Binding::Remote(at) => at == node,
                // Until the move is decided, where it was.
                Binding::Arriving { from, .. } | Binding::Passing { from, .. } => from == node,
                Binding::Free | Binding::Local(_) | Binding::Leaving { .. } => false,
            };
        }
        match self.route(endpoint) {
            Ok(Route::Remote(at)) => at == node,
            Err(Errno::NoEndpoint) if endpoint.slot() < SERVER_SLOTS => {
                match known.map(|slot| &slot.binding) {
                    None | Some(Binding::Free) => true,
                    Some(Binding::Remote(at)) => *at == node,
                    Some(_) => false,
                }
            }
            Ok(Route::Local(_)) | Err(_) => false,
        }
    }

    /// Calls `visit` for everything that is kept for endpoints on this node, be they on the move or
    /// stand by.
    pub fn for_each_local(&self, mut visit: impl FnMut(&P)) {
        for block in self.blocks.as_slice().iter().flatten() {
            block.slots.iter().flat_map(Slot::ports).for_each(&mut visit);
        }
    }

    /// Takes one endpoint bound on this node out of the table, if there is any left.
    pub fn take_local(&mut self) -> Option<P> {
        let count = self.blocks.as_slice().len();
        for step in 0..count {
            // From where the last one was found, so that taking all is linear.
            let at = (self.hint + step) % count;
            let Some(block) = self.existing(at) else { continue };
            let local = |slot: &&mut Slot<P>| slot.ports().next().is_some();
            let Some(slot) = block.slots.iter_mut().find(local) else { continue };
            let port = if slot.backup.is_some() {
                slot.backup.take()
            } else {
                match core::mem::replace(&mut slot.binding, Binding::Free) {
                    Binding::Local(port)
                    | Binding::Leaving { port, .. }
                    | Binding::Arriving { port, .. } => Some(port),
                    Binding::Free | Binding::Remote(_) | Binding::Passing { .. } => None,
                }
            };
            if port.is_some() {
                self.hint = at;
                self.bound -= 1;
                return port;
            }
        }
        None
    }

    fn check_cap(&self) -> Result<(), Errno> {
        if self.bound < self.max_bound {
            Ok(())
        } else {
            Err(Errno::Limit)
        }
    }

    fn holder(&self, block: usize) -> Option<Holder> {
        self.blocks.as_slice().get(block)?.as_ref()?.holder
    }

    fn local_floor(&self, block: usize) -> Option<NonZeroU32> {
        self.holder(block)
            .filter(|holder| holder.node == self.local)
            .map(|holder| holder.first_generation)
    }

    fn existing(&mut self, block: usize) -> Option<&mut Block<P>> {
        Some(&mut **self.blocks.as_mut_slice().get_mut(block)?.as_mut()?)
    }

    fn existing_slot(&mut self, number: u32) -> Option<&mut Slot<P>> {
        let number = number as usize;
        self.existing(number / BLOCK_SLOTS)?.slots.get_mut(number % BLOCK_SLOTS)
    }

    fn known_slot(&self, endpoint: Endpoint) -> Option<&Slot<P>> {
        let number = endpoint.slot() as usize;
        let block = self.blocks.as_slice().get(number / BLOCK_SLOTS)?.as_ref()?;
        block.slots.get(number % BLOCK_SLOTS)
    }

    fn block(&mut self, at: usize) -> Result<&mut Block<P>, Errno> {
        while self.blocks.as_slice().len() <= at {
            self.blocks.push(None).map_err(|_| Errno::NoMemory)?;
        }
        let entry = &mut self.blocks.as_mut_slice()[at];
        if entry.is_none() {
            *entry = Some(S::boxed(Block::new()).ok_or(Errno::NoMemory)?);
        }
        entry.as_deref_mut().ok_or(Errno::NoMemory)
    }

    fn slot(&mut self, number: u32) -> Result<&mut Slot<P>, Errno> {
        let number = number as usize;
        Ok(&mut self.block(number / BLOCK_SLOTS)?.slots[number % BLOCK_SLOTS])
    }
}

/// The generation of the next bind of `slot`; `None` once all 2^32 are used up: the slot is
/// retired rather than reused.
fn next_generation<P>(slot: &Slot<P>, first: NonZeroU32) -> Option<NonZeroU32> {
    let next = NonZeroU32::new(slot.generation.checked_add(1)?)?;
    Some(next.max(first))
}

fn occupy<P>(
    slot: &mut Slot<P>,
    number: u32,
    first: NonZeroU32,
    port: impl FnOnce(Endpoint) -> Result<P, Errno>,
) -> Result<Endpoint, Errno> {
    let generation = next_generation(slot, first).ok_or(Errno::Limit)?;
    let endpoint = Endpoint::new(number, generation);
    let binding = Binding::Local(port(endpoint)?);
    *slot = Slot { generation: generation.get(), binding, ..Slot::new() };
    Ok(endpoint)
}
