// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client: makes one call after the other to the server of one node, whatever becomes of them.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use dvk::{Port, Timeout};

use super::{bind, name, number_of, numbered, Shared, Target, BLOCK_BYTES};

/// How long a call may take: longer than a node that is lost takes to be noticed.
const PATIENCE: Timeout = Timeout::After(Duration::from_secs(6));
/// Between two calls, so that what is tested are the faults and not the emulator.
const PAUSE: Duration = Duration::from_millis(10);

/// Talks until it is told to stop.
pub(super) fn talk(container: u32, own: usize, to: usize, shared: &Shared) -> Result<()> {
    let port = bind(container)?;
    shared.history.note(&format!("bound {}", port.endpoint().raw()));
    let mut number = 0;
    while !shared.stop.load(Ordering::SeqCst) {
        // Before the target: what is begun after all is healed goes to whom everybody was told of then.
        let phase = shared.phase.load(Ordering::SeqCst);
        if let Some(target) = shared.target(to) {
            call(&port, (own, phase), number, target, shared);
            number += 1;
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// One number's call, or two for a block that is stored and fetched again.
fn call(port: &Port, (own, phase): (usize, u32), number: u64, target: Target, shared: &Shared) {
    let Target { server, grant } = target;
    let did = |call: &str, result: Result<(), String>| {
        let (client, server) = (port.endpoint().raw(), server.raw());
        let result = result.err().unwrap_or_else(|| "ok".to_owned());
        shared.history.note(&format!("did {client} {call} {number} {server} {result} {phase}"));
    };
    let failed = |error: dvk::Error| name(&error);
    match number % 8 {
        3 => did("send", port.send(server, &numbered(number, server), PATIENCE).map_err(failed)),
        5 => did("notify", port.notify(server, bit(number)).map_err(failed)),
        7 => {
            let place = grant.of(server, (own * BLOCK_BYTES) as u64);
            let block = block(port.endpoint().raw(), number);
            let stored = port.copy_to(place, &block, PATIENCE);
            let is_there = stored.is_ok();
            did("store", stored.map_err(|error| failed(error.error)));
            if is_there {
                let mut read = vec![0; BLOCK_BYTES];
                let fetched = port.copy_from(place, &mut read, PATIENCE);
                let fetched = fetched.map_err(|error| failed(error.error));
                let right = if read == block { Ok(()) } else { Err("corrupt".to_owned()) };
                did("fetch", fetched.and(right));
            }
        }
        _ => {
            let message = numbered(number, server);
            let reply = port.sendrec(server, &message, PATIENCE).map_err(failed);
            did(
                "request",
                reply.and_then(|reply| {
                    let right =
                        reply.source() == server && number_of(&reply) == Some((number, server));
                    if right {
                        Ok(())
                    } else {
                        Err("strange".to_owned())
                    }
                }),
            );
        }
    }
}

/// The bit of a number that notifies, of which there is one in eight.
fn bit(number: u64) -> u64 {
    1 << (number / 8 % 64)
}

/// Bytes that no other number and no other client stores.
fn block(client: u64, number: u64) -> Vec<u8> {
    let seed = client.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ number;
    let words = (0..).map(|at: u64| (seed ^ at.wrapping_mul(0xBF58_476D_1CE4_E5B9)).to_le_bytes());
    words.flatten().take(BLOCK_BYTES).collect()
}
