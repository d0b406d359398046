// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages: send, receive, sendrec, reply and their combinations.

use super::Case;
use crate::blocked::{blocked, until};
use crate::check::{equal, fails};
use crate::dvs;
use anyhow::{ensure, Result};
use dvk::abi::ioctl::{Exchange, RECEIVE, RECEIVE_REQUEST, REPLY_RECEIVE};
use dvk::raw::Arena;
use dvk::{Endpoint, Errno, How, Message, Port, Timeout};
use std::sync::Arc;

pub(super) const CASES: &[Case] = &[
    Case::new("send-blocks-until-received", send_blocks),
    Case::new("sendrec-blocks-until-the-reply", sendrec_blocks),
    Case::new("receive-blocks-until-a-message-comes", receive_blocks),
    Case::new("receive-any-takes-from-everybody", receive_any),
    Case::new("receive-specific-takes-only-its-source", receive_specific),
    Case::new("receive-tells-how-it-was-sent", how),
    Case::new("message-arrives-unchanged", unchanged),
    Case::new("message-arrives-in-memory-that-was-never-written", unwritten),
    Case::new("source-is-set-by-the-kernel", source),
    Case::new("reply-needs-a-waiting-request", reply_needs_request),
    Case::new("reply-goes-in-any-order", reply_order),
    Case::new("reply-receive-does-both", reply_receive),
    Case::new("reply-receive-fails-before-it-receives", reply_receive_fails),
    Case::new("receive-request-takes-only-requests", receive_request),
    Case::new("messages-of-one-sender-keep-their-order", sender_order),
    Case::new("senders-are-served-in-order-of-arrival", arrival_order),
];

/// A message of `kind` whose payload is all `kind`'s low byte.
fn message(kind: u32) -> Message {
    Message { payload: [kind as u8; 48], ..Message::new(kind) }
}

/// An endpoint for a thread to block in.
pub(super) fn bind_shared() -> Result<Arc<Port>> {
    Ok(Arc::new(dvs::bind()?))
}

/// Takes what must be there.
pub(super) fn take(port: &Port, from: Endpoint) -> Result<dvk::Received> {
    Ok(port.receive(from, Timeout::NoWait)?)
}

fn is_empty(port: &Port) -> Result<()> {
    fails("receive from any", port.receive(Endpoint::ANY, Timeout::NoWait), Errno::WouldBlock)
}

fn send_blocks() -> Result<()> {
    let (receiver, sender) = (dvs::bind()?, dvs::bind()?);
    let to = receiver.endpoint();
    let send = blocked(move || sender.send(to, &message(1), Timeout::Forever).map(|()| sender))?;
    send.waits("send before receive")?;
    equal("senders", receiver.info()?.senders, 1)?;
    take(&receiver, Endpoint::ANY)?;
    let _sender = send.join("send to end after receive")??;
    equal("senders", receiver.info()?.senders, 0)
}

fn sendrec_blocks() -> Result<()> {
    let (server, client) = (dvs::bind()?, dvs::bind()?);
    let (to, from) = (server.endpoint(), client.endpoint());
    let request = blocked(move || client.sendrec(to, &message(1), Timeout::Forever))?;
    request.waits("sendrec before receive")?;
    equal("source", take(&server, Endpoint::ANY)?.source(), from)?;
    request.waits("sendrec between receive and reply")?;
    equal("clients", server.info()?.clients, 1)?;
    server.reply(from, &message(2))?;
    let reply = request.join("sendrec to end after reply")??;
    equal("reply", reply, Message { source: to.raw(), ..message(2) })?;
    equal("clients", server.info()?.clients, 0)
}

fn receive_blocks() -> Result<()> {
    let (receiver, sender) = (bind_shared()?, dvs::bind()?);
    for (turn, from) in [Endpoint::ANY, sender.endpoint()].into_iter().enumerate() {
        let port = Arc::clone(&receiver);
        let receive = blocked(move || port.receive(from, Timeout::Forever))?;
        receive.waits("receive before send")?;
        let kind = turn as u32;
        sender.send(receiver.endpoint(), &message(kind), Timeout::Forever)?;
        equal("kind", receive.join("receive to end after send")??.message.kind, kind)?;
    }
    Ok(())
}

