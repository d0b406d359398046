// SPDX-License-Identifier: GPL-2.0 OR MIT
//! What the DVK and everything that talks to it agree on.
//!
//! Messages, endpoint values, ioctl numbers and argument blocks, and the format of what nodes send
//! each other. Each is defined here and nowhere else; the same files are compiled into the kernel
//! (mounted as a module of the `dvk` driver) and into every program on the host and in the image.
//! The crate holds data types and codecs only: no state, no I/O, no allocation, no `unsafe`.
#![cfg_attr(not(CONFIG_DVK), no_std)]
#![forbid(unsafe_code)]
#![cfg_attr(CONFIG_DVK, allow(dead_code, unreachable_pub))]

pub mod endpoint;
pub mod errno;
pub mod ioctl;
pub mod limits;
pub mod message;
pub mod wire;

pub use self::endpoint::Endpoint;
pub use self::message::Message;
