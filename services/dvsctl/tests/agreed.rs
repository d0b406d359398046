// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keys, values, locks, elections, barriers and groups by the program itself, against whole daemons on a pretended segment.

#[path = "../../dvsd/tests/fake/mod.rs"]
mod fake;
mod program;

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::process::{Output, Stdio};

use dvs_api::{
    Barrier, ClusterStatus, Election, Event, Group, GroupContent, GroupDelivery, KvPair, KvValue,
    Lock,
};
use fake::{eventually, Segment};
use program::{program, stdout};

fn dvsctl(endpoints: &[String], words: &[&str]) -> Output {
    program(endpoints, words).output().unwrap()
}

/// The one line of an error.
fn failure(output: &Output, code: i32) -> String {
    let text = program::failure(output, code);
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

/// Boots so many nodes and waits until they agree.
fn agreeing(segment: &Segment, count: u8) -> Vec<String> {
    let urls = segment.boot_all(count);
    for url in &urls {
        let ask = || {
            let output = dvsctl(std::slice::from_ref(url), &["cluster", "status", "-o", "json"]);
            serde_json::from_slice::<ClusterStatus>(&output.stdout).ok()
        };
        eventually(ask, |status| {
            status.as_ref().is_some_and(|it| {
                it.majority && it.name == "dvs" && it.members.len() == usize::from(count)
            })
        });
    }
    urls
}

#[test]
fn keys_are_written_read_listed_and_watched() {
    let segment = Segment::new();
    let urls = agreeing(&segment, 3);
    let status = stdout(&dvsctl(&urls, &["cluster", "status"]));
    assert!(status.contains("cluster      dvs\n") && status.contains("majority     yes\n"));
    assert_eq!(
        status.matches(" voter ").count() + status.matches(" leader ").count(),
        3,
        "{status}"
    );

    let revision = stdout(&dvsctl(&urls, &["kv", "put", "a/1", "ä b"]));
    assert_eq!(revision, "revision 1\n");
    assert_eq!(stdout(&dvsctl(&urls[2..], &["kv", "get", "a/1"])), "ä b");
    let pair = stdout(&dvsctl(&urls[1..], &["kv", "get", "a/1", "-o", "json"]));
    assert_eq!(serde_json::from_str::<KvPair>(&pair).unwrap().modified, 1);
    let error = failure(&dvsctl(&urls, &["kv", "put", "a/1", "x", "--if-absent"]), 1);
    assert!(error.contains("key a/1 was not written: revision 1 wrote it last"), "{error}");
    stdout(&dvsctl(&urls, &["kv", "put", "a/1", "c", "--if-modified", "1"]));
    stdout(&dvsctl(&urls, &["kv", "put", "a/2", "d"]));
    let list = stdout(&dvsctl(&urls, &["kv", "list", "a/"]));
    assert_eq!(list.lines().count(), 3, "{list}");
    assert!(list.lines().nth(1).unwrap().starts_with("a/1  c      2"), "{list}");

    let watch = ["kv", "watch", "a/", "--from", "2", "--count", "3"];
    let watching = program(&urls, &watch).stdout(Stdio::piped()).spawn().unwrap();
    let gone = stdout(&dvsctl(&urls, &["kv", "delete", "a/", "--prefix"]));
    assert_eq!(gone, "2 keys were deleted\n");
    let seen = watching.wait_with_output().unwrap();
    let seen = String::from_utf8(seen.stdout).unwrap();
    assert_eq!(seen, "2 put a/1 c\n3 put a/2 d\n4 delete a/1\n");

    let file = segment.run_directory(1).join("change.json");
    let text = r#"{"compare":[{"key":"a/1","modified":0}],"then":[{"put":{"key":"a/1","value":"e"}}],
        "otherwise":[{"get":{"key":"a/1"}}]}"#;
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let first = stdout(&dvsctl(&urls, &["kv", "txn", file]));
    assert_eq!(first, "all comparisons held; revision 5\nwritten\n");
    let second = dvsctl(&urls, &["kv", "txn", file]);
    assert_eq!(second.status.code(), Some(1));
    let told = String::from_utf8(second.stdout).unwrap();
    assert_eq!(told, "a comparison did not hold; revision 5\na/1 = e\n");

    let error = failure(&dvsctl(&urls, &["kv", "get", "b"]), 1);
    assert_eq!(error, "error: there is no key b\n");
    // The first endpoint is gone, so another one is asked, and once.
    segment.kill(1);
    let put = || dvsctl(&urls, &["kv", "put", "after", "x"]);
    eventually(put, |output| output.status.success());
    assert_eq!(stdout(&dvsctl(&urls, &["kv", "get", "after"])), "x");
}

