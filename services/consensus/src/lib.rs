// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod clock;
mod consensus;
pub mod disk;
mod journal;
mod machine;
mod message;
mod network;
mod steward;
#[cfg(all(test, feature = "file"))]
mod storage_tests;
mod transport;
mod types;
pub mod voters;

pub use consensus::{Consensus, ProposeError, StartError, Status, Timing, COMMAND_BYTES_MAX};
pub use transport::{Call, CallError, Transport};
pub use types::{LogEntry, LogId, Membership, Peer, Proposal, SnapshotMeta, TypeConfig, Vote};
