// SPDX-License-Identifier: MIT OR Apache-2.0
//! Distributed Containers: declared once, there on every node that they span, apart from each other, and gone without a trace.

use std::fs::File;
use std::time::{Duration, Instant};

use dvs_api::{Container, ContainerPhase, IpcEndpoint};

use super::bed::{Bed, NOTICE, PATIENCE};
use super::mismatch::{expect, Mismatch};
use super::outages::{await_incarnation, incarnation};
use super::program::{Ended, Running};

/// For what a node that is translated has to do with a container.
pub(super) const LIMIT: Duration = Duration::from_secs(120);
/// For a program that runs while a scenario is played on a busy host.
const RUN: Duration = Duration::from_secs(300);
/// Nothing of what the cases make is larger.
const BYTES: &str = "1048576";
/// What a script does first: takes the program that it is fed with.
pub(super) const TAKE: &str = "cat > /tmp/program && chmod +x /tmp/program && exec /tmp/program";

/// A container is on all nodes, with a shell, a host name, a DVK and an exit status on each, and leaves nothing behind.
pub(super) fn span_nodes(bed: &mut Bed) -> Result<(), Mismatch> {
    let nodes = [0, 1, 2, 3];
    let mut counts = Vec::new();
    for node in nodes {
        let mut count = bed.start_on(node, &["dvs-runtime-conformance", "count"], LIMIT)?;
        count.line()?;
        counts.push(count);
    }
    let bound = endpoints(bed, &nodes, &[])?;
    let began = Instant::now();
    let web = create(bed, "web", "all", &[])?;
    bed.note(format!(
        "a container on four nodes was ready after {:.1} s",
        began.elapsed().as_secs_f64()
    ));
    for node in nodes {
        let script = format!("hostname; id -u; test -c /dev/dvk; exit {}", 10 + node);
        let ended = dvsctl(bed, node, &exec("web", node, &["sh", "-c", &script]))?;
        let step = format!("a command in the container on node{node}");
        let as_asked = ended.status == Some(10 + node as i32) && ended.stdout == "web\n0\n";
        expect(as_asked, &step, "its host name, its root, its DVK and its exit status", &ended)?;
        // It reaches its own DVK, and cannot control any.
        let words = exec("web", node, &["sh", "-c", &format!("{TAKE} bind")]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let bound = bed.feed_dvsctl(node, &words, "dvs-runtime-conformance", LIMIT)?;
        let expected = format!("{}\nrefused: ", web.id);
        expect(bound.stdout.starts_with(&expected), &step, &expected, &bound)?;
    }
    // What a process leaves behind that does not want to end goes with the container.
    let words = exec("web", 1, &["sh", "-c", "(setsid sleep 1000 &); echo > /file"]);
    let left = dvsctl(bed, 1, &words)?;
    expect(left.succeeded(), "leaving something behind", "it can be", &left)?;
    delete(bed, "web")?;
    for (node, count) in counts.iter_mut().enumerate() {
        count.say("again")?;
        let step = format!("counting what a container leaves behind on node{node}");
        let line = count.line()?;
        expect(line == "nothing is left", &step, "nothing", line)?;
    }
    for count in counts {
        count.succeed()?;
    }
    let left = endpoints(bed, &nodes, &[])?;
    let names = |all: &[IpcEndpoint]| -> Vec<_> {
        all.iter().map(|one| (one.node, one.container, one.endpoint.clone())).collect()
    };
    let (bound, left) = (names(&bound), names(&left));
    let step = "counting the endpoints that a container leaves behind";
    expect(left == bound, step, &format!("{bound:?}"), format!("{left:?}"))
}

/// Programs of one container exchange memory from node to node; those of another one cannot reach them.
pub(super) fn are_apart(bed: &mut Bed) -> Result<(), Mismatch> {
    let red = create(bed, "red", "1-3", &["--memory", "32M"])?.id.to_string();
    let blue = create(bed, "blue", "1,2", &["--memory", "32M"])?.id.to_string();
    let words = ["dvk-scenarios", "supply", "--container", &red];
    let mut supplier = bed.start_on(1, &words, LIMIT)?;
    let line = supplier.line()?;
    let endpoint = line.strip_prefix("supplies ").unwrap_or_default();
    let fetch = |container: &str| {
        let words = ["dvk-scenarios", "fetch", "--container", container];
        let words = [&words[..], &["--supplier", endpoint, "--bytes", BYTES]].concat();
        bed.run_on(2, &words, LIMIT)
    };
    for (container, count) in [("red", 1), ("blue", 0)] {
        let mut there = endpoints(bed, &[1, 2], &["--dc", container])?;
        // That of the container's services is on each of its nodes.
        there.retain(|one| !one.endpoint.starts_with("63."));
        let as_bound = |one: &IpcEndpoint| {
            let raw = one.endpoint.split_once('.').and_then(|(slot, generation)| {
                Some(generation.parse::<u64>().ok()? << 32 | slot.parse::<u64>().ok()?)
            });
            one.node == 1 && raw.is_some_and(|raw| raw.to_string() == endpoint)
        };
        let step = format!("looking at the endpoints in {container}");
        let as_expected = there.len() == count && there.iter().all(as_bound);
        expect(as_expected, &step, &format!("{count} of {endpoint}"), format!("{there:?}"))?;
    }
    let astray = fetch(&blue)?;
    let step = "fetching memory of one container from within another";
    expect(!astray.succeeded(), step, "an error", &astray)?;
    let fetched = fetch(&red)?;
    let made = supplier.line()?;
    supplier.succeed()?;
    let copied = fetched.stdout.trim().strip_prefix("copied ").unwrap_or_default();
    let step = "fetching memory within a container from another node";
    expect(made.strip_prefix("made ") == Some(copied), step, &made, &fetched)?;
    // They neither see nor signal each other's processes, nor those of the node.
    let words =
        exec("red", 1, &["sh", "-c", "sleep 987 & sleep 1; pidof sleep >/dev/null && echo seen"]);
    let own = dvsctl(bed, 1, &words)?;
    expect(own.stdout == "seen\n", "seeing one's own process", "it is seen", &own)?;
    let words =
        exec("blue", 1, &["sh", "-c", "pidof sleep dvsd || echo nobody; kill -9 -1; echo here"]);
    let other = dvsctl(bed, 1, &words)?;
    let expected = "nobody\nhere\n";
    let step = "seeing and ending processes of another container";
    expect(other.stdout == expected, step, expected, &other)?;
    expect(runs_on(&show(bed, "red")?) == [1, 2, 3], step, "the other one runs on", "it does not")?;
    delete(bed, "blue")?;
    delete(bed, "red")
}

/// A node that loses power, and one whose daemon is killed, have their containers again without anybody doing anything.
pub(super) fn come_back(bed: &mut Bed) -> Result<(), Mismatch> {
    create(bed, "web", "0-3", &[])?;
    let before = incarnation(bed, 0, 3)?;
    bed.act("cutting node3's power", |cluster| cluster.node(3).kill())?;
    await_places(bed, "web", "node3 unknown", |web| {
        web.places.iter().any(|place| place.node == 3 && place.phase == ContainerPhase::Unknown)
    })?;
    let ended = dvsctl(bed, 1, &exec("web", 1, &["true"]))?;
    expect(ended.succeeded(), "running a command while a node is down", "it succeeds", &ended)?;
    bed.act("giving node3 power", |cluster| cluster.node(3).start())?;
    await_incarnation(bed, 3, before)?;
    let everywhere = |web: &Container| runs_on(web) == [0, 1, 2, 3];
    await_places(bed, "web", "running on all nodes", everywhere)?;
    let before = incarnation(bed, 0, 2)?;
    let killed = bed.run_on(2, &["dvk-scenarios", "kill", "dvsd"], LIMIT)?;
    expect(killed.stdout == "1\n", "killing dvsd on node2", "the one process there is", killed)?;
    await_incarnation(bed, 2, before)?;
    bed.await_all_ready("waiting for node2 to come back")?;
    await_places(bed, "web", "running on all nodes", everywhere)?;
    for node in [2, 3] {
        let ended = dvsctl(bed, node, &exec("web", node, &["test", "-c", "/dev/dvk"]))?;
        let step = format!("running a command in the container that came back on node{node}");
        expect(ended.succeeded(), &step, "it succeeds", &ended)?;
    }
    delete(bed, "web")
}

pub(super) fn dvsctl(bed: &Bed, node: usize, words: &[String]) -> Result<Ended, Mismatch> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let step = format!("dvsctl {}", words.join(" "));
    let running = bed.start_dvsctl(node, &words, LIMIT)?;
    running.end().map_err(|error| Mismatch::new(step, "it can be run", error))
}

