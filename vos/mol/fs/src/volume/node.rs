// SPDX-License-Identifier: MIT OR Apache-2.0
//! Inodes in memory.

use super::Volume;
use crate::cache::{Role, Tag};
use crate::disk::Disk;
use crate::error::{Damage, Error};
use crate::format::{Inode, Kind};

/// How many inodes are kept in memory though nobody needs them.
pub(super) const KEPT: usize = 4096;

/// An inode in memory.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) inode: Inode,
    /// What kind of thing it is; an inode of no kind is never in memory.
    pub(super) kind: Kind,
    /// How many blocks it has, once somebody wanted to know.
    pub(super) blocks: Option<u32>,
    /// Up to which block it was read ahead.
    pub(super) ahead: u32,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The number of its inode.
    pub number: u32,
    /// The inode.
    pub inode: Inode,
    /// How many blocks it has, with those that lead to others.
    pub blocks: u32,
}

/// The tag of the blocks with inodes.
pub(super) const TABLE: Tag = Tag { owner: 0, role: Role::Table };

impl<D: Disk> Volume<D> {
    /// The inode `number`, which somebody named who has looked it up before.
    pub(super) fn node(&mut self, number: u32) -> Result<&Node, Error> {
        self.node_mut(number).map(|node| &*node)
    }

    pub(super) fn node_mut(&mut self, number: u32) -> Result<&mut Node, Error> {
        if !self.nodes.contains_key(&number) {
            let node = self.read_node(number)?;
            self.forget_nodes();
            self.nodes.insert(number, node);
        }
        Ok(self.nodes.get_mut(&number).expect("it was put there"))
    }

    fn read_node(&mut self, number: u32) -> Result<Node, Error> {
        if !self.layout.has_inode(number) || !self.inode_map.is_set(number) {
            return Err(Damage::InodeFree { inode: number }.into());
        }
        let (block, at) = self.layout.inode_place(number);
        let inode = Inode::decode(self.layout.version, &self.cache.block(block, TABLE)?[at..]);
        if inode.mode == 0 {
            return Err(Damage::InodeFree { inode: number }.into());
        }
        let mode = Damage::Mode { inode: number, mode: inode.mode };
        let kind = inode.kind().ok_or(mode)?;
        let entry = self.layout.entry_bytes() as u32;
        let has_size = match kind {
            Kind::Directory => {
                inode.bytes % entry == 0
                    && (2 * entry..=self.layout.file_max).contains(&inode.bytes)
            }
            Kind::SymbolicLink => inode.bytes <= self.layout.block_bytes,
            Kind::Regular => inode.bytes <= self.layout.file_max,
            _ => true,
        };
        if !has_size {
            return Err(Damage::Size { inode: number, bytes: inode.bytes }.into());
        }
        Ok(Node { inode, kind, blocks: None, ahead: 0 })
    }

    /// Forgets nodes that can be read again, if there are many.
    fn forget_nodes(&mut self) {
        if self.nodes.len() >= self.nodes_limit {
            self.nodes.clear();
            self.nodes_limit = KEPT.max(2 * self.nodes.len());
        }
    }

    /// What inode `number` is.
    ///
    /// # Errors
    /// It is damaged, or the disk failed.
    pub fn status(&mut self, number: u32) -> Result<Status, Error> {
        let node = self.node(number)?;
        let (inode, known) = (node.inode, node.blocks);
        let blocks = match known {
            Some(blocks) => blocks,
            None => {
                let blocks = self.count_blocks(number)?;
                self.node_mut(number)?.blocks = Some(blocks);
                blocks
            }
        };
        Ok(Status { number, inode, blocks })
    }

    /// What kind of thing inode `number` is, without keeping it in mind; `None` if that cannot be told.
    pub(super) fn kind_at(&mut self, number: u32) -> Option<Kind> {
        match self.nodes.get(&number) {
            Some(node) => Some(node.kind),
            None => self.read_node(number).ok().map(|node| node.kind),
        }
    }
}
