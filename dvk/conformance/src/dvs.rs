// SPDX-License-Identifier: MIT OR Apache-2.0
//! The DVS of one node in which cases run.

use anyhow::Result;
use dvk::{Control, DvsInit, Endpoint, Errno, Lease, Limits, Port, Slot};

/// This node's id.
pub(crate) const NODE: u32 = 0;
/// The container of cases that need only one.
pub(crate) const HOME: u32 = 0;
/// A second container with the same leases.
pub(crate) const OTHER: u32 = 1;
/// First slot of this node's lease in [`HOME`] and [`OTHER`].
pub(crate) const FIRST_SLOT: u32 = 64;
/// Slots of that lease.
pub(crate) const SLOTS: u32 = 128;
/// Where that lease's generations begin.
pub(crate) const FIRST_GENERATION: u32 = 10;

/// Makes the DVS and its containers, or what is missing of them.
pub(crate) fn ensure() -> Result<()> {
    let control = Control::open()?;
    exists_or(control.dvs_init(&DvsInit { cluster: 1, node: NODE, incarnation: 1 }))?;
    for (container, name) in [(HOME, "home"), (OTHER, "other")] {
        exists_or(control.dc_create(container, name, Limits::default()))?;
        control.dc_add_node(&lease(container, FIRST_SLOT, SLOTS))?;
    }
    Ok(())
}

/// A lease of slots to this node.
pub(crate) fn lease(container: u32, first_slot: u32, slots: u32) -> Lease {
    Lease {
        container,
        node: NODE,
        first_slot,
        slots,
        first_generation: FIRST_GENERATION,
        reserved: 0,
    }
}

/// The same lease to another node.
pub(crate) fn with_node(node: u32, lease: Lease) -> Lease {
    Lease { node, ..lease }
}

/// A new endpoint in [`HOME`].
pub(crate) fn bind() -> Result<Port, dvk::Error> {
    Port::bind(HOME, Slot::Any)
}

/// A container that is destroyed when the case is over.
pub(crate) struct Scratch {
    control: Control,
    /// Its id.
    pub(crate) id: u32,
}

impl Scratch {
    /// Makes one without any lease. Cases run one at a time, so that one id does for all.
    pub(crate) fn new(max_endpoints: u32) -> Result<Self> {
        Self::with(Limits { endpoints: max_endpoints, ..Limits::default() })
    }

    /// Makes one with these limits, as [`new`](Self::new) does.
    pub(crate) fn with(limits: Limits) -> Result<Self> {
        let (control, id) = (Control::open()?, 100);
        // One that a killed case left behind.
        destroy(id)?;
        control.dc_create(id, "scratch", limits)?;
        Ok(Self { control, id })
    }

    /// Leases slots of it to this node.
    pub(crate) fn lease(&self, first_slot: u32, slots: u32) -> Result<(), dvk::Error> {
        self.control.dc_add_node(&lease(self.id, first_slot, slots))
    }

    /// A new endpoint in it.
    pub(crate) fn bind(&self) -> Result<Port, dvk::Error> {
        Port::bind(self.id, Slot::Any)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The case may have destroyed it.
        let _ = self.control.dc_destroy(self.id);
    }
}

/// Destroys a container, if there is one of this id.
pub(crate) fn destroy(container: u32) -> Result<(), dvk::Error> {
    match Control::open()?.dc_destroy(container) {
        Err(error) if error.is(Errno::NoDevice) => Ok(()),
        other => other,
    }
}

/// The endpoint that the next bind of this one's slot, or an earlier one, has or had.
pub(crate) fn with_generation(endpoint: Endpoint, generation: u32) -> Endpoint {
    Endpoint::from_raw(u64::from(generation) << 32 | u64::from(endpoint.slot()))
}

fn exists_or(result: Result<(), dvk::Error>) -> Result<(), dvk::Error> {
    match result {
        Err(error) if error.is(Errno::Exists) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_whole_blocks() {
        use dvk_abi::limits::{LEASE_SLOTS, SERVER_SLOTS};
        assert!(FIRST_SLOT.is_multiple_of(LEASE_SLOTS) && SLOTS.is_multiple_of(LEASE_SLOTS));
        const { assert!(FIRST_SLOT >= SERVER_SLOTS) };
    }

    #[test]
    fn a_generation_is_exchanged() {
        let endpoint = with_generation(Endpoint::from_raw(0x1_0000_0040), 7);
        assert_eq!((endpoint.slot(), endpoint.generation()), (64, 7));
    }
}
