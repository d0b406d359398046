// SPDX-License-Identifier: MIT OR Apache-2.0
//! Inodes in memory.

use super::{Mode, Volume};
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
    /// Whether the inode differs from what was written.
    pub(super) dirty: bool,
    /// How many names it lost since the last commit: the disk may have them still, and counts them.
    pub(super) lost_links: u16,
    /// How often it is held: it is not freed while it is.
    pub(super) holds: u64,
}

impl Node {
    pub(super) fn new(inode: Inode, kind: Kind) -> Self {
        Self { inode, kind, blocks: None, ahead: 0, dirty: false, lost_links: 0, holds: 0 }
    }

    /// Whether a commit would write it.
    pub(super) fn is_changed(&self) -> bool {
        self.dirty || self.lost_links != 0
    }
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
                inode.bytes.is_multiple_of(entry)
                    && (2 * entry..=self.layout.file_max).contains(&inode.bytes)
            }
            Kind::SymbolicLink => inode.bytes <= self.layout.block_bytes,
            Kind::Regular => inode.bytes <= self.layout.file_max,
            _ => true,
        };
        if !has_size {
            return Err(Damage::Size { inode: number, bytes: inode.bytes }.into());
        }
        Ok(Node::new(inode, kind))
    }

    /// Forgets nodes that can be read again, if there are many.
    fn forget_nodes(&mut self) {
        if self.nodes.len() >= self.nodes_limit {
            self.nodes.retain(|_, node| node.is_changed() || node.holds != 0);
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

    /// Keeps an inode from being freed, though its last name goes, until it is
    /// [released](Self::release) as often.
    ///
    /// # Errors
    /// It is damaged, or the disk failed.
    pub fn hold(&mut self, number: u32) -> Result<(), Error> {
        self.node_mut(number)?.holds += 1;
        Ok(())
    }

    /// Takes back `count` holds. With the last one, an inode without a name is freed.
    ///
    /// # Errors
    /// It cannot be freed because it is damaged, or the disk failed. It is not held any more.
    ///
    /// # Panics
    /// If it is not held so often.
    pub fn release(&mut self, number: u32, count: u64) -> Result<(), Error> {
        let node = self.nodes.get_mut(&number).expect("an inode that is held is in memory");
        node.holds = node.holds.checked_sub(count).expect("it is held as often as it is released");
        if node.holds == 0 && node.inode.links == 0 && self.mode == Mode::Writable {
            let release = self.plan_free(number)?;
            self.free(number, release);
        }
        Ok(())
    }

    /// Frees the inodes that have no name and are held. Nobody can use them any more.
    pub(super) fn free_unnamed(&mut self) -> Result<(), Error> {
        if self.mode != Mode::Writable {
            return Ok(());
        }
        let unnamed = |(number, node): (&u32, &Node)| (node.inode.links == 0).then_some(*number);
        let unnamed: Vec<_> = self.nodes.iter().filter_map(unnamed).collect();
        for number in unnamed {
            let release = self.plan_free(number)?;
            self.free(number, release);
        }
        Ok(())
    }

    /// Takes note that an inode was changed.
    pub(super) fn touch(&mut self, number: u32) -> Result<(), Error> {
        let now = self.now;
        let node = self.node_mut(number)?;
        node.inode.changed = now;
        node.dirty = true;
        Ok(())
    }

    /// Takes note that the content of a file or directory was changed.
    pub(super) fn touch_content(&mut self, number: u32) -> Result<(), Error> {
        let now = self.now;
        self.node_mut(number)?.inode.modified = now;
        self.touch(number)
    }
}
