// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is measured in which order: in rounds, so that what disturbs the host hits all ways alike.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::ValueEnum;
use dvk_bench::{Carrier, Work, PAIRS_MAX};

use super::pair::Pair;

/// Sizes of blocks: from a byte to a mebibyte, each four times the one before.
const SIZES: [u32; 11] = [1, 4, 16, 64, 256, 1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20];
/// Operations to know by how long one takes.
const WARM_UP: u64 = 5;

/// How long nodes that do nothing are watched.
const IDLE: Duration = Duration::from_secs(4);

/// How often a thing is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Effort {
    /// Samples.
    rounds: u32,
    /// Nanoseconds that a sample is to take.
    sample: u64,
}

impl Effort {
    pub(super) fn of(quick: bool) -> Self {
        if quick {
            Self { rounds: 3, sample: 50_000_000 }
        } else {
            Self { rounds: 7, sample: 120_000_000 }
        }
    }

    /// How many operations a sample is to have when `operations` took `elapsed`.
    fn operations(&self, operations: u64, elapsed: u64) -> u64 {
        let fitting = u128::from(self.sample) * u128::from(operations) / u128::from(elapsed.max(1));
        fitting.clamp(2, 1_000_000) as u64
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Case {
    pub(super) carrier: Carrier,
    pub(super) work: Work,
    pub(super) pairs: u32,
}

/// Of one case, how many operations a sample has, and what an operation took in nanoseconds in each.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Samples {
    pub(super) operations: u64,
    pub(super) nanoseconds: Vec<f64>,
}

/// All samples, and the ways that could not be measured, each with the reason.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Measured {
    pub(super) samples: BTreeMap<Case, Samples>,
    /// Instructions per operation, on the client's node and on the server's.
    pub(super) instructions: BTreeMap<Case, [f64; 2]>,
    pub(super) missing: BTreeMap<Carrier, String>,
}

/// The rounds.
pub(super) struct Rounds {
    effort: Effort,
    only: Vec<Carrier>,
    measured: Measured,
}

impl Rounds {
    /// Of all ways, or of `only` these.
    pub(super) fn new(effort: Effort, only: &[Carrier]) -> Self {
        Self { effort, only: only.to_vec(), measured: Measured::default() }
    }

    /// Takes all samples; `tell` is told what is being done.
    ///
    /// # Errors
    /// Only when the nodes are in no state to go on; what one way lacks is noted.
    pub(super) fn take(&mut self, pair: &mut Pair, mut tell: impl FnMut(&str)) -> Result<()> {
        let missing = pair.missing().iter().filter(|(way, _)| self.wanted(*way));
        let missing: Vec<_> = missing.cloned().collect();
        self.measured.missing.extend(missing);
        for round in 1..=self.effort.rounds {
            for group in groups() {
                let group: Vec<_> = group.into_iter().filter(|way| self.wanted(*way)).collect();
                let Some(&first) = group.iter().find(|way| !self.lacks(**way)) else { continue };
                tell(&format!("round {round} of {}: {first}", self.effort.rounds));
                if let Err(error) = pair.attach(first) {
                    self.lack(first, &error);
                    continue;
                }
                for case in cases(&group) {
                    self.sample(pair, case);
                }
            }
        }
        // The link is left as it was found.
        pair.attach(Carrier::M3Ethernet)
    }

    /// Counts the instructions of everything, on nodes that meter them: once is enough, since hardly anything disturbs them.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub(super) fn count(&mut self, pair: &mut Pair, mut tell: impl FnMut(&str)) -> Result<()> {
        tell("counting the instructions of nodes that do nothing");
        let idle = Meter::start(pair)?;
        std::thread::sleep(IDLE);
        let (idle, seconds) = idle.read(pair)?;
        let rates = idle.map(|executed| executed / seconds);
        for group in groups() {
            let group: Vec<_> = group.into_iter().filter(|way| self.wanted(*way)).collect();
            let Some(&first) = group.iter().find(|way| !self.lacks(**way)) else { continue };
            tell(&format!("counting the instructions of {first}"));
            if let Err(error) = pair.attach(first) {
                self.lack(first, &error);
                continue;
            }
            for case in cases(&group).into_iter().filter(|case| case.pairs == 1) {
                if self.lacks(case.carrier) {
                    continue;
                }
                match meter(self.effort, pair, case, rates) {
                    Ok(instructions) => drop(self.measured.instructions.insert(case, instructions)),
                    Err(error) => self.lack(case.carrier, &error),
                }
            }
        }
        Ok(())
    }

    /// What could not be measured, and why.
    pub(super) fn missing(&self) -> &BTreeMap<Carrier, String> {
        &self.measured.missing
    }

    pub(super) fn into_samples(self) -> Measured {
        self.measured
    }

    fn wanted(&self, carrier: Carrier) -> bool {
        self.only.is_empty() || self.only.contains(&carrier)
    }

    fn lacks(&self, carrier: Carrier) -> bool {
        self.measured.missing.contains_key(&carrier)
    }

    fn lack(&mut self, carrier: Carrier, error: &anyhow::Error) {
        self.measured.missing.insert(carrier, format!("{error:#}"));
    }

    fn sample(&mut self, pair: &mut Pair, case: Case) {
        if self.lacks(case.carrier) {
            return;
        }
        let effort = self.effort;
        let mut measure =
            |operations| pair.measure(case.carrier, case.work, case.pairs, operations);
        let taken = (|| {
            let operations = match self.measured.samples.get(&case) {
                Some(samples) => samples.operations,
                None => {
                    let operations = effort.operations(WARM_UP, measure(WARM_UP)?);
                    // The first estimate is of cold caches and of a congestion window that has yet to grow.
                    effort.operations(operations, measure(operations)?)
                }
            };
            Ok((operations, measure(operations)?))
        })();
        match taken {
            Ok((operations, elapsed)) => {
                let samples = self.measured.samples.entry(case).or_default();
                samples.operations = operations;
                let all = operations * u64::from(case.pairs);
                samples.nanoseconds.push(elapsed as f64 / all as f64);
            }
            Err(error) => self.lack(case.carrier, &error),
        }
    }
}

