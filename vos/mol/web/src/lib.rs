// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod answer;
mod body;
pub mod conditions;
pub mod failover;
pub mod listing;
pub mod media;
pub mod pool;
pub mod range;
pub mod run;
pub mod server;
pub mod source;
mod stream;
pub mod target;
