// SPDX-License-Identifier: MIT OR Apache-2.0
//! The store against a naive model, and its rules one by one.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::leases::{LeaseId, Leases};
use crate::refusal::Refusal;
use crate::tickets::Tickets;
use crate::time::Time;

fn put(key: &str, value: &str) -> Operation {
    Operation::Put { key: key.into(), value: value.into(), lease: None }
}

fn get(key: &str) -> Operation {
    Operation::Get { keys: Selector::Key(key.into()), limit: 10 }
}

fn delete(prefix: &str) -> Operation {
    Operation::Delete { keys: Selector::Prefix(prefix.into()) }
}

fn run(store: &mut Store, operations: Vec<Operation>) -> TransactionAnswer {
    Transaction::of(operations).run(store, &Leases::default()).unwrap()
}

#[test]
fn pairs_know_their_revisions_and_a_deleted_key_begins_anew() {
    let mut store = Store::default();
    run(&mut store, vec![put("a", "1")]);
    run(&mut store, vec![put("b", "1"), put("a", "2")]);
    let pair = store.get(b"a").unwrap();
    assert_eq!((pair.created, pair.modified, pair.version), (1, 2, 2));
    assert_eq!(store.get(b"b").unwrap().modified, 2);
    run(&mut store, vec![delete("a")]);
    run(&mut store, vec![put("a", "3")]);
    let pair = store.get(b"a").unwrap();
    assert_eq!((pair.created, pair.modified, pair.version), (4, 4, 1));
}

#[test]
fn what_changes_nothing_is_no_revision() {
    let mut store = Store::default();
    run(&mut store, vec![put("a", "1")]);
    let answer = run(&mut store, vec![get("a"), delete("nothing")]);
    assert_eq!((answer.revision, store.revision()), (1, 1));
    assert!(matches!(
        &answer.responses[..],
        [Response::Got { count: 1, .. }, Response::Deleted(0)]
    ));
}

#[test]
fn operations_see_what_those_before_them_did() {
    let mut store = Store::default();
    let answer = run(&mut store, vec![get("a"), put("a", "1"), get("a")]);
    let counts: Vec<_> = answer
        .responses
        .iter()
        .filter_map(|r| if let Response::Got { count, .. } = r { Some(*count) } else { None })
        .collect();
    assert_eq!(counts, [0, 1]);
}

#[test]
fn comparisons_choose_the_branch() {
    let mut store = Store::default();
    let lease = Subject::Lease(None);
    run(&mut store, vec![put("a", "m")]);
    for (key, order, subject, expected) in [
        ("a", Order::Equal, Subject::Value(b"m".into()), true),
        ("a", Order::Less, Subject::Value(b"n".into()), true),
        ("a", Order::Greater, Subject::Value(b"n".into()), false),
        ("a", Order::Unequal, Subject::Version(2), true),
        ("a", Order::Equal, Subject::Modified(1), true),
        ("a", Order::Equal, lease.clone(), true),
        ("z", Order::Equal, lease, true),
        ("z", Order::Equal, Subject::Created(0), true),
        ("z", Order::Equal, Subject::Version(0), true),
        ("z", Order::Unequal, Subject::Value(b"m".into()), false),
    ] {
        let compare = Compare { key: key.into(), order, subject };
        let transaction = Transaction {
            compare: vec![compare.clone()],
            then: vec![put("won", "1")],
            otherwise: vec![put("lost", "1")],
        };
        let answer = transaction.run(&mut store, &Leases::default()).unwrap();
        assert_eq!(answer.held, expected, "{compare:?}");
        let won = store.get(b"won").map(|pair| pair.modified) == Some(answer.revision);
        assert_eq!(won, expected, "{compare:?}");
    }
}

#[test]
fn what_cannot_be_done_is_refused_whole() {
    let mut store = Store::default();
    run(&mut store, vec![put("a", "1")]);
    let before = store.clone();
    let long = "x".repeat(KEY_BYTES_MAX + 1);
    let leased = Operation::Put { key: b"k".to_vec(), value: Vec::new(), lease: Some(LeaseId(77)) };
    for operations in [
        vec![put("b", "1"), put("b", "2")],
        vec![put("b", "1"), delete("")],
        vec![put("b", "1"), put("", "1")],
        vec![put("b", "1"), put(&long, "1")],
        vec![put("b", "1"), put("c", &"x".repeat(VALUE_BYTES_MAX + 1))],
        vec![put("b", "1"), leased],
        vec![get("a"); OPERATIONS_MAX + 1],
    ] {
        let refused = Transaction::of(operations).run(&mut store, &Leases::default());
        assert!(refused.is_err(), "{refused:?}");
        assert_eq!(store, before);
    }
}

#[test]
fn the_store_has_a_limit_that_replacing_does_not_pass() {
    let mut store = Store::default();
    let big = "x".repeat(VALUE_BYTES_MAX - 8);
    for at in 0..STORE_BYTES_MAX / VALUE_BYTES_MAX {
        run(&mut store, vec![put(&format!("k{at:02}"), &big)]);
    }
    let more = Transaction::of(vec![put("more", &big)]).run(&mut store, &Leases::default());
    assert!(matches!(more, Err(Refusal::Limit { .. })), "{more:?}");
    run(&mut store, vec![put("k00", &big)]);
    let kept = store.events(store.compacted() + 1).unwrap().count();
    assert!(kept <= HISTORY_BYTES_MAX / big.len(), "changes are kept within their own limit");
}

