// SPDX-License-Identifier: MIT OR Apache-2.0
//! Measures failure detection on a simulated network, by number of nodes: a line of
//! tab-separated figures for each number given.

#[expect(unreachable_pub, reason = "a test and the figures share it")]
#[path = "../tests/swim/segment.rs"]
mod segment;

use segment::{Segment, Traffic, Weather};

const FACTS_BYTES: usize = 120;
const CALM_MS: u64 = 20_000;

fn main() {
    println!("nodes\tjoin_ms\tmessages_s\tbytes_s\tfalse\tfirst_ms\tall_ms\ttenth_ms\tback_ms\tapart_ms\tmerge_ms\tbusy_bytes_s");
    for count in std::env::args().skip(1) {
        measure(count.parse().expect("a number of nodes"));
    }
}

fn per_second(traffic: Traffic, nodes: usize, took_ms: u64) -> (f64, f64) {
    let scale = 1_000.0 / nodes as f64 / took_ms as f64;
    (traffic.messages as f64 * scale, traffic.bytes as f64 * scale)
}

fn measure(count: usize) {
    let weather = Weather { loss_percent: 1, duplicate_percent: 0, delay_ms: 5 };
    let mut segment = Segment::new(count as u64, count, weather, FACTS_BYTES);
    // All are switched on within two seconds, and each has heard somebody who came before.
    segment.boot(0, None);
    let start_ms = segment.now_ms;
    for at in 1..count {
        let due_ms = start_ms + 2_000 * at as u64 / count as u64;
        segment.run(due_ms.saturating_sub(segment.now_ms));
        let entry = segment.random.below(at as u64) as usize;
        segment.boot(at, Some(entry));
    }
    let join_ms = segment.settle(300_000, "join");
    eprintln!("{count} nodes: join_ms {join_ms}");
    let busy = per_second(segment.traffic, count, join_ms + 2_000).1;
    segment.run(20_000);
    segment.events.clear();
    segment.traffic = Traffic::default();
    segment.run(CALM_MS);
    let (messages, bytes) = per_second(segment.traffic, count, CALM_MS);
    let wrong = segment.downs().count();
    eprintln!("{count} nodes: calm {messages:.1} messages and {bytes:.0} bytes, {wrong} false");
    segment.events.clear();
    let dead = count / 2;
    let died_ms = segment.now_ms;
    segment.halt(dead);
    let all_ms = segment.settle(120_000, "one fails");
    eprintln!("{count} nodes: all_ms {all_ms}");
    let first_ms = segment.downs().find(|(_, _, whom)| *whom == dead).map_or(0, |d| d.0 - died_ms);
    let tenth: Vec<usize> = (0..count).step_by(10).filter(|at| *at != dead).collect();
    tenth.iter().for_each(|at| segment.halt(*at));
    let tenth_ms = segment.settle(120_000, "a tenth fails");
    eprintln!("{count} nodes: tenth_ms {tenth_ms}");
    for at in tenth.into_iter().chain([dead]) {
        let entry = (0..count).find(|at| segment.machines[*at].node.is_some());
        segment.boot(at, entry);
    }
    let back_ms = segment.settle(300_000, "a tenth comes back");
    eprintln!("{count} nodes: back_ms {back_ms}");
    for at in 0..count {
        segment.part[at] = u8::from(at % 2 == 1);
    }
    let apart_ms = segment.settle(300_000, "halves lose each other");
    eprintln!("{count} nodes: apart_ms {apart_ms}");
    segment.part = vec![0; count];
    let merge_ms = segment.settle(300_000, "halves meet");
    eprintln!("{count} nodes: merge_ms {merge_ms}");
    println!("{count}\t{join_ms}\t{messages:.1}\t{bytes:.0}\t{wrong}\t{first_ms}\t{all_ms}\t{tenth_ms}\t{back_ms}\t{apart_ms}\t{merge_ms}\t{busy:.0}");
}
