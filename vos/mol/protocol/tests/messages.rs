// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests as messages, and a server of block devices driven by a client in the same process. No kernel is
//! involved.

use core::cell::RefCell;
use core::convert::Infallible;
use core::num::NonZeroU32;
use dvk::protocol::{Answer, Caller, Reply::Now, CODE_MALFORMED, CODE_UNKNOWN};
use dvk::{Endpoint, GrantId, How, Ipc, Message, Payload, Received, Then, Timeout};
use mol_protocol::block::{self, BlockClient, BlockDevice, Geometry};
use mol_protocol::file::{self, FileId, NodeId, SetTime, Who, GROUPS_MAX};
use mol_protocol::Errno;
use proptest::prelude::*;

/// Devices that say what they are and whether they were flushed. Nothing is copied, since that takes a kernel.
#[derive(Default)]
struct Disk {
    writable: bool,
    flushed: u32,
}

const GEOMETRY: Geometry = Geometry {
    bytes: 1 << 20,
    block_bytes: 1024,
    transfer_max: 1 << 16,
    flags: block::TRIMS,
    segments_max: 8,
    replicas: 2,
    epoch: 7,
    revision: 1,
};

impl Disk {
    fn range(&self, position: u64, bytes: u64) -> Result<(), Errno> {
        let fits = GEOMETRY.has_range(position, bytes) && bytes <= GEOMETRY.transfer_max.into();
        fits.then_some(()).ok_or(Errno::Invalid)
    }

    fn change(&self) -> Result<(), Errno> {
        self.writable.then_some(()).ok_or(Errno::BadFile)
    }
}

impl BlockDevice for Disk {
    fn open(&mut self, _: Caller<block::Open>, open: block::Open) -> Answer<block::Open> {
        if open.minor != 0 {
            return Err(Errno::NoSuchDevice);
        }
        self.writable |= open.flags & block::OPEN_WRITE != 0;
        Ok(Now(GEOMETRY))
    }

    fn close(&mut self, _: Caller<block::Close>, _: block::Close) -> Answer<block::Close> {
        self.writable = false;
        Ok(Now(()))
    }

    fn info(&mut self, _: Caller<block::GetInfo>, _: block::GetInfo) -> Answer<block::GetInfo> {
        Ok(Now(GEOMETRY))
    }

    fn read(&mut self, _: Caller<block::Read>, read: block::Read) -> Answer<block::Read> {
        self.range(read.position, read.bytes.into()).map(Now)
    }

    fn write(&mut self, _: Caller<block::Write>, write: block::Write) -> Answer<block::Write> {
        self.change()?;
        self.range(write.position, write.bytes.into()).map(Now)
    }

    fn read_pieces(
        &mut self,
        _: Caller<block::ReadPieces>,
        read: block::ReadPieces,
    ) -> Answer<block::ReadPieces> {
        Ok(Now(u64::from(read.count) * u64::from(GEOMETRY.block_bytes)))
    }

    fn write_pieces(
        &mut self,
        _: Caller<block::WritePieces>,
        write: block::WritePieces,
    ) -> Answer<block::WritePieces> {
        self.change()?;
        Ok(Now(u64::from(write.count) * u64::from(GEOMETRY.block_bytes)))
    }

    fn flush(&mut self, _: Caller<block::Flush>, _: block::Flush) -> Answer<block::Flush> {
        self.flushed += 1;
        Ok(Now(()))
    }

    fn trim(&mut self, _: Caller<block::Trim>, trim: block::Trim) -> Answer<block::Trim> {
        self.change()?;
        if !GEOMETRY.has_range(trim.position, trim.bytes) {
            return Err(Errno::Invalid);
        }
        Ok(Now(()))
    }

    fn locate(&mut self, _: Caller<block::Locate>, _: block::Locate) -> Answer<block::Locate> {
        Ok(Now(block::Whereabouts { server: server(), epoch: GEOMETRY.epoch }))
    }

    fn scrub(&mut self, _: Caller<block::Scrub>, _: block::Scrub) -> Answer<block::Scrub> {
        Err(Errno::NotSupported)
    }
}

/// Carries messages to the disk without a kernel.
#[derive(Default)]
struct Direct(RefCell<Disk>);

impl Ipc for Direct {
    type Error = Infallible;

    fn send(&self, _: Endpoint, _: &Message, _: Timeout) -> Result<(), Infallible> {
        Ok(())
    }

    fn sendrec(&self, _: Endpoint, message: &Message, _: Timeout) -> Result<Message, Infallible> {
        match self.0.borrow_mut().handle(&Received { message: *message, how: How::Request }) {
            Then::Reply(reply) => Ok(reply),
            then => panic!("{then:?} instead of a reply to {message:?}"),
        }
    }

    fn reply(&self, _: Endpoint, _: &Message) -> Result<(), Infallible> {
        Ok(())
    }

    fn notify(&self, _: Endpoint, _: u64) -> Result<(), Infallible> {
        Ok(())
    }
}

fn server() -> Endpoint {
    Endpoint::new(8, NonZeroU32::MIN)
}

