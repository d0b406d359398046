// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbers that never come back.

use serde::{Deserialize, Serialize};

/// Draws numbers, each greater than all before. Ids of leases, fencing tokens, rounds of barriers and views of groups come
/// from one of these, so that something that is removed and made again does not begin with numbers that somebody still knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tickets(u64);

impl Tickets {
    /// The next number; the first is 1.
    pub fn draw(&mut self) -> u64 {
        // At a thousand a second this lasts for 500 million years.
        self.0 += 1;
        self.0
    }
}
