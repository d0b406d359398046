// SPDX-License-Identifier: MIT OR Apache-2.0
//! What follows from the samples: medians, spreads, and how M3-IPC compares with sockets.

use std::collections::BTreeMap;

use dvk_bench::{Carrier, Work};
use dvs_qemu::accel::Accelerator;
use serde::Serialize;

use super::super::plot::{Plot, Scale, Series};
use super::super::ratio::Ratio;
use super::super::spread::Spread;
use super::rounds::{Case, Measured};

/// Bytes of the block by which ways are compared.
const COMPARED: u32 = 64 << 10;

/// All figures, as they are printed for programs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Figures {
    /// What ran the nodes.
    pub(super) accelerator: Accelerator,
    pub(super) measurements: Vec<Measurement>,
    /// What could not be measured, and why.
    pub(super) missing: BTreeMap<Carrier, String>,
    pub(super) ratios: Vec<Ratio>,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Measurement {
    pub(super) carrier: Carrier,
    pub(super) work: Work,
    pub(super) pairs: u32,
    /// Operations of each pair in a sample.
    pub(super) operations: u64,
    /// Nanoseconds that passed, divided by the operations of all pairs.
    pub(super) cost: Spread,
    /// Operations of all pairs together in a second.
    pub(super) per_second: f64,
    /// Bytes moved in a second, if blocks are.
    pub(super) bytes_per_second: Option<f64>,
    /// Instructions per operation, on the client's node and on the server's, if they were counted.
    pub(super) instructions: Option<[f64; 2]>,
}

impl Measurement {
    /// Instructions of both nodes.
    pub(super) fn executed(&self) -> Option<f64> {
        self.instructions.map(|[client, server]| client + server)
    }
}

impl Figures {
    pub(super) fn new(accelerator: Accelerator, measured: Measured) -> Self {
        let measurements = measured.samples.iter().filter_map(|(case, samples)| {
            let &Case { work, pairs, carrier } = case;
            let cost = Spread::of(&samples.nanoseconds)?;
            let per_second = 1e9 / cost.median;
            let bytes_per_second = match work {
                Work::Fetch(bytes) | Work::Store(bytes) => Some(per_second * f64::from(bytes)),
                Work::RoundTrip => None,
            };
            let operations = samples.operations;
            Some(Measurement {
                carrier,
                work,
                pairs,
                operations,
                cost,
                per_second,
                bytes_per_second,
                instructions: measured.instructions.get(case).copied(),
            })
        });
        let measurements = measurements.collect();
        let mut figures =
            Self { accelerator, measurements, missing: measured.missing, ratios: Vec::new() };
        figures.ratios = figures.compare();
        figures
    }

    pub(super) fn find(&self, carrier: Carrier, work: Work, pairs: u32) -> Option<&Measurement> {
        self.measurements
            .iter()
            .find(|one| (one.carrier, one.work, one.pairs) == (carrier, work, pairs))
    }

    /// The ways that were measured, in the order of their definition.
    pub(super) fn carriers(&self, holds: impl Fn(Work) -> bool) -> Vec<Carrier> {
        let measured = self.measurements.iter().filter(|one| holds(one.work));
        let mut carriers: Vec<_> = measured.map(|one| one.carrier).collect();
        carriers.sort_unstable();
        carriers.dedup();
        carriers
    }

    /// What `cost` is least for among these, and that cost.
    fn best(
        &self,
        carriers: &[Carrier],
        work: Work,
        cost: fn(&Measurement) -> Option<f64>,
    ) -> Option<(Carrier, f64)> {
        let measured = carriers.iter().filter_map(|carrier| self.find(*carrier, work, 1));
        let costs = measured.filter_map(|one| Some((one.carrier, cost(one)?)));
        costs.min_by(|a, b| a.1.total_cmp(&b.1))
    }

