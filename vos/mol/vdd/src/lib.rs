// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod board;
pub mod client;
pub mod export;
pub mod feeder;
pub mod ledger;
pub mod lend;
pub mod nbd;
pub mod replica;
pub mod run;
pub mod server;
pub mod store;
#[cfg(feature = "ublk")]
pub mod ublk;
