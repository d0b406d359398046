// SPDX-License-Identifier: MIT OR Apache-2.0
//! The dissector against the codec of `dvk-abi`: it shows what was encoded, and refuses what the codec refuses.

mod expected;
mod samples;
mod streams;
mod verdicts;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use dvk_abi::wire::frame::{Address, Greeting, Header, Kind, Versions};

use super::{Dissector, Packet};
use expected::Fields;
use samples::{data, frame, header, records, whole, Capture};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate is in a folder").to_owned()
}

/// Asking tshark for the fields takes as long as most tests.
fn dissector() -> &'static Dissector {
    static DISSECTOR: LazyLock<Dissector> =
        LazyLock::new(|| Dissector::new(&root()).expect("the dissector can be loaded"));
    &DISSECTOR
}

/// What tshark makes of frames: a packet for each, and no mistake of the dissector.
fn read(capture: &Capture, twice: bool) -> Vec<Packet> {
    let packets = dissector().read(&capture.path, twice).expect("the capture can be read");
    for packet in &packets {
        assert!(!packet.is_failure(), "the dissector fails: {packet:?}");
    }
    packets
}

fn dissect(frames: &[Vec<u8>]) -> Vec<Packet> {
    let packets = read(&Capture::of(frames), false);
    assert_eq!(packets.len(), frames.len());
    packets
}

#[test]
fn frames_of_every_kind_are_shown_as_they_were_encoded() {
    let greeting = Greeting { versions: Versions { min: 1, max: 3 }, payload_bytes: 8_932 };
    let mut hello = header(Kind::Hello, u32::MAX);
    hello.destination = Address { stream: 0, ..hello.destination };
    let longer = [&greeting.encode()[..], b"later"].concat();
    let selective = 1 | 1 << 31 | 1 << 32 | 1 << 63;
    let ack = Header { ack: u32::MAX, selective, ..header(Kind::Ack, 5) };
    let cases = [
        (
            hello,
            greeting.encode().to_vec(),
            "hello seq 4294967295: versions 1 to 3, payload up to 8932",
        ),
        (header(Kind::HelloAck, 1), longer, "hello-ack seq 1: versions 1 to 3, payload up to 8932"),
        (ack, Vec::new(), "ack 4294967295 (and 0 31 32 63)"),
        (Header { echo: Some(17), ..ack }, Vec::new(), "ack 4294967295 (and 0 31 32 63)"),
        (header(Kind::Keepalive, 6), Vec::new(), "keepalive seq 6 ack 15"),
        (header(Kind::Reset, 0), Vec::new(), "reset"),
    ];
    let frames: Vec<_> = cases
        .iter()
        .map(|(header, payload, _)| [frame(header, payload), vec![7, 8]].concat())
        .collect();
    for (packet, (header, payload, info)) in dissect(&frames).iter().zip(&cases) {
        let mut fields = Fields::default();
        fields.header(header, payload.len());
        if let Some(appended) = payload.get(Greeting::BYTES..) {
            fields.greeting(&greeting, appended);
        }
        fields.padding(&[7, 8]);
        assert_eq!((Fields::found(packet), packet.info.as_str()), (fields, *info));
    }
}

