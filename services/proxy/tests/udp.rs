// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two proxies on the loopback interface carry frames over UDP between two links that are channels.

mod party;
mod relay;

use core::time::Duration;
use dvs_proxy::udp::{carry, OVERHEAD_BYTES};
use party::{frame, frames, free_udp_port, pair, End, Party};
use relay::{Faults, Relay};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::Ordering;
use std::thread;

/// Runs two proxies, with a relay between them.
fn with_relay(seed: u64, one: &Party, two: &Party, act: impl FnOnce(&Relay, [SocketAddr; 2])) {
    let ends = [free_udp_port(), free_udp_port()];
    let relay = Relay::new(seed, ends.map(Some));
    thread::scope(|scope| {
        let end = End(vec![one, two]);
        let first = scope.spawn(|| carry(one.passage(), ends[0], relay.fronts[0]));
        let second = scope.spawn(|| carry(two.passage(), ends[1], relay.fronts[1]));
        act(&relay, ends);
        drop(end);
        // One that never had the link does not see that it was taken.
        if !one.never_attached() && !two.never_attached() {
            first.join().unwrap().unwrap();
            second.join().unwrap().unwrap();
        }
    });
}

/// Few at a time, so that no queue overflows.
fn exchange(one: &Party, two: &Party) {
    for _ in 0..20 {
        assert_eq!(one.exchange(two, 10), frames(10));
        assert_eq!(two.exchange(one, 10), frames(10));
    }
}

#[test]
fn frames_go_both_ways_and_strangers_are_not_heard() {
    for (one, two) in [pair(), (Party::clear(1, 2), Party::clear(2, 1))] {
        let ends = [free_udp_port(), free_udp_port()];
        thread::scope(|scope| {
            let end = End(vec![&one, &two]);
            let first = scope.spawn(|| carry(one.passage(), ends[0], ends[1]));
            let second = scope.spawn(|| carry(two.passage(), ends[1], ends[0]));
            one.attaches();
            two.attaches();
            let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
            stranger.send_to(&frame(9), ends[0]).unwrap();
            exchange(&one, &two);
            assert!(one.comes(Duration::ZERO).is_none());
            drop(end);
            first.join().unwrap().unwrap();
            second.join().unwrap().unwrap();
        });
        assert_eq!(one.counters.snapshot().frames_received, 200);
        assert_eq!(one.counters.snapshot().forged, 0);
    }
}

#[test]
fn the_longest_frames_pass() {
    let (one, two) = pair();
    with_relay(1, &one, &two, |relay, _| {
        let long = vec![7; 16_448];
        two.attaches();
        one.send.send(long.clone()).unwrap();
        assert_eq!(two.comes(party::PATIENCE), Some(long.clone()));
        let longest = relay.seen(0).iter().map(Vec::len).max().unwrap();
        assert_eq!(longest, long.len() + OVERHEAD_BYTES);
    });
}

#[test]
fn a_bad_path_and_restarts_are_survived() {
    let (one, two) = pair();
    let ends = [free_udp_port(), free_udp_port()];
    let relay = Relay::new(7, ends.map(Some));
    relay.set(Faults { lost: 100, twice: 50, late: 50 });
    thread::scope(|scope| {
        let _end = End(vec![&one, &two]);
        scope.spawn(|| carry(one.passage(), ends[0], relay.fronts[0]));
        for _ in 0..3 {
            two.link.taken_over.store(false, Ordering::Relaxed);
            let second = scope.spawn(|| carry(two.passage(), ends[1], relay.fronts[1]));
            one.repeat(&two, 300);
            two.repeat(&one, 300);
            two.link.taken_over.store(true, Ordering::Relaxed);
            second.join().unwrap().unwrap();
        }
    });
    assert!(one.counters.snapshot().replayed > 0, "nothing came twice");
    assert_eq!(one.counters.snapshot().forged, 0);
    assert!(one.counters.snapshot().handshakes >= 3);
}

