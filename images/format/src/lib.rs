// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod cd;
pub mod disk;
pub mod uki;
pub mod volume;
