// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod bitmap;
mod cache;
pub mod client;
pub mod disk;
mod error;
pub mod format;
pub mod run;
pub mod server;
pub mod volume;

pub use self::error::{Damage, Error};
pub use self::volume::Volume;
