// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Grants: which memory an endpoint has lent, to whom, and who is using it.
//!
//! Every copy begins a *use* of a grant, which is checked then, and ends it. Revoking makes a grant
//! useless for new uses at once; the memory itself is given back when the last use has ended. A
//! use covers one batch of pages, so that nobody waits long for that.
//!
//! The idea is MINIX 3's (safe copies by grant, with indirect and magic grants left out); the
//! sequence number in the id is there so that an id kept by somebody for too long does not come to
//! mean the granter's next range.

use super::abi::errno::Errno;
use super::abi::ioctl::{GRANT_READ, GRANT_WRITE};
use super::abi::limits::MAX_GRANTS;
use super::abi::Endpoint;
use super::fifo::Array;
use super::table::BlockStorage;

/// Grants whose entries are allocated at once.
const BLOCK: usize = 16;

/// What is lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loan {
    /// First byte.
    pub address: u64,
    /// How many bytes, not 0.
    pub len: u64,
    /// To whom; [`Endpoint::ANY`] for everybody.
    pub to: Endpoint,
    /// [`GRANT_READ`], [`GRANT_WRITE`] or both.
    pub access: u32,
}

impl Loan {
    /// Whether the numbers make sense.
    ///
    /// # Errors
    /// [`Errno::Invalid`] for no bytes, a range that wraps, no or unknown access, and a grantee
    /// that can be nobody.
    pub fn check(&self) -> Result<(), Errno> {
        let access = self.access != 0 && self.access & !(GRANT_READ | GRANT_WRITE) == 0;
        let range = self.len != 0 && self.address.checked_add(self.len).is_some();
        if access && range && (self.to == Endpoint::ANY || self.to.is_name()) {
            Ok(())
        } else {
            Err(Errno::Invalid)
        }
    }
}

struct Lent<M> {
    loan: Loan,
    memory: M,
    uses: u32,
    revoked: bool,
}

enum State<M> {
    Free { next: Option<u32> },
    Lent(Lent<M>),
}

struct Entry<M> {
    /// Counts the grants made in this place.
    sequence: u32,
    state: State<M>,
}

/// Some entries, allocated at once.
pub struct Block<M>([Entry<M>; BLOCK]);

/// A use of a grant that was begun and has to be ended.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Use {
    index: u32,
}

/// What became of a grant that was revoked.
#[derive(Debug, PartialEq, Eq)]
pub enum Revoked<M> {
    /// Nobody used it.
    Unused(M),
    /// It ends with its last use; see [`Grants::is_ending`].
    Ending,
}

/// The grants of one endpoint. `M` is what keeps the memory that is lent.
pub struct Grants<M, S: BlockStorage> {
    blocks: S::Array<S::Boxed<Block<M>>>,
    free: Option<u32>,
    live: u32,
    uses: u32,
    closed: bool,
}

impl<M, S: BlockStorage> Default for Grants<M, S> {
    fn default() -> Self {
        Self {
            blocks: <S::Array<S::Boxed<Block<M>>>>::default(),
            free: None,
            live: 0,
            uses: 0,
            closed: false,
        }
    }
}

/// The id of what is in place `index` for the `sequence`-th time; never 0.
const fn id(index: u32, sequence: u32) -> u64 {
    (sequence as u64) << 32 | (index as u64 + 1)
}

