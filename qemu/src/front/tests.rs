// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients of a published port, with pretended nodes: listeners of this process.

use std::sync::mpsc::{channel, Receiver};

use super::*;

/// Nothing here is slow to accept but what is meant to be.
const SHORT: Duration = Duration::from_secs(1);

/// A listener, and its port.
fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// A port at which nobody listens.
fn nobody() -> u16 {
    listener().1
}

/// A node that does `serve` with each connection, after the other.
fn node(mut serve: impl FnMut(TcpStream) + Send + 'static) -> u16 {
    let (listener, port) = listener();
    std::thread::spawn(move || listener.incoming().flatten().for_each(&mut serve));
    port
}

/// A node that answers each line with its name, until there are no more.
fn named(name: &'static str) -> u16 {
    node(move |client| {
        std::thread::spawn(move || {
            let mut bytes = [0; 1024];
            while let Ok(1..) = (&client).read(&mut bytes) {
                let _ = (&client).write_all(name.as_bytes());
            }
        });
    })
}

fn front(nodes: Vec<u16>) -> Front {
    let limits = Limits { patience: SHORT, silence: Duration::from_secs(60) };
    Front::with_limits(0, nodes, limits).unwrap()
}

fn connect(front: &Front) -> TcpStream {
    let client = TcpStream::connect((Ipv4Addr::LOCALHOST, front.port)).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    client
}

/// Says something, and all that comes back until the end.
fn ask(front: &Front) -> String {
    let mut client = connect(front);
    client.write_all(b"who are you?").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    let _ = client.read_to_string(&mut answer);
    answer
}

#[test]
fn clients_go_to_the_nodes_in_turn() {
    let front = front(vec![named("a"), named("b"), named("c")]);
    let answers: Vec<_> = (0..6).map(|_| ask(&front)).collect();
    assert_eq!(answers, ["a", "b", "c", "a", "b", "c"]);
}

#[test]
fn nodes_that_are_off_are_passed_over() {
    let front = front(vec![nobody(), named("b"), nobody()]);
    assert_eq!([ask(&front), ask(&front), ask(&front)], ["b", "b", "b"]);
}

/// As QEMU does when the guest refuses.
#[test]
fn a_node_that_closes_without_reading_is_passed_over() {
    let front = front(vec![node(drop), named("b")]);
    assert_eq!([ask(&front), ask(&front), ask(&front)], ["b", "b", "b"]);
}

/// As QEMU does while the guest boots.
#[test]
fn a_node_that_reads_nothing_is_passed_over() {
    let (held, port) = listener();
    let front = front(vec![port, named("b")]);
    assert_eq!([ask(&front), ask(&front)], ["b", "b"]);
    drop(held);
}

#[test]
fn a_node_that_has_read_may_take_its_time() {
    let (told, tells) = channel();
    let slow = node(move |client| {
        let mut bytes = [0; 1024];
        let count = (&client).read(&mut bytes).unwrap_or(0);
        std::thread::sleep(SHORT * 3);
        let _ = (&client).write_all(&bytes[..count]);
    });
    let other = node(move |_| told.send(()).unwrap_or_default());
    assert_eq!(ask(&front(vec![slow, other])), "who are you?");
    let tells: Receiver<()> = tells;
    assert!(tells.try_recv().is_err(), "nobody else was asked");
}

#[test]
fn a_node_that_speaks_first_is_heard() {
    let front = front(vec![node(|client| drop((&client).write_all(b"welcome")))]);
    let mut greeting = String::new();
    connect(&front).read_to_string(&mut greeting).unwrap();
    assert_eq!(greeting, "welcome");
}