    fn compare(&self) -> Vec<Ratio> {
        use Carrier as C;
        let tipc = [C::TipcSeqpacket, C::TipcRdm, C::TipcStream];
        let (fetch, store) = (Work::Fetch(COMPARED), Work::Store(COMPARED));
        let goals: [([_; 2], _, &[Carrier], _, _); 9] = [
            (
                ["round-trip-tipc", "round-trip-tipc-instructions"],
                C::M3Ethernet,
                &tipc,
                Work::RoundTrip,
                1.8,
            ),
            (
                ["round-trip-tcp", "round-trip-tcp-instructions"],
                C::M3Ethernet,
                &[C::Tcp],
                Work::RoundTrip,
                4.0,
            ),
            (["fetch-64k-tipc", "fetch-64k-tipc-instructions"], C::M3Ethernet, &tipc, fetch, 1.2),
            (
                ["fetch-64k-tcp-stream", "fetch-64k-tcp-stream-instructions"],
                C::M3Ethernet,
                &[C::Tcp],
                fetch,
                1.0,
            ),
            (["store-64k-tipc", "store-64k-tipc-instructions"], C::M3Ethernet, &tipc, store, 1.2),
            (
                ["store-64k-tcp-stream", "store-64k-tcp-stream-instructions"],
                C::M3Ethernet,
                &[C::Tcp],
                store,
                1.0,
            ),
            (
                ["round-trip-over-tipc", "round-trip-over-tipc-instructions"],
                C::M3Tipc,
                &tipc,
                Work::RoundTrip,
                0.8,
            ),
            (
                ["fetch-64k-over-tipc", "fetch-64k-over-tipc-instructions"],
                C::M3Tipc,
                &tipc,
                fetch,
                0.8,
            ),
            (
                ["store-64k-over-tipc", "store-64k-over-tipc-instructions"],
                C::M3Tipc,
                &tipc,
                store,
                0.8,
            ),
        ];
        let time: fn(&Measurement) -> Option<f64> = |one| Some(one.cost.median);
        let mut ratios = Vec::new();
        for (at, cost) in [(0, time), (1, Measurement::executed)] {
            for (names, carrier, others, work, goal) in &goals {
                let m3 = self.find(*carrier, *work, 1).and_then(cost);
                if let (Some(m3), Some((other, cost))) = (m3, self.best(others, *work, cost)) {
                    let (name, against, goal) = (names[at], other.to_string(), *goal);
                    ratios.push(Ratio { name, ratio: cost / m3, against, goal });
                }
            }
        }
        ratios
    }

    /// Messages per second by the number of pairs: Fig. 5 C of the papers.
    pub(super) fn message_rates(&self) -> Option<Plot> {
        let series = self.series(|one| {
            // A round trip is two messages.
            let rate = (one.work == Work::RoundTrip).then_some(2.0 * one.per_second)?;
            Some((f64::from(one.pairs), rate))
        });
        let (title, x, y) = ("64-byte messages between two nodes", "pairs", "messages/s");
        Plot::new(title, (x, Scale::Linear), (y, Scale::Decades), series)
    }

    /// Bytes per second by the size of a block: Fig. 5 D of the papers.
    pub(super) fn throughput(&self) -> Option<Plot> {
        let series = self.series(|one| match one.work {
            Work::Fetch(bytes) => Some((f64::from(bytes), one.bytes_per_second? / 1e6)),
            Work::Store(_) | Work::RoundTrip => None,
        });
        let (title, x, y) = ("Blocks between two nodes, to the client", "bytes", "MB/s");
        Plot::new(title, (x, Scale::Doublings), (y, Scale::Decades), series)
    }

