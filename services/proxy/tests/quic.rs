// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two proxies on the loopback interface carry frames over QUIC between two links that are channels.

mod party;
mod relay;

use dvs_proxy::quic::carry;
use dvs_proxy::tcp::Role;
use party::{frames, free_udp_port, pair, End, Party};
use relay::{Faults, Relay};
use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::sync::atomic::Ordering;
use std::thread;

#[test]
fn frames_go_both_ways_until_another_transport_takes_over() {
    let (one, two) = pair();
    let address = free_udp_port();
    thread::scope(|scope| {
        let end = End(vec![&one, &two]);
        let listening = scope.spawn(|| carry(one.passage(), Role::Listen(address)));
        let connecting = scope.spawn(|| carry(two.passage(), Role::Connect(address)));
        // In any order, since short ones and long ones go different ways.
        let all: BTreeSet<_> = frames(1000).into_iter().collect();
        for (from, to) in [(&one, &two), (&two, &one)] {
            let got = from.exchange(to, 1000);
            assert_eq!(got.len(), 1000);
            assert_eq!(got.into_iter().collect::<BTreeSet<_>>(), all);
        }
        drop(end);
        listening.join().unwrap().unwrap();
        connecting.join().unwrap().unwrap();
    });
    assert_eq!(one.link.attached.load(Ordering::Relaxed), 1);
    let counted = one.counters.snapshot();
    assert_eq!((counted.frames_sent, counted.frames_received), (1000, 1000));
    assert_eq!((counted.handshakes, counted.foreign), (1, 0));
}

#[test]
fn a_bad_path_and_restarts_are_survived() {
    let (one, two) = pair();
    let address = free_udp_port();
    let relay = Relay::new(7, [None, Some(address)]);
    relay.set(Faults { lost: 50, twice: 50, late: 50 });
    thread::scope(|scope| {
        let _end = End(vec![&one, &two]);
        scope.spawn(|| carry(one.passage(), Role::Listen(address)));
        for _ in 0..3 {
            two.link.taken_over.store(false, Ordering::Relaxed);
            let connecting = scope.spawn(|| carry(two.passage(), Role::Connect(relay.fronts[0])));
            one.repeat(&two, 200);
            two.repeat(&one, 200);
            two.link.taken_over.store(true, Ordering::Relaxed);
            connecting.join().unwrap().unwrap();
        }
    });
    assert!(one.counters.snapshot().handshakes >= 3);
    assert_eq!(one.link.attached.load(Ordering::Relaxed), 1);
}

#[test]
fn who_listens_can_be_started_anew_as_well() {
    party::start_the_listening_one_anew(free_udp_port(), carry);
}

#[test]
fn strangers_and_their_datagrams_do_no_harm() {
    let (one, two) = pair();
    let address = free_udp_port();
    let relay = Relay::new(3, [None, Some(address)]);
    thread::scope(|scope| {
        let _end = End(vec![&one, &two]);
        scope.spawn(|| carry(one.passage(), Role::Listen(address)));
        scope.spawn(|| carry(two.passage(), Role::Connect(relay.fronts[0])));
        let exchange = || {
            let got: BTreeSet<_> = two.exchange(&one, 50).into_iter().collect();
            assert_eq!(got, frames(50).into_iter().collect());
        };
        exchange();
        let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
        for mut datagram in relay.seen(0) {
            // Of another address, then as it was, then changed.
            stranger.send_to(&datagram, address).unwrap();
            relay.forge(0, address, &datagram);
            *datagram.last_mut().unwrap() ^= 1;
            relay.forge(0, address, &datagram);
        }
        exchange();
        let silence = core::time::Duration::from_millis(100);
        assert!(one.comes(silence).is_none(), "something reached the link that was not sent");
    });
    assert_eq!(one.counters.snapshot().handshakes, 1);
    assert_eq!(one.counters.snapshot().frames_received, 100);
}

#[test]
fn nothing_of_a_frame_is_seen_on_its_way() {
    let (mut one, two) = pair();
    one.compression = dvs_proxy::batch::Compression::Always(dvs_proxy::gain::Coding::Plain);
    let address = free_udp_port();
    let relay = Relay::new(4, [None, Some(address)]);
    thread::scope(|scope| {
        let _end = End(vec![&one, &two]);
        scope.spawn(|| carry(two.passage(), Role::Listen(address)));
        scope.spawn(|| carry(one.passage(), Role::Connect(relay.fronts[0])));
        let secret = b"attack at dawn, by the bridge";
        for times in [10, 200] {
            one.send.send(secret.repeat(times)).unwrap();
            assert_eq!(two.comes(party::PATIENCE), Some(secret.repeat(times)));
        }
        let seen = relay.seen(0).concat();
        assert!(!seen.windows(8).any(|bytes| secret.windows(8).any(|part| part == bytes)));
    });
}

#[test]
fn another_token_cluster_or_node_is_refused_and_both_say_why() {
    let token = || Party::of("seventeen letters or so", "lab", 2, 1);
    let cluster = || Party::of(party::TOKEN, "bal", 2, 1);
    let node = || Party::sealed(3, 1);
    let cases: [(&dyn Fn() -> Party, &str); 3] = [
        (&token, "another cluster token"),
        (&cluster, "cluster with another name"),
        (&node, "node"),
    ];
    for (other, why) in cases {
        party::refuse(|| (Party::sealed(1, 2), other()), [why; 2], free_udp_port, carry);
    }
}

#[test]
fn without_a_token_there_is_no_quic() {
    let one = Party::clear(1, 2);
    let error = carry(one.passage(), Role::Listen(free_udp_port())).unwrap_err();
    assert!(error.to_string().contains("cluster.token"), "{error}");
}
