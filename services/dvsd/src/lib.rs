// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod admission;
pub mod agreement;
pub mod api;
pub mod beacon;
pub mod boot;
pub mod carrier;
pub mod configuration;
pub mod containers;
pub mod daemon;
pub mod doors;
pub mod echo;
pub mod endpoints;
pub mod genl;
pub mod images;
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
pub mod net;
pub mod netboot;
pub mod netlink;
pub mod openapi;
pub mod orders;
pub mod orphans;
pub mod peers;
pub mod ping;
pub mod power;
mod program;
pub mod proxies;
pub mod rates;
pub mod reconcile;
pub mod rejects;
pub mod relay;
pub mod release;
pub mod report;
pub mod segment;
pub mod services;
pub mod settings;
pub mod sightings;
pub mod status;
pub mod tipc;
pub mod trial;
pub mod upgrades;

pub use program::main;
