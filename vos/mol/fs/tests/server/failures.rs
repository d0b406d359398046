// SPDX-License-Identifier: MIT OR Apache-2.0
//! Disks that fail, and clients that ask anything at all.

use crate::lab::{refusal, Desk, Lab};
use dvk::{Ipc, Message, Timeout};
use mol_protocol::file::{self, OPEN_READ, OPEN_WRITE};
use mol_protocol::Errno;
use proptest::prelude::*;

#[test]
fn a_disk_that_fails_is_told_of_once_and_concerns_no_other() {
    let lab = Lab::mounted(&["a", "b"]);
    let one = lab.client();
    let b = one.lend(b"b", |label| one.ask().root(&file::GetRoot { label, label_bytes: 1 }));
    let b = b.unwrap().node;
    let root = one.root();
    let file = one.open(one.create(root, "f"), OPEN_READ | OPEN_WRITE).unwrap();
    one.write(file, 0, b"content").unwrap();
    lab.platter("a").borrow_mut().fails = true;
    let sync = || one.ask().sync_file(&file::SyncFile { file }).map_err(refusal);
    assert_eq!(sync(), Err(Some(Errno::Io)));
    assert_eq!(lab.news().len(), 1);
    lab.platter("a").borrow_mut().fails = false;
    assert_eq!(sync(), Err(Some(Errno::Io)), "a later success would hide it");
    assert_eq!(lab.news().len(), 1, "it says what to do now");
    assert_eq!(sync(), Err(Some(Errno::Io)));
    assert_eq!(one.create_as(root, "g", 0o644, crate::lab::ROOT).map(drop), Err(Some(Errno::Io)));
    assert!(lab.news().is_empty(), "that is known");
    assert_eq!(one.read(file, 0, 10).unwrap(), b"content", "it can still be read");
    one.create(b, "f");
    let all = one.ask().sync(&file::Sync {}).map_err(refusal);
    assert_eq!(all, Err(Some(Errno::Io)));
    // What could be synced was, all the same.
    let platter = lab.platter("b");
    assert!(platter.borrow().disk.content().windows(2).any(|bytes| bytes == b"f\0"));
    lab.server.borrow_mut().end();
    let news = lab.news();
    assert!(news[0].starts_with("unmounting disk `a`"), "{news:?}");
    assert_eq!(news[1], "disk `b` is unmounted, and everything is written");
}

#[test]
fn damage_is_an_error_to_who_meets_it() {
    let lab = Lab::mounted(&["a"]);
    let one = lab.client();
    one.create(one.root(), "f");
    one.create(one.root(), "g");
    lab.server.borrow_mut().end();
    // The file `f` is none of a known kind.
    let platter = lab.platter("a");
    let mut bytes = platter.borrow().disk.content().to_vec();
    let inodes = 4 * 1024;
    bytes[inodes + 64 + 1] = 0xf1;
    platter.borrow_mut().disk = bytes.into();
    lab.news();
    lab.server.borrow_mut().mount_label("a", false).unwrap();
    let one = lab.client();
    assert_eq!(one.lookup(one.root(), "f").map(drop), Err(Some(Errno::Io)));
    assert!(one.lookup(one.root(), "g").is_ok());
    let news = lab.news();
    assert_eq!(news.len(), 2, "{news:?}");
    assert!(news[1].starts_with("disk `a`: the file system is damaged: inode 2"), "{news:?}");
}

/// Says something with these bytes, in which small numbers name what is there.
fn ask_anything(desk: &Desk, kind: u32, payload: &[u8; 48]) {
    let mut message = Message::new(kind);
    message.payload.copy_from_slice(payload);
    let reply =
        desk.sendrec(dvk::Endpoint::new(9, core::num::NonZeroU32::MIN), &message, Timeout::Forever);
    assert_eq!(reply.unwrap().kind, kind);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_request_is_answered(
        requests in proptest::collection::vec(
            (0xa00_u32..0xa3a, proptest::array::uniform32(any::<u8>()), any::<u8>()),
            1..60,
        ),
    ) {
        let lab = Lab::mounted(&["a"]);
        let one = lab.client();
        let root = one.root();
        let directory = one.make_directory(root, "d");
        let file = one.open(one.create(directory, "f"), OPEN_READ | OPEN_WRITE).unwrap();
        one.open(root, OPEN_READ).unwrap();
        assert!(root.raw() < 4 && file.raw() < 4);
        for (kind, bytes, shape) in requests {
            let mut payload = [0; 48];
            payload[..32].copy_from_slice(&bytes);
            // A node or a file, and perhaps another one, and memory that is lent.
            payload[..8].copy_from_slice(&u64::from(bytes[0] % 5).to_le_bytes());
            if shape & 1 != 0 {
                payload[8..16].copy_from_slice(&u64::from(bytes[8] % 5).to_le_bytes());
            }
            let memory = [b'd'; 64];
            one.lend(&memory, |grant| {
                let at = [8, 16, 0][usize::from(shape) / 2 % 3];
                if shape & 16 != 0 {
                    payload[at..at + 8].copy_from_slice(&grant.raw().to_le_bytes());
                    let rest = &mut payload[at + 8..];
                    if shape & 32 != 0 {
                        rest.fill(0);
                        rest[0] = 1;
                    }
                }
                ask_anything(&one, kind, &payload);
            });
        }
        // It goes on.
        let other = lab.client();
        let made = other.create_as(other.root(), "after", 0o644, crate::lab::ROOT);
        prop_assert!(made.is_ok());
        other.ask().sync(&file::Sync {}).unwrap();
        one.die();
        other.die();
        lab.server.borrow_mut().end();
        let news = lab.news();
        prop_assert!(news.iter().all(|news| !news.contains("damaged")), "{news:?}");
    }
}
