// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the nodes agree on outlives any node, and a majority is needed and enough.

use std::time::{Duration, Instant};

use dvs_api::{ClusterStatus, KvDone};
use dvs_qemu::links::LinkSelector;

use super::bed::{Bed, MEMBERS, NOTICE, PATIENCE};
use super::mismatch::{expect, Mismatch};
use super::program::{Ended, Running};

/// For one command that has to wait for another leader.
pub(super) const ANSWER: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(200);
const WHOLE: &str = "a leader, three voters and one learner, each the present life of its node";

/// How the nodes agree, as `node` knows it; `None` while it does not answer.
fn status(bed: &Bed, node: usize) -> Result<Option<ClusterStatus>, Mismatch> {
    let ended = bed.dvsctl(node, &["cluster", "status", "-o", "json"])?;
    Ok(serde_json::from_str(&ended.stdout).ok())
}

fn is_whole(status: &ClusterStatus) -> bool {
    let voters = status.members.iter().filter(|member| member.voter).count();
    let nodes: Vec<_> = status.members.iter().map(|member| member.node as usize).collect();
    status.leader.is_some()
        && status.name == "dvs"
        && voters == 3
        && nodes == Vec::from_iter(0..MEMBERS)
        && status.members.iter().all(|member| member.heard)
}

/// Waits until all nodes say that everybody takes part; gives back what the first says.
pub(super) fn await_whole(bed: &Bed, step: &str) -> Result<ClusterStatus, Mismatch> {
    let deadline = Instant::now() + PATIENCE;
    let mut first = None;
    for node in 0..MEMBERS {
        loop {
            let seen = status(bed, node)?;
            match seen {
                Some(seen) if is_whole(&seen) => {
                    first.get_or_insert(seen);
                    break;
                }
                seen if Instant::now() >= deadline => {
                    return Err(Mismatch::new(step, WHOLE, format!("node{node} says {seen:?}")));
                }
                _ => std::thread::sleep(POLL),
            }
        }
    }
    first.ok_or_else(|| Mismatch::new(step, WHOLE, "no node was asked"))
}

pub(super) fn run(bed: &Bed, node: usize, arguments: &[&str]) -> Result<Ended, Mismatch> {
    let step = format!("dvsctl {} on node{node}", arguments.join(" "));
    let running = bed.start_dvsctl(node, arguments, ANSWER)?;
    running.end().map_err(|error| Mismatch::new(step, "it can be run", error))
}

fn put(bed: &Bed, node: usize, key: &str, value: &str) -> Result<(), Mismatch> {
    let ended = run(bed, node, &["kv", "put", key, value, "-o", "json"])?;
    let done = serde_json::from_str::<KvDone>(&ended.stdout).is_ok_and(|done| done.held);
    let step = format!("writing {key} by node{node}");
    expect(ended.succeeded() && done, &step, "it is written", ended)
}

fn get(bed: &Bed, node: usize, key: &str, value: &str) -> Result<(), Mismatch> {
    let ended = run(bed, node, &["kv", "get", key])?;
    let step = format!("reading {key} by node{node}");
    expect(ended.succeeded() && ended.stdout == value, &step, value, ended)
}

/// Writes by nodes that are there, while others may not be.
fn await_put(bed: &Bed, node: usize, key: &str, value: &str) -> Result<(), Mismatch> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match put(bed, node, key, value) {
            Err(mismatch) if Instant::now() >= deadline => return Err(mismatch),
            // Writing the same again changes nothing for who reads.
            Err(_) => std::thread::sleep(POLL),
            Ok(()) => return Ok(()),
        }
    }
}

/// The leader loses power, and then two others in turn; each time the others go on, and it comes back as a member.
pub(super) fn any_node_may_fail(bed: &mut Bed) -> Result<(), Mismatch> {
    let mut seen = await_whole(bed, "forming the consensus")?;
    put(bed, 0, "scenario/first", "one")?;
    for node in 0..MEMBERS {
        get(bed, node, "scenario/first", "one")?;
    }
    for round in 0..3 {
        let leader = seen.leader.unwrap_or_default() as usize;
        let voter = seen.members.iter().find(|it| it.voter && it.node as usize != leader);
        // The leader, a voter that does not lead, and the leader of then.
        let victim = match round {
            1 => voter.map_or(leader, |member| member.node as usize),
            _ => leader,
        };
        let others: Vec<_> = (0..MEMBERS).filter(|node| *node != victim).collect();
        bed.act("cutting power", |cluster| cluster.node(victim).kill())?;
        let key = format!("scenario/without-{victim}-{round}");
        await_put(bed, others[0], &key, "kept")?;
        for node in &others {
            get(bed, *node, &key, "kept")?;
            get(bed, *node, "scenario/first", "one")?;
        }
        bed.act("giving power", |cluster| cluster.node(victim).start())?;
        bed.await_all_ready("waiting for the node to come back")?;
        seen = await_whole(bed, "waiting for the node to take part again")?;
        get(bed, victim, &key, "kept")?;
        bed.note(format!("node{victim} failed and came back; node {:?} leads", seen.leader));
    }
    let ended = run(bed, 0, &["kv", "delete", "--prefix", "scenario/"])?;
    expect(ended.stdout == "4 keys were deleted\n", "deleting the keys", "4 keys", ended)
}

