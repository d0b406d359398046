// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rules that the faults of the simulation do not reach: one replica, told what it has to be told for each.

use core::time::Duration;
use mol_vdd::replica::{
    Action, Change, Feed, Input, Item, Life, Lineup, Member, Message, Notice, Record, RegionSet,
    Replica, ReplicaId, Request, RequestId, Settings, Standing,
};
use mol_vdd::store::Safety;

const BYTES: u64 = 1 << 22;
const ME: (ReplicaId, Life) = (ReplicaId(1), Life(10));
const OTHER: (ReplicaId, Life) = (ReplicaId(2), Life(20));
const STEP: Duration = Duration::from_millis(10);

fn settings() -> Settings {
    Settings { window: 4, window_bytes: 1024, backlog: 6, ..Settings::of(BYTES) }
}

fn replica() -> Replica {
    Replica::new(ME, settings(), Record::default(), 1, Duration::ZERO)
}

/// Both in step.
fn lineup(epoch: u64, primary: ReplicaId) -> Lineup {
    let member = |(id, life)| (id, Member::new(life, Standing::InStep));
    Lineup { epoch, term: epoch, primary, members: [ME, OTHER].map(member).into() }
}

fn from_other(message: Message) -> Input {
    Input::Message(OTHER.0, OTHER.1, message)
}

fn serves(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Tell(Notice::Serving { .. })))
}

/// The messages of one kind that are sent, in order.
fn sent<T>(actions: &[Action], pick: impl Fn(&Message) -> Option<T>) -> Vec<T> {
    let message = |action: &Action| match action {
        Action::Send(_, _, message) => pick(message),
        _ => None,
    };
    actions.iter().filter_map(message).collect()
}

/// A primary whose other replica lacks nothing and has answered its greeting, at this time.
fn primary(now: Duration) -> (Replica, Feed) {
    let mut replica = replica();
    let actions = replica.handle(now, Input::Lineup(lineup(3, ME.0)));
    let greeted = |message: &Message| match message {
        Message::Greet { feed, .. } => Some(*feed),
        _ => None,
    };
    let feed = sent(&actions, greeted)[0];
    let (unsettled, uncommitted) = (RegionSet::default(), RegionSet::default());
    let greeting = Message::Greeting { feed, in_step: 3, unsettled, uncommitted };
    replica.handle(now, from_other(greeting));
    (replica, feed)
}

/// Lets time pass until the replica serves, at most until `end`.
fn serve(replica: &mut Replica, mut now: Duration, end: Duration) -> Option<Duration> {
    while now < end {
        if serves(&replica.handle(now, Input::Tick)) {
            return Some(now);
        }
        now += STEP;
    }
    None
}

#[test]
fn a_new_primary_waits_until_the_leave_that_it_gave_has_ended() {
    let lease = settings().lease;
    // Long after whatever a life before this one may have given.
    let given = Duration::from_secs(10);
    let mut replica = replica();
    replica.handle(given, Input::Lineup(lineup(2, OTHER.0)));
    let feed = Feed(5);
    replica.handle(given, from_other(Message::Greet { epoch: 2, feed }));
    let beat = Message::Beat { epoch: 2, feed, beat: 1, committed: None, settled: 0, base: 1 };
    let pulse = replica.handle(given, from_other(beat));
    let is_pulse = |message: &Message| matches!(message, Message::Pulse { .. }).then_some(());
    assert_eq!(sent(&pulse, is_pulse).len(), 1, "it has given leave");
    // The other one goes out of step, so that nothing else is waited for.
    let mut alone = lineup(3, ME.0);
    alone.members.get_mut(&OTHER.0).unwrap().standing = Standing::Behind;
    let now = given + STEP;
    assert!(!serves(&replica.handle(now, Input::Lineup(alone))));
    let served = serve(&mut replica, now, given + 4 * lease).expect("it serves in the end");
    assert!(served >= given + lease, "it serves {:?} after it gave leave", served - given);
}

#[test]
fn who_has_not_given_leave_serves_at_once() {
    let now = Duration::from_secs(10);
    let (mut replica, _) = primary(now);
    assert_eq!(serve(&mut replica, now, now + STEP), None, "it did so when it was greeted");
    assert!(replica.is_serving());
}

#[test]
fn nothing_is_said_to_be_committed_before_a_primary_serves() {
    let committed = |message: &Message| match message {
        Message::Beat { committed, .. } => Some(*committed),
        _ => None,
    };
    // It has just begun, and so waits for leave that the life before it may have given.
    let (mut replica, _) = primary(Duration::ZERO);
    let mut now = Duration::ZERO;
    let (mut before, mut after) = (Vec::new(), Vec::new());
    while now < Duration::from_secs(1) {
        let serves = replica.is_serving();
        let said = sent(&replica.handle(now, Input::Tick), committed);
        if serves {
            after.extend(said)
        } else {
            before.extend(said)
        }
        now += STEP;
    }
    assert!(before.len() > 3 && before.iter().all(Option::is_none), "{before:?}");
    assert!(after.len() > 3 && after.iter().all(Option::is_some), "{after:?}");
}

