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
use core::num::NonZeroU32;

/// Slots of a block: leases start and end at multiples of it.
const BLOCK_SLOTS: usize = LEASE_SLOTS as usize;

/// Who is bound to a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Binding<P> {
    Free,
    Local(P),
    Remote(u16),
}

/// One slot: its newest known generation (0: never bound) and who has it.
#[derive(Clone, Debug)]
struct Slot<P> {
    generation: u32,
    binding: Binding<P>,
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
        Self {
            holder: None,
            slots: core::array::from_fn(|_| Slot { generation: 0, binding: Binding::Free }),
        }
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
            }
        }
        if node == self.local {
            self.server_floor = None;
        }
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
        if !matches!(slot.binding, Binding::Free) {
            return Err(Errno::Busy);
        }
        let endpoint = occupy(slot, number, floor, port)?;
        self.bound += 1;
        Ok(endpoint)
    }

    /// Ends the binding of a local endpoint and gives back what was kept for it.
    pub fn unbind(&mut self, endpoint: Endpoint) -> Option<P> {
        let slot = self.existing_slot(endpoint.slot())?;
        if slot.generation != endpoint.generation() || !matches!(slot.binding, Binding::Local(_)) {
            return None;
        }
        let Binding::Local(port) = core::mem::replace(&mut slot.binding, Binding::Free) else {
            return None;
        };
        self.bound -= 1;
        Some(port)
    }

    /// Notes that `endpoint` lives on another node.
    ///
    /// # Errors
    /// [`Errno::Stale`] if a higher generation of the slot is known or this one was bound and is
    /// not any more, [`Errno::Busy`] if this node or, at the same generation, a third node has it
    /// bound, [`Errno::Invalid`] if the value names nobody or the node is this one,
    /// [`Errno::NoMemory`].
    pub fn set_remote(&mut self, endpoint: Endpoint, node: u16) -> Result<(), Errno> {
        if !endpoint.is_name() || node == self.local {
            return Err(Errno::Invalid);
        }
        let slot = self.slot(endpoint.slot())?;
        if slot.generation > endpoint.generation() {
            return Err(Errno::Stale);
        }
        let same_generation = slot.generation == endpoint.generation();
        match slot.binding {
            Binding::Local(_) => return Err(Errno::Busy),
            Binding::Remote(at) if same_generation && at != node => return Err(Errno::Busy),
            Binding::Free if same_generation => return Err(Errno::Stale),
            _ => {}
        }
        *slot = Slot { generation: endpoint.generation(), binding: Binding::Remote(node) };
        Ok(())
    }

    /// Forgets where a remote endpoint lives; its generation stays dead.
    ///
    /// # Errors
    /// [`Errno::NoEndpoint`] if it is not known as remote.
    pub fn forget_remote(&mut self, endpoint: Endpoint) -> Result<(), Errno> {
        let slot = self.existing_slot(endpoint.slot()).ok_or(Errno::NoEndpoint)?;
        if slot.generation != endpoint.generation() || !matches!(slot.binding, Binding::Remote(_)) {
            return Err(Errno::NoEndpoint);
        }
        slot.binding = Binding::Free;
        Ok(())
    }

    /// Where `endpoint` is.
    ///
    /// # Errors
    /// [`Errno::Invalid`] for a value that names nobody, [`Errno::Stale`] for a dead generation,
    /// [`Errno::NoEndpoint`] for a slot that nobody has or had.
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
            Binding::Local(port) => Route::Local(port),
            Binding::Remote(node) => Route::Remote(*node),
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
        match self.route(endpoint) {
            Ok(Route::Remote(at)) => at == node,
            Err(Errno::NoEndpoint) if endpoint.slot() < SERVER_SLOTS => {
                let number = endpoint.slot() as usize;
                let block = self.blocks.as_slice().get(number / BLOCK_SLOTS);
                match block
                    .and_then(Option::as_ref)
                    .map(|block| &block.slots[number % BLOCK_SLOTS].binding)
                {
                    None | Some(Binding::Free) => true,
                    Some(Binding::Remote(at)) => *at == node,
                    Some(Binding::Local(_)) => false,
                }
            }
            Ok(Route::Local(_)) | Err(_) => false,
        }
    }

    /// Calls `visit` for every endpoint bound on this node.
    pub fn for_each_local(&self, mut visit: impl FnMut(&P)) {
        for block in self.blocks.as_slice().iter().flatten() {
            for slot in &block.slots {
                if let Binding::Local(port) = &slot.binding {
                    visit(port);
                }
            }
        }
    }

    /// Takes one endpoint bound on this node out of the table, if there is any left.
    pub fn take_local(&mut self) -> Option<P> {
        let count = self.blocks.as_slice().len();
        for step in 0..count {
            // From where the last one was found, so that taking all is linear.
            let at = (self.hint + step) % count;
            let Some(block) = self.existing(at) else { continue };
            let local = |slot: &&mut Slot<P>| matches!(slot.binding, Binding::Local(_));
            let Some(slot) = block.slots.iter_mut().find(local) else { continue };
            let binding = core::mem::replace(&mut slot.binding, Binding::Free);
            if let Binding::Local(port) = binding {
                self.hint = at;
                self.bound -= 1;
                return Some(port);
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
    *slot = Slot { generation: generation.get(), binding: Binding::Local(port(endpoint)?) };
    Ok(endpoint)
}