#[test]
fn a_device_answers_with_results_and_errors() {
    let direct = Direct::default();
    let client = BlockClient::new(&direct, server());
    assert_eq!(client.open(&block::Open { minor: 0, flags: 0 }), Ok(GEOMETRY));
    let error = client.open(&block::Open { minor: 1, flags: 0 }).unwrap_err();
    assert_eq!(error.refusal(), Some(Errno::NoSuchDevice));

    let (from, offset, flags) = (GrantId::from_raw(3), 0, block::DURABLE);
    let write = block::Write { minor: 0, bytes: 2048, position: 1024, from, offset, flags };
    assert_eq!(client.write(&write).unwrap_err().refusal(), Some(Errno::BadFile));
    client.open(&block::Open { minor: 0, flags: block::OPEN_WRITE }).unwrap();
    assert_eq!(client.write(&write), Ok(()));
    let error = client.write(&block::Write { position: 1 << 20, ..write }).unwrap_err();
    assert_eq!(error.refusal(), Some(Errno::Invalid));
    assert!(error.to_string().ends_with("a parameter has a value that it cannot have (EINVAL)"));

    let answers = client.locate(&block::Locate { minor: 0 });
    assert_eq!(answers, Ok(block::Whereabouts { server: server(), epoch: 7 }));

    let list = GrantId::from_raw(4);
    let pieces = block::ReadPieces { minor: 0, count: 5, position: 0, list };
    assert_eq!(client.read_pieces(&pieces), Ok(5120));
    assert_eq!(client.flush(&block::Flush { minor: 0 }), Ok(()));
    assert_eq!(direct.0.borrow().flushed, 1);
}

#[test]
fn the_two_protocols_have_no_kind_in_common() {
    let direct = Direct::default();
    let asked = |kind| direct.sendrec(server(), &Message::new(kind), Timeout::Forever);
    for kind in file::Mount::KIND..=file::Sync::KIND {
        assert_eq!(asked(kind).unwrap().flags, CODE_UNKNOWN, "kind {kind:#x}");
    }
    assert_ne!(asked(block::Trim::KIND).unwrap().flags, CODE_UNKNOWN);
}

#[test]
fn users_with_more_groups_than_there_may_be_are_malformed() {
    let who = |groups_count| Who { groups_count, ..Who::new(1, 2) };
    let access = |groups_count| file::Access {
        node: NodeId::from_raw(1),
        rights: file::MAY_READ,
        who: who(groups_count),
    };
    assert!(file::Access::view(&access(GROUPS_MAX).message()).is_ok());
    assert!(file::Access::view(&access(GROUPS_MAX + 1).message()).is_err());
}

#[test]
fn times_are_kept_set_to_now_or_to_a_second() {
    let times = file::SetTimes {
        node: NodeId::from_raw(9),
        accessed: SetTime::Now,
        modified: SetTime::To(u32::MAX),
        who: Who::new(0, 0),
    };
    let message = times.message();
    assert_eq!(message.payload[8..18], [1, 0, 0, 0, 0, 2, 255, 255, 255, 255]);
    assert_eq!(file::SetTimes::view(&message), Ok(times));
    let mut unknown = message;
    unknown.payload[8] = 3;
    assert!(file::SetTimes::view(&unknown).is_err());
    let mut of_nothing = message;
    of_nothing.payload[9] = 1;
    assert!(file::SetTimes::view(&of_nothing).is_err(), "a second with a time that has none");
}

#[test]
fn a_renaming_fills_its_message() {
    let rename = file::Rename {
        from: NodeId::from_raw(1),
        to: NodeId::from_raw(2),
        names: GrantId::from_raw(3),
        old_bytes: 255,
        new_bytes: 254,
        flags: file::RENAME_KEEP,
        who: Who { groups: GrantId::from_raw(4), groups_count: 256, ..Who::new(5, 6) },
    };
    let payload = rename.message().payload;
    assert_eq!(payload[24..30], [255, 254, 1, 0, 0, 0]);
    assert_eq!(payload[30..], [5, 0, 0, 0, 6, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(file::Rename::view(&rename.message()), Ok(rename));
}

fn message(kind: u32, payload: [[u8; 16]; 3]) -> Message {
    let mut message = Message { source: server().raw(), ..Message::new(kind) };
    for (chunk, bytes) in message.payload.chunks_exact_mut(16).zip(payload) {
        chunk.copy_from_slice(&bytes);
    }
    message
}

proptest! {
    #[test]
    fn any_message_to_a_device_is_answered(kind in 0x4fe_u32..0x50d, payload: [[u8; 16]; 3]) {
        let direct = Direct::default();
        let reply = direct.sendrec(server(), &message(kind, payload), Timeout::Forever).unwrap();
        prop_assert_eq!(reply.kind, kind);
        let known = (block::Open::KIND..=block::Scrub::KIND).contains(&kind);
        prop_assert_eq!(reply.flags == CODE_UNKNOWN, !known);
        prop_assert_ne!(reply.flags, CODE_MALFORMED, "every number is one that a server may be asked for");
    }

    #[test]
    fn any_request_of_a_user_is_read_back_or_malformed(payload: [[u8; 16]; 3]) {
        let sent = message(file::Rename::KIND, payload);
        if let Ok(rename) = file::Rename::view(&sent) {
            prop_assert_eq!(rename.message().payload, sent.payload);
        }
        let sent = message(file::Read::KIND, payload);
        let read = file::Read::view(&sent).unwrap();
        let file = u64::from_le_bytes(sent.payload[..8].try_into().unwrap());
        prop_assert_eq!(read.file, FileId::from_raw(file));
    }
}