/// Two nodes lose sight of the two others: at most one half has a majority of the voters, and whoever has none says so.
pub(super) fn halves(bed: &mut Bed) -> Result<(), Mismatch> {
    let seen = await_whole(bed, "before the partition")?;
    put(bed, 0, "halves", "before")?;
    // A node that was not asked may have it later than those that agreed on it.
    for node in 0..MEMBERS {
        get(bed, node, "halves", "before")?;
    }
    let sides = [[0, 1], [2, 3]];
    let voters = |side: &[usize; 2]| {
        let on_it = |member: &&dvs_api::ClusterMember| side.contains(&(member.node as usize));
        seen.members.iter().filter(on_it).filter(|member| member.voter).count()
    };
    let [few, many] = match voters(&sides[0]) < voters(&sides[1]) {
        true => sides,
        false => [sides[1], sides[0]],
    };
    bed.cluster().switch().partition(sides.map(|side| side.to_vec()).to_vec());
    for node in many {
        bed.await_state(&few, node, dvs_api::NodeState::Down, NOTICE)?;
    }
    for node in few {
        refused(bed, node)?;
    }
    for node in many {
        await_put(bed, node, "halves", "meanwhile")?;
    }
    let stale = run(bed, few[0], &["kv", "get", "--stale", "halves"])?;
    expect(stale.stdout == "before", "reading what a node has", "before", stale)?;
    bed.cluster().switch().heal(LinkSelector::All);
    bed.await_all_ready("waiting for the halves to see each other again")?;
    await_whole(bed, "after the partition")?;
    for node in 0..MEMBERS {
        get(bed, node, "halves", "meanwhile")?;
    }
    let ended = run(bed, few[1], &["kv", "delete", "halves"])?;
    expect(ended.stdout == "1 key was deleted\n", "deleting the key", "1 key", ended)
}

/// A node without a majority changes nothing and reads nothing, in time, and says who it is and who is missing.
fn refused(bed: &Bed, node: usize) -> Result<(), Mismatch> {
    let expected = format!("one clear error of node {node} that says that there is no majority");
    // One that has not noticed yet that its leader is gone cannot know what became of a change.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ended = run(bed, node, &["kv", "put", "halves", "refused"])?;
        let unknown =
            ended.is_one_clear_error() && ended.stderr.contains("may have been made or not");
        if !unknown || Instant::now() >= deadline {
            let named = ended.stderr.contains(&format!("node {node}: "));
            let clear = ended.is_one_clear_error() && ended.stderr.contains("no majority");
            expect(named && clear, "writing without a majority", &expected, ended)?;
            break;
        }
    }
    let ended = run(bed, node, &["kv", "get", "halves"])?;
    let clear = ended.is_one_clear_error() && ended.stderr.contains("no majority");
    expect(clear, "reading without a majority", &expected, ended)
}

/// Commands run under a lock one at a time, on whatever nodes they ask, with tokens that grow.
pub(super) fn one_at_a_time(bed: &mut Bed) -> Result<(), Mismatch> {
    await_whole(bed, "before taking locks")?;
    let directory = bed.logs().join("lock");
    let failed = |error: std::io::Error| Mismatch::new("taking locks", "a file for it", error);
    std::fs::create_dir_all(&directory).map_err(failed)?;
    let (guard, log) = (directory.join("guard"), directory.join("log"));
    // A directory can be made by one only. What was there is left by an earlier run.
    let _ = std::fs::remove_dir(&guard);
    std::fs::write(&log, "").map_err(failed)?;
    let script = format!(
        "mkdir {guard} || exit 9; echo $DVS_LOCK_FENCE >> {log}; sleep 0.2; rmdir {guard}; exit 7",
        guard = guard.display(),
        log = log.display(),
    );
    let line = ["lock", "acquire", "scenario", "--ttl", "20", "--", "sh", "-c", &script];
    let running: Vec<Running> = (0..2 * MEMBERS)
        .map(|n| bed.start_dvsctl(n % MEMBERS, &line, PATIENCE))
        .collect::<Result<_, _>>()?;
    for one in running {
        let ended = one.end().map_err(failed)?;
        expect(ended.status == Some(7), "running under a lock", "the command's status, 7", ended)?;
    }
    let text = std::fs::read_to_string(&log).map_err(failed)?;
    let fences: Vec<u64> = text.lines().filter_map(|line| line.parse().ok()).collect();
    let grow = fences.len() == 2 * MEMBERS && fences.windows(2).all(|pair| pair[0] < pair[1]);
    expect(grow, "running under a lock", "eight tokens, each above the one before", text)?;
    let left = run(bed, 0, &["lock", "list", "-o", "json"])?;
    expect(left.stdout == "[]\n", "looking for locks afterwards", "none", left)
}