pub(super) fn exec(name: &str, node: usize, command: &[&str]) -> Vec<String> {
    let node = node.to_string();
    let words = [&["dc", "exec", name, "--node", &node, "--"], command].concat();
    words.into_iter().map(str::to_owned).collect()
}

/// Feeds a program of the image into a container, and starts it there with these arguments.
pub(super) fn start(
    bed: &Bed,
    container: &str,
    node: usize,
    program: &str,
    arguments: &str,
) -> Result<Running, Mismatch> {
    let script = format!(
        "cat > /tmp/{program} && chmod +x /tmp/{program} && exec /tmp/{program} {arguments}"
    );
    let words = exec(container, node, &["sh", "-c", &script]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let input = File::open(bed.program(program)).map_err(|error| failed(program, &error))?;
    bed.start_dvsctl_with(node, &words, input.into(), RUN)
}

/// A program of the host that could not be run.
pub(super) fn failed(what: &str, error: &std::io::Error) -> Mismatch {
    Mismatch::new(format!("running {what}"), "it can be run", error)
}

/// Starts a script in a container.
pub(super) fn run(
    bed: &Bed,
    container: &str,
    node: usize,
    script: &str,
) -> Result<Running, Mismatch> {
    let words = exec(container, node, &["sh", "-c", script]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    bed.start_dvsctl(node, &words, RUN)
}

pub(super) fn create(
    bed: &Bed,
    name: &str,
    nodes: &str,
    more: &[&str],
) -> Result<Container, Mismatch> {
    let words = [&["-o", "json", "dc", "create", name, "--nodes", nodes], more].concat();
    let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
    let ended = dvsctl(bed, 0, &words)?;
    let step = format!("creating the container {name}");
    expect(ended.succeeded(), &step, "it runs on all its nodes", &ended)?;
    serde_json::from_str(&ended.stdout)
        .map_err(|error| Mismatch::new(step, "a container", format!("{error}: {ended}")))
}

pub(super) fn delete(bed: &Bed, name: &str) -> Result<(), Mismatch> {
    let words = ["dc", "delete", name].map(str::to_owned);
    let ended = dvsctl(bed, 0, &words)?;
    let expected = format!("container {name} is gone\n");
    expect(ended.stdout == expected, "deleting a container", &expected, &ended)
}

pub(super) fn show(bed: &Bed, name: &str) -> Result<Container, Mismatch> {
    let ended = bed.dvsctl(0, &["dc", "show", name, "-o", "json"])?;
    let step = format!("looking at the container {name}");
    serde_json::from_str(&ended.stdout)
        .map_err(|error| Mismatch::new(step, "a container", format!("{error}: {ended}")))
}

/// The endpoints that are bound on some nodes.
fn endpoints(bed: &Bed, nodes: &[usize], more: &[&str]) -> Result<Vec<IpcEndpoint>, Mismatch> {
    let mut all = Vec::new();
    for node in nodes {
        let words = [&["endpoint", "list", "-o", "json"], more].concat();
        let ended = bed.dvsctl(*node, &words)?;
        let listed: Vec<IpcEndpoint> = serde_json::from_str(&ended.stdout).map_err(|error| {
            Mismatch::new("listing endpoints", "a list", format!("{error}: {ended}"))
        })?;
        all.extend(listed);
    }
    Ok(all)
}

pub(super) fn runs_on(container: &Container) -> Vec<u32> {
    let runs = container.places.iter().filter(|place| place.phase == ContainerPhase::Running);
    runs.map(|place| place.node).collect()
}

pub(super) fn await_places(
    bed: &Bed,
    name: &str,
    expected: &str,
    good: impl Fn(&Container) -> bool,
) -> Result<(), Mismatch> {
    let deadline = Instant::now() + PATIENCE.max(NOTICE);
    loop {
        // While a leader is elected nothing can be read.
        let seen = show(bed, name);
        if seen.as_ref().is_ok_and(&good) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let came = seen.map_or_else(|why| why.to_string(), |seen| format!("{:?}", seen.places));
            return Err(Mismatch::new(format!("waiting for the container {name}"), expected, came));
        }
        std::thread::sleep(Duration::from_millis(300));
    }
}
