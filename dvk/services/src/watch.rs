// SPDX-License-Identifier: MIT OR Apache-2.0
//! Being told of changes for as long as a program runs.

use std::time::Duration;

use dvk::{Port, Timeout};

use crate::client::{Client, Error};

/// How long a question about changes waits.
const WAIT_MS: u64 = 2_000;
/// How long nothing is asked after a question had no answer.
const PAUSE: Duration = Duration::from_millis(200);

/// Tells whenever keys that begin like this may have changed, at first and whenever changes may have been missed as well, so that looking
/// then misses nothing. It ends when `tell` says that nobody wants to know any more. Services that are started anew are found again.
///
/// # Errors
/// Those of [`Client::find`], without a limit.
pub fn watch(port: &Port, prefix: &[u8], mut tell: impl FnMut() -> bool) -> Result<(), Error> {
    let mut client = Client::find(port, Timeout::Forever)?;
    let mut from = None;
    loop {
        let seen = match from {
            // What was before is seen by looking.
            None => client.revision().map(|revision| (revision, true)),
            Some(from) => {
                let changes = client.changes(prefix, from, WAIT_MS);
                changes.map(|(revision, changes)| (revision, !changes.is_empty()))
            }
        };
        match seen {
            Ok((revision, has_changed)) => {
                from = Some(revision + 1);
                if has_changed && !tell() {
                    return Ok(());
                }
            }
            Err(error) => {
                from = None;
                std::thread::sleep(PAUSE);
                if matches!(error, Error::Ipc(_)) {
                    client = Client::find(port, Timeout::Forever)?;
                }
            }
        }
    }
}
