// SPDX-License-Identifier: MIT OR Apache-2.0
//! Binding: how a file becomes an endpoint, and how it ends being one.

use super::Case;
use crate::blocked::patience;
use crate::cast::Cast;
use crate::check::{equal, fails, refused};
use crate::dvs::{self, Scratch, FIRST_GENERATION, FIRST_SLOT, HOME, SLOTS};
use crate::puppet;
use anyhow::{ensure, Result};
use dvk::{raw, Device, Endpoint, Errno, Message, Port, Slot, Timeout};
use dvk_abi::ioctl::{self, Bind, Exchange};

pub(super) const CASES: &[Case] = &[
    Case::alone("bind-any-takes-a-free-leased-slot", OWN, any),
    Case::alone("bind-server-takes-the-slot-named", OWN, server),
    Case::alone("bind-taken-slot-is-ebusy", OWN, taken),
    Case::alone("bind-without-lease-is-enospc", OWN, without_lease),
    Case::alone("bind-all-slots-taken-is-enospc", OWN, all_taken),
    Case::alone("bind-beyond-the-cap-is-enospc", OWN, beyond_cap),
    Case::alone("bind-server-flag-is-for-slots-below-64", OWN, server_flag),
    Case::alone("bind-by-number-needs-a-file-open-for-writing", OWN, read_only),
    Case::alone("bind-unknown-flag-is-einval", OWN, unknown_flag),
    Case::alone("bind-of-a-bound-file-is-ebusy", OWN, twice),
    Case::alone("generation-grows-at-each-bind", OWN, generation),
    Case::toward("unbind-ends-the-binding", unbind),
    Case::alone("unbind-unbound-is-enotconn", OWN, unbind_unbound),
    Case::alone("unbound-file-exchanges-nothing", OWN, unbound_exchange),
    Case::both("close-unbinds", close),
    Case::both("exit-unbinds", exit),
    Case::both("kill-unbinds", kill),
    Case::both("exec-unbinds", exec),
    Case::toward("shared-file-shares-the-endpoint", shared),
    Case::both("info-describes-the-endpoint", info),
];

/// Why a case is about one node only.
const OWN: &str = "a file is bound, or refused, by its own node";

fn any() -> Result<()> {
    let ports = [dvs::bind()?, dvs::bind()?];
    for port in &ports {
        let endpoint = port.endpoint();
        ensure!(endpoint.is_name(), "{endpoint} names nobody");
        let lease = FIRST_SLOT..FIRST_SLOT + SLOTS;
        ensure!(lease.contains(&endpoint.slot()), "{endpoint} is outside the lease {lease:?}");
        ensure!(
            endpoint.generation() >= FIRST_GENERATION,
            "{endpoint} is before the lease's first"
        );
    }
    ensure!(ports[0].endpoint().slot() != ports[1].endpoint().slot(), "a slot was bound twice");
    Ok(())
}

fn server() -> Result<()> {
    let port = Port::bind(HOME, Slot::Server(5))?;
    equal("slot", port.endpoint().slot(), 5)?;
    ensure!(port.endpoint().generation() >= FIRST_GENERATION, "generation before the lease's");
    Ok(())
}

/// The device of [`HOME`], for reading only.
fn readable() -> Result<Device> {
    Ok(Device::from_fd(std::fs::File::open(dvk::device_path(HOME))?.into())?)
}

fn read_only() -> Result<()> {
    let moving = Endpoint::from_raw(u64::from(FIRST_GENERATION) << 32 | u64::from(FIRST_SLOT));
    for slot in [Slot::Server(7), Slot::Backup(7), Slot::Replica(7), Slot::Adopt(moving)] {
        fails("bind", readable()?.bind(slot), Errno::Denied)?;
    }
    drop(Port::bind(HOME, Slot::Server(7))?);
    let port = readable()?.bind(Slot::Any)?;
    ensure!(port.endpoint().is_name(), "{} names nobody", port.endpoint());
    Ok(())
}

fn taken() -> Result<()> {
    let port = Port::bind(HOME, Slot::Server(6))?;
    fails("bind of a taken slot", Port::bind(HOME, Slot::Server(6)), Errno::Busy)?;
    drop(port);
    Port::bind(HOME, Slot::Server(6))?;
    Ok(())
}

