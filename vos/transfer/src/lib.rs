// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod frame;
mod local;
mod message;
mod raw;
mod stream;
mod tree;

pub use self::local::Local;
pub use self::message::{message, MESSAGE_MAX};
pub use self::raw::{read_from, Raw};
pub use self::stream::{unpack, Packer};
pub use self::tree::{name_of, pieces, About, Copied, Error, Sink, Top, Watched};
