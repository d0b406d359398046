// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who may use which memory, and until when.

use super::Case;
use crate::blocked::{patience, until};
use crate::cast::{Cast, Party};
use crate::check::{equal, fails, refused};
use crate::dvs::{self, with_generation, Scratch, HOME};
use crate::lent::{copy, grant, noise, revoke, stops, Direction, Lent, PAGE};
use crate::memory::{over_and_over, stopped, Loan, Memory};
use crate::order;
use crate::puppet::{share, LEAVE, LEND};
use crate::wish::Failed;
use anyhow::{bail, ensure, Result};
use dvk::raw::Arena;
use dvk::{Endpoint, Errno, GrantId, Message, Port, Slot, Timeout};
use dvk_abi::ioctl::{self, GRANT_READ, GRANT_WRITE, MAY_COPY, MAY_GRANT};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

pub(super) const CASES: &[Case] = &[
    Case::alone("grant-gives-an-id-of-its-own", "ids are given by the node of the granter", ids),
    Case::alone(
        "grant-checks-its-arguments",
        "an argument is refused by the node of the granter",
        arguments,
    ),
    Case::alone("grant-beyond-the-cap-is-enospc", "the cap is of one node", cap),
    Case::both("grant-is-for-its-grantee", grantee),
    Case::both("grant-to-any-is-for-everybody-in-the-container", anybody),
    Case::both("grant-is-for-the-access-granted", access),
    Case::both("grant-is-for-its-range", range),
    Case::toward("grant-is-of-the-memory-of-who-made-it", maker),
    Case::both("revoked-grant-is-eacces", revoked),
    Case::both("grant-id-never-names-a-later-grant", stale),
    Case::both("revoke-is-for-own-grants", own),
    Case::both("revoke-waits-until-nobody-uses-the-grant", waits).long(),
    Case::both("grant-ends-with-its-endpoint", ends),
    Case::both("grants-are-counted", counted),
    Case::both("grant-and-copy-need-the-privilege", privilege),
];

const BOTH: u32 = GRANT_READ | GRANT_WRITE;

/// Whether `party` can use a grant for reading, and for writing.
fn uses(cast: &Cast, party: &Party, loan: &Loan) -> Result<Uses> {
    let mine = Memory::of(party, 1)?;
    let once = |copied: Result<(), Failed>| match copied {
        Ok(()) => Ok(Ok(())),
        Err(failed) => failed.errno().map(Err).ok_or(failed),
    };
    let read = once(party.copy_from(loan.at(0), &mine, 0..1, cast.at_once()))?;
    let write = once(party.copy_to(loan.at(0), &mine, 0..1, cast.at_once()))?;
    Ok((read, write))
}

type Uses = (Result<(), Errno>, Result<(), Errno>);

const DENIED: Uses = (Err(Errno::Denied), Err(Errno::Denied));
const ALLOWED: Uses = (Ok(()), Ok(()));

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

fn grantee(cast: &Cast) -> Result<()> {
    let (port, peer, other) = (cast.near()?, cast.far()?, cast.far()?);
    let lent = Loan::new(&port, 1, peer.endpoint(), BOTH)?;
    equal("the grantee", uses(cast, &peer, &lent)?, ALLOWED)?;
    equal("another", uses(cast, &other, &lent)?, DENIED)?;
    equal("another of the granter's node", uses(cast, &cast.near()?, &lent)?, DENIED)?;
    equal("the granter", uses(cast, &port, &lent)?, DENIED)?;
    // A later endpoint of the grantee's slot is somebody else.
    let slot = peer.endpoint().slot();
    drop(peer);
    loop {
        let next = cast.far()?;
        let is_its = next.endpoint().slot() == slot;
        if is_its || cast.rounds(true, false) {
            equal("a later endpoint", uses(cast, &next, &lent)?, DENIED)?;
        }
        if is_its {
            return Ok(());
        }
    }
}

