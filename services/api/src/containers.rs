// SPDX-License-Identifier: MIT OR Apache-2.0
//! Distributed Containers.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What `Upgrade` says in the request of `GET /v1/containers/{name}/exec`: the stream of the crate `dvs-exec` follows the
/// answer 101.
pub const EXEC_PROTOCOL: &str = "dvs-exec";

/// What a container may use on each of its nodes; what is left out is limited by what the node gives a container that says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ContainerLimits {
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// Thousandths of a processor.
    pub cpu_milli: Option<u32>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// Endpoints that are bound at once.
    pub endpoints: Option<u32>,
}

/// Body of `POST /v1/containers`: a Distributed Container to be made. Its answer, and that of all that change one, is a
/// [`Container`], of which nothing may have been carried out yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContainerRequest {
    /// Its name: up to 31 of a to z, 0 to 9 and -, which is not at an end.
    pub name: String,
    /// Ids of the nodes that it spans.
    pub nodes: Vec<u32>,
    /// What it may use on each.
    #[serde(default)]
    pub limits: ContainerLimits,
}

/// Body of `PUT /v1/containers/{name}/nodes`: the nodes that it spans from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContainerNodes {
    /// Their ids.
    pub nodes: Vec<u32>,
}

/// A Distributed Container: an element of the answer of `GET /v1/containers`, or that of `GET /v1/containers/{name}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Container {
    /// Its id, which is the number of its `/dev/dvk-dcN` on the nodes.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// What it may use on each node.
    pub limits: ContainerLimits,
    /// How far it has come on each node: those that it spans, and those that it no longer does but has not left yet.
    pub places: Vec<ContainerPlace>,
}

/// A container on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ContainerPlace {
    /// The node's id.
    pub node: u32,
    /// Whether the container spans it.
    pub spanned: bool,
    /// How far it has come there.
    pub phase: ContainerPhase,
    /// What the node does with it, or why it cannot, for people; may be empty.
    pub detail: String,
}

/// See [`ContainerPlace::phase`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ContainerPhase {
    /// The node has not begun with it.
    Pending,
    /// The node makes it.
    Creating,
    /// It runs.
    Running,
    /// The node could not make it, and tries again.
    Failed,
    /// The node removes it.
    Stopping,
    /// The node is down.
    Unknown,
}

impl fmt::Display for ContainerPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "pending",
            Self::Creating => "creating",
            Self::Running => "running",
            Self::Failed => "failed",
            Self::Stopping => "stopping",
            Self::Unknown => "unknown",
        })
    }
}

/// Answer of `GET /v1/containers/{name}/use`: what a container has used and uses on the node that answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ContainerUse {
    /// Id of the node.
    pub node: u32,
    /// Time on processors, in microseconds.
    pub cpu_us: u64,
    /// How long it had to wait because of its limit of processors, in microseconds.
    pub throttled_us: u64,
    /// Bytes of memory in use.
    pub memory: u64,
    /// The most bytes of memory that were in use.
    pub memory_peak: u64,
    /// Processes and threads.
    pub processes: u64,
    /// Processes that were killed for want of memory.
    pub out_of_memory: u64,
    /// How often a process could not be made because of the limit.
    pub processes_refused: u64,
}
