// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a client may ask of a device without replicas, and what it is told.

use crate::lab::{refusal, Desk, Lab};
use core::time::Duration;
use dvk::{Endpoint, GrantId, Timeout};
use mol_protocol::block::{self, BlockClient, DURABLE, OPEN_EXCLUSIVE, OPEN_WRITE, READ_ONLY};
use mol_protocol::segment::{self, Segment};
use mol_protocol::Errno;
use mol_vdd::lend::Lend;
use mol_vdd::server::{SEGMENTS_MAX, TRANSFER_MAX};
use mol_vdd::store::{FileStore, Intent, MemoryStore};
use std::rc::Rc;

const BYTES: u64 = 1 << 22;

fn memory() -> Box<MemoryStore> {
    Box::new(MemoryStore::new(BYTES, 1024).unwrap())
}

fn one_device() -> (Rc<Lab>, Endpoint, Desk) {
    let lab = Lab::new();
    let server = lab.start(vec![memory()]);
    let client = lab.client();
    (lab, server, client)
}

fn at(desk: &Desk, server: Endpoint) -> BlockClient<'_, Desk> {
    BlockClient::new(desk, server).within(Timeout::After(Duration::from_secs(1)))
}

fn write(desk: &Desk, server: Endpoint, position: u64, data: &[u8]) -> Result<(), Option<Errno>> {
    let bytes = data.len() as u32;
    desk.lend(server, data, |from| {
        let write = block::Write { minor: 0, bytes, position, from, offset: 0, flags: 0 };
        at(desk, server).write(&write).map_err(|error| error.refusal())
    })
    .unwrap()
}

fn read(
    desk: &Desk,
    server: Endpoint,
    position: u64,
    data: &mut [u8],
) -> Result<(), Option<Errno>> {
    let bytes = data.len() as u32;
    desk.lend_mut(server, data, |into| {
        let read = block::Read { minor: 0, bytes, position, into, offset: 0 };
        at(desk, server).read(&read).map_err(|error| error.refusal())
    })
    .unwrap()
}

#[test]
fn what_was_written_is_read_and_what_was_trimmed_is_zeros() {
    let (_lab, server, desk) = one_device();
    let open = block::Open { minor: 0, flags: OPEN_WRITE };
    let geometry = at(&desk, server).open(&open).unwrap();
    assert_eq!((geometry.bytes, geometry.block_bytes, geometry.epoch), (BYTES, 1024, 0));
    assert_eq!(at(&desk, server).info(&block::GetInfo { minor: 0 }), Ok(geometry));
    let data: Vec<u8> = (0..8192_u32).map(|index| index as u8).collect();
    assert_eq!(write(&desk, server, 4096, &data), Ok(()));
    assert_eq!(at(&desk, server).flush(&block::Flush { minor: 0 }), Ok(()));
    let trim = block::Trim { minor: 0, position: 5120, bytes: 1024 };
    assert_eq!(at(&desk, server).trim(&trim), Ok(()));
    let mut back = vec![1; 8192];
    assert_eq!(read(&desk, server, 4096, &mut back), Ok(()));
    assert_eq!(back[..1024], data[..1024]);
    assert_eq!(back[1024..2048], [0; 1024]);
    assert_eq!(back[2048..], data[2048..]);
    let here = at(&desk, server).locate(&block::Locate { minor: 0 }).unwrap();
    assert_eq!((here.server, here.epoch), (server, 0));
}

#[test]
fn pieces_are_one_range_in_their_order() {
    let (_lab, server, desk) = one_device();
    at(&desk, server).open(&block::Open { minor: 0, flags: OPEN_WRITE }).unwrap();
    let memory: Vec<u8> = (0..5_u8).flat_map(|block| [block; 1024]).collect();
    let piece = |grant, block: u64, blocks: u64| Segment {
        grant,
        offset: block * 1024,
        bytes: blocks * 1024,
    };
    let with_list = |grant: GrantId, pieces: &[(u64, u64)], work: &dyn Fn(GrantId, u16)| {
        let list: Vec<_> = pieces.iter().map(|(at, count)| piece(grant, *at, *count)).collect();
        let count = list.len() as u16;
        desk.lend(server, &segment::encode(&list), |list| work(list, count)).unwrap();
    };
    desk.lend(server, &memory, |grant| {
        with_list(grant, &[(3, 2), (0, 1)], &|list, count| {
            let flags = DURABLE;
            let write = block::WritePieces { minor: 0, count, position: 1024, list, flags };
            assert_eq!(at(&desk, server).write_pieces(&write), Ok(3072));
        });
        // Less than a block, and more than is lent.
        with_list(grant, &[(4, 2)], &|list, count| {
            let write = block::WritePieces { minor: 0, count, position: 0, list, flags: 0 };
            assert_eq!(refusal(at(&desk, server).write_pieces(&write)), Some(Errno::Fault));
            let write = block::WritePieces { count: 0, ..write };
            assert_eq!(refusal(at(&desk, server).write_pieces(&write)), Some(Errno::Invalid));
            let write = block::WritePieces { count: SEGMENTS_MAX + 1, ..write };
            assert_eq!(refusal(at(&desk, server).write_pieces(&write)), Some(Errno::Invalid));
        });
    })
    .unwrap();
    let mut back = vec![9; 4096];
    desk.lend_mut(server, &mut back, |grant| {
        with_list(grant, &[(2, 1), (0, 2)], &|list, count| {
            let read = block::ReadPieces { minor: 0, count, position: 1024, list };
            assert_eq!(at(&desk, server).read_pieces(&read), Ok(3072));
        });
    })
    .unwrap();
    let blocks: Vec<u8> = back.iter().step_by(1024).copied().collect();
    assert_eq!(blocks, [4, 0, 3, 9]);
}

