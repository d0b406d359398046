// SPDX-License-Identifier: MIT OR Apache-2.0
//! How what a primary says gets to another replica: one exchange after the other, each with as much as there is.

use crate::lend::Lend;
use crate::replica::{
    letter_bytes, row_of, write_row, Life, Message, RegionSet, ReplicaId, RowHead, REGIONS_MAX,
};
use crate::server::read_fed;
use dvk::{CallError, Endpoint, Timeout};
use mol_protocol::replica::{Feed, Greet, ReplicaClient, SETS_BYTES};
use mol_protocol::Errno;
use std::collections::VecDeque;

/// No letter is added to a row that has so many bytes.
pub const ROW_BYTES: usize = 1 << 18;

/// From which replica to which, of what device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The device.
    pub minor: u32,
    /// The primary, and the run of its server.
    pub from: (ReplicaId, Life),
    /// The other one.
    pub to: (ReplicaId, Life),
    /// The server of that.
    pub server: Endpoint,
}

/// Takes from a queue what can be said at once: a greeting, or letters of one row.
pub fn take_next(queue: &mut VecDeque<Message>) -> Vec<Message> {
    let Some(first) = queue.pop_front() else { return Vec::new() };
    let row = row_of(&first);
    let mut bytes = letter_bytes(&first);
    let mut messages = vec![first];
    while row.is_some() && bytes < ROW_BYTES {
        let Some(next) = queue.front().filter(|next| row_of(next) == row) else { break };
        bytes += letter_bytes(next);
        messages.extend(queue.pop_front());
    }
    messages
}

/// Says it, and gives what is answered.
///
/// # Errors
/// There was no exchange, or the other server refused. Nothing is said of whether it was heard.
pub fn exchange<I: Lend>(
    ipc: &I,
    route: &Route,
    messages: &[Message],
    timeout: Timeout,
) -> Result<Vec<Message>, CallError<Errno, I::Error>> {
    let client = ReplicaClient::new(ipc, route.server).within(timeout);
    match messages.first() {
        Some(&Message::Greet { epoch, feed }) => {
            let mut memory = vec![0; SETS_BYTES];
            let greet = |sets| Greet {
                minor: route.minor,
                from: route.from.0 .0,
                life: route.from.1 .0,
                to: route.to.1 .0,
                epoch,
                feed: feed.0,
                sets,
            };
            let asked = ipc.lend_mut(route.server, &mut memory, |sets| client.greet(&greet(sets)));
            let greeted = asked.map_err(CallError::Exchange)??;
            if greeted.fenced != 0 {
                return Ok(vec![Message::Fenced { epoch: greeted.fenced }]);
            }
            let (first, second) =
                (usize::from(greeted.unsettled_bytes), usize::from(greeted.uncommitted_bytes));
            let set = |range| RegionSet::decode(memory.get(range)?, REGIONS_MAX);
            let sets = (set(0..first), set(first..first + second));
            let (Some(unsettled), Some(uncommitted)) = sets else { return Ok(Vec::new()) };
            let in_step = greeted.in_step;
            let greeting = Message::Greeting { feed, in_step, unsettled, uncommitted };
            Ok(greeted.has_begun.then_some(greeting).into_iter().collect())
        }
        Some(first) => {
            let Some((epoch, feed)) = row_of(first) else { return Ok(Vec::new()) };
            let (from, life) = route.from;
            let head = RowHead { from, life, to: route.to.1, epoch, feed };
            let row = write_row(&head, messages);
            let (minor, bytes) = (route.minor, row.len() as u32);
            let asked =
                ipc.lend(route.server, &row, |row| client.feed(&Feed { minor, bytes, row }));
            Ok(read_fed(&asked.map_err(CallError::Exchange)??, feed))
        }
        None => Ok(Vec::new()),
    }
}
