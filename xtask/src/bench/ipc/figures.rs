// SPDX-License-Identifier: MIT OR Apache-2.0
//! What follows from the measurements: medians, spreads, and how M3-IPC compares with the best of the others.

use dvk_bench::{Mechanism, Placement, Policy, Record, Task, Unit};
use dvs_qemu::accel::Accelerator;
use serde::Serialize;

use super::super::plot::{Plot, Scale, Series};
use super::super::ratio::Ratio;
use super::super::spread::Spread;

/// Bytes of the copy by which mechanisms are compared.
const COMPARED_COPY: u32 = 64 << 10;

/// All figures, as they are printed for programs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Figures {
    /// What ran the machine whose clock told time.
    pub(super) accelerator: Accelerator,
    pub(super) measurements: Vec<Measurement>,
    pub(super) missing: Vec<Missing>,
    pub(super) ratios: Vec<Ratio>,
}

/// A mechanism that was not measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Missing {
    pub(super) mechanism: Mechanism,
    pub(super) task: Task,
    pub(super) unit: Unit,
    pub(super) why: String,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Measurement {
    #[serde(flatten)]
    pub(super) case: Case,
    pub(super) mechanism: Mechanism,
    /// Operations of each pair in a batch.
    pub(super) operations: u64,
    /// What an operation costs, over all batches.
    pub(super) cost: Spread,
    /// Operations of all pairs together in a second, if time was measured.
    pub(super) per_second: Option<f64>,
    /// Bytes copied in a second, if time was measured and this is a copy.
    pub(super) bytes_per_second: Option<f64>,
}

/// What is measured, apart from the mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Case {
    pub(super) task: Task,
    pub(super) placement: Placement,
    pub(super) policy: Policy,
    pub(super) pairs: u32,
    pub(super) unit: Unit,
}

impl Case {
    /// Round trips of one pair.
    pub(super) fn round_trip(placement: Placement, policy: Policy, unit: Unit) -> Self {
        Self { task: Task::RoundTrip, placement, policy, pairs: 1, unit }
    }

    /// Round trips of several pairs on two processors.
    pub(super) fn pairs(pairs: u32) -> Self {
        let (placement, policy) = (Placement::Pairs, Policy::Default);
        Self { task: Task::RoundTrip, placement, policy, pairs, unit: Unit::Nanoseconds }
    }

    /// Copies of this many bytes.
    pub(super) fn copy(bytes: u32, unit: Unit) -> Self {
        let (placement, policy) = (Placement::OneCpu, Policy::Default);
        Self { task: Task::Copy(bytes), placement, policy, pairs: 1, unit }
    }
}

impl Measurement {
    fn new(record: &Record) -> Option<Self> {
        let &Record { mechanism, task, placement, policy, pairs, unit, operations, .. } = record;
        let cost = Spread::of(&record.samples)?;
        let per_second = (unit == Unit::Nanoseconds).then_some(1e9 / cost.median);
        let bytes_per_second = match task {
            Task::Copy(bytes) => per_second.map(|copies| copies * f64::from(bytes)),
            Task::RoundTrip => None,
        };
        let case = Case { task, placement, policy, pairs, unit };
        Some(Self { case, mechanism, operations, cost, per_second, bytes_per_second })
    }
}

/// Whether M3-IPC is to be better than this. A futex carries no message, so it is no alternative.
fn competes(mechanism: Mechanism) -> bool {
    !matches!(mechanism, Mechanism::M3 | Mechanism::Futex | Mechanism::ProcessVmReadv)
}

impl Figures {
    pub(super) fn new(accelerator: Accelerator, records: &[Record], missing: Vec<Missing>) -> Self {
        let measurements = records.iter().filter_map(Measurement::new).collect();
        let mut figures = Self { accelerator, measurements, missing, ratios: Vec::new() };
        figures.ratios = figures.compare();
        figures
    }

