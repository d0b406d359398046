// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bytes that are copied out of and into what others granted.

use super::Case;
use crate::blocked::until;
use crate::cast::{Cast, Party};
use crate::check::{equal, refused};
use crate::dvs;
use crate::lent::{noise, Lent, PAGE};
use crate::memory::{over_and_over, place, stopped, Loan, Memory};
use crate::wish;
use anyhow::{bail, ensure, Result};
use dvk::{Endpoint, Errno, Timeout};
use dvk_abi::ioctl::{self, GRANT_READ, GRANT_WRITE};
use std::time::{Duration, Instant};

pub(super) const CASES: &[Case] = &[
    Case::both("copy-from-brings-every-byte", from).long(),
    Case::both("copy-to-brings-every-byte", to).long(),
    Case::both("copy-between-brings-every-byte", between).long(),
    Case::both("copy-between-needs-both-grants", both_grants),
    Case::both("copy-of-nothing-checks-the-grant", nothing),
    Case::both("copy-reaches-memory-that-was-never-touched", untouched),
    Case::both("copy-never-waits-for-an-exchange", no_exchange),
    Case::alone("copy-within-this-node-is-no-wait", "it is about one node", no_wait),
    Case::both("copy-stops-at-a-hole-in-the-granters-memory", granters_hole),
    Case::both("copy-stops-at-a-hole-in-the-callers-memory", callers_hole),
    Case::both("copy-never-writes-to-read-only-memory", read_only),
    Case::both("copy-of-overlapping-ranges-is-einval", overlapping),
    Case::both("copy-stops-at-a-signal-with-eintr", signal),
    Case::both("copy-stops-when-the-granter-dies", death).long(),
    Case::both("copies-go-on-side-by-side", side_by_side).long(),
];

const BOTH: u32 = GRANT_READ | GRANT_WRITE;

/// Lengths and places that meet page borders, batches of pages and words in every way.
fn shapes(cast: &Cast) -> impl Iterator<Item = (usize, usize)> {
    let lens = [1, 2, 7, 8, 9, 63, 64, 255, 4095, 4096, 4097, 8191, 65_536, 100_001];
    let starts = [0, 1, 8, 4090, 4095, 4096, 12_289];
    let all =
        lens.into_iter().flat_map(move |len| starts.into_iter().map(move |start| (start, len)));
    // Each length and each place is among the fewer ones, too.
    all.step_by(cast.rounds(1, 3))
}

/// Pages that hold every shape.
const PAGES: usize = 32;

/// Pages of the copies that are long: they take many parts and batches.
const LONG_PAGES: usize = 700;

fn from(cast: &Cast) -> Result<()> {
    let (port, peer, limit) = (cast.near()?, cast.far()?, cast.at_once());
    let (lent, bytes) = Loan::noisy(&port, PAGES, peer.endpoint(), GRANT_READ, 1)?;
    let mine = Memory::of(&peer, PAGES)?;
    for (start, len) in shapes(cast) {
        for skew in [0, 3] {
            mine.fill_part(0..len + 16, 2, 0)?;
            let mut expected = noise(2, len + 16);
            expected[skew..skew + len].copy_from_slice(&bytes[start..start + len]);
            peer.copy_from(lent.at(start as u64), &mine, skew..skew + len, limit)?;
            mine.has(&format!("{len} bytes from {start}"), 0, &expected)?;
        }
    }
    lent.memory.has("what was granted", 0, &bytes)?;
    let (long, bytes) = Loan::noisy(&port, LONG_PAGES, peer.endpoint(), GRANT_READ, 3)?;
    let mine = Memory::of(&peer, LONG_PAGES)?;
    peer.copy_from(long.at(5), &mine, 0..bytes.len() - 5, limit)?;
    mine.has("2.7 MiB", 0, &bytes[5..])?;
    mine.has("what is behind", bytes.len() - 5, &[0; 5])
}