/// As one does that would speak first, while its guest boots.
#[test]
fn a_client_that_waits_for_a_node_that_says_nothing_is_cut_off() {
    let (_held, port) = listener();
    let limits = Limits { patience: SHORT, silence: SHORT };
    let front = Front::with_limits(0, vec![port], limits).unwrap();
    let began = Instant::now();
    assert_eq!(connect(&front).read(&mut [0]).unwrap(), 0, "it is closed");
    assert!(began.elapsed() >= SHORT);
    // Who says something in time is not.
    let front = Front::with_limits(0, vec![named("a")], limits).unwrap();
    let mut client = connect(&front);
    std::thread::sleep(SHORT / 2);
    let mut answer = [0];
    for _ in 0..2 {
        client.write_all(b"who are you?").unwrap();
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"a");
        std::thread::sleep(SHORT * 2);
    }
}

#[test]
fn a_node_that_has_read_and_closes_has_answered_with_nothing() {
    let (told, tells) = channel();
    let curt = node(|client| drop((&client).read(&mut [0; 1024])));
    let other = node(move |_| told.send(()).unwrap_or_default());
    assert_eq!(ask(&front(vec![curt, other])), "");
    let tells: Receiver<()> = tells;
    assert!(tells.try_recv().is_err(), "what was read is not said to another one");
}

#[test]
fn a_node_that_dies_cuts_its_connections_and_the_next_go_elsewhere() {
    let (listener, port) = listener();
    let front = front(vec![port, named("b")]);
    let mut client = connect(&front);
    client.write_all(b"who are you?").unwrap();
    let (mut dying, _) = listener.accept().unwrap();
    dying.read_exact(&mut [0; 12]).unwrap();
    dying.write_all(b"I am").unwrap();
    let mut answer = [0; 4];
    client.read_exact(&mut answer).unwrap();
    drop((listener, dying));
    assert!(matches!(client.read(&mut [0; 1]), Ok(0) | Err(_)), "it is cut");
    assert_eq!([ask(&front), ask(&front)], ["b", "b"]);
}

#[test]
fn clients_are_cut_off_when_no_node_takes_them() {
    let front = front(vec![nobody(), node(drop)]);
    assert_eq!(ask(&front), "");
}

#[test]
fn much_goes_through_intact_both_ways() {
    let echo = node(|client| {
        std::thread::spawn(move || drop(io::copy(&mut &client, &mut &client)));
    });
    let front = front(vec![echo]);
    let client = connect(&front);
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n.wrapping_mul(n) >> 9) as u8).collect();
    let mut back = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (&client).write_all(&bytes).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
        });
        (&client).read_to_end(&mut back).unwrap();
    });
    assert!(bytes == back);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let (_held, port) = listener();
    let error = check_free(&[Publish { port, guest: 80 }]).unwrap_err().to_string();
    assert!(error.contains(&format!("127.0.0.1:{port}: another program has this port")), "{error}");
    check_free(&[Publish { port: nobody(), guest: 80 }]).unwrap();
}

#[test]
fn a_port_is_free_again_when_its_front_is_gone() {
    let front = front(vec![named("a")]);
    let port = front.port;
    assert_eq!(ask(&front), "a");
    drop(front);
    check_free(&[Publish { port, guest: 80 }]).unwrap();
}

#[test]
fn ports_are_read() {
    assert_eq!("8080:80".parse(), Ok(Publish { port: 8080, guest: 80 }));
    assert_eq!("8080".parse(), Ok(Publish { port: 8080, guest: 8080 }));
    for text in ["", "0", "80:", ":80", "80:0", "65536", "80:81:82", "http"] {
        let error = text.parse::<Publish>().unwrap_err();
        assert!(error.contains("is no port"), "{text}: {error}");
    }
}

#[test]
fn the_queues_of_a_connection_are_found_in_the_table() {
    let table =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n   \
        0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0\n   \
        1: 0100007F:1F90 0100007F:D431 01 00000000:00000010 00:00000000 00000000     0\n   \
        2: 0100007F:D431 0100007F:1F90 01 0000000A:00000000 00:00000000 00000000     0\n";
    let end = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    let found = |own, other| queues(table, end(own), end(other));
    assert_eq!(found(8080, 54321), Some(Queues { unacknowledged: 0, unread: 16 }));
    assert_eq!(found(54321, 8080), Some(Queues { unacknowledged: 10, unread: 0 }));
    assert_eq!(found(8080, 54322), None);
}
