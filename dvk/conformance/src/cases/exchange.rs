// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages: send, receive, sendrec, reply and their combinations.

use super::Case;
use crate::blocked::{patience, until};
use crate::cast::{Cast, Party, Waiting};
use crate::check::{equal, fails};
use crate::dvs;
use crate::wish;
use anyhow::{ensure, Result};
use dvk::abi::ioctl::{Exchange, RECEIVE, RECEIVE_REQUEST, REPLY_RECEIVE};
use dvk::raw::Arena;
use dvk::{Endpoint, Errno, How, Message, Port, Timeout};
use std::sync::Arc;

pub(super) const CASES: &[Case] = &[
    Case::both("send-blocks-until-received", send_blocks),
    Case::both("sendrec-blocks-until-the-reply", sendrec_blocks),
    Case::both("receive-blocks-until-a-message-comes", receive_blocks),
    Case::both("receive-any-takes-from-everybody", receive_any),
    Case::both("receive-specific-takes-only-its-source", receive_specific),
    Case::both("receive-tells-how-it-was-sent", how),
    Case::both("message-arrives-unchanged", unchanged),
    Case::toward("message-arrives-in-memory-that-was-never-written", unwritten),
    Case::both("source-is-set-by-the-kernel", source),
    Case::both("reply-needs-a-waiting-request", reply_needs_request),
    Case::both("reply-goes-in-any-order", reply_order),
    Case::both("reply-receive-does-both", reply_receive),
    Case::both("reply-receive-fails-before-it-receives", reply_receive_fails),
    Case::both("receive-request-takes-only-requests", receive_request),
    Case::both("messages-of-one-sender-keep-their-order", sender_order),
    Case::both("senders-are-served-in-order-of-arrival", arrival_order),
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

/// Has `from` begin to send a message of `kind`.
fn send(from: &Party, to: Endpoint, kind: u32) -> Result<Waiting<()>> {
    from.begin(wish::send(to, &message(kind), Timeout::Forever))
}

/// Has `from` begin a request of `kind`.
fn request(from: &Party, to: Endpoint, kind: u32) -> Result<Waiting<Message>> {
    from.begin(wish::sendrec(to, &message(kind), Timeout::Forever))
}

fn send_blocks(cast: &Cast) -> Result<()> {
    let (receiver, sender) = (cast.near()?, cast.far()?);
    let send = send(&sender, receiver.endpoint(), 1)?;
    send.waits("send before receive")?;
    cast.settle()?;
    equal("senders", receiver.info()?.senders, 1)?;
    receiver.take(Endpoint::ANY)?;
    send.join("send to end after receive")??;
    equal("senders", receiver.info()?.senders, 0)
}

fn sendrec_blocks(cast: &Cast) -> Result<()> {
    let (server, client) = (cast.near()?, cast.far()?);
    let (to, from) = (server.endpoint(), client.endpoint());
    let request = request(&client, to, 1)?;
    request.waits("sendrec before receive")?;
    cast.settle()?;
    equal("source", server.take(Endpoint::ANY)?.source(), from)?;
    request.waits("sendrec between receive and reply")?;
    equal("clients", server.info()?.clients, 1)?;
    server.reply(from, &message(2))?;
    let reply = request.join("sendrec to end after reply")??;
    equal("reply", reply, Message { source: to.raw(), ..message(2) })?;
    equal("clients", server.info()?.clients, 0)
}

fn receive_blocks(cast: &Cast) -> Result<()> {
    let (receiver, sender) = (cast.near()?, cast.far()?);
    for (turn, from) in [Endpoint::ANY, sender.endpoint()].into_iter().enumerate() {
        let receive = receiver.begin(wish::receive(from, Timeout::Forever))?;
        receive.waits("receive before send")?;
        let kind = turn as u32;
        sender.send(receiver.endpoint(), &message(kind), Timeout::Forever)?;
        equal("kind", receive.join("receive to end after send")??.message.kind, kind)?;
    }
    Ok(())
}

fn receive_any(cast: &Cast) -> Result<()> {
    let receiver = cast.near()?;
    let senders = [cast.far()?, cast.near()?, cast.far()?];
    let mut sends = Vec::new();
    for (kind, sender) in (0..).zip(&senders) {
        sends.push(send(sender, receiver.endpoint(), kind)?);
    }
    cast.settle()?;
    let mut kinds = Vec::new();
    for _ in 0..3 {
        kinds.push(receiver.take(Endpoint::ANY)?.message.kind);
    }
    kinds.sort_unstable();
    equal("kinds", kinds, vec![0, 1, 2])?;
    for send in sends {
        send.join("send to end")??;
    }
    receiver.is_empty()
}

fn receive_specific(cast: &Cast) -> Result<()> {
    let (receiver, first, second, third) = (cast.near()?, cast.far()?, cast.far()?, cast.near()?);
    let to = receiver.endpoint();
    let first_send = send(&first, to, 1)?;
    cast.settle()?;
    // One that is queued is passed over, and one that comes does not end the wait.
    fails("receive from the second", receiver.take(second.endpoint()), Errno::WouldBlock)?;
    let receive = receiver.begin(wish::receive(second.endpoint(), Timeout::Forever))?;
    let third = send(&third, to, 3)?;
    receive.waits("receive from the second while others send")?;
    second.send(to, &message(2), Timeout::Forever)?;
    equal("kind", receive.join("receive to end")??.message.kind, 2)?;
    let both_wait = !first_send.is_over() && !third.is_over();
    ensure!(both_wait, "a sender went on whose message is queued");
    equal("kind", receiver.take(first.endpoint())?.message.kind, 1)?;
    equal("kind", receiver.take(Endpoint::ANY)?.message.kind, 3)?;
    first_send.join("the first send to end")??;
    third.join("the third send to end")??;
    Ok(())
}

fn how(cast: &Cast) -> Result<()> {
    let (receiver, sender) = (cast.near()?, cast.far()?);
    let (to, from) = (receiver.endpoint(), sender.endpoint());
    let send = send(&sender, to, 1)?;
    cast.settle()?;
    equal("send", receiver.take(Endpoint::ANY)?.how, How::Send)?;
    send.join("send to end")??;
    sender.notify(to, 1)?;
    cast.settle()?;
    equal("notify", receiver.take(Endpoint::ANY)?.how, How::Notify)?;
    let request = request(&sender, to, 1)?;
    cast.settle()?;
    equal("sendrec", receiver.take(Endpoint::ANY)?.how, How::Request)?;
    receiver.reply(from, &message(2))?;
    request.join("sendrec to end")??;
    Ok(())
}

fn unchanged(cast: &Cast) -> Result<()> {
    let (server, client) = (cast.near()?, cast.far()?);
    let payload = core::array::from_fn(|at| (at as u8).wrapping_mul(37) ^ 0xa5);
    let sent = Message { source: 0, kind: 0xfeed_beef, flags: 0x8000_0001, payload };
    let answer = Message { kind: 0xffff_ffff, flags: 0, payload: [0xff; 48], source: 0 };
    let serve = server.begin(wish::receive(Endpoint::ANY, Timeout::Forever))?;
    let request = client.begin(wish::sendrec(server.endpoint(), &sent, Timeout::Forever))?;
    let received = serve.join("the server to be done")??;
    server.reply(received.source(), &answer)?;
    let reply = request.join("sendrec to end")??;
    equal("request", received.message, Message { source: client.endpoint().raw(), ..sent })?;
    equal("reply", reply, Message { source: server.endpoint().raw(), ..answer })
}

fn unwritten(cast: &Cast) -> Result<()> {
    let (port, client) = (cast.port()?, cast.far()?);
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
    let second = cast.far()?;
    for (call, kind) in calls.into_iter().zip(40..) {
        let held = request(&client, port.endpoint(), 1)?;
        cast.settle()?;
        take(&port, client.endpoint())?;
        let queued = request(&second, port.endpoint(), kind)?;
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

fn source(cast: &Cast) -> Result<()> {
    let (receiver, sender, third) = (cast.near()?, cast.far()?, cast.far()?);
    let forged = Message { source: third.endpoint().raw(), ..message(1) };
    let send = sender.begin(wish::send(receiver.endpoint(), &forged, Timeout::Forever))?;
    cast.settle()?;
    equal("source", receiver.take(Endpoint::ANY)?.source(), sender.endpoint())?;
    send.join("send to end")??;
    Ok(())
}

fn reply_needs_request(cast: &Cast) -> Result<()> {
    let (server, other, client) = (cast.near()?, cast.near()?, cast.far()?);
    let (to, from) = (server.endpoint(), client.endpoint());
    let answer = message(2);
    fails("reply to an idle peer", server.reply(from, &answer), Errno::WouldBlock)?;
    let send = send(&client, to, 1)?;
    cast.settle()?;
    fails("reply to a queued send", server.reply(from, &answer), Errno::WouldBlock)?;
    server.take(Endpoint::ANY)?;
    send.join("send to end")??;
    fails("reply to a received send", server.reply(from, &answer), Errno::WouldBlock)?;
    let request = request(&client, to, 1)?;
    cast.settle()?;
    fails("reply to a queued request", server.reply(from, &answer), Errno::WouldBlock)?;
    server.take(Endpoint::ANY)?;
    fails("reply by a third", other.reply(from, &answer), Errno::WouldBlock)?;
    request.waits("sendrec while only others reply")?;
    server.reply(from, &answer)?;
    request.join("sendrec to end")??;
    fails("second reply", server.reply(from, &answer), Errno::WouldBlock)
}

fn reply_order(cast: &Cast) -> Result<()> {
    let server = cast.near()?;
    let to = server.endpoint();
    let mut requests = Vec::new();
    for kind in 0..4 {
        let client = cast.far()?;
        let request = request(&client, to, kind)?;
        cast.settle()?;
        server.take(Endpoint::ANY)?;
        requests.push((kind, client, request));
    }
    equal("clients", server.info()?.clients, 4)?;
    for (kind, client, request) in requests.into_iter().rev() {
        server.reply(client.endpoint(), &message(kind + 100))?;
        equal("kind of the reply", request.join("sendrec to end")??.kind, kind + 100)?;
    }
    Ok(())
}

fn reply_receive(cast: &Cast) -> Result<()> {
    let (server, first, second) = (cast.near()?, cast.far()?, cast.far()?);
    let to = server.endpoint();
    let (from_first, from_second) = (first.endpoint(), second.endpoint());
    let first = request(&first, to, 1)?;
    cast.settle()?;
    server.take(from_first)?;
    let second = request(&second, to, 2)?;
    let both =
        |from, kind| wish::reply_receive(from, &message(kind), Endpoint::ANY, Timeout::Forever);
    let next = server.call(both(from_first, 11))?;
    equal("source", next.source(), from_second)?;
    equal("how", next.how, How::Request)?;
    equal("reply", first.join("the first sendrec to end")??.kind, 11)?;
    // The reply is given at once even if the receive has to wait.
    let serve = server.begin(both(from_second, 12))?;
    equal("reply", second.join("the second sendrec to end")??.kind, 12)?;
    serve.waits("reply_receive with nothing to receive")?;
    cast.far()?.send(to, &message(3), Timeout::Forever)?;
    equal("kind", serve.join("reply_receive to end")??.message.kind, 3)
}

fn reply_receive_fails(cast: &Cast) -> Result<()> {
    let (server, idle, sender) = (cast.near()?, cast.far()?, cast.far()?);
    let send = send(&sender, server.endpoint(), 1)?;
    cast.settle()?;
    let answer = message(2);
    let both =
        wish::reply_receive(idle.endpoint(), &answer, Endpoint::ANY, Timeout::After(patience()));
    fails("reply_receive to an idle peer", server.call(both), Errno::WouldBlock)?;
    ensure!(!send.is_over(), "the message was received although the reply failed");
    equal("kind", server.take(Endpoint::ANY)?.message.kind, 1)?;
    send.join("send to end")??;
    Ok(())
}

fn receive_request(cast: &Cast) -> Result<()> {
    let (server, sender, notifier, client) = (cast.near()?, cast.far()?, cast.far()?, cast.far()?);
    let (to, from) = (server.endpoint(), client.endpoint());
    let send = send(&sender, to, 1)?;
    notifier.notify(to, 4)?;
    cast.settle()?;
    let now = server.receive_request(Endpoint::ANY, Timeout::NoWait);
    fails("receive_request", now, Errno::WouldBlock)?;
    let receive = server.begin(wish::receive_request(Endpoint::ANY, Timeout::Forever))?;
    notifier.notify(to, 8)?;
    cast.settle()?;
    receive.waits("receive_request while others send and notify")?;
    let sendrec = request(&client, to, 2)?;
    let received = receive.join("receive_request to end")??;
    equal("request", (received.source(), received.how), (from, How::Request))?;
    server.reply(from, &message(3))?;
    sendrec.join("sendrec to end")??;
    let notice = server.take(Endpoint::ANY)?;
    equal("notification", notice.message.notify_bits(), Some(12))?;
    equal("kind", server.take(Endpoint::ANY)?.message.kind, 1)?;
    send.join("send to end")??;
    Ok(())
}

fn sender_order(cast: &Cast) -> Result<()> {
    const COUNT: u32 = 200;
    let (receiver, sender) = (cast.near()?, cast.far()?);
    let sends = sender.begin(wish::burst(receiver.endpoint(), COUNT))?;
    for kind in 0..COUNT {
        let received = receiver.receive(Endpoint::ANY, Timeout::After(patience()))?;
        equal("kind", received.message.kind, kind)?;
        if received.how == How::Request {
            receiver.reply(sender.endpoint(), &message(0))?;
        }
    }
    sends.join("the sender to end")??;
    receiver.is_empty()
}

fn arrival_order(cast: &Cast) -> Result<()> {
    let receiver = cast.near()?;
    let to = receiver.endpoint();
    let (mut sends, mut requests) = (Vec::new(), Vec::new());
    let mut senders = Vec::new();
    for kind in 0..12u32 {
        // Those of this node are served in the same order as those of the other one.
        let sender = if kind.is_multiple_of(3) { cast.near()? } else { cast.far()? };
        if kind.is_multiple_of(2) {
            sends.push(send(&sender, to, kind)?);
        } else {
            requests.push(request(&sender, to, kind)?);
        }
        senders.push(sender);
        until("the message to be queued", || Ok(receiver.info()?.senders == kind + 1))?;
    }
    for (kind, sender) in (0..).zip(&senders) {
        let received = receiver.take(Endpoint::ANY)?;
        let seen = (received.message.kind, received.source());
        equal("message", seen, (kind, sender.endpoint()))?;
        if received.how == How::Request {
            receiver.reply(sender.endpoint(), &message(0))?;
        }
    }
    for send in sends {
        send.join("a sender to go on")??;
    }
    for request in requests {
        request.join("a client to go on")??;
    }
    Ok(())
}
