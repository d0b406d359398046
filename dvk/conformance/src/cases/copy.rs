// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bytes that are copied out of and into what others granted.

use super::Case;
use crate::blocked::{blocked, until};
use crate::check::{equal, refused};
use crate::dvs::{self, HOME};
use crate::lent::{copy, grant, noise, stops, Direction, Lent, PAGE};
use crate::puppet::{Order, Puppet};
use anyhow::{bail, ensure, Context, Result};
use dvk::raw::Arena;
use dvk::{Endpoint, Errno, Port, Timeout};
use dvk_abi::ioctl::{self, GRANT_READ, GRANT_WRITE};
use rustix::process::{kill_process, Pid, Signal};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::Arc;
use std::time::Duration;

pub(super) const CASES: &[Case] = &[
    Case::long("copy-from-brings-every-byte", from),
    Case::long("copy-to-brings-every-byte", to),
    Case::long("copy-between-brings-every-byte", between),
    Case::new("copy-between-needs-both-grants", both_grants),
    Case::new("copy-of-nothing-checks-the-grant", nothing),
    Case::new("copy-reaches-memory-that-was-never-touched", untouched),
    Case::new("copy-never-waits-for-an-exchange", no_exchange),
    Case::new("copy-within-this-node-is-no-wait", no_wait),
    Case::new("copy-stops-at-a-hole-in-the-granters-memory", granters_hole),
    Case::new("copy-stops-at-a-hole-in-the-callers-memory", callers_hole),
    Case::new("copy-never-writes-to-read-only-memory", read_only),
    Case::new("copy-of-overlapping-ranges-is-einval", overlapping),
    Case::new("copy-stops-at-a-signal-with-eintr", signal),
    Case::long("copy-stops-when-the-granter-dies", death),
    Case::long("copies-go-on-side-by-side", side_by_side),
];

const BOTH: u32 = GRANT_READ | GRANT_WRITE;

/// Lengths and places that meet page borders, batches of pages and words in every way.
fn shapes() -> impl Iterator<Item = (usize, usize)> {
    let lens = [1, 2, 7, 8, 9, 63, 64, 255, 4095, 4096, 4097, 8191, 65_536, 100_001];
    let starts = [0, 1, 8, 4090, 4095, 4096, 12_289];
    lens.into_iter().flat_map(move |len| starts.into_iter().map(move |start| (start, len)))
}

/// Pages that hold every shape twice over, with noise in them.
fn noisy(port: &Port, to: Endpoint, access: u32, seed: u64) -> Result<(Lent, Vec<u8>)> {
    let lent = Lent::new(port, 32, to, access)?;
    let bytes = noise(seed, lent.arena.bytes());
    lent.arena.write(0, &bytes);
    Ok((lent, bytes))
}

/// The bytes are those expected, or the first that differs is named.
fn same(what: &str, got: &[u8], expected: &[u8]) -> Result<()> {
    ensure!(got.len() == expected.len(), "{what}: {} bytes, not {}", got.len(), expected.len());
    match got.iter().zip(expected).position(|(got, expected)| got != expected) {
        Some(at) => bail!("{what}: byte {at} is {:#x}, not {:#x}", got[at], expected[at]),
        None => Ok(()),
    }
}

fn from() -> Result<()> {
    let (port, peer) = (dvs::bind()?, dvs::bind()?);
    let (lent, bytes) = noisy(&port, peer.endpoint(), GRANT_READ, 1)?;
    for (start, len) in shapes() {
        for skew in [0, 3] {
            let mut all = noise(2, len + 16);
            let mut expected = all.clone();
            expected[skew..skew + len].copy_from_slice(&bytes[start..start + len]);
            let into = &mut all[skew..skew + len];
            peer.copy_from(lent.at(start as u64), into, Timeout::NoWait)?;
            same(&format!("{len} bytes from {start}"), &all, &expected)?;
        }
    }
    same("what was granted", &lent.bytes(), &bytes)?;
    let long = Lent::new(&port, 700, peer.endpoint(), GRANT_READ)?;
    let bytes = noise(3, long.arena.bytes());
    long.arena.write(0, &bytes);
    let mut got = vec![0; bytes.len() - 5];
    peer.copy_from(long.at(5), &mut got, Timeout::NoWait)?;
    same("2.7 MiB", &got, &bytes[5..])
}

