// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls that give up: timeouts and signals.

use super::Case;
use crate::blocked::{blocked, until};
use crate::cast::{Cast, Party};
use crate::check::{equal, fails};
use crate::wish::{self, Outcome, Wish};
use anyhow::Result;
use core::time::Duration;
use dvk::{Endpoint, Errno, Message, Timeout};
use std::sync::Arc;
use std::time::Instant;

pub(super) const CASES: &[Case] = &[
    Case::both("timeout-zero-never-waits", zero),
    Case::both("timeout-zero-takes-what-is-there", zero_succeeds),
    Case::both("timeout-zero-sendrec-transfers-nothing", zero_sendrec),
    Case::both("timeout-over-is-etimedout", over),
    Case::toward("timeout-negative-is-forever", forever),
    Case::both("timed-out-message-is-withdrawn", withdrawn),
    Case::both("late-reply-is-eagain", late_reply),
    Case::both("late-reply-never-answers-the-next-call", late_reply_next),
    Case::both("signal-is-eintr", signal),
    Case::both("signal-withdraws-the-message", signal_withdraws),
];

const SHORT: Duration = Duration::from_millis(50);

fn message() -> Message {
    Message::new(1)
}

fn zero(cast: &Cast) -> Result<()> {
    let (port, peer) = (cast.near()?, cast.far()?);
    let (to, no_wait) = (peer.endpoint(), Timeout::NoWait);
    fails("send", port.send(to, &message(), no_wait), Errno::WouldBlock)?;
    fails("sendrec", port.sendrec(to, &message(), no_wait), Errno::WouldBlock)?;
    fails("receive from any", port.receive(Endpoint::ANY, no_wait), Errno::WouldBlock)?;
    fails("receive", port.receive(to, no_wait), Errno::WouldBlock)?;
    let request = port.receive_request(Endpoint::ANY, no_wait);
    fails("receive_request", request, Errno::WouldBlock)?;
    cast.settle()?;
    peer.is_empty()
}

fn zero_succeeds(cast: &Cast) -> Result<()> {
    let (receiver, sender) = (cast.near()?, cast.far()?);
    let to = receiver.endpoint();
    let receive = receiver.begin(wish::receive(Endpoint::ANY, Timeout::Forever))?;
    if cast.is_between_nodes() {
        // Whether the peer waits is known on its node, and that takes waiting: either is right, but
        // both ends must say the same.
        match sender.send(to, &message(), Timeout::NoWait) {
            Ok(()) => {}
            Err(failed) if failed.errno() == Some(Errno::WouldBlock) => {
                cast.settle()?;
                receive.waits("receive after a send that was withdrawn")?;
                sender.send(to, &message(), Timeout::Forever)?;
            }
            Err(failed) => return Err(failed.into()),
        }
    } else {
        sender.send(to, &message(), Timeout::NoWait)?;
    }
    receive.join("receive to end")??;
    let send = sender.begin(wish::send(to, &message(), Timeout::Forever))?;
    cast.settle()?;
    receiver.take(Endpoint::ANY)?;
    send.join("send to end")??;
    Ok(())
}

fn zero_sendrec(cast: &Cast) -> Result<()> {
    let (server, client) = (cast.near()?, cast.far()?);
    let receive = server.begin(wish::receive(Endpoint::ANY, Timeout::Forever))?;
    let sendrec = client.sendrec(server.endpoint(), &message(), Timeout::NoWait);
    fails("sendrec to a waiting server", sendrec, Errno::WouldBlock)?;
    cast.settle()?;
    receive.waits("receive after a sendrec without time")?;
    client.notify(server.endpoint(), 1)?;
    equal("notification", receive.join("receive to end")??.message.notify_bits(), Some(1))
}

fn over(cast: &Cast) -> Result<()> {
    fn gives_up<T: Outcome + core::fmt::Debug>(
        party: &Party,
        what: &str,
        w: Wish<T>,
    ) -> Result<()> {
        // The clock runs before the call begins, and on this node, whose clock is as good as any.
        let begin = Instant::now();
        fails(what, party.call(w), Errno::TimedOut)?;
        let took = begin.elapsed();
        anyhow::ensure!(took >= SHORT, "{what} gave up after {took:?}, {SHORT:?} were given");
        Ok(())
    }
    let (port, peer) = (cast.near()?, cast.far()?);
    let (to, short) = (peer.endpoint(), Timeout::After(SHORT));
    gives_up(&port, "send", wish::send(to, &message(), short))?;
    gives_up(&port, "sendrec", wish::sendrec(to, &message(), short))?;
    gives_up(&port, "receive from any", wish::receive(Endpoint::ANY, short))?;
    gives_up(&port, "receive", wish::receive(to, short))?;
    gives_up(&port, "receive_request", wish::receive_request(to, short))
}

