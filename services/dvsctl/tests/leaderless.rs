// SPDX-License-Identifier: MIT OR Apache-2.0
//! What becomes of locks, candidates, arrivals and memberships that meet a cluster at a bad moment: by the program itself, against
//! whole daemons, with something between the two that lets the moment come.

#[path = "program/between.rs"]
mod between;
#[path = "../../dvsd/tests/fake/mod.rs"]
mod fake;
mod program;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use between::{between, Verdict};
use dvs_api::{BarrierPassage, Lease};
use fake::{eventually, Segment};
use program::{failure, program, stdout};

/// Boots one node that agrees with itself; gives back where its API is.
fn alone(segment: &Segment) -> String {
    let urls = segment.boot_all(1);
    let put = || program(&urls, &["kv", "put", "ready", "1"]).output().unwrap();
    eventually(put, |output| output.status.success());
    urls.into_iter().next().unwrap()
}

/// Refuses the first two of each kind of request: nobody leads at the moment, and then nobody knows what became of it.
fn at_first_nobody_leads(url: &str) -> (String, Arc<Mutex<BTreeMap<String, u32>>>) {
    let counts: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
    let seen = Arc::clone(&counts);
    let address = between(url, move |request| {
        let kind = request.split('?').next().unwrap_or_default().to_owned();
        let mut seen = seen.lock().unwrap();
        let count = seen.entry(kind).or_default();
        *count += 1;
        match *count {
            1 => Verdict::Refuse(503),
            2 => Verdict::Refuse(504),
            _ => Verdict::Pass,
        }
    });
    (address, counts)
}

#[test]
fn whoever_comes_while_nobody_leads_waits_until_somebody_does() {
    let segment = Segment::new();
    let url = alone(&segment);
    let commands: [(&str, &[&str]); 4] = [
        ("POST /v1/locks", &["lock", "acquire", "l", "--", "true"]),
        ("POST /v1/elections", &["election", "campaign", "e", "--", "true"]),
        ("POST /v1/barriers", &["barrier", "wait", "b", "--parties", "1"]),
        ("POST /v1/groups", &["group", "join", "g", "--send"]),
    ];
    for (request, words) in commands {
        let (address, counts) = at_first_nobody_leads(&url);
        let output = program(&[address], words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
        let counts = counts.lock().unwrap();
        assert_eq!((counts["POST /v1/leases"], counts[request]), (3, 3), "{words:?}");
    }
}

#[test]
fn a_barrier_that_opens_at_the_last_moment_is_open() {
    let segment = Segment::new();
    let url = alone(&segment);
    let direct = url.clone();
    // Somebody else arrives just before this one goes away.
    let address = between(&url, move |request| {
        if request == "POST /v1/barriers/leave" {
            let agent = ureq::Agent::config_builder().proxy(None).build().new_agent();
            let ask = |path: &str, body: &str| {
                let mut answer = agent.post(format!("{direct}{path}")).send(body).unwrap();
                answer.body_mut().read_to_string().unwrap()
            };
            let lease = ask("/v1/leases", r#"{"ttl_ms":60000}"#);
            let Lease { lease, .. } = serde_json::from_str(&lease).unwrap();
            let body = format!(r#"{{"name":"b","lease":{lease},"parties":2}}"#);
            let passage: BarrierPassage =
                serde_json::from_str(&ask("/v1/barriers", &body)).unwrap();
            assert!(passage.round.is_some(), "{passage:?}");
        }
        Verdict::Pass
    });
    let wait = ["barrier", "wait", "b", "--parties", "2", "--timeout", "1"];
    let open = stdout(&program(&[address], &wait).output().unwrap());
    assert!(open.starts_with("barrier b is open: round "), "{open}");
    // And if nobody else does, it has not arrived.
    let few = ["barrier", "wait", "b", "--parties", "3", "--timeout", "1"];
    let error = failure(&program(&[url.clone()], &few).output().unwrap(), 1);
    assert!(error.contains("b did not open within 1 s: 2 of 3 have not arrived"), "{error}");
    let list = program(&[url], &["barrier", "list", "-o", "json"]).output().unwrap();
    assert_eq!(stdout(&list), "[]\n");
}

#[test]
fn a_member_of_a_group_with_nothing_to_send_hardly_asks_and_sends_at_once() {
    let segment = Segment::new();
    let url = alone(&segment);
    let count: Arc<Mutex<u32>> = Arc::default();
    let counted = Arc::clone(&count);
    let address = between(&url, move |_| {
        *counted.lock().unwrap() += 1;
        Verdict::Pass
    });
    let words = ["group", "join", "g", "--as", "me", "--ttl", "3", "--send"];
    let mut member = program(&[address], &words);
    let mut member = member.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(member.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "-- members: me");
    let before = *count.lock().unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let asked = *count.lock().unwrap() - before;
    // Each second the lease is renewed, and the stream is asked for once.
    assert!((2..=10).contains(&asked), "it asked {asked} times in three seconds");
    let mut input = member.stdin.take().unwrap();
    writeln!(input, "hello").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "me: hello");
    drop(input);
    assert!(member.wait().unwrap().success());
}
