// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The frame codec: what is written is read back, and any bytes are read or refused.

use dvk_abi::wire::frame::{
    Address, Chunk, Chunks, Frame, FrameError, Greeting, Header, Kind, Versions, HEADER_BYTES,
    MAGIC, MAX_PAYLOAD_BYTES, MIN_PAYLOAD_BYTES,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

const KINDS: [Kind; 6] =
    [Kind::Hello, Kind::HelloAck, Kind::Data, Kind::Ack, Kind::Keepalive, Kind::Reset];

fn address() -> impl Strategy<Value = Address> {
    (any::<u16>(), 1u32.., 1u32..).prop_map(|(node, incarnation, stream)| Address {
        node,
        incarnation,
        stream,
    })
}

fn header() -> impl Strategy<Value = Header> {
    let numbers = (any::<u64>(), any::<u32>(), any::<u32>(), any::<u64>());
    let rest = (any::<u16>(), any::<u32>(), option::of(any::<u32>()), any::<[bool; 2]>());
    (prop::sample::select(&KINDS[..]), address(), address(), numbers, rest).prop_map(
        |(kind, source, mut destination, numbers, (window, timestamp, echo, [newer, asks]))| {
            let (cluster, sequence, ack, selective) = numbers;
            if kind == Kind::Hello {
                destination.stream &= 1;
            }
            let newer = newer && !kind.is_greeting();
            Header {
                version: if newer { 2 } else { 1 },
                kind,
                cluster,
                source,
                destination,
                sequence,
                ack,
                selective,
                window,
                timestamp,
                echo,
                asks: asks && newer && kind == Kind::Data,
            }
        },
    )
}

/// A header and a payload that suits its kind, though its content may not.
fn parts() -> impl Strategy<Value = (Header, Vec<u8>)> {
    (header(), vec(any::<u8>(), 8..200)).prop_map(|(header, mut payload)| {
        if matches!(header.kind, Kind::Ack | Kind::Keepalive | Kind::Reset) {
            payload.clear();
        }
        (header, payload)
    })
}

fn written(header: &Header, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0xaa; HEADER_BYTES + payload.len()];
    assert_eq!(header.encode(payload, &mut out), Some(out.len()));
    out
}

proptest! {
    #[test]
    fn what_is_written_is_read_back((header, payload) in parts(), padding in vec(any::<u8>(), 0..60)) {
        let mut bytes = written(&header, &payload);
        bytes.extend(padding);
        prop_assert_eq!(Frame::decode(&bytes), Ok(Frame { header, payload: &payload }));
    }

    #[test]
    fn a_truncated_frame_is_refused((header, payload) in parts(), cut in any::<prop::sample::Index>()) {
        let bytes = written(&header, &payload);
        let cut = cut.index(bytes.len());
        prop_assert_eq!(Frame::decode(&bytes[..cut]), Err(FrameError::Truncated));
    }

    #[test]
    fn any_bytes_are_refused_or_what_a_header_writes(bytes in vec(any::<u8>(), 0..200)) {
        canonical(&bytes)?;
    }

    #[test]
    fn changed_bytes_are_refused_or_what_a_header_writes(
        (header, payload) in parts(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = written(&header, &payload);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        canonical(&bytes)?;
    }

    #[test]
    fn chunks_are_read_back(chunks in vec((any::<bool>(), any::<bool>(), vec(any::<u8>(), 1..50)), 0..20)) {
        let mut payload = vec![0; 2000];
        let mut at = 0;
        for (first, last, data) in &chunks {
            let chunk = Chunk { first: *first, last: *last, data };
            at += chunk.encode(&mut payload[at..]).expect("it fits");
        }
        let read = Chunks::new(&payload[..at]).expect("they fill it");
        let read: Vec<_> = read.map(|chunk| (chunk.first, chunk.last, chunk.data.to_vec())).collect();
        prop_assert_eq!(read, chunks);
    }

    #[test]
    fn chunks_of_any_bytes_fill_them_or_are_refused(payload in vec(0u8..20, 0..100)) {
        if let Ok(chunks) = Chunks::new(&payload) {
            let mut out = vec![0; payload.len()];
            let mut at = 0;
            for chunk in chunks {
                prop_assert!(!chunk.data.is_empty());
                at += chunk.encode(&mut out[at..]).expect("it fits");
            }
            prop_assert_eq!(at, payload.len());
            prop_assert_eq!(out, payload);
        }
    }

    #[test]
    fn greetings_are_read_back_or_refused(payload in vec(any::<u8>(), 0..12)) {
        match Greeting::decode(&payload) {
            Ok(greeting) => prop_assert_eq!(&greeting.encode()[..4], &payload[..4]),
            Err(FrameError::Payload) => prop_assert!(payload.len() < Greeting::BYTES),
            Err(error) => prop_assert_eq!(error, FrameError::Field),
        }
    }
}

/// Whatever is read writes the bytes it was read from: no two encodings mean the same.
fn canonical(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(frame) = Frame::decode(bytes) {
        let again = written(&frame.header, frame.payload);
        prop_assert_eq!(&bytes[..again.len()], &again[..]);
    }
    Ok(())
}

fn sample() -> (Header, [u8; 5]) {
    let header = Header {
        version: 1,
        kind: Kind::Data,
        cluster: 0x0807_0605_0403_0201,
        source: Address { node: 0x1211, incarnation: 0x2423_2221, stream: 0x3433_3231 },
        destination: Address { node: 0x1413, incarnation: 0x2827_2625, stream: 0x3837_3635 },
        sequence: 0x4443_4241,
        ack: 0x4847_4645,
        selective: 0x6867_6665_6463_6261,
        window: 0x7271,
        timestamp: 0x5453_5251,
        echo: Some(0x5857_5655),
        asks: false,
    };
    (header, [3, 0xc0, b'a', b'b', b'c'])
}

/// The layout, byte by byte, as `docs/wire-protocol.md` has it.
#[test]
fn the_layout_is_fixed() {
    let (header, payload) = sample();
    let bytes = written(&header, &payload);
    let mut expected = vec![0x44, 0x56, 1, 3, 1, 0, 5, 0];
    expected.extend(0x01..=0x08);
    expected.extend(0x11..=0x14);
    expected.extend(0x21..=0x28);
    expected.extend(0x31..=0x38);
    expected.extend(0x41..=0x48);
    expected.extend(0x51..=0x54);
    expected.extend(0x61..=0x68);
    expected.extend(0x55..=0x58);
    expected.extend([0x71, 0x72, 0, 0]);
    expected.extend(payload);
    assert_eq!(bytes, expected);
    assert_eq!(MAGIC.to_le_bytes(), *b"DV");
    let greeting = Greeting { versions: Versions { min: 1, max: 2 }, payload_bytes: 0x0434 };
    assert_eq!(greeting.encode(), [1, 2, 0x34, 4, 0, 0, 0, 0]);
}

#[test]
fn each_defect_has_its_error() {
    let (header, payload) = sample();
    let good = written(&header, &payload);
    let refused = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        Frame::decode(&bytes).expect_err("it is defect")
    };
    assert_eq!(refused(0, 0), FrameError::Magic);
    assert_eq!(refused(2, 0), FrameError::Version(0));
    assert_eq!(refused(2, 3), FrameError::Version(3));
    assert_eq!(refused(3, 0), FrameError::Kind(0));
    assert_eq!(refused(3, 7), FrameError::Kind(7));
    assert_eq!(refused(3, 4), FrameError::Payload);
    assert_eq!(refused(3, 1), FrameError::Payload);
    assert_eq!(refused(4, 3), FrameError::Field);
    assert_eq!(refused(4, 0), FrameError::Field);
    assert_eq!(refused(5, 1), FrameError::Field);
    assert_eq!(refused(6, 2), FrameError::Payload);
    assert_eq!(refused(6, 6), FrameError::Truncated);
    assert_eq!(refused(7, 0x41), FrameError::Payload);
    assert_eq!(refused(62, 1), FrameError::Field);
    // What only later versions know, and what only data may do.
    let newer = written(&Header { version: 2, asks: true, ..header }, &payload);
    assert!(Frame::decode(&newer).expect("it is good").header.asks);
    let mut keepalive = written(&Header { version: 2, kind: Kind::Keepalive, ..header }, &[]);
    assert!(Frame::decode(&keepalive).is_ok());
    keepalive[4] |= 2;
    assert_eq!(Frame::decode(&keepalive), Err(FrameError::Field));
    for zero in [20, 24, 28, 32] {
        let mut bytes = good.clone();
        bytes[zero..zero + 4].fill(0);
        assert_eq!(Frame::decode(&bytes), Err(FrameError::Field));
    }
}

