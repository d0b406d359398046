// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs in containers and their services, with whole daemons on a pretended segment and a pretended DVK.

mod fake;

use std::time::Duration;

use dvk_services::{
    Answer, Change, Client, Delivered, Error, ExchangeError, Lease, Line, Operation, Passage,
    Question, Reason, Response, Transaction,
};
use dvs_api::Container;
use fake::inside::{not_taken, Inside};
use fake::{eventually, Segment};
use ureq::Agent;

fn agent() -> Agent {
    Agent::config_builder().http_status_as_error(false).proxy(None).build().new_agent()
}

fn post(url: &str, path: &str, body: &str) -> (u16, String) {
    let mut response = agent().post(format!("{url}{path}")).send(body).unwrap();
    (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
}

/// Has a container made on all of so many nodes; gives its id.
fn create(url: &str, name: &str, nodes: u8) -> u16 {
    let nodes: Vec<u8> = (0..nodes).collect();
    let body = format!(r#"{{"name":"{name}","nodes":{nodes:?}}}"#);
    let made = || post(url, "/v1/containers", &body);
    let (_, made) = eventually(made, |(status, _)| *status == 201);
    serde_json::from_str::<Container>(&made).unwrap().id as u16
}

/// A program in a container, once its services answer.
fn program(segment: &Segment, number: u8, container: u16) -> Client<Inside> {
    eventually(|| segment.inside(number, container).is_served(), |served| *served);
    Client::by(segment.inside(number, container))
}

fn reason<T: std::fmt::Debug>(answer: Result<T, Error>) -> Option<Reason> {
    answer.unwrap_err().reason()
}

#[test]
fn a_container_has_keys_of_its_own() {
    let segment = Segment::new();
    let urls = segment.boot_all(3);
    let [red, blue] = ["red", "blue"].map(|name| create(&urls[0], name, 3));
    let here = program(&segment, 1, red);
    let there = program(&segment, 3, red);
    let other = program(&segment, 2, blue);
    let first = here.put(b"a/1", b"one", None).unwrap();
    // Whoever is asked has what was agreed on before.
    let pair = there.get(b"a/1").unwrap().unwrap();
    assert_eq!((pair.key.as_slice(), pair.value.as_slice()), (&b"a/1"[..], &b"one"[..]));
    assert_eq!((pair.created, pair.modified, pair.version), (first, first, 1));
    assert!(!there.put_if(b"a/1", 0, b"x").unwrap());
    assert!(there.put_if(b"a/1", first, b"two").unwrap());
    here.put(b"a/\xff", &[0, 255], None).unwrap();
    let range = there.range(b"a/", 1).unwrap();
    assert_eq!((range.count, range.pairs.len()), (2, 1));

    // Nobody else sees it: neither another container, nor administrators, and the other way round.
    assert_eq!(other.get(b"a/1").unwrap(), None);
    assert_eq!(other.range(b"", 10).unwrap().count, 0);
    assert_eq!(other.get(format!("../{red}/a/1").as_bytes()).unwrap(), None);
    let body = r#"{"then":[{"put":{"key":"a/1","value":"admin"}}]}"#;
    assert_eq!(post(&urls[0], "/v1/kv", body).0, 200);
    assert_eq!(here.get(b"a/1").unwrap().unwrap().value, b"two");

    // A watcher sees what follows, as it happened, of its own.
    let from = here.revision().unwrap() + 1;
    let watching = std::thread::spawn(move || here.changes(b"a/", from, 20_000).unwrap());
    other.put(b"a/1", b"theirs", None).unwrap();
    let get = || Operation::Get { key: b"a/1".to_vec() };
    let delete = Operation::Delete { key: b"a/".to_vec(), prefix: true };
    let then = vec![get(), delete, get()];
    let done = there.transact(Transaction { then, ..Transaction::default() }).unwrap();
    assert!(matches!(
        &done.responses[..],
        [Response::Got(Some(_)), Response::Deleted(2), Response::Got(None)]
    ));
    let (revision, changes) = watching.join().unwrap();
    assert_eq!(revision, done.revision);
    let gone = |key: &[u8]| Change { revision, key: key.to_vec(), pair: None };
    assert_eq!(changes, [gone(b"a/1"), gone(b"a/\xff")]);
}

#[test]
fn leases_and_what_is_held_under_them_are_a_containers_own() {
    let segment = Segment::new();
    let urls = segment.boot_all(1);
    let [red, blue] = ["red", "blue"].map(|name| create(&urls[0], name, 1));
    let (one, two) = (program(&segment, 1, red), program(&segment, 1, red));
    let other = program(&segment, 1, blue);
    let lease = one.grant(60_000, "one").unwrap();
    let foreign = other.grant(60_000, "other").unwrap();
    for of in [lease, foreign, Lease(99)] {
        let expected = (of != foreign).then_some(Reason::Missing);
        assert_eq!(other.keep_alive(of).err().and_then(|it| it.reason()), expected);
        let put = other.put(b"k", b"v", Some(of));
        assert_eq!(put.err().and_then(|it| it.reason()), expected);
    }
    assert_eq!(reason(other.revoke(lease)), Some(Reason::Missing));
    assert_eq!(reason(other.acquire("l", lease, false)), Some(Reason::Missing));

    let second = two.grant(3_000, "two").unwrap();
    let held = two.acquire("l", second, true).unwrap();
    let Line::Holding { fence } = held else { panic!("{held:?}") };
    assert_eq!(reason(one.acquire("l", lease, false)), Some(Reason::Busy));
    let told = one.acquire("l", lease, false).unwrap_err().to_string();
    assert!(told.contains("lock l is held by somebody else"), "{told}");
    assert_eq!(one.acquire("l", lease, true).unwrap(), Line::Waiting { ahead: 0 });
    // One of another container by that name is another one.
    assert!(matches!(other.acquire("l", foreign, false).unwrap(), Line::Holding { .. }));
    // The short lease ends.
    let next = one.await_lock("l", lease, 20_000).unwrap();
    assert!(matches!(next, Line::Holding { fence: later } if later > fence), "{next:?}");
    assert!(one.release("l", lease).unwrap());
    assert!(!one.release("l", lease).unwrap());
    assert_eq!(reason(two.await_lock("l", second, 0)), Some(Reason::Missing));

    // A place of a semaphore, by a question that has no method of its own.
    let name = "s".to_owned();
    let acquire = Question::Acquire { name, lease, places: 2, wait: false, label: "me".into() };
    assert!(matches!(one.ask(&acquire).unwrap(), Answer::Line(Line::Holding { .. })));
    let third = two.grant(60_000, "three").unwrap();
    let Question::Acquire { name, places, wait, label, .. } = acquire else { unreachable!() };
    let again = Question::Acquire { name, lease: third, places, wait, label };
    assert!(matches!(two.ask(&again).unwrap(), Answer::Line(Line::Holding { .. })));

    assert!(matches!(one.stand("e", lease, b"here").unwrap(), Line::Holding { .. }));
    let leader = two.observe("e", None, 0).unwrap().unwrap();
    assert_eq!((leader.lease, leader.value.as_slice()), (lease, &b"here"[..]));
    assert_eq!(two.stand("e", third, b"there").unwrap(), Line::Waiting { ahead: 0 });
    one.revoke(lease).unwrap();
    assert!(matches!(two.await_lead("e", third, 20_000).unwrap(), Line::Holding { .. }));
    let now = two.observe("e", Some(leader.term), 20_000).unwrap().unwrap();
    assert_eq!(now.lease, third);
    assert!(two.resign("e", third).unwrap());
    assert_eq!(two.observe("e", Some(now.term), 20_000).unwrap(), None);
}

#[test]
fn programs_meet_at_barriers_and_in_groups() {
    let segment = Segment::new();
    let urls = segment.boot_all(2);
    let red = create(&urls[0], "red", 2);
    let (one, two) = (program(&segment, 1, red), program(&segment, 2, red));
    let (first, second) = (one.grant(60_000, "one").unwrap(), two.grant(60_000, "two").unwrap());
    assert_eq!(one.arrive("b", first, 2, 1).unwrap(), Passage::Waiting { missing: 1 });
    assert_eq!(one.await_passage("b", first, 1, 10).unwrap(), Passage::Waiting { missing: 1 });
    let open = two.arrive("b", second, 2, 1).unwrap();
    assert!(matches!(open, Passage::Open { .. }), "{open:?}");
    assert_eq!(one.await_passage("b", first, 1, 20_000).unwrap(), open);
    one.arrive("b", first, 2, 2).unwrap();
    assert!(one.depart("b", first).unwrap());

    let from = one.join("g", first, "one").unwrap();
    two.join("g", second, "two").unwrap();
    two.send("g", second, 1, b"hello").unwrap().unwrap();
    assert_eq!(two.send("g", second, 1, b"hello").unwrap(), None, "it was sent before");
    let mut stream = Vec::new();
    while stream.len() < 3 {
        let next = from + stream.len() as u64;
        stream.extend(one.deliveries("g", first, next, 20_000).unwrap());
    }
    let positions: Vec<_> = stream.iter().map(|it| it.position).collect();
    assert_eq!(positions, [from, from + 1, from + 2]);
    let (sender, payload) = (second, b"hello".to_vec());
    assert_eq!(stream[2].content, Delivered::Message { sender, number: 1, payload });
    let members = vec![(first, "one".to_owned()), (second, "two".to_owned())];
    assert!(matches!(&stream[1].content, Delivered::View { members: now, .. } if *now == members));
    one.acknowledge("g", first, from + 2).unwrap();
    assert_eq!(reason(one.deliveries("g", first, from, 0)), Some(Reason::Compacted));
    assert!(two.leave("g", second).unwrap());
    let view = one.deliveries("g", first, from + 3, 20_000).unwrap();
    assert!(matches!(&view[0].content, Delivered::View { members, .. } if members.len() == 1));
}

#[test]
fn questions_that_make_no_sense_are_refused_and_change_nothing() {
    let segment = Segment::new();
    let urls = segment.boot_all(1);
    let red = create(&urls[0], "red", 1);
    let client = program(&segment, 1, red);
    let raw = segment.inside(1, red);
    let mut memory = vec![0xff; 300_000];
    assert_eq!(not_taken(raw.ask(&mut memory, 10)), ExchangeError::Garbled);
    assert_eq!(not_taken(raw.ask(&mut memory, 300_001)), ExchangeError::Size);
    // There must be memory for the answer before anything is done: this is `Question::Grant`.
    let mut memory = vec![3, 0xe0, 0xd4, 3, 1, b'x'];
    assert_eq!(not_taken(raw.ask(&mut memory, 6)), ExchangeError::Size);
    let leases = agent().get(format!("{}/v1/leases", urls[0])).call().unwrap();
    let leases = leases.into_body().read_to_string().unwrap();
    assert_eq!(leases, "[]");

    assert_eq!(reason(client.put(b"", b"x", None)), Some(Reason::Invalid));
    assert_eq!(reason(client.put(b"k", &vec![0; 128 * 1024 + 1], None)), Some(Reason::Limit));
    assert_eq!(reason(client.put(&[b'k'; 1_024], b"", None)), Some(Reason::Limit));
    assert_eq!(reason(client.grant(1, "short")), Some(Reason::Invalid));
    assert_eq!(reason(client.changes(b"", 1, 20_001)), Some(Reason::Invalid));
    assert_eq!(reason(client.deliveries("g", Lease(7), 1, 0)), Some(Reason::Missing));
    let gets = vec![Operation::Get { key: b"k".to_vec() }; 9];
    let many = Transaction { then: gets, ..Transaction::default() };
    assert_eq!(reason(client.transact(many)), Some(Reason::Limit));
    let lease = client.grant(60_000, "one").unwrap();
    assert_eq!(reason(client.acquire("", lease, false)), Some(Reason::Invalid));
    // What a container may have of each is bounded, so that there is something left for others.
    for number in 0..16 {
        client.join(&format!("g{number}"), lease, "me").unwrap();
    }
    assert_eq!(reason(client.join("g16", lease, "me")), Some(Reason::Limit));
    client.join("g3", lease, "me").unwrap();
    assert_eq!(client.range(b"", 10).unwrap().count, 0);
}

#[test]
fn services_come_with_a_container_and_go_with_it() {
    let segment = Segment::new();
    let urls = segment.boot_all(3);
    let red = create(&urls[0], "red", 2);
    let client = program(&segment, 2, red);
    assert!(!segment.inside(3, red).is_served(), "node 2 is not one of its nodes");
    client.put(b"k", b"v", None).unwrap();
    let lease = client.grant(60_000, "one").unwrap();
    client.acquire("l", lease, false).unwrap();
    // The leader's node dies, wherever that is: a program on another node goes on.
    let insist = Duration::from_secs(60);
    let victim = (1..=3).find(|number| {
        let status = agent().get(format!("{}/v1/cluster", urls[*number as usize - 1])).call();
        let status = status.unwrap().into_body().read_to_string().unwrap();
        let status: dvs_api::ClusterStatus = serde_json::from_str(&status).unwrap();
        status.leader == Some(u32::from(*number) - 1)
    });
    let victim = victim.unwrap();
    let client = if victim == 2 { program(&segment, 1, red) } else { client };
    segment.kill(victim);
    let keep = Question::KeepAlive { lease };
    assert_eq!(client.insist(&keep, insist).unwrap(), Answer::Lease(lease));
    assert_eq!(client.get(b"k").unwrap().unwrap().value, b"v");
    let url = &urls[if victim == 1 { 1 } else { 0 }];
    let deleted = agent().delete(format!("{url}/v1/containers/red")).call().unwrap();
    assert_eq!(deleted.status(), 200);
    let mine = if victim == 2 { 1 } else { 2 };
    eventually(|| segment.inside(mine, red).is_served(), |served| !*served);
    // Nothing of it stays behind.
    let leases = || {
        let answer = agent().get(format!("{url}/v1/leases")).call().unwrap();
        answer.into_body().read_to_string().unwrap()
    };
    eventually(leases, |leases| leases == "[]");
}