fn anybody(cast: &Cast) -> Result<()> {
    let (port, one, two) = (cast.near()?, cast.far()?, cast.near()?);
    let lent = Loan::new(&port, 1, Endpoint::ANY, BOTH)?;
    for user in [&one, &two, &port] {
        equal("a use", uses(cast, user, &lent)?, ALLOWED)?;
    }
    if cast.is_between_nodes() {
        return Ok(());
    }
    // Endpoints of other containers cannot even name the granter.
    let scratch = Scratch::new(0)?;
    scratch.lease(1024, 32)?;
    let outside = scratch.bind()?;
    let from = outside.copy_from(lent.at(0).into(), &mut [0], Timeout::NoWait);
    stops("copy_from from outside", from, 0, Errno::NoEndpoint)?;
    let to = outside.copy_to(lent.at(0).into(), &[0], Timeout::NoWait);
    stops("copy_to from outside", to, 0, Errno::NoEndpoint)
}

fn access(cast: &Cast) -> Result<()> {
    let (port, peer) = (cast.near()?, cast.far()?);
    let used = |access| uses(cast, &peer, &Loan::new(&port, 1, peer.endpoint(), access)?);
    equal("read", used(GRANT_READ)?, (Ok(()), Err(Errno::Denied)))?;
    equal("write", used(GRANT_WRITE)?, (Err(Errno::Denied), Ok(())))?;
    equal("both", used(BOTH)?, ALLOWED)
}

fn range(cast: &Cast) -> Result<()> {
    let (port, peer) = (cast.near()?, cast.far()?);
    let memory = Memory::of(&port, 2)?;
    let id = port.grant(&memory, 100..5100, peer.endpoint(), BOTH)?;
    let lent = Loan::of(&port, &memory, id);
    let (mine, limit) = (Memory::of(&peer, 2)?, cast.at_once());
    for (offset, len) in [(0, 5000), (4999, 1), (5000, 0)] {
        peer.copy_from(lent.at(offset), &mine, 0..len, limit)?;
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
        let from = peer.copy_from(lent.at(offset), &mine, 0..len, limit);
        stopped("copy_from", from, 0, Errno::Denied)?;
        let to = peer.copy_to(lent.at(offset), &mine, 0..len, limit);
        stopped("copy_to", to, 0, Errno::Denied)?;
    }
    // Lengths that no memory has.
    for len in [u64::MAX, 1 << 62] {
        let between = peer.copy_between(lent.at(0), lent.at(0), len, limit);
        stopped("copy_between", between, 0, Errno::Denied)?;
    }
    Ok(())
}

fn maker(cast: &Cast) -> Result<()> {
    let (port, peer) = (cast.port()?, cast.far()?);
    let mut heir = share(&port)?;
    // The heir serves with the endpoint, and lends what is in its own memory.
    let reply = peer.sendrec(port.endpoint(), &Message::new(LEND), Timeout::After(patience()))?;
    let (id, _) = reply.payload.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
    let (endpoint, grant) = (port.endpoint().raw(), u64::from_le_bytes(*id));
    let granted = order::Lent { endpoint, grant, offset: 0 };
    let (mine, limit) = (Memory::of(&peer, 1)?, cast.at_once());
    peer.copy_from(granted, &mine, 0..PAGE, limit)?;
    mine.has("the heir's memory", 0, &noise(u64::from(heir.id()), PAGE))?;
    peer.send(port.endpoint(), &Message::new(LEAVE), Timeout::After(patience()))?;
    until("the heir to leave", || Ok(heir.try_wait()?.is_some()))?;
    // The endpoint lives on in this process, but the memory is gone.
    let gone = peer.copy_from(granted, &mine, 0..PAGE, limit);
    stopped("copy_from after the heir's end", gone, 0, Errno::Fault)
}

