// SPDX-License-Identifier: MIT OR Apache-2.0
//! Somebody on each node who talks to those on all nodes while faults happen, and writes down what
//! it did and what reached it. Whether that is as it should be is found out on the host.
//!
//! | order | what comes of it |
//! |---|---|
//! | `target NODE ENDPOINT GRANT` | a client says things to the server with this endpoint, from now on |
//! | `healed` | `healed`: what is begun from now on must succeed |
//! | `stop` | `stopped`: the clients have ended |
//! | `finish` | `end`: so has the server, which has taken what there was |
//!
//! It begins with `serves ENDPOINT GRANT`. All other lines are its history, in the order in which the
//! thread that it is about came to know of it:
//!
//! | line | meaning |
//! |---|---|
//! | `bound ENDPOINT` | a client has this endpoint |
//! | `took SOURCE send NUMBER TO`, `took SOURCE request NUMBER TO` | the server received this number, which was for `TO` |
//! | `bits SOURCE BITS` | the server received these bits |
//! | `late SOURCE NUMBER ERROR` | the server's answer was refused |
//! | `garbled SOURCE` | the server received what nobody sends |
//! | `deaf ERROR` | the server cannot receive any more |
//! | `did CLIENT CALL NUMBER SERVER RESULT PHASE` | a client's call, its result and whether it was begun before (0) or after (1) `healed` |
//!
//! A call is `send`, `request`, `notify`, `store` or `fetch`. A result is `ok`, the name of an error,
//! `strange` for a reply to something else, or `corrupt` for bytes that were not stored there.

mod client;
mod history;
mod server;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, Context, Result};
use dvk::{Endpoint, GrantId, Message, Port, Slot};

use history::History;

/// How long it may take until the node is part of the cluster.
const JOINED: Duration = Duration::from_secs(60);
/// Most nodes of a scenario.
const NODES_MAX: usize = 8;
/// What is stored and fetched at once: several frames, and no whole number of pages.
const BLOCK_BYTES: usize = 3 * 4096 + 100;
/// Kind of a message that is a number.
const NUMBER: u32 = 0x4d03;

/// Whom a client talks to.
#[derive(Clone, Copy, Debug)]
struct Target {
    server: Endpoint,
    grant: GrantId,
}

/// What all threads know.
struct Shared {
    history: History,
    stop: AtomicBool,
    finish: AtomicBool,
    phase: AtomicU32,
    targets: Mutex<BTreeMap<usize, Target>>,
}

impl Shared {
    fn target(&self, node: usize) -> Option<Target> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner).get(&node).copied()
    }
}

/// Takes orders until there are no more.
pub(crate) fn run(container: u32, node: usize) -> Result<()> {
    if node >= NODES_MAX {
        bail!("node {node}: there are at most {NODES_MAX}");
    }
    let shared = Arc::new(Shared {
        history: History::default(),
        stop: AtomicBool::new(false),
        finish: AtomicBool::new(false),
        phase: AtomicU32::new(0),
        targets: Mutex::default(),
    });
    let port: &'static Port = Box::leak(Box::new(bind(container)?));
    let (grant, lent) = server::lend(port)?;
    shared.history.answer(&format!("serves {} {}", port.endpoint().raw(), grant.raw()))?;
    let server = {
        let shared = shared.clone();
        thread::spawn(move || server::serve(port, &shared))
    };
    {
        let shared = shared.clone();
        thread::spawn(move || shared.history.flush_for_ever());
    }
    let mut clients = BTreeMap::<usize, JoinHandle<Result<()>>>::new();
    let mut server = Some(server);
    for line in std::io::stdin().lines() {
        let line = line?;
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["target", to, endpoint, grant] => {
                let to: usize = to.parse()?;
                let server = Endpoint::from_raw(endpoint.parse()?);
                let target = Target { server, grant: GrantId::from_raw(grant.parse()?) };
                shared.targets.lock().unwrap_or_else(PoisonError::into_inner).insert(to, target);
                clients.entry(to).or_insert_with(|| {
                    let shared = shared.clone();
                    thread::spawn(move || client::talk(container, node, to, &shared))
                });
            }
            ["healed"] => {
                shared.phase.store(1, Ordering::SeqCst);
                shared.history.answer("healed")?;
            }
            ["stop"] => {
                shared.stop.store(true, Ordering::SeqCst);
                for client in std::mem::take(&mut clients).into_values() {
                    client.join().map_err(|_| anyhow!("a client panicked"))??;
                }
                shared.history.answer("stopped")?;
            }
            ["finish"] => {
                shared.finish.store(true, Ordering::SeqCst);
                if let Some(server) = server.take() {
                    server.join().map_err(|_| anyhow!("the server panicked"))?;
                }
                shared.history.answer("end")?;
            }
            _ => bail!("no such order: {line}"),
        }
    }
    drop(lent);
    Ok(())
}

/// Binds as soon as the node is part of the cluster.
fn bind(container: u32) -> Result<Port> {
    let give_up = Instant::now() + JOINED;
    loop {
        match Port::bind(container, Slot::Any) {
            Ok(port) => return Ok(port),
            Err(error) if Instant::now() >= give_up => {
                return Err(error).context("binding an endpoint");
            }
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// A number that is for `to`. The rest of the message follows from both.
fn numbered(number: u64, to: Endpoint) -> Message {
    let mut message = Message::new(NUMBER);
    let words = [number, to.raw(), number ^ to.raw(), !number, !to.raw(), number.rotate_left(32)];
    for (bytes, word) in message.payload.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    message
}

/// The number in a message and whom it is for, if it is as [`numbered`] makes them.
fn number_of(message: &Message) -> Option<(u64, Endpoint)> {
    let mut words =
        message.payload.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
    let (number, to) = (words.next()?, Endpoint::from_raw(words.next()?));
    let expected = numbered(number, to);
    (message.kind == NUMBER && message.payload == expected.payload).then_some((number, to))
}

fn name(error: &dvk::Error) -> String {
    error.errno().map_or_else(|| format!("errno-{}", error.raw_os_error()), |e| e.name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_was_changed_is_none() {
        let to = Endpoint::from_raw(5 << 32 | 70);
        let message = numbered(1 << 40, to);
        assert_eq!(number_of(&message), Some((1 << 40, to)));
        for at in [0, 15, 16, 47] {
            let mut message = message;
            message.payload[at] ^= 1;
            assert_eq!(number_of(&message), None, "byte {at}");
        }
    }
}
