// SPDX-License-Identifier: MIT OR Apache-2.0
//! The server's side: from a received message to a method, and from what it returns to a reply.

use super::{ErrorCode, Ipc, Request, CODE_MALFORMED, CODE_NO_REPLY, CODE_UNKNOWN, RESERVED_CODES};
use crate::payload::{Body, Payload};
use crate::port::{How, Received};
use crate::server::Then;
use core::fmt;
use core::marker::PhantomData;
use dvk_abi::{Endpoint, Message};

/// What a handler says to a request: the result, now or later, or why there is none.
pub type Answer<R> = Result<Reply<<R as Request>::Reply>, <R as Request>::Error>;

/// When a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<T> {
    /// At once, with this result.
    Now(T),
    /// When the server calls [`Caller::answer`] or [`Caller::reply`]; its client waits until then.
    Later,
}

/// Who waits for the answer to a request of type `R`.
///
/// A handler that returns [`Reply::Later`] keeps it. Dropping it leaves the client waiting, until
/// it gives up or dies; answering a client that is gone changes nothing.
pub struct Caller<R> {
    endpoint: Endpoint,
    request: PhantomData<fn(R)>,
}

impl<R: Request> Caller<R> {
    /// The client.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// The reply with this answer, and whom to give it to.
    pub fn answer(self, answer: Result<R::Reply, R::Error>) -> (Endpoint, Message) {
        (self.endpoint, reply_with::<R>(answer))
    }

    /// Answers. Never waits.
    ///
    /// # Errors
    /// `EAGAIN` if the client is not waiting any more.
    pub fn reply<I: Ipc>(
        self,
        ipc: &I,
        answer: Result<R::Reply, R::Error>,
    ) -> Result<(), I::Error> {
        let (to, message) = self.answer(answer);
        ipc.reply(to, &message)
    }
}

impl<R> fmt::Debug for Caller<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Caller({})", self.endpoint)
    }
}

/// Gives a request to its handler. It must have the kind of `R`.
///
/// A request that was not sent by `sendrec` is dropped, for nobody waits for what it would do.
pub fn take_request<R: Request>(
    received: &Received,
    handler: impl FnOnce(Caller<R>, R) -> Answer<R>,
) -> Then {
    if received.how != How::Request {
        return Then::Continue;
    }
    let Ok(request) = R::view(&received.message) else {
        return Then::Reply(refusal(R::KIND, CODE_MALFORMED));
    };
    let caller = Caller { endpoint: received.source(), request: PhantomData };
    match handler(caller, request) {
        Ok(Reply::Now(reply)) => Then::Reply(reply_with::<R>(Ok(reply))),
        Ok(Reply::Later) => Then::Continue,
        Err(error) => Then::Reply(reply_with::<R>(Err(error))),
    }
}

/// Gives a message that has no reply to its handler. It must have the kind of `P`.
///
/// One that was sent by `sendrec` is refused with [`CODE_NO_REPLY`]; one with a field that has no
/// valid value is dropped.
pub fn take_message<P: Payload>(received: &Received, handler: impl FnOnce(Endpoint, P)) -> Then {
    match (received.how, P::view(&received.message)) {
        (How::Request, _) => return Then::Reply(refusal(P::KIND, CODE_NO_REPLY)),
        (How::Send, Ok(message)) => handler(received.source(), message),
        _ => {}
    }
    Then::Continue
}

/// Gives a notification's bits to their handler.
pub fn take_notification(received: &Received, handler: impl FnOnce(Endpoint, u64)) -> Then {
    if let Some(bits) = received.message.notify_bits() {
        handler(received.source(), bits);
    }
    Then::Continue
}

/// What becomes of a message that no protocol of the server knows: a request is refused with
/// [`CODE_UNKNOWN`], anything else is dropped.
pub fn refuse(received: &Received) -> Then {
    match received.how {
        How::Request => Then::Reply(refusal(received.message.kind, CODE_UNKNOWN)),
        _ => Then::Continue,
    }
}

fn reply_with<R: Request>(answer: Result<R::Reply, R::Error>) -> Message {
    match answer {
        Ok(reply) => reply.message_of(R::KIND),
        Err(error) => {
            let code = error.code();
            debug_assert!(code != 0 && code < RESERVED_CODES, "{error:?} has the code {code:#x}");
            refusal(R::KIND, code)
        }
    }
}

fn refusal(kind: u32, code: u32) -> Message {
    Message { flags: code, ..Message::new(kind) }
}
