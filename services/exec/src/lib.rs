// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod frame;
mod request;

pub use frame::{Decoder, Fault, Frame, PAYLOAD_MAX};
pub use request::{Request, Size, User};
