// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod address;
pub mod link;
pub mod stream;
pub mod tcp;
pub mod udp;
