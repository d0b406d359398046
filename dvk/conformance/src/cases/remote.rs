// SPDX-License-Identifier: MIT OR Apache-2.0
//! Endpoints of other nodes, as far as they show without one: routes and their errors.

use super::Case;
use crate::check::fails;
use crate::dvs::{self, with_generation, Scratch};
use anyhow::Result;
use dvk::{Control, Endpoint, Errno, GrantId, Message, Port, Slot, Timeout};

/// Why no case is run between nodes.
const WHY: &str = "it is about what one node is told of others";

pub(super) const CASES: &[Case] = &[
    Case::alone("remote-without-link-is-enotconn", WHY, without_link),
    Case::alone("remote-on-a-node-that-is-down-is-ehostunreach", WHY, node_down),
    Case::alone("remote-lower-generation-is-estale", WHY, lower_generation),
    Case::alone("remote-slot-is-taken", WHY, taken),
    Case::alone("remote-forgotten-is-estale", WHY, forgotten),
];

const PEER: u32 = 3;

/// A container with an endpoint here and one on the peer.
struct World {
    control: Control,
    scratch: Scratch,
    port: Port,
    remote: Endpoint,
}

impl World {
    fn new() -> Result<Self> {
        let (control, scratch) = (Control::open()?, Scratch::new(0)?);
        scratch.lease(64, 32)?;
        let port = scratch.bind()?;
        let remote = Endpoint::from_raw(7 << 32 | 20);
        control.endpoint_set_remote(scratch.id, remote, PEER)?;
        Ok(Self { control, scratch, port, remote })
    }

    /// Everything that has to reach the remote endpoint fails like this.
    fn all_fail(&self, expected: Errno) -> Result<()> {
        let (to, limit) = (self.remote, Timeout::from_millis(2_000));
        fails("send", self.port.send(to, &Message::new(1), limit), expected)?;
        fails("sendrec", self.port.sendrec(to, &Message::new(1), limit), expected)?;
        fails("notify", self.port.notify(to, 1), expected)?;
        fails("receive", self.port.receive(to, limit), expected)?;
        let (there, mut bytes) = (GrantId::from_raw(1).of(to, 0), [0; 8]);
        let copied = self.port.copy_from(there, &mut bytes, limit);
        fails("copy_from", copied.map_err(|failed| failed.error), expected)?;
        let copied = self.port.copy_to(there, &bytes, limit);
        fails("copy_to", copied.map_err(|failed| failed.error), expected)?;
        let copied = self.port.copy_between(there, there, 8, limit);
        fails("copy_between", copied.map_err(|failed| failed.error), expected)
    }
}

/// Incarnations only grow, also from one run of this program to the next.
fn incarnation() -> Result<u32> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(since.as_millis() as u32 | 1)
}

fn without_link() -> Result<()> {
    let world = World::new()?;
    world.control.node_up(PEER, incarnation()?)?;
    let result = world.all_fail(Errno::NotConnected);
    world.control.node_down(PEER)?;
    result
}

fn node_down() -> Result<()> {
    let world = World::new()?;
    world.all_fail(Errno::NodeDown)?;
    world.control.node_up(PEER, incarnation()?)?;
    world.control.node_down(PEER)?;
    world.all_fail(Errno::NodeDown)
}

fn lower_generation() -> Result<()> {
    let World { control, scratch, remote, .. } = World::new()?;
    let lower = with_generation(remote, remote.generation() - 1);
    let set = control.endpoint_set_remote(scratch.id, lower, PEER);
    fails("endpoint_set_remote", set, Errno::Stale)?;
    let higher = with_generation(remote, remote.generation() + 1);
    Ok(control.endpoint_set_remote(scratch.id, higher, PEER)?)
}

fn taken() -> Result<()> {
    let World { control, scratch, port, remote } = World::new()?;
    let bind = Port::bind(scratch.id, Slot::Server(remote.slot()));
    fails("bind of a slot bound elsewhere", bind, Errno::Busy)?;
    let mine = with_generation(port.endpoint(), port.endpoint().generation() + 1);
    let set = control.endpoint_set_remote(scratch.id, mine, PEER);
    fails("endpoint_set_remote of a slot bound here", set, Errno::Busy)?;
    let set = control.endpoint_set_remote(scratch.id, remote, PEER + 1);
    fails("endpoint_set_remote to a third node", set, Errno::Busy)?;
    let set = control.endpoint_set_remote(scratch.id, remote, dvs::NODE);
    fails("endpoint_set_remote to this node", set, Errno::Invalid)
}

fn forgotten() -> Result<()> {
    let World { control, scratch, port, remote } = World::new()?;
    control.endpoint_forget(scratch.id, remote)?;
    fails("notify", port.notify(remote, 1), Errno::Stale)?;
    let successor = Port::bind(scratch.id, Slot::Server(remote.slot()))?;
    anyhow::ensure!(
        successor.endpoint().generation() > remote.generation(),
        "{} follows {remote}",
        successor.endpoint()
    );
    fails(
        "forget what is not remote",
        control.endpoint_forget(scratch.id, remote),
        Errno::NoEndpoint,
    )
}
