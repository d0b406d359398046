// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod call;
pub mod complaint;
pub mod grammar;
pub mod host;
pub mod hostile;
pub mod link;
pub mod program;
pub mod rng;
mod wire;
