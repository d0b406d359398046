// SPDX-License-Identifier: MIT OR Apache-2.0
//! Elections: of those who stand, one leads.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An element of `GET /v1/elections`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Election {
    /// Its name; it exists while somebody stands.
    pub name: String,
    /// Who leads.
    pub leader: Option<Leader>,
    /// Who stands besides, the next leader first.
    pub candidates: Vec<Candidate>,
}

/// Who leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Leader {
    /// Its lease.
    pub lease: u64,
    /// Its term, greater than that of every leader before: a fencing token.
    pub term: u64,
    /// What it says of itself.
    pub value: String,
}

/// Who wants to lead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Candidate {
    /// Its lease.
    pub lease: u64,
    /// What it says of itself.
    pub value: String,
}

/// Answer of `GET /v1/elections/leader?name=N&not_term=T&wait_ms=M`, which waits until somebody else leads than in that term, or the time is
/// over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ElectionLeader {
    /// Who leads; `None` while nobody does.
    pub leader: Option<Leader>,
}

/// Body of `POST /v1/elections`. Asking again from the same lease is harmless.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ElectionRequest {
    /// Which one.
    pub name: String,
    /// Under which lease.
    pub lease: u64,
    /// What others should know of this candidate once it leads, such as its address.
    #[serde(default)]
    pub value: String,
}

/// Where a candidate stands: answer of `POST /v1/elections`, and of `GET /v1/elections/standing?name=N&lease=L&wait_ms=T`, which waits
/// until it leads, or the time is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ElectionStanding {
    /// Its term, if it leads.
    pub term: Option<u64>,
    /// How many come before it, if it does not; the leader is one of them.
    pub ahead: Option<u32>,
}

/// Body of `POST /v1/elections/resign`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ElectionResignation {
    /// Which one.
    pub name: String,
    /// Under which lease.
    pub lease: u64,
}

/// Answer of `POST /v1/elections/resign`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ElectionResigned {
    /// Whether the lease led or stood.
    pub resigned: bool,
}