#[test]
fn a_command_runs_under_a_lock_and_its_status_is_told() {
    let segment = Segment::new();
    let urls = agreeing(&segment, 1);
    let run = |script: &str| {
        dvsctl(&urls, &["lock", "acquire", "l", "--ttl", "2", "--", "sh", "-c", script])
    };
    let first = stdout(&run("echo $DVS_LOCK $DVS_LOCK_FENCE"));
    let second = stdout(&run("echo $DVS_LOCK $DVS_LOCK_FENCE"));
    let fence = |text: &str| -> u64 { text.trim().strip_prefix("l ").unwrap().parse().unwrap() };
    assert!(fence(&second) > fence(&first), "{first}{second}");
    assert_eq!(run("exit 7").status.code(), Some(7));
    assert_eq!(run("kill -9 $$").status.code(), Some(137));
    let error = failure(&dvsctl(&urls, &["lock", "acquire", "l", "--", "/no/such/program"]), 1);
    assert!(error.contains("run /no/such/program under lock l: "), "{error}");
    assert_eq!(stdout(&dvsctl(&urls, &["lock", "list", "-o", "json"])), "[]\n");

    // It is held for longer than its lease lasts, since that is kept alive.
    let mut holder = program(&urls, &["lock", "acquire", "l", "--ttl", "1", "--", "sleep", "3"]);
    let mut holder = holder.spawn().unwrap();
    let locks = || -> Vec<Lock> {
        serde_json::from_slice(&dvsctl(&urls, &["lock", "list", "-o", "json"]).stdout).unwrap()
    };
    eventually(locks, |locks| locks.len() == 1);
    let error = failure(&dvsctl(&urls, &["lock", "acquire", "l", "--no-wait"]), 1);
    assert!(error.contains("held by somebody else"), "{error}");
    let json = stdout(&dvsctl(&urls, &["lock", "acquire", "l", "--ttl", "60", "-o", "json"]));
    assert!(holder.wait().unwrap().success(), "it was not disturbed");
    let held: serde_json::Value = serde_json::from_str(&json).unwrap();
    let lease = held["lease"].to_string();
    let release = ["lock", "release", "l", "--lease", &lease];
    assert_eq!(stdout(&dvsctl(&urls, &release)), "lock l was given back\n");
    let error = failure(&dvsctl(&urls, &release), 1);
    assert!(error.contains(&format!("lock l is not held under lease {lease}")), "{error}");
}

#[test]
fn a_command_whose_lock_is_lost_is_killed() {
    let segment = Segment::new();
    let urls = agreeing(&segment, 1);
    let mut holder = program(&urls, &["lock", "acquire", "l", "--ttl", "2", "--", "sleep", "1000"]);
    let holder = holder.stderr(Stdio::piped()).spawn().unwrap();
    let held = || stdout(&dvsctl(&urls, &["lock", "list"])).contains("held");
    eventually(held, |held| *held);
    segment.kill(1);
    let ended = holder.wait_with_output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{told}");
    assert!(told.contains("error: lock l was lost, so the command was killed: "), "{told}");
}

