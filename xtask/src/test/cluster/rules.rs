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
/// The number of the first container. Each case has one of its own.
const CONTAINERS: u32 = 1000;
/// How many numbers a run may use.
const CONTAINERS_OF_A_RUN: u32 = 1000;
/// By what the time limits of cases are multiplied, since four nodes share the host's processors.
const SLOW: &str = "--slow=6";
/// For all cases over one transport, if they may take long.
const LIMIT: Duration = Duration::from_secs(3_600);
/// How many there are at least. Fewer would mean that they are not found.
const CASES: usize = 150;
/// What the link is carried over in turn. The first one is what a link is carried over anyway.
const TRANSPORTS: [Transport; 5] =
    [Transport::Ethernet, Transport::Tipc, Transport::Tcp, Transport::Udp, Transport::Quic];
/// The case of the conformance program that fails, so that it is known that others can.
const FAILS: &str = "this-case-fails";

/// All cases over Ethernet and, if it may take long, over the other transports.
pub(super) fn between_nodes(bed: &mut Bed) -> Result<(), Mismatch> {
    failures_are_told(bed)?;
    let count = if bed.is_long() { TRANSPORTS.len() } else { 1 };
    let mut failures = Vec::new();
    let mut containers = (CONTAINERS..).step_by(CONTAINERS_OF_A_RUN as usize).skip(1);
    for (transport, container) in TRANSPORTS[..count].iter().zip(&mut containers) {
        choose(bed, *transport)?;
        let began = Instant::now();
        let words: &[&str] = if bed.is_long() { &["--long"] } else { &[] };
        let outcomes = conduct(bed, container, words)?;
        carried_by(bed, *transport)?;
        expect(
            outcomes.len() >= CASES,
            "running the cases",
            "at least 150 results",
            outcomes.len(),
        )?;
        let failed = outcomes.iter().filter_map(|outcome| {
            let why = why(outcome)?;
            Some(format!("not ok - {} over {transport}\n{why}", outcome.name))
        });
        let before = failures.len();
        failures.extend(failed);
        let passed = outcomes.len() - (failures.len() - before);
        let took = began.elapsed().as_secs_f64();
        bed.note(format!("{transport}: {passed} of {} cases passed ({took:.1} s)", outcomes.len()));
    }
    choose(bed, Transport::Ethernet)?;
    if failures.is_empty() {
        return Ok(());
    }
    Err(Mismatch::new("running the cases between nodes", "each passes", failures.join("\n")))
}

/// A case that fails is reported as failed, whichever of its sides is on the other node, and why.
fn failures_are_told(bed: &Bed) -> Result<(), Mismatch> {
    let outcomes = conduct(bed, CONTAINERS, &[&format!("--only={FAILS}")])?;
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

/// Runs cases in containers from `first` on, as the other words say.
fn conduct(bed: &Bed, first: u32, words: &[&str]) -> Result<Vec<Outcome>, Mismatch> {
    let numbers = [first.to_string(), ENDS[0].to_string(), ENDS[1].to_string()];
    let mut command = vec!["dvk-conformance", SLOW, "--role", "between"];
    command.extend(words.iter().copied());
    command.extend(numbers.iter().map(String::as_str));
    let troupe = bed.start_on(ENDS[1], &["dvk-conformance", "--role", "troupe"], LIMIT)?;
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
