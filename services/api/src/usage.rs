// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a machine uses.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `GET /v1/usage`: what the answering node's machine uses. What it does not say is 0.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// Its processors.
    pub cpus: u32,
    /// Seconds for which they worked since it was booted, all of them together.
    pub cpu_busy_s: f64,
    /// Seconds for which they did not.
    pub cpu_idle_s: f64,
    /// Bytes of its memory.
    pub memory_total_bytes: u64,
    /// Bytes of it that programs can still have.
    pub memory_available_bytes: u64,
    /// Threads that run or want to, on average over 1, 5 and 15 minutes.
    pub load: [f64; 3],
    /// Threads.
    pub threads: u64,
    /// Seconds since it was booted.
    pub uptime_s: f64,
    /// When that was by its clock, in seconds since 1970.
    pub booted_unix_s: u64,
}
