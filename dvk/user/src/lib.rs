// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
//!
//! # Example
//!
//! A server that doubles numbers, and its client:
//!
//! ```no_run
//! use dvk::protocol::{Answer, Caller, Reply::Now};
//! use dvk::{Endpoint, Errno, Port, Slot};
//!
//! dvk::protocol! {
//!     /// Arithmetic.
//!     pub trait Doubling: client DoublingClient, error Errno {
//!         /// Twice a number, or `EINVAL` if that is too large.
//!         fn double(Double = 0x100 {
//!             /// The number.
//!             value: u64,
//!         }) -> u64;
//!     }
//! }
//!
//! struct Doubler;
//!
//! impl Doubling for Doubler {
//!     fn double(&mut self, _: Caller<Double>, double: Double) -> Answer<Double> {
//!         Ok(Now(double.value.checked_mul(2).ok_or(Errno::Invalid)?))
//!     }
//! }
//!
//! fn server() -> Result<(), dvk::Error> {
//!     let port = Port::bind(0, Slot::Server(7))?;
//!     dvk::serve(&port, |received| Doubler.handle(received))
//! }
//!
//! fn client(server: Endpoint) -> Result<u64, Box<dyn std::error::Error>> {
//!     let port = Port::bind(0, Slot::Any)?;
//!     Ok(DoublingClient::new(&port, server).double(&Double { value: 21 })?)
//! }
//! ```
#![deny(unsafe_code)]

#[cfg(feature = "async")]
pub mod asynchronous;
mod control;
mod device;
mod error;
mod grant;
mod migration;
mod payload;
mod port;
pub mod protocol;
mod proxy;
pub mod raw;
mod server;
#[allow(unsafe_code)]
mod sys;
mod timeout;

#[cfg(feature = "async")]
pub use self::asynchronous::{AsyncCalls, AsyncPort};
pub use self::control::{Control, Limits, LinkState, Protocol, Transport};
pub use self::device::{device_path, Device, Slot};
pub use self::error::{Call, Error, Subject};
pub use self::grant::{Access, CopyError, GrantId, Granted, Loan};
pub use self::migration::Migration;
pub use self::payload::{Body, Field, Payload, PayloadError, PayloadReader, PayloadWriter};
pub use self::port::{How, Port, Received};
pub use self::protocol::{CallError, Ipc};
pub use self::proxy::Frames;
pub use self::server::{serve, Then};
pub use self::timeout::Timeout;

pub use dvk_abi as abi;
pub use dvk_abi::errno::Errno;
pub use dvk_abi::ioctl::{DvsInit, Event, Info, Lease, LinkInfo, Privileges};
pub use dvk_abi::{Endpoint, Message};
