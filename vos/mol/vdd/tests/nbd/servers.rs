// SPDX-License-Identifier: MIT OR Apache-2.0
//! Servers that say what they should not, or nothing.

use crate::Talk;
use mol_vdd::nbd::{Session, SessionError};
use mol_vdd::store::{Intent, NbdStore, Store};
use proptest::prelude::*;
use std::io::{self, Cursor, Write};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

const INFO: u32 = 3;
const ACK: u32 = 1;
/// Flags of an export: that there are some, and that it is flushed, with FUA and zeroes.
const ALL: u16 = 0b100_1101;

fn hello(flags: u16) -> Vec<u8> {
    [b"NBDMAGICIHAVEOPT", &flags.to_be_bytes()[..]].concat()
}

fn option_reply(kind: u32, data: &[u8]) -> Vec<u8> {
    let numbers = [7, kind, data.len() as u32].map(u32::to_be_bytes).concat();
    [&0x0003_e889_0455_65a9_u64.to_be_bytes()[..], &numbers, data].concat()
}

fn size(bytes: u64, flags: u16) -> Vec<u8> {
    option_reply(INFO, &[&[0, 0][..], &bytes.to_be_bytes(), &flags.to_be_bytes()].concat())
}

fn blocks(least: u32, preferred: u32, most: u32) -> Vec<u8> {
    let sizes = [least, preferred, most].map(u32::to_be_bytes).concat();
    option_reply(INFO, &[&[0, 3][..], &sizes].concat())
}

/// A handshake that ends well.
fn agreed() -> Vec<u8> {
    [hello(3), size(1 << 20, ALL), blocks(512, 4096, 8192), option_reply(ACK, &[])].concat()
}

fn reply(code: u32, cookie: u64) -> Vec<u8> {
    [&[0x67, 0x44, 0x66, 0x98][..], &code.to_be_bytes(), &cookie.to_be_bytes()].concat()
}

fn begin(says: &[Vec<u8>]) -> Result<Session<Talk>, SessionError> {
    Session::begin(Talk { says: Cursor::new(says.concat()), told: Vec::new() }, "disk")
}

#[test]
fn an_export_is_chosen_by_its_name_and_is_what_its_server_says() {
    let mut session = begin(&[agreed()]).expect("they agree");
    let go = [
        &[0, 0, 0, 3][..],
        b"IHAVEOPT",
        &[0, 0, 0, 7, 0, 0, 0, 12, 0, 0, 0, 4],
        b"disk",
        &[0, 1, 0, 3],
    ];
    assert_eq!(session.stream_mut().told, go.concat());
    let offer = *session.offer();
    assert_eq!((offer.bytes, offer.block_bytes, offer.request_bytes_max), (1 << 20, 512, 8192));
    assert!(offer.can_flush && offer.can_fua && offer.can_write_zeroes && !offer.is_read_only);
    let plain = begin(&[hello(1), size(1 << 20, 0b11), option_reply(ACK, &[])]);
    let offer = *plain.expect("they agree").offer();
    assert_eq!((offer.block_bytes, offer.request_bytes_max), (512, 32 << 20), "what is not said");
    assert!(!offer.can_flush && !offer.can_fua && !offer.can_write_zeroes && offer.is_read_only);
    let bytewise =
        begin(&[hello(3), size(1 << 20, ALL), blocks(1, 1, 1000), option_reply(ACK, &[])]);
    let offer = *bytewise.expect("they agree").offer();
    assert_eq!((offer.block_bytes, offer.request_bytes_max), (512, 512), "whole blocks");
}

