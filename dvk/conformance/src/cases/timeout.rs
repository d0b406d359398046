// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls that give up: timeouts and signals.

use super::exchange::{bind_shared, take};
use super::Case;
use crate::blocked::{blocked, until};
use crate::check::{equal, fails};
use crate::dvs::{self, HOME};
use crate::puppet::{Answer, Order, Puppet};
use anyhow::{ensure, Result};
use core::time::Duration;
use dvk::{Endpoint, Errno, Message, Timeout};
use std::sync::Arc;
use std::time::Instant;

pub(super) const CASES: &[Case] = &[
    Case::new("timeout-zero-never-waits", zero),
    Case::new("timeout-zero-takes-what-is-there", zero_succeeds),
    Case::new("timeout-zero-sendrec-transfers-nothing", zero_sendrec),
    Case::new("timeout-over-is-etimedout", over),
    Case::new("timeout-negative-is-forever", forever),
    Case::new("timed-out-message-is-withdrawn", withdrawn),
    Case::new("late-reply-is-eagain", late_reply),
    Case::new("late-reply-never-answers-the-next-call", late_reply_next),
    Case::new("signal-is-eintr", signal),
    Case::new("signal-withdraws-the-message", signal_withdraws),
];

const SHORT: Duration = Duration::from_millis(50);

fn message() -> Message {
    Message::new(1)
}

fn zero() -> Result<()> {
    let (port, peer) = (dvs::bind()?, dvs::bind()?);
    let (to, no_wait) = (peer.endpoint(), Timeout::NoWait);
    fails("send", port.send(to, &message(), no_wait), Errno::WouldBlock)?;
    fails("sendrec", port.sendrec(to, &message(), no_wait), Errno::WouldBlock)?;
    fails("receive from any", port.receive(Endpoint::ANY, no_wait), Errno::WouldBlock)?;
    fails("receive", port.receive(to, no_wait), Errno::WouldBlock)?;
    let request = port.receive_request(Endpoint::ANY, no_wait);
    fails("receive_request", request, Errno::WouldBlock)?;
    fails("what the peer got", peer.receive(Endpoint::ANY, no_wait), Errno::WouldBlock)
}

fn zero_succeeds() -> Result<()> {
    let (receiver, sender) = (bind_shared()?, dvs::bind()?);
    let port = Arc::clone(&receiver);
    let receive = blocked(move || port.receive(Endpoint::ANY, Timeout::Forever))?;
    sender.send(receiver.endpoint(), &message(), Timeout::NoWait)?;
    receive.join("receive to end")??;
    let to = receiver.endpoint();
    let send = blocked(move || sender.send(to, &message(), Timeout::Forever).map(|()| sender))?;
    receiver.receive(Endpoint::ANY, Timeout::NoWait)?;
    send.join("send to end")??;
    Ok(())
}

fn zero_sendrec() -> Result<()> {
    let (server, client) = (bind_shared()?, dvs::bind()?);
    let port = Arc::clone(&server);
    let receive = blocked(move || port.receive(Endpoint::ANY, Timeout::Forever))?;
    let sendrec = client.sendrec(server.endpoint(), &message(), Timeout::NoWait);
    fails("sendrec to a waiting server", sendrec, Errno::WouldBlock)?;
    receive.waits("receive after a sendrec without time")?;
    client.notify(server.endpoint(), 1)?;
    equal("notification", receive.join("receive to end")??.message.notify_bits(), Some(1))
}

fn over() -> Result<()> {
    let (port, peer) = (dvs::bind()?, dvs::bind()?);
    let (to, short) = (peer.endpoint(), Timeout::After(SHORT));
    type Call<'c> = (&'static str, &'c dyn Fn() -> Result<(), dvk::Error>);
    let calls: [Call<'_>; 5] = [
        ("send", &|| port.send(to, &message(), short)),
        ("sendrec", &|| port.sendrec(to, &message(), short).map(drop)),
        ("receive from any", &|| port.receive(Endpoint::ANY, short).map(drop)),
        ("receive", &|| port.receive(to, short).map(drop)),
        ("receive_request", &|| port.receive_request(to, short).map(drop)),
    ];
    for (what, call) in calls {
        let begin = Instant::now();
        fails(what, call(), Errno::TimedOut)?;
        let took = begin.elapsed();
        ensure!(took >= SHORT, "{what} gave up after {took:?}, {SHORT:?} were given");
    }
    Ok(())
}

