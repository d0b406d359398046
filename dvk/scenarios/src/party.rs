// SPDX-License-Identifier: MIT OR Apache-2.0
//! Somebody with one endpoint, who makes a call for each order and tells how it ended: `done`, what
//! came of it if there is something to tell, or `failed` and the name of the error.
//!
//! | order | what comes of it |
//! |---|---|
//! | `bind`, `server SLOT`, `backup SLOT` | the endpoint |
//! | `send TO KIND`, `reply TO KIND`, `notify TO BITS` | nothing |
//! | `sendrec TO KIND` | the kind of the reply |
//! | `receive` | the source, and the kind or, after `bits`, those of a notification |

use std::time::Duration;

use anyhow::{bail, Context, Result};
use dvk::{Endpoint, Message, Port, Slot, Timeout};

use crate::say;

/// For calls. A scenario does not take as long between two orders.
const PATIENCE: Timeout = Timeout::After(Duration::from_secs(60));

/// Takes orders until there are no more.
pub(crate) fn run(container: u32) -> Result<()> {
    let mut port = None;
    for line in std::io::stdin().lines() {
        match obey(container, &mut port, &line?)? {
            Ok(told) => say(format!("done {told}").trim_end())?,
            Err(error) => {
                let name = error.errno().map_or("an unknown error", dvk::Errno::name);
                say(&format!("failed {name}"))?;
            }
        }
    }
    Ok(())
}

fn obey(container: u32, port: &mut Option<Port>, line: &str) -> Result<Result<String, dvk::Error>> {
    let words: Vec<_> = line.split_whitespace().collect();
    let slot = match words[..] {
        ["bind"] => Some(Slot::Any),
        ["server", slot] => Some(Slot::Server(slot.parse()?)),
        ["backup", slot] => Some(Slot::Backup(slot.parse()?)),
        _ => None,
    };
    if let Some(slot) = slot {
        return Ok(Port::bind(container, slot).map(|bound| {
            let endpoint = bound.endpoint().raw().to_string();
            *port = Some(bound);
            endpoint
        }));
    }
    let port = port.as_ref().context("an endpoint first")?;
    let nothing = |result: Result<(), dvk::Error>| result.map(|()| String::new());
    Ok(match words[..] {
        ["receive"] => port.receive(Endpoint::ANY, PATIENCE).map(|received| {
            let source = received.source().raw();
            match received.message.notify_bits() {
                Some(bits) => format!("{source} bits {bits}"),
                None => format!("{source} {}", received.message.kind),
            }
        }),
        [verb, to, number] => {
            let to = Endpoint::from_raw(to.parse()?);
            let number: u32 = number.parse()?;
            let message = Message::new(number);
            match verb {
                "send" => nothing(port.send(to, &message, PATIENCE)),
                "reply" => nothing(port.reply(to, &message)),
                "notify" => nothing(port.notify(to, number.into())),
                "sendrec" => {
                    port.sendrec(to, &message, PATIENCE).map(|reply| reply.kind.to_string())
                }
                _ => bail!("no such order: {line}"),
            }
        }
        _ => bail!("no such order: {line}"),
    })
}
