// SPDX-License-Identifier: MIT OR Apache-2.0
//! The codec of frames and records: what is written is read again, and whatever bytes are read,
//! are those that would be written for it.

use dvk_abi::errno::Errno;
use dvk_abi::wire::frame::{
    Address, Chunk, Chunks, Frame, Greeting, Header, Kind, Versions, HEADER_BYTES,
    MAX_PAYLOAD_BYTES, MIN_PAYLOAD_BYTES,
};
use dvk_abi::wire::record::{Record, RECORD_BYTES};
use dvk_abi::wire::transfer::{CopyRecord, DataHead, DATA_HEAD_BYTES};

use crate::host::Counts;
use crate::hostile::spoil;
use crate::rng::Rng;

/// One round of each part of the codec.
pub(crate) fn case(rng: &mut Rng, counts: &mut Counts) -> Result<(), String> {
    frame(rng, counts)?;
    record(rng, counts)?;
    copy_record(rng, counts)?;
    data_record(rng, counts)?;
    chunks(rng, counts)?;
    greeting(rng, counts)
}

fn address(rng: &mut Rng) -> Address {
    let (incarnation, stream) = (rng.draw() as u32 | 1, rng.draw() as u32 | 1);
    Address { node: rng.draw() as u16, incarnation, stream }
}

fn header(rng: &mut Rng) -> Header {
    let kinds = [Kind::Hello, Kind::HelloAck, Kind::Data, Kind::Ack, Kind::Keepalive, Kind::Reset];
    let kind = rng.pick(&kinds);
    let version = if kind.is_greeting() { 1 } else { 1 + rng.below(2) as u8 };
    Header {
        version,
        kind,
        cluster: rng.draw(),
        source: address(rng),
        destination: address(rng),
        sequence: rng.draw() as u32,
        ack: rng.draw() as u32,
        selective: rng.draw(),
        window: rng.draw() as u16,
        timestamp: rng.draw() as u32,
        echo: rng.percent(50).then_some(rng.draw() as u32),
        asks: version == 2 && kind == Kind::Data && rng.percent(50),
    }
}

fn bytes(rng: &mut Rng, len: usize) -> Vec<u8> {
    (0..len).map(|_| rng.draw() as u8).collect()
}

fn frame(rng: &mut Rng, counts: &mut Counts) -> Result<(), String> {
    let header = header(rng);
    let len = match header.kind {
        Kind::Hello | Kind::HelloAck => Greeting::BYTES + rng.below(9) as usize,
        Kind::Data => 3 + rng.below(200) as usize,
        _ => 0,
    };
    let payload = bytes(rng, len);
    let mut out = vec![0; HEADER_BYTES + len + rng.below(8) as usize];
    let written = header.encode(&payload, &mut out).ok_or("a frame was not written")?;
    counts.call("frame written");
    match Frame::decode(&out) {
        Ok(frame) if frame.header == header && frame.payload == payload => {}
        other => return Err(format!("{header:?} was written and read as {other:?}")),
    }
    counts.call("frame read");
    out.truncate(written);
    if rng.percent(5) {
        out = bytes(rng, 200);
    }
    spoil(rng, &mut out);
    match Frame::decode(&out) {
        Ok(frame) => {
            counts.call(&format!("spoilt frame read: {:?}", frame.header.kind));
            let mut again = vec![0; HEADER_BYTES + frame.payload.len()];
            let written = frame.header.encode(frame.payload, &mut again);
            if written != Some(again.len()) || out[..again.len()] != again {
                return Err(format!("{out:02x?} was read, and is written as {again:02x?}"));
            }
        }
        Err(error) => {
            let text = format!("{error:?}");
            let kind = text.split('(').next().unwrap_or_default();
            counts.call(&format!("spoilt frame refused: {kind}"));
        }
    }
    Ok(())
}

/// The beginning of a record of this kind and length: most of its bytes are fields that may be
/// anything.
fn record_of(rng: &mut Rng, kind: u8, len: usize) -> Vec<u8> {
    let mut record = bytes(rng, len);
    (record[0], record[1]) = (kind, 0);
    if rng.percent(90) {
        for at in [8, 16] {
            name(&mut record[at..at + 8]);
        }
    }
    record
}

/// Makes it an endpoint: a slot in range and a generation.
fn name(endpoint: &mut [u8]) {
    (endpoint[2], endpoint[3], endpoint[4]) = (0, 0, 1);
}

