// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who may use which memory, and until when.

use super::Case;
use crate::blocked::until;
use crate::check::{equal, fails, refused};
use crate::dvs::{self, with_generation, Scratch, HOME};
use crate::lent::{copy, grant, noise, revoke, stops, Direction, Lent, PAGE};
use crate::puppet::{share, LEAVE, LEND};
use anyhow::{bail, ensure, Result};
use dvk::raw::Arena;
use dvk::{Endpoint, Errno, GrantId, Message, Port, Slot, Timeout};
use dvk_abi::ioctl::{self, GRANT_READ, GRANT_WRITE, MAY_COPY, MAY_GRANT};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

pub(super) const CASES: &[Case] = &[
    Case::new("grant-gives-an-id-of-its-own", ids),
    Case::new("grant-checks-its-arguments", arguments),
    Case::new("grant-beyond-the-cap-is-enospc", cap),
    Case::new("grant-is-for-its-grantee", grantee),
    Case::new("grant-to-any-is-for-everybody-in-the-container", anybody),
    Case::new("grant-is-for-the-access-granted", access),
    Case::new("grant-is-for-its-range", range),
    Case::new("grant-is-of-the-memory-of-who-made-it", maker),
    Case::new("revoked-grant-is-eacces", revoked),
    Case::new("grant-id-never-names-a-later-grant", stale),
    Case::new("revoke-is-for-own-grants", own),
    Case::long("revoke-waits-until-nobody-uses-the-grant", waits),
    Case::new("grant-ends-with-its-endpoint", ends),
    Case::new("grants-are-counted", counted),
    Case::new("grant-and-copy-need-the-privilege", privilege),
];

const BOTH: u32 = GRANT_READ | GRANT_WRITE;

/// Whether `port` can use a grant for reading, and for writing.
fn uses(port: &Port, lent: &Lent) -> (Result<(), Errno>, Result<(), Errno>) {
    let mut byte = [0];
    let errno = |failed: dvk::CopyError| failed.error.errno().unwrap_or(Errno::NotACall);
    let read = port.copy_from(lent.at(0), &mut byte, Timeout::NoWait).map_err(errno);
    let write = port.copy_to(lent.at(0), &byte, Timeout::NoWait).map_err(errno);
    (read, write)
}

const DENIED: (Result<(), Errno>, Result<(), Errno>) = (Err(Errno::Denied), Err(Errno::Denied));

fn ids() -> Result<()> {
    let (port, peer) = (dvs::bind()?, dvs::bind()?);
    let mut seen = BTreeSet::new();
    for _ in 0..100 {
        let lent = Lent::new(&port, 1, peer.endpoint(), GRANT_READ)?;
        ensure!(lent.grant != GrantId::NONE, "an id is 0");
        ensure!(seen.insert(lent.grant.raw()), "two grants have the id {:#x}", lent.grant.raw());
    }
    Ok(())
}

fn arguments() -> Result<()> {
    let (port, arena) = (dvs::bind()?, Arena::new(1)?);
    let (start, any) = (arena.address(), Endpoint::ANY.raw());
    let right =
        ioctl::Grant { address: start, len: 8, to: any, access: BOTH, ..Default::default() };
    let refuse = |what: &str, mut block: ioctl::Grant, expected| {
        refused(what, arena.call::<{ ioctl::GRANT }, _>(&port, &mut block), expected)
    };
    refuse("no bytes", ioctl::Grant { len: 0, ..right }, Errno::Invalid)?;
    refuse("no access", ioctl::Grant { access: 0, ..right }, Errno::Invalid)?;
    refuse("unknown access", ioctl::Grant { access: 4 | BOTH, ..right }, Errno::Invalid)?;
    refuse("unknown flags", ioctl::Grant { flags: 1, ..right }, Errno::Invalid)?;
    for nobody in [Endpoint::NONE, Endpoint::SELF] {
        refuse("to nobody", ioctl::Grant { to: nobody.raw(), ..right }, Errno::Invalid)?;
    }
    let wraps = ioctl::Grant { address: u64::MAX, len: 2, ..right };
    refuse("a range that wraps", wraps, Errno::Invalid)?;
    let kernel = ioctl::Grant { address: 0xffff_8880_0000_0000, ..right };
    refuse("memory of the kernel", kernel, Errno::Fault)?;
    let gone = dvs::bind()?.endpoint();
    refuse("to the dead", ioctl::Grant { to: gone.raw(), ..right }, Errno::Stale)?;
    let never = with_generation(port.endpoint(), port.endpoint().generation() + 1);
    refuse("to one who never was", ioctl::Grant { to: never.raw(), ..right }, Errno::NoEndpoint)?;
    equal("grants", port.info()?.grants, 0)?;
    // What cannot be told the id is not left with a grant.
    let unbound = dvk::Device::open(HOME)?;
    refused(
        "on an unbound file",
        arena.call::<{ ioctl::GRANT }, _>(&unbound, &mut { right }),
        Errno::NotConnected,
    )?;
    let mut block = ioctl::Revoke { grant: 1 };
    refused(
        "revoke on an unbound file",
        dvk::raw::call::<{ ioctl::REVOKE }, _>(&unbound, &mut block),
        Errno::NotConnected,
    )
}