fn receive_any() -> Result<()> {
    let receiver = dvs::bind()?;
    let to = receiver.endpoint();
    let mut sends = Vec::new();
    for kind in 0..3 {
        let sender = dvs::bind()?;
        let send = move || sender.send(to, &message(kind), Timeout::Forever).map(|()| sender);
        sends.push(blocked(send)?);
    }
    let mut kinds = Vec::new();
    for _ in 0..3 {
        kinds.push(take(&receiver, Endpoint::ANY)?.message.kind);
    }
    kinds.sort_unstable();
    equal("kinds", kinds, vec![0, 1, 2])?;
    for send in sends {
        send.join("send to end")??;
    }
    is_empty(&receiver)
}

fn receive_specific() -> Result<()> {
    let (receiver, first, second) = (bind_shared()?, dvs::bind()?, dvs::bind()?);
    let to = receiver.endpoint();
    let (from_first, from_second) = (first.endpoint(), second.endpoint());
    let first = blocked(move || first.send(to, &message(1), Timeout::Forever).map(|()| first))?;
    // One that is queued is passed over, and one that comes does not end the wait.
    let specific = |from| receiver.receive(from, Timeout::NoWait);
    fails("receive from the second", specific(from_second), Errno::WouldBlock)?;
    let port = Arc::clone(&receiver);
    let receive = blocked(move || port.receive(from_second, Timeout::Forever))?;
    let third = dvs::bind()?;
    let third = blocked(move || third.send(to, &message(3), Timeout::Forever).map(|()| third))?;
    receive.waits("receive from the second while others send")?;
    second.send(to, &message(2), Timeout::Forever)?;
    equal("kind", receive.join("receive to end")??.message.kind, 2)?;
    ensure!(!first.is_over() && !third.is_over(), "a sender went on whose message is queued");
    equal("kind", specific(from_first)?.message.kind, 1)?;
    equal("kind", take(&receiver, Endpoint::ANY)?.message.kind, 3)?;
    first.join("the first send to end")??;
    third.join("the third send to end")??;
    Ok(())
}

fn how() -> Result<()> {
    let (receiver, sender) = (dvs::bind()?, Arc::new(dvs::bind()?));
    let (to, from) = (receiver.endpoint(), sender.endpoint());
    let port = Arc::clone(&sender);
    let send = blocked(move || port.send(to, &message(1), Timeout::Forever))?;
    equal("send", take(&receiver, Endpoint::ANY)?.how, How::Send)?;
    send.join("send to end")??;
    sender.notify(to, 1)?;
    equal("notify", take(&receiver, Endpoint::ANY)?.how, How::Notify)?;
    let port = Arc::clone(&sender);
    let request = blocked(move || port.sendrec(to, &message(1), Timeout::Forever))?;
    equal("sendrec", take(&receiver, Endpoint::ANY)?.how, How::Request)?;
    receiver.reply(from, &message(2))?;
    request.join("sendrec to end")??;
    Ok(())
}

fn unchanged() -> Result<()> {
    let (server, client) = (bind_shared()?, dvs::bind()?);
    let payload = core::array::from_fn(|at| (at as u8).wrapping_mul(37) ^ 0xa5);
    let sent = Message { source: 0, kind: 0xfeed_beef, flags: 0x8000_0001, payload };
    let answer = Message { kind: 0xffff_ffff, flags: 0, payload: [0xff; 48], source: 0 };
    let port = Arc::clone(&server);
    let serve = blocked(move || {
        let received = port.receive(Endpoint::ANY, Timeout::Forever)?;
        port.reply(received.source(), &answer).map(|()| received.message)
    })?;
    let reply = client.sendrec(server.endpoint(), &sent, Timeout::Forever)?;
    let received = serve.join("the server to be done")??;
    equal("request", received, Message { source: client.endpoint().raw(), ..sent })?;
    equal("reply", reply, Message { source: server.endpoint().raw(), ..answer })
}

