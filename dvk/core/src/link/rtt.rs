// SPDX-License-Identifier: GPL-2.0 OR MIT
//! How long an answer takes, and how long to wait for one (RFC 6298).

use super::Timing;

/// Samples above this are not believed.
const LONGEST_US: u32 = 60_000_000;

/// The measured round-trip time of a link and the retransmission timeout that follows from it.
///
/// Samples come from timestamps that the peer echoes (RFC 7323), so that a retransmitted frame can
/// be measured too and Karn's rule is not needed.
#[derive(Debug)]
pub(super) struct RoundTrip {
    /// `None` before the first sample.
    smoothed_ns: Option<u64>,
    variation_ns: u64,
    /// Timeouts in a row.
    backoff: u32,
}

/// The clock as frames tell it.
pub(super) fn timestamp(now_ns: u64) -> u32 {
    (now_ns / 1_000) as u32
}

impl RoundTrip {
    pub(super) const fn new() -> Self {
        Self { smoothed_ns: None, variation_ns: 0, backoff: 0 }
    }

    /// Takes the time since `echo` as a sample.
    pub(super) fn sample(&mut self, now_ns: u64, echo: u32) {
        let sample_us = timestamp(now_ns).wrapping_sub(echo);
        if sample_us > LONGEST_US {
            return;
        }
        let sample = u64::from(sample_us).wrapping_mul(1_000);
        match self.smoothed_ns {
            None => {
                self.smoothed_ns = Some(sample);
                self.variation_ns = sample / 2;
            }
            Some(smoothed) => {
                // Neither can overflow: samples are at most a minute.
                let deviation = smoothed.abs_diff(sample);
                self.variation_ns = (self.variation_ns.wrapping_mul(3).wrapping_add(deviation)) / 4;
                self.smoothed_ns = Some((smoothed.wrapping_mul(7).wrapping_add(sample)) / 8);
            }
        }
    }

    /// Nanoseconds to wait for an acknowledgement before sending again.
    pub(super) fn timeout(&self, timing: &Timing) -> u64 {
        let base = match self.smoothed_ns {
            None => timing.rto_initial_ns,
            // The peer may hold its acknowledgement back; half as long again for its timer.
            Some(smoothed) => smoothed
                .saturating_add(self.variation_ns.saturating_mul(4))
                .saturating_add(timing.ack_delay_ns.saturating_add(timing.ack_delay_ns / 2)),
        };
        let factor = 1u64 << self.backoff.min(16);
        base.max(timing.rto_min_ns).saturating_mul(factor).min(timing.rto_max_ns).max(1)
    }

    /// A timeout has passed: the next one is twice as long.
    pub(super) fn back_off(&mut self) {
        self.backoff = self.backoff.saturating_add(1);
    }

    /// The peer acknowledges again.
    pub(super) fn recover(&mut self) {
        self.backoff = 0;
    }

    /// The smoothed round-trip time in microseconds, 0 if there is none yet.
    pub(super) fn smoothed_us(&self) -> u32 {
        self.smoothed_ns
            .map_or(0, |smoothed| (smoothed / 1_000).clamp(1, u64::from(u32::MAX)) as u32)
    }
}
