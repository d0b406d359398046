// SPDX-License-Identifier: MIT OR Apache-2.0
//! What replicas say to each other, what a replica is told, and what it has done.

use super::lineup::{Life, Lineup, ReplicaId};
use super::record::Record;
use super::regions::RegionSet;
use crate::store::Safety;
use core::time::Duration;
use std::sync::Arc;

/// A change of the device's blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Blocks are written.
    Write {
        /// The first byte.
        position: u64,
        /// The blocks.
        data: Arc<[u8]>,
        /// When they are to be safe.
        safety: Safety,
    },
    /// Blocks become zeros.
    Zero {
        /// The first byte.
        position: u64,
        /// How many bytes.
        bytes: u64,
    },
}

impl Change {
    /// The first byte that changes, and how many do.
    pub fn range(&self) -> (u64, u64) {
        match self {
            Self::Write { position, data, .. } => (*position, data.len() as u64),
            Self::Zero { position, bytes } => (*position, *bytes),
        }
    }
}

/// What a client asks. Ranges are of the device, which is checked before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// To read.
    Read {
        /// The first byte.
        position: u64,
        /// How many bytes.
        bytes: u64,
    },
    /// To change blocks.
    Change(Change),
    /// To make safe what was answered before.
    Flush,
}

/// A request that a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Why a request is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// This replica is not the primary, and has done nothing.
    #[error("this replica does not answer for the device")]
    NotPrimary,
    /// It was the primary when the request came, and is not any more: the next one may have the change, or not.
    #[error("another replica has taken over, and may have the change or not")]
    InDoubt,
}

/// What fills one replica with changes, in order: from one greeting of a primary to the next. Of two, the
/// later has the greater number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Feed(pub u64);

/// One item of a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// Do a change.
    Change(Change),
    /// Make safe what is there.
    Flush,
    /// Make safe what is there: it is all that others have. Of what differs since the epoch `base`, the set
    /// of unsettled regions now lacks nothing.
    Complete {
        /// The primary's [`Record::base`].
        base: u64,
    },
    /// Compare a range with its checksum at the primary.
    Compare {
        /// The first byte.
        position: u64,
        /// How many bytes.
        bytes: u64,
        /// The checksum.
        sum: Sum,
    },
    /// Nothing; in place of a comparison that came too late.
    Skip,
}

/// A checksum of blocks.
pub type Sum = [u8; 16];

/// What replicas say to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// From a primary: begin a feed.
    Greet {
        /// The epoch of the line-up that makes it the primary.
        epoch: u64,
        /// The feed.
        feed: Feed,
    },
    /// The answer.
    Greeting {
        /// The feed.
        feed: Feed,
        /// [`Record::in_step`].
        in_step: u64,
        /// Where it may differ from others, or have writes that are not stable.
        unsettled: RegionSet,
        /// Where it may have writes that others lack: nobody was told that all have them.
        uncommitted: RegionSet,
    },
    /// From a primary: the next item.
    Feed {
        /// As in a greeting.
        epoch: u64,
        /// The feed.
        feed: Feed,
        /// The how manieth it is, from 1.
        sequence: u64,
        /// The item.
        item: Item,
    },
    /// The answer: how far the feed was done.
    Fed {
        /// The feed.
        feed: Feed,
        /// The last item that was done.
        sequence: u64,
        /// The last comparison: which item, and whether the blocks were the same.
        verdict: Option<(u64, bool)>,
    },
    /// From a primary, now and then: it is there, and asks for leave to answer readers.
    Beat {
        /// As in a greeting.
        epoch: u64,
        /// The feed.
        feed: Feed,
        /// Which beat.
        beat: u64,
        /// Of this replica, which is in step: the last item up to which all in step have everything.
        committed: Option<u64>,
        /// The last item up to which all replicas, none of them behind, have everything safe; 0 is none.
        settled: u64,
        /// The primary's [`Record::base`].
        base: u64,
    },
    /// The answer: for the length of a lease no other primary answers readers.
    Pulse {
        /// The feed.
        feed: Feed,
        /// Which beat.
        beat: u64,
        /// [`Record::in_step`].
        in_step: u64,
    },
    /// The answer to a primary of the past.
    Fenced {
        /// The latest epoch that is known.
        epoch: u64,
    },
}