fn cap() -> Result<()> {
    let limits = dvk::Limits { grants: 3, ..dvk::Limits::default() };
    let scratch = Scratch::with(limits)?;
    scratch.lease(64, 32)?;
    let (one, two) = (scratch.bind()?, scratch.bind()?);
    let lend = |port: &Port| Lent::new(port, 1, Endpoint::ANY, GRANT_READ);
    let (first, _, _) = (lend(&one)?, lend(&one)?, lend(&two)?);
    let arena = Arena::new(1)?;
    let beyond = || grant(&two, arena, 0, PAGE, Endpoint::ANY, GRANT_READ);
    equal("a fourth grant", beyond(), Err(Errno::Limit))?;
    equal("revoke", revoke(&one, first.grant), Ok(()))?;
    ensure!(beyond().is_ok(), "the place of a revoked grant is not free");
    drop(one);
    ensure!(beyond().is_ok(), "the place of a dead endpoint's grant is not free");
    equal("a fourth grant", beyond(), Err(Errno::Limit))
}

fn grantee() -> Result<()> {
    let (port, peer, other) = (dvs::bind()?, dvs::bind()?, dvs::bind()?);
    let lent = Lent::new(&port, 1, peer.endpoint(), BOTH)?;
    equal("the grantee", uses(&peer, &lent), (Ok(()), Ok(())))?;
    equal("another", uses(&other, &lent), DENIED)?;
    equal("the granter", uses(&port, &lent), DENIED)?;
    // A later endpoint of the grantee's slot is somebody else.
    let slot = peer.endpoint().slot();
    drop(peer);
    loop {
        let next = dvs::bind()?;
        equal("a later endpoint", uses(&next, &lent), DENIED)?;
        if next.endpoint().slot() == slot {
            return Ok(());
        }
    }
}

fn anybody() -> Result<()> {
    let (port, one, two) = (dvs::bind()?, dvs::bind()?, dvs::bind()?);
    let lent = Lent::new(&port, 1, Endpoint::ANY, BOTH)?;
    for user in [&one, &two, &port] {
        equal("a use", uses(user, &lent), (Ok(()), Ok(())))?;
    }
    // Endpoints of other containers cannot even name the granter.
    let scratch = Scratch::new(0)?;
    scratch.lease(1024, 32)?;
    let outside = uses(&scratch.bind()?, &lent);
    equal("a use from outside", outside, (Err(Errno::NoEndpoint), Err(Errno::NoEndpoint)))
}

fn access() -> Result<()> {
    let (port, peer) = (dvs::bind()?, dvs::bind()?);
    let lend = |access| Lent::new(&port, 1, peer.endpoint(), access);
    equal("read", uses(&peer, &lend(GRANT_READ)?), (Ok(()), Err(Errno::Denied)))?;
    equal("write", uses(&peer, &lend(GRANT_WRITE)?), (Err(Errno::Denied), Ok(())))?;
    equal("both", uses(&peer, &lend(BOTH)?), (Ok(()), Ok(())))
}

fn range() -> Result<()> {
    let (port, peer) = (dvs::bind()?, dvs::bind()?);
    let arena = Arena::new(2)?;
    let id = grant(&port, arena, 100, 5000, peer.endpoint(), BOTH);
    let Ok(id) = id else { bail!("grant: {id:?}") };
    let lent = Lent::of(&port, arena, id);
    let mut buffer = vec![0; 5001];
    let mut from =
        |offset, len: usize| peer.copy_from(lent.at(offset), &mut buffer[..len], Timeout::NoWait);
    for (offset, len) in [(0, 5000), (4999, 1), (5000, 0)] {
        from(offset, len)?;
    }
    let outside = [
        (0, 5001),
        (1, 5000),
        (5000, 1),
        (5001, 0),
        (u64::MAX, 1),
        (u64::MAX - 3, 5),
        (1 << 63, 8),
    ];
    for (offset, len) in outside {
        stops("copy_from", from(offset, len), 0, Errno::Denied)?;
    }
    for (offset, len) in outside {
        let to = peer.copy_to(lent.at(offset), &buffer[..len], Timeout::NoWait);
        stops("copy_to", to, 0, Errno::Denied)?;
    }
    // Lengths that no memory has.
    for len in [u64::MAX, 1 << 62] {
        let between = peer.copy_between(lent.at(0), lent.at(0), len, Timeout::NoWait);
        stops("copy_between", between, 0, Errno::Denied)?;
    }
    Ok(())
}

