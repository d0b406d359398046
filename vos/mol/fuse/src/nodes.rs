// SPDX-License-Identifier: MIT OR Apache-2.0
//! What Linux has looked up: the nodes by the numbers of their inodes, which is how Linux names them.
//!
//! While a node is held, its inode is not freed, so no two nodes that are held have one number.

use mol_protocol::file::NodeId;
use std::collections::HashMap;

/// The number of the root's inode, in MINIX and for FUSE.
pub(crate) const ROOT: u64 = 1;

#[derive(Debug)]
struct Entry {
    node: NodeId,
    /// How often Linux has looked it up, and the server holds it for us.
    lookups: u64,
}

/// All nodes that Linux knows.
#[derive(Debug)]
pub(crate) struct Nodes {
    entries: HashMap<u64, Entry>,
}

impl Nodes {
    pub(crate) fn new(root: NodeId) -> Self {
        Self { entries: HashMap::from([(ROOT, Entry { node: root, lookups: 1 })]) }
    }

    pub(crate) fn node(&self, number: u64) -> Option<NodeId> {
        self.entries.get(&number).map(|entry| entry.node)
    }

    /// Counts a lookup.
    pub(crate) fn add(&mut self, number: u64, node: NodeId) {
        let entry = self.entries.entry(number).or_insert(Entry { node, lookups: 0 });
        entry.node = node;
        entry.lookups += 1;
    }

    /// Linux has forgotten some lookups: what is to be given back to the server. The root stays.
    pub(crate) fn forget(&mut self, number: u64, lookups: u64) -> Option<(NodeId, u64)> {
        let entry = self.entries.get_mut(&number)?;
        let least = u64::from(number == ROOT);
        let lookups = lookups.min(entry.lookups - least);
        entry.lookups -= lookups;
        let node = entry.node;
        if entry.lookups == 0 {
            self.entries.remove(&number);
        }
        (lookups > 0).then_some((node, lookups))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookups_are_given_back_as_often_as_they_were_made() {
        let node = NodeId::from_raw;
        let mut nodes = Nodes::new(node(70));
        nodes.add(5, node(71));
        nodes.add(5, node(71));
        nodes.add(ROOT, node(70));
        assert_eq!(nodes.forget(5, 1), Some((node(71), 1)));
        assert_eq!(nodes.node(5), Some(node(71)));
        assert_eq!(nodes.forget(5, 9), Some((node(71), 1)), "there is but one more");
        assert_eq!((nodes.node(5), nodes.forget(5, 1)), (None, None));
        assert_eq!(nodes.forget(ROOT, 5), Some((node(70), 1)));
        assert_eq!((nodes.node(ROOT), nodes.forget(ROOT, 1)), (Some(node(70)), None));
    }
}
