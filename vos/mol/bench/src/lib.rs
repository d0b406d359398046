// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod order;
mod pattern;

pub use self::order::{Answer, Order, Place, Server, Transfer, Work};
pub use self::pattern::Pattern;
