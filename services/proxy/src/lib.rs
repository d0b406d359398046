// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod address;
pub mod batch;
mod channel;
pub mod counters;
mod datagram;
pub mod gain;
pub mod link;
pub mod passage;
mod program;
pub mod protection;
pub mod quic;
pub mod settings;
pub mod tcp;
pub mod udp;

pub use program::main;
