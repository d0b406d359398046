// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a bad network does to frames: loss, delay, jitter, duplication and reordering, decided reproducibly.
//!
//! [`FaultStream`] is one direction of one link. It does no I/O and reads no clock: given the same seed and the same
//! sequence of frames it makes the same decisions. Every frame costs the same number of random draws whatever
//! the settings are, so that turning one fault on doesn't change what the others hit.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A probability in parts per million: exact, comparable, written `2.5%`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Probability {
    /// 0 is never, 1,000,000 is always.
    ppm: u32,
}

impl Probability {
    /// Never.
    pub const NEVER: Probability = Probability { ppm: 0 };
    /// Always.
    pub const ALWAYS: Probability = Probability { ppm: 1_000_000 };

    /// A probability of `percent`/100, `None` above 100.
    pub const fn percent(percent: u32) -> Option<Probability> {
        if percent > 100 {
            return None;
        }
        Some(Probability { ppm: percent * 10_000 })
    }

    /// Whether an event with this probability happens for the uniformly drawn `random`.
    fn hits(self, random: u64) -> bool {
        // The high half of the draw scaled to 0..1_000_000; the bias is below 2^-32.
        ((random >> 32) * 1_000_000) >> 32 < u64::from(self.ppm)
    }
}

impl fmt::Display for Probability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(self.ppm) / 10_000.0)
    }
}

/// A text that is no percentage.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a percentage from 0% to 100%, such as 1% or 0.5%")]
pub struct NotAPercentage(String);

impl FromStr for Probability {
    type Err = NotAPercentage;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || NotAPercentage(text.to_owned());
        let number = text.strip_suffix('%').ok_or_else(wrong)?.trim();
        let percent: f64 = number.parse().map_err(|_| wrong())?;
        if !(0.0..=100.0).contains(&percent) {
            return Err(wrong());
        }
        Ok(Probability { ppm: (percent * 10_000.0).round() as u32 })
    }
}

/// What happens to frames on one direction of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// How many frames vanish.
    pub loss: Probability,
    /// How many frames arrive twice.
    pub duplicate: Probability,
    /// How many frames are held back so that later ones overtake them.
    pub reorder: Probability,
    /// Time every frame takes.
    pub delay: Duration,
    /// Up to this much more time, uniformly distributed. By itself it doesn't reorder.
    pub jitter: Duration,
}

impl Faults {
    /// Whether frames simply pass.
    pub fn is_none(&self) -> bool {
        *self == Faults::default()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() {
            return f.write_str("no faults");
        }
        let mut separator = "";
        let shares =
            [("loss", self.loss), ("duplicate", self.duplicate), ("reorder", self.reorder)];
        for (name, share) in shares.into_iter().filter(|(_, share)| *share != Probability::NEVER) {
            write!(f, "{separator}{name} {share}")?;
            separator = ", ";
        }
        for (name, time) in [("delay", self.delay), ("jitter", self.jitter)] {
            if !time.is_zero() {
                write!(f, "{separator}{name} {time:?}")?;
                separator = ", ";
            }
        }
        Ok(())
    }
}

/// When the copies of one frame arrive; no copy at all means that it is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// When the frame arrives.
    pub first: Option<Duration>,
    /// When its duplicate arrives.
    pub second: Option<Duration>,
}

impl Plan {
    /// The arrival times of all copies.
    pub fn arrivals(&self) -> impl Iterator<Item = Duration> {
        self.first.into_iter().chain(self.second)
    }
}

/// The least time for which a reordered frame is held back.
const HOLD_MIN: Duration = Duration::from_millis(1);
/// The least spread of that time.
const HOLD_SPREAD_MIN: Duration = Duration::from_millis(4);

/// The fate of the frames on one direction of one link.
#[derive(Clone, Debug)]
pub struct FaultStream {
    random: SplitMix64,
    /// The latest arrival promised to a frame that keeps its place.
    last_arrival: Duration,
}

impl FaultStream {
    /// The stream of the direction `from` → `to` of a cluster whose seed is `seed`.
    pub fn new(seed: u64, from: usize, to: usize) -> Self {
        // Mixing through the generator keeps neighbouring links and seeds unrelated.
        let mut random = SplitMix64(seed);
        for part in [from as u64, to as u64] {
            random = SplitMix64(random.next() ^ part.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        }
        FaultStream { random, last_arrival: Duration::ZERO }
    }

    /// Decides about a frame sent at `now` (time since the switch started; must not go backwards).
    ///
    /// Frames that are not reordered arrive in the order in which they were sent, even under jitter or when the delay is
    /// lowered in between: a link is a queue.
    pub fn decide(&mut self, faults: &Faults, now: Duration) -> Plan {
        let [lost, doubled, reordered, jitter, hold, second_jitter] =
            std::array::from_fn(|_| self.random.next());
        if faults.loss.hits(lost) {
            return Plan::default();
        }
        let arrival = now + faults.delay + fraction(faults.jitter, jitter);
        let first = if faults.reorder.hits(reordered) {
            let spread = HOLD_SPREAD_MIN.max(faults.delay + faults.jitter);
            arrival.max(self.last_arrival) + HOLD_MIN + fraction(spread, hold)
        } else {
            self.last_arrival = arrival.max(self.last_arrival);
            self.last_arrival
        };
        let second =
            faults.duplicate.hits(doubled).then(|| first + fraction(faults.jitter, second_jitter));
        Plan { first: Some(first), second }
    }
}

/// `whole` times a uniform draw from [0, 1).
fn fraction(whole: Duration, random: u64) -> Duration {
    whole.mul_f64((random >> 11) as f64 / (1u64 << 53) as f64)
}

/// Steele, Lea, Flood: "Fast splittable pseudorandom number generators" (OOPSLA 2014).
///
/// Own code because a seed must replay the same faults in every later version of this crate, which the
/// general-purpose libraries don't promise of their generators.
#[derive(Clone, Debug)]
pub(crate) struct SplitMix64(u64);

impl SplitMix64 {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn percent(percent: u32) -> Probability {
        Probability::percent(percent).unwrap()
    }

