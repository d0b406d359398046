// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod record;

pub use self::record::{Line, Mechanism, Placement, Policy, Record, Task, Unit, MARK};
