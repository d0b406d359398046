// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod cd;
pub mod disk;
mod fat32;
pub mod held;
pub mod mend;
pub mod root;
pub mod uki;
pub mod unasked;
pub mod volume;
pub mod watchdog;
