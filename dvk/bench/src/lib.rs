// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod order;
mod record;

pub use self::order::{Answer, Carrier, Order, Server, Work, PAIRS_MAX};
pub use self::record::{Line, Mechanism, Placement, Policy, Record, Task, Unit, MARK};
