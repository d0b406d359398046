// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which compression is worth its time now.
//!
//! What a batch costs is the time to compress it and the time until the transport has taken what is left. Both are measured as
//! they happen: the transport takes bytes at once where the path is faster than we are, and compression only costs then; it makes
//! us wait where the path is slow, and every byte less is time gained. Which of the two a link has changes with its load and with what
//! its messages say, so that every coding is tried again now and then; the longer it has gained nothing, the more rarely.

use core::time::Duration;

/// How a batch is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// As it is.
    Plain,
    /// LZ4: fast.
    Lz4,
    /// Zstandard: thorough.
    Zstd,
}

/// Batches below this many bytes are not worth a thought.
pub const LEAST_BYTES: usize = 512;
/// Batches between two trials of a coding that was worth it when it was tried last.
const TRIAL_EVERY_MIN: u32 = 32;
/// The same for one that never was.
const TRIAL_EVERY_MAX: u32 = 1024;
/// The share of a new measurement in what is remembered.
const NEW: f64 = 0.25;

/// What is known of a compression.
#[derive(Clone, Copy, Debug)]
struct Known {
    coding: Coding,
    /// Bytes left of each, and nanoseconds spent for each; `None` before the first trial.
    measured: Option<(f64, f64)>,
    /// Batches until the next trial.
    trial_in: u32,
    /// And from that one until the next.
    trial_every: u32,
}

/// Decides, from what it is told.
#[derive(Clone, Debug)]
pub struct Gain {
    known: [Known; 2],
    /// Nanoseconds for each byte that the transport is given.
    transport_ns: f64,
}

impl Default for Gain {
    fn default() -> Self {
        let known = |coding, trial_in| Known {
            coding,
            measured: None,
            trial_in,
            trial_every: TRIAL_EVERY_MIN,
        };
        // The first ones soon, and not both at the same batch.
        Self { known: [known(Coding::Lz4, 2), known(Coding::Zstd, 4)], transport_ns: 0.0 }
    }
}

impl Gain {
    /// How a batch of `bytes` is to be written.
    pub fn choose(&mut self, bytes: usize) -> Coding {
        if bytes < LEAST_BYTES {
            return Coding::Plain;
        }
        let plain = self.transport_ns;
        let mut best = (Coding::Plain, plain);
        let mut trial = None;
        for known in &mut self.known {
            let cost = known.measured.map(|(left, spent)| spent + left * plain);
            if let Some(cost) = cost.filter(|cost| *cost < best.1) {
                best = (known.coding, cost);
            }
            known.trial_in = known.trial_in.saturating_sub(1);
            if known.trial_in == 0 && trial.is_none() {
                let worth_it = cost.is_none_or(|cost| cost < plain);
                known.trial_every = if worth_it {
                    TRIAL_EVERY_MIN
                } else {
                    (known.trial_every * 2).min(TRIAL_EVERY_MAX)
                };
                known.trial_in = known.trial_every;
                trial = Some(known.coding);
            }
        }
        trial.unwrap_or(best.0)
    }

    /// A batch of `bytes` became `left` in this time.
    pub fn compressed(&mut self, coding: Coding, bytes: usize, left: usize, spent: Duration) {
        let Some(known) = self.known.iter_mut().find(|known| known.coding == coding) else {
            return;
        };
        let Some(each) = Some(bytes as f64).filter(|bytes| *bytes > 0.0) else { return };
        let now = (left as f64 / each, spent.as_nanos() as f64 / each);
        known.measured = Some(match known.measured {
            Some(before) => (blend(before.0, now.0), blend(before.1, now.1)),
            None => now,
        });
    }

    /// The transport took so many bytes in this time.
    pub fn taken(&mut self, bytes: usize, spent: Duration) {
        if bytes >= LEAST_BYTES {
            // One write that stands still is no rate: what the path is like shows in several.
            let now = (spent.as_nanos() as f64 / bytes as f64).min(1e5);
            self.transport_ns = blend(self.transport_ns, now);
        }
    }
}

