// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls that are wrong from the start. None of them waits or transfers anything.

use super::Case;
use crate::blocked::patience;
use crate::cast::Cast;
use crate::check::{equal, fails, refused};
use crate::dvs::{self, with_generation, FIRST_SLOT, HOME, SLOTS};
use crate::wish;
use anyhow::Result;
use dvk::{raw, Endpoint, Errno, Message, Port, Timeout};
use dvk_abi::ioctl::{self, Exchange};
use dvk_abi::limits;

pub(super) const CASES: &[Case] = &[
    Case::both("stale-generation-is-estale", stale),
    Case::both("unknown-endpoint-is-esrch", unknown),
    Case::alone("reserved-endpoint-is-einval", ARGUMENT, reserved_endpoint),
    Case::alone("send-to-oneself-is-edeadlk", "it has no peer", oneself),
    Case::both("second-thread-is-ebusy", second_thread),
    Case::alone("reserved-field-is-einval", ARGUMENT, reserved_field),
    Case::alone("bad-address-is-efault", ARGUMENT, bad_address),
    Case::toward("block-that-cannot-be-written-loses-no-message", read_only),
    Case::alone("unknown-call-is-enotty", ARGUMENT, unknown_call),
];

/// Why a case is about one node only.
const ARGUMENT: &str = "an argument is refused, whoever the peer";

/// Tries everything that names a peer, and expects the same error of each.
fn naming(port: &Port, peer: Endpoint, expected: Errno) -> Result<()> {
    let (message, limit) = (Message::new(1), Timeout::from_millis(2_000));
    fails("send", port.send(peer, &message, limit), expected)?;
    fails("sendrec", port.sendrec(peer, &message, limit), expected)?;
    fails("notify", port.notify(peer, 1), expected)?;
    if peer == Endpoint::ANY {
        return Ok(());
    }
    fails("receive", port.receive(peer, limit), expected)?;
    fails("receive_request", port.receive_request(peer, limit), expected)
}

/// The same for a peer that may be on another node: `notify` does not wait for that to answer.
fn naming_there(cast: &Cast, peer: Endpoint, expected: Errno) -> Result<()> {
    let (port, message, limit) = (cast.near()?, Message::new(1), Timeout::After(patience()));
    fails("send", port.send(peer, &message, limit), expected)?;
    fails("sendrec", port.sendrec(peer, &message, limit), expected)?;
    fails("receive", port.receive(peer, limit), expected)?;
    fails("receive_request", port.receive_request(peer, limit), expected)?;
    if cast.is_between_nodes() {
        return Ok(port.notify(peer, 1)?);
    }
    fails("notify", port.notify(peer, 1), expected)
}

fn stale(cast: &Cast) -> Result<()> {
    let endpoint = cast.far()?.endpoint();
    // The slot is free.
    naming_there(cast, endpoint, Errno::Stale)?;
    let mut others = Vec::new();
    let successor = loop {
        let next = cast.far()?;
        if next.endpoint().slot() == endpoint.slot() {
            break next;
        }
        others.push(next);
    };
    naming_there(cast, endpoint, Errno::Stale)?;
    naming_there(cast, with_generation(endpoint, 1), Errno::Stale)?;
    cast.settle()?;
    successor.is_empty()
}

fn unknown(cast: &Cast) -> Result<()> {
    let port = cast.port()?;
    // Nobody has this server slot, or ever had: cases use others.
    naming(&port, Endpoint::from_raw(1 << 32 | 63), Errno::NoEndpoint)?;
    // In nobody's lease.
    let beyond = u64::from(FIRST_SLOT + 2 * SLOTS + 320);
    naming(&port, Endpoint::from_raw(1 << 32 | beyond), Errno::NoEndpoint)?;
    // A generation that is still to come.
    let peer = cast.far()?;
    let next = with_generation(peer.endpoint(), peer.endpoint().generation() + 1);
    naming_there(cast, next, Errno::NoEndpoint)
}

fn reserved_endpoint() -> Result<()> {
    let port = dvs::bind()?;
    for peer in [Endpoint::NONE, Endpoint::SELF, Endpoint::ANY] {
        naming(&port, peer, Errno::Invalid)?;
    }
    for raw in [0, 64, 1 << 32 | u64::from(limits::SLOTS), u64::MAX] {
        naming(&port, Endpoint::from_raw(raw), Errno::Invalid)?;
    }
    Ok(())
}

fn oneself() -> Result<()> {
    let port = dvs::bind()?;
    let (me, message) = (port.endpoint(), Message::new(1));
    fails("send", port.send(me, &message, Timeout::from_millis(2_000)), Errno::Deadlock)?;
    fails("sendrec", port.sendrec(me, &message, Timeout::from_millis(2_000)), Errno::Deadlock)
}

