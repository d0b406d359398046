// SPDX-License-Identifier: MIT OR Apache-2.0
//! Waiting for somebody to come or go, cycles of endpoints that wait for each other, and what can
//! be seen of those who wait.

use super::Case;
use crate::blocked::{blocked, patience, until};
use crate::cast::{Cast, Party, Waiting};
use crate::check::{equal, fails};
use crate::dvs::{self, with_generation, Scratch};
use crate::wish;
use anyhow::{ensure, Context, Result};
use dvk::abi::ioctl;
use dvk::{Control, Endpoint, Errno, Lease, Message, Port, Timeout};

pub(super) const CASES: &[Case] = &[
    Case::both("wait-bind-gives-who-is-bound", bound_already),
    Case::both("wait-bind-ends-when-somebody-binds", binds),
    Case::alone(
        "wait-bind-ends-when-a-server-is-said-to-be-elsewhere",
        "the control call is what ends it",
        said_to_be_elsewhere,
    ),
    Case::alone(
        "wait-bind-asks-the-node-that-leases-the-slot",
        "the node asked has to be down; wait-bind-ends-when-somebody-binds asks one that is up",
        lessee,
    ),
    Case::alone(
        "wait-bind-out-of-range-is-einval",
        "an argument is refused, whoever the peer",
        out_of_range,
    ),
    Case::both("wait-unbind-ends-when-the-endpoint-goes", goes),
    Case::both("wait-unbind-of-the-dead-returns-at-once", dead),
    Case::alone("wait-unbind-of-oneself-is-edeadlk", "it has no peer", oneself),
    Case::both("sendrec-that-closes-a-cycle-is-edeadlk", cycle_of_two),
    Case::both("cycle-of-many-is-edeadlk", cycle_of_many),
    Case::both("receive-specific-counts-in-a-cycle", receive_in_cycle),
    Case::both("chain-without-cycle-waits", chain),
    Case::both("info-says-what-an-endpoint-waits-for", info),
    Case::alone("endpoint-info-walks-the-table", "the table is of one node", walk),
];

const FOREVER: Timeout = Timeout::Forever;

/// For a call that is refused soon, and must not stop the case if it is not.
fn long() -> Timeout {
    Timeout::After(patience())
}

fn bound_already(cast: &Cast) -> Result<()> {
    let (port, peer) = (cast.near()?, cast.far()?);
    let found = port.wait_bind(peer.endpoint().slot(), cast.at_once())?;
    equal("who is bound", found, peer.endpoint())
}

