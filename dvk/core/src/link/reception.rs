// SPDX-License-Identifier: GPL-2.0 OR MIT
//! What a link makes of a frame that arrives.

use super::super::abi::wire::frame::{Chunks, Frame, Kind};
use super::receiver::Arrival;
use super::{count, Event, Link, Reject, State, Storage};

impl<S: Storage> Link<S> {
    pub(super) fn take_frame<'f>(
        &mut self,
        now: u64,
        frame: &Frame<'f>,
    ) -> Result<Chunks<'f>, Reject> {
        let header = &frame.header;
        if header.cluster != self.config.cluster
            || header.source.node != self.config.peer_node
            || header.destination.node != self.config.local_node
        {
            return Err(Reject::Address);
        }
        if self.transport_bytes == 0 || matches!(self.state, State::Down | State::Broken) {
            return Err(Reject::Down);
        }
        same_life(header.source.incarnation, self.peer_incarnation)?;
        same_life(header.destination.incarnation, self.config.local_incarnation.get())?;
        if header.kind.is_greeting() {
            return self.take_greeting(now, frame).map(|()| Chunks::NONE);
        }
        let peer = self.handshake.peer.ok_or(Reject::Unknown)?;
        same_life(header.source.stream, peer.stream)?;
        same_life(header.destination.stream, self.handshake.stream)?;
        if header.version != peer.version {
            return Err(Reject::Version);
        }
        if header.kind == Kind::Reset {
            self.take_reset();
            return Ok(Chunks::NONE);
        }
        // A valid acknowledgement is evidence that the frame is the peer's.
        let progress = self
            .sender
            .acknowledge(header.ack, header.selective, header.window)
            .map_err(|_| Reject::Acknowledgement)?;
        self.connect(now, header.window);
        if progress.news {
            if let Some(echo) = header.echo {
                self.round_trip.sample(now, echo);
            }
        }
        if progress.advanced {
            self.round_trip.recover();
            self.rearm(now);
            if self.sender.has_room_again() {
                self.raise(Event::Room);
            }
        }
        self.hear(now);
        match header.kind {
            Kind::Data => {
                let arrival =
                    self.receiver.accept(&mut self.storage, now, frame, &self.config.timing)?;
                match arrival {
                    Arrival::InOrder(chunks) => return Ok(chunks),
                    Arrival::Early => {}
                    Arrival::Duplicate => count(&mut self.counters.duplicates, 1),
                }
            }
            Kind::Keepalive => self.receiver.acknowledgement.demand(header.timestamp),
            _ => {}
        }
        Ok(Chunks::NONE)
    }

    fn take_greeting(&mut self, now: u64, frame: &Frame<'_>) -> Result<(), Reject> {
        let heard = match self.handshake.hear(now, frame, self.config.versions) {
            Err(Reject::Version) => {
                self.raise(Event::Incompatible);
                return Err(Reject::Version);
            }
            other => other?,
        };
        if heard.new {
            if self.state == State::Up {
                self.end_stream(State::Broken);
                self.farewell = None;
                self.raise(Event::Reset);
                return Ok(());
            }
            self.handshake.peer = Some(heard.peer);
            self.receiver.restart(frame.header.sequence);
        } else if self.handshake.update(heard.peer) && self.state == State::Up {
            self.agree();
        }
        if heard.confirms {
            self.connect(now, frame.header.window);
            self.hear(now);
            // The peer cannot know yet that it was heard.
            self.receiver.acknowledgement.due = true;
        } else {
            self.handshake.due = true;
        }
        Ok(())
    }

    /// The peer has given its stream up. A link that was still connecting has lost nothing and
    /// goes on: the peer's next greeting will tell of a later stream.
    fn take_reset(&mut self) {
        if self.state == State::Up {
            self.end_stream(State::Broken);
            self.farewell = None;
            self.raise(Event::Reset);
        }
    }
}

/// Tells an earlier and a later life from the one that is meant.
fn same_life(told: u32, meant: u32) -> Result<(), Reject> {
    match told.cmp(&meant) {
        core::cmp::Ordering::Less => Err(Reject::Stale),
        core::cmp::Ordering::Equal => Ok(()),
        core::cmp::Ordering::Greater => Err(Reject::Unknown),
    }
}
