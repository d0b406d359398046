// SPDX-License-Identifier: MIT OR Apache-2.0
//! The loop of a server: receive, handle, reply, in one kernel call per request.

use crate::error::Error;
use crate::port::{How, Port, Received};
use crate::timeout::Timeout;
use dvk_abi::errno::Errno;
use dvk_abi::{Endpoint, Message};

/// What a server does after it has looked at a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Answer the request and go on. After a `send` or a notification, which nobody waits to have
    /// answered, this is [`Continue`](Self::Continue).
    Reply(Message),
    /// Go on; if it was a request, its sender waits on until [`Port::reply`] is called for it.
    Continue,
    /// Leave the loop.
    Stop,
}

/// Receives messages from anybody and gives each to `handle`, until it says [`Then::Stop`]. It is
/// the main loop of a MINIX 3 server, with reply and receive in one call.
///
/// A client that is gone when its reply comes (it died, gave up, or its node is down) is its own
/// affair: the loop goes on. Signals do not end the loop either.
///
/// # Errors
/// Those of [`Port::receive`] from anybody, such as `ENOTCONN` when the container is destroyed.
pub fn serve(port: &Port, handle: impl FnMut(&Received) -> Then) -> Result<(), Error> {
    run(&mut &*port, handle)
}

/// The two calls the loop makes, so that it can be tested without a kernel.
trait Calls {
    type Error;

    fn receive(&mut self) -> Result<Received, Self::Error>;
    fn reply_receive(&mut self, to: Endpoint, reply: &Message) -> Result<Received, Self::Error>;
    fn is_interrupt(error: &Self::Error) -> bool;
}

impl Calls for &Port {
    type Error = Error;

    fn receive(&mut self) -> Result<Received, Error> {
        Port::receive(self, Endpoint::ANY, Timeout::Forever)
    }

    fn reply_receive(&mut self, to: Endpoint, reply: &Message) -> Result<Received, Error> {
        Port::reply_receive(self, to, reply, Endpoint::ANY, Timeout::Forever)
    }

    fn is_interrupt(error: &Error) -> bool {
        error.is(Errno::Interrupted)
    }
}

fn run<C: Calls>(calls: &mut C, mut handle: impl FnMut(&Received) -> Then) -> Result<(), C::Error> {
    let mut reply = None;
    loop {
        // Whatever `reply_receive` fails with, the reply has been given or never can be, so it is
        // the plain `receive` that finds out whether there is something wrong with the port.
        let received = match reply.take() {
            Some((to, message)) => calls.reply_receive(to, &message).or_else(|_| calls.receive()),
            None => calls.receive(),
        };
        let received = match received {
            Ok(received) => received,
            Err(error) if C::is_interrupt(&error) => continue,
            Err(error) => return Err(error),
        };
        match handle(&received) {
            Then::Reply(message) if received.how == How::Request => {
                reply = Some((received.source(), message));
            }
            Then::Reply(_) | Then::Continue => {}
            Then::Stop => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::num::NonZeroU32;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Failure {
        Interrupt,
        ClientGone,
        Unbound,
    }

    /// Plays what the kernel answers, and keeps what the loop called.
    #[derive(Default)]
    struct Script {
        answers: std::collections::VecDeque<Result<Received, Failure>>,
        calls: Vec<Option<(Endpoint, u32)>>,
    }

    impl Script {
        fn answer(&mut self) -> Result<Received, Failure> {
            self.answers.pop_front().expect("the loop makes no call beyond the script")
        }
    }

    impl Calls for Script {
        type Error = Failure;

        fn receive(&mut self) -> Result<Received, Failure> {
            self.calls.push(None);
            self.answer()
        }

        fn reply_receive(&mut self, to: Endpoint, reply: &Message) -> Result<Received, Failure> {
            self.calls.push(Some((to, reply.kind)));
            self.answer()
        }

        fn is_interrupt(error: &Failure) -> bool {
            *error == Failure::Interrupt
        }
    }

    /// How the loop ended, and its calls: with the reply, if they gave one.
    type Played = (Result<(), Failure>, Vec<Option<(Endpoint, u32)>>);

    fn peer(slot: u32) -> Endpoint {
        Endpoint::new(slot, NonZeroU32::MIN)
    }

    fn message(slot: u32, how: How, kind: u32) -> Result<Received, Failure> {
        Ok(Received { message: Message { source: peer(slot).raw(), ..Message::new(kind) }, how })
    }

    /// Replies to everything with its kind plus 100, and stops at kind 0.
    fn play(answers: impl IntoIterator<Item = Result<Received, Failure>>) -> Played {
        let mut script = Script { answers: answers.into_iter().collect(), ..Script::default() };
        let result = run(&mut script, |received| match received.message.kind {
            0 => Then::Stop,
            kind => Then::Reply(Message::new(kind + 100)),
        });
        assert!(script.answers.is_empty(), "the loop ended before the script did");
        (result, script.calls)
    }

    #[test]
    fn replies_to_requests_and_only_to_them() {
        let (result, calls) = play([
            message(64, How::Request, 1),
            message(65, How::Send, 2),
            message(66, How::Notify, 3),
            message(67, How::Request, 4),
            message(68, How::Request, 0),
        ]);
        assert_eq!(result, Ok(()));
        let (first, second) = (Some((peer(64), 101)), Some((peer(67), 104)));
        assert_eq!(calls, [None, first, None, None, second]);
    }

    #[test]
    fn a_client_that_is_gone_does_not_end_the_loop() {
        let (result, calls) = play([
            message(64, How::Request, 1),
            Err(Failure::ClientGone),
            message(65, How::Request, 2),
            message(66, How::Send, 0),
        ]);
        assert_eq!(result, Ok(()));
        assert_eq!(calls, [None, Some((peer(64), 101)), None, Some((peer(65), 102))]);
    }

    #[test]
    fn a_signal_neither_ends_the_loop_nor_repeats_a_reply() {
        let (result, calls) = play([
            Err(Failure::Interrupt),
            message(64, How::Request, 1),
            Err(Failure::Interrupt),
            Err(Failure::Interrupt),
            message(65, How::Send, 0),
        ]);
        assert_eq!(result, Ok(()));
        assert_eq!(calls, [None, None, Some((peer(64), 101)), None, None]);
    }

    #[test]
    fn an_unbound_port_ends_the_loop() {
        let script = [message(64, How::Request, 1), Err(Failure::Unbound), Err(Failure::Unbound)];
        let (result, calls) = play(script);
        assert_eq!(result, Err(Failure::Unbound));
        assert_eq!(calls, [None, Some((peer(64), 101)), None]);
    }
}
