// SPDX-License-Identifier: MIT OR Apache-2.0
//! The types that Raft is made of here.

use std::io::Cursor;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use dvs_state::nodes::{MemberId, NodeId};
use dvs_state::Outcome;
use serde::{Deserialize, Serialize};

/// Where a member is found: the transport knows how a node is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// The node that it runs on.
    pub node: NodeId,
}

/// A command on its way into the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Proposal {
    /// The command as the log has it.
    pub entry: dvs_state::Entry,
    #[serde(skip)]
    taken: Arc<AtomicBool>,
}

impl Proposal {
    /// A command that is in no log yet.
    pub fn new(entry: dvs_state::Entry) -> Self {
        Self { entry, taken: Arc::default() }
    }

    /// What tells, after the proposal has been given away, whether it got into this node's log.
    ///
    /// Raft says "ask the leader" to a proposal that it never took, but also to one that it took and then had to take out
    /// of its log for another leader's. The second may still be in the log of a third node, which may become the leader and
    /// commit it; so only the first may be proposed again.
    pub(crate) fn watch(&self) -> Taken {
        Taken(Arc::clone(&self.taken))
    }

    pub(crate) fn mark_taken(&self) {
        self.taken.store(true, Ordering::Release);
    }
}

/// See [`Proposal::watch`].
pub(crate) struct Taken(Arc<AtomicBool>);

impl Taken {
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

openraft::declare_raft_types!(
    /// Raft over the agreed state.
    pub TypeConfig:
        D = Proposal,
        R = Outcome,
        NodeId = MemberId,
        Node = Peer,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = Cursor<Vec<u8>>,
        AsyncRuntime = openraft::TokioRuntime,
);

/// An entry of the log.
pub type LogEntry = openraft::Entry<TypeConfig>;
/// The place of an entry and the term it is of.
pub type LogId = openraft::LogId<MemberId>;
/// Whom a member has voted for.
pub type Vote = openraft::Vote<MemberId>;
/// What a snapshot is of.
pub type SnapshotMeta = openraft::SnapshotMeta<MemberId, Peer>;
/// Who is a voter and who a learner, and since which entry.
pub type Membership = openraft::StoredMembership<MemberId, Peer>;
pub(crate) type StorageError = openraft::StorageError<MemberId>;
pub(crate) type Raft = openraft::Raft<TypeConfig>;
