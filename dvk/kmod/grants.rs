// SPDX-License-Identifier: GPL-2.0
//! The grants of an endpoint: the memory that it lent, and those who use it.

use super::abi::errno::Errno;
use super::abi::Endpoint;
use super::limits::GrantRoom;
use super::local_port::LocalPort;
use super::memory::{is_user_range, LiveMemory, Memory};
use super::rules::grants::{Grants, Loan, Revoked, Use};
use super::storage::KernelStorage;
use super::sys::{new_bh_lock, BhLock, WaitQueue, WokenBy};
use kernel::prelude::*;
use kernel::sync::Arc;

/// What a grant holds.
struct Lent {
    memory: Memory,
    _room: GrantRoom,
}

/// The grants of one endpoint. Its lock is a leaf, and taken in process context only.
#[pin_data]
pub(crate) struct GrantBook {
    #[pin]
    grants: BhLock<Grants<Lent, KernelStorage>>,
    /// Those who wait for the last use of a grant to end.
    #[pin]
    ended: WaitQueue,
}

impl GrantBook {
    /// Without any.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            grants <- new_bh_lock!(Grants::default(), c"dvk_grants"),
            ended <- WaitQueue::new(),
        })
    }

    /// Grants that were not revoked.
    pub(crate) fn len(&self) -> u32 {
        self.grants.lock().len()
    }

    /// Lends memory of the calling process; see [`Grants::add`].
    pub(crate) fn add(&self, loan: Loan, room: GrantRoom) -> Result<u64, Errno> {
        loan.check()?;
        if !is_user_range(loan.address, loan.len) {
            return Err(Errno::Fault);
        }
        let lent = Lent { memory: Memory::current()?, _room: room };
        let added = self.grants.lock().add(loan, lent);
        // What is given back is dropped here, outside the lock.
        added.map_err(|(error, _lent)| error)
    }

    /// Revokes a grant; `tell` ends the transfers that hold its memory. Returns when nobody uses it
    /// any more.
    pub(crate) fn revoke(&self, id: u64, tell: impl FnOnce()) -> Result<(), Errno> {
        let revoked = self.grants.lock().revoke(id)?;
        match revoked {
            Revoked::Unused(lent) => drop(lent),
            Revoked::Ending => {
                tell();
                let ended = || !self.grants.lock().is_ending(id);
                self.ended.wait_until(WokenBy::FatalSignals, None, ended)?;
            }
        }
        Ok(())
    }

    /// Ends all grants: the endpoint is dead. `tell` is as in [`revoke`](Self::revoke); returns
    /// when nobody uses them any more.
    pub(crate) fn close(&self, tell: impl FnOnce()) {
        self.grants.lock().close();
        tell();
        self.ended.wait(|| !self.grants.lock().is_in_use());
        let mut cursor = 0;
        loop {
            let unused = self.grants.lock().take_unused(&mut cursor);
            if unused.is_none() {
                return;
            }
        }
    }
}

/// A range of lent memory in use, which keeps its grant from ending. To be dropped where one may
/// sleep.
pub(crate) struct Borrowed {
    granter: Arc<LocalPort>,
    used: Option<Use>,
    /// The memory; `None` where only pages pinned in it are used.
    memory: Option<LiveMemory>,
    address: u64,
}

impl Borrowed {
    /// Begins a use of what `granter` lent; see [`Grants::begin`].
    ///
    /// # Errors
    /// Those of [`Grants::begin`], and [`Errno::Fault`] if the process that lent it is gone.
    pub(crate) fn begin(
        granter: &Arc<LocalPort>,
        id: u64,
        by: Endpoint,
        access: u32,
        offset: u64,
        len: u64,
    ) -> Result<Self, Errno> {
        let (used, address, memory) = {
            let mut grants = granter.grants.grants.lock();
            let (used, address, lent) = grants.begin(id, by, access, offset, len)?;
            (used, address, lent.memory.enter())
        };
        let mut borrowed =
            Self { granter: granter.clone(), used: Some(used), memory: None, address };
        borrowed.memory = Some(memory?);
        Ok(borrowed)
    }

    /// The memory, and where the range begins.
    pub(crate) fn memory(&self) -> Result<(&LiveMemory, u64), Errno> {
        Ok((self.memory.as_ref().ok_or(Errno::Fault)?, self.address))
    }

    /// Lets the memory go, but for pages that were pinned in it.
    pub(crate) fn let_go(&mut self) {
        self.memory = None;
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        // First, since it is what a revocation waits for.
        self.memory = None;
        let Some(used) = self.used.take() else { return };
        let book = &self.granter.grants;
        let ended = book.grants.lock().end(used);
        if let Some(lent) = ended {
            drop(lent);
            book.ended.wake_all();
        }
    }
}
