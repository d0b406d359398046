// SPDX-License-Identifier: MIT OR Apache-2.0
//! The nodes that somebody holds, and how often.

use super::MountId;
use mol_protocol::file::NodeId;
use std::collections::HashMap;

/// A node that is held.
#[derive(Debug)]
struct Entry {
    place: (MountId, u32),
    /// By all clients, and by their open files.
    holds: u64,
}

/// All nodes that are held. A number is given once, so what is not held any more has none.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    entries: HashMap<NodeId, Entry>,
    numbers: HashMap<(MountId, u32), NodeId>,
    next: u64,
}

impl Nodes {
    /// The mount and inode of a node.
    pub(super) fn place(&self, node: NodeId) -> Option<(MountId, u32)> {
        self.entries.get(&node).map(|entry| entry.place)
    }

    /// Counts a hold. Says the node, and whether this is the first hold.
    pub(super) fn hold(&mut self, place: (MountId, u32)) -> (NodeId, bool) {
        if let Some(node) = self.numbers.get(&place) {
            let entry = self.entries.get_mut(node).expect("a node that has a number is held");
            entry.holds += 1;
            return (*node, false);
        }
        self.next += 1;
        let node = NodeId::from_raw(self.next);
        self.entries.insert(node, Entry { place, holds: 1 });
        self.numbers.insert(place, node);
        (node, true)
    }

    /// Takes holds off. Says where the node is if there are no more.
    pub(super) fn release(&mut self, node: NodeId, count: u64) -> Option<(MountId, u32)> {
        let entry = self.entries.get_mut(&node)?;
        entry.holds = entry.holds.saturating_sub(count);
        if entry.holds > 0 {
            return None;
        }
        let place = entry.place;
        self.entries.remove(&node);
        self.numbers.remove(&place);
        Some(place)
    }

    /// Whether a node of a mount is held.
    pub(super) fn has_any(&self, mount: MountId) -> bool {
        self.numbers.keys().any(|(of, _)| *of == mount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_not_given_again() {
        let mut nodes = Nodes::default();
        let (first, is_new) = nodes.hold((0, 5));
        assert!(is_new);
        assert_eq!(nodes.hold((0, 5)), (first, false));
        assert_ne!(nodes.hold((1, 5)).0, first, "the same inode of another mount");
        assert_eq!(nodes.release(first, 1), None);
        assert_eq!(nodes.release(first, 1), Some((0, 5)));
        assert_eq!((nodes.place(first), nodes.release(first, 1)), (None, None));
        assert_ne!(nodes.hold((0, 5)).0, first, "it may be another file by now");
        assert!(nodes.has_any(1) && !nodes.has_any(2));
    }
}
