// SPDX-License-Identifier: MIT OR Apache-2.0
//! Records that are spread over frames, which come late, twice, again or not at all.

use dvk_abi::wire::frame::{Address, Header, Kind, MAX_RECORD_BYTES};
use dvk_abi::wire::transfer::{CopyHead, DataHead, Flow};

use super::expected::Fields;
use super::samples::{
    chunk, data, endpoint, frame, header, payloads, records, whole, Capture, Sample,
};
use super::{dissect, read};
use crate::dissector::Packet;

/// A record that takes many frames.
fn long() -> Sample {
    let head = CopyHead { container: 7, call: 300, from: endpoint(64, 2), to: endpoint(65, 4) };
    let head = DataHead { head, flow: Flow::Supplied, offset: 32_768 };
    Sample::Data(head, (0..16_384u32).map(|index| (index / 5) as u8).collect())
}

/// What is shown of records, in the order of the capture, without the frames that they came in.
fn shown(packets: &[Packet]) -> Vec<(String, Vec<String>)> {
    let mut all = Vec::new();
    for packet in packets {
        for name in ["dvk.record.kind", "dvk.record.call", "dvk.message.payload", "dvk.copy.data"] {
            let values = packet.values(name);
            if !values.is_empty() {
                all.push((name.to_owned(), values.to_vec()));
            }
        }
    }
    all
}

#[test]
fn a_record_is_shown_once_in_the_frame_that_completes_it() {
    let short = records();
    let all = [&short[1], &long(), &short[2], &short[8]];
    let bytes: Vec<_> = all.iter().map(|sample| sample.bytes()).collect();
    let payloads = payloads(&bytes, 512);
    assert!(payloads.len() > 30, "{} frames", payloads.len());
    // The numbers of frames begin again at 0 in between.
    let first = u32::MAX - 4;
    let sequence = |index: usize| first.wrapping_add(index as u32);
    let frames: Vec<_> = (0..payloads.len())
        .map(|index| data(sequence(index), index as u32, &payloads[index]))
        .collect();
    let in_order = dissect(&frames);
    let long_ends = in_order.iter().position(|packet| !packet.values("dvk.record.part").is_empty());
    let long_ends = long_ends.expect("the long record is put together somewhere");
    // The request is in the first frame, with the beginning of the long record; the other two follow its end.
    assert_eq!(long_ends + 1, frames.len());
    let mut fields = Fields::default();
    all[1..].iter().for_each(|sample| fields.record(sample));
    let found = Fields::found(&in_order[long_ends]);
    assert!(found.contains(&fields), "{found:?}");
    let parts: Vec<_> = (1..=long_ends + 1).map(|number| number.to_string()).collect();
    assert_eq!(in_order[long_ends].values("dvk.record.part"), parts);
    assert!(in_order.iter().all(|packet| !packet.is_refused()), "{in_order:?}");
    let expected =
        "data seq 4294967291: request dc65534 65535.1 -> 3.4294967294 call 2; part of a record";
    assert_eq!(in_order[0].info, expected);
    assert_eq!(in_order[5].info, "data seq 0: part of a record");

    // Backwards, each record is complete with its first frame, and the same is shown.
    let backwards: Vec<_> = frames.iter().rev().cloned().collect();
    let packets = dissect(&backwards);
    let mut records: Vec<_> = shown(&packets);
    let mut same: Vec<_> = shown(&in_order);
    let flat = |records: &mut Vec<(String, Vec<String>)>| {
        let mut all: Vec<_> = records
            .drain(..)
            .flat_map(|(name, values)| values.into_iter().map(move |value| (name.clone(), value)))
            .collect();
        all.sort();
        all
    };
    assert_eq!(flat(&mut records), flat(&mut same));
    let last = packets.last().expect("there are frames");
    let numbers: Vec<_> = (0..=long_ends).map(|index| (frames.len() - index).to_string()).collect();
    assert_eq!(last.values("dvk.record.part"), numbers);
    assert!(packets.iter().all(|packet| !packet.is_refused()), "{packets:?}");
}

#[test]
fn a_second_look_shows_the_same_and_where_parts_went() {
    let payloads = payloads(&[long().bytes(), records()[1].bytes()], 1_400);
    let order = [3, 0, 1, 1, 2, 4, 7, 8, 5, 6, 9, 10, 11];
    let frames: Vec<_> = order.map(|index| data(index as u32, 0, &payloads[index])).to_vec();
    assert_eq!(payloads.len(), 12);
    let capture = Capture::of(&frames);
    let (once, twice) = (read(&capture, false), read(&capture, true));
    assert_eq!(shown(&once), shown(&twice));
    // All but the frame that completes the long record tell where it is, the repeated one too.
    let told = |packets: &[Packet]| -> Vec<_> {
        packets.iter().map(|packet| packet.values("dvk.record.reassembled_in").to_vec()).collect()
    };
    let mut expected = vec![vec!["13".to_owned()]; 13];
    expected[12] = Vec::new();
    assert_eq!(told(&twice), expected);
    assert_eq!(told(&once).concat(), Vec::<String>::new());
    assert!(twice[0].info.ends_with(": part of a record (see 13)"), "{}", twice[0].info);
}

