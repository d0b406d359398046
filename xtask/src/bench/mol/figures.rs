// SPDX-License-Identifier: MIT OR Apache-2.0
//! What follows from the samples: medians, spreads, and how ways compare.

use std::collections::BTreeMap;

use dvs_qemu::accel::Accelerator;
use mol_bench::{Transfer, Work};
use serde::Serialize;

use super::super::plot::{Plot, Scale, Series};
use super::super::ratio::Ratio;
use super::super::spread::Spread;
use super::Way;

/// What is moved, whichever way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(in super::super) struct Shape {
    /// All bytes.
    pub(in super::super) bytes: u64,
    /// Those of a request.
    pub(in super::super) block: u32,
    /// Requests at once.
    pub(in super::super) depth: u32,
}

impl Shape {
    /// As an order.
    pub(in super::super) fn transfer(self, work: Work, seed: u64) -> Transfer {
        let Self { bytes, block, depth } = self;
        Transfer { work, bytes, block, depth, seed }
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct Case {
    pub(in super::super) shape: Shape,
    pub(in super::super) way: Way,
    pub(in super::super) work: Work,
}

/// Nanoseconds of each sample, and the ways that could not be measured, each with the reason.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in super::super) struct Measured {
    pub(in super::super) samples: BTreeMap<Case, Vec<f64>>,
    pub(in super::super) missing: BTreeMap<Way, String>,
}

/// One way has to be better than another one by so much.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Goal {
    pub(in super::super) name: &'static str,
    pub(in super::super) way: Way,
    pub(in super::super) other: Way,
    pub(in super::super) work: Work,
    pub(in super::super) shape: Shape,
    pub(in super::super) goal: f64,
}

/// All figures, as they are printed for programs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(in super::super) struct Figures {
    /// What ran the nodes.
    pub(in super::super) accelerator: Accelerator,
    pub(in super::super) measurements: Vec<Measurement>,
    /// What could not be measured, and why.
    pub(in super::super) missing: BTreeMap<Way, String>,
    pub(in super::super) ratios: Vec<Ratio>,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(in super::super) struct Measurement {
    pub(in super::super) way: Way,
    pub(in super::super) work: Work,
    #[serde(flatten)]
    pub(in super::super) shape: Shape,
    /// Nanoseconds of a whole transfer.
    pub(in super::super) cost: Spread,
    pub(in super::super) bytes_per_second: f64,
    /// What the papers say.
    pub(in super::super) paper_bytes_per_second: Option<f64>,
}

impl Figures {
    pub(in super::super) fn new(
        accelerator: Accelerator,
        measured: Measured,
        goals: &[Goal],
    ) -> Self {
        let measurements = measured.samples.iter().filter_map(|(case, samples)| {
            let &Case { way, work, shape } = case;
            let cost = Spread::of(samples)?;
            Some(Measurement {
                way,
                work,
                shape,
                cost,
                bytes_per_second: shape.bytes as f64 * 1e9 / cost.median,
                paper_bytes_per_second: way.paper(work, shape.bytes).map(|rate| rate * 1e6),
            })
        });
        let measurements = measurements.collect();
        let mut figures =
            Self { accelerator, measurements, missing: measured.missing, ratios: Vec::new() };
        figures.ratios = goals.iter().filter_map(|goal| figures.compare(goal)).collect();
        figures
    }

    pub(in super::super) fn find(
        &self,
        way: Way,
        work: Work,
        shape: Shape,
    ) -> Option<&Measurement> {
        self.measurements.iter().find(|one| (one.way, one.work, one.shape) == (way, work, shape))
    }

    fn compare(&self, goal: &Goal) -> Option<Ratio> {
        let rate = |way| self.find(way, goal.work, goal.shape).map(|one| one.bytes_per_second);
        let ratio = rate(goal.way)? / rate(goal.other)?;
        let against = goal.other.to_string();
        Some(Ratio { name: goal.name, ratio, against, goal: goal.goal })
    }

    /// Throughput of what satisfies a condition, over what `x` says of a shape.
    pub(in super::super) fn throughput(
        &self,
        title: &str,
        (label, x): (&str, fn(Shape) -> u64),
        holds: impl Fn(&Measurement) -> bool,
    ) -> Option<Plot> {
        let measured = self.measurements.iter().filter(|one| holds(one));
        let series = Series::collect(
            measured.map(|one| (one.way, Some((x(one.shape) as f64, one.bytes_per_second / 1e6)))),
        );
        Plot::new(title, (label, Scale::Doublings), ("MB/s", Scale::Decades), series)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) const SHAPE: Shape = Shape { bytes: 1 << 20, block: 65_536, depth: 1 };

    /// A little of everything.
    pub(in super::super) fn figures() -> Figures {
        let samples = [
            (Way::VddLocal, Work::Read, &[1e6, 2e6, 4e6][..]),
            (Way::NbdLocal, Work::Read, &[6e6]),
            (Way::VddLocal, Work::Write, &[8e6]),
            (Way::NbdLocal, Work::Write, &[]),
        ];
        let samples = samples.into_iter().map(|(way, work, nanoseconds)| {
            (Case { way, work, shape: SHAPE }, nanoseconds.to_vec())
        });
        let missing = [(Way::NbdRemote, "no such program".to_owned())];
        let measured = Measured { samples: samples.collect(), missing: missing.into() };
        let goal = |name, work, goal| Goal {
            name,
            way: Way::VddLocal,
            other: Way::NbdLocal,
            work,
            shape: SHAPE,
            goal,
        };
        let goals = [goal("local-read", Work::Read, 2.5), goal("local-write", Work::Write, 2.5)];
        Figures::new(Accelerator::Tcg, measured, &goals)
    }

    #[test]
    fn ratios_are_of_medians_and_only_of_what_was_measured() {
        let figures = figures();
        let [ratio] = &figures.ratios[..] else { panic!("{:?}", figures.ratios) };
        assert_eq!((ratio.name, ratio.against.as_str()), ("local-read", "nbd-local"));
        assert!((ratio.ratio - 3.0).abs() < 1e-9, "{}", ratio.ratio);
    }

    #[test]
    fn programs_can_read_them() {
        let json = serde_json::to_value(figures()).unwrap();
        let first = &json["measurements"][0];
        assert_eq!((&first["way"], &first["work"]), (&"vdd-local".into(), &"read".into()));
        assert_eq!((&first["block"], &first["bytes"]), (&65_536.into(), &1_048_576.into()));
        assert_eq!(first["paper_bytes_per_second"], 378e6);
        assert_eq!(json["missing"]["nbd-remote"], "no such program");
    }

    #[test]
    fn throughput_is_drawn_by_way() {
        let plot = |work| {
            let figures = figures();
            figures
                .throughput("t", ("block", |shape| shape.block.into()), move |one| one.work == work)
        };
        let svg = plot(Work::Read).unwrap().svg();
        assert!(svg.contains("vdd-local") && svg.contains("nbd-local"));
        assert!(!plot(Work::Write).unwrap().svg().contains("nbd-local"));
    }
}