fn unwritten() -> Result<()> {
    let (port, client) = (dvs::bind()?, bind_shared()?);
    let block = Exchange {
        peer: client.endpoint().raw(),
        from: Endpoint::ANY.raw(),
        timeout_ns: -1,
        ..Exchange::default()
    };
    type Receive = fn(&Arena, &Port, &Exchange) -> rustix::io::Result<Exchange>;
    let calls: [Receive; 3] = [
        |arena, port, block| arena.call_across::<RECEIVE>(port, block),
        |arena, port, block| arena.call_across::<RECEIVE_REQUEST>(port, block),
        |arena, port, block| arena.call_across::<REPLY_RECEIVE>(port, block),
    ];
    // A request that is queued; those of a second client come while the first one is held.
    let second = bind_shared()?;
    let ask = |client: &Arc<Port>, kind| {
        let (client, to) = (Arc::clone(client), port.endpoint());
        blocked(move || client.sendrec(to, &message(kind), Timeout::Forever))
    };
    for (call, kind) in calls.into_iter().zip(40..) {
        let held = ask(&client, 1)?;
        take(&port, client.endpoint())?;
        let queued = ask(&second, kind)?;
        let received = call(Arena::new(2)?, &port, &block)?;
        let seen = (received.message.kind, received.message.source);
        equal("kind and source", seen, (kind, second.endpoint().raw()))?;
        port.reply(second.endpoint(), &message(2))?;
        queued.join("the request to end")??;
        if !held.is_over() {
            // All but `reply_receive` have left that to us; it may be on its way, too.
            match port.reply(client.endpoint(), &message(2)) {
                Err(error) if !error.is(Errno::WouldBlock) => return Err(error.into()),
                _ => {}
            }
        }
        held.join("the other request to end")??;
    }
    Ok(())
}

fn source() -> Result<()> {
    let (receiver, sender, third) = (dvs::bind()?, dvs::bind()?, dvs::bind()?);
    let (to, from) = (receiver.endpoint(), sender.endpoint());
    let forged = Message { source: third.endpoint().raw(), ..message(1) };
    let send = blocked(move || sender.send(to, &forged, Timeout::Forever).map(|()| sender))?;
    equal("source", take(&receiver, Endpoint::ANY)?.source(), from)?;
    let _sender = send.join("send to end")??;
    Ok(())
}

fn reply_needs_request() -> Result<()> {
    let (server, other, client) = (dvs::bind()?, dvs::bind()?, bind_shared()?);
    let (to, from) = (server.endpoint(), client.endpoint());
    let answer = message(2);
    fails("reply to an idle peer", server.reply(from, &answer), Errno::WouldBlock)?;
    let port = Arc::clone(&client);
    let send = blocked(move || port.send(to, &message(1), Timeout::Forever))?;
    fails("reply to a queued send", server.reply(from, &answer), Errno::WouldBlock)?;
    take(&server, Endpoint::ANY)?;
    send.join("send to end")??;
    fails("reply to a received send", server.reply(from, &answer), Errno::WouldBlock)?;
    let port = Arc::clone(&client);
    let request = blocked(move || port.sendrec(to, &message(1), Timeout::Forever))?;
    fails("reply to a queued request", server.reply(from, &answer), Errno::WouldBlock)?;
    take(&server, Endpoint::ANY)?;
    fails("reply by a third", other.reply(from, &answer), Errno::WouldBlock)?;
    request.waits("sendrec while only others reply")?;
    server.reply(from, &answer)?;
    request.join("sendrec to end")??;
    fails("second reply", server.reply(from, &answer), Errno::WouldBlock)
}

fn reply_order() -> Result<()> {
    let server = dvs::bind()?;
    let to = server.endpoint();
    let mut requests = Vec::new();
    for kind in 0..4 {
        let client = dvs::bind()?;
        let from = client.endpoint();
        let request = blocked(move || client.sendrec(to, &message(kind), Timeout::Forever))?;
        take(&server, Endpoint::ANY)?;
        requests.push((kind, from, request));
    }
    equal("clients", server.info()?.clients, 4)?;
    for (kind, from, request) in requests.into_iter().rev() {
        server.reply(from, &message(kind + 100))?;
        equal("kind of the reply", request.join("sendrec to end")??.kind, kind + 100)?;
    }
    Ok(())
}

fn reply_receive() -> Result<()> {
    let (server, first, second) = (dvs::bind()?, dvs::bind()?, dvs::bind()?);
    let to = server.endpoint();
    let (from_first, from_second) = (first.endpoint(), second.endpoint());
    let first = blocked(move || first.sendrec(to, &message(1), Timeout::Forever))?;
    take(&server, from_first)?;
    let second = blocked(move || second.sendrec(to, &message(2), Timeout::Forever))?;
    let next = server.reply_receive(from_first, &message(11), Endpoint::ANY, Timeout::Forever)?;
    equal("source", next.source(), from_second)?;
    equal("how", next.how, How::Request)?;
    equal("reply", first.join("the first sendrec to end")??.kind, 11)?;
    // The reply is given at once even if the receive has to wait.
    let port = Arc::new(server);
    let waiting = Arc::clone(&port);
    let serve = blocked(move || {
        waiting.reply_receive(from_second, &message(12), Endpoint::ANY, Timeout::Forever)
    })?;
    equal("reply", second.join("the second sendrec to end")??.kind, 12)?;
    serve.waits("reply_receive with nothing to receive")?;
    let third = dvs::bind()?;
    third.send(to, &message(3), Timeout::Forever)?;
    equal("kind", serve.join("reply_receive to end")??.message.kind, 3)
}