impl<M, S: BlockStorage> Grants<M, S> {
    /// Grants that were not revoked.
    pub fn len(&self) -> u32 {
        self.live
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Whether any grant is in use.
    pub fn is_in_use(&self) -> bool {
        self.uses != 0
    }

    /// Lends something and returns the grant's id. If that fails, `memory` is given back.
    ///
    /// # Errors
    /// [`Errno::Invalid`] as [`Loan::check`], [`Errno::NotConnected`] after
    /// [`close`](Self::close), [`Errno::Limit`] with [`MAX_GRANTS`], [`Errno::NoMemory`].
    pub fn add(&mut self, loan: Loan, memory: M) -> Result<u64, (Errno, M)> {
        let place = loan.check().and_then(|()| self.place());
        let index = match place {
            Ok(index) => index,
            Err(error) => return Err((error, memory)),
        };
        let Some(entry) = self.entry(index) else { return Err((Errno::NoMemory, memory)) };
        let State::Free { next } = entry.state else { return Err((Errno::NoMemory, memory)) };
        entry.sequence = entry.sequence.wrapping_add(1);
        let sequence = entry.sequence;
        entry.state = State::Lent(Lent { loan, memory, uses: 0, revoked: false });
        self.free = next;
        self.live += 1;
        Ok(id(index, sequence))
    }

    /// A free place.
    fn place(&mut self) -> Result<u32, Errno> {
        if self.closed {
            return Err(Errno::NotConnected);
        }
        if let Some(index) = self.free {
            return Ok(index);
        }
        let first = (self.blocks.as_slice().len() * BLOCK) as u32;
        if first >= MAX_GRANTS {
            return Err(Errno::Limit);
        }
        let block = Block(core::array::from_fn(|at| Entry {
            sequence: 0,
            state: State::Free {
                next: (at + 1 < BLOCK).then(|| first.wrapping_add(at as u32).wrapping_add(1)),
            },
        }));
        let block = S::boxed(block).ok_or(Errno::NoMemory)?;
        self.blocks.push(block).map_err(|_| Errno::NoMemory)?;
        self.free = Some(first);
        Ok(first)
    }

    /// Begins a use of `len` bytes at `offset` by the endpoint `by`, which wants `access`
    /// ([`GRANT_READ`] or [`GRANT_WRITE`]). Gives the address of the first of them.
    ///
    /// # Errors
    /// [`Errno::Denied`] if there is no such grant (any more), or it is not for `by`, for this
    /// access or for so many bytes; [`Errno::Stale`] after [`close`](Self::close).
    pub fn begin(
        &mut self,
        id: u64,
        by: Endpoint,
        access: u32,
        offset: u64,
        len: u64,
    ) -> Result<(Use, u64, &M), Errno> {
        if self.closed {
            return Err(Errno::Stale);
        }
        let (index, entry) = self.known(id).ok_or(Errno::Denied)?;
        let State::Lent(lent) = &mut entry.state else { return Err(Errno::Denied) };
        let loan = lent.loan;
        let to_caller = loan.to == Endpoint::ANY || loan.to == by;
        if lent.revoked || !to_caller || loan.access & access != access {
            return Err(Errno::Denied);
        }
        if offset.checked_add(len).is_none_or(|end| end > loan.len) {
            return Err(Errno::Denied);
        }
        let address = loan.address.checked_add(offset).ok_or(Errno::Denied)?;
        lent.uses = lent.uses.checked_add(1).ok_or(Errno::Limit)?;
        self.uses = self.uses.saturating_add(1);
        match self.entry(index).map(|entry| &entry.state) {
            Some(State::Lent(lent)) => Ok((Use { index }, address, &lent.memory)),
            _ => Err(Errno::Denied),
        }
    }

    /// Ends a use. Gives back the memory of a grant that was revoked and is no longer used.
    pub fn end(&mut self, over: Use) -> Option<M> {
        self.uses = self.uses.saturating_sub(1);
        let entry = self.entry(over.index)?;
        let State::Lent(lent) = &mut entry.state else { return None };
        lent.uses = lent.uses.saturating_sub(1);
        if lent.revoked && lent.uses == 0 {
            self.release(over.index)
        } else {
            None
        }
    }

    /// Whether the grant that is used was not revoked since.
    pub fn is_valid(&self, used: &Use) -> bool {
        let block = self.blocks.as_slice().get(used.index as usize / BLOCK);
        let state = block.map(|block| &block.0[used.index as usize % BLOCK].state);
        matches!(state, Some(State::Lent(lent)) if !lent.revoked)
    }

    /// Revokes a grant.
    ///
    /// # Errors
    /// [`Errno::Denied`] if there is no such grant (any more).
    pub fn revoke(&mut self, id: u64) -> Result<Revoked<M>, Errno> {
        let (index, entry) = self.known(id).ok_or(Errno::Denied)?;
        let State::Lent(lent) = &mut entry.state else { return Err(Errno::Denied) };
        if lent.revoked {
            // Whoever gave up waiting for the end may wait again.
            return Ok(Revoked::Ending);
        }
        lent.revoked = true;
        let unused = lent.uses == 0;
        self.live = self.live.saturating_sub(1);
        if unused {
            self.release(index).map(Revoked::Unused).ok_or(Errno::Denied)
        } else {
            Ok(Revoked::Ending)
        }
    }

    /// Whether a grant was revoked and is still used.
    pub fn is_ending(&mut self, id: u64) -> bool {
        match self.known(id) {
            Some((_, Entry { state: State::Lent(lent), .. })) => lent.revoked,
            _ => false,
        }
    }

    /// Ends all grants: from here on none is made or used.
    pub fn close(&mut self) {
        self.closed = true;
        for block in self.blocks.as_mut_slice() {
            for entry in &mut block.0 {
                if let State::Lent(lent) = &mut entry.state {
                    lent.revoked = true;
                }
            }
        }
        self.live = 0;
    }

    /// After [`close`](Self::close): the memory of a grant that is not in use, from place `cursor`
    /// on, which is moved behind it. `None` if there is no more of it.
    pub fn take_unused(&mut self, cursor: &mut u32) -> Option<M> {
        loop {
            let index = *cursor;
            let entry = self.entry(index)?;
            *cursor = index.checked_add(1)?;
            if matches!(&entry.state, State::Lent(lent) if lent.revoked && lent.uses == 0) {
                return self.release(index);
            }
        }
    }

    fn entry(&mut self, index: u32) -> Option<&mut Entry<M>> {
        let block = self.blocks.as_mut_slice().get_mut(index as usize / BLOCK)?;
        block.0.get_mut(index as usize % BLOCK)
    }

    /// The entry that an id names, if nothing else was lent in its place since.
    fn known(&mut self, id: u64) -> Option<(u32, &mut Entry<M>)> {
        let index = (id as u32).checked_sub(1)?;
        let entry = self.entry(index)?;
        (entry.sequence == (id >> 32) as u32).then_some((index, entry))
    }

    fn release(&mut self, index: u32) -> Option<M> {
        let next = self.free;
        let entry = self.entry(index)?;
        let state = core::mem::replace(&mut entry.state, State::Free { next });
        self.free = Some(index);
        match state {
            State::Lent(lent) => Some(lent.memory),
            State::Free { .. } => None,
        }
    }
}
