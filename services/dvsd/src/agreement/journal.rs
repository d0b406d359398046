// SPDX-License-Identifier: MIT OR Apache-2.0
//! What this node has seen and the others should know of: from the daemon into the events that the nodes agree on.

use std::sync::Arc;
use std::time::Duration;

use dvs_consensus::{Consensus, ProposeError};
use dvs_state::events::{self, TEXT_BYTES_MAX};
use dvs_state::nodes::Seat;
use dvs_state::{Command, State};
use tokio::sync::{mpsc, Mutex};
use tokio::time::sleep;

use crate::sightings::Sighting;

/// Sightings that may wait to be agreed on; what comes while so many wait is not recorded.
const QUEUE: usize = 64;
/// How long nothing is tried after the nodes could not agree.
const PAUSE: Duration = Duration::from_secs(1);

/// Where the daemon puts what it sees.
#[derive(Clone, Debug)]
pub struct Journal(mpsc::Sender<Sighting>);

/// What is taken out of a [`Journal`], by one life of this node at a time.
pub(super) type Pages = Arc<Mutex<mpsc::Receiver<Sighting>>>;

/// A journal: its two ends.
pub(super) fn journal() -> (Journal, Pages) {
    let (put, take) = mpsc::channel(QUEUE);
    (Journal(put), Arc::new(Mutex::new(take)))
}

impl Journal {
    /// Has something recorded, as soon as the nodes can agree on it. The service's log has all that is said here as
    /// well, so what finds no room is not lost to whoever looks there.
    pub fn record(&self, sighting: Sighting) {
        let _ = self.0.try_send(sighting);
    }
}

/// Has what comes recorded, for as long as it is polled.
pub(super) async fn keep(by: Seat, consensus: &Consensus, pages: &Pages) {
    let mut pages = pages.lock().await;
    while let Some(sighting) = pages.recv().await {
        let command = Command::Events(command(by, sighting));
        loop {
            // A node sees things before it has its place in the state, and the state is of an earlier version at first.
            let able =
                |state: &State| command.needs() <= state.version() && state.nodes().is_present(by);
            if consensus.look(able) {
                match consensus.propose(&command).await {
                    // It was agreed on; or would never be; or was, perhaps, and to say it twice would be worse.
                    Ok(_) | Err(ProposeError::Unknown | ProposeError::Refused(_)) => break,
                    Err(_) => {}
                }
            }
            sleep(PAUSE).await;
        }
    }
}

fn command(by: Seat, sighting: Sighting) -> events::Command {
    let Sighting { sight, about, mut text } = sighting;
    text.retain(|c| !c.is_control());
    let end = (0..=text.len().min(TEXT_BYTES_MAX)).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
    events::Command::Report { by, sight, about, text }
}

#[cfg(test)]
mod tests {
    use dvs_state::events::Sight;

    use super::*;

    #[test]
    fn what_is_recorded_is_one_line_that_fits() {
        let by = Seat { id: 1, incarnation: 1 };
        let text = format!("a\n{}", "ü".repeat(TEXT_BYTES_MAX));
        let command = command(by, Sighting { sight: Sight::Stranger, about: None, text });
        let events::Command::Report { text, .. } = command else { panic!("{command:?}") };
        assert_eq!(text.len(), TEXT_BYTES_MAX - 1);
        assert!(text.starts_with("aü"));
    }
}
