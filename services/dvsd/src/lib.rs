// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod agreement;
pub mod api;
pub mod beacon;
pub mod carrier;
pub mod daemon;
pub mod doors;
pub mod echo;
pub mod genl;
pub mod kernel;
pub mod kernel_log;
pub mod ledger;
pub mod links;
pub mod logs;
pub mod look;
pub mod machine;
pub mod membership;
pub mod metrics;
pub mod multicast;
pub mod netlink;
pub mod openapi;
pub mod orders;
pub mod orphans;
pub mod ping;
pub mod power;
pub mod proxies;
pub mod rates;
pub mod reconcile;
pub mod rejects;
pub mod report;
pub mod segment;
pub mod settings;
pub mod sightings;
pub mod status;
pub mod tipc;