#[test]
fn forged_and_repeated_datagrams_change_a_counter_only() {
    let (one, two) = pair();
    with_relay(3, &one, &two, |relay, ends| {
        one.attaches();
        two.attaches();
        exchange(&one, &two);
        let before = two.counters.snapshot();
        let seen = relay.seen(0);
        for datagram in &seen {
            // As it was, and with a bit changed.
            relay.forge(0, ends[1], datagram);
            let mut forged = datagram.clone();
            *forged.last_mut().unwrap() ^= 1;
            relay.forge(0, ends[1], &forged);
            // Not faster than a socket takes them.
            thread::sleep(Duration::from_micros(200));
        }
        let data = seen.iter().filter(|datagram| datagram[3] == 4).count() as u64;
        party::until("all of them to be counted", || {
            let now = two.counters.snapshot();
            let counted = now.forged + now.replayed - before.forged - before.replayed;
            (counted >= 2 * data).then_some(()).ok_or(format!("{counted} of {}", 2 * data))
        });
        assert!(two.comes(Duration::ZERO).is_none(), "one of them reached the link");
        assert_eq!(two.counters.snapshot().frames_received, before.frames_received);
        assert_eq!(two.counters.snapshot().handshakes, before.handshakes);
        exchange(&one, &two);
    });
}

#[test]
fn nothing_of_a_frame_is_seen_on_its_way() {
    let (one, two) = pair();
    with_relay(4, &one, &two, |relay, _| {
        two.attaches();
        let secret = b"attack at dawn, by the bridge";
        one.send.send(secret.repeat(20)).unwrap();
        assert_eq!(two.comes(party::PATIENCE), Some(secret.repeat(20)));
        let seen = relay.seen(0).concat();
        assert!(!seen.windows(8).any(|bytes| secret.windows(8).any(|part| part == bytes)));
    });
}

/// Starts two proxies that do not belong together.
fn start(one: Party, two: Party) -> [&'static Party; 2] {
    let parties = [one.forever(), two.forever()];
    let ends = [free_udp_port(), free_udp_port()];
    for end in [0, 1] {
        thread::spawn(move || carry(parties[end].passage(), ends[end], ends[1 - end]));
    }
    parties
}

/// As those of links begin.
fn plain_frame() -> Vec<u8> {
    [&[0x44, 0x56, 1, 3][..], &[0; 60]].concat()
}

#[test]
fn another_token_cluster_or_node_is_refused_and_both_say_why() {
    for (one, two) in [
        (Party::sealed(1, 2), Party::of("seventeen letters or so", "lab", 2, 1)),
        (Party::sealed(1, 2), Party::of(party::TOKEN, "bal", 2, 1)),
        (Party::sealed(1, 2), Party::sealed(3, 1)),
    ] {
        let [one, two] = start(one, two);
        one.says("its keys are not those of node 2");
        two.says("its keys are not those of node 1");
        assert!(one.never_attached() && two.never_attached());
        assert!(one.counters.snapshot().forged > 0 && two.counters.snapshot().forged > 0);
    }
}

#[test]
fn the_clear_form_and_the_sealed_one_do_not_mix_and_both_say_why() {
    let [one, two] = start(Party::sealed(1, 2), Party::clear(2, 1));
    two.attaches();
    two.says("cluster.insecure is true here and false there");
    two.send.send(plain_frame()).unwrap();
    one.says("cluster.insecure is true there and false here");
    assert!(one.never_attached() && one.comes(Duration::ZERO).is_none());
    assert!(two.comes(Duration::ZERO).is_none(), "a sealed datagram reached the link");
}

#[test]
fn what_is_no_datagram_of_ours_is_counted() {
    let (one, two) = pair();
    with_relay(5, &one, &two, |relay, ends| {
        two.attaches();
        relay.forge(0, ends[1], b"GET / HTTP/1.1");
        two.says("not those of a dvs-proxy");
        relay.forge(0, ends[1], &[0xd5, 0x6c, 9, 1]);
        two.says("version 9");
        assert_eq!(two.counters.snapshot().foreign, 2);
    });
}
