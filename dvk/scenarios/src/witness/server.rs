// SPDX-License-Identifier: MIT OR Apache-2.0
//! The server: takes what comes, answers requests, and has lent memory.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use dvk::{Access, Endpoint, Errno, GrantId, How, Loan, Port, Timeout};

use super::{name, number_of, Shared, BLOCK_BYTES, NODES_MAX};

/// How long it listens before it looks whether it is to end. In the end this is how long it has heard nothing.
const QUIET: Timeout = Timeout::After(Duration::from_millis(300));

/// Lends a block to each node's clients.
pub(super) fn lend(port: &'static Port) -> Result<(GrantId, Loan<'static>)> {
    let loan = Loan::new(port, Endpoint::ANY, NODES_MAX * BLOCK_BYTES, Access::ReadWrite)?;
    Ok((loan.grant(), loan))
}

pub(super) fn serve(port: &Port, shared: &Shared) {
    let note = |line: String| shared.history.note(&line);
    loop {
        let received = match port.receive(Endpoint::ANY, QUIET) {
            Ok(received) => received,
            Err(error) if error.is(Errno::TimedOut) => {
                if shared.finish.load(Ordering::SeqCst) {
                    return;
                }
                continue;
            }
            Err(error) => return note(format!("deaf {}", name(&error))),
        };
        let source = received.source();
        let from = source.raw();
        if let Some(bits) = received.message.notify_bits() {
            note(format!("bits {from} {bits:x}"));
            continue;
        }
        let Some((number, to)) = number_of(&received.message) else {
            note(format!("garbled {from}"));
            continue;
        };
        let to = to.raw();
        match received.how {
            How::Request => {
                note(format!("took {from} request {number} {to}"));
                if let Err(error) = port.reply(source, &received.message) {
                    note(format!("late {from} {number} {}", name(&error)));
                }
            }
            How::Send => note(format!("took {from} send {number} {to}")),
            _ => note(format!("garbled {from}")),
        }
    }
}
