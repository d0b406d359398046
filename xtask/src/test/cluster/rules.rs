// SPDX-License-Identifier: MIT OR Apache-2.0
//! The conformance cases with their parties on two nodes, over each transport.
//!
//! The conformance program on one node says, between the lines of its report, what processes on the other one
//! have to do. Its orders and what comes of them are passed on here, so that they do not depend on what is tested.

use std::thread;
use std::time::{Duration, Instant};

use dvs_api::Transport;

use super::bed::Bed;
use super::guest::{Guest, Input};
use super::mismatch::{expect, Mismatch};
use super::transports::{carried_by, choose};
use crate::test::summary::{Outcome, Verdict};
use crate::test::tap::Reader;

/// Where the two sides are: the program here, and those that take its orders there.
const ENDS: [usize; 2] = [0, 1];
/// By what all time limits are multiplied, since four nodes share the host's processors.
const SLOW: &str = "--slow=6";
/// For all cases over one transport, if they may take long.
const LIMIT: Duration = Duration::from_secs(3_600);
/// How many there are at least. Fewer would mean that they are not found.
const CASES: usize = 150;
/// The case of the conformance program that fails, so that it is known that others can.
const FAILS: &str = "this-case-fails";

pub(super) fn over_ethernet(bed: &mut Bed) -> Result<(), Mismatch> {
    between_nodes(bed, Transport::Ethernet, 2000)
}

pub(super) fn over_tipc(bed: &mut Bed) -> Result<(), Mismatch> {
    between_nodes(bed, Transport::Tipc, 3000)
}

pub(super) fn over_tcp(bed: &mut Bed) -> Result<(), Mismatch> {
    between_nodes(bed, Transport::Tcp, 4000)
}

pub(super) fn over_udp(bed: &mut Bed) -> Result<(), Mismatch> {
    between_nodes(bed, Transport::Udp, 5000)
}

pub(super) fn over_quic(bed: &mut Bed) -> Result<(), Mismatch> {
    between_nodes(bed, Transport::Quic, 6000)
}

/// Runs all cases with the link carried over a transport, and leaves it to Ethernet.
fn between_nodes(bed: &mut Bed, transport: Transport, containers: u32) -> Result<(), Mismatch> {
    choose(bed, transport)?;
    let began = Instant::now();
    let words: &[&str] = if bed.is_long() { &["--long"] } else { &[] };
    let outcomes = conduct(bed, containers, words);
    let took = began.elapsed().as_secs_f64();
    let carried = carried_by(bed, transport);
    choose(bed, Transport::Ethernet)?;
    let outcomes = outcomes?;
    let failed: Vec<String> = outcomes
        .iter()
        .filter_map(|outcome| Some(format!("not ok - {}\n{}", outcome.name, why(outcome)?)))
        .collect();
    let (all, passed) = (outcomes.len(), outcomes.len() - failed.len());
    bed.note(format!("{passed} of {all} cases passed over {transport} ({took:.1} s)"));
    let step = format!("running the cases between nodes over {transport}");
    expect(failed.is_empty(), &step, "each passes", failed.join("\n"))?;
    expect(all >= CASES, &step, "all of them, which are at least 150", all)?;
    carried
}

/// A case that fails is reported as failed, whichever of its sides is on the other node, and why.
pub(super) fn failures_are_told(bed: &mut Bed) -> Result<(), Mismatch> {
    let outcomes = conduct(bed, 1000, &[&format!("--only={FAILS}")])?;
    let first_line = |why: &str| why.lines().next().unwrap_or_default().to_owned();
    let told: Vec<String> = outcomes
        .iter()
        .map(|outcome| {
            format!("{}: {}", outcome.name, first_line(why(outcome).unwrap_or("passed")))
        })
        .collect();
    let expected = ["far", "near"].map(|side| {
        format!("{FAILS} ({side} side there): the kind of the first message: expected 2, got 1")
    });
    expect(told == expected, "running a case that fails", &expected.join("; "), told.join("; "))
}

/// Why a case did not pass.
fn why(outcome: &Outcome) -> Option<&str> {
    match &outcome.verdict {
        Verdict::Passed => None,
        Verdict::Skipped => Some("skipped"),
        Verdict::Failed(why) => Some(why),
    }
}

/// Runs cases in containers with these numbers, from `first` on, as the words say. No two cases have the same
/// container, so that nothing late of one gets to another.
fn conduct(bed: &Bed, first: u32, words: &[&str]) -> Result<Vec<Outcome>, Mismatch> {
    let numbers = [first.to_string(), ENDS[0].to_string(), ENDS[1].to_string()];
    let mut command = vec!["dvk-conformance", SLOW, "--role", "between"];
    command.extend(words.iter().copied());
    command.extend(numbers.iter().map(String::as_str));
    let troupe = bed.start_on(ENDS[1], &["dvk-conformance", SLOW, "--role", "troupe"], LIMIT)?;
    let mut program = bed.start_on(ENDS[0], &command, LIMIT)?;
    let (orders, answers) = (troupe.input()?, program.input()?);
    let mut reader = Reader::new("between nodes");
    let (reported, answered) = thread::scope(|scope| {
        let answering = scope.spawn(move || answer(troupe, answers));
        let reported = report(&mut program, &orders, &mut reader);
        // Then the troupe leaves, and nothing is answered any more.
        drop(orders);
        (reported, answering.join())
    });
    let answered = answered.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    // Whose loss it was that ended the other one as well.
    answered.and(reported)?;
    let ended = program.end()?;
    let outcomes = reader.finish();
    let passed = outcomes.iter().all(|outcome| why(outcome).is_none());
    let agrees = ended.succeeded() == passed;
    expect(agrees, "running the cases", "an exit status as the report says", ended)?;
    Ok(outcomes)
}

/// Passes the program's orders on and reads its report, until it ends.
fn report(program: &mut Guest, orders: &Input, reader: &mut Reader) -> Result<(), Mismatch> {
    while let Some(line) = program.line_or_end()? {
        if line.starts_with('{') {
            orders.say(&line)?;
        } else {
            reader.line(&line);
        }
    }
    Ok(())
}

/// Passes on what comes of orders until those who do them leave. Then the program's input ends, so that it does
/// not wait for more.
fn answer(mut troupe: Guest, answers: Input) -> Result<(), Mismatch> {
    while let Some(line) = troupe.line_or_end()? {
        answers.say(&line)?;
    }
    Ok(())
}
