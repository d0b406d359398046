// SPDX-License-Identifier: MIT OR Apache-2.0
//! What containers a node is to have, as it follows from what the nodes agree on.

use std::collections::BTreeMap;

use dvs_state::containers::{first_slot, ContainerId, Defined, Limits};
use dvs_state::nodes::{NodeId, Seat};
use dvs_state::State;

/// A container that spans this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Desired {
    pub(super) id: ContainerId,
    pub(super) name: String,
    pub(super) limits: Limits,
    pub(super) defined: Defined,
    /// All nodes that it spans.
    pub(super) nodes: Vec<NodeId>,
    /// The slots that the present lives of its nodes may bind.
    pub(super) leases: BTreeMap<NodeId, Lease>,
}

/// Slots that a node may bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) first_slot: u32,
    pub(super) first_generation: u32,
}

/// The containers that span the node of `own`, by id.
pub(super) fn desired(state: &State, own: Seat) -> Vec<Desired> {
    let spanning = state.containers().iter().filter(|(_, one)| one.nodes.contains(&own.id));
    spanning
        .map(|(id, container)| {
            let mut leases = BTreeMap::new();
            for (block, lease) in container.slots.leases() {
                let holder = lease.holder;
                if state.nodes().seat(holder.id) == Ok(holder)
                    && container.nodes.contains(&holder.id)
                {
                    // The first block of each; a node has one as yet.
                    leases.entry(holder.id).or_insert(Lease {
                        first_slot: first_slot(block),
                        first_generation: lease.first_generation(),
                    });
                }
            }
            Desired {
                id,
                name: container.name.clone(),
                limits: container.limits.clone(),
                defined: state.containers().defined(id),
                nodes: container.nodes.iter().copied().collect(),
                leases,
            }
        })
        .collect()
}
