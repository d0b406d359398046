// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod frame;
mod host;
mod node;

pub use self::host::{Event, Program};
pub use self::node::serve;

/// The TCP port on which the agent of a node listens.
pub const PORT: u16 = 7790;
