// SPDX-License-Identifier: MIT OR Apache-2.0
//! The DVK's side of the containers: what was programmed, and which calls make it what it is to be. As in [`reconcile`](crate::reconcile), a
//! call that failed is planned again, and a plan that was carried out leads to an empty one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use dvs_state::containers::ContainerId;
use dvs_state::nodes::NodeId;

use super::desired::{Desired, Lease};

/// A control call of the DVK about a Distributed Container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerCall {
    /// Make it.
    Create {
        /// Its id.
        id: ContainerId,
        /// Its name.
        name: String,
        /// Most endpoints that may be bound in it; 0 for what the DVK allows at most.
        endpoints: u32,
    },
    /// Let a node bind slots in it.
    AddNode {
        /// Its id.
        id: ContainerId,
        /// The node.
        node: NodeId,
        /// The first of its slots.
        first_slot: u32,
        /// The generation of the first bind of each.
        first_generation: u32,
    },
    /// Take a node's slots back and forget its endpoints.
    RemoveNode {
        /// Its id.
        id: ContainerId,
        /// The node.
        node: NodeId,
    },
    /// End it, and all its endpoints.
    Destroy {
        /// Its id.
        id: ContainerId,
    },
}

impl fmt::Display for ContainerCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { id, name, .. } => write!(f, "create the container {name} ({id})"),
            Self::AddNode { id, node, .. } => {
                write!(f, "lease slots of container {id} to node {node}")
            }
            Self::RemoveNode { id, node } => {
                write!(f, "take back the slots of node {node} in container {id}")
            }
            Self::Destroy { id } => write!(f, "end container {id}"),
        }
    }
}

/// What has been programmed in this life of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    containers: BTreeMap<ContainerId, BTreeMap<NodeId, Lease>>,
}

impl Table {
    /// The calls that make the DVK what is desired. A container goes only once nothing uses its device: those in `kept` stay.
    pub(super) fn plan(
        &self,
        desired: &[Desired],
        kept: &BTreeSet<ContainerId>,
    ) -> Vec<ContainerCall> {
        let mut calls = Vec::new();
        let is_over =
            |id: &ContainerId| !kept.contains(id) && desired.iter().all(|one| one.id != *id);
        calls.extend(
            self.containers
                .keys()
                .filter(|id| is_over(id))
                .map(|id| ContainerCall::Destroy { id: *id }),
        );
        for Desired { id, name, limits, leases, .. } in desired {
            let (id, none) = (*id, BTreeMap::new());
            let programmed = self.containers.get(&id).unwrap_or(&none);
            if !self.containers.contains_key(&id) {
                let endpoints = limits.endpoints.unwrap_or(0);
                calls.push(ContainerCall::Create { id, name: name.clone(), endpoints });
            }
            // What one node gives up another may have been given.
            let gone = programmed.iter().filter(|(node, lease)| leases.get(node) != Some(lease));
            calls.extend(gone.map(|(node, _)| ContainerCall::RemoveNode { id, node: *node }));
            for (node, lease) in
                leases.iter().filter(|(node, lease)| programmed.get(node) != Some(lease))
            {
                let Lease { first_slot, first_generation } = *lease;
                calls.push(ContainerCall::AddNode {
                    id,
                    node: *node,
                    first_slot,
                    first_generation,
                });
            }
        }
        calls
    }

    /// Records a call that the kernel took.
    pub(super) fn done(&mut self, call: &ContainerCall) {
        match *call {
            ContainerCall::Create { id, .. } => drop(self.containers.insert(id, BTreeMap::new())),
            ContainerCall::AddNode { id, node, first_slot, first_generation } => {
                let lease = Lease { first_slot, first_generation };
                self.containers.entry(id).or_default().insert(node, lease);
            }
            ContainerCall::RemoveNode { id, node } => {
                self.containers.entry(id).or_default().remove(&node);
            }
            ContainerCall::Destroy { id } => drop(self.containers.remove(&id)),
        }
    }

    /// Whether nothing is programmed.
    pub(super) fn is_empty(&self) -> bool {
        self.containers.is_empty()
    }

    /// Whether programs on this node can bind endpoints in the container.
    pub(super) fn is_ready(&self, id: ContainerId, own: NodeId) -> bool {
        self.containers.get(&id).is_some_and(|leases| leases.contains_key(&own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dvs_state::containers::Defined;
    use dvs_state::containers::Limits;

    fn one(id: ContainerId, leases: &[(NodeId, u32)]) -> Desired {
        let lease = |generation| Lease { first_slot: 64, first_generation: generation };
        let leases = leases.iter().map(|(node, generation)| (*node, lease(*generation))).collect();
        Desired {
            id,
            name: format!("c{id}"),
            limits: Limits::default(),
            defined: Defined::default(),
            nodes: Vec::new(),
            leases,
        }
    }

    fn carry_out(
        table: &mut Table,
        desired: &[Desired],
        kept: &BTreeSet<ContainerId>,
    ) -> Vec<ContainerCall> {
        let calls = table.plan(desired, kept);
        calls.iter().for_each(|call| table.done(call));
        assert_eq!(table.plan(desired, kept), [], "a plan carried out leaves nothing to do");
        calls
    }

    #[test]
    fn containers_are_made_follow_leases_and_go_once_nothing_uses_them() {
        let (mut table, nothing) = (Table::default(), BTreeSet::new());
        let calls = carry_out(&mut table, &[one(3, &[(0, 7), (1, 8)])], &nothing);
        assert!(matches!(
            calls[..],
            [
                ContainerCall::Create { id: 3, endpoints: 0, .. },
                ContainerCall::AddNode { node: 0, first_generation: 7, .. },
                ContainerCall::AddNode { node: 1, .. },
            ]
        ));
        assert!(table.is_ready(3, 0) && !table.is_ready(3, 2) && !table.is_ready(4, 0));
        // Node 1 came back, node 0 is gone.
        let calls = carry_out(&mut table, &[one(3, &[(1, 9)])], &nothing);
        assert!(matches!(
            calls[..],
            [
                ContainerCall::RemoveNode { node: 0, .. },
                ContainerCall::RemoveNode { node: 1, .. },
                ContainerCall::AddNode { node: 1, first_generation: 9, .. },
            ]
        ));
        assert_eq!(carry_out(&mut table, &[], &BTreeSet::from([3])), []);
        assert_eq!(carry_out(&mut table, &[], &nothing), [ContainerCall::Destroy { id: 3 }]);
    }
}
