// SPDX-License-Identifier: MIT OR Apache-2.0
//! Endpoints of M3-IPC: whom messages are sent to.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An element of `GET /v1/endpoints`: an endpoint that is bound on the answering node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IpcEndpoint {
    /// Number of the Distributed Container that it is in; 0 is the nodes' own.
    pub container: u32,
    /// That container's name.
    pub container_name: String,
    /// Its slot, and how often that has been bound: `SLOT.GENERATION`.
    pub endpoint: String,
    /// The node that it is on.
    pub node: u32,
    /// Whether others stand by for it, or it for another one.
    pub role: IpcRole,
    /// What its thread is doing.
    pub state: IpcState,
    /// Whom the thread waits for: an endpoint, or `any` if several can end the wait; `None` while it waits for nobody.
    pub waits_for: Option<String>,
    /// Messages received since it was bound.
    pub received: u64,
    /// Messages sent since it was bound, replies and notifications included.
    pub sent: u64,
    /// Endpoints that wait to send to it.
    pub senders: u32,
    /// Endpoints that wait for its reply.
    pub clients: u32,
    /// Sources of notifications that it has not received yet.
    pub notices: u32,
    /// Parts of its memory that are lent to others.
    pub grants: u32,
    /// How often it has moved, or its backup was promoted.
    pub epoch: u32,
}

/// Whether an endpoint is the one that is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum IpcRole {
    /// It is.
    Primary,
    /// It stands by until the primary is gone.
    Backup,
    /// One of several on different nodes, each of which answers its own.
    Replica,
}

/// What the thread of an endpoint is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum IpcState {
    /// Nothing that has to do with messages.
    Idle,
    /// It waits for a message.
    Receive,
    /// It waits until a message is received.
    Send,
    /// It waits for a reply.
    Request,
    /// It copies memory that was lent to it.
    Copy,
    /// It waits until another endpoint is bound, or gone.
    Wait,
    /// It is on its way to another node.
    Moving,
}

impl fmt::Display for IpcRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Primary => "primary",
            Self::Backup => "backup",
            Self::Replica => "replica",
        })
    }
}

impl fmt::Display for IpcState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Idle => "idle",
            Self::Receive => "receive",
            Self::Send => "send",
            Self::Request => "request",
            Self::Copy => "copy",
            Self::Wait => "wait",
            Self::Moving => "moving",
        })
    }
}
