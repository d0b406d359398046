// SPDX-License-Identifier: GPL-2.0 OR MIT
//! What a link sends next, and how it is written.

use super::super::abi::wire::frame::{
    Greeting, Header, Kind, GREETING_VERSION, HEADER_BYTES, MAX_WINDOW,
};
use super::rtt::timestamp;
use super::sender::Pick;
use super::{count, Farewell, Link, State, Storage};

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
        let bytes = match plan {
            Plan::Reset(Farewell { version, source, destination }) => {
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
                let bytes = header.encode(&[], out)?;
                self.farewell = None;
                bytes
            }
            Plan::Greeting => {
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
                let bytes = header.encode(&greeting.encode(), out)?;
                self.handshake.due = false;
                bytes
            }
            Plan::Data(pick) => {
                header.sequence = pick.sequence;
                header.asks = self.sender.asks(pick);
                let bytes = header.encode(self.sender.payload(pick.sequence), out)?;
                self.receiver.acknowledgement.sent();
                let oldest = self.sender.sent(pick);
                if self.repeat_at.is_none() || (pick.again && oldest) {
                    self.rearm(now);
                }
                count(&mut self.counters.retransmissions, u64::from(pick.again));
                bytes
            }
            Plan::Bare(kind) => {
                header.kind = kind;
                let bytes = header.encode(&[], out)?;
                self.receiver.acknowledgement.sent();
                self.liveness.probe = false;
                bytes
            }
        };
        count(&mut self.counters.frames_sent, 1);
        count(&mut self.counters.bytes_sent, bytes as u64);
        Some(bytes)
    }
}
