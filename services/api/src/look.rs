// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a node says of itself and its kernel, for people.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most lines of a log one request may ask for.
pub const LOG_LINES_MAX: usize = 10_000;

/// Answer of `GET /v1/logs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Logs {
    /// The node that answers, if it has an id.
    pub node: Option<u32>,
    /// Services that have a log on it.
    pub services: Vec<String>,
}

/// Answer of `GET /v1/logs/{service}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Log {
    /// The service.
    pub service: String,
    /// The node that answers, if it has an id.
    pub node: Option<u32>,
    /// Lines, oldest first.
    pub lines: Vec<String>,
    /// Where they end: what to ask for as `after` to have those that follow.
    #[serde(default)]
    pub next: String,
}

/// Answer of `GET /v1/kernel/log`: what the kernel of the answering node said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KernelLog {
    /// The node that answers, if it has an id.
    pub node: Option<u32>,
    /// Its records, oldest first.
    pub records: Vec<KernelRecord>,
    /// The number of the last record that the kernel had: what to ask for as `after` to have those that follow; `None` if it had
    /// none yet.
    pub last: Option<u64>,
}

/// See [`KernelLog::records`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KernelRecord {
    /// Its number; what is missing in between is no longer kept.
    pub number: u64,
    /// Microseconds since the machine was booted.
    pub time_us: u64,
    /// How grave it is: 0 (the machine is unusable) to 7 (for debugging).
    pub level: u8,
    /// What it says.
    pub text: String,
}

/// Answer of `GET /v1/kernel/tables`: what the DVK of the answering node shows of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KernelTables {
    /// The node that answers, if it has an id.
    pub node: Option<u32>,
    /// The tables by name; their columns may become more.
    pub tables: BTreeMap<String, String>,
}
