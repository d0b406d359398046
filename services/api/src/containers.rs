// SPDX-License-Identifier: MIT OR Apache-2.0
//! Distributed Containers.

use std::collections::BTreeMap;
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
    /// Bytes of swap space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_bytes: Option<u64>,
    /// Bytes of the writable layer over the image; half of the memory if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writable_bytes: Option<u64>,
    /// Its share of processors where containers compete, from 1 to 10000; 100 if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_weight: Option<u32>,
    /// The processors that it may use, as in `0-2,4`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_set: Option<String>,
    /// Rates of block devices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io: Vec<ContainerIo>,
}

/// Rates of a block device, each a number per second; what is left out is not limited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContainerIo {
    /// Major and minor number, as in `8:0`.
    pub device: String,
    /// Bytes read.
    #[serde(default)]
    pub read_bytes: Option<u64>,
    /// Bytes written.
    #[serde(default)]
    pub write_bytes: Option<u64>,
    /// Read operations.
    #[serde(default)]
    pub reads: Option<u64>,
    /// Write operations.
    #[serde(default)]
    pub writes: Option<u64>,
}

/// What a container is made of. Without anything: a small root with busybox, kept open for commands that are run in it, and no network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ContainerWorkload {
    /// The image that it is made of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<ContainerImage>,
    /// The program that it runs and its arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Its environment, besides what the image says.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// Its working directory; what the image says if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// With which ids it runs; root of the container if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<ContainerUser>,
    /// What is done when it ends.
    pub restart: RestartPolicy,
    /// A network of its own that spans its nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<ContainerNetwork>,
}

/// Which image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContainerImage {
    /// Its name.
    pub name: String,
    /// SHA-256 of its archive; in a request, what the name stands for then if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// Ids in a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContainerUser {
    /// Of the user.
    pub uid: u32,
    /// Of the group.
    pub gid: u32,
}

/// What is done when the command of a container ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// The container is made anew, after a pause if it ends again and again.
    #[default]
    Always,
    /// The same, unless the command ended with success.
    OnFailure,
    /// It is left as it ended.
    Never,
}

/// The network of a container: node N has the address N + 1 in it, and nobody else is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContainerNetwork {
    /// Which network, as in `10.1.0.0/16`.
    pub subnet: String,
    /// Bits per second in each direction, on each node.
    #[serde(default)]
    pub rate_bits: Option<u64>,
    /// Ports of the nodes that lead into it.
    #[serde(default)]
    pub publish: Vec<PublishedPort>,
}

/// A TCP port at the management address of each of the container's nodes that leads to one of the container on the same node.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct PublishedPort {
    /// The node's.
    pub node: u16,
    /// The container's.
    pub container: u16,
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
    /// What it is made of.
    #[serde(default)]
    pub workload: ContainerWorkload,
}

/// Body of `PUT /v1/containers/{name}`: what a container may use and is made of from now on. Where only limits change, and not that of the
/// writable layer, what runs in it goes on; otherwise it is made anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContainerChange {
    /// The revision that was seen. If there is a later one, nothing is changed.
    pub revision: u32,
    /// What it may use on each node.
    pub limits: ContainerLimits,
    /// What it is made of.
    pub workload: ContainerWorkload,
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
    /// What it is made of.
    #[serde(default)]
    pub workload: ContainerWorkload,
    /// Counts the changes of the two before.
    #[serde(default)]
    pub revision: u32,
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
    /// Its address in its network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The revision that it has there, once it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u32>,
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
    /// Its command has ended, and is not to be started again.
    Ended,
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
            Self::Ended => "ended",
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

/// The position in a container's log of the first byte of an answer of `GET /v1/containers/{name}/log`, in a header of this name.
pub const LOG_POSITION: &str = "dvs-log-position";

/// An element of the answer of `GET /v1/images`, and the answer of `PUT /v1/images/{name}`: an image of containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Image {
    /// Its name.
    pub name: String,
    /// SHA-256 of its archive.
    pub digest: String,
    /// Bytes of its archive.
    pub bytes: u64,
    /// Ids of the nodes that have it.
    pub nodes: Vec<u32>,
    /// Ids of the nodes that are to keep it, whether a container there needs it or not.
    pub keepers: Vec<u32>,
    /// Names of the containers that are made of it.
    pub containers: Vec<String>,
}
