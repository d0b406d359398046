// SPDX-License-Identifier: MIT OR Apache-2.0
//! Measures failure detection on a simulated network of so many nodes as the argument says: one JSON object. `cargo xtask bench membership`
//! runs it.

#[expect(unreachable_pub, reason = "a test and the figures share it")]
#[path = "../tests/swim/segment.rs"]
mod segment;

use dvsd::membership::swim::Tuning;
use segment::{Segment, Traffic, Weather};
use serde::Serialize;

/// What a node tells of itself: addresses, name, release, keys.
const FACTS_BYTES: usize = 120;
/// How long traffic is counted while nothing happens.
const CALM_MS: u64 = 20_000;
/// How many failures of one node are timed.
const FAILURES: usize = 9;
/// After this it does not converge.
const PATIENCE_MS: u64 = 300_000;
const WEATHER: Weather = Weather { loss_percent: 1, duplicate_percent: 0, delay_ms: 5 };

/// What was measured. Times are milliseconds of simulated time.
#[derive(Debug, Serialize)]
struct Figures {
    nodes: usize,
    /// From the start of the last node until all know all; they are started within two seconds.
    join_ms: u64,
    /// Bytes that a node sends in a second until then, with IPv6 and UDP headers.
    join_bytes_per_s: f64,
    /// Messages that a node sends in a second while nothing happens.
    messages_per_s: f64,
    /// Bytes likewise, with headers.
    bytes_per_s: f64,
    /// Members that were taken for down meanwhile and were not.
    false_alarms: usize,
    /// From the failure of one node until somebody, and until everybody, knows; the medians and the longest of [`FAILURES`].
    first_ms: u64,
    first_max_ms: u64,
    all_ms: u64,
    all_max_ms: u64,
    /// Until all know that a tenth failed at once.
    tenth_ms: u64,
    /// Until all know all again after the tenth has come back, by one node.
    back_ms: u64,
    /// Until all know that one half has lost the other.
    apart_ms: u64,
    /// Until all know all after the halves have met.
    merge_ms: u64,
}

fn main() {
    let count = std::env::args().nth(1).and_then(|text| text.parse().ok());
    let count = count.filter(|count| (2..=10_000).contains(count));
    let Some(count) = count else {
        eprintln!("usage: membership NODES  (2 to 10000)");
        std::process::exit(2);
    };
    println!("{}", serde_json::to_string(&measure(count)).expect("numbers can be written"));
}

/// Messages and bytes that a node sends in a second.
fn per_second(traffic: Traffic, nodes: usize, took_ms: u64) -> (f64, f64) {
    let scale = 1_000.0 / nodes as f64 / took_ms as f64;
    let tenths = |number: f64| (number * scale * 10.0).round() / 10.0;
    (tenths(traffic.messages as f64), tenths(traffic.bytes as f64))
}

fn median(mut values: Vec<u64>) -> (u64, u64) {
    values.sort_unstable();
    let middle = values.get(values.len() / 2).copied();
    (middle.unwrap_or_default(), values.last().copied().unwrap_or_default())
}

fn measure(nodes: usize) -> Figures {
    // The figures of a number of nodes are the same on every machine.
    let seed = nodes as u64;
    let mut segment = Segment::new(seed, nodes, WEATHER, Tuning::BARE_METAL, FACTS_BYTES);
    // All are switched on within two seconds, and each has heard somebody who came before.
    segment.boot(0, None);
    let start_ms = segment.now_ms;
    for at in 1..nodes {
        let due_ms = start_ms + 2_000 * at as u64 / nodes as u64;
        segment.run(due_ms.saturating_sub(segment.now_ms));
        let entry = segment.random.below(at as u64) as usize;
        segment.boot(at, Some(entry));
    }
    let join_ms = segment.settle(PATIENCE_MS, "join");
    let took_ms = segment.now_ms - start_ms;
    let (_, join_bytes_per_s) = per_second(segment.traffic, nodes, took_ms);

    segment.run(CALM_MS);
    segment.events.clear();
    segment.traffic = Traffic::default();
    segment.run(CALM_MS);
    let (messages_per_s, bytes_per_s) = per_second(segment.traffic, nodes, CALM_MS);
    let false_alarms = segment.downs().count();

    let (mut first, mut all) = (Vec::new(), Vec::new());
    let mut dead = Vec::new();
    for failure in 0..FAILURES.min(nodes / 2) {
        segment.events.clear();
        let victim = (failure + 1) * nodes / (FAILURES + 2);
        let died_ms = segment.now_ms;
        segment.halt(victim);
        dead.push(victim);
        all.push(segment.settle(PATIENCE_MS, "one fails"));
        let seen = segment.downs().find(|(_, _, whom)| *whom == victim);
        first.extend(seen.map(|(at_ms, ..)| at_ms - died_ms));
    }
    let (first_ms, first_max_ms) = median(first);
    let (all_ms, all_max_ms) = median(all);
    come_back(&mut segment, &dead);
    segment.settle(PATIENCE_MS, "they come back");

    let tenth: Vec<usize> = (0..nodes).step_by(10).collect();
    tenth.iter().for_each(|at| segment.halt(*at));
    let tenth_ms = segment.settle(PATIENCE_MS, "a tenth fails");
    come_back(&mut segment, &tenth);
    let back_ms = segment.settle(PATIENCE_MS, "a tenth comes back");

    for at in 0..nodes {
        segment.part[at] = u8::from(at % 2 == 1);
    }
    let apart_ms = segment.settle(PATIENCE_MS, "halves lose each other");
    segment.part = vec![0; nodes];
    let merge_ms = segment.settle(PATIENCE_MS, "halves meet");
    Figures {
        nodes,
        join_ms,
        join_bytes_per_s,
        messages_per_s,
        bytes_per_s,
        false_alarms,
        first_ms,
        first_max_ms,
        all_ms,
        all_max_ms,
        tenth_ms,
        back_ms,
        apart_ms,
        merge_ms,
    }
}

/// All by the same node, which is the worst case.
fn come_back(segment: &mut Segment, dead: &[usize]) {
    let entry = segment.machines.iter().position(|machine| machine.node.is_some());
    dead.iter().for_each(|at| segment.boot(*at, entry));
}
