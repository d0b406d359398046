// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the codec refuses, and only that, is marked.

use dvk_abi::errno::Errno;
use dvk_abi::ioctl::MAY_ALL;
use dvk_abi::wire::frame::{
    Chunks, Frame, FrameError, Greeting, Header, Kind, Versions, MAX_PAYLOAD_BYTES,
};
use dvk_abi::wire::record::{Record, RecordError, Step};
use dvk_abi::wire::transfer::{self, CopyRecord, DataHead, MAX_PART_BYTES};

use super::dissect;
use super::samples::{data, endpoint, frame, header, records, whole, Capture, Sample};

/// What a node makes of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Taken,
    Malformed,
    UnknownKind,
    UnknownVersion,
    /// It does not even begin like a frame.
    Foreign,
}

/// What the driver makes of a whole record: `take_chunk` and `take_record` in `dvk/kmod/peer.rs`.
fn of_record(bytes: &[u8]) -> Verdict {
    let taken = |taken| if taken { Verdict::Taken } else { Verdict::Malformed };
    if DataHead::begins(bytes) {
        taken(DataHead::decode(bytes).is_ok())
    } else if bytes.first().is_some_and(|kind| transfer::KINDS.contains(kind)) {
        taken(CopyRecord::decode(bytes).is_ok())
    } else {
        match Record::decode(bytes) {
            Err(RecordError::Kind) => Verdict::UnknownKind,
            record => taken(record.is_ok()),
        }
    }
}

/// What a node makes of a frame that comes alone, and of the whole records in it.
fn of_frame(bytes: &[u8]) -> Verdict {
    let frame = match Frame::decode(bytes) {
        Ok(frame) => frame,
        Err(FrameError::Magic) => return Verdict::Foreign,
        Err(FrameError::Kind(_)) => return Verdict::UnknownKind,
        Err(FrameError::Version(_)) => return Verdict::UnknownVersion,
        Err(_) => return Verdict::Malformed,
    };
    if frame.header.kind.is_greeting() {
        return Greeting::decode(frame.payload).map_or(Verdict::Malformed, |_| Verdict::Taken);
    }
    let Ok(chunks) = Chunks::new(frame.payload) else { return Verdict::Malformed };
    let mut open = None;
    let mut verdict = Verdict::Taken;
    for chunk in chunks {
        if open.is_some_and(|open| open == chunk.first) {
            return Verdict::Malformed;
        }
        open = Some(!chunk.last);
        if chunk.first && chunk.last && verdict == Verdict::Taken {
            verdict = of_record(chunk.data);
        }
    }
    verdict
}

/// Compares what the dissector makes of frames, none of which continues another, with what a node does.
fn compare(frames: &[Vec<u8>]) {
    let mut counts = [0; 5];
    for (packet, bytes) in dissect(frames).iter().zip(frames) {
        let verdict = of_frame(bytes);
        let marks = ["dvk.malformed", "dvk.unknown_kind", "dvk.unknown_version"]
            .map(|name| packet.fields.contains_key(name));
        let is_ours = packet.protocols.ends_with(":dvk");
        let found = match (is_ours, marks) {
            (false, [false, false, false]) => Some(Verdict::Foreign),
            (true, [false, false, false]) => Some(Verdict::Taken),
            (true, [true, false, false]) => Some(Verdict::Malformed),
            (true, [false, true, false]) => Some(Verdict::UnknownKind),
            (true, [false, false, true]) => Some(Verdict::UnknownVersion),
            _ => None,
        };
        assert_eq!(found, Some(verdict), "{bytes:02x?}: {packet:?}");
        assert_eq!(packet.is_refused(), is_ours && verdict != Verdict::Taken);
        counts[verdict as usize] += 1;
    }
    println!(
        "{} frames; taken, malformed, of unknown kind, version, foreign: {counts:?}",
        frames.len()
    );
}

/// Versions of `bytes` with one byte changed, cut short anywhere, or with one more at the end.
fn damaged(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all: Vec<_> = (0..bytes.len()).map(|length| bytes[..length].to_vec()).collect();
    all.push([bytes, &[0]].concat());
    for at in 0..bytes.len() {
        let changes: [fn(u8) -> u8; 4] = [|_| 0, |_| 0xff, |byte| byte ^ 1, |byte| byte ^ 0x40];
        for change in changes {
            let mut damaged = bytes.to_vec();
            damaged[at] = change(damaged[at]);
            all.push(damaged);
        }
    }
    all
}

/// A frame for each payload, far from each other in their stream.
fn apart<'a>(payloads: impl IntoIterator<Item = &'a Vec<u8>>) -> Vec<Vec<u8>> {
    (0..).step_by(2).zip(payloads).map(|(sequence, payload)| data(sequence, 0, payload)).collect()
}

#[test]
fn damaged_frames() {
    let greeting = Greeting { versions: Versions::SUPPORTED, payload_bytes: 1_436 };
    let payload = [whole(&records()[1].bytes()), whole(&records()[3].bytes())].concat();
    let mut frames = Vec::new();
    for kind in [Kind::Hello, Kind::HelloAck, Kind::Data, Kind::Ack, Kind::Keepalive, Kind::Reset] {
        let payload = match kind {
            Kind::Hello | Kind::HelloAck => greeting.encode().to_vec(),
            Kind::Data => payload.clone(),
            Kind::Ack | Kind::Keepalive | Kind::Reset => Vec::new(),
        };
        for echo in [None, Some(0x0101_0101)] {
            let older = Header { selective: 3, echo, ..header(kind, 16) };
            frames.extend(damaged(&frame(&older, &payload)));
            if !kind.is_greeting() {
                let newer = Header { version: 2, asks: kind == Kind::Data, ..older };
                frames.extend(damaged(&frame(&newer, &payload)));
            }
        }
    }
    // Of a single byte nobody can say whose it is.
    frames.retain(|frame| frame.len() >= 2);
    compare(&frames);
}

