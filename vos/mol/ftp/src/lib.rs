// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod find;
mod listing;
mod names;
mod remote;

pub use self::listing::{list, table, Listed};
pub use self::names::{make_directory, remove};
pub use self::remote::Remote;
