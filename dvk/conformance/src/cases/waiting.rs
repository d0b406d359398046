// SPDX-License-Identifier: MIT OR Apache-2.0
//! Waiting for somebody to come or go, cycles of endpoints that wait for each other, and what can
//! be seen of those who wait.

use super::exchange::bind_shared;
use super::Case;
use crate::blocked::{blocked, until, Blocked};
use crate::check::{equal, fails};
use crate::dvs::{self, with_generation, Scratch, HOME};
use anyhow::{Context, Result};
use dvk::abi::ioctl;
use dvk::{Control, Endpoint, Errno, Lease, Message, Port, Slot, Timeout};
use std::sync::Arc;

pub(super) const CASES: &[Case] = &[
    Case::new("wait-bind-gives-who-is-bound", bound_already),
    Case::new("wait-bind-ends-when-somebody-binds", binds),
    Case::new("wait-bind-ends-when-a-server-is-said-to-be-elsewhere", said_to_be_elsewhere),
    Case::new("wait-bind-asks-the-node-that-leases-the-slot", lessee),
    Case::new("wait-bind-out-of-range-is-einval", out_of_range),
    Case::new("wait-unbind-ends-when-the-endpoint-goes", goes),
    Case::new("wait-unbind-of-the-dead-returns-at-once", dead),
    Case::new("wait-unbind-of-oneself-is-edeadlk", oneself),
    Case::new("sendrec-that-closes-a-cycle-is-edeadlk", cycle_of_two),
    Case::new("cycle-of-many-is-edeadlk", cycle_of_many),
    Case::new("receive-specific-counts-in-a-cycle", receive_in_cycle),
    Case::new("chain-without-cycle-waits", chain),
    Case::new("info-says-what-an-endpoint-waits-for", info),
    Case::new("endpoint-info-walks-the-table", walk),
];

const FOREVER: Timeout = Timeout::Forever;

fn bound_already() -> Result<()> {
    let (port, peer) = (dvs::bind()?, dvs::bind()?);
    let found = port.wait_bind(peer.endpoint().slot(), Timeout::NoWait)?;
    equal("who is bound", found, peer.endpoint())
}

fn binds() -> Result<()> {
    let port = dvs::bind()?;
    fails("with timeout 0", port.wait_bind(9, Timeout::NoWait), Errno::WouldBlock)?;
    fails("with a timeout", port.wait_bind(9, Timeout::from_millis(20)), Errno::TimedOut)?;
    let wait = blocked(move || port.wait_bind(9, FOREVER))?;
    wait.waits("wait_bind without a server")?;
    let server = Port::bind(HOME, Slot::Server(9))?;
    let found = wait.join("wait_bind to end")??;
    equal("who is bound", found, server.endpoint())
}

fn said_to_be_elsewhere() -> Result<()> {
    let (control, scratch) = (Control::open()?, Scratch::new(0)?);
    scratch.lease(64, 32)?;
    let port = scratch.bind()?;
    let wait = blocked(move || port.wait_bind(20, FOREVER))?;
    wait.waits("wait_bind without a server")?;
    let remote = Endpoint::from_raw(7 << 32 | 20);
    control.endpoint_set_remote(scratch.id, remote, 3)?;
    equal("who is bound", wait.join("wait_bind to end")??, remote)
}

fn lessee() -> Result<()> {
    let (control, scratch) = (Control::open()?, Scratch::new(0)?);
    scratch.lease(64, 32)?;
    control.dc_add_node(&Lease {
        container: scratch.id,
        node: 3,
        first_slot: 96,
        slots: 32,
        first_generation: 1,
        reserved: 0,
    })?;
    // The node is down, so it cannot be asked.
    let port = scratch.bind()?;
    fails("wait_bind", port.wait_bind(100, Timeout::from_millis(2_000)), Errno::NodeDown)
}

fn out_of_range() -> Result<()> {
    let port = dvs::bind()?;
    fails("wait_bind", port.wait_bind(65_536, Timeout::NoWait), Errno::Invalid)?;
    fails("wait_bind", port.wait_bind(u32::MAX, Timeout::NoWait), Errno::Invalid)
}

fn goes() -> Result<()> {
    let (port, peer) = (dvs::bind()?, dvs::bind()?);
    let endpoint = peer.endpoint();
    let limit = Timeout::from_millis(20);
    fails("wait_unbind", port.wait_unbind(endpoint, Timeout::NoWait), Errno::WouldBlock)?;
    fails("wait_unbind", port.wait_unbind(endpoint, limit), Errno::TimedOut)?;
    let wait = blocked(move || port.wait_unbind(endpoint, FOREVER))?;
    wait.waits("wait_unbind of one who lives")?;
    drop(peer);
    Ok(wait.join("wait_unbind to end")??)
}

fn dead() -> Result<()> {
    let (port, peer) = (dvs::bind()?, dvs::bind()?);
    let endpoint = peer.endpoint();
    drop(peer);
    port.wait_unbind(endpoint, Timeout::NoWait)?;
    let never = with_generation(endpoint, endpoint.generation() + 100);
    fails("one who never was", port.wait_unbind(never, Timeout::NoWait), Errno::NoEndpoint)
}

fn oneself() -> Result<()> {
    let port = dvs::bind()?;
    fails("wait_unbind", port.wait_unbind(port.endpoint(), FOREVER), Errno::Deadlock)
}

/// `from` is blocked in `sendrec` to `to`.
fn request(from: &Arc<Port>, to: Endpoint) -> Result<Blocked<Result<Message, dvk::Error>>> {
    let port = Arc::clone(from);
    blocked(move || port.sendrec(to, &Message::new(1), FOREVER))
}