fn to(cast: &Cast) -> Result<()> {
    let (port, peer, limit) = (cast.near()?, cast.far()?, cast.at_once());
    let (lent, mut expected) = Loan::noisy(&port, PAGES, peer.endpoint(), GRANT_WRITE, 1)?;
    let mine = Memory::of(&peer, PAGES)?;
    for (seed, (start, len)) in (10u64..).zip(shapes(cast)) {
        mine.fill_part(0..len + 3, seed, 0)?;
        peer.copy_to(lent.at(start as u64), &mine, 3..len + 3, limit)?;
        expected[start..start + len].copy_from_slice(&noise(seed, len + 3)[3..]);
        lent.memory.has(&format!("{len} bytes to {start}"), 0, &expected)?;
    }
    let long = Loan::new(&port, LONG_PAGES, peer.endpoint(), GRANT_WRITE)?;
    let mine = Memory::of(&peer, LONG_PAGES)?;
    mine.fill(3)?;
    peer.copy_to(long.at(5), &mine, 0..mine.bytes() - 5, limit)?;
    long.memory.has("what is before", 0, &[0; 5])?;
    long.memory.has("2.7 MiB", 5, &noise(3, mine.bytes() - 5))
}

fn between(cast: &Cast) -> Result<()> {
    let (one, two, peer, limit) = (cast.near()?, cast.far()?, cast.far()?, cast.at_once());
    // From the other node to the caller's, back, and within the other one.
    for (from, to) in [(&one, &two), (&two, &one), (&one, &cast.near()?)] {
        copy_shapes(cast, from, to, &peer)?;
    }
    let (source, bytes) = Loan::noisy(&one, 300, peer.endpoint(), GRANT_READ, 4)?;
    let sink = Loan::new(&two, 300, peer.endpoint(), GRANT_WRITE)?;
    let len = bytes.len() - 77;
    peer.copy_between(source.at(77), sink.at(0), len as u64, limit)?;
    sink.memory.has("1.2 MiB", 0, &bytes[77..])?;
    sink.memory.has("what is behind", len, &[0; 77])
}

fn copy_shapes(cast: &Cast, from: &Party, to: &Party, caller: &Party) -> Result<()> {
    const THERE: [u64; 3] = [0, 5, 4095];
    let limit = cast.at_once();
    let (source, bytes) = Loan::noisy(from, PAGES, caller.endpoint(), GRANT_READ, 1)?;
    let (sink, mut expected) = Loan::noisy(to, PAGES, caller.endpoint(), GRANT_WRITE, 2)?;
    for ((start, len), one) in shapes(cast).zip(THERE.chunks(1).cycle()) {
        for &there in cast.rounds(&THERE[..], one) {
            caller.copy_between(source.at(start as u64), sink.at(there), len as u64, limit)?;
            let end = there as usize + len;
            expected[there as usize..end].copy_from_slice(&bytes[start..start + len]);
            sink.memory.has(&format!("{len} bytes from {start} to {there}"), 0, &expected)?;
        }
    }
    source.memory.has("the source", 0, &bytes)
}

fn both_grants(cast: &Cast) -> Result<()> {
    let (one, two, peer, limit) = (cast.near()?, cast.far()?, cast.far()?, cast.at_once());
    let lend = |party: &Party, access| Loan::new(party, 1, peer.endpoint(), access);
    let (readable, writable) = (lend(&one, GRANT_READ)?, lend(&two, GRANT_WRITE)?);
    let other = Loan::new(&two, 1, one.endpoint(), BOTH)?;
    readable.memory.fill(1)?;
    let all = PAGE as u64;
    for (what, from, to) in [
        ("to what may only be read", &readable, &readable),
        ("from what may only be written", &writable, &writable),
        ("to what another was granted", &readable, &other),
        ("from what another was granted", &other, &writable),
    ] {
        let copied = peer.copy_between(from.at(0), to.at(0), all, limit);
        stopped(what, copied, 0, Errno::Denied)?;
    }
    let beyond = peer.copy_between(readable.at(1), writable.at(0), all, limit);
    stopped("beyond the source", beyond, 0, Errno::Denied)?;
    let beyond = peer.copy_between(readable.at(0), writable.at(1), all, limit);
    stopped("beyond the destination", beyond, 0, Errno::Denied)?;
    writable.memory.has("what was not copied", 0, &[0; PAGE])?;
    peer.copy_between(readable.at(0), writable.at(0), all, limit)?;
    writable.memory.has("what was", 0, &noise(1, PAGE))
}

