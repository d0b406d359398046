// SPDX-License-Identifier: MIT OR Apache-2.0
//! The servers of a virtual OS run again when they are killed, elsewhere when their node loses power, and where they are wanted; one of
//! which there is one never runs twice.

use std::time::{Duration, Instant};

use dvs_api::ContainerPhase;

use super::agreement::await_whole;
use super::bed::{Bed, MEMBERS, NOTICE, PATIENCE};
use super::dc::{await_places, create, delete, exec, start};
use super::mismatch::{expect, Mismatch};
use super::program::Ended;

const CONTAINER: &str = "vos";
const POLL: Duration = Duration::from_millis(300);
const RS: &str = "/tmp/mol-rs";
/// The one tells of each second its term and the time; the other one is on each node.
const MANIFEST: &str = "url = \"http://vos/\"\n\
    [[server]]\n\
    name = \"alone\"\n\
    command = [\"sh\", \"-c\", \"while :; do echo $MOL_TERM; sleep 1; done\"]\n\
    once = true\n\
    prefer = PREFERRED\n\
    [[server]]\n\
    name = \"each\"\n\
    command = [\"sh\", \"-c\", \"while :; do echo {node}; sleep 1; done\"]\n\
    each = true\n\
    after = [\"alone\"]\n";

/// A process of a server as `mol-rs show` tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    node: usize,
    pid: u64,
    term: Option<u64>,
}

/// Three nodes run it; one of them has the server of which there is one.
pub(super) fn run_again(bed: &mut Bed) -> Result<(), Mismatch> {
    let seen = await_whole(bed, "before the container is made")?;
    let leader = seen.leader.unwrap_or_default() as usize;
    let nodes: Vec<usize> = (0..MEMBERS).filter(|node| *node != leader).collect();
    let [first, second, third] = nodes[..] else { return Ok(()) };
    create(bed, CONTAINER, &format!("{first},{second},{third}"), &[])?;
    let mut running = Vec::new();
    for node in [first, second, third] {
        running.push(start(bed, CONTAINER, node, "mol-rs", "run")?);
    }
    let manifest = MANIFEST.replace("PREFERRED", &first.to_string());
    let on = format!("--on {first},{second},{third}");
    await_program(bed, second)?;
    let script = format!("printf %s '{manifest}' | {RS} load - --wait {on}");
    let loaded = shell(bed, second, &script)?;
    expect(loaded.succeeded(), "loading the manifest", "all servers run", &loaded)?;
    let begun = await_alone(bed, second, |place| place.node == first)?;
    await_each(bed, second, &[first, second, third])?;
    let url = asked(bed, third, &["url"])?;
    expect(url.stdout == "http://vos/\n", "asking for the url", "that of the manifest", &url)?;

    // It has its number in the container; that is the one that the shell in there sees.
    let killed = shell(bed, first, &format!("kill -9 {}", begun.pid))?;
    expect(killed.succeeded(), "killing the server", "it can be", &killed)?;
    let again = await_alone(bed, second, |place| place.pid != begun.pid)?;
    let stayed = again.node == first && again.term == begun.term;
    expect(stayed, "looking at the killed server", "it runs again there", format!("{again:?}"))?;

    let moved = asked(bed, first, &["move", "alone", "--to", &third.to_string()])?;
    expect(moved.succeeded(), "moving the server", "it runs there", &moved)?;
    let there = await_alone(bed, second, |place| place.node == third)?;
    let is_newer = there.term > again.term;
    expect(is_newer, "looking at the moved server", "a greater term", format!("{there:?}"))?;
    let refused = asked(bed, first, &["move", "alone", "--to", "77"])?;
    let says = !refused.succeeded() && refused.stderr.contains("no mol-rs runs there");
    expect(says, "moving it to a node that is not there", "an error that says so", &refused)?;

    bed.act("cutting the power of its node", |cluster| cluster.node(third).kill())?;
    let after = await_alone(bed, second, |place| place.node != third)?;
    let is_newer = after.term > there.term;
    expect(is_newer, "looking at it after a power cut", "a greater term", format!("{after:?}"))?;
    await_each(bed, second, &[first, second])?;
    bed.note(format!(
        "a server of which there is one ran in the terms {begun:?}, {there:?}, {after:?}"
    ));
    drop(running.pop());
    bed.act("giving power", |cluster| cluster.node(third).start())?;
    bed.await_all_ready("waiting for the node to come back")?;
    await_whole(bed, "waiting for the node to take part again")?;
    await_places(bed, CONTAINER, "all of it running", |container| {
        container.places.iter().all(|place| place.phase == ContainerPhase::Running)
    })?;
    let back = start(bed, CONTAINER, third, "mol-rs", "run")?;
    await_each(bed, second, &[first, second, third])?;
    let stays = await_alone(bed, second, |_| true)?;
    expect(
        stays == after,
        "looking at it once the node is back",
        "it stays",
        format!("{stays:?}"),
    )?;
    drop(back);
    drop(running);
    delete(bed, CONTAINER)
}

