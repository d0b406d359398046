// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which transport carries the link between two nodes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::nodes::{NodeId, Nodes};
use crate::refusal::{Refusal, Thing};

/// A transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transport {
    /// Raw Ethernet, in the kernel.
    Ethernet,
    /// TIPC, in the kernel.
    Tipc,
    /// A proxy that speaks TCP.
    Tcp,
    /// A proxy that speaks UDP.
    Udp,
    /// A proxy that speaks QUIC.
    Quic,
}

/// What can be done with links.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Chooses a transport for two nodes, or leaves the choice to them.
    Choose {
        /// One node.
        a: NodeId,
        /// The other.
        b: NodeId,
        /// The transport; `None` for what the nodes find best.
        transport: Option<Transport>,
    },
}

/// Two nodes, the one with the lower id first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pair(NodeId, NodeId);

impl Pair {
    /// Two different nodes, in any order.
    pub fn new(a: NodeId, b: NodeId) -> Option<Self> {
        (a != b).then(|| Self(a.min(b), a.max(b)))
    }

    /// The two, the one with the lower id first.
    pub fn nodes(self) -> [NodeId; 2] {
        [self.0, self.1]
    }
}

/// The choices that were made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Links {
    chosen: BTreeMap<Pair, Transport>,
}

impl Links {
    /// What was chosen for two nodes.
    pub fn chosen(&self, pair: Pair) -> Option<Transport> {
        self.chosen.get(&pair).copied()
    }

    /// All choices.
    pub fn iter(&self) -> impl Iterator<Item = (Pair, Transport)> + '_ {
        self.chosen.iter().map(|(pair, transport)| (*pair, *transport))
    }

    pub(crate) fn choose(
        &mut self,
        nodes: &Nodes,
        a: NodeId,
        b: NodeId,
        transport: Option<Transport>,
    ) -> Result<(), Refusal> {
        let pair = Pair::new(a, b).ok_or_else(|| {
            Refusal::Invalid(format!("node {a} has no link to itself; name two nodes"))
        })?;
        for id in pair.nodes() {
            nodes.get(id).ok_or_else(|| Refusal::missing(Thing::Node, id))?;
        }
        match transport {
            Some(transport) => drop(self.chosen.insert(pair, transport)),
            None => drop(self.chosen.remove(&pair)),
        }
        Ok(())
    }

    pub(crate) fn remove_node(&mut self, id: NodeId) {
        self.chosen.retain(|pair, _| !pair.nodes().contains(&id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::{Join, Machine, Role};

    #[test]
    fn a_choice_holds_for_both_ends_until_one_is_removed() {
        let mut nodes = Nodes::default();
        for n in 0..3 {
            let machine = Machine([2, 0, 0, 0, 0, n]);
            let join = Join {
                machine,
                run: 1,
                name: None,
                role: Role::Voter,
                member: None,
                understands: 1,
                place: None,
            };
            nodes.join(&join, 1).unwrap();
        }
        let mut links = Links::default();
        links.choose(&nodes, 2, 0, Some(Transport::Tipc)).unwrap();
        links.choose(&nodes, 1, 2, Some(Transport::Quic)).unwrap();
        assert_eq!(links.chosen(Pair::new(0, 2).unwrap()), Some(Transport::Tipc));
        assert!(links.choose(&nodes, 1, 1, Some(Transport::Tcp)).is_err());
        assert!(links.choose(&nodes, 1, 3, Some(Transport::Tcp)).is_err());
        links.choose(&nodes, 2, 1, None).unwrap();
        assert_eq!(links.iter().count(), 1);
        links.remove_node(0);
        assert_eq!(links, Links::default());
    }
}