fn to() -> Result<()> {
    let (port, peer) = (dvs::bind()?, dvs::bind()?);
    let (lent, mut expected) = noisy(&port, peer.endpoint(), GRANT_WRITE, 1)?;
    for (seed, (start, len)) in (10u64..).zip(shapes()) {
        let bytes = noise(seed, len + 3);
        peer.copy_to(lent.at(start as u64), &bytes[3..], Timeout::NoWait)?;
        expected[start..start + len].copy_from_slice(&bytes[3..]);
        same(&format!("{len} bytes to {start}"), &lent.bytes(), &expected)?;
    }
    let long = Lent::new(&port, 700, peer.endpoint(), GRANT_WRITE)?;
    let bytes = noise(3, long.arena.bytes() - 5);
    peer.copy_to(long.at(5), &bytes, Timeout::NoWait)?;
    same("2.7 MiB", &long.bytes()[5..], &bytes)
}

fn between() -> Result<()> {
    let (one, two, peer) = (dvs::bind()?, dvs::bind()?, dvs::bind()?);
    let (source, bytes) = noisy(&one, peer.endpoint(), GRANT_READ, 1)?;
    let (sink, mut expected) = noisy(&two, peer.endpoint(), GRANT_WRITE, 2)?;
    for (start, len) in shapes() {
        for there in [0, 5, 4095] {
            let (from, to) = (source.at(start as u64), sink.at(there));
            peer.copy_between(from, to, len as u64, Timeout::NoWait)?;
            let there = there as usize;
            expected[there..there + len].copy_from_slice(&bytes[start..start + len]);
            same(&format!("{len} bytes from {start} to {there}"), &sink.bytes(), &expected)?;
        }
    }
    same("the source", &source.bytes(), &bytes)?;
    let source = Lent::new(&one, 300, peer.endpoint(), GRANT_READ)?;
    let sink = Lent::new(&two, 300, peer.endpoint(), GRANT_WRITE)?;
    let bytes = noise(4, source.arena.bytes());
    source.arena.write(0, &bytes);
    let len = bytes.len() as u64 - 77;
    peer.copy_between(source.at(77), sink.at(0), len, Timeout::NoWait)?;
    same("1.2 MiB", &sink.bytes()[..len as usize], &bytes[77..])?;
    same("what is behind", &sink.bytes()[len as usize..], &[0; 77])
}

fn both_grants() -> Result<()> {
    let (one, two, peer) = (dvs::bind()?, dvs::bind()?, dvs::bind()?);
    let lend = |port: &Port, access| Lent::new(port, 1, peer.endpoint(), access);
    let (readable, writable) = (lend(&one, GRANT_READ)?, lend(&two, GRANT_WRITE)?);
    let other = Lent::new(&two, 1, one.endpoint(), BOTH)?;
    let (all, bytes) = (PAGE as u64, noise(1, PAGE));
    readable.arena.write(0, &bytes);
    for (what, from, to) in [
        ("to what may only be read", readable, readable),
        ("from what may only be written", writable, writable),
        ("to what another was granted", readable, other),
        ("from what another was granted", other, writable),
    ] {
        let copied = peer.copy_between(from.at(0), to.at(0), all, Timeout::NoWait);
        stops(what, copied, 0, Errno::Denied)?;
    }
    let beyond = peer.copy_between(readable.at(1), writable.at(0), all, Timeout::NoWait);
    stops("beyond the source", beyond, 0, Errno::Denied)?;
    let beyond = peer.copy_between(readable.at(0), writable.at(1), all, Timeout::NoWait);
    stops("beyond the destination", beyond, 0, Errno::Denied)?;
    same("what was not copied", &writable.bytes(), &[0; PAGE])?;
    peer.copy_between(readable.at(0), writable.at(0), all, Timeout::NoWait)?;
    same("what was", &writable.bytes(), &bytes)
}