    fn run(seed: u64, faults: &Faults, frames: u32, spacing: Duration) -> Vec<Plan> {
        let mut stream = FaultStream::new(seed, 0, 1);
        (0..frames).map(|n| stream.decide(faults, spacing * n)).collect()
    }

    fn any_faults() -> impl Strategy<Value = Faults> {
        (0u32..=100, 0u32..=100, 0u32..=100, 0u64..50, 0u64..50).prop_map(
            |(l, d, r, delay, jitter)| Faults {
                loss: percent(l),
                duplicate: percent(d),
                reorder: percent(r),
                delay: Duration::from_millis(delay),
                jitter: Duration::from_millis(jitter),
            },
        )
    }

    #[test]
    fn the_generator_is_the_published_one() {
        // First outputs for seed 1234567 of the authors' reference implementation.
        let mut random = SplitMix64(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn percentages_are_read_and_written() {
        for (text, ppm) in [("0%", 0), ("1%", 10_000), ("0.5%", 5_000), ("100%", 1_000_000)] {
            let read: Probability = text.parse().unwrap();
            assert_eq!(read.ppm, ppm);
            assert_eq!(read.to_string(), text);
        }
        for text in ["", "%", "1", "-1%", "101%", "NaN%", "x%", "1%%"] {
            assert!(text.parse::<Probability>().is_err(), "{text}");
        }
    }

    #[test]
    fn rates_are_met() {
        let frames = 100_000;
        let faults = Faults {
            loss: percent(5),
            duplicate: percent(2),
            reorder: percent(1),
            delay: Duration::from_millis(5),
            jitter: Duration::ZERO,
        };
        let spacing = Duration::from_micros(10);
        for seed in 0..4 {
            let plans = run(seed, &faults, frames, spacing);
            let lost = plans.iter().filter(|p| p.first.is_none()).count();
            let doubled = plans.iter().filter(|p| p.second.is_some()).count();
            let arrived = frames as usize - lost;
            let late = plans
                .iter()
                .enumerate()
                .filter(|(n, p)| p.first.is_some_and(|at| at > spacing * *n as u32 + faults.delay))
                .count();
            // Five standard deviations around the mean.
            assert!(within(lost, frames as usize, 0.05), "{lost} lost");
            assert!(within(doubled, arrived, 0.02), "{doubled} doubled");
            assert!(within(late, arrived, 0.01), "{late} reordered");
        }
    }

    fn within(hits: usize, of: usize, p: f64) -> bool {
        let mean = of as f64 * p;
        (hits as f64 - mean).abs() < 5.0 * (mean * (1.0 - p)).sqrt()
    }

    #[test]
    fn links_and_seeds_differ() {
        let faults = Faults { loss: percent(50), ..Faults::default() };
        let outcome = |seed, from, to| {
            let mut stream = FaultStream::new(seed, from, to);
            (0..64)
                .map(|_| stream.decide(&faults, Duration::ZERO).first.is_some())
                .collect::<Vec<_>>()
        };
        let all = [outcome(7, 0, 1), outcome(7, 1, 0), outcome(7, 0, 2), outcome(8, 0, 1)];
        for (i, one) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|other| other != one));
        }
    }

    proptest! {
        #[test]
        fn the_same_seed_decides_the_same(seed: u64, faults in any_faults()) {
            let spacing = Duration::from_micros(300);
            prop_assert_eq!(run(seed, &faults, 200, spacing), run(seed, &faults, 200, spacing));
        }

        #[test]
        fn loss_hits_the_same_frames_whatever_else_is_on(seed: u64, faults in any_faults()) {
            let only_loss = Faults { loss: faults.loss, ..Faults::default() };
            let lost = |plans: Vec<Plan>| plans.iter().map(|p| p.first.is_none()).collect::<Vec<_>>();
            let spacing = Duration::from_micros(300);
            prop_assert_eq!(
                lost(run(seed, &faults, 200, spacing)),
                lost(run(seed, &only_loss, 200, spacing))
            );
        }

        #[test]
        fn frames_take_their_delay_and_keep_their_order(seed: u64, faults in any_faults()) {
            let faults = Faults { reorder: Probability::NEVER, ..faults };
            let spacing = Duration::from_micros(300);
            let mut before = Duration::ZERO;
            for (n, plan) in run(seed, &faults, 200, spacing).into_iter().enumerate() {
                let sent = spacing * n as u32;
                for at in plan.arrivals() {
                    prop_assert!(at >= sent + faults.delay);
                }
                if let Some(at) = plan.first {
                    prop_assert!(at >= before);
                    prop_assert!(at <= sent + faults.delay + faults.jitter);
                    before = at;
                }
            }
        }

        #[test]
        fn reordered_frames_are_overtaken(seed: u64) {
            let faults = Faults { reorder: percent(20), ..Faults::default() };
            let plans = run(seed, &faults, 500, Duration::from_micros(50));
            let overtaken = plans.windows(2).filter(|w| w[1].first < w[0].first).count();
            prop_assert!(overtaken > 20, "{} of 500", overtaken);
        }
    }
}