#[test]
fn a_lease_takes_its_keys_with_it_in_one_revision() {
    let (mut store, mut leases, mut tickets) =
        (Store::default(), Leases::default(), Tickets::default());
    let lease = leases.grant(&mut tickets, Time(0), 1_000, "test").unwrap();
    let leased = |key: &str| Operation::Put { key: key.into(), value: vec![], lease: Some(lease) };
    let all = Transaction::of(vec![leased("a"), leased("b"), leased("c"), put("d", "")]);
    all.run(&mut store, &leases).unwrap();
    // A key that is written without it no longer ends with it.
    run(&mut store, vec![put("c", "free")]);
    store.end_lease(lease);
    let left: Vec<_> = store.range(&Selector::Prefix(vec![])).map(|(key, _)| key.clone()).collect();
    assert_eq!(left, [b"c", b"d"]);
    let events: Vec<_> = store.events(3).unwrap().map(|e| (e.revision, e.key.clone())).collect();
    assert_eq!(events, [(3, b"a".to_vec()), (3, b"b".to_vec())]);
    store.end_lease(lease);
    assert_eq!(store.revision(), 3);
}

#[test]
fn forgotten_changes_are_told_as_such() {
    let mut store = Store::default();
    assert_eq!(store.events(0).unwrap().count(), 0);
    for n in 0..4 {
        run(&mut store, vec![put("a", &n.to_string())]);
    }
    store.compact(2).unwrap();
    assert_eq!(store.events(2).err(), Some(Refusal::Compacted { given: 2, oldest: 2 }));
    assert_eq!(store.events(3).unwrap().count(), 2);
    assert_eq!(store.events(5).unwrap().count(), 0);
    assert!(store.compact(2).is_err() && store.compact(5).is_err());
}

#[test]
fn whole_revisions_are_forgotten_when_there_are_too_many_changes() {
    let mut store = Store::default();
    for round in 0..HISTORY_EVENTS_MAX / 100 + 1 {
        run(&mut store, (0..100).map(|key| put(&key.to_string(), &round.to_string())).collect());
    }
    assert_eq!(store.compacted(), 1);
    assert_eq!(store.events(2).unwrap().count(), HISTORY_EVENTS_MAX);
    assert_eq!(store.events(2).unwrap().next().unwrap().revision, 2);
}

type Model = BTreeMap<Key, (Vec<u8>, u64, u64, u64)>;

proptest! {
    /// Whoever applies the events to what it knew has the store.
    #[test]
    fn the_store_is_the_model_and_the_sum_of_its_events(
        steps in prop::collection::vec(
            prop::collection::vec((0u8..3, "[ab]{1,2}", "[xy]{0,2}"), 1..4),
            0..40,
        ),
    ) {
        let (mut store, mut model, mut mirror) = (Store::default(), Model::new(), BTreeMap::new());
        let mut revision = 0;
        for step in steps {
            let operations: Vec<_> = step
                .iter()
                .map(|(kind, key, value)| match kind {
                    0 | 1 => put(key, value),
                    _ => delete(key),
                })
                .collect();
            let before = store.clone();
            let outcome = Transaction::of(operations).run(&mut store, &Leases::default());
            let Ok(answer) = outcome else {
                prop_assert_eq!(&store, &before);
                continue;
            };
            let changes = step.iter().any(|(kind, prefix, _)| {
                *kind < 2 || model.keys().any(|key| key.starts_with(prefix.as_bytes()))
            });
            revision += u64::from(changes);
            prop_assert_eq!(answer.revision, revision);
            for (kind, key, value) in step {
                let key = key.into_bytes();
                if kind < 2 {
                    let (created, version) = model
                        .get(&key)
                        .map_or((revision, 1), |(_, created, _, version)| (*created, version + 1));
                    model.insert(key, (value.into_bytes(), created, revision, version));
                } else {
                    model.retain(|other, _| !other.starts_with(&key));
                }
            }
            for event in store.events(before.revision() + 1).unwrap() {
                prop_assert_eq!(event.revision, revision);
                match &event.change {
                    Change::Put(pair) => drop(mirror.insert(event.key.clone(), pair.clone())),
                    Change::Deleted => prop_assert!(mirror.remove(&event.key).is_some()),
                }
            }
            let all = Selector::Prefix(Vec::new());
            let pairs: BTreeMap<_, _> =
                store.range(&all).map(|(key, pair)| (key.clone(), pair.clone())).collect();
            prop_assert_eq!(&mirror, &pairs);
            let seen: Model = pairs
                .iter()
                .map(|(key, p)| (key.clone(), (p.value.clone(), p.created, p.modified, p.version)))
                .collect();
            prop_assert_eq!(&seen, &model);
            let bytes: usize = seen.iter().map(|(key, value)| key.len() + value.0.len()).sum();
            prop_assert_eq!(bytes, store.bytes());
        }
    }
}