fn without_lease() -> Result<()> {
    let scratch = Scratch::new(0)?;
    fails("bind any", scratch.bind(), Errno::Limit)?;
    fails("bind server", Port::bind(scratch.id, Slot::Server(1)), Errno::Limit)
}

fn all_taken() -> Result<()> {
    let scratch = Scratch::new(0)?;
    scratch.lease(64, 32)?;
    let mut ports = (0..32).map(|_| scratch.bind()).collect::<Result<Vec<_>, _>>()?;
    fails("bind 33 of 32", scratch.bind(), Errno::Limit)?;
    let freed = ports.remove(7).endpoint();
    equal("slot of the next bind", scratch.bind()?.endpoint().slot(), freed.slot())
}

fn beyond_cap() -> Result<()> {
    let scratch = Scratch::new(2)?;
    scratch.lease(64, 32)?;
    let first = scratch.bind()?;
    let _second = Port::bind(scratch.id, Slot::Server(1))?;
    fails("bind 3 of 2", scratch.bind(), Errno::Limit)?;
    drop(first);
    scratch.bind()?;
    Ok(())
}

fn raw_bind(slot: u32, flags: u32) -> Result<(), rustix::io::Errno> {
    let device = Device::open(HOME).map_err(|_| rustix::io::Errno::IO)?;
    let mut block = Bind { slot, flags, endpoint: 0 };
    raw::call::<{ ioctl::BIND }, _>(&device, &mut block)
}

fn server_flag() -> Result<()> {
    refused("server slot without the flag", raw_bind(9, 0), Errno::Invalid)?;
    let free = FIRST_SLOT + SLOTS - 1;
    refused("slot from 64 up, server", raw_bind(free, ioctl::BIND_SERVER), Errno::Invalid)?;
    refused("slot from 64 up", raw_bind(free, 0), Errno::Invalid)?;
    refused("any slot, server", raw_bind(ioctl::SLOT_ANY, ioctl::BIND_SERVER), Errno::Invalid)
}

fn unknown_flag() -> Result<()> {
    let parts = [ioctl::BIND_BACKUP, ioctl::BIND_REPLICA, ioctl::BIND_ADOPT];
    for flag in (1..32).map(|bit| 1u32 << bit) {
        let what = format!("flag {flag:#x}");
        refused(&what, raw_bind(ioctl::SLOT_ANY, flag), Errno::Invalid)?;
        for part in [ioctl::BIND_SERVER, parts[0], parts[1], parts[2]] {
            let flags = ioctl::BIND_SERVER | part | flag;
            if !parts.contains(&(flags & !ioctl::BIND_SERVER)) {
                refused(&format!("flags {flags:#x}"), raw_bind(9, flags), Errno::Invalid)?;
            }
        }
    }
    Ok(())
}

fn twice() -> Result<()> {
    let port = dvs::bind()?;
    let mut block = Bind { slot: ioctl::SLOT_ANY, flags: 0, endpoint: 0 };
    refused("bind", raw::call::<{ ioctl::BIND }, _>(&port, &mut block), Errno::Busy)?;
    equal("endpoint", Endpoint::from_raw(port.info()?.endpoint), port.endpoint())
}

fn generation() -> Result<()> {
    let mut last = 0;
    for _ in 0..5 {
        let generation = Port::bind(HOME, Slot::Server(7))?.endpoint().generation();
        ensure!(generation > last, "generation {generation} after {last}");
        last = generation;
    }
    Ok(())
}

fn unbind(cast: &Cast) -> Result<()> {
    let port = cast.port()?;
    let endpoint = port.endpoint();
    let device = port.unbind()?;
    cast.is_dead(&cast.far()?, endpoint)?;
    let again = device.bind(Slot::Server(8))?;
    equal("slot", again.endpoint().slot(), 8)
}

fn unbind_unbound() -> Result<()> {
    let device = Device::open(HOME)?;
    let unbind = || raw::call_bare::<{ ioctl::UNBIND }>(&device);
    refused("unbind of a new file", unbind(), Errno::NotConnected)?;
    let device = dvs::bind()?.unbind()?;
    let again = raw::call_bare::<{ ioctl::UNBIND }>(&device);
    refused("second unbind", again, Errno::NotConnected)
}

