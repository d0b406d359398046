// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is measured, and how often.

use crate::mechanism::can;
use clap::ValueEnum;
use dvk_bench::{Mechanism, Placement, Policy, Task, Unit};

/// Sizes of copies: from a byte to a mebibyte, each four times the one before.
const SIZES: [u32; 11] = [1, 4, 16, 64, 256, 1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20];
/// Most pairs at a time.
const PAIRS_MAX: u32 = 4;

/// One thing to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Setup {
    pub(crate) mechanism: Mechanism,
    pub(crate) task: Task,
    pub(crate) placement: Placement,
    pub(crate) policy: Policy,
    pub(crate) pairs: u32,
}

impl Setup {
    /// The processors of the client and the server of pair `number`.
    pub(crate) fn cpus(&self, number: u32) -> [usize; 2] {
        match self.placement {
            Placement::OneCpu => [0, 0],
            Placement::TwoCpus => [0, 1],
            Placement::Pairs => [(number % 2) as usize; 2],
        }
    }
}

/// How often a thing is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Effort {
    /// Samples.
    pub(crate) batches: u32,
    /// What a batch is to take, in the unit of the measurement, on which the number of its operations depends.
    pub(crate) batch: u64,
}

impl Effort {
    pub(crate) fn of(unit: Unit, quick: bool) -> Self {
        match (unit, quick) {
            (Unit::Nanoseconds, false) => Self { batches: 15, batch: 40_000_000 },
            (Unit::Nanoseconds, true) => Self { batches: 5, batch: 10_000_000 },
            // The clock that counts has no noise but the timer's interrupt, of which a batch is to have several.
            (Unit::Instructions, false) => Self { batches: 5, batch: 20_000_000 },
            (Unit::Instructions, true) => Self { batches: 3, batch: 5_000_000 },
        }
    }

    /// How many operations a batch is to have when `operations` took `elapsed`.
    pub(crate) fn operations(&self, operations: u64, elapsed: u64) -> u64 {
        (u128::from(self.batch) * u128::from(operations) / u128::from(elapsed.max(1)))
            .clamp(5, 1_000_000) as u64
    }
}

/// All that a machine with `cpus` processors is to measure, but for the mechanisms that are not among `only`; with an empty `only`,
/// all of them.
pub(crate) fn plan(unit: Unit, cpus: usize, only: &[Mechanism]) -> Vec<Setup> {
    let mut placements = vec![(Placement::OneCpu, 1, &[Policy::Fifo, Policy::Default][..])];
    if cpus > 1 && unit == Unit::Nanoseconds {
        placements.push((Placement::TwoCpus, 1, &[Policy::Fifo, Policy::Default]));
        placements
            .extend((1..=PAIRS_MAX).map(|pairs| (Placement::Pairs, pairs, &[Policy::Default][..])));
    }
    let mut setups = Vec::new();
    let chosen = |mechanism: &&Mechanism| only.is_empty() || only.contains(mechanism);
    for (placement, pairs, policies) in placements {
        for &policy in policies {
            for &mechanism in Mechanism::value_variants().iter().filter(chosen) {
                let task = Task::RoundTrip;
                setups.push(Setup { mechanism, task, placement, policy, pairs });
            }
        }
    }
    for size in SIZES {
        for &mechanism in Mechanism::value_variants().iter().filter(chosen) {
            setups.push(Setup {
                mechanism,
                task: Task::Copy(size),
                placement: Placement::OneCpu,
                policy: Policy::Default,
                pairs: 1,
            });
        }
    }
    setups.retain(|setup| can(setup.mechanism, setup.task));
    setups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_measured_twice() {
        for (unit, cpus) in [(Unit::Nanoseconds, 2), (Unit::Instructions, 1)] {
            let mut setups = plan(unit, cpus, &[]);
            let all = setups.len();
            setups.sort();
            setups.dedup();
            assert_eq!(setups.len(), all);
            for setup in &setups {
                for number in 0..setup.pairs {
                    assert!(setup.cpus(number).iter().all(|&cpu| cpu < cpus), "{setup:?}");
                }
            }
        }
    }

    #[test]
    fn two_pairs_have_a_processor_each() {
        let of = |mechanism| plan(Unit::Nanoseconds, 2, &[mechanism]);
        let pairs = of(Mechanism::M3);
        let two = pairs.iter().find(|setup| setup.pairs == 2).unwrap();
        assert_eq!([two.cpus(0), two.cpus(1)], [[0, 0], [1, 1]]);
        assert!(of(Mechanism::ProcessVmReadv).iter().all(|setup| setup.task != Task::RoundTrip));
    }

    #[test]
    fn a_batch_takes_what_it_is_to_take() {
        let effort = Effort { batches: 1, batch: 1000 };
        assert_eq!(effort.operations(10, 100), 100);
        assert_eq!(effort.operations(10, 0), 10_000);
        assert_eq!(effort.operations(10, u64::MAX), 5);
    }
}
