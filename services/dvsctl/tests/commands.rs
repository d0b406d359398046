// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program itself, against whole daemons on a pretended segment.

#[path = "../../dvsd/tests/fake/mod.rs"]
mod fake;
mod program;

use std::process::Output;

use dvs_api::{Node, NodeState, PingResult};
use fake::{eventually, Boot, Segment};
use program::{failure, program, stdout};

fn dvsctl(endpoints: &[String], line: &str) -> Output {
    program(endpoints, &line.split(' ').collect::<Vec<_>>()).output().unwrap()
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
    let link = "link              up over ethernet, sec-eth0 to 52:54:00:00:00:02";
    assert!(show.contains(link), "{show}");

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
fn what_carries_a_link_is_chosen_and_awaited() {
    let segment = Segment::new();
    let urls = segment.boot_all(3);
    ready(&urls, 3);

    let output = dvsctl(&urls, "link set 2 0 --transport tcp");
    let progress = String::from_utf8(output.stderr).unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{progress}");
    assert_eq!(told, "the link between nodes 0 and 2 is carried over tcp\n");
    assert!(
        progress.contains("node 0: tcp is to carry the link to node 2 (choice 1)"),
        "{progress}"
    );
    assert!(progress.contains("node 2: up over tcp"), "{progress}");

    let list = stdout(&dvsctl(&urls, "link list"));
    let rows: Vec<Vec<_>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[1][..3], ["0-1", "up", "ethernet"], "{list}");
    assert_eq!(rows[2][..3], ["0-2", "up", "tcp"], "{list}");
    assert_eq!(rows.len(), 4, "{list}");
    let json = stdout(&dvsctl(&urls, "link list -o json"));
    let pairs: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(pairs[1]["nodes"], serde_json::json!([0, 2]));
    assert_eq!(pairs[1]["ends"][1]["from"], 2);
    assert_eq!(pairs[1]["ends"][1]["link"]["transport"], "tcp");
    assert_eq!(pairs[1]["ends"][1]["link"]["rtt_us"], 200);
    let output = dvsctl(&urls[..1], "link list");
    let note = String::from_utf8(output.stderr).unwrap();
    assert!(note.starts_with("note: some links are not shown, such as that between nodes 1 and 2"));

    // One end is enough to choose, and the other end follows.
    let output = dvsctl(&urls[2..], "link set 0 2 --transport udp -o json");
    let progress = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{progress}");
    assert!(progress.contains("node 0 is not among the endpoints"), "{progress}");
    let pair: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(pair["ends"][0]["link"]["revision"], 2);

    let last = |output: &Output| -> String {
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{output:?}");
        String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned()
    };
    let error = last(&dvsctl(&urls, "link set 0 1 --transport tipc --timeout 2"));
    assert!(error.starts_with("error: the link between nodes 0 and 1 is not carried over tipc"));
    assert!(error.contains("EINVAL: no such transport"), "{error}");
    let error = last(&dvsctl(&urls, "link set 0 1 --transport quic --timeout 2"));
    assert!(
        error.contains("node 1: up, carried by ethernet (nothing here speaks QUIC)"),
        "{error}"
    );
    let choice = dvsctl(&urls, "link set 0 1 --transport ethernet --no-wait -o json");
    let choice: serde_json::Value = serde_json::from_slice(&choice.stdout).unwrap();
    assert_eq!((&choice["transport"], &choice["revision"]), (&"ethernet".into(), &3.into()));

    let error = failure(&dvsctl(&urls, "link set 0 9 --transport tcp"), 1);
    assert!(error.contains("there is no node 9; there are: 0, 1, 2"), "{error}");
    let error = failure(&dvsctl(&urls, "link set 1 1 --transport tcp"), 1);
    assert!(error.contains("node 1 was named twice"), "{error}");
    let error = failure(&dvsctl(&urls[2..], "link set 0 1 --transport tcp"), 1);
    assert!(error.contains("neither node 0 nor node 1 is reached"), "{error}");
    let error = failure(&dvsctl(&urls, "link set 0 1 --transport pigeon"), 2);
    assert!(error.contains("possible values: ethernet, tipc, tcp, udp, quic"), "{error}");
    segment.kill(2);
    let down = |nodes: &Vec<Node>| nodes.len() == 3 && nodes[1].state == NodeState::Down;
    eventually(|| nodes(&urls[..1]), down);
    let error = failure(&dvsctl(&urls, "link set 1 0 --transport tcp"), 1);
    assert!(error.contains("node 1 is down: nothing was heard of it for"), "{error}");
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

    for line in ["", "node show x", "ipc ping --to 1 --count 0", "logs ../x", "-o xml version"] {
        let error = failure(&dvsctl(&[], line), 2);
        assert!(!error.is_empty(), "{line}");
    }
    // What is not complete is answered with what there is.
    let output = dvsctl(&[], "node");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    assert!(String::from_utf8_lossy(&output.stderr).contains("Usage: dvsctl node"), "{output:?}");
}