    fn series(&self, point: impl Fn(&Measurement) -> Option<(f64, f64)>) -> Vec<Series> {
        Series::collect(self.measurements.iter().map(|one| (one.carrier, point(one))))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::rounds::Samples;
    use super::*;

    /// A little of everything.
    pub(in super::super) fn figures() -> Figures {
        let block = Work::Fetch(COMPARED);
        let samples = [
            (Carrier::M3Ethernet, Work::RoundTrip, 1, &[90_000.0, 100_000.0, 120_000.0][..]),
            (Carrier::M3Ethernet, Work::RoundTrip, 2, &[50_000.0]),
            (Carrier::TipcSeqpacket, Work::RoundTrip, 1, &[220_000.0]),
            (Carrier::TipcRdm, Work::RoundTrip, 1, &[200_000.0]),
            (Carrier::Tcp, Work::RoundTrip, 1, &[300_000.0]),
            (Carrier::M3Ethernet, block, 1, &[655_360.0]),
            (Carrier::Tcp, block, 1, &[327_680.0]),
            (Carrier::Tcp, Work::Store(1), 1, &[1_000.0]),
            (Carrier::M3Udp, block, 1, &[]),
        ];
        let samples = samples.into_iter().map(|(carrier, work, pairs, nanoseconds)| {
            let nanoseconds = nanoseconds.to_vec();
            (Case { work, pairs, carrier }, Samples { operations: 10, nanoseconds })
        });
        let missing = [(Carrier::M3Quic, "no such proxy".to_owned())];
        let case = |carrier| Case { carrier, work: Work::RoundTrip, pairs: 1 };
        let instructions = [
            (case(Carrier::M3Ethernet), [10_000.0, 15_000.0]),
            (case(Carrier::Tcp), [25_000.0, 25_000.0]),
        ];
        let measured = Measured {
            samples: samples.collect(),
            instructions: instructions.into(),
            missing: missing.into(),
        };
        Figures::new(Accelerator::Tcg, measured)
    }

    #[test]
    fn ratios_are_against_the_best_of_a_kind() {
        let figures = figures();
        let ratio = |name| figures.ratios.iter().find(|ratio| ratio.name == name);
        let tipc = ratio("round-trip-tipc").unwrap();
        assert_eq!((tipc.ratio, tipc.against.as_str()), (2.0, "tipc-rdm"));
        assert_eq!(ratio("round-trip-tcp").unwrap().ratio, 3.0);
        assert_eq!(ratio("fetch-64k-tcp-stream").unwrap().ratio, 0.5);
        assert_eq!(ratio("round-trip-tcp-instructions").unwrap().ratio, 2.0);
        // What was not measured is not compared.
        assert_eq!(ratio("round-trip-tipc-instructions"), None);
        assert_eq!(ratio("round-trip-over-tipc"), None);
        assert_eq!(ratio("fetch-64k-tipc"), None);
    }

    #[test]
    fn rates_follow_from_times() {
        let figures = figures();
        let one = figures.find(Carrier::M3Ethernet, Work::Fetch(COMPARED), 1).unwrap();
        assert!((one.bytes_per_second.unwrap() - 1e8).abs() < 1.0);
        let two = figures.find(Carrier::M3Ethernet, Work::RoundTrip, 2).unwrap();
        assert_eq!((two.per_second, two.bytes_per_second), (20_000.0, None));
        assert_eq!(figures.find(Carrier::M3Udp, Work::Fetch(COMPARED), 1), None);
        assert!(figures.message_rates().unwrap().svg().contains("m3-ethernet"));
        assert!(figures.throughput().unwrap().svg().contains("tcp"));
    }

    #[test]
    fn programs_can_read_them() {
        let json = serde_json::to_value(figures()).unwrap();
        assert_eq!(json["ratios"][0]["name"], "round-trip-tipc");
        assert_eq!(json["missing"]["m3-quic"], "no such proxy");
        let first = &json["measurements"][0];
        assert_eq!(
            (&first["carrier"], &first["work"]),
            (&"m3-ethernet".into(), &"round-trip".into())
        );
        assert_eq!(first["cost"]["median"], 100_000.0);
    }
}
