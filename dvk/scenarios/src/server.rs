// SPDX-License-Identifier: MIT OR Apache-2.0
//! The server. It has the endpoint on one node, and takes it over on another when it is told so:
//!
//! | order | what comes of it |
//! |---|---|
//! | `bind SLOT` | `bound ENDPOINT`; it serves |
//! | `adopt ENDPOINT LEDGER` | `adopted`; it serves as soon as the endpoint has settled here |
//! | `resume` | `resumed`; after a move that was rolled back it serves on |
//! | `close` | `closed`: the endpoint, or what was it, is given up |
//! | `report` | the ledger's report, then `end`; it must not be serving, or say nothing meanwhile |
//!
//! When the endpoint is frozen, it says `frozen LEDGER` and rests.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{bail, Context, Result};
use dvk::{Endpoint, Errno, How, Message, Port, Slot, Timeout};

use crate::ledger::{number_of, numbered, Ledger, NUMBER};
use crate::say;

/// Ends a server that serves, so that its ledger can be read.
pub(crate) const STOP: u32 = 0x4d02;

type Shared = Arc<Mutex<Ledger>>;

fn locked(ledger: &Shared) -> std::sync::MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes orders until there are no more.
pub(crate) fn run(container: u32) -> Result<()> {
    let ledger = Shared::default();
    let mut port: Option<Arc<Port>> = None;
    let mut serving: Option<JoinHandle<()>> = None;
    for line in std::io::stdin().lines() {
        let line = line?;
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["bind", slot] => {
                let bound = Arc::new(Port::bind(container, Slot::Server(slot.parse()?))?);
                let epoch = bound.info()?.epoch;
                say(&format!("bound {}", bound.endpoint().raw()))?;
                serving = Some(serve(&bound, &ledger, epoch));
                port = Some(bound);
            }
            ["adopt", endpoint, travelled] => {
                let endpoint = Endpoint::from_raw(endpoint.parse()?);
                let adopted = Arc::new(Port::bind(container, Slot::Adopt(endpoint))?);
                *locked(&ledger) = travelled.parse()?;
                // Before anybody can know that the endpoint may go on: its next move has another one.
                let epoch = adopted.info()?.epoch;
                say("adopted")?;
                serving = Some(serve(&adopted, &ledger, epoch));
                port = Some(adopted);
            }
            ["resume"] => {
                let kept = port.as_ref().context("no endpoint to resume")?;
                let epoch = kept.info()?.epoch;
                say("resumed")?;
                serving = Some(serve(kept, &ledger, epoch));
            }
            ["close"] => {
                port = None;
                say("closed")?;
            }
            ["report"] => {
                if let Some(serving) = serving.take() {
                    let _ = serving.join();
                }
                for line in locked(&ledger).report() {
                    say(&line)?;
                }
                say("end")?;
            }
            _ => bail!("no such order: {line}"),
        }
    }
    Ok(())
}

/// Serves in a thread; `epoch` is that of the last move of the endpoint, so that it can be told from
/// the next.
fn serve(port: &Arc<Port>, ledger: &Shared, epoch: u32) -> JoinHandle<()> {
    let (port, ledger) = (port.clone(), ledger.clone());
    thread::spawn(move || {
        let said = match serve_until_frozen(&port, &ledger, epoch) {
            Ok(None) => Ok(()),
            Ok(Some(error)) if error.is(Errno::Busy) => say(&format!("frozen {}", locked(&ledger))),
            // A move to this node was rolled back: the ledger goes on elsewhere.
            Ok(Some(error)) if error.is(Errno::Stale) => say("undone"),
            Ok(Some(error)) => say(&format!("failed {error}")),
            Err(error) => say(&format!("failed {error:#}")),
        };
        // Without the scenario there is nobody to tell.
        let _ = said;
    })
}

/// Serves until it is told to stop, or gives why it cannot.
fn serve_until_frozen(port: &Port, ledger: &Shared, epoch: u32) -> Result<Option<dvk::Error>> {
    if let Some(error) = give_owed(port, ledger, epoch)? {
        return Ok(Some(error));
    }
    loop {
        let owed = locked(ledger).take_owed();
        let received = match owed {
            None => port.receive(Endpoint::ANY, Timeout::Forever),
            Some((to, client, number)) => {
                let reply = numbered(client, number);
                port.reply_receive(to, &reply, Endpoint::ANY, Timeout::Forever)
            }
        };
        let received = match (received, owed) {
            (Ok(received), _) => received,
            // The client has given up.
            (Err(error), Some(_)) if error.is(Errno::WouldBlock) => continue,
            (Err(error), owed) => {
                // Frozen before or after the reply: whoever goes on gives it, or learns that it was.
                if let Some((to, client, number)) = owed {
                    locked(ledger).owe(to, client, number);
                }
                return Ok(Some(error));
            }
        };
        let (source, message) = (received.source(), received.message);
        if received.how == How::Notify {
            locked(ledger).bits(source, message.notify_bits().context("bits")?);
            continue;
        }
        if message.kind == STOP {
            let _ = port.reply(source, &Message::new(STOP));
            return Ok(None);
        }
        if message.kind != NUMBER {
            bail!("a message of kind {:x}", message.kind);
        }
        let (client, number) = number_of(&message);
        let mut ledger = locked(ledger);
        ledger.number(source, client, number);
        if received.how == How::Request {
            ledger.owe(source, client, number);
        }
    }
}

/// Gives the answer that was owed when the endpoint was frozen, as soon as it has settled; or gives
/// why that cannot be.
fn give_owed(port: &Port, ledger: &Shared, epoch: u32) -> Result<Option<dvk::Error>> {
    let Some((to, client, number)) = locked(ledger).take_owed() else { return Ok(None) };
    loop {
        let error = match port.reply(to, &numbered(client, number)) {
            Ok(()) => return Ok(None),
            // It was given, or the client has given up.
            Err(error) if error.is(Errno::WouldBlock) => return Ok(None),
            Err(error) => error,
        };
        // It has not settled yet, unless it is on its next move already.
        if error.is(Errno::Busy) && port.info()?.epoch == epoch {
            thread::sleep(Duration::from_millis(1));
            continue;
        }
        locked(ledger).owe(to, client, number);
        return Ok(Some(error));
    }
}
