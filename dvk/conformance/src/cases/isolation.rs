// SPDX-License-Identifier: MIT OR Apache-2.0
//! Containers are worlds of their own.

use super::Case;
use crate::blocked::blocked;
use crate::check::{equal, fails};
use crate::dvs::{Scratch, HOME, OTHER};
use anyhow::Result;
use dvk::{Endpoint, Errno, Message, Port, Slot, Timeout};

/// Why no case is run between nodes.
const WHY: &str = "containers of one node are compared";

pub(super) const CASES: &[Case] = &[
    Case::alone("same-number-in-another-container-is-another-endpoint", WHY, same_number),
    Case::alone("endpoint-of-another-container-is-unknown", WHY, unknown),
    Case::alone("slot-taken-in-one-container-is-free-in-another", WHY, slots),
    Case::alone("dc-destroy-leaves-other-containers", WHY, destroy),
];

fn same_number() -> Result<()> {
    let scratch = Scratch::new(0)?;
    scratch.lease(64, 32)?;
    // The new container's generations are behind those of the old one's slot, or equal.
    let outside = bind_from(OTHER, 0)?;
    let inside = bind_from(scratch.id, outside.endpoint().generation())?;
    equal("numbers", inside.endpoint(), outside.endpoint())?;
    let name = inside.endpoint();
    let client = Port::bind(OTHER, Slot::Any)?;
    client.notify(name, 1)?;
    let send =
        blocked(move || client.send(name, &Message::new(1), Timeout::Forever).map(|()| client))?;
    let nothing = inside.receive(Endpoint::ANY, Timeout::NoWait);
    fails("receive in the other container", nothing, Errno::WouldBlock)?;
    equal("senders in the other container", inside.info()?.senders, 0)?;
    outside.receive(Endpoint::ANY, Timeout::NoWait)?;
    outside.receive(Endpoint::ANY, Timeout::NoWait)?;
    send.join("send to end")??;
    Ok(())
}

/// Binds a server slot, over and over until its generation is at least this.
fn bind_from(container: u32, generation: u32) -> Result<Port, dvk::Error> {
    loop {
        let port = Port::bind(container, Slot::Server(12))?;
        if port.endpoint().generation() >= generation {
            return Ok(port);
        }
    }
}

fn unknown() -> Result<()> {
    let scratch = Scratch::new(0)?;
    scratch.lease(1024, 32)?;
    // A slot that is in no lease of the home container.
    let inside = scratch.bind()?;
    let outside = Port::bind(HOME, Slot::Any)?;
    let (name, limit) = (inside.endpoint(), Timeout::from_millis(2_000));
    fails("notify", outside.notify(name, 1), Errno::NoEndpoint)?;
    fails("send", outside.send(name, &Message::new(1), limit), Errno::NoEndpoint)?;
    fails("sendrec", outside.sendrec(name, &Message::new(1), limit), Errno::NoEndpoint)?;
    fails("receive", outside.receive(name, limit), Errno::NoEndpoint)?;
    // Nor does its death show.
    drop(inside);
    fails("notify after its death", outside.notify(name, 1), Errno::NoEndpoint)
}

fn slots() -> Result<()> {
    let _home = Port::bind(HOME, Slot::Server(13))?;
    let _other = Port::bind(OTHER, Slot::Server(13))?;
    fails("bind", Port::bind(HOME, Slot::Server(13)), Errno::Busy)
}

fn destroy() -> Result<()> {
    let scratch = Scratch::new(0)?;
    scratch.lease(64, 32)?;
    let _inside = scratch.bind()?;
    let (outside, peer) = (Port::bind(HOME, Slot::Any)?, Port::bind(HOME, Slot::Any)?);
    let to = outside.endpoint();
    let send = blocked(move || peer.send(to, &Message::new(1), Timeout::Forever).map(|()| peer))?;
    drop(scratch);
    send.waits("send in a container that stays")?;
    outside.receive(Endpoint::ANY, Timeout::NoWait)?;
    send.join("send to end")??;
    Ok(())
}
