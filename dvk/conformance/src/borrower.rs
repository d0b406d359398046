// SPDX-License-Identifier: MIT OR Apache-2.0
//! Copies from and to lenders wherever they are: what the reference says of copies, and what is
//! particular between nodes. Run with lenders on other nodes by the cluster tests.

use crate::blocked::until;
use crate::lender::Lender;
use crate::lent::{copy_for, noise, stops, Direction, Lent, PAGE};
use anyhow::{bail, ensure, Result};
use dvk::raw::Arena;
use dvk::{Endpoint, Errno, Granted, Port, Slot, Timeout};
use dvk_abi::ioctl::{GRANT_READ, GRANT_WRITE};
use std::sync::atomic::{AtomicU32, Ordering};

const BOTH: u32 = GRANT_READ | GRANT_WRITE;
const PATIENCE: Timeout = Timeout::from_millis(60_000);

/// Tries everything with two lenders, which are told to leave at the end.
pub(crate) fn borrow(container: u32, lenders: [Endpoint; 2]) -> Result<()> {
    let port = Port::bind(container, Slot::Any)?;
    let [one, two] = lenders.map(|endpoint| Lender { port: &port, endpoint });
    for (what, check) in [
        ("bytes", bytes as fn(&Port, Lender<'_>) -> Result<()>),
        ("rights", rights),
        ("holes", holes),
        ("waits", waits),
        ("revocation", revocation),
        ("threads", threads),
    ] {
        for lender in [one, two] {
            check(&port, lender).map_err(|error| error.context(what))?;
        }
        println!("{what}");
    }
    for (from, to) in [(one, one), (one, two), (two, one)] {
        between(&port, from, to).map_err(|error| error.context("between lenders"))?;
        with_own(&port, from).map_err(|error| error.context("between a lender and the caller"))?;
    }
    println!("between");
    departure(&port, one).map_err(|error| error.context("departure"))?;
    two.dismiss()?;
    println!("departure");
    Ok(())
}

/// Copies until the lender's node is down.
pub(crate) fn gorge(container: u32, lender: Endpoint) -> Result<()> {
    let port = Port::bind(container, Slot::Any)?;
    let granted = Lender { port: &port, endpoint: lender }.lend(500, BOTH, 1)?;
    let (expected, mut got) = (noise(1, 500 * PAGE), vec![0; 500 * PAGE]);
    println!("begin");
    let failed = loop {
        got.fill(0);
        match port.copy_from(granted, &mut got, PATIENCE) {
            Ok(()) => ensure!(got == expected, "wrong bytes"),
            Err(failed) => break failed,
        }
    };
    ensure!(failed.error.is(Errno::NodeDown), "expected EHOSTUNREACH, got: {failed}");
    let copied = failed.copied as usize;
    ensure!(got[..copied] == expected[..copied], "what is said to have arrived");
    Ok(())
}

fn behind(granted: Granted, offset: u64) -> Granted {
    Granted { offset: granted.offset + offset, ..granted }
}

fn bytes(port: &Port, lender: Lender<'_>) -> Result<()> {
    let granted = lender.lend(300, BOTH, 1)?;
    let all = noise(1, 300 * PAGE);
    // Within a page, a frame, a part, and several of each.
    for len in [0, 1, 64, 1400, 4096, 16_384, 20_000, 65_536, 262_144, 262_145, 300 * PAGE - 7] {
        for start in [0, 7] {
            let mut got = vec![0; len];
            port.copy_from(behind(granted, start as u64), &mut got, PATIENCE)?;
            ensure!(got == all[start..start + len], "copy_from of {len} bytes from {start}");
        }
    }
    for (seed, len) in (2u64..).zip([0, 1, 64, 1400, 4096, 16_384, 65_537, 262_144, 1_000_001]) {
        for start in [0, 4090] {
            let sent = noise(seed, len);
            port.copy_to(behind(granted, start), &sent, PATIENCE)?;
            ensure!(lender.has(behind(granted, start), len, seed)?, "copy_to of {len} bytes");
        }
    }
    ensure!(lender.take(granted)?, "revoke");
    Ok(())
}

fn rights(port: &Port, lender: Lender<'_>) -> Result<()> {
    let (readable, writable) = (lender.lend(1, GRANT_READ, 1)?, lender.lend(1, GRANT_WRITE, 2)?);
    let stranger = Port::bind(port.container(), Slot::Any)?;
    let from = port.copy_from(writable, &mut [0], PATIENCE);
    stops("copy_from what may only be written", from, 0, Errno::Denied)?;
    let from = stranger.copy_from(readable, &mut [0], PATIENCE);
    stops("copy_from what another was granted", from, 0, Errno::Denied)?;
    let to = port.copy_to(readable, &[1], PATIENCE);
    stops("copy_to what may only be read", to, 0, Errno::Denied)?;
    let to = stranger.copy_to(writable, &[1], PATIENCE);
    stops("copy_to what another was granted", to, 0, Errno::Denied)?;
    let whole = 2 * PAGE as u64;
    for (offset, len) in [(whole, 1), (1, 2 * PAGE), (u64::MAX, 1), (whole + 1, 0)] {
        let granted = Granted { offset, ..readable };
        let from = port.copy_from(granted, &mut vec![0; len], PATIENCE);
        stops("copy_from beyond the end", from, 0, Errno::Denied)?;
        let to = port.copy_to(Granted { offset, ..writable }, &vec![0; len], PATIENCE);
        stops("copy_to beyond the end", to, 0, Errno::Denied)?;
    }
    // What cannot succeed as a whole does not begin, however many parts it has.
    let long = lender.lend(200, BOTH, 12)?;
    let mut got = vec![9; 201 * PAGE + 1];
    let from = port.copy_from(long, &mut got, PATIENCE);
    stops("a long copy_from beyond the end", from, 0, Errno::Denied)?;
    ensure!(got.iter().all(|byte| *byte == 9), "a part of it has begun");
    let to = port.copy_to(long, &got, PATIENCE);
    stops("a long copy_to beyond the end", to, 0, Errno::Denied)?;
    ensure!(lender.has(long, 200 * PAGE, 12)?, "a part of it has begun");
    ensure!(lender.take(long)?, "revoke");
    for granted in [readable, writable] {
        ensure!(lender.take(granted)?, "revoke");
        let from = port.copy_from(granted, &mut [0], PATIENCE);
        stops("copy_from what was revoked", from, 0, Errno::Denied)?;
        let to = port.copy_to(granted, &[0], PATIENCE);
        stops("copy_to what was revoked", to, 0, Errno::Denied)?;
    }
    Ok(())
}

fn holes(port: &Port, lender: Lender<'_>) -> Result<()> {
    for pages in [1, 5, 64, 65, 150] {
        // What is granted ends with a page that is not there.
        let granted = lender.lend(pages, BOTH, 3)?;
        let there = pages as usize * PAGE;
        let expected = noise(3, there);
        let mut got = vec![9; there + PAGE];
        let from = port.copy_from(granted, &mut got, PATIENCE);
        stops("copy_from", from, there as u64, Errno::Fault)?;
        ensure!(got[..there] == expected, "what is before the hole");
        ensure!(got[there..] == [9; PAGE], "what is in the hole");
        let to = port.copy_to(granted, &noise(4, there + PAGE), PATIENCE);
        stops("copy_to", to, there as u64, Errno::Fault)?;
        ensure!(lender.has(granted, there, 4)?, "what was copied before the hole");
        // The caller's memory has a hole earlier.
        let mine = Arena::new(pages as usize)?;
        let short = there - 9;
        let from = copy_for(PATIENCE, port, Direction::From, granted, mine, 9..there + 1);
        ensure!(from == Err((Errno::Fault, short as u64)), "copy_from into a hole: {from:?}");
        let mut got = vec![0; short];
        mine.read(9, &mut got);
        ensure!(got == noise(4, short), "what arrived before the hole");
        let to = copy_for(PATIENCE, port, Direction::To, granted, mine, 9..there + 1);
        ensure!(to == Err((Errno::Fault, short as u64)), "copy_to out of a hole: {to:?}");
        ensure!(lender.has(granted, short, 4)?, "what was copied before the caller's hole");
        ensure!(lender.take(granted)?, "revoke");
    }
    Ok(())
}

fn waits(port: &Port, lender: Lender<'_>) -> Result<()> {
    let granted = lender.lend(2, BOTH, 5)?;
    let mut got = [0; 10];
    let from = port.copy_from(granted, &mut got, Timeout::NoWait);
    stops("copy_from", from, 0, Errno::WouldBlock)?;
    let to = port.copy_to(granted, &[1; 10], Timeout::NoWait);
    stops("copy_to", to, 0, Errno::WouldBlock)?;
    ensure!(lender.has(granted, 10, 5)?, "a copy that was not to wait has copied");
    // Too short for any answer: whatever it says, it is true.
    for micros in [1, 20, 100, 300, 1000, 3000] {
        let timeout = Timeout::After(core::time::Duration::from_micros(micros));
        let mut got = vec![0; 2 * PAGE];
        let copied = match port.copy_from(granted, &mut got, timeout) {
            Ok(()) => got.len(),
            Err(failed) if failed.error.is(Errno::TimedOut) => failed.copied as usize,
            Err(failed) => return Err(failed.into()),
        };
        ensure!(got[..copied] == noise(5, copied), "what is said to have arrived in time");
        // Late bytes have nowhere to go.
        let kept = got.clone();
        std::thread::sleep(core::time::Duration::from_millis(5));
        ensure!(got == kept, "bytes arrived after the call");
    }
    ensure!(lender.take(granted)?, "revoke");
    Ok(())
}

fn revocation(port: &Port, lender: Lender<'_>) -> Result<()> {
    let mut cut = 0;
    for round in 0..12 {
        let granted = lender.lend(200, GRANT_WRITE, 6)?;
        let other = Port::bind(port.container(), Slot::Any)?;
        let asker = Lender { port: &other, ..lender };
        // Made before: between two copies there is to be next to nothing, or that is where the revocation falls.
        let sent = noise(round, 200 * PAGE);
        let copies = AtomicU32::new(0);
        let failed = std::thread::scope(|scope| {
            let copier = scope.spawn(|| loop {
                if let Err(failed) = port.copy_to(granted, &sent, PATIENCE) {
                    return failed;
                }
                copies.fetch_add(1, Ordering::Relaxed);
            });
            until("a first copy", || {
                Ok(copies.load(Ordering::Relaxed) > 0 || copier.is_finished())
            })?;
            std::thread::sleep(core::time::Duration::from_millis(3 * round));
            let taken = asker.take(granted);
            let failed = copier.join().map_err(|_| anyhow::anyhow!("a copier panicked"))?;
            ensure!(taken?, "memory changed after the grant was revoked");
            Ok(failed)
        })?;
        ensure!(failed.error.is(Errno::Denied), "a copy was cut short: {failed}");
        cut += u32::from(failed.copied > 0);
    }
    ensure!(cut > 0, "no copy was cut in the middle");
    Ok(())
}

fn threads(port: &Port, lender: Lender<'_>) -> Result<()> {
    const THREADS: u64 = 4;
    let granted: Vec<Granted> =
        (0..THREADS).map(|number| lender.lend(80, BOTH, number)).collect::<Result<_>>()?;
    std::thread::scope(|scope| {
        let copiers: Vec<_> = (0u64..)
            .zip(&granted)
            .map(|(number, granted)| {
                scope.spawn(move || -> Result<()> {
                    for round in 0..5 {
                        let sent = noise(number * 100 + round, 80 * PAGE - 3);
                        port.copy_to(*granted, &sent, PATIENCE)?;
                        let mut got = vec![0; sent.len()];
                        port.copy_from(*granted, &mut got, PATIENCE)?;
                        ensure!(got == sent, "a copy of thread {number}");
                    }
                    Ok(())
                })
            })
            .collect();
        for copier in copiers {
            match copier.join() {
                Ok(result) => result?,
                Err(_) => bail!("a copier panicked"),
            }
        }
        Ok(())
    })?;
    granted.into_iter().try_for_each(|granted| {
        ensure!(lender.take(granted)?, "revoke");
        Ok(())
    })
}

fn between(port: &Port, from: Lender<'_>, to: Lender<'_>) -> Result<()> {
    let (source, sink) = (from.lend(200, GRANT_READ, 7)?, to.lend(200, GRANT_WRITE, 8)?);
    for len in [0, 1, 5000, 65_536, 200 * PAGE] {
        port.copy_between(source, sink, len as u64, PATIENCE)?;
        ensure!(to.has(sink, len, 7)?, "copy_between of {len} bytes");
    }
    let beyond = port.copy_between(source, sink, 200 * PAGE as u64 + 1, PATIENCE);
    stops("copy_between into a hole", beyond, 200 * PAGE as u64, Errno::Fault)?;
    for (source, sink) in [(sink, source), (source, source), (sink, sink)] {
        let wrong = port.copy_between(source, sink, 8, PATIENCE);
        stops("copy_between without the rights", wrong, 0, Errno::Denied)?;
    }
    ensure!(from.take(source)? && to.take(sink)?, "revoke");
    Ok(())
}

/// Between what a lender lent and what an endpoint of this node did.
fn with_own(port: &Port, lender: Lender<'_>) -> Result<()> {
    let own = Port::bind(port.container(), Slot::Any)?;
    let mine = Lent::new(&own, 100, port.endpoint(), BOTH)?;
    let theirs = lender.lend(100, BOTH, 9)?;
    let len = 100 * PAGE as u64;
    port.copy_between(theirs, mine.at(0), len, PATIENCE)?;
    ensure!(mine.bytes() == noise(9, 100 * PAGE), "copy_between from a lender to this node");
    mine.arena.write(0, &noise(10, 100 * PAGE));
    port.copy_between(mine.at(0), theirs, len, PATIENCE)?;
    ensure!(lender.has(theirs, 100 * PAGE, 10)?, "copy_between from this node to a lender");
    ensure!(lender.take(theirs)?, "revoke");
    Ok(())
}

/// A lender that goes away in the middle of a copy.
fn departure(port: &Port, lender: Lender<'_>) -> Result<()> {
    let granted = lender.lend(1000, BOTH, 11)?;
    let other = Port::bind(port.container(), Slot::Any)?;
    let failed = std::thread::scope(|scope| {
        let copier = scope.spawn(|| loop {
            if let Err(failed) = port.copy_from(granted, &mut vec![0; 1000 * PAGE], PATIENCE) {
                return failed;
            }
        });
        std::thread::sleep(core::time::Duration::from_millis(20));
        let left = Lender { port: &other, ..lender }.dismiss();
        let failed = copier.join().map_err(|_| anyhow::anyhow!("a copier panicked"))?;
        left.map(|()| failed)
    })?;
    let expected = [Errno::Stale, Errno::OwnerDead, Errno::Fault];
    ensure!(expected.iter().any(|errno| failed.error.is(*errno)), "a copy ended: {failed}");
    Ok(())
}
