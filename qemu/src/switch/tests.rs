// SPDX-License-Identifier: MIT OR Apache-2.0
//! The switch with guests that are played by the test.

use super::*;
use crate::faults::Probability;
use crate::frame::MAX_FRAME;
use dvs_config::Mac;
use dvs_netboot::files::Files;
use dvs_netboot::offer::Pool;
use std::os::unix::net::UnixListener;

const SOON: Duration = Duration::from_secs(20);

/// A switch whose QEMUs are the test.
struct Bench {
    directory: tempfile::TempDir,
    listeners: Vec<UnixListener>,
    guests: Vec<UnixStream>,
    switch: Switch,
}

fn bench(nodes: usize, faults: Faults) -> Bench {
    bench_of(1, nodes, faults)
}

fn bench_of(segments: usize, nodes: usize, faults: Faults) -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let ports: Vec<_> =
        (0..segments * nodes).map(|n| directory.path().join(n.to_string())).collect();
    let listeners: Vec<_> = ports.iter().map(|s| UnixListener::bind(s).unwrap()).collect();
    let links = Links::new(nodes, 7, faults);
    let sockets: Vec<_> = ports.chunks(nodes).map(<[_]>::to_vec).collect();
    let switch =
        Switch::start(&sockets, links, Some(directory.path()), Some(boot_server())).unwrap();
    let guests = listeners.iter().map(accept).collect();
    Bench { directory, listeners, guests, switch }
}

const SERVER: [u8; 6] = [0x52, 0, 0, 0, 1, 0];

/// A boot server that has nothing to send.
fn boot_server() -> Station {
    let [address, first] = [1, 2].map(|number| [10, 0, 0, number].into());
    let pool = Pool { first, count: 9, mask: [255, 255, 255, 0].into() };
    Station::new(Mac(SERVER), address, pool, Files::default())
}

fn accept(listener: &UnixListener) -> UnixStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.set_write_timeout(Some(SOON)).unwrap();
    stream
}

/// A frame from node `from` to node `to`, or to all.
fn frame(to: Option<u8>, from: u8, payload: &[u8]) -> Vec<u8> {
    let to = to.map_or([0xff; 6], |to| [0x52, 0, 0, 0, 0, to]);
    [&to[..], &[0x52, 0, 0, 0, 0, from, 0x88, 0xb5], payload].concat()
}

impl Bench {
    fn send(&mut self, from: usize, frame: &[u8]) {
        let mut bytes = Vec::new();
        encode(frame, &mut bytes);
        self.guests[from].write_all(&bytes).unwrap();
    }

    fn receive(&mut self, at: usize) -> Vec<u8> {
        let mut length = [0; 4];
        self.guests[at].read_exact(&mut length).unwrap();
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.guests[at].read_exact(&mut frame).unwrap();
        frame
    }

