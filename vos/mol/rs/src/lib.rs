// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod asking;
pub mod board;
pub mod error;
pub mod manifest;
pub mod report;
pub mod run;
pub mod supervisor;