/// What a result is called that begins with its kind.
fn kind_of(result: &impl std::fmt::Debug) -> String {
    let text = format!("{result:?}");
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn record(rng: &mut Rng, counts: &mut Counts) -> Result<(), String> {
    let kind = rng.below(14) as u8;
    let mut record = record_of(rng, kind, RECORD_BYTES);
    if rng.percent(50) {
        // A notification is of no call.
        record[4..8].fill(0);
    }
    if rng.percent(50) {
        // An errno, and privileges that exist.
        record[24] = rng.pick(Errno::ALL).raw();
        record[41..44].fill(0);
    }
    record.truncate(rng.pick(&[RECORD_BYTES, 24, 25, 32, 44]));
    if rng.percent(30) {
        spoil(rng, &mut record);
    }
    match Record::decode(&record) {
        Ok(read) => {
            counts.call(&format!("record read: {}", kind_of(&read.step)));
            let mut again = [0; RECORD_BYTES];
            let written = read.encode(&mut again);
            if record != again[..written] {
                return Err(format!("{record:02x?} was read, and is written as {again:02x?}"));
            }
        }
        Err(error) => counts.call(&format!("record refused: {error:?}")),
    }
    Ok(())
}

fn copy_record(rng: &mut Rng, counts: &mut Counts) -> Result<(), String> {
    let kind = 19 + rng.below(10) as u8;
    let len = rng.pick(&[24, 29, 52, 76]);
    let mut record = record_of(rng, kind, len);
    if len > 36 && rng.percent(80) {
        // A part that is not too long, and is the beginning of more.
        (record[26], record[27], record[35]) = (0, 0, 1);
    }
    if len == 76 && rng.percent(80) {
        name(&mut record[52..60]);
    }
    if len == 29 && rng.percent(80) {
        record[28] = rng.pick(&[0, Errno::Fault.raw(), Errno::Denied.raw()]);
    }
    if rng.percent(30) {
        spoil(rng, &mut record);
    }
    match CopyRecord::decode(&record) {
        Ok(read) => {
            counts.call(&format!("copy record read: {}", kind_of(&read.step)));
            let mut again = [0; RECORD_BYTES];
            let written = read.encode(&mut again);
            if record != again[..written] {
                return Err(format!("{record:02x?} was read, and is written as {again:02x?}"));
            }
        }
        Err(error) => counts.call(&format!("copy record refused: {error:?}")),
    }
    Ok(())
}

fn data_record(rng: &mut Rng, counts: &mut Counts) -> Result<(), String> {
    let (kind, len) = (23 + rng.below(4) as u8, DATA_HEAD_BYTES + rng.below(40) as usize);
    let mut record = record_of(rng, kind, len);
    if rng.percent(30) {
        spoil(rng, &mut record);
    }
    let begins = DataHead::begins(&record);
    match DataHead::decode(&record) {
        Ok((head, data)) => {
            counts.call(&format!("data record read: {:?}", head.flow));
            if !begins || head.encode() != record[..DATA_HEAD_BYTES] {
                return Err(format!("{record:02x?} was read as {head:?}"));
            }
            if data != &record[DATA_HEAD_BYTES..] {
                return Err(format!("{record:02x?} was read with the data {data:02x?}"));
            }
        }
        Err(error) => counts.call(&format!("data record refused: {error:?}")),
    }
    Ok(())
}

fn chunks(rng: &mut Rng, counts: &mut Counts) -> Result<(), String> {
    let mut payload = Vec::new();
    for _ in 0..1 + rng.below(4) {
        let len = 1 + rng.below(100) as usize;
        let data = bytes(rng, len);
        let chunk = Chunk { first: rng.percent(50), last: rng.percent(50), data: &data };
        let mut out = vec![0; data.len() + 2];
        let written = chunk.encode(&mut out).ok_or("a chunk was not written")?;
        payload.extend(&out[..written]);
    }
    spoil(rng, &mut payload);
    match Chunks::new(&payload) {
        Ok(chunks) => {
            counts.call("chunks read");
            let mut again: Vec<u8> = Vec::new();
            for chunk in chunks {
                let mut out = vec![0; MAX_PAYLOAD_BYTES];
                let written = chunk.encode(&mut out).ok_or("a chunk was read, not written")?;
                again.extend(&out[..written]);
            }
            if again != payload {
                return Err(format!("{payload:02x?} was read, and is written as {again:02x?}"));
            }
        }
        Err(error) => counts.call(&format!("chunks refused: {error:?}")),
    }
    Ok(())
}

fn greeting(rng: &mut Rng, counts: &mut Counts) -> Result<(), String> {
    let versions = Versions { min: 1 + rng.below(3) as u8, max: 4 + rng.below(100) as u8 };
    let sizes = (MAX_PAYLOAD_BYTES - MIN_PAYLOAD_BYTES) as u64 + 1;
    let payload_bytes = (MIN_PAYLOAD_BYTES as u64 + rng.below(sizes)) as u16;
    let greeting = Greeting { versions, payload_bytes };
    let mut written = greeting.encode().to_vec();
    if Greeting::decode(&written) != Ok(greeting) {
        return Err(format!("{greeting:?} was written and not read again"));
    }
    spoil(rng, &mut written);
    match Greeting::decode(&written) {
        Ok(read) => {
            counts.call("greeting read");
            // What follows the known fields is for later versions.
            if read.encode()[..4] != written[..4] {
                return Err(format!("{written:02x?} was read as {read:?}"));
            }
        }
        Err(error) => counts.call(&format!("greeting refused: {error:?}")),
    }
    Ok(())
}