fn revoked(cast: &Cast) -> Result<()> {
    let (port, peer) = (cast.near()?, cast.far()?);
    let lent = Loan::new(&port, 1, peer.endpoint(), BOTH)?;
    equal("before", uses(cast, &peer, &lent)?, ALLOWED)?;
    port.revoke(lent.grant)?;
    equal("after", uses(cast, &peer, &lent)?, DENIED)
}

fn stale(cast: &Cast) -> Result<()> {
    let (port, peer) = (cast.near()?, cast.far()?);
    let old = Loan::new(&port, 1, peer.endpoint(), BOTH)?;
    port.revoke(old.grant)?;
    for _ in 0..cast.rounds(100, 10) {
        let new = Loan::new(&port, 1, peer.endpoint(), BOTH)?;
        equal("the new one", uses(cast, &peer, &new)?, ALLOWED)?;
        equal("the old one", uses(cast, &peer, &old)?, DENIED)?;
        fails("revoke of the old one", port.revoke(old.grant), Errno::Denied)?;
        port.revoke(new.grant)?;
    }
    for made_up in [0, 1, 2, 0xffff_ffff, u64::MAX] {
        let made_up = Loan { grant: GrantId::from_raw(made_up), ..old.clone() };
        equal("one that never was", uses(cast, &peer, &made_up)?, DENIED)?;
    }
    Ok(())
}

fn own(cast: &Cast) -> Result<()> {
    let (port, peer) = (cast.near()?, cast.far()?);
    let lent = Loan::new(&port, 1, peer.endpoint(), BOTH)?;
    fails("the grantee's revoke", peer.revoke(lent.grant), Errno::Denied)?;
    equal("after it", uses(cast, &peer, &lent)?, ALLOWED)?;
    port.revoke(lent.grant)?;
    fails("a second revoke", port.revoke(lent.grant), Errno::Denied)?;
    for made_up in [0, 7, u64::MAX] {
        let made_up = port.revoke(GrantId::from_raw(made_up));
        fails("revoke of nothing", made_up, Errno::Denied)?;
    }
    Ok(())
}

fn waits(cast: &Cast) -> Result<()> {
    const PAGES: usize = 128;
    let rounds = cast.rounds(60, 8);
    let (port, peer) = (cast.near()?, cast.far()?);
    let (memory, mine) = (Memory::of(&port, PAGES)?, Memory::of(&peer, PAGES)?);
    let all = 0..memory.bytes();
    let mut cut = 0;
    for round in 0..rounds {
        // Each time other bytes, so that one that comes late shows.
        mine.fill(round)?;
        let id = port.grant(&memory, all.clone(), peer.endpoint(), GRANT_WRITE)?;
        let lent = Loan::of(&port, &memory, id);
        let begin = Instant::now();
        peer.copy_to(lent.at(0), &mine, all.clone(), cast.at_once())?;
        let took = begin.elapsed();
        mine.fill(round + 1000)?;
        let copies = peer.begin(over_and_over(true, lent.at(0), &mine, cast.at_once()))?;
        // Now and then at once, else somewhere in the first two copies, however fast they are.
        std::thread::sleep(took * (round % 13) as u32 / 6);
        port.revoke(id)?;
        let before = memory.digest()?;
        let ended = copies.join("copies to end with the grant")?;
        std::thread::sleep(Duration::from_millis(2));
        equal("memory after the grant was revoked", memory.digest()?, before)?;
        let Err(failed) = ended else { bail!("copies ended without an error") };
        ensure!(failed.errno() == Some(Errno::Denied), "copies ended otherwise: {failed}");
        cut += u32::from(failed.copied() > 0);
    }
    ensure!(cut > 0, "no copy was cut short: nothing was tried");
    Ok(())
}