fn unbound_exchange() -> Result<()> {
    let peer = dvs::bind()?;
    let unbound = [Device::open(HOME)?, dvs::bind()?.unbind()?];
    for device in &unbound {
        let block = || Exchange {
            peer: peer.endpoint().raw(),
            from: Endpoint::ANY.raw(),
            ..Exchange::default()
        };
        let results = [
            ("send", raw::call::<{ ioctl::SEND }, _>(device, &mut block())),
            ("receive", raw::call::<{ ioctl::RECEIVE }, _>(device, &mut block())),
            ("sendrec", raw::call::<{ ioctl::SENDREC }, _>(device, &mut block())),
            ("reply", raw::call::<{ ioctl::REPLY }, _>(device, &mut block())),
            ("reply_receive", raw::call::<{ ioctl::REPLY_RECEIVE }, _>(device, &mut block())),
            ("receive_request", raw::call::<{ ioctl::RECEIVE_REQUEST }, _>(device, &mut block())),
        ];
        for (what, result) in results {
            refused(what, result, Errno::NotConnected)?;
        }
        let mut block = ioctl::Notify { peer: peer.endpoint().raw(), bits: 1 };
        let notify = raw::call::<{ ioctl::NOTIFY }, _>(device, &mut block);
        refused("notify", notify, Errno::NotConnected)?;
    }
    fails("receive", peer.receive(Endpoint::ANY, Timeout::NoWait), Errno::WouldBlock)
}

fn close(cast: &Cast) -> Result<()> {
    let other = cast.near()?;
    let port = cast.far_server(10)?;
    let endpoint = port.endpoint();
    drop(port);
    cast.is_dead(&other, endpoint)?;
    // The slot is free again on its node.
    cast.far_process().bind_in(cast.container, Some(10)).map(drop)
}

fn exit(cast: &Cast) -> Result<()> {
    let (puppet, party) = cast.far_puppet()?;
    puppet.dismiss()?;
    cast.is_dead(&cast.near()?, party.endpoint())
}

fn kill(cast: &Cast) -> Result<()> {
    let (puppet, party) = cast.far_puppet()?;
    puppet.kill()?;
    cast.is_dead(&cast.near()?, party.endpoint())
}

fn exec(cast: &Cast) -> Result<()> {
    let (puppet, party) = cast.far_puppet()?;
    puppet.exec()?;
    cast.is_dead(&cast.near()?, party.endpoint())
}

fn shared(cast: &Cast) -> Result<()> {
    let port = cast.port()?;
    let endpoint = port.endpoint();
    let mut heir = puppet::share(&port)?;
    // From here on only the other process holds the endpoint.
    drop(port);
    let client = cast.far()?;
    let reply = client.sendrec(endpoint, &Message::new(41), Timeout::After(patience()))?;
    equal("kind of the reply", reply.kind, 42)?;
    equal("source of the reply", reply.source(), endpoint)?;
    ensure!(heir.wait()?.success(), "the process that shares the endpoint failed");
    cast.is_dead(&client, endpoint)
}

fn info(cast: &Cast) -> Result<()> {
    let unbound = Device::open(cast.container)?.info()?;
    equal("endpoint of an unbound file", unbound.endpoint, Endpoint::NONE.raw())?;
    equal("container", unbound.container, cast.container)?;
    equal("node", unbound.node, cast.this_node())?;
    let (port, peer) = (cast.near()?, cast.far()?);
    peer.notify(port.endpoint(), 1)?;
    cast.settle()?;
    port.take(Endpoint::ANY)?;
    let (info, other) = (port.info()?, peer.info()?);
    equal("endpoint", info.endpoint, port.endpoint().raw())?;
    equal("container", info.container, cast.container)?;
    equal("nodes", [info.node, other.node], cast.nodes())?;
    equal("messages received", (info.received, other.received), (1, 0))?;
    equal("messages sent", (info.sent, other.sent), (0, 1))?;
    equal("queues", (info.senders, info.clients), (0, 0))
}
