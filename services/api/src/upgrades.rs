// SPDX-License-Identifier: MIT OR Apache-2.0
//! Upgrades of nodes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Body of `POST /v1/upgrade/rollback`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// As for an upgrade.
    pub canary: u16,
    /// As for an upgrade.
    pub max_unavailable: u16,
    /// As for an upgrade.
    pub patience_s: u32,
}

/// What an upgrade does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UpgradePhase {
    /// It goes on.
    Running,
    /// No more nodes begin until somebody resumes it.
    Paused,
    /// All its nodes are done.
    Complete,
    /// Somebody has ended it.
    Cancelled,
}

impl std::fmt::Display for UpgradePhase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Complete => "complete",
            Self::Cancelled => "cancelled",
        })
    }
}

/// How far a node has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UpgradeNode {
    /// Its id.
    pub node: u32,
    /// `waiting`, `fetching`, `ready`, `restarting`, `done` or `failed`.
    pub step: String,
    /// Why it failed, for people.
    pub cause: Option<String>,
    /// For how long it has been at that, in milliseconds.
    pub for_ms: u64,
    /// How often it restarted in this upgrade.
    pub restarts: u32,
}

/// An upgrade.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Upgrade {
    /// Its number, from 1.
    pub id: u32,
    /// What the nodes are to run.
    pub release: String,
    /// SHA-256 of the bundle.
    pub digest: String,
    /// Bytes of the bundle.
    pub bytes: u64,
    /// What it does.
    pub phase: UpgradePhase,
    /// Why it is paused, for people.
    pub why: Option<String>,
    /// Its nodes, in the order in which they go. Of an upgrade that another one has followed, those that failed.
    pub nodes: Vec<UpgradeNode>,
    /// When it was begun, in milliseconds of agreed time.
    pub started_ms: u64,
    /// When it was begun by the clock of the node that led, in milliseconds since 1970.
    pub started_unix_ms: Option<u64>,
    /// When what it does changed last, in milliseconds of agreed time.
    pub changed_ms: u64,
}

/// Answer of `GET /v1/upgrade`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Upgrades {
    /// The last one that was begun.
    pub current: Option<Upgrade>,
    /// Those before it, the latest first.
    pub past: Vec<Upgrade>,
    /// What a rollback would go back to.
    pub before: Option<String>,
}
