// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs in a container use the container's services, on two nodes, while the node of the leader loses power.

use std::fs::File;
use std::time::Duration;

use dvs_api::KvRange;

use super::agreement::await_whole;
use super::bed::{Bed, MEMBERS};
use super::dc::{create, delete, exec, TAKE};
use super::mismatch::{expect, Mismatch};
use super::program::Running;

const STEP: &str = "using a container's services while nodes fail";
/// Longer than all of it takes on a busy host.
const LIMIT: Duration = Duration::from_secs(240);
/// How often each program counts.
const ROUNDS: usize = 60;
/// When the leader's node loses power: while they count.
const LATER: Duration = Duration::from_secs(6);

/// Two programs count up one key under a lock and tell a group: nothing is lost, nothing comes twice, and both see the same. A program in
/// another container by the same names has nothing to do with them.
pub(super) fn count(bed: &mut Bed) -> Result<(), Mismatch> {
    let seen = await_whole(bed, "before the container is made")?;
    let leader = seen.leader.unwrap_or_default() as usize;
    let nodes: Vec<usize> = (0..MEMBERS).filter(|node| *node != leader).collect();
    create(bed, "desk", "all", &[])?;
    create(bed, "else", &nodes[0].to_string(), &[])?;
    let mut running = Vec::new();
    for (container, node, parties) in
        [("desk", nodes[0], 2), ("desk", nodes[1], 2), ("else", nodes[0], 1)]
    {
        running.push((container, start(bed, container, node, parties)?));
    }
    std::thread::sleep(LATER);
    bed.act("cutting power", |cluster| cluster.node(leader).kill())?;
    let mut told = Vec::new();
    for (container, program) in running {
        let ended = program.end().map_err(failed)?;
        expect(ended.succeeded(), STEP, "the program succeeds", &ended)?;
        told.push((container, ended));
    }
    for (container, ended) in &told {
        let count = if *container == "desk" { 2 * ROUNDS } else { ROUNDS };
        let expected = format!("begins with 0 keys\ncounted {count}, saw {count} messages");
        expect(ended.stdout.starts_with(&expected), STEP, &expected, ended)?;
    }
    let [(_, first), (_, second), _] = &told[..] else { return Ok(()) };
    expect(first.stdout == second.stdout, STEP, &first.stdout, second)?;
    bed.note(format!("node{leader} led and failed meanwhile: {}", first.stdout.trim_end()));
    bed.act("giving power", |cluster| cluster.node(leader).start())?;
    bed.await_all_ready("waiting for the node to come back")?;
    await_whole(bed, "waiting for the node to take part again")?;
    // Administrators' keys are others.
    let keys = bed.dvsctl(0, &["kv", "list", "", "-o", "json"])?;
    let none = serde_json::from_str(&keys.stdout).is_ok_and(|keys: KvRange| keys.count == 0);
    expect(none, "listing the keys of administrators", "none", keys)?;
    delete(bed, "else")?;
    delete(bed, "desk")?;
    let leases = super::elections::await_answer(
        bed,
        &["lease", "list"],
        "looking for leases that a container left behind",
        "none",
        |all: Vec<dvs_api::LeaseInfo>| all.is_empty().then_some(()),
    );
    leases.map(drop)
}

/// Starts one in a container, which it is fed into.
fn start(bed: &Bed, container: &str, node: usize, parties: u32) -> Result<Running, Mismatch> {
    let (name, count) = (format!("on{node}"), ROUNDS.to_string());
    let script = format!("{TAKE} patron --name {name} --parties {parties} --rounds {count}");
    let words = exec(container, node, &["sh", "-c", &script]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let program = File::open(bed.program("dvk-scenarios")).map_err(failed)?;
    bed.start_dvsctl_with(node, &words, program.into(), LIMIT)
}

fn failed(error: std::io::Error) -> Mismatch {
    Mismatch::new(STEP, "dvsctl can be run", error)
}
