// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a proxy has done so far, in numbers.

use core::sync::atomic::{AtomicU64, Ordering};
use dvk::Frames;
use serde::Serialize;

/// One number that threads add to.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `amount`.
    pub fn add(&self, amount: usize) {
        // The numbers order nothing.
        self.0.fetch_add(amount as u64, Ordering::Relaxed);
    }

    /// What it has come to.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All that is counted, since the proxy started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Frames taken from the link and sent.
    pub frames_sent: Counter,
    /// Frames that came and were given to the link.
    pub frames_received: Counter,
    /// Bytes of the former.
    pub bytes_sent: Counter,
    /// Bytes of the latter.
    pub bytes_received: Counter,
    /// Bytes that were sent after compression, and before encryption.
    pub carried_sent: Counter,
    /// Bytes that came, before they were decompressed.
    pub carried_received: Counter,
    /// Peers that proved to be the one that is wanted; over UDP, agreements on new keys as well.
    pub handshakes: Counter,
    /// Messages that pretend to be the peer's and are not, or were changed on their way.
    pub forged: Counter,
    /// Messages of the peer that came before.
    pub replayed: Counter,
    /// Whoever else spoke to this proxy: with another token, of another cluster or node, in the clear, or in another protocol.
    pub foreign: Counter,
}

/// [`Counters`] at one moment, as they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// See [`Counters::frames_sent`].
    pub frames_sent: u64,
    /// See [`Counters::frames_received`].
    pub frames_received: u64,
    /// See [`Counters::bytes_sent`].
    pub bytes_sent: u64,
    /// See [`Counters::bytes_received`].
    pub bytes_received: u64,
    /// See [`Counters::carried_sent`].
    pub carried_sent: u64,
    /// See [`Counters::carried_received`].
    pub carried_received: u64,
    /// See [`Counters::handshakes`].
    pub handshakes: u64,
    /// See [`Counters::forged`].
    pub forged: u64,
    /// See [`Counters::replayed`].
    pub replayed: u64,
    /// See [`Counters::foreign`].
    pub foreign: u64,
}

impl Counters {
    /// Counts frames that were sent as so many bytes.
    pub fn sent(&self, frames: &Frames, carried: usize) {
        let (count, bytes) = amount(frames);
        self.frames_sent.add(count);
        self.bytes_sent.add(bytes);
        self.carried_sent.add(carried);
    }

    /// Counts frames that came as so many bytes.
    pub fn received(&self, frames: &Frames, carried: usize) {
        let (count, bytes) = amount(frames);
        self.frames_received.add(count);
        self.bytes_received.add(bytes);
        self.carried_received.add(carried);
    }

    /// The numbers as they are now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            frames_sent: self.frames_sent.get(),
            frames_received: self.frames_received.get(),
            bytes_sent: self.bytes_sent.get(),
            bytes_received: self.bytes_received.get(),
            carried_sent: self.carried_sent.get(),
            carried_received: self.carried_received.get(),
            handshakes: self.handshakes.get(),
            forged: self.forged.get(),
            replayed: self.replayed.get(),
            foreign: self.foreign.get(),
        }
    }
}

impl Snapshot {
    /// One line of JSON.
    #[expect(clippy::missing_panics_doc, reason = "numbers have a JSON form")]
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("numbers have a JSON form")
    }
}

fn amount(frames: &Frames) -> (usize, usize) {
    frames.iter().fold((0, 0), |(count, bytes), frame| (count + 1, bytes + frame.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_each_number() {
        let counters = Counters::default();
        let mut frames = Frames::new();
        frames.push(&[0; 100]);
        frames.push(&[0; 20]);
        counters.sent(&frames, 50);
        counters.received(&frames, 70);
        counters.forged.add(3);
        let line = counters.snapshot().line();
        assert_eq!(
            line,
            "{\"frames_sent\":2,\"frames_received\":2,\"bytes_sent\":120,\"bytes_received\":120,\
             \"carried_sent\":50,\"carried_received\":70,\"handshakes\":0,\"forged\":3,\
             \"replayed\":0,\"foreign\":0}"
        );
    }
}
