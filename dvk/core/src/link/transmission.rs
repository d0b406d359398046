// SPDX-License-Identifier: GPL-2.0 OR MIT
//! What a link sends next, and how it is written.

use super::super::abi::wire::frame::{
    Greeting, Header, Kind, GREETING_VERSION, HEADER_BYTES, MAX_WINDOW,
};
use super::rtt::timestamp;
use super::sender::Pick;
use super::{count, Farewell, Link, State, Storage};
use core::ops::Deref;

/// The next frame to be sent.
#[derive(Clone, Copy)]
enum Plan {
    Reset(Farewell),
    Greeting,
    Data(Pick),
    Bare(Kind),
}

impl<S: Storage> Link<S> {
    fn plan(&self) -> Option<Plan> {
        if self.transport_bytes == 0 {
            return None;
        }
        if let Some(farewell) = self.farewell {
            return Some(Plan::Reset(farewell));
        }
        if self.handshake.due {
            return Some(Plan::Greeting);
        }
        if self.state != State::Up {
            return None;
        }
        if let Some(pick) = self.sender.pick() {
            return Some(Plan::Data(pick));
        }
        if self.liveness.probe {
            return Some(Plan::Bare(Kind::Keepalive));
        }
        self.receiver.acknowledgement.due.then_some(Plan::Bare(Kind::Ack))
    }

    /// Bytes of the frame that [`poll_transmit`](Self::poll_transmit) would write next; `None` if
    /// there is nothing to send.
    pub fn transmit_bytes(&self) -> Option<usize> {
        let payload_bytes = match self.plan()? {
            Plan::Reset(_) | Plan::Bare(_) => 0,
            Plan::Greeting => Greeting::BYTES,
            Plan::Data(pick) => self.sender.payload(pick.sequence).len(),
        };
        Some(HEADER_BYTES.wrapping_add(payload_bytes))
    }

    /// Writes the next frame to the front of `out`; returns its length in bytes, `None` if there
    /// is nothing to send or `out` is shorter than [`transmit_bytes`](Self::transmit_bytes).
    ///
    /// What it wrote counts as sent, whatever becomes of it.
    pub fn poll_transmit(&mut self, now: u64, out: &mut [u8]) -> Option<usize> {
        let room = out.get_mut(..self.transmit_bytes()?)?;
        match self.poll_outgoing(now)? {
            Outgoing::Data(buffer, bytes) => room.copy_from_slice(buffer.get(..bytes)?),
            Outgoing::Short(frame) => room.copy_from_slice(&frame),
        }
        Some(room.len())
    }

    /// The next frame, where it is; `None` if there is nothing to send.
    ///
    /// What it returns counts as sent, whatever becomes of it.
    pub fn poll_outgoing(&mut self, now: u64) -> Option<Outgoing<'_, S::Buffer>> {
        let plan = self.plan()?;
        let peer_stream = self.handshake.peer.map_or(0, |peer| peer.stream);
        let mut header = Header {
            version: self.handshake.version(),
            kind: Kind::Data,
            cluster: self.config.cluster,
            source: self.local_address(),
            destination: self.peer_address(peer_stream),
            sequence: self.sender.next(),
            ack: self.receiver.next(),
            selective: self.receiver.selective(),
            window: self.config.receive_window.clamp(1, MAX_WINDOW),
            timestamp: timestamp(now),
            echo: self.receiver.acknowledgement.echo,
            asks: false,
        };
        let frame = match plan {
            Plan::Data(pick) => return self.outgoing_data(now, header, pick),
            Plan::Reset(Farewell { version, source, destination }) => {
                self.farewell = None;
                header = Header {
                    version,
                    kind: Kind::Reset,
                    source,
                    destination,
                    sequence: 0,
                    ack: 0,
                    selective: 0,
                    echo: None,
                    ..header
                };
                ShortFrame::new(&header, &[])
            }
            Plan::Greeting => {
                self.handshake.due = false;
                header = Header {
                    version: GREETING_VERSION,
                    kind: if peer_stream == 0 { Kind::Hello } else { Kind::HelloAck },
                    sequence: self.config.first_sequence,
                    ack: 0,
                    selective: 0,
                    echo: None,
                    ..header
                };
                let greeting = Greeting {
                    versions: self.config.versions,
                    payload_bytes: self.transport_bytes,
                };
                ShortFrame::new(&header, &greeting.encode())
            }
            Plan::Bare(kind) => {
                self.receiver.acknowledgement.sent();
                self.liveness.probe = false;
                header.kind = kind;
                ShortFrame::new(&header, &[])
            }
        };
        self.count_sent(frame.len());
        Some(Outgoing::Short(frame))
    }

    fn outgoing_data(
        &mut self,
        now: u64,
        header: Header,
        pick: Pick,
    ) -> Option<Outgoing<'_, S::Buffer>> {
        let asks = self.sender.asks(pick);
        let header = Header { sequence: pick.sequence, asks, ..header };
        let slot = self.sender.slot(pick.sequence)?;
        let buffer = slot.buffer.as_mut()?;
        if !self.storage.make_exclusive(buffer) {
            return None;
        }
        header.encode_head(slot.bytes, buffer.first_chunk_mut()?);
        let bytes = HEADER_BYTES.wrapping_add(usize::from(slot.bytes));
        self.receiver.acknowledgement.sent();
        let oldest = self.sender.sent(pick, asks);
        if self.repeat_at.is_none() || (pick.again && oldest) {
            self.rearm(now);
        }
        count(&mut self.counters.retransmissions, u64::from(pick.again));
        self.count_sent(bytes);
        let buffer = self.sender.slot(pick.sequence)?.buffer.as_ref()?;
        Some(Outgoing::Data(buffer, bytes))
    }

    fn count_sent(&mut self, bytes: usize) {
        count(&mut self.counters.frames_sent, 1);
        count(&mut self.counters.bytes_sent, bytes as u64);
    }
}

/// A frame that is to be sent.
pub enum Outgoing<'l, B> {
    /// The first so many bytes of a buffer, which the link keeps until the frame is acknowledged.
    Data(&'l B, usize),
    /// A frame without data.
    Short(ShortFrame),
}

/// A frame without data, written out.
pub struct ShortFrame {
    bytes: [u8; HEADER_BYTES + Greeting::BYTES],
    len: usize,
}

impl ShortFrame {
    fn new(header: &Header, payload: &[u8]) -> Self {
        let mut bytes = [0; HEADER_BYTES + Greeting::BYTES];
        let len = header.encode(payload, &mut bytes).unwrap_or(0);
        Self { bytes, len }
    }
}

impl Deref for ShortFrame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }
}