fn nothing(cast: &Cast) -> Result<()> {
    let (port, peer, limit) = (cast.near()?, cast.far()?, cast.at_once());
    let lent = Loan::new(&port, 1, peer.endpoint(), GRANT_READ)?;
    let mine = Memory::of(&peer, 1)?;
    for offset in [0, 5, PAGE as u64] {
        peer.copy_from(lent.at(offset), &mine, 0..0, limit)?;
    }
    let beyond = peer.copy_from(lent.at(PAGE as u64 + 1), &mine, 0..0, limit);
    stopped("copy_from beyond", beyond, 0, Errno::Denied)?;
    stopped("copy_to", peer.copy_to(lent.at(0), &mine, 0..0, limit), 0, Errno::Denied)?;
    let between = peer.copy_between(lent.at(0), lent.at(0), 0, limit);
    stopped("copy_between", between, 0, Errno::Denied)
}

fn untouched(cast: &Cast) -> Result<()> {
    let (port, peer, limit) = (cast.near()?, cast.far()?, cast.at_once());
    let lent = Loan::new(&port, 100, peer.endpoint(), BOTH)?;
    let (into, all) = (Memory::of(&peer, 100)?, 0..100 * PAGE);
    into.fill_part(0..1, 7, 0)?;
    peer.copy_from(lent.at(0), &into, all.clone(), limit)?;
    into.has("untouched memory", 0, &vec![0; all.len()])?;
    // Read before, it is all one page of zeros; written, each page is its own.
    let bytes = Memory::of(&peer, 3)?;
    bytes.fill(1)?;
    peer.copy_to(lent.at(50 * PAGE as u64 + 9), &bytes, 0..3 * PAGE, limit)?;
    let mut expected = vec![0; all.len()];
    expected[50 * PAGE + 9..53 * PAGE + 9].copy_from_slice(&noise(1, 3 * PAGE));
    lent.memory.has("memory that was written", 0, &expected)?;
    Memory::of(&port, 1)?.has("other untouched memory", 0, &[0; PAGE])
}

fn no_exchange(cast: &Cast) -> Result<()> {
    let (port, peer, limit) = (cast.near()?, cast.far()?, cast.at_once());
    let lent = Loan::new(&port, 1, peer.endpoint(), BOTH)?;
    let (mine, back) = (Memory::of(&peer, 1)?, Memory::of(&peer, 1)?);
    mine.fill(1)?;
    // Neither the granter nor the caller need to be free.
    let wait = |party: &Party| party.begin(wish::receive(Endpoint::ANY, Timeout::Forever));
    let (granter, caller) = (wait(&port)?, wait(&peer)?);
    peer.copy_to(lent.at(0), &mine, 0..PAGE, limit)?;
    peer.copy_from(lent.at(0), &back, 0..PAGE, limit)?;
    back.has("bytes", 0, &noise(1, PAGE))?;
    granter.waits("the granter's receive")?;
    caller.waits("the caller's receive")?;
    peer.notify(port.endpoint(), 1)?;
    port.notify(peer.endpoint(), 1)?;
    granter.join("receive")??;
    caller.join("receive")??;
    Ok(())
}