#[test]
fn records_of_every_kind_are_shown_as_they_were_encoded() {
    let samples = records();
    // Each in a frame of its own, then as many as there is room for together.
    let mut groups: Vec<_> = samples.chunks(1).chain(samples.chunks(6)).collect();
    groups.push(&samples);
    let payloads: Vec<Vec<_>> = groups
        .iter()
        .map(|group| group.iter().flat_map(|sample| whole(&sample.bytes())).collect())
        .collect();
    let frames: Vec<_> =
        (1..).zip(&payloads).map(|(sequence, payload)| data(sequence, 16, payload)).collect();
    let packets = dissect(&frames);
    for (index, packet) in packets.iter().enumerate() {
        let mut fields = Fields::default();
        fields.header(&header(Kind::Data, index as u32 + 1), payloads[index].len());
        groups[index].iter().for_each(|sample| fields.whole(sample));
        assert_eq!(Fields::found(packet), fields, "frame {}", index + 1);
    }
    let infos: Vec<_> = packets.iter().map(|packet| packet.info.as_str()).collect();
    for (index, info) in [
        (1, "data seq 2: request dc65534 65535.1 -> 3.4294967294 call 2"),
        (4, "data seq 5: failed dc65531 65535.1 -> 3.4294967294 call 4: ESRCH"),
        (8, "data seq 9: notify dc65527 65535.1 -> 3.4294967294: bits 0x100000002"),
        (9, "data seq 10: returned dc65526 65535.1 -> 3.4294967294: bits 0x8000000000000000, epoch 9"),
        (10, "data seq 11: returned dc65525 65535.1 -> 3.4294967294 call 8: epoch 10"),
        (15, "data seq 16: privilege dc65520 65535.1 -> 3.4294967294 call 15: calls 0x3ff"),
        (
            17,
            "data seq 18: copy-from dc7 64.2 -> 65.4 call 100: 100 of 1099511627776 bytes, grant 0x100000001 at 4096",
        ),
        (
            19,
            "data seq 20: copy-between dc7 64.2 -> 65.4 call 102: 4294967295 of 18446744073709551615 bytes, \
             grant 0x2 at 3, to 9.8",
        ),
        (22, "data seq 23: done dc7 64.2 -> 65.4 call 105: 99 bytes"),
        (23, "data seq 24: done dc7 64.2 -> 65.4 call 106: 98 bytes, ENOSPC"),
        (24, "data seq 25: supplied dc7 64.2 -> 65.4 call 200: 30 bytes at 0"),
    ] {
        assert_eq!(infos[index], info);
    }
    let all = infos.last().expect("there are frames");
    assert!(all.ends_with(&format!("; {} more", samples.len() - 4)), "{all}");
}

#[test]
fn the_page_of_the_protocol_names_every_kind_as_the_dissector_does() {
    let page = fs::read_to_string(root().join("docs/wire-protocol.md")).expect("there is a page");
    let named = |packet: &Packet, field: &str, name: &str| {
        let name = name.split([' ', ':']).next().unwrap_or_default();
        let row = format!("| {} | {name}", packet.values(field).concat());
        let follows =
            |line: &str| line.strip_prefix(&row).is_some_and(|rest| rest.starts_with([' ', ':']));
        assert!(page.lines().any(follows), "no row begins with `{row}`");
    };
    let payloads = records().into_iter().map(|sample| whole(&sample.bytes()));
    let frames: Vec<_> =
        (0..).zip(payloads).map(|(sequence, payload)| data(sequence, 0, &payload)).collect();
    for packet in dissect(&frames) {
        let (_, record) = packet.info.split_once(": ").expect("there is a record");
        named(&packet, "dvk.record.kind", record);
    }
    let greeting = Greeting { versions: Versions::SUPPORTED, payload_bytes: 512 }.encode();
    let mut frames: Vec<_> =
        [Kind::Hello, Kind::HelloAck].map(|kind| frame(&header(kind, 1), &greeting)).to_vec();
    frames.push(data(1, 0, &whole(&records()[3].bytes())));
    frames
        .extend([Kind::Ack, Kind::Keepalive, Kind::Reset].map(|kind| frame(&header(kind, 1), &[])));
    for packet in dissect(&frames) {
        named(&packet, "dvk.kind", &packet.info);
    }
}

#[test]
fn the_page_names_every_filter_and_no_other() {
    let page =
        fs::read_to_string(root().join("docs/dissector/README.md")).expect("there is a page");
    let table = page.split("## Filters").nth(1).expect("there is a section for filters");
    let table = table.split("\n## ").next().expect("a split gives something");
    let code = table.split('`').skip(1).step_by(2);
    let named: BTreeSet<_> = code.filter(|code| code.starts_with("dvk.")).collect();
    let known: BTreeSet<_> = dissector().fields.iter().map(String::as_str).collect();
    let missing: Vec<_> = known.difference(&named).collect();
    let invented: Vec<_> = named.difference(&known).collect();
    assert!(
        missing.is_empty() && invented.is_empty(),
        "not named: {missing:?}; invented: {invented:?}"
    );
}