#[test]
fn a_replica_in_step_gets_each_change_however_many_wait_for_it() {
    let now = Duration::from_secs(10);
    let (mut replica, feed) = primary(now);
    let many = settings().window + 3 * settings().backlog;
    let mut got = Vec::new();
    let changes = |message: &Message| match message {
        Message::Feed { sequence, item: Item::Change(change), .. } => {
            Some((*sequence, change.range().0))
        }
        _ => None,
    };
    for number in 0..many {
        let change = Change::Zero { position: number * 512, bytes: 512 };
        let request = Input::Request(RequestId(number), Request::Change(change));
        got.extend(sent(&replica.handle(now, request), changes));
    }
    assert_eq!(got.len() as u64, settings().window, "no more than a window is under way");
    let mut answered = 0;
    for done in 1..=many {
        let fed = Message::Fed { feed, sequence: done, verdict: None };
        let actions = replica.handle(now, from_other(fed));
        assert!(!actions.iter().any(|action| matches!(action, Action::SendBlocks { .. })));
        answered += actions.iter().filter(|it| matches!(it, Action::Answer(_, Ok(())))).count();
        got.extend(sent(&actions, changes));
    }
    let all: Vec<_> = (0..many).map(|number| (number + 1, number * 512)).collect();
    assert_eq!(got, all);
    assert_eq!(answered as u64, many);
}

#[test]
fn no_more_blocks_are_under_way_to_a_replica_than_memory_is_to_take() {
    let now = Duration::from_secs(10);
    let (mut replica, feed) = primary(now);
    let changes = |message: &Message| match message {
        Message::Feed { sequence, item: Item::Change(_), .. } => Some(*sequence),
        _ => None,
    };
    let mut got = Vec::new();
    let blocks = [512, 512, 512, 4096, 512];
    for (number, bytes) in blocks.into_iter().enumerate() {
        let change = Change::Write {
            position: 8192 * number as u64,
            data: vec![1; bytes].into(),
            safety: Safety::AtFlush,
        };
        let request = Input::Request(RequestId(number as u64), Request::Change(change));
        got.push(sent(&replica.handle(now, request), changes));
    }
    assert_eq!(got, [vec![1], vec![2], vec![], vec![], vec![]]);
    let mut fed = |done| {
        let fed = Message::Fed { feed, sequence: done, verdict: None };
        sent(&replica.handle(now, from_other(fed)), changes)
    };
    assert_eq!((fed(1), fed(2)), (vec![3], vec![]));
    // What is more than the window goes alone.
    assert_eq!((fed(3), fed(4)), (vec![4], vec![5]));
}

#[test]
fn a_primary_of_the_past_is_told_so_and_changes_nothing() {
    let now = Duration::from_secs(10);
    let mut replica = replica();
    replica.handle(now, Input::Lineup(lineup(5, OTHER.0)));
    let feed = Feed(9);
    let fenced = |message: &Message| match message {
        Message::Fenced { epoch } => Some(*epoch),
        _ => None,
    };
    let zero = Change::Zero { position: 0, bytes: 512 };
    let of_epoch = |epoch| {
        let item = Item::Change(zero.clone());
        let beat = Message::Beat { epoch, feed, beat: 1, committed: None, settled: 0, base: 1 };
        [Message::Greet { epoch, feed }, Message::Feed { epoch, feed, sequence: 1, item }, beat]
    };
    for message in of_epoch(4) {
        let actions = replica.handle(now, from_other(message.clone()));
        assert_eq!(sent(&actions, fenced), [5], "{message:?}");
        assert_eq!(actions.len(), 1, "{message:?} leads to {actions:?}");
    }
    for message in of_epoch(5) {
        let actions = replica.handle(now, from_other(message.clone()));
        assert_eq!(sent(&actions, fenced), [] as [u64; 0], "{message:?}");
        assert!(!actions.is_empty(), "{message:?}");
    }
}

#[test]
fn regions_that_the_device_has_not_are_not_believed() {
    let now = Duration::from_secs(10);
    let count = settings().regions.count();
    for (region, is_one) in [(count - 1, true), (count, false), (8191, false)] {
        let (mut replica, mut out) = (replica(), Vec::new());
        let actions = replica.handle(now, Input::Lineup(lineup(3, ME.0)));
        let greeted = |message: &Message| match message {
            Message::Greet { feed, .. } => Some(*feed),
            _ => None,
        };
        let feed = sent(&actions, greeted)[0];
        let regions = || [region].into_iter().collect::<RegionSet>();
        for (unsettled, uncommitted) in
            [(regions(), RegionSet::default()), (RegionSet::default(), regions())]
        {
            let greeting = Message::Greeting { feed, in_step: 3, unsettled, uncommitted };
            out.extend(replica.handle(now, from_other(greeting)));
            out.extend(replica.handle(now + STEP, Input::Tick));
        }
        assert_eq!(replica.is_serving(), is_one, "region {region} of {count}");
    }
}
