// SPDX-License-Identifier: MIT OR Apache-2.0
//! What people decide about nodes: they are drained, restarted, removed and let in again, and the others go on.

use std::time::{Duration, Instant};

use dvs_api::{ClusterStatus, Event, NodeState};

use super::bed::{Bed, MEMBERS, NOTICE, PATIENCE};
use super::mismatch::{expect, Mismatch};
use super::program::Ended;

/// For a command that waits for a machine to restart.
const RESTART: Duration = Duration::from_secs(240);
const POLL: Duration = Duration::from_millis(300);

/// `dvsctl` with the APIs of several nodes.
fn run(bed: &Bed, nodes: &[usize], words: &[&str]) -> Result<Ended, Mismatch> {
    let urls: Vec<_> = nodes.iter().map(|node| bed.cluster().api(*node)).collect();
    let endpoints = urls.join(",");
    let arguments = [words, &["--endpoint", &endpoints]].concat();
    let step = format!("dvsctl {}", words.join(" "));
    let running = bed.start_dvsctl(nodes[0], &arguments, RESTART)?;
    running.end().map_err(|error| Mismatch::new(step, "it can be run", error))
}

fn done(bed: &Bed, nodes: &[usize], words: &[&str], says: &str) -> Result<(), Mismatch> {
    let ended = run(bed, nodes, words)?;
    let good = ended.succeeded() && ended.stdout.contains(says);
    expect(good, &format!("dvsctl {}", words.join(" ")), says, ended)
}

fn status(bed: &Bed, node: usize) -> Result<Option<ClusterStatus>, Mismatch> {
    let ended = run(bed, &[node], &["cluster", "status", "-o", "json"])?;
    Ok(serde_json::from_str(&ended.stdout).ok())
}

/// Waits until three nodes vote, all members of nodes that are there; gives back who leads.
fn await_voters(bed: &Bed, by: usize, step: &str) -> Result<usize, Mismatch> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = status(bed, by)?;
        if let Some(seen) = &seen {
            let voters = seen.members.iter().filter(|it| it.voter && it.heard).count();
            if let Some(leader) = seen.leader.filter(|_| voters == 3 && seen.majority) {
                return Ok(leader as usize);
            }
        }
        if Instant::now() >= deadline {
            return Err(Mismatch::new(step, "three voters and a leader", format!("{seen:?}")));
        }
        std::thread::sleep(POLL);
    }
}

const ALL: [usize; MEMBERS] = [0, 1, 2, 3];

fn others(node: usize) -> Vec<usize> {
    ALL.into_iter().filter(|other| *other != node).collect()
}

/// The leader is drained and undrained, while messages to it flow.
pub(super) fn drain(bed: &mut Bed) -> Result<(), Mismatch> {
    let leader = await_voters(bed, 0, "before draining")?;
    let node = leader.to_string();
    let from = others(leader)[0];
    let under_way = bed.start_ping(from, leader, 5_000, 1)?;
    done(bed, &ALL, &["node", "drain", &node], "it neither votes nor leads")?;
    bed.await_state(&ALL, leader, NodeState::Draining, NOTICE)?;
    let now = await_voters(bed, from, "while it is drained")?;
    expect(now != leader, "the lead of a drained node", "another node leads", now)?;
    done(bed, &ALL, &["node", "undrain", &node], "like any other again")?;
    bed.await_all_ready("waiting for the node to be undrained")?;
    under_way.succeed()
}

/// The leader restarts as it is asked to: the others know at once, agree meanwhile, and it is back when the command ends.
pub(super) fn reboot(bed: &mut Bed) -> Result<(), Mismatch> {
    let leader = await_voters(bed, 0, "before the restart")?;
    let node = leader.to_string();
    let others = others(leader);
    done(bed, &ALL, &["node", "reboot", &node], "has restarted and is ready")?;
    bed.await_all_ready("after the restart")?;
    let log = run(bed, &others[..1], &["logs", "dvsd", "-n", "200"])?;
    let left = format!("node {leader} (");
    let told = log
        .stdout
        .lines()
        .any(|line| line.contains(&left) && line.contains("said that it is going"));
    expect(told, "the log of another node", "it was told that the node is going", log)?;
    await_voters(bed, others[0], "after the restart")?;
    bed.ping_all(&ALL, 20)
}

/// A node is removed, knows so, stays out though it restarts, and is let in again.
pub(super) fn remove(bed: &mut Bed) -> Result<(), Mismatch> {
    await_voters(bed, 0, "before removing a node")?;
    let others = others(2);
    let before = bed.seen_by(0).unwrap_or_default();
    let before = before.iter().find(|node| node.id == 2).map_or(0, |node| node.incarnation);
    done(bed, &others, &["node", "remove", "2"], "node 2, node2, was removed")?;
    bed.await_view("removing node2", &others, NOTICE, "three nodes", |nodes| nodes.len() == 3)?;
    bed.ping_all(&others, 20)?;
    await_removed(bed, 2)?;
    bed.act("restarting node2", |cluster| {
        cluster.node(2).kill()?;
        cluster.node(2).start()
    })?;
    await_removed(bed, 2)?;
    bed.await_view("keeping node2 out", &others, NOTICE, "three nodes", |nodes| nodes.len() == 3)?;
    done(bed, &others, &["node", "reset", "2"], "node 2 is back and ready")?;
    bed.await_all_ready("after letting node2 in again")?;
    bed.await_view("the life of node2", &ALL, NOTICE, "a later incarnation", |nodes| {
        nodes.iter().any(|node| node.id == 2 && node.incarnation > before)
    })?;
    await_voters(bed, 0, "after letting node2 in again")?;
    let ended = run(bed, &others, &["events", "--node", "2", "-o", "json"])?;
    let events: Vec<Event> = serde_json::from_str(&ended.stdout).unwrap_or_default();
    let removed = events.iter().any(|event| event.kind == "node-removed");
    expect(removed, "the events of node2", "that it was removed", ended)?;
    bed.ping_all(&ALL, 20)
}

/// A node that was removed says so itself.
fn await_removed(bed: &Bed, node: usize) -> Result<(), Mismatch> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ended = bed.dvsctl(node, &["node", "list"])?;
        if ended.stderr.contains("was removed from the cluster") {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let step = format!("asking node{node} what it is");
            return expect(false, &step, "that it was removed from the cluster", ended);
        }
        std::thread::sleep(POLL);
    }
}