#[test]
fn a_handshake_that_goes_wrong_ends_there() {
    let ack = || option_reply(ACK, &[]);
    let shape = |sizes: [Vec<u8>; 2]| [&[hello(3)][..], &sizes, &[ack()]].concat().concat();
    let usual = || blocks(512, 4096, 8192);
    let cases = [
        ("another protocol", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), "the greeting"),
        (
            "old style",
            [b"NBDMAGIC".to_vec(), 0x0000_4202_8186_1253_u64.to_be_bytes().to_vec()].concat(),
            "options",
        ),
        ("no newstyle", hello(2), "newstyle"),
        ("nothing of a size", [hello(3), ack()].concat(), "what the export is like"),
        ("a size without flags", shape([size(1 << 20, 0), usual()]), "the flags of the export"),
        ("no bytes", shape([size(0, ALL), usual()]), "0 bytes in blocks"),
        ("half a block", shape([size(1000, ALL), usual()]), "1000 bytes in blocks"),
        (
            "more than there can be",
            shape([size(1 << 63, ALL), usual()]),
            "9223372036854775808 bytes",
        ),
        (
            "blocks of no power",
            shape([size(3 << 20, ALL), blocks(768, 4096, 8192)]),
            "blocks of 768",
        ),
        ("no blocks", shape([size(1 << 20, ALL), blocks(0, 4096, 8192)]), "blocks of 0"),
        (
            "large blocks",
            shape([size(1 << 20, ALL), blocks(1 << 17, 1 << 17, 1 << 20)]),
            "blocks of 131072",
        ),
        (
            "requests of less than one",
            shape([size(1 << 20, ALL), blocks(4096, 4096, 512)]),
            "at most 512",
        ),
        (
            "half a size",
            [hello(3), option_reply(INFO, &[0, 0, 1])].concat(),
            "the length of information",
        ),
        (
            "a size and more",
            [hello(3), option_reply(INFO, &[0; 20])].concat(),
            "the length of information",
        ),
        ("no end", [hello(3), size(1 << 20, ALL).repeat(100)].concat(), "an end of what is said"),
        (
            "a long reply",
            [hello(3), option_reply(INFO, &[1; 9000])].concat(),
            "the length of a reply",
        ),
        ("another answer", [hello(3), option_reply(2, &[])].concat(), "a reply to the choice"),
        (
            "unknown",
            [hello(3), option_reply((1 << 31) + 6, b"\x1b[31mno\n")].concat(),
            "\\u{1b}[31mno\\n",
        ),
        (
            "encrypted",
            [hello(3), option_reply((1 << 31) + 5, b"")].concat(),
            "encrypted connections only",
        ),
        (
            "an unknown error",
            [hello(3), option_reply((1 << 31) + 99, b"")].concat(),
            "error 0x80000063",
        ),
        ("cut off", agreed()[..60].to_vec(), "the connection failed"),
    ];
    for (what, says, expected) in cases {
        let error = begin(&[says]).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(expected), "{what}: `{error}` does not say `{expected}`");
    }
    let mut other = option_reply(ACK, &[]);
    other[11] = 6;
    let error = begin(&[hello(3), other]).map(|_| ()).unwrap_err();
    assert!(matches!(error, SessionError::Nonsense { said: 6, .. }), "{error}");
    let ends = begin(&[hello(3), option_reply((1 << 31) + 7, &[])]).map(|_| ()).unwrap_err();
    assert!(ends.is_lost(), "a server that ends may be there again soon");
}

#[test]
fn an_answer_to_something_else_ends_the_connection() {
    let ask = |answer: Vec<u8>| {
        let mut session = begin(&[agreed(), answer]).expect("they agree");
        session.read(0, &mut [0; 512]).map_err(|error| (error.leaves_the_connection(), error))
    };
    assert!(ask([reply(0, 1), vec![7; 512]].concat()).is_ok());
    let (stays, error) = ask(reply(28, 1)).unwrap_err();
    assert!(stays && error.kind() == io::ErrorKind::StorageFull, "{error}");
    let (stays, error) = ask(reply(0xffff_ffff, 1)).unwrap_err();
    assert!(stays && error.to_string().contains("error 4294967295"), "{error}");
    let (stays, error) = ask(reply(108, 1)).unwrap_err();
    assert!(!stays && error.is_lost(), "{error}");
    for answer in [reply(0, 2), reply(0, 0), [&[0x66, 0x8e, 0x33, 0xef][..], &[0; 16]].concat()] {
        let (stays, error) = ask(answer).unwrap_err();
        assert!(!stays && !error.is_lost(), "{error}");
    }
    let (stays, error) = ask([reply(0, 1), vec![7; 511]].concat()).unwrap_err();
    assert!(!stays && error.is_lost(), "{error}");
}

