// SPDX-License-Identifier: MIT OR Apache-2.0
use super::*;
use crate::dhcp::tests::{message, option_of, question};
use crate::dhcp::Kind;
use crate::files::{LINUX, UNIFIED};
use crate::tftp::tests::{acknowledge, request};
use proptest::prelude::*;

const NOW: Duration = Duration::ZERO;
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 213, 0, 1);
const CLIENT: Mac = Mac([0x52, 0x54, 0, 0xd5, 0, 3]);

fn station() -> Station {
    let mut files = Files::default();
    files.add(LINUX, Content::of([7; 5000]));
    files.add(UNIFIED, Content::of([8; 3000]));
    let mask = Ipv4Addr::new(255, 255, 0, 0);
    let pool = Pool { first: Ipv4Addr::new(10, 213, 0, 2), count: 9, mask };
    Station::new(Mac([2, 0, 0, 0, 0, 1]), SERVER, pool, files)
}

/// A machine on the same segment: another station, only for its way to make frames.
fn machine(address: Ipv4Addr) -> Station {
    Station { mac: CLIENT, address, ..station() }
}

fn ask(
    station: &mut Station,
    from: Client,
    to: (Mac, Ipv4Addr, u16),
    content: &[u8],
) -> Vec<(u16, Vec<u8>)> {
    let machine = machine(from.0);
    let frame = machine.udp(to.0, (to.1, to.2), from.1, content);
    let read = |frame: Vec<u8>| {
        let own = Station {
            address: [frame[30], frame[31], frame[32], frame[33]].into(),
            ..self::machine(from.0)
        };
        let datagram = own.datagram(&frame[14..]).expect("a datagram");
        assert_eq!(datagram.port, from.1);
        assert_eq!(checksum(&frame[14..34]), 0);
        (datagram.from_port, datagram.content.to_vec())
    };
    station.receive(&frame, NOW).into_iter().map(read).collect()
}

fn offered(station: &mut Station, kind: Kind) -> Vec<u8> {
    let from = (Ipv4Addr::UNSPECIFIED, CLIENT_PORT);
    let to = (BROADCAST, Ipv4Addr::BROADCAST, SERVER_PORT);
    let answers = ask(station, from, to, &message(&question(kind)));
    let [(SERVER_PORT, answer)] = &answers[..] else { panic!("{answers:?}") };
    answer.clone()
}

#[test]
fn a_machine_gets_an_address_and_then_its_file() {
    let mut station = station();
    let offer = offered(&mut station, Kind::Discover);
    let own = Ipv4Addr::new(10, 213, 0, 2);
    assert_eq!(offer[16..20], own.octets());
    assert_eq!(option_of(&offer, 67), Some(UNIFIED.as_bytes()));
    let (mac, from) = (station.mac(), (own, 2000));
    let answers =
        ask(&mut station, from, (mac, SERVER, tftp::PORT), &request(UNIFIED, &[("blksize", 1468)]));
    let port = answers[0].0;
    let (mut got, mut block) = (0, 0);
    loop {
        let answers = ask(&mut station, from, (mac, SERVER, port), &acknowledge(block));
        let Some((_, packet)) = answers.first() else { break };
        assert_eq!(packet[..4], [0, 3, 0, (block + 1) as u8]);
        assert!(packet[4..].iter().all(|byte| *byte == 8));
        got += packet.len() - 4;
        block += 1;
    }
    assert_eq!((got, block), (3000, 3));
    assert!(station.transfers.is_empty());
}

#[test]
fn transfers_of_two_clients_do_not_meet() {
    let mut station = station();
    let mac = station.mac();
    let ports: Vec<_> = [2, 3]
        .map(|number| {
            let from = ([10, 213, 0, number].into(), 2000);
            ask(&mut station, from, (mac, SERVER, tftp::PORT), &request(LINUX, &[]))[0].0
        })
        .into();
    assert_ne!(ports[0], ports[1]);
    // One that says something to the other's port is not heard.
    let from = ([10, 213, 0, 2].into(), 2000);
    assert!(ask(&mut station, from, (mac, SERVER, ports[1]), &acknowledge(1)).is_empty());
    assert_eq!(ask(&mut station, from, (mac, SERVER, ports[0]), &acknowledge(1)).len(), 1);
}

#[test]
fn a_file_that_is_not_served_is_refused() {
    let mut station = station();
    let mac = station.mac();
    let from = ([10, 213, 0, 2].into(), 2000);
    let answers =
        ask(&mut station, from, (mac, SERVER, tftp::PORT), &request("../etc/passwd", &[]));
    assert_eq!(answers, [(tftp::PORT, Refusal::NotFound.packet())]);
}

#[test]
fn its_address_is_resolved_and_no_other() {
    let mut station = station();
    let mut ask = |target: [u8; 4]| {
        let sender = [10, 213, 0, 2];
        let content =
            [&[0, 1, 8, 0, 6, 4, 0, 1][..], &CLIENT.0, &sender, &[0; 6], &target].concat();
        station.receive(&machine(sender.into()).frame(BROADCAST, protocol::ARP, &content), NOW)
    };
    let replies = ask([10, 213, 0, 1]);
    assert_eq!(replies[0][..6], CLIENT.0);
    assert_eq!(replies[0][20..32], [0, 2, 2, 0, 0, 0, 0, 1, 10, 213, 0, 1]);
    assert!(ask([10, 213, 0, 5]).is_empty());
}

#[test]
fn who_looks_for_a_router_hears_that_this_is_none() {
    let mut station = station();
    let mut packet = vec![0x60, 0, 0, 0, 0, 8, protocol::ICMPV6, 255];
    packet.extend([0; 32]);
    packet.extend([133, 0, 0, 0, 0, 0, 0, 0]);
    let all_routers = Mac([0x33, 0x33, 0, 0, 0, 2]);
    let frame = machine(Ipv4Addr::UNSPECIFIED).frame(all_routers, protocol::IPV6, &packet);
    let replies = station.receive(&frame, NOW);
    let message = &replies[0][54..];
    assert_eq!((message[0], &message[5..8]), (134, &[0, 0, 0][..]));
    let mut pseudo = replies[0][22..54].to_vec();
    pseudo.extend([0, 0, 0, 16, 0, 0, 0, protocol::ICMPV6]);
    pseudo.extend(message);
    assert_eq!(checksum(&pseudo), 0);
}

#[test]
fn frames_for_others_are_left_alone() {
    let mut station = station();
    let from = ([10, 213, 0, 2].into(), 2000);
    let to = (Mac([2, 0, 0, 0, 0, 9]), SERVER, tftp::PORT);
    assert!(ask(&mut station, from, to, &request(LINUX, &[])).is_empty());
    let to = (station.mac(), Ipv4Addr::new(10, 213, 0, 9), tftp::PORT);
    assert!(ask(&mut station, from, to, &request(LINUX, &[])).is_empty());
}

proptest! {
    #[test]
    fn any_frames_do_no_harm(
        frame in prop::collection::vec(any::<u8>(), 0..120),
        kind in 0..4_usize,
    ) {
        let mut station = station();
        let mut frame = frame;
        if let (Some(header), 0..3) = (frame.first_chunk_mut::<14>(), kind) {
            header[..6].fill(0xff);
            let kinds = [protocol::ARP, protocol::IPV4, protocol::IPV6];
            header[12..].copy_from_slice(&kinds[kind]);
        }
        prop_assert!(station.receive(&frame, NOW).len() <= 1);
    }
}