    /// Waits until the switch has taken in `count` frames from `from`.
    fn await_sent(&self, from: usize, count: u64) -> Report {
        let deadline = Instant::now() + SOON;
        loop {
            let report = self.switch.handle().report();
            if report.ports[from].sent >= count {
                return report;
            }
            assert!(Instant::now() < deadline, "{report:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn the_boot_server_answers_who_asks_and_nobody_else_sees_what_is_for_it() {
    let mut bench = bench(3, Faults { loss: Probability::ALWAYS, ..Faults::default() });
    let own = [0x52, 0, 0, 0, 0, 1];
    let content =
        [&[0, 1, 8, 0, 6, 4, 0, 1][..], &own, &[10, 0, 0, 7], &[0; 6], &[10, 0, 0, 1]].concat();
    let question = [&[0xff; 6][..], &own, &[8, 6], &content].concat();
    bench.send(1, &question);
    let answer = bench.receive(1);
    assert_eq!(answer[..12], [own, SERVER].concat());
    // What is sent to it alone does not reach the others, which get the next frame.
    bench.switch.handle().set_faults(LinkSelector::All, Faults::default());
    bench.send(1, &[&SERVER[..], &own, b"\x88\xb5for it"].concat());
    let last = frame(None, 1, b"for all");
    bench.send(1, &last);
    assert_eq!(bench.receive(0), last);
    assert_eq!(bench.receive(2), last);
}

#[test]
fn frames_are_flooded_then_directed_and_captured() {
    let mut bench = bench(3, Faults::default());
    let (hello, answer) = (frame(None, 0, b"hello"), frame(Some(0), 1, b"answer"));
    bench.send(0, &hello);
    assert_eq!(bench.receive(1), hello);
    assert_eq!(bench.receive(2), hello);
    bench.send(1, &answer);
    assert_eq!(bench.receive(0), answer);
    bench.send(0, &frame(None, 0, b"again"));
    // Had the answer been flooded, node 2 would get it first.
    assert_eq!(bench.receive(2), frame(None, 0, b"again"));
    let directory = bench.directory.path().to_owned();
    drop(bench.switch);
    let capture = std::fs::read(directory.join("node0.pcap")).unwrap();
    let frames = 24 + 3 * 16 + hello.len() + answer.len() + hello.len();
    assert_eq!(capture.len(), frames);
}

#[test]
fn segments_share_nothing_but_the_state_of_links() {
    let mut bench = bench_of(2, 2, Faults::default());
    // Ports 2 and 3 are those of nodes 0 and 1 on the second segment.
    bench.send(0, &frame(None, 0, b"first"));
    assert_eq!(bench.receive(1), frame(None, 0, b"first"));
    // The same address may be on both: each segment learns for itself, and this one knows none yet.
    bench.send(3, &frame(Some(0), 9, b"second"));
    assert_eq!(bench.receive(2), frame(Some(0), 9, b"second"));
    let report = bench.await_sent(3, 1);
    let passed: Vec<_> = report.ports.iter().map(|port| (port.sent, port.delivered)).collect();
    assert_eq!(passed, [(1, 0), (0, 1), (0, 1), (1, 0)]);
    bench.switch.handle().cut(LinkSelector::Pair(0, 1));
    bench.send(2, &frame(None, 0, b"lost"));
    assert_eq!(bench.await_sent(2, 1).ports[3].lost, 1);
    assert!(bench.directory.path().join("node1-segment1.pcap").is_file());
}

#[test]
fn a_tap_sees_what_is_sent_and_only_that() {
    let mut bench = bench(2, Faults::default());
    let tap = bench.switch.handle().tap();
    bench.switch.handle().cut(LinkSelector::All);
    // What was asked for is in force.
    bench.switch.handle().report();
    bench.switch.handle().inject(1, frame(Some(1), 7, b"forged"));
    assert_eq!(bench.receive(1), frame(Some(1), 7, b"forged"));
    bench.send(0, &frame(None, 0, b"lost"));
    let sent = tap.recv_timeout(SOON).unwrap();
    assert_eq!(sent, Sent { from: 0, frame: frame(None, 0, b"lost") });
    let report = bench.await_sent(0, 1);
    assert_eq!((report.ports[1].delivered, report.ports[1].lost), (1, 1));
    assert!(tap.try_recv().is_err());
}

#[test]
fn a_cut_link_carries_nothing_until_it_is_healed() {
    let mut bench = bench(2, Faults::default());
    let links = LinkSelector::OneWay { from: 0, to: 1 };
    bench.switch.handle().cut(links);
    assert_eq!(bench.switch.handle().report().cut, [(0, 1)]);
    bench.send(0, &frame(None, 0, b"lost"));
    assert_eq!(bench.await_sent(0, 1).ports[1].lost, 1);
    bench.send(1, &frame(None, 1, b"back"));
    assert_eq!(bench.receive(0), frame(None, 1, b"back"));
    bench.switch.handle().heal(links);
    bench.send(0, &frame(None, 0, b"seen"));
    assert_eq!(bench.receive(1), frame(None, 0, b"seen"));
}

#[test]
fn delayed_frames_arrive_late_and_in_order() {
    let delay = Duration::from_millis(60);
    let mut bench = bench(2, Faults { delay, jitter: delay, ..Faults::default() });
    let start = Instant::now();
    for n in 0..50 {
        bench.send(0, &frame(None, 0, &[n]));
    }
    for n in 0..50 {
        assert_eq!(bench.receive(1), frame(None, 0, &[n]));
        assert!(start.elapsed() >= delay);
    }
}

#[test]
fn duplicates_are_delivered_and_counted() {
    let faults = Faults { duplicate: Probability::ALWAYS, ..Faults::default() };
    let mut bench = bench(2, faults);
    bench.send(0, &frame(None, 0, b"x"));
    assert_eq!(bench.receive(1), bench.receive(1));
    assert_eq!(bench.switch.handle().report().ports[1].delivered, 2);
}

#[test]
fn a_hostile_length_costs_only_the_own_connection() {
    let mut bench = bench(2, Faults::default());
    bench.guests[0].write_all(&(MAX_FRAME as u32 + 1).to_be_bytes()).unwrap();
    bench.guests[0] = accept(&bench.listeners[0]);
    bench.send(0, &frame(None, 0, b"new"));
    assert_eq!(bench.receive(1), frame(None, 0, b"new"));
}

#[test]
fn a_guest_that_is_started_again_is_dialled_again() {
    let mut bench = bench(2, Faults::default());
    let (gone, _) = UnixStream::pair().unwrap();
    drop(std::mem::replace(&mut bench.guests[1], gone));
    bench.guests[1] = accept(&bench.listeners[1]);
    bench.send(0, &frame(None, 0, b"back"));
    assert_eq!(bench.receive(1), frame(None, 0, b"back"));
}

#[test]
fn a_guest_that_takes_nothing_does_not_hold_up_the_others() {
    let mut bench = bench(3, Faults::default());
    let big = frame(None, 0, &[0; 60_000]);
    let count = 4 * QUEUE_LIMIT / big.len();
    // Node 1 never reads.
    for _ in 0..count {
        bench.send(0, &big);
        assert_eq!(bench.receive(2), big);
    }
    let report = bench.await_sent(0, count as u64);
    assert!(report.ports[1].overrun > 0, "{report:?}");
    assert_eq!(report.ports[2].overrun, 0);
}
