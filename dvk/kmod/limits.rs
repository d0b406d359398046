// SPDX-License-Identifier: GPL-2.0
//! What the endpoints of a container may have at once on this node.

use super::abi::errno::Errno;
use super::abi::ioctl;
use super::abi::limits::MAX_GRANTS;
use kernel::prelude::*;
use kernel::sync::atomic::{ordering::Relaxed, Atomic};
use kernel::sync::Arc;

/// An amount of which a container may have no more than `most`.
struct Budget {
    most: u64,
    taken: Atomic<u64>,
}

impl Budget {
    fn new(most: u64) -> Self {
        Self { most, taken: Atomic::new(0) }
    }

    fn take(&self, amount: u64) -> Result<(), Errno> {
        let before = self.taken.fetch_add(amount, Relaxed);
        if before.saturating_add(amount) > self.most {
            self.give_back(amount);
            return Err(Errno::Limit);
        }
        Ok(())
    }

    fn give_back(&self, amount: u64) {
        self.taken.fetch_sub(amount, Relaxed);
    }

    fn used(&self) -> Use {
        Use { taken: self.taken.load(Relaxed), most: self.most }
    }
}

/// How far a budget is used up.
#[derive(Clone, Copy)]
pub(crate) struct Use {
    /// What is taken. More than there is for a moment, while somebody tries to take it.
    pub(crate) taken: u64,
    /// All that there is.
    pub(crate) most: u64,
}

impl Use {
    /// Whether there is no limit.
    pub(crate) fn is_unlimited(&self) -> bool {
        self.most == UNLIMITED
    }
}

/// Halved, so that a sum of what is tried at once cannot wrap.
const UNLIMITED: u64 = u64::MAX / 2;

/// The limits of a container, and how far they are used up.
pub(crate) struct Limits {
    grants: Budget,
    bytes: Budget,
}

impl Limits {
    /// Those that `dc_create` was given.
    pub(crate) fn new(block: &ioctl::Container) -> Result<Arc<Self>> {
        let grants = if block.max_grants == 0 { MAX_GRANTS } else { block.max_grants };
        let bytes = if block.max_bytes == 0 { UNLIMITED } else { block.max_bytes };
        let bytes = bytes.min(UNLIMITED);
        let limits = Self { grants: Budget::new(grants.into()), bytes: Budget::new(bytes) };
        Ok(Arc::new(limits, GFP_KERNEL)?)
    }

    /// Room for one grant.
    ///
    /// # Errors
    /// [`Errno::Limit`] if the container has as many as it may.
    pub(crate) fn grant(self: &Arc<Self>) -> Result<GrantRoom, Errno> {
        self.grants.take(1)?;
        Ok(GrantRoom(self.clone()))
    }

    /// Room for `len` bytes between nodes.
    ///
    /// # Errors
    /// [`Errno::Limit`] if the container has as many as it may.
    pub(crate) fn bytes(self: &Arc<Self>, len: u32) -> Result<ByteRoom, Errno> {
        self.bytes.take(len.into())?;
        Ok(ByteRoom(self.clone(), len))
    }

    /// How much of it is used: grants, and bytes between nodes.
    pub(crate) fn used(&self) -> (Use, Use) {
        (self.grants.used(), self.bytes.used())
    }

    /// The most bytes for which there can ever be room.
    pub(crate) fn most_bytes(&self) -> u64 {
        self.bytes.most
    }
}

/// Room for a grant, given back when dropped.
pub(crate) struct GrantRoom(Arc<Limits>);

impl Drop for GrantRoom {
    fn drop(&mut self) {
        self.0.grants.give_back(1);
    }
}

/// Room for bytes, given back when dropped.
pub(crate) struct ByteRoom(Arc<Limits>, u32);

impl Drop for ByteRoom {
    fn drop(&mut self) {
        self.0.bytes.give_back(self.1.into());
    }
}
