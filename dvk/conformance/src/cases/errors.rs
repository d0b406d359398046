// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls that are wrong from the start. None of them waits or transfers anything.

use super::exchange::bind_shared;
use super::Case;
use crate::blocked::blocked;
use crate::check::{equal, fails, refused};
use crate::dvs::{self, with_generation, FIRST_SLOT, HOME, SLOTS};
use anyhow::Result;
use dvk::{raw, Endpoint, Errno, Message, Port, Slot, Timeout};
use dvk_abi::ioctl::{self, Exchange};
use dvk_abi::limits;
use std::sync::Arc;

pub(super) const CASES: &[Case] = &[
    Case::new("stale-generation-is-estale", stale),
    Case::new("unknown-endpoint-is-esrch", unknown),
    Case::new("reserved-endpoint-is-einval", reserved_endpoint),
    Case::new("send-to-oneself-is-edeadlk", oneself),
    Case::new("second-thread-is-ebusy", second_thread),
    Case::new("reserved-field-is-einval", reserved_field),
    Case::new("bad-address-is-efault", bad_address),
    Case::new("block-that-cannot-be-written-loses-no-message", read_only),
    Case::new("unknown-call-is-enotty", unknown_call),
];

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

fn stale() -> Result<()> {
    let port = dvs::bind()?;
    let endpoint = Port::bind(HOME, Slot::Server(11))?.endpoint();
    // The slot is free.
    naming(&port, endpoint, Errno::Stale)?;
    let _successor = Port::bind(HOME, Slot::Server(11))?;
    naming(&port, endpoint, Errno::Stale)?;
    naming(&port, with_generation(endpoint, 1), Errno::Stale)
}

fn unknown() -> Result<()> {
    let port = dvs::bind()?;
    // Nobody has this server slot, or ever had: cases use others.
    naming(&port, Endpoint::from_raw(1 << 32 | 63), Errno::NoEndpoint)?;
    // In nobody's lease.
    let beyond = u64::from(FIRST_SLOT + SLOTS + 320);
    naming(&port, Endpoint::from_raw(1 << 32 | beyond), Errno::NoEndpoint)?;
    // A generation that is still to come.
    let next = with_generation(port.endpoint(), port.endpoint().generation() + 1);
    naming(&port, next, Errno::NoEndpoint)
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

fn second_thread() -> Result<()> {
    let (port, peer) = (bind_shared()?, dvs::bind()?);
    let (to, limit) = (peer.endpoint(), Timeout::from_millis(2_000));
    let waiting = Arc::clone(&port);
    let receive = blocked(move || waiting.receive(Endpoint::ANY, Timeout::Forever))?;
    fails("second receive", port.receive(Endpoint::ANY, limit), Errno::Busy)?;
    fails("send during receive", port.send(to, &Message::new(1), limit), Errno::Busy)?;
    fails("sendrec during receive", port.sendrec(to, &Message::new(1), limit), Errno::Busy)?;
    receive.waits("the first receive")?;
    // Calls that never wait are open to other threads.
    port.notify(to, 1)?;
    peer.notify(port.endpoint(), 1)?;
    receive.join("the first receive to end")??;
    let waiting = Arc::clone(&port);
    let request = blocked(move || waiting.sendrec(to, &Message::new(1), Timeout::Forever))?;
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

fn read_only() -> Result<()> {
    let block = Exchange { from: Endpoint::ANY.raw(), ..Exchange::default() };
    let arena = raw::Arena::new(1)?;
    let (port, peer) = (dvs::bind()?, dvs::bind()?);
    peer.notify(port.endpoint(), 6)?;
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
