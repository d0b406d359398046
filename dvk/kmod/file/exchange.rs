// SPDX-License-Identifier: GPL-2.0
//! The calls that exchange messages.

use super::super::abi::errno::Errno;
use super::super::abi::ioctl::Exchange;
use super::super::abi::wire::record::Step;
use super::super::abi::{Endpoint, Message};
use super::super::container::Target;
use super::super::local_port::{LocalPort, Rest, Timeout};
use super::super::rules::port::{Filter, Mode, Outcome, Peer, PeerCall, Receive};
use super::super::sys::{Sleeper, SoftirqsHeld};
use super::super::uapi::{Argument, ExchangeArgument};
use super::ContainerFile;
use core::mem::MaybeUninit;
use kernel::sync::Arc;

impl ContainerFile {
    /// `send` and `sendrec`.
    pub(super) fn send(&self, argument: Argument, mode: Mode) -> Result<(), Errno> {
        let argument = ExchangeArgument(argument);
        let mut block = MaybeUninit::uninit();
        let block = argument.read(&mut block, mode == Mode::Request)?;
        let to = Endpoint::from_raw(block.peer);
        let timeout = Timeout::from_ns(block.timeout_ns);
        if mode == Mode::Request && timeout == Timeout::Never {
            // No reply can be there at once, and a request must not be left with the peer.
            return Err(match self.port_and_target(to) {
                Ok(_) | Err(Errno::Moved) => Errno::WouldBlock,
                Err(error) => error,
            });
        }
        let mut seen = None;
        let outcome = loop {
            match self.try_send(to, mode, timeout, &mut block.message) {
                // Nobody has got the message, so it is sent anew, in its turn.
                Ok(Outcome::Failed(Errno::Moved)) | Err(Errno::Moved) => {
                    self.await_settled(to, &mut seen, timeout)?;
                }
                // It was looked up before; another one may be left of it.
                Ok(Outcome::Failed(Errno::Stale)) if self.forget(to) => {}
                outcome => break outcome,
            }
        };
        match outcome? {
            Outcome::Received { how } => {
                block.how = how;
                argument.write(block)
            }
            Outcome::Failed(error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Sends to where the peer is known to be.
    fn try_send(
        &self,
        to: Endpoint,
        mode: Mode,
        timeout: Timeout,
        message: &mut Message,
    ) -> Result<Outcome, Errno> {
        // From before the peer is looked up until it has the step, a move of it cannot begin.
        let held = SoftirqsHeld::new();
        let (port, target) = self.port_and_target(to)?;
        let peer = self.container.peer(to, &target);
        match &target {
            Target::Local(server) => {
                self.send_here(held, &port, server, peer, mode, timeout, message)
            }
            Target::Remote(_) => self.send_away(held, &port, &target, peer, mode, timeout, message),
        }
    }

    /// To an endpoint on this node.
    #[expect(clippy::too_many_arguments, reason = "the hot path, split where it forks")]
    fn send_here(
        &self,
        held: SoftirqsHeld,
        port: &LocalPort,
        server: &LocalPort,
        peer: Peer,
        mode: Mode,
        timeout: Timeout,
        message: &mut Message,
    ) -> Result<Outcome, Errno> {
        let rest = server.rest_of_partner();
        let (call, _) = port.begin(&held, rest, |state| {
            let call = state.begin_send(peer, mode)?;
            Ok((call, Some(call)))
        })?;
        let me = Peer { endpoint: port.endpoint(), node: self.container.local() };
        let (effect, wake) = server.arrive(&held, PeerCall { peer: me, call }, mode, message);
        if let Some(answer) = effect.answer {
            port.take_answer(peer, call, answer);
        } else if effect.readable && self.container.closes_cycle(port) {
            if let Some(answer) = server.apply(me, &Step::Cancel { call }).answer {
                port.take_answer(peer, call, answer);
            }
            port.fail(call, Errno::Deadlock);
        }
        Ok(port.wait(held, wake, (call, rest), timeout, message, |open| self.cancel(port, open)))
    }

    /// To an endpoint on another node.
    #[expect(clippy::too_many_arguments, reason = "as above")]
    fn send_away(
        &self,
        held: SoftirqsHeld,
        port: &LocalPort,
        target: &Target,
        peer: Peer,
        mode: Mode,
        timeout: Timeout,
        message: &mut Message,
    ) -> Result<Outcome, Errno> {
        let (call, _) = port.begin(&held, Rest::Sleep, |state| {
            let call = state.begin_send(peer, mode)?;
            Ok((call, Some(call)))
        })?;
        let step = mode.step(call, message);
        self.ask(port, peer, target, call, &step);
        Ok(self.finish(port, held, call, timeout, message))
    }

    pub(super) fn reply(&self, argument: Argument) -> Result<(), Errno> {
        let mut block = MaybeUninit::uninit();
        let block = ExchangeArgument(argument).read(&mut block, false)?;
        let (port, target) = self.port_and_client(Endpoint::from_raw(block.peer))?;
        let held = SoftirqsHeld::new();
        let client = port.with_in(&held, |state| state.reply(Endpoint::from_raw(block.peer)))?;
        if let Some(sleeper) = self.give_reply(&held, &port, target, client, &block.message) {
            sleeper.wake(&held);
        }
        Ok(())
    }

    /// Gives a reply; if that is to wake a thread here, says which.
    fn give_reply(
        &self,
        held: &SoftirqsHeld,
        port: &LocalPort,
        target: Option<Arc<LocalPort>>,
        client: PeerCall,
        message: &Message,
    ) -> Option<Sleeper> {
        if client.peer.node != self.container.local() {
            let step = Step::Reply { call: client.call, message: *message };
            self.container.tell(port.endpoint(), client.peer, &step);
            return None;
        }
        // A client that is gone meanwhile needs no reply.
        let me = Peer { endpoint: port.endpoint(), node: self.container.local() };
        let reply = PeerCall { peer: me, call: client.call };
        match target?.answered(held, reply, message) {
            (true, sleeper) => sleeper,
            _ => self.give_reply_again(held, client.peer.endpoint, reply, message),
        }
    }

    /// Gives a reply that the port known of the client did not take: it may have moved away and come
    /// back, and is another one since.
    #[cold]
    fn give_reply_again(
        &self,
        held: &SoftirqsHeld,
        client: Endpoint,
        reply: PeerCall,
        message: &Message,
    ) -> Option<Sleeper> {
        let Ok(Target::Local(port)) = self.container.route_in(held, client) else { return None };
        self.remember(&port);
        port.answered(held, reply, message).1
    }

    /// `receive`, `receive_request` and `reply_receive`.
    pub(super) fn receive(
        &self,
        argument: Argument,
        mut replies: bool,
        requests_only: bool,
    ) -> Result<(), Errno> {
        let argument = ExchangeArgument(argument);
        let mut block = MaybeUninit::uninit();
        let block = argument.read(&mut block, true)?;
        let timeout = Timeout::from_ns(block.timeout_ns);
        let mut seen = None;
        loop {
            match self.try_receive(block, &mut replies, requests_only, timeout) {
                // The only source has moved, or moves.
                Err(Errno::Moved) => {
                    self.await_settled(Endpoint::from_raw(block.from), &mut seen, timeout)?;
                }
                other => {
                    other?;
                    return argument.write(block);
                }
            }
        }
    }

    /// Receives from where the source is known to be. Of several tries, the first one `replies`.
    fn try_receive(
        &self,
        block: &mut Exchange,
        replies: &mut bool,
        requests_only: bool,
        timeout: Timeout,
    ) -> Result<(), Errno> {
        let replies = core::mem::take(replies);
        let to = Endpoint::from_raw(block.peer);
        let (port, client) = if replies { self.port_and_client(to)? } else { (self.port()?, None) };
        let from = Endpoint::from_raw(block.from);
        // The source's node is known from here on, so that the wait ends when it goes down.
        let source = if from == Endpoint::ANY { Ok(None) } else { self.source(from).map(Some) };
        let rest = client.as_ref().map_or(Rest::Sleep, |client| client.rest_of_partner());

        let held = SoftirqsHeld::new();
        let (mut answered, mut received) = (None, None);
        let begun = port.begin(&held, rest, |state| {
            if replies {
                answered = Some(state.reply(to)?);
            }
            let source = source.as_ref().map_err(|error| *error)?;
            let from = source.as_ref().map(|(peer, _)| *peer);
            let begun = state.begin_receive(Filter { from, requests_only })?;
            if let Receive::Wait { call } = begun {
                return Ok((begun, Some(call)));
            }
            received = Some(*state.message());
            Ok((begun, None))
        });
        // What was to be answered is, whatever becomes of the receive.
        let wake = answered
            .and_then(|answered| self.give_reply(&held, &port, client, answered, &block.message));
        let begun = match begun {
            Ok((Receive::Wait { call }, _)) => Ok(Begun::Wait(call)),
            Ok((Receive::Done { how, accepted }, _)) => Ok(Begun::Done(how, accepted)),
            Err(error) => Err(error),
        };
        match begun {
            Ok(Begun::Wait(call)) => {
                if let Ok(Some((peer, target))) = source {
                    if timeout != Timeout::Never {
                        // Only the source can end the call, so it is to say when it dies.
                        self.ask(&port, peer, &target, call, &Step::Watch { call });
                    }
                }
                let cancel = |open| self.cancel(&port, open);
                let message = &mut block.message;
                match port.wait(held, wake, (call, rest), timeout, message, cancel) {
                    Outcome::Received { how } => block.how = how,
                    Outcome::Failed(error) => return Err(error),
                    _ => return Err(Errno::Invalid),
                }
            }
            Ok(Begun::Done(how, accepted)) => {
                if let Some(sleeper) = wake {
                    sleeper.wake(&held);
                }
                if let Some(PeerCall { peer, call }) = accepted {
                    self.container.tell(port.endpoint(), peer, &Step::Accepted { call });
                }
                block.how = how;
                if let Some(message) = received {
                    block.message = message;
                }
            }
            Err(error) => {
                if let Some(sleeper) = wake {
                    sleeper.wake(&held);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// The peer that `from` is, and where.
    pub(super) fn source(&self, from: Endpoint) -> Result<(Peer, Target), Errno> {
        let target = self.container.route(from)?;
        Ok((self.container.peer(from, &target), target))
    }

    /// Gives `peer` a step of the open call, and the call what comes of it.
    pub(super) fn ask(
        &self,
        port: &LocalPort,
        peer: Peer,
        target: &Target,
        call: u32,
        step: &Step,
    ) {
        let open = || port.is_open(call);
        match self.container.give(port.endpoint(), target, peer.endpoint, step, open) {
            Ok(Some(answer)) => port.take_answer(peer, call, answer),
            Ok(None) => {}
            Err(error) => port.fail(call, error),
        }
    }

    /// Asks the peer of an open call to let go of it: the peer that the call remembers, wherever
    /// the endpoint may be by now. One that is gone has said already how the call ended.
    fn cancel(&self, port: &LocalPort, PeerCall { peer, call }: PeerCall) {
        if let Some(answer) = self.container.tell(port.endpoint(), peer, &Step::Cancel { call }) {
            port.take_answer(peer, call, answer);
        }
    }

    /// Waits for the end of a call whose partner does not need this CPU.
    pub(super) fn finish(
        &self,
        port: &LocalPort,
        held: SoftirqsHeld,
        call: u32,
        timeout: Timeout,
        message: &mut Message,
    ) -> Outcome {
        let cancel = |open| self.cancel(port, open);
        port.wait(held, None, (call, Rest::Sleep), timeout, message, cancel)
    }
}

/// How a `receive` began.
enum Begun {
    /// It waits in this call.
    Wait(u32),
    /// It is over: how the message was sent, and whose `send` it was.
    Done(u32, Option<PeerCall>),
}