fn nothing() -> Result<()> {
    let (port, peer) = (dvs::bind()?, dvs::bind()?);
    let lent = Lent::new(&port, 1, peer.endpoint(), GRANT_READ)?;
    for offset in [0, 5, PAGE as u64] {
        peer.copy_from(lent.at(offset), &mut [], Timeout::NoWait)?;
    }
    let beyond = peer.copy_from(lent.at(PAGE as u64 + 1), &mut [], Timeout::NoWait);
    stops("copy_from beyond", beyond, 0, Errno::Denied)?;
    stops("copy_to", peer.copy_to(lent.at(0), &[], Timeout::NoWait), 0, Errno::Denied)?;
    let between = peer.copy_between(lent.at(0), lent.at(0), 0, Timeout::NoWait);
    stops("copy_between", between, 0, Errno::Denied)
}

fn untouched() -> Result<()> {
    let (port, peer) = (dvs::bind()?, dvs::bind()?);
    let lent = Lent::new(&port, 100, peer.endpoint(), BOTH)?;
    let into = Arena::new(100)?;
    into.write(0, &[7]);
    let copied = copy(&peer, Direction::From, lent.at(0), into, 0, into.bytes());
    equal("copy_from", copied, Ok(()))?;
    let mut got = vec![1; into.bytes()];
    into.read(0, &mut got);
    same("untouched memory", &got, &vec![0; into.bytes()])?;
    // Read before, it is all one page of zeros; written, each page is its own.
    let bytes = noise(1, 3 * PAGE);
    peer.copy_to(lent.at(50 * PAGE as u64 + 9), &bytes, Timeout::NoWait)?;
    let mut expected = vec![0; lent.arena.bytes()];
    expected[50 * PAGE + 9..53 * PAGE + 9].copy_from_slice(&bytes);
    same("memory that was written", &lent.bytes(), &expected)?;
    let other = Lent::new(&port, 1, peer.endpoint(), GRANT_READ)?;
    same("other untouched memory", &other.bytes(), &[0; PAGE])
}

