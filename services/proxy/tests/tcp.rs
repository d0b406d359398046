// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two proxies on the loopback interface carry frames over TCP between two links that are channels.

mod party;

use core::time::Duration;
use dvs_proxy::batch::Compression;
use dvs_proxy::gain::Coding;
use dvs_proxy::tcp::{carry, Role};
use party::{frames, free_port, pair, End, Party};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::thread;

#[test]
fn frames_go_both_ways_until_another_transport_takes_over() {
    for (one, two) in [pair(), (Party::clear(1, 2), Party::clear(2, 1))] {
        let address = free_port();
        thread::scope(|scope| {
            let end = End(vec![&one, &two]);
            let listening = scope.spawn(|| carry(one.passage(), Role::Listen(address)));
            let connecting = scope.spawn(|| carry(two.passage(), Role::Connect(address)));
            assert_eq!(one.exchange(&two, 2000), frames(2000));
            assert_eq!(two.exchange(&one, 2000), frames(2000));
            drop(end);
            listening.join().unwrap().unwrap();
            connecting.join().unwrap().unwrap();
        });
        assert_eq!(one.link.attached.load(Ordering::Relaxed), 1);
        let counted = one.counters.snapshot();
        assert_eq!((counted.frames_sent, counted.frames_received), (2000, 2000));
        assert_eq!(counted.bytes_sent, frames(2000).iter().map(Vec::len).sum::<usize>() as u64);
        assert_eq!((counted.handshakes, counted.forged, counted.foreign), (1, 0, 0));
    }
}

#[test]
fn what_is_compressed_arrives_as_it_was() {
    for coding in [Coding::Plain, Coding::Lz4, Coding::Zstd] {
        let (mut one, two) = pair();
        one.compression = Compression::Always(coding);
        let address = free_port();
        thread::scope(|scope| {
            let _end = End(vec![&one, &two]);
            scope.spawn(|| carry(one.passage(), Role::Listen(address)));
            scope.spawn(|| carry(two.passage(), Role::Connect(address)));
            assert_eq!(one.exchange(&two, 1000), frames(1000));
        });
        let counted = one.counters.snapshot();
        let shrunk = counted.carried_sent * 3 < counted.bytes_sent;
        assert_eq!(shrunk, coding != Coding::Plain, "{coding:?}: {counted:?}");
        assert_eq!(two.counters.snapshot().carried_received, counted.carried_sent);
    }
}

#[test]
fn strangers_and_broken_connections_do_no_harm() {
    let (one, two) = pair();
    let address = free_port();
    thread::scope(|scope| {
        let _end = End(vec![&one, &two]);
        scope.spawn(|| carry(one.passage(), Role::Listen(address)));
        // One says nothing for as long as it may, another one something else.
        let _silent = connect(address);
        let mut stranger = connect(address);
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        one.says("no dvs-proxy");
        let connecting = scope.spawn(|| carry(two.passage(), Role::Connect(address)));
        assert_eq!(one.exchange(&two, 100), frames(100));
        assert!(one.comes(Duration::ZERO).is_none(), "the stranger's bytes went to the link");
        // The peer is started anew.
        two.link.taken_over.store(true, Ordering::Relaxed);
        connecting.join().unwrap().unwrap();
        two.link.taken_over.store(false, Ordering::Relaxed);
        scope.spawn(|| carry(two.passage(), Role::Connect(address)));
        assert_eq!(two.exchange(&one, 100), frames(100));
    });
    assert!(two.link.attached.load(Ordering::Relaxed) >= 2);
    assert_eq!(one.link.attached.load(Ordering::Relaxed), 1);
}

#[test]
fn who_listens_can_be_started_anew_as_well() {
    party::start_the_listening_one_anew(free_port(), carry);
}

fn refuse(make: impl Fn() -> (Party, Party), said: [&str; 2]) {
    party::refuse(make, said, free_port, carry);
}

#[test]
fn another_token_is_refused_and_both_say_why() {
    let other = || Party::of("seventeen letters or so", "lab", 2, 1);
    refuse(|| (Party::sealed(1, 2), other()), ["another cluster token"; 2]);
}

#[test]
fn another_cluster_is_refused_and_both_say_why() {
    let other = || Party::of(party::TOKEN, "bal", 2, 1);
    refuse(|| (Party::sealed(1, 2), other()), ["cluster with another name"; 2]);
}

#[test]
fn another_node_is_refused_and_both_say_why() {
    // Who finds out first tells the other one.
    refuse(|| (Party::sealed(1, 2), Party::sealed(3, 1)), ["node", "node"]);
}

#[test]
fn the_clear_form_and_tls_do_not_mix_and_both_say_why() {
    let said = ["cluster.insecure is true there and false here", "cluster.insecure is true here"];
    refuse(|| (Party::sealed(1, 2), Party::clear(2, 1)), said);
}

#[test]
fn what_is_changed_on_its_way_ends_the_connection_and_reaches_no_link() {
    let (one, two) = pair();
    let (address, front) = (free_port(), TcpListener::bind("127.0.0.1:0").unwrap());
    let front_address = front.local_addr().unwrap();
    thread::scope(|scope| {
        let end = End(vec![&one, &two]);
        scope.spawn(|| carry(one.passage(), Role::Listen(address)));
        scope.spawn(|| carry(two.passage(), Role::Connect(front_address)));
        // The first connection is tampered with, the second one is not.
        let pass = |tamper: bool| {
            let left = front.accept().unwrap().0;
            let right = connect(address);
            let back = (right.try_clone().unwrap(), left.try_clone().unwrap());
            scope.spawn(move || forward(back.0, back.1, false));
            forward_in(scope, left, right, tamper);
        };
        pass(true);
        one.attaches();
        two.send.send(vec![5; 100_000]).unwrap();
        one.says("TLS with the peer failed");
        pass(false);
        assert_eq!(two.exchange(&one, 100), frames(100));
        drop(end);
    });
    assert_eq!(one.counters.snapshot().forged, 1);
}

fn forward_in<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    from: TcpStream,
    to: TcpStream,
    tamper: bool,
) {
    scope.spawn(move || forward(from, to, tamper));
}

/// Passes bytes on; changes one behind the first 50,000 if it is to.
fn forward(mut from: TcpStream, mut to: TcpStream, tamper: bool) {
    let (mut bytes, mut passed) = ([0; 4096], 0);
    while let Ok(len @ 1..) = from.read(&mut bytes) {
        passed += len;
        if tamper && passed > 50_000 {
            bytes[len / 2] ^= 1;
            passed = 0;
        }
        if to.write_all(&bytes[..len]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
    let _ = from.shutdown(std::net::Shutdown::Both);
}

fn connect(address: SocketAddr) -> TcpStream {
    party::until("somebody to listen", || {
        TcpStream::connect_timeout(&address, Duration::from_secs(1)).map_err(|why| why.to_string())
    })
}
