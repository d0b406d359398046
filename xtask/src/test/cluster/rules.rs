// SPDX-License-Identifier: MIT OR Apache-2.0
//! The conformance cases with their parties on two nodes, over each transport.
//!
//! A case runs on one node, and what it says on standard output are orders for a process on the other
//! one. They are passed on here, so that they do not depend on what is tested.

use std::thread;
use std::time::{Duration, Instant};

use dvs_api::Transport;

use super::bed::{Bed, PATIENCE};
use super::guest::Guest;
use super::mismatch::Mismatch;
use super::transports::{carried_by, choose};

/// Where the two sides are.
const ENDS: [usize; 2] = [0, 1];
/// Of the first case; each has one of its own, so that nothing late of another gets there.
const CONTAINERS: u32 = 1000;
/// For one case. Those that copy take tens of seconds where a processor is translated.
const LIMIT: Duration = Duration::from_secs(240);
/// How often both ends are asked whether they have said something.
const POLL: Duration = Duration::from_micros(200);

/// What the link is carried over in turn; the first one carries it already.
const TRANSPORTS: [Transport; 5] =
    [Transport::Ethernet, Transport::Tipc, Transport::Tcp, Transport::Udp, Transport::Quic];

/// All cases over Ethernet and, if it may take long, over the other transports.
pub(super) fn between_nodes(bed: &mut Bed) -> Result<(), Mismatch> {
    let cases = list(bed)?;
    let mut container = CONTAINERS;
    let mut failures = Vec::new();
    let count = if bed.is_long() { TRANSPORTS.len() } else { 1 };
    for transport in &TRANSPORTS[..count] {
        choose(bed, *transport)?;
        let began = Instant::now();
        let before = failures.len();
        for (case, side) in &cases {
            container += 1;
            if let Err(why) = run(bed, case, side, container) {
                failures
                    .push(format!("not ok - {case} ({side} side there) over {transport}\n{why}"));
            }
        }
        let failed = failures.len() - before;
        let took = began.elapsed().as_secs_f64();
        bed.note(format!(
            "{} of {} cases passed over {transport} ({took:.1} s)",
            cases.len() - failed,
            cases.len()
        ));
        carried_by(bed, *transport)?;
    }
    choose(bed, Transport::Ethernet)?;
    if failures.is_empty() {
        return Ok(());
    }
    Err(Mismatch::new("running the cases", "each passes", failures.join("\n")))
}

/// The cases that can be run between nodes, each with the sides that can be on the other one.
fn list(bed: &Bed) -> Result<Vec<(String, &'static str)>, Mismatch> {
    let ended = bed.start_on(ENDS[0], &["dvk-conformance", "--list"], PATIENCE)?.succeed()?;
    let mut cases = Vec::new();
    for line in ended.stdout.lines() {
        let Some((case, places)) = line.split_once("  # ") else { continue };
        let sides: &[&str] = match places {
            "between nodes: both ways" => &["far", "near"],
            "between nodes: toward" => &["far"],
            _ => &[],
        };
        cases.extend(sides.iter().map(|side| (case.to_owned(), *side)));
    }
    if cases.len() < 100 {
        return Err(Mismatch::new("listing the cases", "more than 100 between nodes", ended));
    }
    Ok(cases)
}

/// Runs one case; says why it failed.
fn run(bed: &Bed, case: &str, side: &str, container: u32) -> Result<(), String> {
    let [here, there] = ENDS.map(|node| node.to_string());
    let container = container.to_string();
    let words = ["dvk-conformance", "--role", "between", case, &container, &here, &there, side];
    let start = |node, words: &[&str]| bed.start_on(node, words, LIMIT).map_err(|m| m.to_string());
    let mut troupe = start(ENDS[1], &["dvk-conformance", "--role", "troupe"])?;
    let mut program = start(ENDS[0], &words)?;
    let began = Instant::now();
    while !program.is_over() {
        let passed_on = [pass_on(&mut program, &troupe), pass_on(&mut troupe, &program)];
        let mut idle = true;
        for result in passed_on {
            idle &= result.map_err(|mismatch| mismatch.to_string())? == 0;
        }
        if began.elapsed() >= LIMIT {
            return Err(format!("not over after {} s", LIMIT.as_secs()));
        }
        if idle {
            thread::sleep(POLL);
        }
    }
    let ended = program.end().map_err(|mismatch| mismatch.to_string())?;
    if ended.succeeded() {
        return Ok(());
    }
    Err(format!("{}(exit status {:?})", ended.stderr, ended.status))
}

/// Gives the lines that one has said to the other; returns how many there were.
fn pass_on(from: &mut Guest, to: &Guest) -> Result<usize, Mismatch> {
    let lines = from.lines_so_far()?;
    for line in &lines {
        to.say(line)?;
    }
    Ok(lines.len())
}