fn no_exchange() -> Result<()> {
    let (port, peer) = (Arc::new(dvs::bind()?), Arc::new(dvs::bind()?));
    let lent = Lent::new(&port, 1, peer.endpoint(), BOTH)?;
    let wait = |port: &Arc<Port>| {
        let port = Arc::clone(port);
        blocked(move || port.receive(Endpoint::ANY, Timeout::Forever))
    };
    // Neither the granter nor the caller need to be free.
    let (granter, caller) = (wait(&port)?, wait(&peer)?);
    let bytes = noise(1, PAGE);
    peer.copy_to(lent.at(0), &bytes, Timeout::NoWait)?;
    let mut got = vec![0; PAGE];
    peer.copy_from(lent.at(0), &mut got, Timeout::NoWait)?;
    same("bytes", &got, &bytes)?;
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

fn granters_hole() -> Result<()> {
    let (port, peer) = (dvs::bind()?, dvs::bind()?);
    for (pages, start) in [(1, 0), (1, 5), (3, 4097), (70, 1), (200, 9)] {
        // The page behind the arena is there for nobody.
        let arena = Arena::new(pages)?;
        let granted = grant(&port, arena, 0, arena.bytes() + PAGE, peer.endpoint(), BOTH);
        let Ok(granted) = granted else { bail!("grant: {granted:?}") };
        let lent = Lent::of(&port, arena, granted);
        let there = arena.bytes() - start;
        let bytes = noise(1, there + PAGE);
        arena.write(start, &bytes[..there]);
        let mut got = vec![9; there + PAGE];
        let from = peer.copy_from(lent.at(start as u64), &mut got, Timeout::NoWait);
        stops("copy_from", from, there as u64, Errno::Fault)?;
        same("what is before the hole", &got[..there], &bytes[..there])?;
        same("what is not", &got[there..], &[9; PAGE])?;
        let bytes = noise(2, there + PAGE);
        let to = peer.copy_to(lent.at(start as u64), &bytes, Timeout::NoWait);
        stops("copy_to", to, there as u64, Errno::Fault)?;
        same("what was written", &lent.bytes()[start..], &bytes[..there])?;
        let last = peer.copy_from(lent.at(arena.bytes() as u64), &mut [0], Timeout::NoWait);
        stops("copy_from the hole", last, 0, Errno::Fault)?;
        let sink = Lent::new(&port, pages + 1, peer.endpoint(), GRANT_WRITE)?;
        let between = (there + PAGE) as u64;
        let from = lent.at(start as u64);
        let copied = peer.copy_between(from, sink.at(0), between, Timeout::NoWait);
        stops("copy_between", copied, there as u64, Errno::Fault)?;
        same("what it copied", &sink.bytes()[..there], &bytes[..there])?;
    }
    Ok(())
}

fn callers_hole() -> Result<()> {
    let (port, peer) = (dvs::bind()?, dvs::bind()?);
    for (pages, start) in [(1, 0), (1, 4095), (3, 4097), (70, 1), (200, 9)] {
        let lent = Lent::new(&port, pages + 1, peer.endpoint(), BOTH)?;
        let bytes = noise(1, lent.arena.bytes());
        lent.arena.write(0, &bytes);
        let mine = Arena::new(pages)?;
        let (there, len) = (mine.bytes() - start, mine.bytes() - start + 1);
        let copied = copy(&peer, Direction::From, lent.at(3), mine, start, len);
        equal("copy_from", copied, Err((Errno::Fault, there as u64)))?;
        let mut got = vec![0; there];
        mine.read(start, &mut got);
        same("what arrived", &got, &bytes[3..3 + there])?;
        let new = noise(2, there);
        mine.write(start, &new);
        let copied = copy(&peer, Direction::To, lent.at(3), mine, start, len);
        equal("copy_to", copied, Err((Errno::Fault, there as u64)))?;
        same("what was written", &lent.bytes()[3..3 + there], &new)?;
        same("what was not", &lent.bytes()[3 + there..], &bytes[3 + there..])?;
    }
    // A block that cannot be read or written, and memory that no program has.
    let lent = Lent::new(&port, 1, peer.endpoint(), BOTH)?;
    let nowhere = |address, len| {
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
        equal("copied", block.copied, 0)
    };
    nowhere(0, 8)?;
    nowhere(0xffff_8880_0000_0000, 8)?;
    nowhere(u64::MAX, 2)
}

fn read_only() -> Result<()> {
    let (port, peer) = (dvs::bind()?, dvs::bind()?);
    let arena = Arena::read_only(2)?;
    let granted = grant(&port, arena, 0, arena.bytes(), peer.endpoint(), BOTH);
    let Ok(granted) = granted else { bail!("grant: {granted:?}") };
    let lent = Lent::of(&port, arena, granted);
    peer.copy_from(lent.at(0), &mut [1; 9], Timeout::NoWait)?;
    let to = peer.copy_to(lent.at(0), &[1; 9], Timeout::NoWait);
    stops("copy_to", to, 0, Errno::Fault)?;
    let source = Lent::new(&port, 1, peer.endpoint(), GRANT_READ)?;
    let between = peer.copy_between(source.at(0), lent.at(0), 8, Timeout::NoWait);
    stops("copy_between", between, 0, Errno::Fault)?;
    // Nor to such memory of the caller.
    source.arena.write(0, &[1; PAGE]);
    let copied = copy(&peer, Direction::From, source.at(0), arena, 0, PAGE);
    equal("copy_from", copied, Err((Errno::Fault, 0)))?;
    same("what is there", &lent.bytes(), &[0; 2 * PAGE])
}

fn overlapping() -> Result<()> {
    let port = dvs::bind()?;
    let (lent, bytes) = noisy(&port, Endpoint::ANY, BOTH, 1)?;
    let len = 3 * PAGE;
    for (from, to) in [(0, 0), (0, 1), (1, 0), (0, len - 1), (len - 1, 0)] {
        let (source, sink) = (lent.at(from as u64), lent.at(to as u64));
        let between = port.copy_between(source, sink, len as u64, Timeout::NoWait);
        stops("copy_between", between, 0, Errno::Invalid)?;
        for direction in [Direction::From, Direction::To] {
            let copied = copy(&port, direction, source, lent.arena, to, len);
            equal("a copy of one's own", copied, Err((Errno::Invalid, 0)))?;
        }
    }
    same("what is there", &lent.bytes(), &bytes)?;
    // Side by side they may be.
    port.copy_between(lent.at(0), lent.at(len as u64), len as u64, Timeout::NoWait)?;
    let copied = copy(&port, Direction::From, lent.at(0), lent.arena, 2 * len, len);
    equal("copy_from", copied, Ok(()))?;
    same("the second", &lent.bytes()[len..2 * len], &bytes[..len])?;
    same("the third", &lent.bytes()[2 * len..3 * len], &bytes[..len])
}

/// Pages whose copy takes many batches, and some time.
const MANY: usize = 16_384;

fn signal() -> Result<()> {
    let (port, peer) = (dvs::bind()?, dvs::bind()?);
    let lent = Lent::new(&port, MANY, peer.endpoint(), GRANT_READ)?;
    let mine = Arena::new(MANY)?;
    signal_hook::flag::register(signal_hook::consts::SIGUSR1, Arc::new(AtomicBool::new(false)))?;
    let this = Pid::from_raw(std::process::id().cast_signed()).context("a process without id")?;
    for delay in [1, 3, 10, 30, 100, 1, 3, 10, 30, 100] {
        // Taken by this thread, as long as it takes it: it is the process's first.
        let signaller = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(delay));
            kill_process(this, Signal::USR1)
        });
        let copied = copy(&peer, Direction::From, lent.at(0), mine, 0, mine.bytes());
        let Ok(sent) = signaller.join() else { bail!("the signaller panicked") };
        sent?;
        match copied {
            // It was faster than the signal.
            Ok(()) => {}
            Err((Errno::Interrupted, copied)) => {
                let whole = mine.bytes() as u64;
                ensure!(copied < whole, "all {copied} bytes before the signal");
                // With nothing copied the signal may have come before the call.
                if copied > 0 {
                    return Ok(());
                }
            }
            Err(other) => bail!("expected EINTR, got {other:?}"),
        }
    }
    bail!("no signal came during a copy of {} MiB", (MANY * PAGE) >> 20)
}

