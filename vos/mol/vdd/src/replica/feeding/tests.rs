// SPDX-License-Identifier: MIT OR Apache-2.0
//! What waits for a replica, and the memory that it takes.

use super::*;
use crate::store::Safety;
use proptest::prelude::*;
use std::sync::Arc;

const GIB: u64 = 1 << 30;

fn peer() -> Peer {
    Peer::new(ReplicaId(2), Life(1), Feed(1), Duration::ZERO)
}

fn write(region_bytes: u64, region: u32, bytes: usize) -> Change {
    let position = u64::from(region) * region_bytes;
    Change::Write { position, data: Arc::from(vec![0; bytes]), safety: Safety::AtFlush }
}

/// What a replica that is behind goes through at a primary.
#[derive(Clone, Debug)]
enum Event {
    Write {
        region: u32,
        bytes: usize,
    },
    Zero {
        region: u32,
    },
    Flush,
    Send,
    /// So many of the items that were sent are done.
    Done(u64),
    /// An answer that makes no sense: more than was sent.
    TooMuch(u64),
    Forget,
    Fill,
    Fold,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0..64_u32, 1..9_000_usize).prop_map(|(region, bytes)| Event::Write { region, bytes }),
        (0..64_u32).prop_map(|region| Event::Zero { region }),
        Just(Event::Flush),
        Just(Event::Send),
        (1..8_u64).prop_map(Event::Done),
        (1..8_u64).prop_map(Event::TooMuch),
        Just(Event::Forget),
        Just(Event::Fill),
        Just(Event::Fold),
    ]
}

proptest! {
    #[test]
    fn the_bytes_that_wait_are_known_at_any_time(events in prop::collection::vec(event(), 0..200)) {
        let mut settings = Settings::of(4 << 20);
        (settings.window, settings.window_bytes, settings.backlog_bytes) = (8, 16_000, 30_000);
        let mut peer = peer();
        peer.begin((0..64).collect(), true);
        let region_bytes = settings.regions.region_bytes();
        let (mut number, mut out) = (0, Vec::new());
        for event in events {
            match event {
                Event::Write { region, bytes } => {
                    number += 1;
                    peer.push_change(number, &write(region_bytes, region, bytes));
                }
                Event::Zero { region } => {
                    number += 1;
                    let position = u64::from(region) * region_bytes;
                    peer.push_change(number, &Change::Zero { position, bytes: region_bytes });
                }
                Event::Flush => {
                    number += 1;
                    peer.push_flush(number);
                }
                Event::Send => peer.send_new(Duration::ZERO, 1, &settings, &mut out),
                Event::Done(count) => {
                    let done = (peer.done + count).min(peer.sent);
                    peer.take_fed(Duration::ZERO, done, None);
                }
                Event::TooMuch(count) => {
                    peer.take_fed(Duration::ZERO, peer.sent + count, None);
                }
                Event::Forget => peer.forget(number + 1),
                Event::Fill => drop(peer.fill(0, settings.window, |_| true)),
                Event::Fold => peer.fold(&settings),
            }
            let unsent = peer.items.iter().filter(|item| item.sequence > peer.sent);
            prop_assert_eq!(peer.held_bytes, unsent.map(Queued::held_bytes).sum::<u64>());
            prop_assert!(peer.done <= peer.sent && peer.sent < peer.next);
        }
    }
}

/// Its regions are so large that four of them have more bytes than may wait.
#[test]
fn a_replica_of_a_large_device_gets_all_that_it_lacks() {
    let settings = Settings::of(64 * GIB);
    assert!(4 * settings.regions.region_bytes() > settings.backlog_bytes);
    let mut peer = peer();
    let lacks = 40;
    peer.begin((0..lacks).collect(), true);
    let mut out = Vec::new();
    for time in 1..=u64::from(lacks) * 2 {
        peer.fill(0, settings.window, |_| true);
        peer.fold(&settings);
        peer.send_new(Duration::from_millis(time), 1, &settings, &mut out);
        peer.take_fed(Duration::from_millis(time), peer.sent, None);
        peer.forget(1);
    }
    let copies = out.iter().filter(|action| matches!(action, Action::SendBlocks { .. })).count();
    assert_eq!(copies, lacks as usize);
    assert!(peer.is_complete());
}

#[test]
fn writes_that_are_too_much_to_wait_become_regions_to_copy() {
    let settings = Settings::of(64 * GIB);
    let region_bytes = settings.regions.region_bytes();
    let mut peer = peer();
    peer.begin(RegionSet::default(), true);
    let mut out = Vec::new();
    for number in 1..=10 {
        peer.push_change(number, &write(region_bytes, number as u32, 1 << 20));
        peer.fold(&settings);
    }
    assert!(peer.held_bytes <= settings.backlog_bytes);
    assert_eq!(peer.todo.iter().collect::<Vec<_>>(), (1..=9).collect::<Vec<_>>());
    peer.send_new(Duration::ZERO, 1, &settings, &mut out);
    assert_eq!(out.len(), 1);
}
