// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod convert;
pub mod far;
mod gateway;
mod nodes;
pub mod run;

pub use self::gateway::{Gateway, GatewayError, FAR_BYTES};
