// SPDX-License-Identifier: MIT OR Apache-2.0
//! What members say to each other.

use dvs_state::nodes::MemberId;
use dvs_state::{Command, Outcome};
use openraft::error::{Infallible, InstallSnapshotError, RaftError};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::types::TypeConfig;

/// The form of requests and answers. Nodes of another release that cannot read it say so, and take no part.
const FORMAT: u8 = 1;

/// A request and whom it is for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    /// The cluster's id.
    pub cluster: u64,
    /// The member that is meant. A node that has forgotten what it was is another member, and must not answer for that one.
    pub to: MemberId,
    pub body: Ask,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Ask {
    Vote(VoteRequest<MemberId>),
    Append(AppendEntriesRequest<TypeConfig>),
    Snapshot(InstallSnapshotRequest<TypeConfig>),
    /// Propose this, as the leader.
    Propose(Command),
    /// Up to where must a state have come that shows everything agreed on so far?
    ReadIndex,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Vote(Result<VoteResponse<MemberId>, RaftError<MemberId, Infallible>>),
    Append(Result<AppendEntriesResponse<MemberId>, RaftError<MemberId, Infallible>>),
    Snapshot(Result<InstallSnapshotResponse<MemberId>, RaftError<MemberId, InstallSnapshotError>>),
    Proposed(Result<Outcome, Declined>),
    ReadIndex(Result<u64, Declined>),
    /// The request was for another member, or for one of another cluster.
    NotMe,
    /// The request cannot be read.
    Malformed,
}

/// Why a leader did not do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Declined {
    /// It does not lead, and nothing was done.
    NotLeader,
    /// It took the proposal and does not know what became of it.
    Unknown,
    /// It has stopped.
    Stopped(String),
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Option<Vec<u8>> {
    let mut bytes = vec![FORMAT];
    bytes.append(&mut postcard::to_allocvec(value).ok()?);
    Some(bytes)
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (format, body) = bytes.split_first()?;
    match postcard::take_from_bytes(body) {
        Ok((value, [])) if *format == FORMAT => Some(value),
        Ok(_) | Err(_) => None,
    }
}