fn binds(cast: &Cast) -> Result<()> {
    let port = cast.near()?;
    // A slot of the far node's lease that nobody is bound to.
    let slot = cast.far()?.endpoint().slot();
    fails("with timeout 0", port.wait_bind(slot, Timeout::NoWait), Errno::WouldBlock)?;
    fails("with a timeout", port.wait_bind(slot, Timeout::from_millis(20)), Errno::TimedOut)?;
    let wait = port.begin(wish::wait_bind(slot, FOREVER))?;
    cast.settle()?;
    wait.waits("wait_bind while nobody binds")?;
    let mut others = Vec::new();
    let expected = loop {
        let next = cast.far()?;
        if next.endpoint().slot() == slot {
            break next;
        }
        ensure!(
            !wait.is_over(),
            "wait_bind of slot {slot} ended with a bind of {}",
            next.endpoint()
        );
        others.push(next);
    };
    equal("who is bound", wait.join("wait_bind to end")??, expected.endpoint())
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

fn goes(cast: &Cast) -> Result<()> {
    let (port, peer) = (cast.near()?, cast.far()?);
    let endpoint = peer.endpoint();
    let limit = Timeout::from_millis(20);
    fails("wait_unbind", port.wait_unbind(endpoint, Timeout::NoWait), Errno::WouldBlock)?;
    fails("wait_unbind", port.wait_unbind(endpoint, limit), Errno::TimedOut)?;
    let wait = port.begin(wish::wait_unbind(endpoint, FOREVER))?;
    cast.settle()?;
    wait.waits("wait_unbind of one who lives")?;
    drop(peer);
    Ok(wait.join("wait_unbind to end")??)
}

fn dead(cast: &Cast) -> Result<()> {
    let (port, peer) = (cast.near()?, cast.far()?);
    let endpoint = peer.endpoint();
    drop(peer);
    port.wait_unbind(endpoint, cast.at_once())?;
    let never = with_generation(endpoint, endpoint.generation() + 100);
    fails("one who never was", port.wait_unbind(never, cast.at_once()), Errno::NoEndpoint)
}

fn oneself() -> Result<()> {
    let port = dvs::bind()?;
    fails("wait_unbind", port.wait_unbind(port.endpoint(), FOREVER), Errno::Deadlock)
}

/// `from` is blocked in `sendrec` to `to`.
fn request(from: &Party, to: &Party) -> Result<Waiting<Message>> {
    from.begin(wish::sendrec(to.endpoint(), &Message::new(1), FOREVER))
}

fn cycle_of_two(cast: &Cast) -> Result<()> {
    let (a, b) = (cast.near()?, cast.far()?);
    let waiting = request(&a, &b)?;
    cast.settle()?;
    // Whether the message was received makes no difference.
    for received in [false, true] {
        if received {
            b.take(Endpoint::ANY)?;
        }
        let message = Message::new(2);
        fails("sendrec", b.sendrec(a.endpoint(), &message, long()), Errno::Deadlock)?;
        fails("send", b.send(a.endpoint(), &message, long()), Errno::Deadlock)?;
        equal("messages that were left", a.info()?.senders, 0)?;
    }
    b.reply(a.endpoint(), &Message::new(3))?;
    equal("kind of the reply", waiting.join("the request to end")??.kind, 3)
}

fn cycle_of_many(cast: &Cast) -> Result<()> {
    // The way has to be known where it closes, so all but the last one are on one node.
    let mut parties: Vec<Party> = (0..9).map(|_| cast.near()).collect::<Result<_>>()?;
    parties.push(cast.far()?);
    let mut waiting = Vec::new();
    for pair in parties.windows(2) {
        waiting.push(request(&pair[0], &pair[1])?);
    }
    cast.settle()?;
    let result = parties[9].sendrec(parties[0].endpoint(), &Message::new(1), long());
    fails("the last sendrec", result, Errno::Deadlock)?;
    // From the end on, everybody is answered.
    for (at, waiting) in waiting.into_iter().enumerate().rev() {
        let received = parties[at + 1].take(Endpoint::ANY)?;
        parties[at + 1].reply(received.source(), &Message::new(2))?;
        waiting.join("a request to end")??;
    }
    Ok(())
}

fn receive_in_cycle(cast: &Cast) -> Result<()> {
    let (a, b, c) = (cast.near()?, cast.near()?, cast.far()?);
    let waiting = request(&c, &a)?;
    cast.settle()?;
    let receive = b.begin(wish::receive(c.endpoint(), FOREVER))?;
    let result = a.sendrec(b.endpoint(), &Message::new(1), long());
    fails("sendrec to one who waits for one who waits for the sender", result, Errno::Deadlock)?;
    a.take(Endpoint::ANY)?;
    a.reply(c.endpoint(), &Message::new(1))?;
    waiting.join("the request to end")??;
    c.notify(b.endpoint(), 1)?;
    receive.join("the receive to end")??;
    Ok(())
}

fn chain(cast: &Cast) -> Result<()> {
    let (a, b, c) = (cast.near()?, cast.far()?, cast.near()?);
    let first = request(&b, &c)?;
    let second = request(&a, &b)?;
    first.waits("a request whose server is busy")?;
    second.waits("a request to one who waits")?;
    cast.settle()?;
    c.take(Endpoint::ANY)?;
    c.reply(b.endpoint(), &Message::new(1))?;
    first.join("the first request to end")??;
    b.take(Endpoint::ANY)?;
    b.reply(a.endpoint(), &Message::new(1))?;
    second.join("the second request to end")??;
    Ok(())
}

fn info(cast: &Cast) -> Result<()> {
    let (port, peer) = (cast.near()?, cast.far()?);
    let seen = |what: &str, state: u32, waits_for: Endpoint| -> Result<()> {
        // The thread sleeps when it has begun its call, so this is not to be waited for.
        let info = port.info()?;
        equal(what, (info.state, info.waits_for), (state, waits_for.raw()))
    };
    seen("while idle", ioctl::STATE_IDLE, Endpoint::NONE)?;
    let call = port.begin(wish::receive(Endpoint::ANY, FOREVER))?;
    seen("in receive from anybody", ioctl::STATE_RECEIVE, Endpoint::ANY)?;
    peer.notify(port.endpoint(), 1)?;
    call.join("receive to end")??;
    let call = request(&port, &peer)?;
    seen("in sendrec", ioctl::STATE_REQUEST, peer.endpoint())?;
    peer.notify(port.endpoint(), 4)?;
    cast.settle()?;
    equal("notices", port.info()?.notices, 1)?;
    peer.take(Endpoint::ANY)?;
    peer.reply(port.endpoint(), &Message::new(1))?;
    call.join("sendrec to end")??;
    let call = port.begin(wish::wait_bind(9, FOREVER))?;
    seen("in wait_bind", ioctl::STATE_WAIT, Endpoint::NONE)?;
    let _server = cast.far_server(9)?;
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
