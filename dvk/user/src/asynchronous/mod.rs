// SPDX-License-Identifier: MIT OR Apache-2.0
//! Endpoints in asynchronous programs, on tokio. Needs the feature `async`.
//!
//! What can be said by readiness is: a *server* receives when its file polls readable, and neither
//! `reply` nor `notify` waits. [`AsyncPort`] is that. It takes no thread, and a future of it may be
//! dropped at any time: a message is taken out of the kernel in the same poll that returns it.
//!
//! `send` and `sendrec` cannot be said by readiness. The kernel holds one message of an endpoint
//! at a time, together with the thread that waits for its fate, and an endpoint that waits for a
//! reply receives nothing else meanwhile; so a program that is to wait for several replies at once
//! has several endpoints. [`AsyncCalls`] keeps a stock of them, and makes each call on one of its
//! own, on a thread for blocking calls. Dropping the future of a call *unbinds its endpoint*: the
//! kernel withdraws the message if it was not received, tells a server that received it that the
//! client is gone, and the thread returns at once. To the server it is what it would see if a
//! client that was a process of its own had been killed; to the program, no call goes on that
//! nobody waits for, and the runtime can shut down.
//!
//! The other ways were worse: to interrupt the thread by a signal takes a handler of the whole
//! process, and comes to nothing if it arrives just before the call; to let the call finish keeps a
//! thread, and the end of the runtime, waiting for a server that may never answer; and to make it
//! in slices of time sends a request twice that was received in the first.

mod calls;
mod port;

pub use self::calls::AsyncCalls;
pub use self::port::AsyncPort;

use crate::error::{Call, Error, Subject};

/// The runtime ends, and so does whatever waits in it.
fn shut_down(call: Call) -> Error {
    let errno = rustix::io::Errno::CANCELED;
    Error { call, subject: Subject::None, container: None, errno }
}