fn no_wait() -> Result<()> {
    let (port, peer) = (dvs::bind()?, dvs::bind()?);
    let lent = Lent::new(&port, 1, peer.endpoint(), BOTH)?;
    for timeout in [Timeout::NoWait, Timeout::Forever, Timeout::After(Duration::from_nanos(1))] {
        peer.copy_to(lent.at(0), &[1, 2, 3], timeout)?;
        peer.copy_from(lent.at(0), &mut [0; 3], timeout)?;
    }
    Ok(())
}

fn granters_hole(cast: &Cast) -> Result<()> {
    let (port, peer, limit) = (cast.near()?, cast.far()?, cast.at_once());
    for (pages, start) in [(1, 0), (1, 5), (3, 4097), (70, 1), (200, 9)] {
        // The page behind the memory is there for nobody.
        let memory = Memory::of(&port, pages)?;
        let granted = port.grant(&memory, 0..memory.bytes() + PAGE, peer.endpoint(), BOTH)?;
        let lent = Loan::of(&port, &memory, granted);
        let there = memory.bytes() - start;
        memory.fill_part(start..memory.bytes(), 1, 0)?;
        let mine = Memory::of(&peer, pages + 1)?;
        mine.fill(5)?;
        let from = peer.copy_from(lent.at(start as u64), &mine, 0..there + PAGE, limit);
        stopped("copy_from", from, there as u64, Errno::Fault)?;
        mine.has("what is before the hole", 0, &noise(1, there))?;
        mine.has("what is not", there, &noise(5, there + PAGE)[there..])?;
        mine.fill(2)?;
        let to = peer.copy_to(lent.at(start as u64), &mine, 0..there + PAGE, limit);
        stopped("copy_to", to, there as u64, Errno::Fault)?;
        memory.has("what was written", start, &noise(2, there))?;
        let last = peer.copy_from(lent.at(memory.bytes() as u64), &mine, 0..1, limit);
        stopped("copy_from the hole", last, 0, Errno::Fault)?;
        for sink in [&port, &peer] {
            let sink = Loan::new(sink, pages + 1, peer.endpoint(), GRANT_WRITE)?;
            let len = (there + PAGE) as u64;
            let copied = peer.copy_between(lent.at(start as u64), sink.at(0), len, limit);
            stopped("copy_between", copied, there as u64, Errno::Fault)?;
            sink.memory.has("what it copied", 0, &noise(2, there))?;
        }
    }
    Ok(())
}

fn callers_hole(cast: &Cast) -> Result<()> {
    let (port, peer, limit) = (cast.near()?, cast.far()?, cast.at_once());
    for (pages, start) in [(1, 0), (1, 4095), (3, 4097), (70, 1), (200, 9)] {
        let (lent, bytes) = Loan::noisy(&port, pages + 1, peer.endpoint(), BOTH, 1)?;
        let mine = Memory::of(&peer, pages)?;
        let (there, range) = (mine.bytes() - start, start..mine.bytes() + 1);
        let copied = peer.copy_from(lent.at(3), &mine, range.clone(), limit);
        stopped("copy_from", copied, there as u64, Errno::Fault)?;
        mine.has("what arrived", start, &bytes[3..3 + there])?;
        mine.fill_part(start..mine.bytes(), 2, 0)?;
        let copied = peer.copy_to(lent.at(3), &mine, range, limit);
        stopped("copy_to", copied, there as u64, Errno::Fault)?;
        lent.memory.has("what was written", 3, &noise(2, there))?;
        lent.memory.has("what was not", 3 + there, &bytes[3 + there..])?;
    }
    if cast.is_between_nodes() {
        return Ok(());
    }
    nowhere()
}

/// Memory that no program has.
fn nowhere() -> Result<()> {
    let (port, peer) = (dvs::bind()?, dvs::bind()?);
    let lent = Lent::new(&port, 1, peer.endpoint(), BOTH)?;
    for (address, len) in [(0, 8), (0xffff_8880_0000_0000, 8), (u64::MAX, 2)] {
        let granted = lent.at(0);
        let mut block = ioctl::Copy {
            granted: ioctl::Granted {
                endpoint: granted.endpoint.raw(),
                grant: granted.grant.raw(),
                offset: 0,
            },
            address,
            len,
            timeout_ns: 0,
            copied: u64::MAX,
        };
        let called = lent.arena.call::<{ ioctl::COPY_FROM }, _>(&peer, &mut block);
        refused("copy_from to nowhere", called, Errno::Fault)?;
        equal("copied", block.copied, 0)?;
    }
    Ok(())
}

