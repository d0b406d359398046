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
    let output = dvsctl(&urls, &["dc", "create", "web", "--nodes", "all", "--timeout", "5"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let error = String::from_utf8(output.stderr).unwrap();
    let last = error.lines().last().unwrap();
    // It may be trying again at that moment.
    let told = last.contains("node 1 failed") && last.contains("(the disk is on fire)");
    assert!(last.contains("node 0 running, node 1 ") && told, "{error}");
    segment.runtime_of(2).fail(None);
    let all = BTreeSet::from([0, 1]);
    eventually(|| shown(&urls, "web"), |it| it.as_ref().is_some_and(|it| runs_on(it) == all));
    // What ends by itself is made anew.
    segment.runtime_of(1).crash();
    eventually(|| segment.runtime_of(1).made(), |made| *made == 2);
    eventually(|| shown(&urls, "web"), |it| it.as_ref().is_some_and(|it| runs_on(it) == all));
}

#[test]
fn what_runs_in_a_container_is_changed_where_it_can_be_and_made_anew_where_not() {
    let segment = Segment::new();
    let urls = formed(&segment, 2);
    // One node is enough to reach the others.
    let one = &urls[..1];
    let words = ["dc", "create", "web", "--nodes", "all", "--network", "--", "serve", "first"];
    done(&dvsctl(one, &words));
    let spec = &segment.runtime_of(2).specs()[0];
    assert_eq!(spec.process.command, ["serve", "first"]);
    let network = spec.network.as_ref().unwrap();
    assert_eq!(network.addresses[0].to_string(), "10.1.0.2/16");
    eventually(
        || segment.runtime_of(2).specs()[0].network.as_ref().unwrap().overlay.clone().unwrap(),
        |overlay| overlay.peers.len() == 1,
    );
    assert_eq!(done(&dvsctl(one, &["dc", "logs", "web"])), "0: serve first\n1: serve first\n");
    assert_eq!(done(&dvsctl(one, &["dc", "logs", "web", "--node", "1"])), "serve first\n");

    done(&dvsctl(one, &["dc", "set", "web", "--pids", "30", "--cpu-set", "0"]));
    let runtime = segment.runtime_of(2);
    assert_eq!((runtime.specs()[0].limits.processes, runtime.made()), (30, 1));
    done(&dvsctl(
        one,
        &["dc", "set", "web", "--unset", "pids", "--restart", "never", "--", "serve", "second"],
    ));
    assert_eq!((runtime.specs()[0].process.command[1].as_str(), runtime.made()), ("second", 2));
    let container = shown(one, "web").unwrap();
    assert_eq!((container.revision, container.limits.pids), (2, None));

    let phases = || {
        let places = shown(one, "web").unwrap().places;
        places.into_iter().map(|place| (place.phase, place.detail)).collect::<Vec<_>>()
    };
    segment.runtime_of(1).crash();
    runtime.crash();
    let ended = (ContainerPhase::Ended, "it ended with status 1".to_owned());
    eventually(phases, |phases| *phases == [ended.clone(), ended.clone()]);
    assert_eq!(runtime.made(), 2);
    done(&dvsctl(one, &["dc", "set", "web", "--restart", "on-failure"]));
    eventually(|| runtime.made(), |made| *made == 3);
    let events = done(&dvsctl(one, &["events"]));
    assert!(events.contains("container web: it ended with status 1"), "{events}");
    assert!(events.contains("revision 3"), "{events}");
    done(&dvsctl(one, &["dc", "set", "web", "--restart", "always"]));
    // Both pretended nodes have one address, so the port is taken for one of them.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    done(&dvsctl(one, &["dc", "set", "web", "--publish", &format!("{port}:80")]));
    let greeted = || {
        let mut text = String::new();
        let client = std::net::TcpStream::connect(("127.0.0.1", port));
        client.and_then(|mut client| client.read_to_string(&mut text)).map(|_| text).ok()
    };
    eventually(greeted, |text| text.as_deref() == Some("dc1:80\n"));
    let is_told = |phases: &Vec<(ContainerPhase, String)>| {
        phases.iter().filter(|(_, detail)| detail.contains(&format!("port {port}"))).count() == 1
    };
    eventually(phases, is_told);
    let error = failure(&dvsctl(one, &["dc", "set", "web", "--publish", "80:0"]), 1);
    assert!(error.contains("port 0"), "{error}");
    done(&dvsctl(one, &["dc", "delete", "web"]));
}

#[test]
fn an_image_is_brought_to_the_nodes_that_need_it() {
    let segment = Segment::new();
    let urls = formed(&segment, 3);
    let one = &urls[..1];
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let error = failure(&dvsctl(one, &["image", "import", &file("bad", "nothing")]), 1);
    assert!(error.contains("that is no image"), "{error}");
    let error = failure(&dvsctl(one, &["image", "import", "/nonexistent"]), 1);
    assert!(error.contains("/nonexistent"), "{error}");
    let error =
        failure(&dvsctl(one, &["dc", "create", "web", "--nodes", "0", "--image", "shop"]), 1);
    assert!(error.contains("there is no image shop"), "{error}");

    let first = file("shop.oci", "image of a shop");
    let imported = done(&dvsctl(one, &["image", "import", &first, "--name", "shop"]));
    assert!(imported.starts_with("image shop is on nodes "), "{imported}");
    done(&dvsctl(one, &["dc", "create", "web", "--nodes", "all", "--image", "shop"]));
    let root = |number| segment.runtime_of(number).specs()[0].root.clone();
    assert!(matches!(root(1), dvs_runtime::Root::Image(_)));
    assert!(root(1) == root(2) && root(2) == root(3));
    let images = || -> Vec<dvs_api::Image> {
        serde_json::from_slice(&dvsctl(one, &["image", "list", "-o", "json"]).stdout).unwrap()
    };
    let listed = images();
    assert_eq!(
        (listed[0].nodes.len(), listed[0].containers.as_slice()),
        (3, &["web".to_owned()][..])
    );

    // A name that stands for another image changes nothing for containers that there are.
    let second = file("shop2.oci", "image of another shop");
    done(&dvsctl(one, &["image", "import", &second, "--name", "shop"]));
    done(&dvsctl(one, &["dc", "set", "web", "--memory", "32M"]));
    assert_eq!(segment.runtime_of(1).made(), 1);
    let before = root(1);
    done(&dvsctl(one, &["dc", "set", "web", "--image", "shop"]));
    assert!(root(1) != before && root(1) == root(3));
    let removed = done(&dvsctl(one, &["image", "remove", "shop"]));
    assert!(removed.contains("keep it: web"), "{removed}");
    assert_eq!(images(), []);
    done(&dvsctl(one, &["dc", "set", "web", "--pids", "40"]));
    done(&dvsctl(one, &["dc", "delete", "web"]));
    for number in 1..=3 {
        let archives = segment.run_directory(number).join("archives");
        let left = || std::fs::read_dir(&archives).map_or(0, Iterator::count);
        eventually(left, |left| *left == 0);
    }
    // A file can be named at once.
    done(&dvsctl(one, &["dc", "create", "web", "--nodes", "2", "--image", &first]));
    assert_eq!(images()[0].name, "shop.oci");
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
