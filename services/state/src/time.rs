// SPDX-License-Identifier: MIT OR Apache-2.0
//! The time that the nodes agree on.

use serde::{Deserialize, Serialize};

/// Milliseconds since the cluster was formed, as commands carry it.
///
/// No wall clock is involved: a leader begins with the time of the last command that it has applied, and adds what its own
/// monotonic clock counts from there. While there is no leader this time stands still, so nothing runs out then.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Time(pub u64);

impl Time {
    /// This time and `ms` milliseconds.
    pub fn after(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}