#[test]
fn what_is_sent_again_is_told_from_what_the_network_repeats() {
    let records = records();
    let (request, reply) = (records[1].bytes(), records[2].bytes());
    let halves = payloads(&[request, reply], 80);
    assert_eq!(halves.len(), 3);
    let sent = |index: usize, timestamp| data(index as u32, timestamp, &halves[index]);
    let frames =
        [sent(0, 1), sent(0, 1), sent(2, 3), sent(0, 900), sent(1, 901), sent(1, 2), sent(2, 3)];
    let packets = dissect(&frames);
    let of = |packet: &Packet| {
        [
            packet.values("dvk.duplicate_of").concat(),
            packet.values("dvk.retransmission_of").concat(),
        ]
    };
    let [none, one, three, five] = ["", "1", "3", "5"].map(str::to_owned);
    let found: Vec<_> = packets.iter().map(of).collect();
    assert_eq!(
        found,
        [
            [none.clone(), none.clone()],
            [one.clone(), none.clone()],
            [none.clone(), none.clone()],
            [none.clone(), one],
            [none.clone(), none.clone()],
            [none.clone(), five],
            [three, none],
        ]
    );
    let marked = |name: &str| -> Vec<_> {
        packets
            .iter()
            .filter(|packet| packet.fields.contains_key(name))
            .map(|packet| packet.number)
            .collect()
    };
    assert_eq!((marked("dvk.duplicate"), marked("dvk.retransmission")), (vec![2, 7], vec![4, 6]));
    // Both records are complete with the frame in the middle, once.
    let kinds: Vec<_> =
        packets.iter().map(|packet| packet.values("dvk.record.kind").to_vec()).collect();
    assert_eq!(kinds[4], ["2", "4"]);
    assert_eq!(kinds.concat().len(), 2, "{kinds:?}");
    assert_eq!(packets[3].info, "data seq 0: [retransmission of 1]; part of a record");
    assert_eq!(
        packets[5].info,
        "data seq 1: [retransmission of 5]; part of a record (see 5); part of a record (see 5)"
    );
}

#[test]
fn each_life_of_a_link_and_each_direction_has_its_own_numbers() {
    let records = records();
    let halves = payloads(&[records[1].bytes()], 80);
    let base = header(Kind::Data, 1);
    let (here, there) = (base.source, base.destination);
    let lives = [
        base,
        Header { cluster: base.cluster + (1 << 40), ..base },
        Header { source: there, destination: here, ..base },
        Header { source: Address { node: 1, ..here }, ..base },
        Header { source: Address { incarnation: 1, ..here }, ..base },
        Header { source: Address { stream: 1, ..here }, ..base },
        Header { destination: Address { node: 1, ..there }, ..base },
        Header { destination: Address { incarnation: 1, ..there }, ..base },
        Header { destination: Address { stream: 1, ..there }, ..base },
    ];
    let mut frames: Vec<_> = lives.iter().map(|header| frame(header, &halves[0])).collect();
    frames.extend(lives.iter().map(|header| frame(&Header { sequence: 2, ..*header }, &halves[1])));
    let packets = dissect(&frames);
    for (index, packet) in packets.iter().enumerate() {
        assert!(!packet.fields.contains_key("dvk.duplicate"), "{packet:?}");
        let second = index >= lives.len();
        assert_eq!(packet.values("dvk.record.kind").len(), usize::from(second));
        if second {
            let number = index + 1;
            let parts = [number - lives.len(), number].map(|number| number.to_string());
            assert_eq!(packet.values("dvk.record.part"), parts);
        }
    }
}

#[test]
fn records_without_beginning_or_end_are_neither_shown_nor_refused() {
    let record = long().bytes();
    let payloads = payloads(&[record], 4_096);
    let lost: Vec<_> = (0..payloads.len()).filter(|index| *index != 2).collect();
    let frames: Vec<_> =
        lost.iter().map(|index| data(*index as u32, 0, &payloads[*index])).collect();
    for packet in dissect(&frames) {
        assert!(!packet.is_refused() && packet.values("dvk.record.kind").is_empty(), "{packet:?}");
    }
}

#[test]
fn frames_that_do_not_continue_their_stream_are_refused() {
    let record = records()[1].bytes();
    let (beginning, end) = record.split_at(30);
    let refused = |payloads: &[Vec<u8>]| -> Vec<_> {
        let frames: Vec<_> =
            (0..).zip(payloads).map(|(sequence, payload)| data(sequence, 0, payload)).collect();
        dissect(&frames)
            .iter()
            .filter(|packet| packet.is_refused())
            .map(|packet| packet.number)
            .collect()
    };
    let (open, close) = (chunk(true, false, beginning), chunk(false, true, end));
    assert_eq!(refused(&[open.clone(), close.clone(), whole(&record)]), [0; 0]);
    assert_eq!(refused(&[open.clone(), whole(&record)]), [2]);
    assert_eq!(refused(&[whole(&record), close.clone()]), [2]);
    // Within a frame.
    let joined = |parts: &[&Vec<u8>]| parts.iter().flat_map(|part| part.iter().copied()).collect();
    assert_eq!(refused(&[joined(&[&open, &close])]), [0; 0]);
    assert_eq!(refused(&[joined(&[&open, &open])]), [1]);
    assert_eq!(refused(&[joined(&[&whole(&record), &close])]), [1]);
    // The longest record, and one that is longer.
    let Sample::Data(head, _) = long() else { unreachable!("it is of data") };
    for (bytes, expected) in [(MAX_RECORD_BYTES, vec![]), (MAX_RECORD_BYTES + 1, vec![9])] {
        let data = vec![0; bytes - 28];
        assert_eq!(refused(&payloads(&[Sample::Data(head, data).bytes()], 8_192)), expected);
    }
}