#[test]
fn what_does_not_fit_is_not_written() {
    let (header, payload) = sample();
    let mut short = [9; HEADER_BYTES + 4];
    assert_eq!(header.encode(&payload, &mut short), None);
    assert_eq!(short, [9; HEADER_BYTES + 4]);
    let mut long = vec![0; 40_000];
    assert_eq!(header.encode(&[1; MAX_PAYLOAD_BYTES + 1], &mut long), None);
    assert!(header.encode(&[1; MAX_PAYLOAD_BYTES], &mut long).is_some());
    let whole = |data| Chunk { first: true, last: true, data };
    assert_eq!(whole(&[]).encode(&mut long), None);
    assert_eq!(whole(&[1; MAX_PAYLOAD_BYTES - 1]).encode(&mut long), None);
    assert_eq!(whole(&[1; MAX_PAYLOAD_BYTES - 2]).encode(&mut long), Some(MAX_PAYLOAD_BYTES));
    assert_eq!(whole(&[1; 3]).encode(&mut [0; 4]), None);
}

#[test]
fn greetings_say_what_can_be() {
    let greeting = |min, max, bytes: usize| {
        let payload_bytes = bytes as u16;
        Greeting::decode(&Greeting { versions: Versions { min, max }, payload_bytes }.encode())
    };
    assert!(greeting(1, 1, MIN_PAYLOAD_BYTES).is_ok());
    assert!(greeting(1, 255, MAX_PAYLOAD_BYTES).is_ok());
    assert_eq!(greeting(0, 1, 1400), Err(FrameError::Field));
    assert_eq!(greeting(2, 1, 1400), Err(FrameError::Field));
    assert_eq!(greeting(1, 1, MIN_PAYLOAD_BYTES - 1), Err(FrameError::Field));
    assert_eq!(greeting(1, 1, MAX_PAYLOAD_BYTES + 1), Err(FrameError::Field));
    // A later version may say more.
    let longer = [1, 1, 0, 4, 9, 9, 9, 9, 9, 9];
    assert_eq!(Greeting::decode(&longer).map(|greeting| greeting.payload_bytes), Ok(1024));
}

#[test]
fn the_newest_common_version_is_agreed_upon() {
    let range = |min, max| Versions { min, max };
    assert_eq!(range(1, 1).agree(range(1, 1)), Some(1));
    assert_eq!(range(1, 2).agree(range(2, 3)), Some(2));
    assert_eq!(range(1, 5).agree(range(2, 3)), Some(3));
    assert_eq!(range(1, 1).agree(range(2, 3)), None);
    assert_eq!(range(2, 3).agree(range(1, 1)), None);
}
