// SPDX-License-Identifier: MIT OR Apache-2.0
//! Frames and records of every kind, written by the encoder of `dvk-abi`, and captures of them.

use core::num::NonZeroU32;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::Duration;

use dvk_abi::errno::Errno;
use dvk_abi::ioctl::{Privileges, MAY_ALL, MAY_COPY, MAY_SEND};
use dvk_abi::message::{Message, PAYLOAD_BYTES};
use dvk_abi::wire::frame::{Address, Chunk, Header, Kind, HEADER_BYTES, MAX_PAYLOAD_BYTES};
use dvk_abi::wire::record::{Record, Step, RECORD_BYTES};
use dvk_abi::wire::transfer::{CopyHead, CopyRecord, CopyStep, DataHead, Flow, Place};
use dvk_abi::wire::ETHERTYPE;
use dvk_abi::Endpoint;
use dvs_qemu::pcap::Pcap;
use tempfile::TempDir;

/// What a record can be.
#[derive(Clone, Debug)]
pub(super) enum Sample {
    Step(Record),
    Copy(CopyRecord),
    Data(DataHead, Vec<u8>),
}

impl Sample {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut out = [0; RECORD_BYTES];
        match self {
            Self::Step(record) => {
                let length = record.encode(&mut out);
                out[..length].to_vec()
            }
            Self::Copy(record) => {
                let length = record.encode(&mut out);
                out[..length].to_vec()
            }
            Self::Data(head, data) => [&head.encode()[..], data].concat(),
        }
    }
}

pub(super) fn endpoint(slot: u32, generation: u32) -> Endpoint {
    Endpoint::new(slot, NonZeroU32::new(generation).expect("generations are not 0"))
}

pub(super) fn message(source: Endpoint, seed: u8) -> Message {
    let mut message = Message {
        source: source.raw(),
        kind: 0x0102_0304 + u32::from(seed),
        flags: 0x8000_0000 | u32::from(seed),
        payload: [0; PAYLOAD_BYTES],
    };
    for (index, byte) in message.payload.iter_mut().enumerate() {
        *byte = (index as u8).wrapping_mul(7).wrapping_add(seed);
    }
    message
}

/// Records of every kind, no two with the same value in a field unless there are few values.
pub(super) fn records() -> Vec<Sample> {
    let notification = Message::notification(endpoint(1, 1), 0xf0f0);
    let privileges = |to: Endpoint, calls| Privileges {
        endpoint: to.raw(),
        servers: 0x8000_0000_0000_0001,
        notify: u64::MAX,
        calls,
        flags: 0,
    };
    let to = endpoint(3, 0xffff_fffe);
    let steps = [
        Step::Send { call: 1, message: message(Endpoint::SELF, 1) },
        Step::Request { call: 2, message: message(endpoint(70, 3), 2) },
        Step::Reply { call: u32::MAX, message: notification },
        Step::Accepted { call: 3 },
        Step::Failed { call: 4, error: Errno::NoEndpoint },
        Step::Cancel { call: 5 },
        Step::Cancelled { call: 6 },
        Step::Watch { call: 7 },
        Step::Notify { bits: 0x1_0000_0002 },
        Step::Returned { call: 0, bits: 1 << 63, epoch: 9 },
        Step::Returned { call: 8, bits: 0, epoch: 10 },
        Step::Fence { call: 11 },
        Step::Fenced { call: 12 },
        Step::AwaitBind { call: 13 },
        Step::Bound { call: 14 },
        Step::Privilege { call: 15, privileges: privileges(to, MAY_ALL) },
        Step::Privilege { call: 16, privileges: privileges(to, MAY_SEND | MAY_COPY) },
    ];
    let from = endpoint(65_535, 1);
    let mut samples: Vec<_> = (0u16..)
        .zip(steps)
        .map(|(number, step)| {
            let container = u16::MAX - number;
            Sample::Step(Record { container, from, to, step })
        })
        .collect();
    let place = |grant, offset| Place { grant, offset };
    let copies = [
        CopyStep::CopyFrom { source: place(0x1_0000_0001, 4096), len: 100, rest: 1 << 40 },
        CopyStep::CopyTo { destination: place(u64::MAX, 1 << 33), len: 262_144, rest: 262_144 },
        CopyStep::CopyBetween {
            source: place(2, 3),
            receiver: endpoint(9, 8),
            destination: place(5, 6),
            len: u32::MAX,
            rest: u64::MAX,
        },
        CopyStep::Open,
        CopyStep::Stop,
        CopyStep::Done { copied: 99, error: None },
        CopyStep::Done { copied: 98, error: Some(Errno::Limit) },
    ];
    let head = |call| CopyHead { container: 7, call, from: endpoint(64, 2), to: endpoint(65, 4) };
    samples.extend((100..).zip(copies).map(|(call, step)| {
        let head = head(call);
        Sample::Copy(CopyRecord { head, step })
    }));
    for (call, flow, offset, bytes) in
        [(200, Flow::Supplied, 0, 30), (201, Flow::Stored, 16_384, 5), (202, Flow::Stored, 1, 0)]
    {
        let data = (0..bytes).map(|index: u32| (index * 3) as u8).collect();
        samples.push(Sample::Data(DataHead { head: head(call), flow, offset }, data));
    }
    samples
}