    /// The measurement of a mechanism in a case, if there is one.
    pub(super) fn find(&self, mechanism: Mechanism, case: Case) -> Option<&Measurement> {
        self.measurements.iter().find(|one| one.mechanism == mechanism && one.case == case)
    }

    /// The best of those that M3-IPC is compared with.
    pub(super) fn best(&self, case: Case) -> Option<&Measurement> {
        let others =
            self.measurements.iter().filter(|one| one.case == case && competes(one.mechanism));
        others.min_by(|a, b| a.cost.median.total_cmp(&b.cost.median))
    }

    fn compare(&self) -> Vec<Ratio> {
        use {Placement as P, Policy as S, Unit as U};
        let mut ratios = Vec::new();
        let m3 = |case| Some(self.find(Mechanism::M3, case)?.cost.median);
        let mut add = |name, other: Option<&Measurement>, case, goal| {
            if let (Some(m3), Some(other)) = (m3(case), other) {
                let against = other.mechanism.to_string();
                ratios.push(Ratio { name, ratio: other.cost.median / m3, against, goal });
            }
        };
        for (name, case, goal) in [
            (
                "one-cpu-fifo-instructions",
                Case::round_trip(P::OneCpu, S::Fifo, U::Instructions),
                1.4,
            ),
            (
                "one-cpu-default-instructions",
                Case::round_trip(P::OneCpu, S::Default, U::Instructions),
                1.2,
            ),
            ("two-cpus-fifo-rate", Case::round_trip(P::TwoCpus, S::Fifo, U::Nanoseconds), 10.0),
            (
                "two-cpus-default-rate",
                Case::round_trip(P::TwoCpus, S::Default, U::Nanoseconds),
                10.0,
            ),
        ] {
            add(name, self.best(case), case, goal);
        }
        let case = Case::copy(COMPARED_COPY, Unit::Instructions);
        for (name, mechanism, goal) in [
            ("copy-64k-process-vm-readv-instructions", Mechanism::ProcessVmReadv, 1.05),
            ("copy-64k-pipe-instructions", Mechanism::Pipe, 2.2),
        ] {
            add(name, self.find(mechanism, case), case, goal);
        }
        if let (Some(one), Some(two)) = (m3(Case::pairs(1)), m3(Case::pairs(2))) {
            let against = "one pair".to_owned();
            ratios.push(Ratio { name: "two-pairs-rate", ratio: one / two, against, goal: 1.8 });
        }
        ratios
    }

