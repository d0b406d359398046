// SPDX-License-Identifier: MIT OR Apache-2.0
//! Barriers: nobody goes on before so many have arrived.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An element of `GET /v1/barriers`: one at which somebody waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Barrier {
    /// Its name.
    pub name: String,
    /// How many it takes.
    pub parties: u32,
    /// The leases of those who wait.
    pub waiting: Vec<u64>,
}

/// Body of `POST /v1/barriers`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BarrierRequest {
    /// Which one.
    pub name: String,
    /// Under which lease; if it ends before the barrier opens, its party has not arrived.
    pub lease: u64,
    /// How many it takes; all who arrive must say the same.
    pub parties: u32,
    /// Tells this arrival from the next one of the same lease: greater each time. Asking again with the same one is harmless.
    #[serde(default)]
    pub attempt: u64,
}

/// What has come of an arrival: answer of `POST /v1/barriers`, and of `GET /v1/barriers/passage?name=N&lease=L&attempt=A&wait_ms=T`, which
/// waits until the barrier opens, or the time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BarrierPassage {
    /// If it has opened: the same number for all who went through together.
    pub round: Option<u64>,
    /// If it has not: how many are missing.
    pub missing: Option<u32>,
}

/// Body of `POST /v1/barriers/leave`: a party goes away without waiting. Asking again is harmless.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BarrierDeparture {
    /// Which barrier.
    pub name: String,
    /// Under which lease it arrived.
    pub lease: u64,
}

/// Answer of `POST /v1/barriers/leave`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BarrierLeft {
    /// Whether it waited. If not, the barrier may have opened for it before: its passage says so.
    pub left: bool,
}