#[test]
fn events_are_listed_chosen_and_followed() {
    let segment = Segment::new();
    let urls = agreeing(&segment, 3);
    let list = |words: &[&str]| -> Vec<Event> {
        let words = [&["events", "-o", "json"], words].concat();
        serde_json::from_str(&stdout(&dvsctl(&urls, &words))).unwrap()
    };
    let joined = eventually(|| list(&["--kind", "node-joined"]), |found| found.len() == 3);
    assert_eq!((&joined[0].nodes[..], &joined[1].nodes[..]), (&[0][..], &[1][..]));
    let number = joined[1].number.to_string();
    let of_one = list(&["--node", "1", "--after", &number]);
    assert!(of_one.iter().all(|it| it.nodes.contains(&1) && it.number > joined[1].number));
    let table = stdout(&dvsctl(&urls, &["events", "--since", "1h", "--kind", "log-begun"]));
    assert!(table.starts_with("NUMBER  TIME"), "{table}");
    assert!(table.contains("log-begun  events of cluster dvs are recorded"), "{table}");

    let watch = ["events", "--follow", "--kind", "node-down", "--count", "1"];
    let watching = program(&urls[..1], &watch).stdout(Stdio::piped()).spawn().unwrap();
    segment.kill(3);
    let seen = watching.wait_with_output().unwrap();
    let seen = String::from_utf8(seen.stdout).unwrap();
    assert!(seen.ends_with(" node-down node 2 is not heard any more\n"), "{seen}");
    assert_eq!(seen.lines().count(), 1);
    let error = program::failure(&dvsctl(&urls, &["events", "--since", "long"]), 2);
    assert!(error.contains("--since"), "{error}");
}

