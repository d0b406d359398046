// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the server of a primary asks.

use super::{Outside, Server};
use crate::replica::{read_row, Feed, Life, Message, ReplicaId};
use dvk::protocol::{Answer, Caller, Reply::Now};
use mol_protocol::replica::{self, Fed, Greeted, ReplicaServer};
use mol_protocol::Errno;

/// The most bytes of a row: a region of the largest device, and some.
const ROW_BYTES_MAX: u32 = (1 << 24) + (1 << 20);

impl<O: Outside> Server<O> {
    fn answer_primary(
        &mut self,
        minor: u32,
        from: (ReplicaId, Life),
        to: Life,
        messages: Vec<Message>,
    ) -> Result<Vec<Message>, Errno> {
        let device = self.devices.get_mut(minor as usize).ok_or(Errno::NoSuchDevice)?;
        let copy = device.copy.as_mut().ok_or(Errno::NoSuchDevice)?;
        copy.answer(minor, &self.outside, &mut *device.store, (from, to), messages, &mut self.out)
    }
}

impl<O: Outside> ReplicaServer for Server<O> {
    fn greet(
        &mut self,
        caller: Caller<replica::Greet>,
        greet: replica::Greet,
    ) -> Answer<replica::Greet> {
        let from = (ReplicaId(greet.from), Life(greet.life));
        let message = Message::Greet { epoch: greet.epoch, feed: Feed(greet.feed) };
        let answers = self.answer_primary(greet.minor, from, Life(greet.to), vec![message])?;
        let nothing = Greeted {
            fenced: 0,
            in_step: 0,
            unsettled_bytes: 0,
            uncommitted_bytes: 0,
            has_begun: false,
        };
        let Some(answer) = answers.last() else { return Ok(Now(nothing)) };
        Ok(Now(match answer {
            Message::Greeting { in_step, unsettled, uncommitted, .. } => {
                let (unsettled, uncommitted) = (unsettled.encode(), uncommitted.encode());
                let bytes = [&unsettled[..], &uncommitted].concat();
                if !bytes.is_empty() {
                    self.outside.copy_to(greet.sets.of(caller.endpoint(), 0), &bytes)?;
                }
                Greeted {
                    in_step: *in_step,
                    unsettled_bytes: unsettled.len() as u16,
                    uncommitted_bytes: uncommitted.len() as u16,
                    has_begun: true,
                    ..nothing
                }
            }
            Message::Fenced { epoch } => Greeted { fenced: *epoch, ..nothing },
            _ => nothing,
        }))
    }

    fn feed(
        &mut self,
        caller: Caller<replica::Feed>,
        feed: replica::Feed,
    ) -> Answer<replica::Feed> {
        let device = self.devices.get(feed.minor as usize).ok_or(Errno::NoSuchDevice)?;
        if feed.bytes > ROW_BYTES_MAX {
            return Err(Errno::Invalid);
        }
        let mut row = vec![0; feed.bytes as usize];
        self.outside.copy_from(feed.row.of(caller.endpoint(), 0), &mut row)?;
        let (head, messages) = read_row(&row, &device.shape()).ok_or(Errno::Invalid)?;
        let from = (head.from, head.life);
        let mut fed =
            Fed { fenced: 0, sequence: 0, compared: 0, is_same: false, beat: 0, in_step: 0 };
        for answer in self.answer_primary(feed.minor, from, head.to, messages)? {
            match answer {
                Message::Fed { sequence, verdict, .. } => {
                    fed.sequence = sequence;
                    (fed.compared, fed.is_same) = verdict.unwrap_or((0, false));
                }
                Message::Pulse { beat, in_step, .. } => (fed.beat, fed.in_step) = (beat, in_step),
                Message::Fenced { epoch } => fed.fenced = epoch,
                _ => {}
            }
        }
        Ok(Now(fed))
    }
}

/// What a primary is told by an answer to a row of this feed.
pub fn read_fed(fed: &Fed, feed: Feed) -> Vec<Message> {
    let mut messages = Vec::new();
    if fed.fenced != 0 {
        messages.push(Message::Fenced { epoch: fed.fenced });
    }
    if fed.sequence != 0 {
        let verdict = (fed.compared != 0).then_some((fed.compared, fed.is_same));
        messages.push(Message::Fed { feed, sequence: fed.sequence, verdict });
    }
    if fed.beat != 0 {
        messages.push(Message::Pulse { feed, beat: fed.beat, in_step: fed.in_step });
    }
    messages
}
