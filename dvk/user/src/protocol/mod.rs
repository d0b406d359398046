// SPDX-License-Identifier: MIT OR Apache-2.0
//! Protocols: requests with their results and errors, declared once for servers and clients.
//!
//! [`protocol!`](crate::protocol!) makes a trait with one method for each request, which a server
//! implements, and a client with the same methods. Nothing in here waits or reads a clock, and all
//! but [`Ipc`] are pure functions of messages, so a server is tested, or linked into one process
//! with others, without a kernel.
//!
//! # In a message
//! A request is a message whose kind says which one it is, with `flags` 0 and the parameters as
//! its payload. Its reply has the same kind. In the reply, `flags` is the *status*: 0 for success,
//! with the result as the payload, else an error code with a payload of zeros. Codes from
//! [`RESERVED_CODES`] up are the same in every protocol; those below are the protocol's own. In
//! MINIX 3, too, a reply carries a status, in place of the type of the message.

mod call;
mod declare;
mod dispatch;

pub use self::call::{read_reply, CallError, Ipc};
pub use self::declare::are_kinds;
pub use self::dispatch::{
    refuse, take_message, take_notification, take_request, Answer, Caller, Reply,
};

use crate::payload::{Body, Payload};
use core::fmt;
use dvk_abi::errno::Errno;

/// Message kinds from here up are the DVK's own.
pub const RESERVED_KINDS: u32 = 0xffff_0000;
/// Error codes from here up have the same meaning in every protocol.
pub const RESERVED_CODES: u32 = 0xffff_0000;
/// Status: the server knows no request of this kind.
pub const CODE_UNKNOWN: u32 = 0xffff_0001;
/// Status: the bytes of a field of the request are no value of its type.
pub const CODE_MALFORMED: u32 = 0xffff_0002;
/// Status: the message is one that is sent without waiting for a reply.
pub const CODE_NO_REPLY: u32 = 0xffff_0003;

/// A request of a protocol: a payload with the types of what answers it.
pub trait Request: Payload {
    /// The result.
    type Reply: Body;
    /// Why the server may refuse.
    type Error: ErrorCode;
    /// The name it has in the protocol, for people.
    const NAME: &'static str;
}

/// The errors of a protocol, as the status of a reply has them. The macro
/// [`error_codes!`](crate::error_codes!) implements it; servers of a POSIX kind use [`Errno`].
pub trait ErrorCode: Copy + fmt::Debug + fmt::Display {
    /// The code: not 0, and below [`RESERVED_CODES`].
    fn code(self) -> u32;

    /// The error of this code, if it is one.
    fn from_code(code: u32) -> Option<Self>;
}

impl ErrorCode for Errno {
    fn code(self) -> u32 {
        self.raw().into()
    }

    fn from_code(code: u32) -> Option<Self> {
        Self::from_raw(u8::try_from(code).ok()?)
    }
}
