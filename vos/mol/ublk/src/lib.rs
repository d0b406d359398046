// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

pub mod abi;
mod device;
mod queue;
#[allow(unsafe_code)]
mod sys;

pub use self::abi::{Operation, Request, Traits};
pub use self::device::{Device, UblkError};
pub use self::queue::{Queue, Taken};
