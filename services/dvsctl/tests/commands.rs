// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program itself, against whole daemons on a pretended segment.

#[path = "../../dvsd/tests/fake/mod.rs"]
mod fake;

use std::process::{Command, Output};

use dvs_api::{Node, NodeState, PingResult};
use fake::{eventually, Boot, Segment};

fn dvsctl(endpoints: &[String], line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dvsctl"))
        .args(line.split(' '))
        .env("DVSCTL_ENDPOINTS", endpoints.join(","))
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && error.is_empty(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The one line on stderr of a failed command, which printed nothing else.
fn failure(output: &Output, code: i32) -> String {
    assert_eq!((output.status.code(), output.stdout.len()), (Some(code), 0), "{output:?}");
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(text.starts_with("error: "), "{text}");
    text
}

fn nodes(urls: &[String]) -> Vec<Node> {
    let output = dvsctl(urls, "node list -o json");
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

fn ready(urls: &[String], count: usize) {
    for url in urls {
        let all = |nodes: &Vec<Node>| {
            nodes.len() == count && nodes.iter().all(|node| node.state == NodeState::Ready)
        };
        eventually(|| nodes(std::slice::from_ref(url)), all);
    }
}

#[test]
fn keys_are_shown_and_changed() {
    let segment = Segment::new();
    let urls = segment.boot_all(2);
    ready(&urls, 2);
    let shown = stdout(&dvsctl(&urls, "segment show"));
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines.len(), 3, "{shown}");
    assert!(lines[0].starts_with("NODE  DEVICE    CIPHER       KEY"), "{shown}");
    assert!(lines[2].starts_with("1     sec-eth0  GCM-AES-256  1  "), "{shown}");
    let rotated = stdout(&dvsctl(&urls, "segment rotate --node 1 -o json"));
    assert!(rotated.starts_with(r#"[{"node":1,"endpoint":""#), "{rotated}");
    assert!(rotated.contains(r#""key":2,"next":null"#), "{rotated}");
    let output = dvsctl(&urls, "segment rotate -o json");
    assert_eq!(stdout(&output).matches(r#""encrypted":true"#).count(), 2);
    let token = "the token of this cluster";
    let insecure = Boot { number: 3, token, expect: 1, dvk: true, insecure: true };
    let alone = [segment.boot(&insecure)];
    assert!(stdout(&dvsctl(&alone, "segment show")).contains("none    insecure"));
    let text = failure(&dvsctl(&alone, "segment rotate"), 1);
    assert!(text.contains("does not encrypt its messages (cluster.insecure)"), "{text}");
}

#[test]
fn a_cluster_is_looked_at_and_pinged() {
    let segment = Segment::new();
    let urls = segment.boot_all(3);
    ready(&urls, 3);

    let list = stdout(&dvsctl(&urls, "node list"));
    let lines: Vec<_> = list.lines().collect();
    assert_eq!(lines.len(), 4, "{list}");
    assert!(lines[0].starts_with("ID  NAME   STATE"), "{list}");
    assert!(
        lines[3].starts_with("2   node2  ready") && lines[3].ends_with("fe80::3%eth0"),
        "{list}"
    );

    let show = stdout(&dvsctl(&urls, "node show 1"));
    assert!(show.contains("link              up, sec-eth0 to 52:54:00:00:00:02"), "{show}");

    let json = stdout(&dvsctl(&urls, "ipc ping --from 2 --to 0 --count 200 -o json"));
    let result: PingResult = serde_json::from_str(&json).unwrap();
    assert_eq!((result.from, result.to, result.sent), (2, 0, 200));
    assert_eq!((result.received, result.duplicated, result.lost), (200, 0, 0));
    let text = stdout(&dvsctl(&urls, "ipc ping --to 1 --count 5"));
    assert!(text.starts_with("node 0 to node 1: 5 sent, 5 received, 0 duplicated"), "{text}");

    let versions = stdout(&dvsctl(&urls, "version"));
    assert_eq!(versions.lines().count(), 5, "{versions}");
    assert!(versions.contains("node 2"), "{versions}");

    std::fs::write(segment.run_directory(2).join("logs/dvsd.log"), "one\ntwo\n").unwrap();
    assert_eq!(stdout(&dvsctl(&urls, "logs dvsd --node 1 -n 1")), "two\n");

    let error = failure(&dvsctl(&urls, "node show 7"), 1);
    assert!(error.contains("there is no node 7; there are: 0, 1, 2"), "{error}");
    let error = failure(&dvsctl(&urls, "ipc ping --from 7 --to 0"), 1);
    assert!(error.contains("node 7 is not reached: ") && error.contains("is node 2"), "{error}");

    segment.kill(1);
    let down = |nodes: &Vec<Node>| nodes.len() == 3 && nodes[0].state == NodeState::Down;
    // The first endpoint is gone, so another one answers.
    eventually(|| nodes(&urls), down);
    let error = failure(&dvsctl(&urls, "ipc ping --from 1 --to 0"), 1);
    assert!(error.contains("node 0 is down: nothing was heard of it for"), "{error}");
    let output = dvsctl(&urls, "version");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("does not answer"), "{output:?}");
}

#[test]
fn failures_say_what_was_tried_and_what_to_do() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = failure(&dvsctl(std::slice::from_ref(&gone), "node list"), 1);
    assert!(error.contains(&format!("{gone} does not answer")), "{error}");
    assert!(error.contains("DVSCTL_ENDPOINTS"), "{error}");

    let segment = Segment::new();
    let token = "the token of this cluster";
    let alone = segment.boot(&Boot { number: 1, token, expect: 2, dvk: true, insecure: false });
    let waits = |error: &String| error.contains("not part of cluster dvs yet: 1 of 2 nodes found");
    eventually(|| failure(&dvsctl(&[gone.clone(), alone.clone()], "node list"), 1), waits);

    for line in
        ["", "node", "node show x", "ipc ping --to 1 --count 0", "logs ../x", "-o yaml version"]
    {
        let error = failure(&dvsctl(&[], line), 2);
        assert!(!error.is_empty(), "{line}");
    }
}