fn second_thread(cast: &Cast) -> Result<()> {
    let (port, peer) = (cast.near()?, cast.far()?);
    let (to, limit) = (peer.endpoint(), Timeout::After(patience()));
    let receive = port.begin(wish::receive(Endpoint::ANY, Timeout::Forever))?;
    fails("second receive", port.receive(Endpoint::ANY, limit), Errno::Busy)?;
    fails("send during receive", port.send(to, &Message::new(1), limit), Errno::Busy)?;
    fails("sendrec during receive", port.sendrec(to, &Message::new(1), limit), Errno::Busy)?;
    receive.waits("the first receive")?;
    // Calls that never wait are open to other threads.
    port.notify(to, 1)?;
    peer.notify(port.endpoint(), 1)?;
    receive.join("the first receive to end")??;
    let request = port.begin(wish::sendrec(to, &Message::new(1), Timeout::Forever))?;
    fails("receive during sendrec", port.receive(Endpoint::ANY, limit), Errno::Busy)?;
    // The notification of above comes first.
    peer.receive(Endpoint::ANY, limit)?;
    peer.receive(Endpoint::ANY, limit)?;
    peer.reply(port.endpoint(), &Message::new(2))?;
    request.join("sendrec to end")??;
    Ok(())
}

/// Makes every exchange with this block, and expects `EINVAL` of each.
fn invalid(port: &Port, what: &str, block: &Exchange) -> Result<()> {
    let results = [
        raw::call::<{ ioctl::SEND }, _>(port, &mut block.clone()),
        raw::call::<{ ioctl::RECEIVE }, _>(port, &mut block.clone()),
        raw::call::<{ ioctl::SENDREC }, _>(port, &mut block.clone()),
        raw::call::<{ ioctl::REPLY }, _>(port, &mut block.clone()),
        raw::call::<{ ioctl::REPLY_RECEIVE }, _>(port, &mut block.clone()),
        raw::call::<{ ioctl::RECEIVE_REQUEST }, _>(port, &mut block.clone()),
    ];
    for (result, nr) in results.into_iter().zip(0x10..) {
        refused(&format!("call {nr:#x} with {what}"), result, Errno::Invalid)?;
    }
    Ok(())
}

fn reserved_field() -> Result<()> {
    let (port, peer) = (dvs::bind()?, dvs::bind()?);
    let block = Exchange {
        peer: peer.endpoint().raw(),
        from: Endpoint::ANY.raw(),
        timeout_ns: 1_000_000,
        ..Exchange::default()
    };
    invalid(&port, "flags", &Exchange { flags: 1, ..block })?;
    invalid(&port, "all flags", &Exchange { flags: u32::MAX, ..block })
}

fn bad_address() -> Result<()> {
    let port = dvs::bind()?;
    let calls = [
        ioctl::SEND,
        ioctl::RECEIVE,
        ioctl::SENDREC,
        ioctl::REPLY,
        ioctl::REPLY_RECEIVE,
        ioctl::RECEIVE_REQUEST,
        ioctl::NOTIFY,
        ioctl::GET_INFO,
    ];
    for opcode in calls {
        let (nr, bytes) = ((opcode & 0xff) as u8, opcode >> 16 & 0x3fff);
        let result = raw::call_null(&port, nr, opcode >> 30, bytes);
        refused(&format!("call {nr:#x} with a null pointer"), result, Errno::Fault)?;
    }
    let device = dvk::Device::open(HOME)?;
    let (nr, bytes) = ((ioctl::BIND & 0xff) as u8, ioctl::BIND >> 16 & 0x3fff);
    refused("bind", raw::call_null(&device, nr, ioctl::BIND >> 30, bytes), Errno::Fault)
}

fn read_only(cast: &Cast) -> Result<()> {
    let block = Exchange { from: Endpoint::ANY.raw(), ..Exchange::default() };
    let arena = raw::Arena::new(1)?;
    let (port, peer) = (cast.port()?, cast.far()?);
    peer.notify(port.endpoint(), 6)?;
    cast.settle()?;
    let refusals = [
        arena.call_read_only::<{ ioctl::RECEIVE }>(&port, &block),
        arena.call_read_only::<{ ioctl::RECEIVE_REQUEST }>(&port, &block),
        arena.call_read_only::<{ ioctl::REPLY_RECEIVE }>(&port, &block),
        arena.call_read_only::<{ ioctl::SENDREC }>(&port, &block),
    ];
    for refusal in refusals {
        refused("a call with a read-only block", refusal, Errno::Fault)?;
    }
    let received = port.receive(Endpoint::ANY, Timeout::NoWait)?;
    equal("bits", received.message.notify_bits(), Some(6))
}

fn unknown_call() -> Result<()> {
    let port = dvs::bind()?;
    for nr in [0x00, 0x0f, 0x3f, 0x7f, 0xff] {
        let result = raw::call_null(&port, nr, 3, 128);
        refused(&format!("call {nr:#x}"), result, Errno::NotACall)?;
    }
    // The number is a call's, the size or direction is not.
    refused("receive of 64 bytes", raw::call_null(&port, 0x11, 3, 64), Errno::NotACall)?;
    refused("receive that only writes", raw::call_null(&port, 0x11, 1, 128), Errno::NotACall)
}