/// Reads what two nodes execute in a time.
struct Meter {
    executed: [u64; 2],
    began: Instant,
}

impl Meter {
    fn start(pair: &Pair) -> Result<Self> {
        Ok(Self { executed: pair.executed()?, began: Instant::now() })
    }

    /// How many instructions since the start, and how many seconds.
    fn read(&self, pair: &Pair) -> Result<([f64; 2], f64)> {
        let seconds = self.began.elapsed().as_secs_f64();
        let now = pair.executed()?;
        Ok(([0, 1].map(|node| now[node].saturating_sub(self.executed[node]) as f64), seconds))
    }
}

/// The instructions of an operation on each node, without what the nodes execute at these rates whatever is done.
fn meter(effort: Effort, pair: &mut Pair, case: Case, rates: [f64; 2]) -> Result<[f64; 2]> {
    let Case { carrier, work, pairs } = case;
    let elapsed = pair.measure(carrier, work, pairs, WARM_UP)?;
    let operations = effort.operations(WARM_UP, elapsed);
    let meter = Meter::start(pair)?;
    pair.measure(carrier, work, pairs, operations)?;
    let (executed, seconds) = meter.read(pair)?;
    Ok([0, 1].map(|node| (executed[node] - rates[node] * seconds) / operations as f64))
}

/// What is measured without changing what carries the link: raw Ethernet with all sockets, and each other transport.
fn groups() -> Vec<Vec<Carrier>> {
    let all = Carrier::value_variants().iter().copied();
    let (others, first): (Vec<_>, Vec<_>) =
        all.partition(|way| way.is_m3() && *way != Carrier::M3Ethernet);
    let mut groups = vec![first];
    groups.extend(others.into_iter().map(|way| vec![way]));
    groups
}

/// All that these ways can do, the same work by all of them one after the other.
fn cases(carriers: &[Carrier]) -> Vec<Case> {
    let blocks = SIZES.iter().flat_map(|bytes| [Work::Fetch(*bytes), Work::Store(*bytes)]);
    let works = (1..=PAIRS_MAX).map(|pairs| (Work::RoundTrip, pairs));
    let works = works.chain(blocks.map(|work| (work, 1)));
    works
        .flat_map(|(work, pairs)| {
            carriers.iter().map(move |&carrier| Case { work, pairs, carrier })
        })
        .filter(|case| case.carrier.can(case.work))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_way_is_in_one_group() {
        let groups = groups();
        let all: Vec<_> = groups.concat();
        let distinct: BTreeSet<_> = all.iter().collect();
        assert_eq!(
            (all.len(), distinct.len()),
            (Carrier::value_variants().len(), Carrier::value_variants().len())
        );
        // The link can be carried by one transport at a time.
        assert!(groups.iter().all(|group| group.iter().filter(|way| way.is_m3()).count() == 1));
        assert_eq!(groups[0][0], Carrier::M3Ethernet);
    }

    #[test]
    fn no_case_comes_twice_and_none_is_impossible() {
        let cases = cases(Carrier::value_variants());
        let distinct: BTreeSet<_> = cases.iter().collect();
        assert_eq!(cases.len(), distinct.len());
        assert!(cases.iter().all(|case| case.carrier.can(case.work)));
        let udp = cases.iter().filter(|case| case.carrier == Carrier::Udp);
        assert_eq!(udp.count(), PAIRS_MAX as usize);
    }

    #[test]
    fn a_sample_takes_what_it_is_to_take() {
        let effort = Effort { rounds: 1, sample: 1000 };
        assert_eq!(effort.operations(10, 100), 100);
        assert_eq!(effort.operations(10, 0), 10_000);
        assert_eq!(effort.operations(10, u64::MAX), 2);
    }
}
