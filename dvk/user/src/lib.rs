// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
//!
//! # Example
//!
//! A server that doubles numbers, and its client:
//!
//! ```no_run
//! use dvk::{payload, Payload, Port, Slot, Then, Timeout};
//!
//! payload! {
//!     /// A number, asked for or given back.
//!     pub struct Number: 0x100 {
//!         /// The number.
//!         pub value: u64,
//!     }
//! }
//!
//! fn server() -> Result<(), dvk::Error> {
//!     let port = Port::bind(0, Slot::Server(7))?;
//!     dvk::serve(&port, |request| match Number::view(&request.message) {
//!         Ok(number) => Then::Reply(Number { value: 2 * number.value }.message()),
//!         Err(_) => Then::Continue,
//!     })
//! }
//!
//! fn client(server: dvk::Endpoint) -> Result<u64, Box<dyn std::error::Error>> {
//!     let port = Port::bind(0, Slot::Any)?;
//!     let reply = port.sendrec(server, &Number { value: 21 }.message(), Timeout::Forever)?;
//!     Ok(Number::view(&reply)?.value)
//! }
//! ```
#![deny(unsafe_code)]

mod control;
mod error;
mod payload;
mod port;
pub mod raw;
mod server;
#[allow(unsafe_code)]
mod sys;
mod timeout;

pub use self::control::{Control, LinkState, Transport};
pub use self::error::{Call, Error, Subject};
pub use self::payload::{Field, Payload, PayloadError, PayloadReader, PayloadWriter};
pub use self::port::{device_path, Device, How, Port, Received, Slot};
pub use self::server::{serve, Then};
pub use self::timeout::Timeout;

pub use dvk_abi::errno::Errno;
pub use dvk_abi::ioctl::{DvsInit, Info, Lease, LinkInfo};
pub use dvk_abi::{Endpoint, Message};
