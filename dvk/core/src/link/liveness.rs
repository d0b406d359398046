// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Whether the peer still says anything.

use super::Timing;

/// The keep-alive of a link: asks a peer that has been silent for an answer, and notices when none
/// comes.
#[derive(Debug)]
pub(super) struct Liveness {
    probe_at: u64,
    unanswered: u32,
    lost: bool,
    /// A keep-alive is to be sent.
    pub(super) probe: bool,
}

impl Liveness {
    pub(super) const fn new() -> Self {
        Self { probe_at: u64::MAX, unanswered: 0, lost: false, probe: false }
    }

    /// Starts to count silence from `now`; whether the peer was lost stays as it is.
    pub(super) fn restart(&mut self, now: u64, timing: &Timing) {
        self.probe_at = now.saturating_add(timing.keepalive_ns.max(1));
        self.unanswered = 0;
        self.probe = false;
    }

    /// The peer was heard. Returns whether it had been lost.
    pub(super) fn heard(&mut self, now: u64, timing: &Timing) -> bool {
        self.restart(now, timing);
        core::mem::take(&mut self.lost)
    }

    /// Returns whether the peer is now lost and was not before.
    pub(super) fn on_timer(&mut self, now: u64, timing: &Timing) -> bool {
        if now < self.probe_at {
            return false;
        }
        let lost = !self.lost && self.unanswered >= timing.keepalive_misses;
        self.lost |= lost;
        self.unanswered = self.unanswered.saturating_add(1);
        self.probe_at = now.saturating_add(timing.keepalive_ns.max(1));
        self.probe = true;
        lost
    }

    pub(super) fn deadline(&self) -> u64 {
        self.probe_at
    }
}
