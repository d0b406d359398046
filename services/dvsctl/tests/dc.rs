// SPDX-License-Identifier: MIT OR Apache-2.0
//! Distributed Containers by the program itself, against whole daemons on a pretended segment, with a pretended runtime.

#[path = "../../dvsd/tests/fake/mod.rs"]
mod fake;
mod program;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::process::{Command, Output, Stdio};

use dvs_api::{Container, ContainerPhase};
use fake::{eventually, Segment};
use program::{failure, program};

fn dvsctl(endpoints: &[String], words: &[&str]) -> Output {
    program(endpoints, words).output().unwrap()
}

/// What a command that succeeded printed; it may have told how it went on.
fn done(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn formed(segment: &Segment, count: u8) -> Vec<String> {
    let urls = segment.boot_all(count);
    let agreed = || {
        let status = dvsctl(&urls, &["cluster", "status", "-o", "json"]).stdout;
        let status: Option<dvs_api::ClusterStatus> = serde_json::from_slice(&status).ok();
        status.is_some_and(|status| status.majority && status.name == "dvs")
    };
    eventually(agreed, |agreed| *agreed);
    let ready = || {
        let nodes = dvsctl(&urls, &["node", "list", "-o", "json"]).stdout;
        let nodes: Vec<dvs_api::Node> = serde_json::from_slice(&nodes).unwrap_or_default();
        nodes.iter().filter(|node| node.state == dvs_api::NodeState::Ready).count()
    };
    eventually(ready, |ready| *ready == usize::from(count));
    urls
}

fn shown(urls: &[String], name: &str) -> Option<Container> {
    serde_json::from_slice(&dvsctl(urls, &["dc", "show", name, "-o", "json"]).stdout).ok()
}

fn runs_on(container: &Container) -> BTreeSet<u32> {
    let runs = container.places.iter().filter(|place| place.phase == ContainerPhase::Running);
    runs.map(|place| place.node).collect()
}

#[test]
fn a_container_is_made_used_scaled_and_removed() {
    let segment = Segment::new();
    let urls = formed(&segment, 3);
    let words = [
        "dc", "create", "web", "--nodes", "0-1", "--memory", "32M", "--cpus", "1.5", "--pids", "20",
    ];
    let made = done(&dvsctl(&urls, &words));
    assert!(made.starts_with("container web runs on nodes 0, 1 after "), "{made}");
    let spec = &segment.runtime_of(1).specs()[0];
    assert_eq!((spec.hostname.as_deref(), spec.dvk), (Some("web"), 1));
    assert_eq!((spec.limits.memory, spec.limits.processes), (32 << 20, 20));
    assert_eq!(spec.limits.cpu.milli, Some(1500));
    // Whoever is asked says the same, and both kernels know both nodes.
    for url in &urls {
        let container = shown(std::slice::from_ref(url), "web").unwrap();
        assert_eq!(runs_on(&container), BTreeSet::from([0, 1]), "{container:?}");
    }
    let both = BTreeMap::from([(1, BTreeSet::from([0, 1]))]);
    for number in [1, 2] {
        eventually(|| segment.dvk_containers(number), |known| *known == both);
    }
    assert!(segment.dvk_containers(3).is_empty() && segment.runtime_of(3).specs().is_empty());

    let mut command = program(&urls, &["dc", "exec", "web", "--node", "1", "--", "tr", "a", "b"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // More than any buffer on the way has room for.
    let input: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let mut stdin = child.stdin.take().unwrap();
    let writer = {
        let input = input.clone();
        std::thread::spawn(move || stdin.write_all(&input))
    };
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert_eq!(
        (output.status.code(), output.stdout == input),
        (Some(7), true),
        "{:?}",
        output.stderr
    );
    assert_eq!(String::from_utf8_lossy(&output.stderr), "tr a b\n");
    // A signal is for the command, whose end it may be.
    let mut command = program(&urls, &["dc", "exec", "web", "--node", "0", "--", "sleep", "9"]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut started = [0; 8];
    child.stderr.as_mut().unwrap().read_exact(&mut started).unwrap();
    assert_eq!(started, *b"sleep 9\n");
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let _input = child.stdin.take();
    assert_eq!(child.wait().unwrap().code(), Some(130));

    let error = failure(&dvsctl(&urls, &["dc", "exec", "web", "--node", "2", "--", "true"]), 1);
    assert!(error.contains("container web does not span node 2; it spans 0, 1"), "{error}");

    let top = done(&dvsctl(&urls, &["dc", "top", "web"]));
    let total: Vec<_> = top.lines().last().unwrap().split_whitespace().collect();
    assert_eq!(
        total,
        ["total", "3.00", "s", "0.00", "s", "2048", "KiB", "0", "B", "4", "0"],
        "{top}"
    );

    let scaled = done(&dvsctl(&urls, &["dc", "scale", "web", "--nodes", "1,2"]));
    assert!(scaled.starts_with("container web runs on nodes 1, 2 after "), "{scaled}");
    assert!(segment.runtime_of(1).specs().is_empty(), "it has left node 0");
    assert_eq!(segment.runtime_of(3).specs().len(), 1);

    assert_eq!(done(&dvsctl(&urls, &["dc", "delete", "web"])), "container web is gone\n");
    for number in 1..=3 {
        assert!(
            segment.runtime_of(number).specs().is_empty()
                && segment.dvk_containers(number).is_empty()
        );
    }
    assert_eq!(done(&dvsctl(&urls, &["dc", "list", "-o", "json"])), "[]\n");
    let error = failure(&dvsctl(&urls, &["dc", "delete", "web"]), 1);
    assert!(error.contains("there is no container web"), "{error}");
}

#[test]
fn what_a_node_cannot_do_is_told_and_done_once_it_can() {
    let segment = Segment::new();
    let urls = formed(&segment, 2);
    segment.runtime_of(2).fail(Some("the disk is on fire"));
    let output = dvsctl(&urls, &["dc", "create", "web", "--nodes", "all", "--timeout", "3"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let error = String::from_utf8(output.stderr).unwrap();
    let last = error.lines().last().unwrap();
    assert!(last.contains("node 0 running, node 1 failed (the disk is on fire)"), "{error}");
    segment.runtime_of(2).fail(None);
    let all = BTreeSet::from([0, 1]);
    eventually(|| shown(&urls, "web"), |it| it.as_ref().is_some_and(|it| runs_on(it) == all));
    // What ends by itself is made anew.
    segment.runtime_of(1).crash();
    eventually(|| segment.runtime_of(1).made(), |made| *made == 2);
    eventually(|| shown(&urls, "web"), |it| it.as_ref().is_some_and(|it| runs_on(it) == all));
}

#[test]
fn a_node_that_comes_back_makes_its_containers_anew() {
    let segment = Segment::new();
    let urls = formed(&segment, 3);
    done(&dvsctl(&urls, &["dc", "create", "web", "--nodes", "0-2"]));
    segment.kill(3);
    let unknown = |container: &Option<Container>| {
        let place = container.as_ref().and_then(|it| it.places.iter().find(|it| it.node == 2));
        place.is_some_and(|place| place.phase == ContainerPhase::Unknown)
    };
    eventually(|| shown(&urls[..2], "web"), unknown);
    // What its kernel had is gone, and what the runtime has is of no use without.
    let token = "the token of this cluster";
    let back = fake::Boot { number: 3, token, expect: 3, dvk: true, insecure: false };
    let urls = [urls[0].clone(), urls[1].clone(), segment.boot(&back)];
    let all = BTreeSet::from([0, 1, 2]);
    eventually(|| shown(&urls, "web"), |it| it.as_ref().is_some_and(|it| runs_on(it) == all));
    let every = BTreeMap::from([(1, BTreeSet::from([0, 1, 2]))]);
    for number in 1..=3 {
        eventually(|| segment.dvk_containers(number), |known| *known == every);
    }
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_agreed_on() {
    let segment = Segment::new();
    let urls = formed(&segment, 1);
    let refused = |words: &[&str], part: &str| {
        let error = failure(&dvsctl(&urls, words), 1);
        assert!(error.contains(part), "{error}");
    };
    refused(&["dc", "create", "We b", "--nodes", "0"], "use up to 63 of a to z");
    refused(&["dc", "create", "web", "--nodes", "7"], "there is no node 7");
    refused(
        &["dc", "create", "web", "--nodes", "0", "--memory", "1M"],
        "a container needs 8388608",
    );
    refused(&["dc", "create", "web", "--nodes", "0", "--pids", "1"], "limiting processes to 1");
    refused(&["dc", "exec", "web", "--", "true"], "there is no container web");
    assert_eq!(dvsctl(&urls, &["dc", "create", "web", "--nodes", "3-1"]).status.code(), Some(2));
    assert_eq!(dvsctl(&urls, &["dc", "exec", "web"]).status.code(), Some(2));
    done(&dvsctl(&urls, &["dc", "create", "web", "--nodes", "0"]));
    refused(&["dc", "create", "web", "--nodes", "0"], "web");
    assert_eq!(done(&dvsctl(&urls, &["dc", "list", "-o", "json"])).matches("\"name\"").count(), 1);
}

#[test]
fn endpoints_are_shown_by_node_and_container() {
    let segment = Segment::new();
    let urls = formed(&segment, 2);
    let listed = |words: &[&str]| -> Vec<dvs_api::IpcEndpoint> {
        let words = [&["endpoint", "list", "-o", "json"], words].concat();
        serde_json::from_str(&done(&dvsctl(&urls, &words))).unwrap()
    };
    // The echo server of each node is in the nodes' own container.
    let all = listed(&[]);
    let nodes: BTreeSet<u32> = all.iter().map(|one| one.node).collect();
    assert_eq!(nodes, BTreeSet::from([0, 1]), "{all:?}");
    assert!(all.iter().all(|one| one.container_name == "system" && one.waits_for.is_some()));
    assert!(listed(&["--node", "1"]).iter().all(|one| one.node == 1));
    assert_eq!(listed(&["--dc", "system"]).len(), all.len());
    let table = done(&dvsctl(&urls, &["endpoint", "list", "-o", "wide"]));
    assert!(table.starts_with("CONTAINER  ENDPOINT"), "{table}");
    let why = failure(&dvsctl(&urls, &["endpoint", "list", "--dc", "nosuch"]), 1);
    assert!(why.contains("there is no container nosuch"), "{why}");
}
