// SPDX-License-Identifier: MIT OR Apache-2.0
//! The client's side: from a request to its result.

use super::{ErrorCode, Request, CODE_MALFORMED, CODE_NO_REPLY, CODE_UNKNOWN};
use crate::error::Error;
use crate::payload::{Body, Payload, PayloadError};
use crate::port::Port;
use crate::timeout::Timeout;
use core::fmt;
use dvk_abi::{Endpoint, Message};

/// The calls that protocols are made of. A [`Port`] makes them in the kernel; a virtual OS in one
/// process, or a test, implements them by other means with the same meaning.
pub trait Ipc {
    /// Why a call fails.
    type Error;

    /// As [`Port::send`].
    ///
    /// # Errors
    /// As there.
    fn send(&self, to: Endpoint, message: &Message, timeout: Timeout) -> Result<(), Self::Error>;

    /// As [`Port::sendrec`].
    ///
    /// # Errors
    /// As there.
    fn sendrec(
        &self,
        to: Endpoint,
        message: &Message,
        timeout: Timeout,
    ) -> Result<Message, Self::Error>;

    /// As [`Port::reply`].
    ///
    /// # Errors
    /// As there.
    fn reply(&self, to: Endpoint, message: &Message) -> Result<(), Self::Error>;

    /// As [`Port::notify`].
    ///
    /// # Errors
    /// As there.
    fn notify(&self, to: Endpoint, bits: u64) -> Result<(), Self::Error>;

    /// Makes a request and waits for its result.
    ///
    /// # Errors
    /// [`CallError`]: the exchange failed, or the server refused.
    fn call<R: Request>(
        &self,
        server: Endpoint,
        request: &R,
        timeout: Timeout,
    ) -> Result<R::Reply, CallError<R::Error, Self::Error>> {
        let reply =
            self.sendrec(server, &request.message(), timeout).map_err(CallError::Exchange)?;
        read_reply::<R, _>(server, &reply)
    }

    /// Sends a message that has no reply, and waits until it is received.
    ///
    /// # Errors
    /// Those of [`send`](Self::send).
    fn tell<P: Payload>(
        &self,
        to: Endpoint,
        message: &P,
        timeout: Timeout,
    ) -> Result<(), Self::Error> {
        self.send(to, &message.message(), timeout)
    }
}

impl Ipc for Port {
    type Error = Error;

    fn send(&self, to: Endpoint, message: &Message, timeout: Timeout) -> Result<(), Error> {
        Self::send(self, to, message, timeout)
    }

    fn sendrec(&self, to: Endpoint, message: &Message, timeout: Timeout) -> Result<Message, Error> {
        Self::sendrec(self, to, message, timeout)
    }

    fn reply(&self, to: Endpoint, message: &Message) -> Result<(), Error> {
        Self::reply(self, to, message)
    }

    fn notify(&self, to: Endpoint, bits: u64) -> Result<(), Error> {
        Self::notify(self, to, bits)
    }
}

/// Why a request has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError<E, I = Error> {
    /// There was no exchange of messages.
    Exchange(I),
    /// The server refused, for a reason that the protocol names.
    Refused {
        /// The request's name.
        request: &'static str,
        /// The server.
        server: Endpoint,
        /// The reason.
        error: E,
    },
    /// The server refused, with a code that is not one of the protocol's errors.
    Code {
        /// The request's name.
        request: &'static str,
        /// The server.
        server: Endpoint,
        /// The status of the reply, such as [`CODE_UNKNOWN`].
        code: u32,
    },
    /// The server's reply is not one to this request.
    Reply {
        /// The request's name.
        request: &'static str,
        /// The server.
        server: Endpoint,
        /// What is wrong with it.
        error: PayloadError,
    },
}

impl<E: Copy, I> CallError<E, I> {
    /// The protocol's own reason, if the server gave one.
    pub fn refusal(&self) -> Option<E> {
        match self {
            Self::Refused { error, .. } => Some(*error),
            _ => None,
        }
    }
}

impl<E: fmt::Display, I: fmt::Display> fmt::Display for CallError<E, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exchange(error) => error.fmt(f),
            Self::Refused { request, server, error } => {
                write!(f, "`{request}` was refused by {server}: {error}")
            }
            Self::Code { request, server, code } => {
                write!(f, "`{request}` was refused by {server}: ")?;
                match *code {
                    CODE_UNKNOWN => f.write_str(
                        "it does not know the request; is it a server of this protocol and version?",
                    ),
                    CODE_MALFORMED => f.write_str("a field has no valid value"),
                    CODE_NO_REPLY => f.write_str("it is a message that has no reply"),
                    code => write!(f, "unknown error {code:#x}"),
                }
            }
            Self::Reply { request, server, error } => {
                write!(f, "the reply of {server} to `{request}` is none: {error}")
            }
        }
    }
}

impl<E, I> std::error::Error for CallError<E, I>
where
    E: fmt::Debug + fmt::Display,
    I: fmt::Debug + fmt::Display,
{
}

/// The result that `reply`, which answers a request of type `R` to `server`, carries.
///
/// # Errors
/// [`CallError`], but never [`CallError::Exchange`].
pub fn read_reply<R: Request, I>(
    server: Endpoint,
    reply: &Message,
) -> Result<R::Reply, CallError<R::Error, I>> {
    let request = R::NAME;
    let wrong = |error| CallError::Reply { request, server, error };
    if reply.kind != R::KIND {
        return Err(wrong(PayloadError::Kind { expected: R::KIND, found: reply.kind }));
    }
    match reply.flags {
        0 => R::Reply::view_of(reply).map_err(wrong),
        code => Err(match R::Error::from_code(code) {
            Some(error) => CallError::Refused { request, server, error },
            None => CallError::Code { request, server, code },
        }),
    }
}