#[test]
fn of_two_candidates_one_leads_and_the_other_one_after_it() {
    let segment = Segment::new();
    let urls = agreeing(&segment, 2);
    let script = "echo $DVS_ELECTION $DVS_ELECTION_TERM $DVS_ELECTION_LEASE; read line; exit 7";
    let stand = |value: &str| {
        let words = ["election", "campaign", "e", "--value", value, "--", "sh", "-c", script];
        let mut command = program(&urls, &words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    };
    let elections = || -> Vec<Election> {
        serde_json::from_slice(&dvsctl(&urls, &["election", "list", "-o", "json"]).stdout).unwrap()
    };
    let mut first = stand("one");
    eventually(elections, |all| all.iter().any(|one| one.leader.is_some()));
    let mut second = stand("two");
    let _input = second.stdin.take();
    let both = eventually(elections, |all| all.iter().any(|one| one.candidates.len() == 1));
    let leader = both[0].leader.clone().unwrap();
    assert_eq!((leader.value.as_str(), both[0].candidates[0].value.as_str()), ("one", "two"));
    let seen = stdout(&dvsctl(&urls, &["election", "observe", "e"]));
    assert!(seen.starts_with("one (lease ") && seen.ends_with(&format!("term {}\n", leader.term)));
    let mut watch = program(&urls, &["election", "observe", "e", "--follow"]);
    let mut watch = watch.stdout(Stdio::piped()).spawn().unwrap();
    // It has seen the first leader before there is another one, however long it took to start.
    let (mut lines, mut out) =
        (String::new(), std::io::BufReader::new(watch.stdout.take().unwrap()));
    assert_ne!(out.read_line(&mut lines).unwrap(), 0);

    drop(first.stdin.take());
    let ended = first.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(7));
    let told = String::from_utf8(ended.stdout).unwrap();
    assert_eq!(told, format!("e {} {}\n", leader.term, leader.lease));
    let now = eventually(elections, |all| {
        all.iter().any(|one| one.leader.as_ref().is_some_and(|leader| leader.value == "two"))
    });
    let next = now[0].leader.clone().unwrap();
    assert!(next.term > leader.term, "{leader:?}, then {next:?}");
    // Ending its lease ends the candidate.
    let lease = next.lease.to_string();
    let listed = stdout(&dvsctl(&urls, &["lease", "list"]));
    assert!(
        listed.lines().any(|line| line.starts_with(&lease) && line.ends_with(" sh")),
        "{listed}"
    );
    let revoked = stdout(&dvsctl(&urls, &["lease", "revoke", &lease]));
    assert_eq!(revoked, format!("lease {lease} has ended\n"));
    let ended = second.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let nobody = dvsctl(&urls, &["election", "observe", "e"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert_eq!(String::from_utf8(nobody.stdout).unwrap(), "nobody leads e\n");
    // In the order in which they led; the one in between, when nobody did, may have been too short to be seen.
    while !lines.ends_with("nobody leads e\n") {
        assert_ne!(out.read_line(&mut lines).unwrap(), 0, "{lines}");
    }
    watch.kill().unwrap();
    watch.wait().unwrap();
    let one = lines.find("one (lease").unwrap();
    assert!(lines.find("two (lease").is_some_and(|two| two > one), "{lines}");
}

#[test]
fn a_barrier_opens_when_all_have_arrived() {
    let segment = Segment::new();
    let urls = agreeing(&segment, 2);
    let few = ["barrier", "wait", "b", "--parties", "2", "--timeout", "1"];
    let error = failure(&dvsctl(&urls, &few), 1);
    assert!(
        error.contains("barrier b did not open within 1 s: 1 of 2 have not arrived"),
        "{error}"
    );
    let arrive = || {
        let mut command = program(&urls, &["barrier", "wait", "b", "--parties", "3"]);
        command.stdout(Stdio::piped()).spawn().unwrap()
    };
    let early = [arrive(), arrive()];
    let barriers = || -> Vec<Barrier> {
        serde_json::from_slice(&dvsctl(&urls, &["barrier", "list", "-o", "json"]).stdout).unwrap()
    };
    eventually(barriers, |all| all.iter().any(|one| one.waiting.len() == 2 && one.parties == 3));
    let error = failure(&dvsctl(&urls, &["barrier", "wait", "b", "--parties", "4"]), 1);
    assert!(error.contains("b"), "{error}");
    let last = stdout(&dvsctl(&urls, &["barrier", "wait", "b", "--parties", "3"]));
    assert!(last.starts_with("barrier b is open: round "), "{last}");
    for one in early {
        let ended = one.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(ended.stdout).unwrap(), last, "they go through together");
    }
    eventually(barriers, Vec::is_empty);
}

#[test]
fn all_members_of_a_group_see_the_same_in_the_same_order() {
    const LINES: usize = 20;
    let segment = Segment::new();
    let urls = agreeing(&segment, 3);
    let join = |node: usize| {
        let words = ["group", "join", "g", "--as", ["a", "b", "c"][node], "--send", "-o", "json"];
        let mut command = program(&urls[node..=node], &words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    };
    let mut members: Vec<_> = (0..3).map(join).collect();
    let groups = || -> Vec<Group> {
        serde_json::from_slice(&dvsctl(&urls, &["group", "list", "-o", "json"]).stdout).unwrap()
    };
    eventually(groups, |all| all.iter().any(|group| group.members.len() == 3));
    for (node, member) in members.iter_mut().enumerate() {
        let mut input = member.stdin.take().unwrap();
        (0..LINES).for_each(|line| writeln!(input, "{node} {line}").unwrap());
    }
    let mut seen: BTreeMap<u64, GroupContent> = BTreeMap::new();
    for member in members {
        let ended = member.wait_with_output().unwrap();
        assert!(ended.status.success(), "{ended:?}");
        let mut last = None;
        for line in String::from_utf8(ended.stdout).unwrap().lines() {
            let GroupDelivery { position, content } = serde_json::from_str(line).unwrap();
            assert!(last.is_none_or(|last| position == last + 1), "{position} after {last:?}");
            last = Some(position);
            let known = seen.entry(position).or_insert_with(|| content.clone());
            assert_eq!(*known, content, "at {position}");
        }
    }
    // Everything, once, and what each has sent in its order.
    for node in 0..3 {
        let prefix = format!("{node} ");
        let of_node = seen.values().filter_map(|content| match content {
            GroupContent::Message { payload: KvValue::Text(text), .. } => {
                text.strip_prefix(&prefix).map(|line| line.parse::<usize>().unwrap())
            }
            _ => None,
        });
        assert_eq!(of_node.collect::<Vec<_>>(), (0..LINES).collect::<Vec<_>>());
    }
    eventually(groups, Vec::is_empty);
}
