// SPDX-License-Identifier: MIT OR Apache-2.0
//! What has happened to the cluster.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Answer of `GET /v1/events?after=N&wait_ms=MS&limit=N`: the events with numbers above `after`, in order, as far as the node
/// that answers has come. If there are none it waits for one, `wait_ms` at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Events {
    /// The events, the oldest first.
    pub events: Vec<Event>,
    /// Where to go on: `after` of the next request.
    pub last: u64,
    /// How many events above `after` are no longer kept, so that they are missing here.
    pub missed: u64,
    /// The agreed time now, in milliseconds since the cluster was formed.
    pub now_ms: u64,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// Its number, from 1; the same on every node.
    pub number: u64,
    /// The agreed time at which it happened, in milliseconds since the cluster was formed. It stands still while nobody leads.
    pub at_ms: u64,
    /// The time of day, in milliseconds since 1970, by the clock of the node that led then: a hint, since nodes do not agree on
    /// what time of day it is. `None` before a leader has said what its clock shows.
    pub unix_ms: Option<u64>,
    /// A word for what happened, such as `node-down`; it stays the same from release to release.
    pub kind: String,
    /// Ids of the nodes that it is about.
    pub nodes: Vec<u32>,
    /// What happened, for people.
    pub text: String,
}