fn maker() -> Result<()> {
    let (port, peer) = (dvs::bind()?, dvs::bind()?);
    let mut heir = share(&port)?;
    // The heir serves with the endpoint, and lends what is in its own memory.
    let reply = peer.sendrec(port.endpoint(), &Message::new(LEND), Timeout::from_millis(5_000))?;
    let (id, _) = reply.payload.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
    let granted = GrantId::from_raw(u64::from_le_bytes(*id)).of(port.endpoint(), 0);
    let mut bytes = vec![0; PAGE];
    peer.copy_from(granted, &mut bytes, Timeout::NoWait)?;
    ensure!(bytes == noise(u64::from(heir.id()), PAGE), "other memory than that of the heir");
    peer.send(port.endpoint(), &Message::new(LEAVE), Timeout::from_millis(5_000))?;
    until("the heir to leave", || Ok(heir.try_wait()?.is_some()))?;
    // The endpoint lives on in this process, but the memory is gone.
    let gone = peer.copy_from(granted, &mut bytes, Timeout::NoWait);
    stops("copy_from after the heir's end", gone, 0, Errno::Fault)
}

fn revoked() -> Result<()> {
    let (port, peer) = (dvs::bind()?, dvs::bind()?);
    let lent = Lent::new(&port, 1, peer.endpoint(), BOTH)?;
    equal("before", uses(&peer, &lent), (Ok(()), Ok(())))?;
    equal("revoke", revoke(&port, lent.grant), Ok(()))?;
    equal("after", uses(&peer, &lent), DENIED)
}

fn stale() -> Result<()> {
    let (port, peer) = (dvs::bind()?, dvs::bind()?);
    let old = Lent::new(&port, 1, peer.endpoint(), BOTH)?;
    equal("revoke", revoke(&port, old.grant), Ok(()))?;
    for _ in 0..100 {
        let new = Lent::new(&port, 1, peer.endpoint(), BOTH)?;
        equal("the new one", uses(&peer, &new), (Ok(()), Ok(())))?;
        equal("the old one", uses(&peer, &old), DENIED)?;
        equal("revoke of the old one", revoke(&port, old.grant), Err(Errno::Denied))?;
        equal("revoke", revoke(&port, new.grant), Ok(()))?;
    }
    for made_up in [0, 1, 2, 0xffff_ffff, u64::MAX] {
        let made_up = Lent { grant: GrantId::from_raw(made_up), ..old };
        equal("one that never was", uses(&peer, &made_up), DENIED)?;
    }
    Ok(())
}

fn own() -> Result<()> {
    let (port, peer) = (dvs::bind()?, dvs::bind()?);
    let lent = Lent::new(&port, 1, peer.endpoint(), BOTH)?;
    equal("the grantee's revoke", revoke(&peer, lent.grant), Err(Errno::Denied))?;
    equal("after it", uses(&peer, &lent), (Ok(()), Ok(())))?;
    equal("revoke", revoke(&port, lent.grant), Ok(()))?;
    equal("a second revoke", revoke(&port, lent.grant), Err(Errno::Denied))?;
    for made_up in [0, 7, u64::MAX] {
        let made_up = revoke(&port, GrantId::from_raw(made_up));
        equal("revoke of nothing", made_up, Err(Errno::Denied))?;
    }
    Ok(())
}

