// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The rules of the DVK as pure state machines.
//!
//! Rendezvous ([`port`]), the endpoint table ([`table`]), grants ([`grants`]), copies between nodes
//! ([`transfer`]), the link protocol ([`link`]) and the tables that people read ([`report`]), without
//! I/O, clock, randomness, allocation or `unsafe`: time and storage are arguments. The kernel
//! mounts the same files as a module of the `dvk` driver; every rule is tested here, on the host,
//! in seconds.
#![cfg_attr(not(CONFIG_DVK), no_std)]
#![forbid(unsafe_code)]
#![cfg_attr(CONFIG_DVK, allow(dead_code, unreachable_pub))]

#[cfg(CONFIG_DVK)]
pub(crate) use super::abi;
#[cfg(not(CONFIG_DVK))]
pub use dvk_abi as abi;

pub mod event_log;
pub mod fifo;
pub mod grants;
pub mod link;
pub mod migration;
pub mod port;
pub mod privilege;
pub mod report;
pub mod spin;
pub mod table;
pub mod transfer;
pub mod waiters;