/// A header whose fields all differ.
pub(super) fn header(kind: Kind, sequence: u32) -> Header {
    Header {
        version: 1,
        kind,
        cluster: 0x0102_0304_0506_0708,
        source: Address { node: 9, incarnation: 10, stream: 11 },
        destination: Address { node: 65_535, incarnation: 13, stream: 14 },
        sequence,
        ack: 15,
        selective: 0,
        window: 64,
        timestamp: 16,
        echo: None,
        asks: false,
    }
}

/// A frame with this payload.
pub(super) fn frame(header: &Header, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0; HEADER_BYTES + payload.len()];
    header.encode(payload, &mut out).expect("the payload is not too long");
    out
}

/// A chunk.
pub(super) fn chunk(first: bool, last: bool, data: &[u8]) -> Vec<u8> {
    let mut out = vec![0; MAX_PAYLOAD_BYTES];
    let length = Chunk { first, last, data }.encode(&mut out).expect("the data is not too long");
    out[..length].to_vec()
}

/// A whole record in a chunk of its own.
pub(super) fn whole(data: &[u8]) -> Vec<u8> {
    chunk(true, true, data)
}

/// A data frame of this payload, sent at `timestamp`.
pub(super) fn data(sequence: u32, timestamp: u32, payload: &[u8]) -> Vec<u8> {
    frame(&Header { timestamp, ..header(Kind::Data, sequence) }, payload)
}

/// The chunks of records that share frames of at most `most` bytes of payload: one payload each.
pub(super) fn payloads(records: &[Vec<u8>], most: usize) -> Vec<Vec<u8>> {
    let mut payloads = vec![Vec::new()];
    for record in records {
        let mut rest = &record[..];
        while !rest.is_empty() {
            let mut payload: Vec<u8> = payloads.pop().expect("there is always one");
            let room = most.saturating_sub(payload.len() + 2);
            let (part, later) = rest.split_at(rest.len().min(room));
            if !part.is_empty() {
                let first = rest.len() == record.len();
                payload.extend(chunk(first, later.is_empty(), part));
            }
            payloads.push(payload);
            if !later.is_empty() {
                payloads.push(Vec::new());
            }
            rest = later;
        }
    }
    payloads
}

/// A capture on disk, for as long as it lives.
pub(super) struct Capture {
    _directory: TempDir,
    pub(super) path: PathBuf,
}

impl Capture {
    /// Captures frames of the DVK.
    pub(super) fn of(frames: &[Vec<u8>]) -> Self {
        Self::cut(frames, usize::MAX)
    }

    /// Captures no more than `most` bytes of each Ethernet frame.
    pub(super) fn cut(frames: &[Vec<u8>], most: usize) -> Self {
        let directory = tempfile::tempdir().expect("there is room for a directory");
        let path = directory.path().join("frames.pcap");
        let mut bytes = Vec::new();
        Pcap::new(&mut bytes).expect("writing to memory does not fail");
        for (milliseconds, frame) in (0..).zip(frames) {
            let frame = [
                &[0x52, 0x54, 0, 0xd5, 0, 1, 0x52, 0x54, 0, 0xd5, 0, 0][..],
                &ETHERTYPE.to_be_bytes(),
                frame,
            ]
            .concat();
            // The writer keeps what it is given. What a record says of the frame's true length is in its last four bytes of head.
            let mut capture = Vec::new();
            let time = Duration::from_millis(milliseconds);
            let mut pcap = Pcap::new(&mut capture).expect("writing to memory does not fail");
            let kept = &frame[..frame.len().min(most)];
            pcap.record(time, kept).expect("writing to memory does not fail");
            let mut record = capture.split_off(24);
            record[12..16].copy_from_slice(&(frame.len() as u32).to_le_bytes());
            bytes.extend(record);
        }
        let mut out = BufWriter::new(File::create(&path).expect("the directory is ours"));
        out.write_all(&bytes).and_then(|()| out.flush()).expect("there is room for a capture");
        Self { _directory: directory, path }
    }
}
