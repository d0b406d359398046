// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod block;
pub mod directory;
mod errno;
pub mod file;
mod record;
pub mod replica;
pub mod segment;

pub use self::errno::Errno;