fn read_only(cast: &Cast) -> Result<()> {
    let (port, peer, limit) = (cast.near()?, cast.far()?, cast.at_once());
    let memory = Memory::read_only(&port, 2)?;
    let granted = port.grant(&memory, 0..2 * PAGE, peer.endpoint(), BOTH)?;
    let lent = Loan::of(&port, &memory, granted);
    let (mine, forbidden) = (Memory::of(&peer, 1)?, Memory::read_only(&peer, 1)?);
    mine.fill(1)?;
    peer.copy_from(lent.at(0), &mine, 0..9, limit)?;
    mine.has("zeros", 0, &[0; 9])?;
    let to = peer.copy_to(lent.at(0), &mine, 100..109, limit);
    stopped("copy_to", to, 0, Errno::Fault)?;
    for source in [&port, &peer] {
        let (source, _) = Loan::noisy(source, 1, peer.endpoint(), GRANT_READ, 3)?;
        let between = peer.copy_between(source.at(0), lent.at(0), 8, limit);
        stopped("copy_between", between, 0, Errno::Fault)?;
        // Nor to such memory of the caller.
        let copied = peer.copy_from(source.at(0), &forbidden, 0..PAGE, limit);
        stopped("copy_from", copied, 0, Errno::Fault)?;
    }
    memory.has("what is there", 0, &[0; 2 * PAGE])?;
    forbidden.has("what the caller has", 0, &[0; PAGE])
}

fn overlapping(cast: &Cast) -> Result<()> {
    let (port, peer, limit) = (cast.near()?, cast.far()?, cast.at_once());
    let (lent, bytes) = Loan::noisy(&port, PAGES, Endpoint::ANY, BOTH, 1)?;
    let len = 3 * PAGE;
    for (from, to) in [(0, 0), (0, 1), (1, 0), (0, len - 1), (len - 1, 0)] {
        let (source, sink) = (lent.at(from as u64), lent.at(to as u64));
        for caller in [&port, &peer] {
            let between = caller.copy_between(source, sink, len as u64, limit);
            stopped("copy_between", between, 0, Errno::Invalid)?;
        }
        let copied = port.copy_from(source, &lent.memory, to..to + len, limit);
        stopped("copy_from one's own", copied, 0, Errno::Invalid)?;
        let copied = port.copy_to(source, &lent.memory, to..to + len, limit);
        stopped("copy_to one's own", copied, 0, Errno::Invalid)?;
    }
    lent.memory.has("what is there", 0, &bytes)?;
    // Side by side they may be.
    peer.copy_between(lent.at(0), lent.at(len as u64), len as u64, limit)?;
    port.copy_from(lent.at(0), &lent.memory, 2 * len..3 * len, limit)?;
    lent.memory.has("the second", len, &bytes[..len])?;
    lent.memory.has("the third", 2 * len, &bytes[..len])
}

