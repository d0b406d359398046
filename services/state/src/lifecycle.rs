// SPDX-License-Identifier: MIT OR Apache-2.0
//! What people decide about nodes: to keep one empty, to remove it, to let a machine come back.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::nodes::{Machine, NodeId, Seat};
use crate::time::Time;

/// What can be decided about nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Empties a node: nothing new is placed on it, and it neither votes nor leads if another node can.
    Drain {
        /// Which life of which node.
        seat: Seat,
        /// For how long.
        until: Until,
    },
    /// Makes it a node like any other again.
    Undrain {
        /// Which node.
        id: NodeId,
    },
    /// Makes it no node any more, and keeps its machine out until it is allowed to come back.
    Remove {
        /// Which life of which node.
        seat: Seat,
    },
    /// Lets a machine come back that was a node and was removed.
    Allow {
        /// Which machine.
        machine: Machine,
    },
}

/// For how long a node is kept empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Until {
    /// Until somebody says otherwise, whatever restarts.
    Undrained,
    /// Until it comes back from a restart that it is drained for.
    Back,
}

/// Why a machine is kept out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bar {
    /// The node that it was.
    pub seat: Seat,
    /// The node's name.
    pub name: String,
    /// Since when.
    pub since: Time,
}

/// What was decided about nodes and outlasts their lives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifecycle {
    drained: BTreeSet<Machine>,
    barred: BTreeMap<Machine, Bar>,
    /// Machines whose nodes people have named; their configuration does not name them any more.
    named: BTreeSet<Machine>,
}

impl Lifecycle {
    /// Whether the node that a machine is, is kept empty until somebody says otherwise.
    pub fn is_drained(&self, machine: Machine) -> bool {
        self.drained.contains(&machine)
    }

    /// Whether people have named the node that a machine is.
    pub fn is_named(&self, machine: Machine) -> bool {
        self.named.contains(&machine)
    }

    /// The machines that are kept out.
    pub fn barred(&self) -> impl Iterator<Item = (Machine, &Bar)> + '_ {
        self.barred.iter().map(|(machine, bar)| (*machine, bar))
    }

    /// Why a machine is kept out, if it is.
    pub fn bar(&self, machine: Machine) -> Option<&Bar> {
        self.barred.get(&machine)
    }

    pub(crate) fn drain(&mut self, machine: Machine, until: Until) {
        if until == Until::Undrained {
            self.drained.insert(machine);
        }
    }

    pub(crate) fn undrain(&mut self, machine: Machine) {
        self.drained.remove(&machine);
    }

    pub(crate) fn name(&mut self, machine: Machine) {
        self.named.insert(machine);
    }

    pub(crate) fn keep_out(&mut self, machine: Machine, bar: Bar) {
        self.drained.remove(&machine);
        self.named.remove(&machine);
        self.barred.insert(machine, bar);
    }

    pub(crate) fn allow(&mut self, machine: Machine) -> bool {
        self.barred.remove(&machine).is_some()
    }
}
