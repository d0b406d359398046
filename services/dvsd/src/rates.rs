// SPDX-License-Identifier: MIT OR Apache-2.0
//! How fast counters of bytes grow.

use std::collections::VecDeque;

/// Milliseconds over which is measured.
const WINDOW_MS: u64 = 2_000;
/// Milliseconds between two samples.
const SAMPLE_MS: u64 = 200;

/// Bytes counted, out and in.
pub type Bytes = [u64; 2];

/// The recent past of a link's counters.
#[derive(Clone, Debug, Default)]
pub struct Rates(VecDeque<(u64, Bytes)>);

impl Rates {
    /// Takes the counters as they are now; gives back by how much each grew per second.
    pub fn record(&mut self, now_ms: u64, bytes: Bytes) -> Bytes {
        let Self(samples) = self;
        // A link that starts over counts from 0.
        let fell = |(_, before): &(u64, Bytes)| before.iter().zip(bytes).any(|(b, now)| *b > now);
        if samples.back().is_some_and(fell) {
            samples.clear();
        }
        while samples.len() > 1 && now_ms.saturating_sub(samples[0].0) > WINDOW_MS {
            samples.pop_front();
        }
        if samples.back().is_none_or(|(at, _)| now_ms.saturating_sub(*at) >= SAMPLE_MS) {
            samples.push_back((now_ms, bytes));
        }
        let (from_ms, before) = samples[0];
        let ms = now_ms.saturating_sub(from_ms);
        if ms == 0 {
            return [0; 2];
        }
        let per_s = |index: usize| {
            let grown = u128::from(bytes[index].saturating_sub(before[index]));
            (grown * 1_000 / u128::from(ms)) as u64
        };
        [per_s(0), per_s(1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steady_growth_is_told_and_its_end_noticed() {
        let mut rates = Rates::default();
        assert_eq!(rates.record(0, [0, 0]), [0, 0]);
        for ms in (100..10_000).step_by(100) {
            assert_eq!(rates.record(ms, [5 * ms, 70 * ms]), [5_000, 70_000], "{ms}");
        }
        let mut last = [0; 2];
        for ms in (10_000..13_000).step_by(100) {
            last = rates.record(ms, [50_000, 700_000]);
        }
        assert_eq!(last, [0, 0]);
        assert!(rates.0.len() <= 2 + (WINDOW_MS / SAMPLE_MS) as usize);
    }

    #[test]
    fn a_link_that_starts_over_has_no_negative_rate() {
        let mut rates = Rates::default();
        rates.record(0, [1_000_000, 10]);
        rates.record(1_000, [2_000_000, 10]);
        assert_eq!(rates.record(1_100, [0, 0]), [0, 0]);
        assert_eq!(rates.record(2_100, [500, 0]), [500, 0]);
    }
}
