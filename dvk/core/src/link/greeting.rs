// SPDX-License-Identifier: GPL-2.0 OR MIT
//! How two ends of a link learn of each other before records flow.

use super::super::abi::wire::frame::{Frame, Greeting, Versions, GREETING_VERSION};
use super::{Reject, Timing};

/// What the peer has told about itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    /// Its life of the link.
    pub(super) stream: u32,
    /// The version that both speak.
    pub(super) version: u8,
    /// The longest payload it can receive.
    pub(super) payload_bytes: u16,
    /// Its clock when it told that, in microseconds modulo 2^32.
    told_us: u32,
    /// This end's clock when that was heard, in nanoseconds.
    heard_at: u64,
}

/// Greetings that follow one another by less than this, in nanoseconds, may overtake each other.
const OVERTAKING_NS: u64 = 60_000_000_000;

/// How often a length that changes in the middle of a stream is told, since nothing confirms it.
const ANNOUNCEMENTS: u8 = 4;

/// What a greeting said.
pub(super) struct Heard {
    /// The peer, as it tells of itself.
    pub(super) peer: Peer,
    /// This is the first greeting of its stream.
    pub(super) new: bool,
    /// The peer knows this end's stream.
    pub(super) confirms: bool,
}

/// The greeting of a link: a stream of its own for each life of the link, told until the peer
/// confirms it.
#[derive(Debug)]
pub(super) struct Handshake {
    /// This life of the link at this end; 0 before the first.
    pub(super) stream: u32,
    pub(super) peer: Option<Peer>,
    /// A greeting is to be sent.
    pub(super) due: bool,
    /// How often it is still to be sent while records flow.
    announcements: u8,
    again_at: u64,
    interval_ns: u64,
}

impl Handshake {
    pub(super) const fn new() -> Self {
        Self {
            stream: 0,
            peer: None,
            due: false,
            announcements: 0,
            again_at: u64::MAX,
            interval_ns: 0,
        }
    }

    /// Begins a new stream, numbered later than any before it of this incarnation: the clock in
    /// units of 2^28 ns (about 0.27 s; good for 36 years), and one more than the last at least.
    pub(super) fn start(&mut self, now: u64, timing: &Timing) {
        let clock = u32::try_from(now >> 28).unwrap_or(u32::MAX);
        self.stream = clock.max(self.stream).saturating_add(1);
        self.peer = None;
        self.announcements = 0;
        self.hurry(now, timing);
    }

    /// Tells the peer anew, while records flow, what this end can receive.
    pub(super) fn announce(&mut self, now: u64, timing: &Timing) {
        self.announcements = ANNOUNCEMENTS;
        self.hurry(now, timing);
    }

    /// The timer while records flow: see [`announce`](Self::announce).
    pub(super) fn on_timer_up(&mut self, now: u64, timing: &Timing) {
        if self.announcements != 0 && now >= self.again_at {
            self.announcements = self.announcements.saturating_sub(1);
            self.on_timer(now, timing);
        }
    }

    /// The deadline while records flow.
    pub(super) fn deadline_up(&self) -> Option<u64> {
        (self.announcements != 0).then_some(self.again_at)
    }

    /// Greets at once, and often for a while.
    pub(super) fn hurry(&mut self, now: u64, timing: &Timing) {
        self.due = true;
        self.interval_ns = timing.hello_first_ns.max(1);
        self.again_at = now.saturating_add(self.interval_ns);
    }

    pub(super) fn on_timer(&mut self, now: u64, timing: &Timing) {
        if now >= self.again_at {
            self.due = true;
            self.interval_ns = self.interval_ns.saturating_mul(2).min(timing.hello_max_ns).max(1);
            self.again_at = now.saturating_add(self.interval_ns);
        }
    }

    pub(super) fn deadline(&self) -> u64 {
        self.again_at
    }

    /// Version of the frame to be sent: of greetings, and of others.
    pub(super) fn version(&self) -> u8 {
        self.peer.map_or(GREETING_VERSION, |peer| peer.version)
    }

    /// Reads a greeting. Does not change anything yet.
    pub(super) fn hear(
        &self,
        now: u64,
        frame: &Frame<'_>,
        versions: Versions,
    ) -> Result<Heard, Reject> {
        let greeting = Greeting::decode(frame.payload).map_err(Reject::Frame)?;
        let stream = frame.header.source.stream;
        let known = self.peer.map_or(0, |peer| peer.stream);
        if stream < known {
            return Err(Reject::Stale);
        }
        let version = versions.agree(greeting.versions).ok_or(Reject::Version)?;
        let peer = Peer {
            stream,
            version,
            payload_bytes: greeting.payload_bytes,
            told_us: frame.header.timestamp,
            heard_at: now,
        };
        let confirms = frame.header.destination.stream == self.stream;
        Ok(Heard { peer, new: stream != known, confirms })
    }

    /// Takes what the peer tells anew in the middle of its stream, unless it has told something
    /// else since. Returns whether that is another length.
    pub(super) fn update(&mut self, told: Peer) -> bool {
        let Some(peer) = self.peer.as_mut() else { return false };
        let after = told.told_us.wrapping_sub(peer.told_us) as i32;
        if after < 0 && told.heard_at.saturating_sub(peer.heard_at) < OVERTAKING_NS {
            return false;
        }
        let changed = told.payload_bytes != peer.payload_bytes;
        *peer = Peer { version: peer.version, ..told };
        changed
    }
}
