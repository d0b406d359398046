// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod dhcp;
pub mod files;
pub mod offer;
pub mod server;
pub mod station;
pub mod tftp;
