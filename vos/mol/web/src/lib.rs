// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod conditions;
pub mod failover;
pub mod listing;
pub mod media;
pub mod range;
pub mod source;
pub mod target;