/// Waits until the program is in the container, and can be run.
fn await_program(bed: &Bed, node: usize) -> Result<(), Mismatch> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ran = shell(bed, node, &format!("{RS} --version"))?;
        if ran.succeeded() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Mismatch::new("waiting for mol-rs in the container", "it can be run", ran));
        }
        std::thread::sleep(POLL);
    }
}

fn shell(bed: &Bed, node: usize, script: &str) -> Result<Ended, Mismatch> {
    let words = exec(CONTAINER, node, &["sh", "-c", script]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    bed.dvsctl(node, &words)
}

fn asked(bed: &Bed, node: usize, words: &[&str]) -> Result<Ended, Mismatch> {
    let words = exec(CONTAINER, node, &[&[RS], words].concat());
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    bed.dvsctl(node, &words)
}

/// The processes of a server, as one node knows.
fn places(bed: &Bed, viewer: usize, server: &str) -> Result<(Vec<Place>, Ended), Mismatch> {
    let shown = asked(bed, viewer, &["show", "-o", "json"])?;
    let rows: Vec<serde_json::Value> = serde_json::from_str(&shown.stdout).unwrap_or_default();
    let runs = rows.iter().filter(|row| row["server"] == server && row["state"] == "running");
    let place = |row: &serde_json::Value| {
        let node = usize::try_from(row["node"].as_u64()?).ok()?;
        Some(Place { node, pid: row["pid"].as_u64()?, term: row["term"].as_u64() })
    };
    Ok((runs.filter_map(place).collect(), shown))
}

/// Waits until the server of which there is one runs as expected. That it runs twice is never so.
fn await_alone(bed: &Bed, viewer: usize, good: impl Fn(&Place) -> bool) -> Result<Place, Mismatch> {
    let step = "looking at the server of which there is one";
    let deadline = Instant::now() + PATIENCE.max(NOTICE);
    loop {
        let (all, shown) = places(bed, viewer, "alone")?;
        expect(all.len() <= 1, step, "one process at most", &shown)?;
        if let Some(place) = all.into_iter().find(&good) {
            return Ok(place);
        }
        if Instant::now() >= deadline {
            return Err(Mismatch::new(step, "it runs where it should", shown));
        }
        std::thread::sleep(POLL);
    }
}

/// Waits until the server of each node runs on these.
fn await_each(bed: &Bed, viewer: usize, nodes: &[usize]) -> Result<(), Mismatch> {
    let deadline = Instant::now() + PATIENCE.max(NOTICE);
    loop {
        let (all, shown) = places(bed, viewer, "each")?;
        let mut on: Vec<usize> = all.iter().map(|place| place.node).collect();
        on.sort_unstable();
        if on == nodes {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let step = "waiting for the server of each node";
            return Err(Mismatch::new(step, format!("it runs on {nodes:?}"), shown));
        }
        std::thread::sleep(POLL);
    }
}