    /// Sizes of the copies that were measured, ascending.
    pub(super) fn sizes(&self) -> Vec<u32> {
        let mut sizes: Vec<_> = self
            .measurements
            .iter()
            .filter_map(|one| match one.case.task {
                Task::Copy(bytes) => Some(bytes),
                Task::RoundTrip => None,
            })
            .collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    /// The mechanisms with measurements for which `holds`, in the order of their definition.
    pub(super) fn mechanisms(&self, holds: impl Fn(&Case) -> bool) -> Vec<Mechanism> {
        let measured = self.measurements.iter().filter(|one| holds(&one.case));
        let mut mechanisms: Vec<_> = measured.map(|one| one.mechanism).collect();
        mechanisms.sort_unstable();
        mechanisms.dedup();
        mechanisms
    }

    /// Messages per second by the number of pairs.
    pub(super) fn message_rates(&self) -> Option<Plot> {
        let series = self.series(|one| {
            let rate = one.per_second.filter(|_| one.case.placement == Placement::Pairs)?;
            // A round trip is two messages.
            Some((f64::from(one.case.pairs), 2.0 * rate))
        });
        let (title, x, y) = ("64-byte messages on two CPUs", "pairs", "messages/s");
        Plot::new(title, (x, Scale::Linear), (y, Scale::Decades), series)
    }

    /// Bytes per second by the size of a copy.
    pub(super) fn copy_throughput(&self) -> Option<Plot> {
        let series = self.series(|one| match one.case.task {
            Task::Copy(bytes) => Some((f64::from(bytes), one.bytes_per_second? / 1e6)),
            Task::RoundTrip => None,
        });
        let (title, x, y) = ("Copies between two processes on one CPU", "bytes", "MB/s");
        Plot::new(title, (x, Scale::Doublings), (y, Scale::Decades), series)
    }

    fn series(&self, point: impl Fn(&Measurement) -> Option<(f64, f64)>) -> Vec<Series> {
        Series::collect(self.measurements.iter().map(|one| (one.mechanism, point(one))))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn record(mechanism: Mechanism, case: Case, samples: &[f64]) -> Record {
        let Case { task, placement, policy, pairs, unit } = case;
        let samples = samples.to_vec();
        Record { mechanism, task, placement, policy, pairs, unit, operations: 10, samples }
    }

    /// A little of everything.
    pub(in super::super) fn figures() -> Figures {
        let fifo = Case::round_trip(Placement::OneCpu, Policy::Fifo, Unit::Instructions);
        let two = Case::round_trip(Placement::TwoCpus, Policy::Default, Unit::Nanoseconds);
        let copy = |bytes| Case::copy(bytes, Unit::Nanoseconds);
        let records = [
            record(Mechanism::M3, fifo, &[4000.0, 4000.0, 4400.0]),
            record(Mechanism::Pipe, fifo, &[6400.0]),
            record(Mechanism::SysvQueue, fifo, &[6000.0, 6000.0]),
            record(Mechanism::Futex, fifo, &[3000.0]),
            record(Mechanism::M3, two, &[1600.0]),
            record(Mechanism::Pipe, two, &[80_000.0]),
            record(Mechanism::M3, Case::pairs(1), &[20_000.0]),
            record(Mechanism::M3, Case::pairs(2), &[10_000.0]),
            record(Mechanism::Pipe, copy(1), &[1000.0]),
            record(Mechanism::Pipe, copy(4096), &[2000.0]),
            record(Mechanism::Tipc, copy(4096), &[]),
        ];
        Figures::new(Accelerator::Tcg, &records, Vec::new())
    }

    #[test]
    fn ratios_are_against_the_best_that_competes() {
        let figures = figures();
        let ratio = |name| figures.ratios.iter().find(|ratio| ratio.name == name);
        let fifo = ratio("one-cpu-fifo-instructions").unwrap();
        assert_eq!((fifo.ratio, fifo.against.as_str()), (1.5, "sysv-queue"));
        assert_eq!(ratio("two-cpus-default-rate").unwrap().ratio, 50.0);
        assert_eq!(ratio("two-pairs-rate").unwrap().ratio, 2.0);
        // What was not measured is not compared.
        assert_eq!(ratio("one-cpu-default-instructions"), None);
        assert_eq!(ratio("copy-64k-pipe-instructions"), None);
    }

    #[test]
    fn rates_follow_from_times() {
        let figures = figures();
        let pipe = figures.find(Mechanism::Pipe, Case::copy(4096, Unit::Nanoseconds)).unwrap();
        assert_eq!((pipe.per_second, pipe.bytes_per_second), (Some(5e5), Some(2.048e9)));
        let fifo = Case::round_trip(Placement::OneCpu, Policy::Fifo, Unit::Instructions);
        assert_eq!(figures.find(Mechanism::Pipe, fifo).unwrap().per_second, None);
        assert_eq!(figures.sizes(), [1, 4096]);
    }

    #[test]
    fn programs_can_read_them() {
        let json = serde_json::to_value(figures()).unwrap();
        assert_eq!(json["ratios"][0]["name"], "one-cpu-fifo-instructions");
        assert_eq!(json["measurements"][0]["mechanism"], "m3");
        assert_eq!(json["measurements"][0]["policy"], "fifo");
        assert_eq!(json["measurements"][0]["cost"]["median"], 4000.0);
    }
}
