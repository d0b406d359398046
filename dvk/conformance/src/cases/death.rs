// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the end of an endpoint does to those who deal with it.

use super::Case;
use crate::blocked::blocked;
use crate::cast::{Cast, Party};
use crate::check::{equal, fails};
use crate::dvs::Scratch;
use crate::wish::{self, Outcome, Wish};
use anyhow::{ensure, Result};
use dvk::{Endpoint, Errno, Message, Timeout};

pub(super) const CASES: &[Case] = &[
    Case::both("death-ends-send-as-eownerdead", send),
    Case::both("death-ends-queued-sendrec-as-eownerdead", queued),
    Case::both("death-ends-received-sendrec-as-eownerdead", received),
    Case::both("death-ends-receive-specific-as-eownerdead", specific),
    Case::both("death-leaves-receive-any-waiting", receive_any),
    Case::both("death-leaves-delivered-notifies", notifies),
    Case::both("killed-sender-leaves-no-message", killed_sender),
    Case::both("killed-client-is-no-longer-waiting", killed_client),
    Case::both("kill-ends-every-wait", kill_ends),
    Case::alone(
        "dc-destroy-kills-its-endpoints",
        "a container is destroyed on each node for itself",
        destroy,
    ),
];

/// Has an endpoint wait for another, which then dies; the wait ends with `EOWNERDEAD`.
fn bereaved<T: Outcome + core::fmt::Debug>(
    cast: &Cast,
    wish: impl FnOnce(Endpoint) -> Wish<T>,
    prepare: impl FnOnce(&Party) -> Result<()>,
) -> Result<()> {
    let (port, peer) = (cast.near()?, cast.far()?);
    let call = port.begin(wish(peer.endpoint()))?;
    cast.settle()?;
    prepare(&peer)?;
    call.waits("a call before the peer's death")?;
    drop(peer);
    fails("the call", call.join("a call to end with its peer")?, Errno::OwnerDead)
}

fn send(cast: &Cast) -> Result<()> {
    let wish = |to| wish::send(to, &Message::new(1), Timeout::Forever);
    bereaved(cast, wish, |_| Ok(()))
}

fn request(to: Endpoint) -> Wish<Message> {
    wish::sendrec(to, &Message::new(1), Timeout::Forever)
}

fn queued(cast: &Cast) -> Result<()> {
    bereaved(cast, request, |_| Ok(()))
}

fn received(cast: &Cast) -> Result<()> {
    bereaved(cast, request, |peer| Ok(peer.take(Endpoint::ANY).map(drop)?))
}

fn specific(cast: &Cast) -> Result<()> {
    bereaved(cast, |from| wish::receive(from, Timeout::Forever), |_| Ok(()))?;
    bereaved(cast, |from| wish::receive_request(from, Timeout::Forever), |_| Ok(()))
}

fn receive_any(cast: &Cast) -> Result<()> {
    let (receiver, peer, other) = (cast.near()?, cast.far()?, cast.far()?);
    let receive = receiver.begin(wish::receive(Endpoint::ANY, Timeout::Forever))?;
    drop(peer);
    cast.settle()?;
    receive.waits("receive from any after the death of one")?;
    other.notify(receiver.endpoint(), 1)?;
    receive.join("receive to end")??;
    Ok(())
}

fn notifies(cast: &Cast) -> Result<()> {
    let (target, source) = (cast.near()?, cast.far()?);
    let from = source.endpoint();
    source.notify(target.endpoint(), 3)?;
    drop(source);
    cast.settle()?;
    let notice = target.take(Endpoint::ANY)?;
    equal("notification", notice.message, Message::notification(from, 3))
}

fn killed_sender(cast: &Cast) -> Result<()> {
    let receiver = cast.near()?;
    let to = receiver.endpoint();
    for is_request in [false, true] {
        let (puppet, sender) = cast.far_puppet()?;
        if is_request {
            sender.begin(request(to))?;
        } else {
            sender.begin(wish::send(to, &Message::new(0), Timeout::Forever))?;
        }
        cast.settle()?;
        equal("senders", receiver.info()?.senders, 1)?;
        puppet.kill()?;
        cast.settle()?;
        equal("senders", receiver.info()?.senders, 0)?;
        receiver.is_empty()?;
    }
    Ok(())
}

fn killed_client(cast: &Cast) -> Result<()> {
    let server = cast.near()?;
    let (puppet, client) = cast.far_puppet()?;
    client.begin(request(server.endpoint()))?;
    cast.settle()?;
    server.take(Endpoint::ANY)?;
    puppet.kill()?;
    cast.settle()?;
    equal("clients", server.info()?.clients, 0)?;
    let reply = server.reply(client.endpoint(), &Message::new(2));
    fails("reply to a killed client", reply, Errno::WouldBlock)
}

fn kill_ends(cast: &Cast) -> Result<()> {
    fn killed_in<T: Outcome>(cast: &Cast, peer: &Party, wish: Wish<T>) -> Result<()> {
        let (puppet, party) = cast.far_puppet()?;
        let call = party.begin(wish)?;
        ensure!(!call.is_over(), "a call did not wait");
        puppet.kill()?;
        cast.is_dead(peer, party.endpoint())
    }
    let peer = cast.near()?;
    let to = peer.endpoint();
    for from in [Endpoint::ANY, to] {
        killed_in(cast, &peer, wish::receive(from, Timeout::Forever))?;
    }
    killed_in(cast, &peer, wish::send(to, &Message::new(0), Timeout::Forever))?;
    killed_in(cast, &peer, request(to))?;
    let info = peer.info()?;
    equal("queues", (info.senders, info.clients), (0, 0))
}

fn destroy() -> Result<()> {
    let scratch = Scratch::new(0)?;
    scratch.lease(64, 32)?;
    let (receiver, target, idle) = (scratch.bind()?, scratch.bind()?, scratch.bind()?);
    let to = target.endpoint();
    let senders = [scratch.bind()?, scratch.bind()?];
    let receive = blocked(move || receiver.receive(Endpoint::ANY, Timeout::Forever))?;
    let [first, second] = senders;
    let send = blocked(move || first.send(to, &Message::new(1), Timeout::Forever))?;
    let sendrec = blocked(move || second.sendrec(to, &Message::new(1), Timeout::Forever))?;
    dvk::Control::open()?.dc_destroy(scratch.id)?;
    fails("receive", receive.join("receive to end")?, Errno::OwnerDead)?;
    fails("send", send.join("send to end")?, Errno::OwnerDead)?;
    fails("sendrec", sendrec.join("sendrec to end")?, Errno::OwnerDead)?;
    for port in [&idle, &target] {
        let Err(error) = port.receive(Endpoint::ANY, Timeout::NoWait) else {
            anyhow::bail!("an endpoint outlives its container");
        };
        let gone = [Errno::NotConnected, Errno::NoDevice];
        ensure!(gone.iter().any(|errno| error.is(*errno)), "expected ENOTCONN or ENODEV: {error}");
    }
    ensure!(scratch.bind().is_err(), "an endpoint was bound in a container that was destroyed");
    Ok(())
}
