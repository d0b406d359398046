// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients, each a thread with an endpoint: they count, by `send` and `sendrec`, and notify now and
//! then. At the order `stop` each says how far it has come and what its longest call took.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure, Context, Result};
use dvk::{Endpoint, Port, Slot, Timeout};

use crate::ledger::{number_of, numbered};
use crate::say;

/// Longer than anything but a server that is gone for good.
const PATIENCE: Duration = Duration::from_secs(30);
/// Calls between two notifications, of which there are as many as there are bits.
const NOTIFY_EVERY: u64 = 40;

/// How far a client has come.
struct Done {
    client: u32,
    numbers: u64,
    bits: u64,
    longest: Duration,
}

/// Runs these clients until they are told to stop.
pub(crate) fn run(container: u32, clients: Range<u32>, server: Endpoint) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = clients
        .map(|client| {
            let stop = stop.clone();
            thread::spawn(move || count(container, client, server, &stop))
        })
        .collect();
    say("counting")?;
    let mut order = String::new();
    std::io::stdin().read_line(&mut order)?;
    ensure!(order.trim() == "stop", "no such order: {order}");
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        let done = thread.join().map_err(|_| anyhow!("a client panicked"))??;
        let Done { client, numbers, bits, longest } = done;
        let longest = longest.as_micros();
        say(&format!("client {client} numbers {numbers} bits {bits:x} longest {longest}"))?;
    }
    say("end")
}

fn count(container: u32, client: u32, server: Endpoint, stop: &AtomicBool) -> Result<Done> {
    let port = Port::bind(container, Slot::Any)?;
    let mut done = Done { client, numbers: 0, bits: 0, longest: Duration::ZERO };
    while !stop.load(Ordering::Relaxed) {
        let message = numbered(client, done.numbers);
        let began = Instant::now();
        let told = || format!("client {client}, number {}", done.numbers);
        // A client that sends only would fill the server's time.
        if done.numbers % 4 == 3 {
            port.send(server, &message, Timeout::After(PATIENCE)).with_context(told)?;
        } else {
            let reply = port.sendrec(server, &message, Timeout::After(PATIENCE));
            let (_, number) = number_of(&reply.with_context(told)?);
            if number != done.numbers {
                bail!("client {client} got the reply to {number} to {}", done.numbers);
            }
        }
        done.longest = done.longest.max(began.elapsed());
        done.numbers += 1;
        if done.numbers.is_multiple_of(NOTIFY_EVERY) && done.bits != u64::MAX {
            let bit = done.bits + 1;
            port.notify(server, bit & !done.bits)?;
            done.bits |= bit;
        }
    }
    Ok(done)
}