fn waits() -> Result<()> {
    const PAGES: usize = 128;
    const ROUNDS: u64 = 60;
    let (port, peer) = (dvs::bind()?, dvs::bind()?);
    let target = peer.endpoint();
    let (current, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let granter = port.endpoint();
    let writer = {
        let (current, stop) = (Arc::clone(&current), Arc::clone(&stop));
        std::thread::spawn(move || -> Result<(u64, u64)> {
            let (mut whole, mut cut) = (0, 0);
            let mut fill = 0u8;
            while !stop.load(Ordering::Relaxed) {
                fill = fill.wrapping_add(1);
                let grant = GrantId::from_raw(current.load(Ordering::Acquire));
                let from = vec![fill; PAGES * PAGE];
                match peer.copy_to(grant.of(granter, 0), &from, Timeout::NoWait) {
                    Ok(()) => whole += 1,
                    Err(failed) if failed.error.is(Errno::Denied) => cut += 1,
                    Err(failed) => return Err(failed.into()),
                }
            }
            Ok((whole, cut))
        })
    };
    let arena = Arena::new(PAGES)?;
    for round in 0..ROUNDS {
        let id = grant(&port, arena, 0, arena.bytes(), target, GRANT_WRITE);
        let Ok(id) = id else { bail!("grant: {id:?}") };
        current.store(id.raw(), Ordering::Release);
        std::thread::sleep(std::time::Duration::from_micros(300 * (round % 13)));
        equal("revoke", revoke(&port, id), Ok(()))?;
        let lent = Lent::of(&port, arena, id);
        let before = lent.bytes();
        std::thread::sleep(std::time::Duration::from_millis(2));
        ensure!(lent.bytes() == before, "memory changed after the grant was revoked");
    }
    stop.store(true, Ordering::Relaxed);
    let Ok(counts) = writer.join() else { bail!("the writer panicked") };
    let (whole, cut) = counts?;
    ensure!(whole > 0 && cut > 0, "{whole} copies succeeded and {cut} did not: nothing was tried");
    Ok(())
}

fn ends() -> Result<()> {
    let (port, peer) = (dvs::bind()?, dvs::bind()?);
    let lent = Lent::new(&port, 1, peer.endpoint(), BOTH)?;
    let granter = port.endpoint();
    let device = port.unbind()?;
    equal("after unbind", uses(&peer, &lent), (Err(Errno::Stale), Err(Errno::Stale)))?;
    // The file's next endpoint has none of the grants of the one before.
    let port = device.bind(Slot::Any)?;
    ensure!(port.endpoint() != granter, "an endpoint value came back");
    equal("grants", port.info()?.grants, 0)?;
    let renamed = Lent { granter: port.endpoint(), ..lent };
    equal("of the next endpoint", uses(&peer, &renamed), DENIED)?;
    // Nor does the caller of a copy survive its own end.
    let mine = Lent::new(&port, 1, Endpoint::ANY, BOTH)?;
    let arena = Arena::new(1)?;
    let unbound = dvk::Device::open(HOME)?;
    let mut block = ioctl::Copy {
        granted: ioctl::Granted {
            endpoint: port.endpoint().raw(),
            grant: mine.grant.raw(),
            offset: 0,
        },
        address: arena.address(),
        len: 1,
        ..Default::default()
    };
    refused(
        "a copy of nobody",
        arena.call::<{ ioctl::COPY_FROM }, _>(&unbound, &mut block),
        Errno::NotConnected,
    )?;
    equal("a copy", copy(&peer, Direction::From, mine.at(0), arena, 0, 1), Ok(()))
}

fn privilege() -> Result<()> {
    let (port, peer) = (dvs::bind()?, dvs::bind()?);
    let lent = Lent::new(&port, 1, Endpoint::ANY, BOTH)?;
    let without = |port: &Port, calls: u32| -> Result<()> {
        let all = port.privileges()?;
        Ok(port.set_privileges(&dvk::Privileges { calls: all.calls & !calls, ..all })?)
    };
    without(&port, MAY_GRANT)?;
    let refuse = grant(&port, lent.arena, 0, 1, Endpoint::ANY, BOTH);
    equal("a grant without the privilege", refuse, Err(Errno::Denied))?;
    equal("a copy with it", uses(&peer, &lent), (Ok(()), Ok(())))?;
    without(&peer, MAY_COPY)?;
    equal("a copy without it", uses(&peer, &lent), DENIED)?;
    let between = peer.copy_between(lent.at(0), lent.at(8), 8, Timeout::NoWait);
    stops("copy_between without it", between, 0, Errno::Denied)?;
    // What was lent before can be had back.
    equal("revoke", revoke(&port, lent.grant), Ok(()))
}

fn counted() -> Result<()> {
    let (port, peer) = (dvs::bind()?, dvs::bind()?);
    equal("grants", port.info()?.grants, 0)?;
    let lents: Vec<Lent> =
        (0..40).map(|_| Lent::new(&port, 1, peer.endpoint(), GRANT_READ)).collect::<Result<_>>()?;
    equal("grants", port.info()?.grants, 40)?;
    for (left, lent) in (0..40).rev().zip(&lents) {
        equal("revoke", revoke(&port, lent.grant), Ok(()))?;
        equal("grants", port.info()?.grants, left)?;
    }
    fails("nothing was sent", peer.receive(Endpoint::ANY, Timeout::NoWait), Errno::WouldBlock)
}
