// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine configuration of a node.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest that a change may be on trial, in seconds.
pub const TRIAL_S_MAX: u64 = 3_600;

/// Answer of `GET /v1/config`: the machine configuration of the answering node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MachineConfig {
    /// The node that answers, if it has an id.
    pub node: Option<u32>,
    /// The configuration as TOML, defaults included, without the cluster token and without kernel arguments for others that hold a secret.
    pub toml: String,
    /// Whether there is a cluster token.
    pub has_token: bool,
    /// Whether the daemon that answers runs with it; else it is about to be started anew.
    pub running: bool,
    /// For how many more seconds a change is on trial; `None` if none is.
    pub trial_s: Option<u64>,
}

/// When a change of the configuration is made, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ConfigMode {
    /// Now, and taken back unless it is confirmed.
    Try,
    /// Now.
    Now,
    /// At the next boot.
    Reboot,
}

/// Body of `PUT /v1/config`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigChange {
    /// The configuration as TOML. Without a cluster token it means the one that the node has.
    pub toml: String,
    /// When it is made.
    pub mode: ConfigMode,
    /// For how many seconds it is on trial, 5 to [`TRIAL_S_MAX`].
    #[serde(default = "trial_s")]
    pub trial_s: u64,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

fn trial_s() -> u64 {
    60
}

/// Answer of `PUT /v1/config`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigChanged {
    /// The node that answers, if it has an id.
    pub node: Option<u32>,
    /// The keys that change.
    pub changed: Vec<String>,
    /// The keys that take a reboot, and stay as they are.
    pub at_boot: Vec<String>,
    /// For how many seconds it is on trial; `None` if it is not.
    pub trial_s: Option<u64>,
    /// The device of the volume that has it for the next boot; `None` but for [`ConfigMode::Reboot`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_on: Option<String>,
}

/// Answer of `POST /v1/config/confirm`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigConfirmed {
    /// The node that answers, if it has an id.
    pub node: Option<u32>,
    /// Whether a change was on trial.
    pub confirmed: bool,
}