#[test]
fn damaged_chunks() {
    let payload = [whole(&records()[3].bytes()), whole(&records()[5].bytes())].concat();
    // An empty payload is that of a damaged frame.
    compare(&apart(damaged(&payload).iter().filter(|payload| payload.len() > 2)));
}

#[test]
fn damaged_records() {
    let damaged: Vec<_> = records().iter().flat_map(|sample| damaged(&sample.bytes())).collect();
    let whole: Vec<_> =
        damaged.iter().filter(|bytes| !bytes.is_empty()).map(|bytes| whole(bytes)).collect();
    compare(&apart(&whole));
}

#[test]
fn values_at_the_edge_of_what_may_be() {
    let greeting = |min, max, payload_bytes| {
        let greeting = Greeting { versions: Versions { min, max }, payload_bytes };
        frame(&header(Kind::Hello, 1), &greeting.encode())
    };
    let mut frames =
        vec![greeting(0, 1, 512), greeting(1, 1, 512), greeting(2, 1, 512), greeting(1, 2, 512)];
    frames.extend([0, 511, 512, 16_384, 16_385, u16::MAX].map(|bytes| greeting(1, 1, bytes)));
    // The longest payload, and one that no encoder writes.
    let longest = whole(&vec![0; MAX_PAYLOAD_BYTES - 2]);
    let mut longer = [data(4, 0, &longest), vec![0; 8]].concat();
    frames.push(longer.clone());
    longer[6..8].copy_from_slice(&(MAX_PAYLOAD_BYTES as u16 + 1).to_le_bytes());
    frames.push(longer);
    compare(&frames);

    let mut edges = Vec::new();
    for sample in records() {
        let bytes = sample.bytes();
        let mut with = |at: usize, value: u32| {
            let mut bytes = bytes.clone();
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            edges.push(whole(&bytes));
        };
        match sample {
            Sample::Step(Record { step: Step::Privilege { .. }, .. }) => {
                [0, MAY_ALL, MAY_ALL + 1, 1 << 31].into_iter().for_each(|value| with(40, value));
            }
            Sample::Copy(CopyRecord { step, .. }) if step.begins() => {
                let lengths = [0, 99, 100, 101, MAX_PART_BYTES, MAX_PART_BYTES + 1, u32::MAX];
                lengths.into_iter().for_each(|value| with(24, value));
            }
            _ => {}
        }
        for value in [0, 65_535, 65_536, u32::MAX] {
            with(8, value);
            with(16, value);
        }
    }
    compare(&apart(&edges));
}

#[test]
fn the_kinds_of_frames_are_those_of_the_codec() {
    let mut frames = Vec::new();
    for kind in 0..=u8::MAX {
        let mut frame = frame(&header(Kind::Ack, 1), &[]);
        frame[3] = kind;
        frames.push(frame);
    }
    compare(&frames);
}

#[test]
fn the_kinds_of_records_are_those_of_the_codec() {
    let head = records()[3].bytes();
    let of_kind = |kind| [&[kind], &head[1..]].concat();
    let payloads: Vec<_> = (0..=u8::MAX).map(|kind| whole(&of_kind(kind))).collect();
    compare(&apart(&payloads));
    // And the tests have a sample of each.
    let known = (0..=u8::MAX).filter(|kind| of_record(&of_kind(*kind)) != Verdict::UnknownKind);
    let mut samples: Vec<_> = records().iter().map(|sample| sample.bytes()[0]).collect();
    samples.sort_unstable();
    samples.dedup();
    assert_eq!(known.collect::<Vec<_>>(), samples);
}

#[test]
fn the_errors_are_those_of_the_codec() {
    let step = Step::Failed { call: 1, error: Errno::Stale };
    let record = Record { container: 0, from: endpoint(1, 1), to: endpoint(2, 1), step };
    let mut bytes = Sample::Step(record).bytes();
    let payloads: Vec<_> = (0..=u8::MAX)
        .map(|error| {
            *bytes.last_mut().expect("a record is not empty") = error;
            whole(&bytes)
        })
        .collect();
    let frames = apart(&payloads);
    compare(&frames);
    for (raw, packet) in (0..=u8::MAX).zip(dissect(&frames)) {
        if let Some(error) = Errno::from_raw(raw) {
            let end = format!(" call 1: {}", error.name());
            assert!(packet.info.ends_with(&end), "{}", packet.info);
        }
    }
}

#[test]
fn frames_that_were_captured_in_part_are_not_malformed() {
    let frame = data(1, 0, &whole(&records()[1].bytes()));
    for most in [20, 14 + 63, 14 + 64, 14 + frame.len() - 1] {
        let packets = super::read(&Capture::cut(std::slice::from_ref(&frame), most), false);
        let [packet] = &packets[..] else { panic!("{packets:?}") };
        assert!(!packet.is_refused() && packet.fields.contains_key("dvk.cut"), "{packet:?}");
    }
    assert!(!dissect(&[frame])[0].fields.contains_key("dvk.cut"));
}