fn signal(cast: &Cast) -> Result<()> {
    let port = cast.far()?;
    let (puppet, peer) = cast.near_puppet()?;
    puppet.catch_signals()?;
    // A copy of so many takes many batches, and some time. Nodes of a cluster have less memory.
    let (pages, limit) =
        if cast.is_between_nodes() { (4096, Timeout::Forever) } else { (16_384, Timeout::NoWait) };
    let lent = Loan::new(&port, pages, peer.endpoint(), GRANT_READ)?;
    let mine = Memory::of(&peer, pages)?;
    // With nothing copied the signal may have come before a call, or before the first bytes.
    for delay in (0..12).map(|doublings| 1 << doublings) {
        let copies = peer.begin(over_and_over(false, lent.at(0), &mine, limit))?;
        std::thread::sleep(Duration::from_millis(delay));
        until("a signal to end a copy", || {
            puppet.interrupt()?;
            std::thread::sleep(Duration::from_millis(5));
            Ok(copies.is_over())
        })?;
        let Err(failed) = copies.join("a copy to end")? else { bail!("copies have no end") };
        ensure!(failed.errno() == Some(Errno::Interrupted), "expected EINTR, got {failed}");
        let (whole, copied) = (mine.bytes() as u64, failed.copied());
        ensure!(copied < whole, "all {copied} bytes before the signal");
        if copied > 0 {
            return Ok(());
        }
    }
    bail!("no signal came during a copy of {} MiB", (pages * PAGE) >> 20)
}

fn death(cast: &Cast) -> Result<()> {
    const LENT: usize = 1024;
    let (peer, limit) = (cast.far()?, cast.at_once());
    let mine = Memory::of(&peer, LENT)?;
    let mut cut = 0;
    for round in 0..cast.rounds(20, 6) {
        let (puppet, granter) = cast.near_puppet()?;
        let lent = Loan::new(&granter, LENT, peer.endpoint(), GRANT_READ)?;
        // The first one brings in the copier's pages, which may take longer than all rounds.
        let begin = Instant::now();
        peer.copy_from(lent.at(0), &mine, 0..mine.bytes(), limit)?;
        let took = begin.elapsed();
        let copies = peer.begin(over_and_over(false, lent.at(0), &mine, limit))?;
        // Now and then at once, else somewhere in the first two copies, however fast they are.
        std::thread::sleep(took * (round % 13) / 6);
        puppet.kill()?;
        let Err(failed) = copies.join("copies to end with the granter")? else {
            bail!("copies ended without an error")
        };
        // Its memory goes before its files do.
        let expected = [Errno::Stale, Errno::OwnerDead, Errno::Fault];
        let is_expected = failed.errno().is_some_and(|errno| expected.contains(&errno));
        ensure!(is_expected, "a copy ended: {failed}");
        cut += u32::from(failed.copied() > 0);
        let after = peer.copy_from(lent.at(0), &mine, 0..1, limit);
        stopped("copy_from the dead", after, 0, Errno::Stale)?;
    }
    ensure!(cut > 0, "no granter died during a copy");
    Ok(())
}

fn side_by_side(cast: &Cast) -> Result<()> {
    const THREADS: u64 = 4;
    let rounds = cast.rounds(20, 4);
    let (port, peer, limit) = (cast.near()?, cast.far()?, cast.at_once());
    let work = |number: u64| -> Result<()> {
        for round in 0..rounds {
            let pages = (round % 7 * 13 + number) as usize + 1;
            let lent = Loan::new(&port, pages, peer.endpoint(), BOTH)?;
            let (mine, back) = (Memory::of(&peer, pages)?, Memory::of(&peer, pages)?);
            let seed = number * 100 + round;
            let (all, bytes) = (0..mine.bytes(), noise(seed, mine.bytes()));
            mine.fill(seed)?;
            // Begun, so that those of other threads go on meanwhile, wherever they are.
            for (memory, to) in [(&mine, true), (&back, false)] {
                let place = place(lent.at(0), memory, all.clone(), limit);
                peer.begin(wish::copy(to, place))?.join("a copy")??;
            }
            back.has("a copy", 0, &bytes)?;
            lent.memory.has("the memory", 0, &bytes)?;
            port.revoke(lent.grant)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> =
            (0..THREADS).map(|number| scope.spawn(move || work(number))).collect();
        for thread in threads {
            match thread.join() {
                Ok(result) => result?,
                Err(_) => bail!("a copier panicked"),
            }
        }
        Ok(())
    })?;
    until("all grants to end", || Ok(port.info()?.grants == 0))
}