fn blend(before: f64, now: f64) -> f64 {
    before * (1.0 - NEW) + now * NEW
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path and contents: nanoseconds per byte of the transport, and of each compression what is left and what it costs.
    struct World {
        transport_ns: f64,
        lz4: (f64, f64),
        zstd: (f64, f64),
    }

    const TEXT: World = World { transport_ns: 0.1, lz4: (0.5, 2.0), zstd: (0.3, 8.0) };

    /// How often each coding was chosen for `count` batches.
    fn live(gain: &mut Gain, world: &World, count: usize) -> [usize; 3] {
        const BYTES: usize = 10_000;
        let mut chosen = [0; 3];
        for _ in 0..count {
            let coding = gain.choose(BYTES);
            let (left, spent) = match coding {
                Coding::Plain => (1.0, 0.0),
                Coding::Lz4 => world.lz4,
                Coding::Zstd => world.zstd,
            };
            let ns = |each: f64, bytes: f64| Duration::from_nanos((each * bytes) as u64);
            let left = BYTES as f64 * left;
            gain.compressed(coding, BYTES, left as usize, ns(spent, BYTES as f64));
            gain.taken(left as usize, ns(world.transport_ns, left));
            chosen[coding as usize] += 1;
        }
        chosen
    }

    #[test]
    fn a_fast_path_is_not_held_up() {
        let mut gain = Gain::default();
        let [plain, ..] = live(&mut gain, &TEXT, 10_000);
        assert!(plain > 9_900, "{plain}");
        // What gains nothing is tried ever more rarely.
        let [plain, ..] = live(&mut gain, &TEXT, 10_000);
        assert!((9_970..10_000).contains(&plain), "{plain}");
    }

    #[test]
    fn a_slower_path_gets_lz4_and_a_slow_one_zstd() {
        let [_, lz4, _] = live(&mut Gain::default(), &World { transport_ns: 10.0, ..TEXT }, 1_000);
        assert!(lz4 > 900, "{lz4}");
        let [.., zstd] = live(&mut Gain::default(), &World { transport_ns: 80.0, ..TEXT }, 1_000);
        assert!(zstd > 900, "{zstd}");
    }

    #[test]
    fn what_does_not_shrink_is_not_compressed() {
        let noise = World { transport_ns: 80.0, lz4: (1.0, 0.5), zstd: (1.0, 1.0) };
        let [plain, ..] = live(&mut Gain::default(), &noise, 5_000);
        assert!(plain > 4_900, "{plain}");
    }

    #[test]
    fn the_choice_follows_the_path() {
        let mut gain = Gain::default();
        live(&mut gain, &TEXT, 20_000);
        let slow = World { transport_ns: 80.0, ..TEXT };
        // Within one interval of the rarest trials.
        live(&mut gain, &slow, TRIAL_EVERY_MAX as usize);
        assert!(live(&mut gain, &slow, 1_000)[Coding::Zstd as usize] > 900);
        live(&mut gain, &TEXT, 100);
        assert!(live(&mut gain, &TEXT, 1_000)[Coding::Plain as usize] > 900);
    }

    #[test]
    fn the_choice_follows_the_contents() {
        let noise = World { transport_ns: 80.0, lz4: (1.0, 0.5), zstd: (1.0, 1.0) };
        let text = World { transport_ns: 80.0, ..TEXT };
        let mut gain = Gain::default();
        live(&mut gain, &noise, 5_000);
        live(&mut gain, &text, 8 * TRIAL_EVERY_MAX as usize);
        assert!(live(&mut gain, &text, 1_000)[Coding::Zstd as usize] > 900);
    }

    #[test]
    fn small_batches_stay_as_they_are() {
        let mut gain = Gain::default();
        live(&mut gain, &World { transport_ns: 80.0, ..TEXT }, 1_000);
        assert_eq!(gain.choose(LEAST_BYTES - 1), Coding::Plain);
        assert_ne!(gain.choose(LEAST_BYTES), Coding::Plain);
    }
}
