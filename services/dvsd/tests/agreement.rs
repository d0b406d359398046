// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole daemons that agree with each other, over real connections on this machine's loopback.

mod fake;

use dvs_api::{
    ClusterStatus, Events, KvChanges, KvDone, KvRange, KvValue, Lease, Lock, LockReleased,
    LockStanding,
};
use fake::{eventually, Boot, Segment};
use serde::de::DeserializeOwned;
use ureq::Agent;

const TOKEN: &str = "the token of this cluster";

fn agent() -> Agent {
    Agent::config_builder().http_status_as_error(false).proxy(None).build().new_agent()
}

fn asked(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> (u16, String) {
    let mut response = answer.unwrap();
    (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
}

fn get(url: &str, path: &str) -> (u16, String) {
    asked(agent().get(format!("{url}{path}")).call())
}

fn post(url: &str, path: &str, body: &str) -> (u16, String) {
    asked(agent().post(format!("{url}{path}")).send(body))
}

fn good<T: DeserializeOwned>((code, body): (u16, String)) -> T {
    assert_eq!(code, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

fn status(url: &str) -> Option<ClusterStatus> {
    let (_, body) = get(url, "/v1/cluster");
    serde_json::from_str(&body).ok()
}

/// Waits until all of these say that `count` nodes take part, `voters` of which vote.
fn whole(urls: &[String], count: usize, voters: usize) -> ClusterStatus {
    let is_whole = |status: &Option<ClusterStatus>| {
        status.as_ref().is_some_and(|status| {
            let voting = status.members.iter().filter(|member| member.voter).count();
            let heard = status.members.iter().filter(|member| member.heard).count();
            let formed = status.leader.is_some() && status.majority && status.name == "dvs";
            formed && (voting, heard, status.members.len()) == (voters, count, count)
        })
    };
    let seen: Vec<_> = urls.iter().map(|url| eventually(|| status(url), is_whole)).collect();
    seen.into_iter().next().flatten().unwrap()
}

fn put(url: &str, key: &str, value: &str) -> KvDone {
    let body = format!(r#"{{"then":[{{"put":{{"key":"{key}","value":"{value}"}}}}]}}"#);
    good(post(url, "/v1/kv", &body))
}

fn value(url: &str, key: &str) -> Option<KvValue> {
    let range: KvRange = good(get(url, &format!("/v1/kv?key={key}")));
    range.pairs.into_iter().next().map(|pair| pair.value)
}

fn text(value: &str) -> Option<KvValue> {
    Some(KvValue::Text(value.into()))
}

#[test]
fn four_nodes_agree_and_the_leader_may_die_and_return() {
    let segment = Segment::new();
    let mut urls = segment.boot_all(4);
    let first = whole(&urls, 4, 3);
    put(&urls[3], "a", "one");
    for url in &urls {
        assert_eq!(value(url, "a"), text("one"));
    }
    let leader = first.leader.unwrap() as usize;
    segment.kill(leader as u8 + 1);
    let others: Vec<_> = (0..4).filter(|node| *node != leader).collect();
    let (one, two) = (&urls[others[0]], &urls[others[1]]);
    // Another leads once its voters have waited long enough.
    let led = |status: &Option<ClusterStatus>| {
        status.as_ref().is_some_and(|it| it.leader.is_some_and(|it| it as usize != leader))
    };
    eventually(|| status(one), led);
    put(one, "b", "two");
    assert_eq!(value(two, "b"), text("two"));

    let number = leader as u8 + 1;
    let again = Boot { number, token: TOKEN, expect: 4, dvk: true, insecure: false };
    urls[leader] = segment.boot(&again);
    let second = whole(&urls, 4, 3);
    let member = |status: &ClusterStatus| status.members[leader].member.clone();
    assert_ne!(member(&first), member(&second), "it has forgotten what it voted");
    assert_eq!(value(&urls[leader], "b"), text("two"));
}

#[test]
fn without_a_majority_nothing_is_changed_and_who_is_missing_is_told() {
    let segment = Segment::new();
    let urls = segment.boot_all(2);
    whole(&urls, 2, 2);
    put(&urls[0], "a", "one");
    assert_eq!(value(&urls[1], "a"), text("one"));
    segment.kill(2);
    let lost = |status: &Option<ClusterStatus>| status.as_ref().is_some_and(|it| !it.majority);
    eventually(|| status(&urls[0]), lost);
    let body = r#"{"then":[{"put":{"key":"a","value":"two"}}]}"#;
    // A leader that has not noticed yet cannot know what becomes of a change.
    let refused = |(code, _): &(u16, String)| *code == 503;
    let (_, why) = eventually(|| post(&urls[0], "/v1/kv", body), refused);
    let missing = "no majority: 2 of the 2 voters are needed, and node 1 cannot be reached";
    assert!(why.contains("node 0: ") && why.contains(missing), "{why}");
    let (code, why) = get(&urls[0], "/v1/kv?key=a");
    assert!(code == 503 && why.contains(missing), "{why}");
    let stale: KvRange = good(get(&urls[0], "/v1/kv?key=a&stale=true"));
    assert_eq!(stale.pairs.len(), 1);
}

#[test]
fn keys_are_compared_written_listed_and_watched() {
    let segment = Segment::new();
    let urls = segment.boot_all(1);
    whole(&urls, 1, 1);
    let url = &urls[0];
    let now: KvChanges = good(get(url, "/v1/kv/changes"));
    let from = now.revision + 1;
    assert_eq!(put(url, "x/1", "a").revision, from);
    put(url, "x/2", "b");
    put(url, "y", "c");
    let create = r#"{"compare":[{"key":"x/1","modified":0}],
        "then":[{"put":{"key":"x/1","value":"z"}}],"otherwise":[{"get":{"key":"x/1"}}]}"#;
    let done: KvDone = good(post(url, "/v1/kv", create));
    assert!(!done.held);
    let bytes = r#"{"compare":[{"key":"x/1","value":"a"}],
        "then":[{"put":{"key":"x/3","value":{"hex":"ff00"}}}]}"#;
    assert!(good::<KvDone>(post(url, "/v1/kv", bytes)).held);
    let range: KvRange = good(get(url, "/v1/kv?prefix=x/&limit=2"));
    assert_eq!((range.count, range.pairs.len()), (3, 2));
    assert_eq!(value(url, "x/3").unwrap().bytes(), Some(vec![0xff, 0]));
    let found: KvChanges = good(get(url, &format!("/v1/kv/changes?prefix=x/&from={from}")));
    let keys: Vec<_> = found.changes.iter().map(|change| change.key.as_str()).collect();
    assert_eq!(keys, ["x/1", "x/2", "x/3"]);
    let next = found.revision + 1;
    let gone = r#"{"then":[{"delete":{"key":"x/","prefix":true}}]}"#;
    assert_eq!(good::<KvDone>(post(url, "/v1/kv", gone)).revision, next);
    let wait = format!("/v1/kv/changes?prefix=x/&from={next}&wait_ms=20000");
    let found: KvChanges = good(get(url, &wait));
    assert!(found.changes.len() == 3 && found.changes.iter().all(|it| it.pair.is_none()));
    let nothing: KvChanges = good(get(url, &format!("/v1/kv/changes?from={}", next + 1)));
    assert_eq!((nothing.revision, nothing.changes.len()), (next, 0));
}

#[test]
fn a_lock_goes_to_the_next_in_line_when_a_lease_ends() {
    let segment = Segment::new();
    let urls = segment.boot_all(1);
    whole(&urls, 1, 1);
    let url = &urls[0];
    let lease = |ttl_ms: u64| {
        let body = format!(r#"{{"ttl_ms":{ttl_ms},"owner":"test"}}"#);
        good::<Lease>(post(url, "/v1/leases", &body)).lease
    };
    let (short, long) = (lease(1_500), lease(60_000));
    let acquire = |lease: u64, wait: bool| {
        let body = format!(r#"{{"name":"l","lease":{lease},"wait":{wait},"label":"me"}}"#);
        post(url, "/v1/locks", &body)
    };
    let first: LockStanding = good(acquire(short, false));
    let (code, why) = acquire(long, false);
    assert!(code == 409 && why.contains("held by somebody else"), "{why}");
    assert_eq!(good::<LockStanding>(acquire(long, true)).ahead, Some(0));
    let path = format!("/v1/locks/standing?name=l&lease={long}&wait_ms=20000");
    let second: LockStanding = good(get(url, &path));
    assert!(second.fence > first.fence, "the first lease has ended");
    let locks: Vec<Lock> = good(get(url, "/v1/locks"));
    assert_eq!((locks.len(), locks[0].holders[0].lease, locks[0].name.as_str()), (1, long, "l"));
    let body = format!(r#"{{"name":"l","lease":{long}}}"#);
    assert!(good::<LockReleased>(post(url, "/v1/locks/release", &body)).released);
    assert!(good::<Vec<Lock>>(get(url, "/v1/locks")).is_empty());
    assert_eq!(post(url, &format!("/v1/leases/{short}"), "").0, 404);
    assert_eq!(good::<Lease>(post(url, &format!("/v1/leases/{long}"), "")).ttl_ms, 60_000);
}

#[test]
fn what_makes_no_sense_is_answered_precisely() {
    let segment = Segment::new();
    let urls = segment.boot_all(1);
    whole(&urls, 1, 1);
    let url = &urls[0];
    let large =
        format!(r#"{{"then":[{{"put":{{"key":"a","value":"{}"}}}}]}}"#, "x".repeat(131_073));
    let posts = [
        ("/v1/kv", "{}", 400, "missing field `then`"),
        ("/v1/kv", r#"{"then":[{"put":{"key":"","value":"1"}}]}"#, 400, "has no name"),
        ("/v1/kv", r#"{"then":[{"put":{"key":"a","value":{"hex":"f"}}}]}"#, 400, "hexadecimal"),
        ("/v1/kv", r#"{"compare":[{"key":"a"}],"then":[]}"#, 400, "compares nothing"),
        ("/v1/kv", r#"{"then":[{"put":{"key":"a","value":"1","lease":99}}]}"#, 404, "no lease 99"),
        ("/v1/kv", &large, 413, "has 131073 bytes and may have 131072"),
        ("/v1/leases", r#"{"ttl_ms":1}"#, 400, "cannot last for 1 ms"),
        ("/v1/leases/x", "", 400, "`x` is no id of a lease"),
        ("/v1/locks", r#"{"name":"l","lease":5,"places":0}"#, 404, "no lease 5"),
        ("/v1/locks", r#"{"name":"l"}"#, 400, "missing field `lease`"),
        ("/v1/elections", r#"{"name":"e","lease":5}"#, 404, "no lease 5"),
        ("/v1/elections", r#"{"name":"","lease":5}"#, 400, "an election has no name"),
        ("/v1/barriers", r#"{"name":"b","lease":5,"parties":2}"#, 404, "no lease 5"),
        ("/v1/groups", r#"{"group":"g","lease":5,"name":"n"}"#, 404, "no lease 5"),
        (
            "/v1/groups/messages",
            r#"{"group":"g","lease":5,"number":1,"payload":{"hex":"0"}}"#,
            400,
            "two hexadecimal digits",
        ),
    ];
    for (path, body, code, why) in posts {
        let (status, answer) = post(url, path, body);
        assert_eq!(status, code, "{path} {body}: {answer}");
        assert!(answer.contains(why), "{path} {body}: {answer}");
    }
    let gets = [
        ("/v1/kv?key=a&prefix=b", 400, "exclude each other"),
        ("/v1/kv?kye=a", 400, "unknown field"),
        ("/v1/kv/changes?from=1&wait_ms=99999", 400, "wait_ms = 99999"),
        ("/v1/locks/standing?name=l&lease=4", 404, "no lease 4"),
        ("/v1/locks/release", 405, "does not take GET"),
        ("/v1/elections/standing?name=e&lease=4", 404, "no lease 4"),
        ("/v1/barriers/passage?name=b&lease=4", 404, "no lease 4"),
        ("/v1/groups/deliveries?group=g&lease=4&from=1", 404, "no group"),
    ];
    for (path, code, why) in gets {
        let (status, answer) = get(url, path);
        assert_eq!(status, code, "{path}: {answer}");
        assert!(answer.contains(why), "{path}: {answer}");
    }
}

#[test]
fn what_happens_is_told_by_every_node_in_the_same_order() {
    let segment = Segment::new();
    let urls = segment.boot_all(3);
    whole(&urls, 3, 3);
    let events = |url: &str| good::<Events>(get(url, "/v1/events"));
    let links = |found: &Events| found.events.iter().filter(|it| it.kind == "link-up").count();
    let begun = eventually(|| events(&urls[2]), |found| links(found) == 3 && found.last >= 11);
    let first: Vec<_> = begun.events.iter().take(2).map(|it| it.kind.as_str()).collect();
    assert_eq!((first, begun.missed), (vec!["log-begun", "node-joined"], 0));
    assert!(begun.events.iter().any(|it| it.kind == "leader-elected" && it.unix_ms.is_some()));

    segment.kill(3);
    let after = begun.last;
    let wait = format!("/v1/events?after={after}&wait_ms=20000");
    let down = |found: &Events| found.events.iter().any(|it| it.kind == "node-down");
    let found = eventually(|| good::<Events>(get(&urls[0], &wait)), down);
    let gone = found.events.iter().find(|it| it.kind == "node-down").unwrap();
    assert_eq!((&gone.nodes[..], gone.text.as_str()), (&[2][..], "node 2 is not heard any more"));
    let same = |found: &Events| found.events.iter().any(|it| it == gone);
    eventually(|| good::<Events>(get(&urls[1], &format!("/v1/events?after={after}"))), same);
    let none: Events = good(get(&urls[0], "/v1/events?after=99999"));
    assert_eq!((none.events.len(), none.last), (0, 99_999));
    let (code, why) = get(&urls[0], "/v1/events?wait_ms=99999");
    assert!(code == 400 && why.contains("wait_ms"), "{why}");
}
