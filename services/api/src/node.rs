// SPDX-License-Identifier: MIT OR Apache-2.0
//! What people decide about nodes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How far a node has come, as the nodes have agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NodePhase {
    /// It has its place; its tables are not complete yet.
    Joining,
    /// It is a node like any other.
    Ready,
    /// Nothing new is placed on it, and it neither votes nor leads if another node can.
    Draining,
    /// It is no node any more.
    Removed,
}

/// Answer of `GET /v1/nodes/{id}/standing`, and of whatever changes it: `POST /v1/nodes/{id}/drain`, `undrain`, `remove` and `allow`,
/// and `PUT /v1/nodes/{id}/name`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeStanding {
    /// The node.
    pub node: u32,
    /// Its name.
    pub name: String,
    /// Its machine.
    pub machine: String,
    /// Which life this is.
    pub incarnation: u32,
    /// How far it has come.
    pub phase: NodePhase,
    /// Whether it stays drained when it restarts.
    pub kept: bool,
    /// Whether its machine is kept out of the cluster.
    pub barred: bool,
    /// Whether the others hear it.
    pub up: bool,
    /// Whether it votes.
    pub votes: bool,
    /// Whether it leads.
    pub leads: bool,
    /// Names of the containers that span it.
    pub containers: Vec<String>,
}

/// Body of `POST /v1/nodes/{id}/drain`. The answer comes once the node neither votes nor leads, which may take seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeDrain {
    /// Drain it even if no other node can vote instead.
    #[serde(default)]
    pub force: bool,
}

/// Body of `PUT /v1/nodes/{id}/name`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeRename {
    /// The new name.
    pub name: String,
}

/// Body of `POST /v1/nodes/{id}/remove`. The answer comes once it is no node any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeRemoval {
    /// Remove it even if no other node can vote instead.
    #[serde(default)]
    pub force: bool,
    /// Keep its machine out until somebody allows it to come back.
    #[serde(default = "barred")]
    pub barred: bool,
}

fn barred() -> bool {
    true
}

/// Body of `POST /v1/power`: what becomes of the machine of the node that answers. It gives its vote away and says goodbye
/// before; the answer comes when its services are about to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PowerRequest {
    /// What.
    pub action: PowerAction,
    /// Do it even if no other node can vote meanwhile.
    #[serde(default)]
    pub force: bool,
}

/// See [`PowerRequest::action`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PowerAction {
    /// The machine restarts.
    Reboot,
    /// It switches itself off.
    Shutdown,
}

/// Answer of `POST /v1/power`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PowerAnswer {
    /// The node, if it is one.
    pub node: Option<u32>,
    /// The incarnation that ends.
    pub incarnation: Option<u32>,
}
