// SPDX-License-Identifier: MIT OR Apache-2.0
//! Elections and barriers: the lead goes to another node when its node loses power, and nobody passes before all have arrived.

use std::time::{Duration, Instant};

use dvs_api::{Barrier, Election, ElectionLeader, Leader};
use serde::de::DeserializeOwned;

use super::bed::{Bed, MEMBERS, PATIENCE};
use super::mismatch::{expect, Mismatch};
use super::outages::{await_incarnation, incarnation};

const LIMIT: Duration = Duration::from_secs(120);
/// Seconds after which the lead of a candidate that died goes on.
const TTL_S: &str = "5";
const POLL: Duration = Duration::from_millis(200);

/// Programs on four nodes go through a barrier together.
pub(super) fn barrier(bed: &mut Bed) -> Result<(), Mismatch> {
    let wait = ["barrier", "wait", "start", "--parties", "4"];
    let mut early = Vec::new();
    for node in 0..MEMBERS - 1 {
        early.push(bed.start_dvsctl(node, &wait, LIMIT)?);
    }
    let step = "arriving at a barrier";
    await_answer(bed, &["barrier", "list"], step, "three wait", |all: Vec<Barrier>| {
        all.iter().any(|one| one.parties == 4 && one.waiting.len() == 3).then_some(())
    })?;
    for one in &mut early {
        expect(one.runs(), step, "nobody passes before the fourth has come", "one has passed")?;
    }
    let last = bed.dvsctl(MEMBERS - 1, &wait)?;
    let is_open = last.succeeded() && last.stdout.starts_with("barrier start is open: round ");
    expect(is_open, step, "it opens for the last one", &last)?;
    for one in early {
        let ended = one.end().map_err(|error| Mismatch::new(step, "it can be run", error))?;
        expect(ended.stdout == last.stdout, step, &last.stdout, ended)?;
    }
    Ok(())
}

/// The node by which a leader leads loses power: another candidate leads, in a later term, and the first one's command ends.
pub(super) fn change_of_lead(bed: &mut Bed) -> Result<(), Mismatch> {
    let stand = |bed: &Bed, node: usize, value: &str| {
        let words = ["election", "campaign", "chief", "--ttl", TTL_S, "--value", value];
        let words = [&words[..], &["--", "sleep", "1000"]].concat();
        bed.start_dvsctl(node, &words, LIMIT)
    };
    let first = stand(bed, 1, "one")?;
    let leader = await_leader(bed, "one", 0)?;
    let mut second = stand(bed, 2, "two")?;
    // While a leader of the nodes is elected, nobody could get in line.
    await_candidate(bed, "two")?;
    let before = incarnation(bed, 0, 1)?;
    bed.act("cutting node1's power", |cluster| cluster.node(1).kill())?;
    let next = await_leader(bed, "two", leader.term)?;
    let step = "ending the command of a leader that is none any more";
    let ended = first.end().map_err(|error| Mismatch::new(step, "it can be run", error))?;
    let is_told = ended.status == Some(1)
        && ended.stderr.contains("the lead of election chief was lost, so the command was killed");
    expect(is_told, step, "one error says that the lead was lost", ended)?;
    expect(second.runs(), "looking at the command of the next leader", "it runs", "it has ended")?;
    bed.act("giving node1 power", |cluster| cluster.node(1).start())?;
    await_incarnation(bed, 1, before)?;
    // Ending the lease ends the lead, and with it the command.
    let revoked = bed.dvsctl(0, &["lease", "revoke", &next.lease.to_string()])?;
    expect(revoked.succeeded(), "ending a leader's lease", "it can be ended", revoked)?;
    let ended = second.end().map_err(|error| Mismatch::new(step, "it can be run", error))?;
    expect(ended.status == Some(1), step, "exit status 1", ended)?;
    let nobody = bed.dvsctl(0, &["election", "observe", "chief"])?;
    let is_over = nobody.status == Some(1) && nobody.stdout == "nobody leads chief\n";
    expect(is_over, "looking at the election", "nobody leads", nobody)
}

/// Waits until somebody with this value stands.
fn await_candidate(bed: &Bed, value: &str) -> Result<(), Mismatch> {
    let (words, expected) = (["election", "list"], format!("{value} stands"));
    await_answer(bed, &words, "waiting for a candidate", &expected, |all: Vec<Election>| {
        all.iter().any(|one| one.candidates.iter().any(|it| it.value == value)).then_some(())
    })
}

/// Waits until somebody with this value leads, in a term after another one.
fn await_leader(bed: &Bed, value: &str, after: u64) -> Result<Leader, Mismatch> {
    let (words, expected) = (["election", "observe", "chief"], format!("{value} leads"));
    let leads = |seen: ElectionLeader| seen.leader.filter(|leader| leader.value == value);
    let leader = await_answer(bed, &words, "waiting for a leader", &expected, leads)?;
    let expected = format!("a term after {after}");
    expect(leader.term > after, "the term of a leader", &expected, leader.term)?;
    Ok(leader)
}

/// Asks node0 until its answer has what is looked for.
pub(super) fn await_answer<T: DeserializeOwned, F>(
    bed: &Bed,
    words: &[&str],
    step: &str,
    expected: &str,
    find: impl Fn(T) -> Option<F>,
) -> Result<F, Mismatch> {
    let words = [words, &["-o", "json"]].concat();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ended = bed.dvsctl(0, &words)?;
        if let Some(found) = serde_json::from_str(&ended.stdout).ok().and_then(&find) {
            return Ok(found);
        }
        expect(Instant::now() < deadline, step, expected, ended)?;
        std::thread::sleep(POLL);
    }
}
