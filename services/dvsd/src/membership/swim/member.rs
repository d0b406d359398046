// SPDX-License-Identifier: MIT OR Apache-2.0
//! What this node knows of another member.

use super::message::Aside;
use super::record::{Health, Record};
use super::window::Window;

/// How a member stands to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It answers, or has time to contradict.
    Alive,
    /// Others reach it, this node does not.
    Unreachable,
    /// Nobody reaches it.
    Down,
    /// It said goodbye.
    Left,
}

/// What this node knows of another member.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) record: Record,
    pub(super) window: Window,
    /// It has answered in this run: it knows this node.
    pub(super) answered: bool,
    /// Since when it has not answered directly, though it was asked. Only a direct answer ends that,
    /// whatever others say meanwhile.
    pub(super) doubted_ms: Option<u64>,
    pub(super) unreachable: bool,
    /// After which contradiction it is suspected, and when that turns into certainty.
    pub(super) suspected: Option<(u32, u64)>,
    pub(super) told: Standing,
    /// What this member tells only this node, and its version; 0 if it tells nothing.
    pub(super) aside: (u32, Aside),
    /// The newest version of this node's aside that the member has.
    pub(super) aside_seen: u32,
}

impl Member {
    pub(super) fn new(record: Record) -> Self {
        Self {
            record,
            window: Window::default(),
            answered: false,
            doubted_ms: None,
            unreachable: false,
            suspected: None,
            told: Standing::Down,
            aside: (0, Aside::default()),
            aside_seen: 0,
        }
    }

    pub(super) fn standing(&self) -> Standing {
        match self.record.claim.health {
            Health::Left => Standing::Left,
            Health::Down => Standing::Down,
            _ if self.unreachable => Standing::Unreachable,
            _ => Standing::Alive,
        }
    }
}