impl Message {
    /// Whether it answers a primary. What does not is from one.
    pub fn is_answer(&self) -> bool {
        match self {
            Self::Greeting { .. } | Self::Fed { .. } | Self::Pulse { .. } | Self::Fenced { .. } => {
                true
            }
            Self::Greet { .. } | Self::Feed { .. } | Self::Beat { .. } => false,
        }
    }
}

/// What a replica is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// A line-up that was agreed on.
    Lineup(Lineup),
    /// A message of this life of a replica to this life of this replica.
    Message(ReplicaId, Life, Message),
    /// A client asks.
    Request(RequestId, Request),
    /// What came of [`Action::Compare`].
    Compared {
        /// Its feed.
        feed: Feed,
        /// Its item.
        sequence: u64,
        /// Whether the sum was that of the blocks.
        is_same: bool,
    },
    /// An administrator wants all blocks of replicas in step compared.
    Scrub,
    /// Time has passed.
    Tick,
}

/// What is to be done. Actions are done in their order, each after the one before has succeeded. If one of the store
/// fails, the rest is not done and the replica has ended: it may not have what it has promised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Do a change of the store.
    Change(Change),
    /// Make safe what was changed.
    Flush,
    /// Keep this in place of what was kept, safe before the next action.
    Keep(Record),
    /// Read for a client, and answer. A failure to read is the client's to hear, and nobody else's.
    Read {
        /// The request.
        request: RequestId,
        /// The first byte.
        position: u64,
        /// How many bytes.
        bytes: u64,
        /// If the blocks were read before this time, they were what the device has. Else another replica may be
        /// the primary: the request is to be asked again.
        until: Duration,
    },
    /// Answer a client.
    Answer(RequestId, Result<(), Refusal>),
    /// Send a message. It may be lost.
    Send(ReplicaId, Life, Message),
    /// Send [`Message::Feed`] with a change that writes what the store has there.
    SendBlocks {
        /// To whom.
        to: (ReplicaId, Life),
        /// As in the message.
        epoch: u64,
        /// As in the message.
        feed: Feed,
        /// As in the message.
        sequence: u64,
        /// The first byte.
        position: u64,
        /// How many bytes.
        bytes: u64,
    },
    /// Send [`Message::Feed`] with a comparison with what the store has there.
    SendSum {
        /// To whom.
        to: (ReplicaId, Life),
        /// As in the message.
        epoch: u64,
        /// As in the message.
        feed: Feed,
        /// As in the message.
        sequence: u64,
        /// The first byte.
        position: u64,
        /// How many bytes.
        bytes: u64,
    },
    /// Compare what the store has there with a checksum, and tell by [`Input::Compared`].
    Compare {
        /// The feed.
        feed: Feed,
        /// The item.
        sequence: u64,
        /// The first byte.
        position: u64,
        /// How many bytes.
        bytes: u64,
        /// The checksum.
        sum: Sum,
    },
    /// Ask those who decide for this line-up. It may be lost.
    Propose(Lineup),
    /// Tell people.
    Tell(Notice),
}

/// What people may want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// This replica answers for the device from now on.
    Serving {
        /// The epoch.
        epoch: u64,
    },
    /// A replica gets blocks that it lacks.
    Filling {
        /// Which one.
        replica: ReplicaId,
        /// How many regions.
        regions: u32,
    },
    /// It has got them.
    Filled {
        /// Which one.
        replica: ReplicaId,
    },
    /// A replica in step has other blocks than the primary. They are written over.
    Differs {
        /// Which one.
        replica: ReplicaId,
        /// The first byte of the region.
        position: u64,
        /// How many bytes it has.
        bytes: u64,
    },
    /// A replica's blocks were all compared.
    Compared {
        /// Which one.
        replica: ReplicaId,
    },
}