#[test]
fn what_cannot_be_done_is_refused_for_its_reason() {
    let lab = Lab::new();
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 16).unwrap();
    let read_only = FileStore::open(file.path(), Intent::Read).unwrap();
    let server = lab.start(vec![memory(), Box::new(read_only)]);
    let desk = lab.client();
    let client = at(&desk, server);
    let open = |minor, flags| block::Open { minor, flags };
    assert_eq!(refusal(client.open(&open(2, 0))), Some(Errno::NoSuchDevice));
    assert_eq!(refusal(client.open(&open(0, 4))), Some(Errno::Invalid), "an unknown flag");
    assert_eq!(refusal(client.open(&open(1, OPEN_WRITE))), Some(Errno::ReadOnly));
    assert_eq!(client.open(&open(1, 0)).unwrap().flags & READ_ONLY, READ_ONLY);
    assert_eq!(refusal(client.info(&block::GetInfo { minor: 0 })), Some(Errno::BadFile));
    assert_eq!(refusal(client.flush(&block::Flush { minor: 0 })), Some(Errno::BadFile));
    client.open(&open(0, 0)).unwrap();
    assert_eq!(write(&desk, server, 0, &[0; 1024]), Err(Some(Errno::BadFile)), "not for writing");
    client.open(&open(0, OPEN_WRITE)).unwrap();
    let zeros = vec![0; TRANSFER_MAX as usize + 1024];
    for (position, bytes) in [(0, 0), (512, 1024), (0, 512), (BYTES, 1024), (0, zeros.len())] {
        let data = &zeros[..bytes];
        assert_eq!(
            write(&desk, server, position, data),
            Err(Some(Errno::Invalid)),
            "{position} {bytes}"
        );
        let mut data = data.to_vec();
        assert_eq!(read(&desk, server, position, &mut data), Err(Some(Errno::Invalid)));
    }
    let none = block::Read { minor: 0, bytes: 1024, position: 0, into: GrantId::NONE, offset: 0 };
    assert_eq!(refusal(client.read(&none)), Some(Errno::Fault));
    let trim = block::Trim { minor: 0, position: 0, bytes: BYTES + 1024 };
    assert_eq!(refusal(client.trim(&trim)), Some(Errno::Invalid));
    let from = GrantId::NONE;
    let flagged = block::Write { minor: 0, bytes: 1024, position: 0, from, offset: 0, flags: 2 };
    assert_eq!(refusal(client.write(&flagged)), Some(Errno::Invalid), "an unknown flag");
    assert_eq!(refusal(client.scrub(&block::Scrub { minor: 0 })), Some(Errno::NotSupported));
    assert_eq!(client.close(&block::Close { minor: 0 }), Ok(()));
    assert_eq!(write(&desk, server, 0, &[0; 1024]), Err(Some(Errno::BadFile)), "closed");
}

#[test]
fn a_client_that_died_is_forgotten() {
    let (lab, server, desk) = one_device();
    let both = block::Open { minor: 0, flags: OPEN_WRITE | OPEN_EXCLUSIVE };
    at(&desk, server).open(&both).unwrap();
    let other = lab.client();
    assert_eq!(refusal(at(&other, server).open(&both)), Some(Errno::Busy));
    lab.end_client(desk.me);
    at(&other, server).open(&both).expect("the dead are in nobody's way");
    let machine = lab.machine(server).unwrap();
    assert_eq!(machine.borrow().server.clients(), [other.me].into());
    machine.borrow_mut().server.forget(other.me);
    assert_eq!(write(&other, server, 0, &[0; 1024]), Err(Some(Errno::BadFile)));
}
