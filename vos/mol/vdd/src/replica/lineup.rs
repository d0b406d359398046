// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who has copies of a device, and who answers for it: what the control plane decides.

use core::fmt;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One of the places that have a copy of a device. It stays the same when its server is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ReplicaId(pub u32);

/// One run of a replica's server: of two, the later has the greater number. A server that is started
/// again is another life, since it may have forgotten what the one before has promised. Endpoints are
/// such numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Life(pub u64);

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "replica {}", self.0)
    }
}

/// What a replica is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Standing {
    /// It has every write that was answered. It may become the primary, and no write is answered without it.
    InStep,
    /// It lacks writes, or may. Nobody waits for it.
    Behind,
}

/// A replica in a line-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The run of its server that is meant.
    pub life: Life,
    /// What it is good for.
    pub standing: Standing,
    /// Whether this run is believed to be over. If it is in step, the primary may want to go on without it.
    pub is_gone: bool,
}

impl Member {
    /// A run that is there.
    pub fn new(life: Life, standing: Standing) -> Self {
        Self { life, standing, is_gone: false }
    }
}

/// Who has copies of a device, who of them is in step, and who is the primary. It is agreed on outside of the
/// replicas, where each is followed by one with the next epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineup {
    /// The how manieth it is, from 1.
    pub epoch: u64,
    /// The epoch in which the primary became it.
    pub term: u64,
    /// Who answers for the device. It is in step.
    pub primary: ReplicaId,
    /// Who has a copy.
    pub members: BTreeMap<ReplicaId, Member>,
}

impl Lineup {
    /// The first one of a device that has no content: one is in step, and others are to follow it.
    pub fn first(primary: ReplicaId, lives: impl IntoIterator<Item = (ReplicaId, Life)>) -> Self {
        let member = |(id, life)| {
            let standing = if id == primary { Standing::InStep } else { Standing::Behind };
            (id, Member::new(life, standing))
        };
        Self { epoch: 1, term: 1, primary, members: lives.into_iter().map(member).collect() }
    }

    /// The standing of this life of a replica, if it is a member.
    pub fn standing(&self, id: ReplicaId, life: Life) -> Option<Standing> {
        self.members.get(&id).filter(|member| member.life == life).map(|member| member.standing)
    }

    /// Whether this life of a replica is the primary.
    pub fn is_primary(&self, id: ReplicaId, life: Life) -> bool {
        self.primary == id && self.standing(id, life).is_some()
    }

    /// Those in step.
    pub fn in_step(&self) -> impl Iterator<Item = (ReplicaId, Member)> + '_ {
        let members = self.members.iter().map(|(&id, &member)| (id, member));
        members.filter(|(_, member)| member.standing == Standing::InStep)
    }

    /// Whether all members are in step.
    pub fn is_whole(&self) -> bool {
        self.members.values().all(|member| member.standing == Standing::InStep)
    }

    /// The next line-up: the same primary, other members.
    pub fn with_members(&self, members: BTreeMap<ReplicaId, Member>) -> Self {
        Self { epoch: self.epoch + 1, members, ..self.clone() }
    }

    /// The next line-up, with another primary.
    pub fn with_primary(&self, primary: ReplicaId, members: BTreeMap<ReplicaId, Member>) -> Self {
        let epoch = self.epoch + 1;
        Self { epoch, term: epoch, primary, members }
    }
}
