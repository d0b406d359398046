// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
//!
//! # Example
//!
//! A program that changes something while it holds a lock:
//!
//! ```no_run
//! use dvk::{Port, Slot, Timeout};
//! use dvk_services::{Client, Lease, Line};
//!
//! fn work() -> Result<(), Box<dyn std::error::Error>> {
//!     let port = Port::open("/dev/dvk", Slot::Any)?;
//!     let client = Client::find(&port, Timeout::Forever)?;
//!     let lease: Lease = client.grant(10_000, "worker")?;
//!     let mut standing = client.acquire("table", lease, true)?;
//!     let fence = loop {
//!         match standing {
//!             Line::Holding { fence } => break fence,
//!             Line::Waiting { .. } => standing = client.await_lock("table", lease, 2_000)?,
//!         }
//!         client.keep_alive(lease)?;
//!     };
//!     println!("token {fence}");
//!     client.release("table", lease)?;
//!     Ok(())
//! }
//! ```
#![forbid(unsafe_code)]

mod client;
mod exchange;
mod question;
pub mod role;
mod watch;

pub use client::{Client, Direct, Error, Way};
pub use exchange::{
    read_answer, read_question, write_answer, Ask, Exchange, ExchangeClient, ExchangeError,
};
pub use question::{
    Answer, Change, Compare, Delivered, Delivery, Leader, Lease, Line, Operation, Pair, Passage,
    Question, Range, Reason, Refusal, Response, Subject, Transacted, Transaction, ANSWER_BYTES,
    GETS_MAX, QUESTION_BYTES_MAX, VALUE_BYTES_MAX, WAIT_MS_MAX,
};

pub use watch::watch;

/// The server slot at which a container's services answer, on every node.
pub const SLOT: u32 = 63;