#[test]
fn requests_are_no_longer_than_the_server_takes() {
    let says = [agreed(), reply(0, 1), reply(0, 2), reply(0, 3), reply(0, 4), reply(0, 5)];
    let mut session = begin(&says).expect("they agree");
    let before = session.stream_mut().told.len();
    session.write(512, &vec![5; 8192 + 512], true).expect("it is written");
    session.write_zeroes(1 << 16, 16_384).expect("it is zeroed");
    session.flush().expect("it is flushed");
    let request = |flags: u16, kind: u16, cookie: u64, position: u64, bytes: u32| {
        let kind = [flags.to_be_bytes(), kind.to_be_bytes()].concat();
        let range = [cookie.to_be_bytes(), position.to_be_bytes()].concat();
        [&[0x25, 0x60, 0x95, 0x13][..], &kind, &range, &bytes.to_be_bytes()].concat()
    };
    let expected = [
        [request(1, 1, 1, 512, 8192), vec![5; 8192]].concat(),
        [request(1, 1, 2, 8704, 512), vec![5; 512]].concat(),
        request(0, 6, 3, 1 << 16, 8192),
        request(0, 6, 4, (1 << 16) + 8192, 8192),
        request(0, 3, 5, 0, 0),
    ];
    assert!(session.stream_mut().told[before..] == expected.concat());
}

/// Says a byte now and then, or nothing at all; what it is told is not even read.
fn dally(says: Vec<u8>, pause: Duration) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("nbd");
    let listener = UnixListener::bind(&path).expect("a socket");
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = listener.accept() {
            for byte in &says {
                std::thread::sleep(pause);
                if stream.write_all(&[*byte]).is_err() {
                    break;
                }
            }
            kept.push(stream);
        }
    });
    let uri = format!("nbd+unix:///disk?socket={}", path.display());
    (folder, uri)
}

#[test]
fn a_server_that_dallies_or_is_silent_is_given_up_in_time() {
    let limit = Duration::from_millis(400);
    for (says, pause) in [(agreed(), Duration::from_millis(150)), (Vec::new(), Duration::ZERO)] {
        let (_folder, uri) = dally(says, pause);
        let began = Instant::now();
        let opened = NbdStore::open(&uri.parse().expect("a volume"), Intent::Write, limit);
        let error = opened.map(|_| ()).unwrap_err().to_string();
        assert!(error.ends_with("the server did not answer in time"), "{error}");
        assert!(began.elapsed() < limit * 10, "{:?}", began.elapsed());
    }
    let (_folder, uri) = dally(agreed(), Duration::ZERO);
    let limit = Duration::from_secs(3);
    let opened = NbdStore::open(&uri.parse().expect("a volume"), Intent::Write, limit);
    let store = opened.expect("they agree");
    let began = Instant::now();
    let error = store.read(0, &mut [0; 512]).unwrap_err().to_string();
    assert!(error.contains("cannot read 512 bytes from byte 0 of nbd+unix:"), "{error}");
    assert!(error.contains("did not answer in time"), "{error}");
    assert!(began.elapsed() < limit * 5, "{:?}", began.elapsed());
}

proptest! {
    #[test]
    fn any_bytes_end_a_session_and_nothing_else(
        known in 0_usize..4,
        more in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let begun = [
            vec![],
            hello(3),
            [hello(3), option_reply(INFO, &[])[..12].to_vec()].concat(),
            agreed(),
        ];
        if let Ok(mut session) = begin(&[begun[known].clone(), more]) {
            let mut data = [0; 2048];
            let _ = session.read(0, &mut data);
            let _ = session.write(0, &data, true);
            let _ = session.flush();
        }
    }
}