fn forever() -> Result<()> {
    let (receiver, sender) = (bind_shared()?, dvs::bind()?);
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

fn withdrawn() -> Result<()> {
    let (receiver, sender) = (dvs::bind()?, dvs::bind()?);
    let (to, short) = (receiver.endpoint(), Timeout::After(SHORT));
    fails("send", sender.send(to, &message(), short), Errno::TimedOut)?;
    fails("sendrec", sender.sendrec(to, &message(), short), Errno::TimedOut)?;
    equal("senders", receiver.info()?.senders, 0)?;
    let receive = receiver.receive(Endpoint::ANY, Timeout::NoWait);
    fails("receive", receive, Errno::WouldBlock)
}

/// A client whose request was received and then timed out.
fn gave_up() -> Result<(dvk::Port, Arc<dvk::Port>)> {
    let (server, client) = (dvs::bind()?, bind_shared()?);
    let (to, port) = (server.endpoint(), Arc::clone(&client));
    let short = Timeout::from_millis(300);
    let request = blocked(move || port.sendrec(to, &message(), short))?;
    server.receive(Endpoint::ANY, Timeout::Forever)?;
    fails("sendrec", request.join("sendrec to time out")?, Errno::TimedOut)?;
    Ok((server, client))
}

fn late_reply() -> Result<()> {
    let (server, client) = gave_up()?;
    fails("reply", server.reply(client.endpoint(), &Message::new(2)), Errno::WouldBlock)?;
    equal("clients", server.info()?.clients, 0)?;
    let receive = client.receive(Endpoint::ANY, Timeout::NoWait);
    fails("receive of the client", receive, Errno::WouldBlock)
}

fn late_reply_next() -> Result<()> {
    let (server, client) = gave_up()?;
    let (to, from, port) = (server.endpoint(), client.endpoint(), Arc::clone(&client));
    let next = blocked(move || port.sendrec(to, &Message::new(3), Timeout::Forever))?;
    fails("reply", server.reply(from, &Message::new(2)), Errno::WouldBlock)?;
    next.waits("the next sendrec after a late reply")?;
    equal("kind", take(&server, from)?.message.kind, 3)?;
    server.reply(from, &Message::new(4))?;
    equal("kind of the reply", next.join("sendrec to end")??.kind, 4)
}

/// Interrupts the puppet until its call is over, which ends as `EINTR`. More than one signal may
/// be needed: one that comes before the call has begun interrupts nothing.
fn interrupt(mut puppet: Puppet, order: Order) -> Result<()> {
    puppet.obey(Order::CatchSignals)?;
    puppet.start_waiting(order)?;
    // Reading the answer needs the puppet, so the signals come from a process id.
    let pid = puppet.pid()?;
    let reader = std::thread::spawn(move || puppet.answer().map(|answer| (answer, puppet)));
    until("a signal to end the call", || {
        if reader.is_finished() {
            return Ok(true);
        }
        rustix::process::kill_process(pid, rustix::process::Signal::USR1)?;
        std::thread::sleep(Duration::from_millis(20));
        Ok(false)
    })?;
    let (answer, _puppet) = reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
    equal(&order.to_string(), answer, Answer::Failed(Errno::Interrupted))
}

fn signal() -> Result<()> {
    let peer = dvs::bind()?;
    let to = peer.endpoint();
    let orders =
        [Order::Receive(Endpoint::ANY), Order::Receive(to), Order::Send(to), Order::Sendrec(to)];
    for order in orders {
        interrupt(Puppet::bound(HOME)?.0, order)?;
    }
    Ok(())
}

fn signal_withdraws() -> Result<()> {
    let peer = dvs::bind()?;
    let to = peer.endpoint();
    for order in [Order::Send(to), Order::Sendrec(to)] {
        interrupt(Puppet::bound(HOME)?.0, order)?;
        let receive = peer.receive(Endpoint::ANY, Timeout::NoWait);
        fails("receive of the peer", receive, Errno::WouldBlock)?;
    }
    Ok(())
}