fn reply_receive_fails() -> Result<()> {
    let (server, idle, sender) = (dvs::bind()?, dvs::bind()?, dvs::bind()?);
    let to = server.endpoint();
    let send = blocked(move || sender.send(to, &message(1), Timeout::Forever).map(|()| sender))?;
    let both = server.reply_receive(idle.endpoint(), &message(2), Endpoint::ANY, Timeout::Forever);
    fails("reply_receive to an idle peer", both, Errno::WouldBlock)?;
    ensure!(!send.is_over(), "the message was received although the reply failed");
    equal("kind", take(&server, Endpoint::ANY)?.message.kind, 1)?;
    send.join("send to end")??;
    Ok(())
}

fn receive_request() -> Result<()> {
    let (server, sender, notifier, client) =
        (bind_shared()?, dvs::bind()?, dvs::bind()?, dvs::bind()?);
    let (to, from) = (server.endpoint(), client.endpoint());
    let send = blocked(move || sender.send(to, &message(1), Timeout::Forever).map(|()| sender))?;
    notifier.notify(to, 4)?;
    let request = |port: &Port| port.receive_request(Endpoint::ANY, Timeout::NoWait);
    fails("receive_request", request(&server), Errno::WouldBlock)?;
    let port = Arc::clone(&server);
    let receive = blocked(move || port.receive_request(Endpoint::ANY, Timeout::Forever))?;
    notifier.notify(to, 8)?;
    receive.waits("receive_request while others send and notify")?;
    let sendrec = blocked(move || client.sendrec(to, &message(2), Timeout::Forever))?;
    let received = receive.join("receive_request to end")??;
    equal("request", (received.source(), received.how), (from, How::Request))?;
    server.reply(from, &message(3))?;
    sendrec.join("sendrec to end")??;
    equal("notification", take(&server, Endpoint::ANY)?.message.notify_bits(), Some(12))?;
    equal("kind", take(&server, Endpoint::ANY)?.message.kind, 1)?;
    send.join("send to end")??;
    Ok(())
}

fn sender_order() -> Result<()> {
    let (receiver, sender) = (dvs::bind()?, dvs::bind()?);
    let (to, from) = (receiver.endpoint(), sender.endpoint());
    let sends = blocked(move || -> Result<(), dvk::Error> {
        for kind in 0..200 {
            // Both ways of sending take part in one order.
            if kind % 3 == 0 {
                sender.sendrec(to, &message(kind), Timeout::Forever)?;
            } else {
                sender.send(to, &message(kind), Timeout::Forever)?;
            }
        }
        Ok(())
    })?;
    for kind in 0..200 {
        let received = receiver.receive(Endpoint::ANY, Timeout::Forever)?;
        equal("kind", received.message.kind, kind)?;
        if received.how == How::Request {
            receiver.reply(from, &message(0))?;
        }
    }
    sends.join("the sender to end")??;
    is_empty(&receiver)
}

fn arrival_order() -> Result<()> {
    let receiver = dvs::bind()?;
    let to = receiver.endpoint();
    let mut senders = Vec::new();
    let mut calls = Vec::new();
    for kind in 0..12u32 {
        let sender = dvs::bind()?;
        senders.push(sender.endpoint());
        calls.push(blocked(move || {
            let sent = if kind.is_multiple_of(2) {
                sender.send(to, &message(kind), Timeout::Forever)
            } else {
                sender.sendrec(to, &message(kind), Timeout::Forever).map(drop)
            };
            sent.map(|()| sender)
        })?);
        until("the message to be queued", || Ok(receiver.info()?.senders == kind + 1))?;
    }
    for (kind, sender) in senders.into_iter().enumerate() {
        let received = take(&receiver, Endpoint::ANY)?;
        equal("message", (received.message.kind, received.source()), (kind as u32, sender))?;
        if received.how == How::Request {
            receiver.reply(sender, &message(0))?;
        }
    }
    for call in calls {
        call.join("a sender to go on")??;
    }
    Ok(())
}