fn cycle_of_two() -> Result<()> {
    let (a, b) = (bind_shared()?, bind_shared()?);
    let waiting = request(&a, b.endpoint())?;
    // Whether the message was received makes no difference.
    for received in [false, true] {
        if received {
            b.receive(Endpoint::ANY, FOREVER)?;
        }
        let message = Message::new(2);
        fails("sendrec", b.sendrec(a.endpoint(), &message, FOREVER), Errno::Deadlock)?;
        fails("send", b.send(a.endpoint(), &message, FOREVER), Errno::Deadlock)?;
        equal("messages that were left", a.info()?.senders, 0)?;
    }
    b.reply(a.endpoint(), &Message::new(3))?;
    equal("kind of the reply", waiting.join("the request to end")??.kind, 3)
}

fn cycle_of_many() -> Result<()> {
    let ports: Vec<Arc<Port>> = (0..10).map(|_| bind_shared()).collect::<Result<_, _>>()?;
    let mut waiting = Vec::new();
    for pair in ports.windows(2) {
        waiting.push(request(&pair[0], pair[1].endpoint())?);
    }
    let (first, last) = (&ports[0], &ports[9]);
    let result = last.sendrec(first.endpoint(), &Message::new(1), FOREVER);
    fails("the last sendrec", result, Errno::Deadlock)?;
    // From the end on, everybody is answered.
    for (at, waiting) in waiting.into_iter().enumerate().rev() {
        let received = ports[at + 1].receive(Endpoint::ANY, FOREVER)?;
        ports[at + 1].reply(received.source(), &Message::new(2))?;
        waiting.join("a request to end")??;
    }
    Ok(())
}

fn receive_in_cycle() -> Result<()> {
    let (a, b, c) = (bind_shared()?, bind_shared()?, bind_shared()?);
    let waiting = request(&c, a.endpoint())?;
    let (port, from) = (Arc::clone(&b), c.endpoint());
    let receive = blocked(move || port.receive(from, FOREVER))?;
    let result = a.sendrec(b.endpoint(), &Message::new(1), FOREVER);
    fails("sendrec to one who waits for one who waits for the sender", result, Errno::Deadlock)?;
    a.receive(Endpoint::ANY, FOREVER)?;
    a.reply(c.endpoint(), &Message::new(1))?;
    waiting.join("the request to end")??;
    c.notify(b.endpoint(), 1)?;
    receive.join("the receive to end")??;
    Ok(())
}

fn chain() -> Result<()> {
    let (a, b, c) = (bind_shared()?, bind_shared()?, bind_shared()?);
    let first = request(&b, c.endpoint())?;
    let second = request(&a, b.endpoint())?;
    first.waits("a request whose server is busy")?;
    second.waits("a request to one who waits")?;
    c.receive(Endpoint::ANY, FOREVER)?;
    c.reply(b.endpoint(), &Message::new(1))?;
    first.join("the first request to end")??;
    b.receive(Endpoint::ANY, FOREVER)?;
    b.reply(a.endpoint(), &Message::new(1))?;
    second.join("the second request to end")??;
    Ok(())
}

fn info() -> Result<()> {
    let (port, peer) = (bind_shared()?, dvs::bind()?);
    let seen = |what: &str, state: u32, waits_for: Endpoint| -> Result<()> {
        // The thread sleeps when it has begun its call, so this is not to be waited for.
        let info = port.info()?;
        equal(what, (info.state, info.waits_for), (state, waits_for.raw()))
    };
    seen("while idle", ioctl::STATE_IDLE, Endpoint::NONE)?;
    let shared = Arc::clone(&port);
    let call = blocked(move || shared.receive(Endpoint::ANY, FOREVER))?;
    seen("in receive from anybody", ioctl::STATE_RECEIVE, Endpoint::ANY)?;
    peer.notify(port.endpoint(), 1)?;
    call.join("receive to end")??;
    let call = request(&port, peer.endpoint())?;
    seen("in sendrec", ioctl::STATE_REQUEST, peer.endpoint())?;
    peer.notify(port.endpoint(), 4)?;
    equal("notices", port.info()?.notices, 1)?;
    peer.receive(Endpoint::ANY, FOREVER)?;
    peer.reply(port.endpoint(), &Message::new(1))?;
    call.join("sendrec to end")??;
    let shared = Arc::clone(&port);
    let call = blocked(move || shared.wait_bind(9, FOREVER))?;
    seen("in wait_bind", ioctl::STATE_WAIT, Endpoint::NONE)?;
    let _server = Port::bind(HOME, Slot::Server(9))?;
    call.join("wait_bind to end")??;
    seen("while idle again", ioctl::STATE_IDLE, Endpoint::NONE)
}

fn walk() -> Result<()> {
    let (control, scratch) = (Control::open()?, Scratch::new(0)?);
    scratch.lease(64, 64)?;
    equal("endpoints of an empty container", control.endpoints(scratch.id)?.len(), 0)?;
    let remote = Endpoint::from_raw(7 << 32 | 20);
    control.endpoint_set_remote(scratch.id, remote, 3)?;
    let ports: Vec<Port> = (0..40).map(|_| scratch.bind()).collect::<Result<_, _>>()?;
    let mut expected: Vec<(u64, u32)> =
        ports.iter().map(|port| (port.endpoint().raw(), dvs::NODE)).collect();
    expected.push((remote.raw(), 3));
    expected.sort_by_key(|&(endpoint, _)| Endpoint::from_raw(endpoint).slot());
    let walk = || -> Result<Vec<(u64, u32)>> {
        let infos = control.endpoints(scratch.id)?;
        Ok(infos.iter().map(|info| (info.endpoint, info.node)).collect())
    };
    equal("endpoints", walk()?, expected)?;
    drop(ports);
    until("the endpoints to be gone", || Ok(walk()?.len() == 1))
        .context("after closing their files")
}