fn death() -> Result<()> {
    let peer = dvs::bind()?;
    let mut cut = 0;
    for round in 0..20 {
        let (mut puppet, granter) = Puppet::bound(HOME)?;
        let answer = puppet.obey(Order::Lend(peer.endpoint()))?;
        let id = answer.value().context("a puppet cannot lend")?;
        let granted = dvk::GrantId::from_raw(id).of(granter, 0);
        let copies = AtomicU32::new(0);
        let copier = std::thread::scope(|scope| {
            let copier = scope.spawn(|| {
                let mut bytes = vec![0; 4 << 20];
                loop {
                    if let Err(failed) = peer.copy_from(granted, &mut bytes, Timeout::NoWait) {
                        return failed;
                    }
                    copies.fetch_add(1, Ordering::Relaxed);
                }
            });
            // The first one brings in the copier's pages, which may take longer than all rounds.
            until("a first copy", || {
                Ok(copies.load(Ordering::Relaxed) > 0 || copier.is_finished())
            })?;
            std::thread::sleep(Duration::from_millis(round));
            puppet.kill()?;
            copier.join().map_err(|_| anyhow::anyhow!("the copier panicked"))
        })?;
        // Its memory goes before its files do.
        let expected = [Errno::Stale, Errno::OwnerDead, Errno::Fault];
        ensure!(expected.iter().any(|errno| copier.error.is(*errno)), "a copy ended: {copier}");
        cut += u32::from(copier.copied > 0);
        let mut byte = [0];
        let after = peer.copy_from(granted, &mut byte, Timeout::NoWait);
        stops("copy_from the dead", after, 0, Errno::Stale)?;
    }
    ensure!(cut > 0, "no granter died during a copy");
    Ok(())
}

fn side_by_side() -> Result<()> {
    const THREADS: u64 = 4;
    const ROUNDS: u64 = 60;
    let port = dvs::bind()?;
    let peer = dvs::bind()?;
    let work = |number: u64| -> Result<()> {
        for round in 0..20 {
            let pages = (round % 7 * 13 + number) as usize + 1;
            let lent = Lent::new(&port, pages, peer.endpoint(), BOTH)?;
            let bytes = noise(number * ROUNDS + round, lent.arena.bytes());
            peer.copy_to(lent.at(0), &bytes, Timeout::NoWait)?;
            let mut got = vec![0; bytes.len()];
            peer.copy_from(lent.at(0), &mut got, Timeout::NoWait)?;
            same("a copy", &got, &bytes)?;
            same("the memory", &lent.bytes(), &bytes)?;
            equal("revoke", crate::lent::revoke(&port, lent.grant), Ok(()))?;
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