fn forever(cast: &Cast) -> Result<()> {
    let (receiver, sender) = (Arc::new(cast.port()?), cast.far()?);
    for timeout_ns in [-1, -2, i64::MIN] {
        let port = Arc::clone(&receiver);
        let receive = blocked(move || {
            let mut block = dvk_abi::ioctl::Exchange {
                from: Endpoint::ANY.raw(),
                timeout_ns,
                ..Default::default()
            };
            dvk::raw::call::<{ dvk_abi::ioctl::RECEIVE }, _>(&*port, &mut block)
        })?;
        receive.waits("receive without limit")?;
        sender.notify(receiver.endpoint(), 1)?;
        receive.join("receive to end")??;
    }
    Ok(())
}

fn withdrawn(cast: &Cast) -> Result<()> {
    let (receiver, sender) = (cast.near()?, cast.far()?);
    let (to, short) = (receiver.endpoint(), Timeout::After(SHORT));
    fails("send", sender.send(to, &message(), short), Errno::TimedOut)?;
    fails("sendrec", sender.sendrec(to, &message(), short), Errno::TimedOut)?;
    equal("senders", receiver.info()?.senders, 0)?;
    receiver.is_empty()
}

/// A client whose request was received and then timed out.
fn gave_up(cast: &Cast) -> Result<(Party, Party)> {
    let (server, client) = (cast.near()?, cast.far()?);
    // Long enough for the request to be received before.
    let short = Timeout::from_millis(if cast.is_between_nodes() { 1_500 } else { 300 });
    let request = client.begin(wish::sendrec(server.endpoint(), &message(), short))?;
    server.receive(Endpoint::ANY, Timeout::Forever)?;
    fails("sendrec", request.join("sendrec to time out")?, Errno::TimedOut)?;
    Ok((server, client))
}

fn late_reply(cast: &Cast) -> Result<()> {
    let (server, client) = gave_up(cast)?;
    fails("reply", server.reply(client.endpoint(), &Message::new(2)), Errno::WouldBlock)?;
    equal("clients", server.info()?.clients, 0)?;
    cast.settle()?;
    client.is_empty()
}

fn late_reply_next(cast: &Cast) -> Result<()> {
    let (server, client) = gave_up(cast)?;
    let (to, from) = (server.endpoint(), client.endpoint());
    let next = client.begin(wish::sendrec(to, &Message::new(3), Timeout::Forever))?;
    cast.settle()?;
    fails("reply", server.reply(from, &Message::new(2)), Errno::WouldBlock)?;
    next.waits("the next sendrec after a late reply")?;
    equal("kind", server.take(from)?.message.kind, 3)?;
    server.reply(from, &Message::new(4))?;
    equal("kind of the reply", next.join("sendrec to end")??.kind, 4)
}

/// Interrupts a process in a call until that is over, which ends as `EINTR`. More than one signal
/// may be needed: one that comes before the call has begun interrupts nothing.
fn interrupt<T: Outcome + core::fmt::Debug>(cast: &Cast, what: &str, wish: Wish<T>) -> Result<()> {
    let (puppet, party) = cast.near_puppet()?;
    puppet.catch_signals()?;
    let call = party.begin(wish)?;
    until("a signal to end the call", || {
        if call.is_over() {
            return Ok(true);
        }
        puppet.interrupt()?;
        std::thread::sleep(Duration::from_millis(20));
        Ok(false)
    })?;
    fails(what, call.join(what)?, Errno::Interrupted)
}

fn signal(cast: &Cast) -> Result<()> {
    let peer = cast.far()?;
    let (to, forever) = (peer.endpoint(), Timeout::Forever);
    interrupt(cast, "receive from any", wish::receive(Endpoint::ANY, forever))?;
    interrupt(cast, "receive", wish::receive(to, forever))?;
    interrupt(cast, "send", wish::send(to, &message(), forever))?;
    interrupt(cast, "sendrec", wish::sendrec(to, &message(), forever))
}

fn signal_withdraws(cast: &Cast) -> Result<()> {
    let peer = cast.far()?;
    let to = peer.endpoint();
    interrupt(cast, "send", wish::send(to, &message(), Timeout::Forever))?;
    peer.is_empty()?;
    interrupt(cast, "sendrec", wish::sendrec(to, &message(), Timeout::Forever))?;
    peer.is_empty()
}
