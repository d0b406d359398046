// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the end of an endpoint does to those who deal with it.

use super::exchange::{bind_shared, take};
use super::Case;
use crate::blocked::{blocked, until};
use crate::check::{equal, fails};
use crate::dvs::{self, Scratch, HOME};
use crate::puppet::{Order, Puppet};
use anyhow::{ensure, Result};
use dvk::{Endpoint, Errno, Message, Port, Timeout};
use std::sync::Arc;

pub(super) const CASES: &[Case] = &[
    Case::new("death-ends-send-as-eownerdead", send),
    Case::new("death-ends-queued-sendrec-as-eownerdead", queued),
    Case::new("death-ends-received-sendrec-as-eownerdead", received),
    Case::new("death-ends-receive-specific-as-eownerdead", specific),
    Case::new("death-leaves-receive-any-waiting", receive_any),
    Case::new("death-leaves-delivered-notifies", notifies),
    Case::new("killed-sender-leaves-no-message", killed_sender),
    Case::new("killed-client-is-no-longer-waiting", killed_client),
    Case::new("kill-ends-every-wait", kill_ends),
    Case::new("dc-destroy-kills-its-endpoints", destroy),
];

/// Has an endpoint wait for another, which then dies; the wait ends with `EOWNERDEAD`.
fn bereaved<T: Send + core::fmt::Debug + 'static>(
    call: impl FnOnce(&Port, Endpoint) -> Result<T, dvk::Error> + Send + 'static,
    prepare: impl FnOnce(&Port) -> Result<()>,
) -> Result<()> {
    let (port, peer) = (dvs::bind()?, dvs::bind()?);
    let to = peer.endpoint();
    let call = blocked(move || call(&port, to))?;
    prepare(&peer)?;
    call.waits("a call before the peer's death")?;
    drop(peer);
    fails("the call", call.join("a call to end with its peer")?, Errno::OwnerDead)
}

fn send() -> Result<()> {
    bereaved(|port, to| port.send(to, &Message::new(1), Timeout::Forever), |_| Ok(()))
}

fn queued() -> Result<()> {
    bereaved(|port, to| port.sendrec(to, &Message::new(1), Timeout::Forever), |_| Ok(()))
}

fn received() -> Result<()> {
    bereaved(
        |port, to| port.sendrec(to, &Message::new(1), Timeout::Forever),
        |peer| take(peer, Endpoint::ANY).map(drop),
    )
}

fn specific() -> Result<()> {
    bereaved(|port, to| port.receive(to, Timeout::Forever), |_| Ok(()))?;
    bereaved(|port, to| port.receive_request(to, Timeout::Forever), |_| Ok(()))
}

fn receive_any() -> Result<()> {
    let (receiver, peer, other) = (bind_shared()?, dvs::bind()?, dvs::bind()?);
    let port = Arc::clone(&receiver);
    let receive = blocked(move || port.receive(Endpoint::ANY, Timeout::Forever))?;
    drop(peer);
    receive.waits("receive from any after the death of one")?;
    other.notify(receiver.endpoint(), 1)?;
    receive.join("receive to end")??;
    Ok(())
}

fn notifies() -> Result<()> {
    let (target, source) = (dvs::bind()?, dvs::bind()?);
    let from = source.endpoint();
    source.notify(target.endpoint(), 3)?;
    drop(source);
    let notice = take(&target, Endpoint::ANY)?;
    equal("notification", notice.message, Message::notification(from, 3))
}

fn killed_sender() -> Result<()> {
    let receiver = dvs::bind()?;
    let to = receiver.endpoint();
    for order in [Order::Send(to), Order::Sendrec(to)] {
        let (mut puppet, _) = Puppet::bound(HOME)?;
        puppet.start(order)?;
        until("the message to be queued", || Ok(receiver.info()?.senders == 1))?;
        puppet.kill()?;
        equal("senders", receiver.info()?.senders, 0)?;
        let receive = receiver.receive(Endpoint::ANY, Timeout::NoWait);
        fails("receive", receive, Errno::WouldBlock)?;
    }
    Ok(())
}

fn killed_client() -> Result<()> {
    let server = dvs::bind()?;
    let (mut puppet, client) = Puppet::bound(HOME)?;
    puppet.start(Order::Sendrec(server.endpoint()))?;
    server.receive(Endpoint::ANY, Timeout::Forever)?;
    puppet.kill()?;
    equal("clients", server.info()?.clients, 0)?;
    let reply = server.reply(client, &Message::new(2));
    fails("reply to a killed client", reply, Errno::WouldBlock)
}

fn kill_ends() -> Result<()> {
    let peer = dvs::bind()?;
    let to = peer.endpoint();
    let orders =
        [Order::Receive(Endpoint::ANY), Order::Receive(to), Order::Send(to), Order::Sendrec(to)];
    for order in orders {
        let (mut puppet, endpoint) = Puppet::bound(HOME)?;
        puppet.start_waiting(order)?;
        puppet.kill()?;
        fails("notify", peer.notify(endpoint, 1), Errno::Stale)?;
    }
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