fn ends(cast: &Cast) -> Result<()> {
    let (port, peer) = (cast.near()?, cast.far()?);
    let lent = Loan::new(&port, 1, peer.endpoint(), BOTH)?;
    let (granter, memory) = (port.endpoint(), lent.memory.clone());
    drop(port);
    equal("after its end", uses(cast, &peer, &lent)?, (Err(Errno::Stale), Err(Errno::Stale)))?;
    // The next endpoint of the slot has none of the grants of the one before.
    let next = loop {
        let next = cast.near()?;
        if next.endpoint().slot() == granter.slot() {
            break next;
        }
    };
    ensure!(next.endpoint() != granter, "an endpoint value came back");
    equal("grants", next.info()?.grants, 0)?;
    let renamed = Loan { granter: next.endpoint(), ..lent };
    equal("of the next endpoint", uses(cast, &peer, &renamed)?, DENIED)?;
    let id = next.grant(&memory, 0..1, Endpoint::ANY, BOTH)?;
    equal("a new one", uses(cast, &peer, &Loan::of(&next, &memory, id))?, ALLOWED)?;
    if cast.is_between_nodes() {
        return Ok(());
    }
    own_file_ends()
}

/// An endpoint's grants are not those of the next one of its file, and a file that is not bound
/// copies nothing.
fn own_file_ends() -> Result<()> {
    let (port, peer) = (dvs::bind()?, dvs::bind()?);
    let lent = Lent::new(&port, 1, peer.endpoint(), BOTH)?;
    let device = port.unbind()?;
    let from = peer.copy_from(lent.at(0), &mut [0], Timeout::NoWait);
    stops("copy_from after unbind", from, 0, Errno::Stale)?;
    let to = peer.copy_to(lent.at(0), &[0], Timeout::NoWait);
    stops("copy_to after unbind", to, 0, Errno::Stale)?;
    let port = device.bind(Slot::Any)?;
    ensure!(port.endpoint() != lent.granter, "an endpoint value came back");
    equal("grants", port.info()?.grants, 0)?;
    let renamed = Lent { granter: port.endpoint(), ..lent };
    let from = peer.copy_from(renamed.at(0), &mut [0], Timeout::NoWait);
    stops("copy_from what the file's last endpoint lent", from, 0, Errno::Denied)?;
    let to = peer.copy_to(renamed.at(0), &[0], Timeout::NoWait);
    stops("copy_to what the file's last endpoint lent", to, 0, Errno::Denied)?;
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

fn counted(cast: &Cast) -> Result<()> {
    let (port, peer) = (cast.near()?, cast.far()?);
    equal("grants", port.info()?.grants, 0)?;
    let lents: Vec<Loan> =
        (0..40).map(|_| Loan::new(&port, 1, peer.endpoint(), GRANT_READ)).collect::<Result<_>>()?;
    equal("grants", port.info()?.grants, 40)?;
    for (left, lent) in (0..40).rev().zip(&lents) {
        port.revoke(lent.grant)?;
        equal("grants", port.info()?.grants, left)?;
    }
    cast.settle()?;
    peer.is_empty()
}

fn privilege(cast: &Cast) -> Result<()> {
    let (port, peer) = (cast.near()?, cast.far()?);
    let lent = Loan::new(&port, 1, Endpoint::ANY, BOTH)?;
    let without = |party: &Party, calls: u32| -> Result<()> {
        let all = party.privileges()?;
        Ok(party.set_privileges(&dvk::Privileges { calls: all.calls & !calls, ..all })?)
    };
    without(&port, MAY_GRANT)?;
    let refuse = port.grant(&lent.memory, 0..1, Endpoint::ANY, BOTH);
    fails("a grant without the privilege", refuse, Errno::Denied)?;
    equal("a copy with it", uses(cast, &peer, &lent)?, ALLOWED)?;
    without(&peer, MAY_COPY)?;
    equal("a copy without it", uses(cast, &peer, &lent)?, DENIED)?;
    let between = peer.copy_between(lent.at(0), lent.at(8), 8, cast.at_once());
    stopped("copy_between without it", between, 0, Errno::Denied)?;
    // What was lent before can be had back.
    Ok(port.revoke(lent.grant)?)
}
