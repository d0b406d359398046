// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mounting and unmounting, and more than one mount.

use crate::lab::{refusal, Desk, Lab, ROOT};
use mol_fs::disk::Memory;
use mol_protocol::file::{self, FileSystem, Who, MOUNT_READ_ONLY, OPEN_READ, OPEN_WRITE};
use mol_protocol::Errno;

fn mount(desk: &Desk, label: &str, flags: u32, who: Who) -> Result<FileSystem, Option<Errno>> {
    let label_bytes = label.len() as u16;
    let ask = |label| file::Mount { label, label_bytes, flags, who };
    desk.lend(label.as_bytes(), |label| desk.ask().mount(&ask(label))).map_err(refusal)
}

fn unmount(desk: &Desk, label: &str) -> Result<(), Option<Errno>> {
    let label_bytes = label.len() as u16;
    let ask = |label| file::Unmount { label, label_bytes, who: ROOT };
    desk.lend(label.as_bytes(), |label| desk.ask().unmount(&ask(label))).map_err(refusal)
}

fn root(desk: &Desk, label: &str) -> Result<file::Attributes, Option<Errno>> {
    let label_bytes = label.len() as u16;
    let ask = |label| file::GetRoot { label, label_bytes };
    desk.lend(label.as_bytes(), |label| desk.ask().root(&ask(label))).map_err(refusal)
}

#[test]
fn a_disk_is_mounted_once_and_by_the_superuser() {
    let lab = Lab::new(&["a"]);
    let one = lab.client();
    assert_eq!(root(&one, "a").map(drop), Err(Some(Errno::NoEntry)));
    assert_eq!(mount(&one, "a", 0, Who::new(5, 5)), Err(Some(Errno::NotPermitted)));
    assert_eq!(mount(&one, "a", 2, ROOT), Err(Some(Errno::Invalid)));
    assert_eq!(mount(&one, "b", 0, ROOT), Err(Some(Errno::NoSuchDevice)));
    assert_eq!(lab.news(), ["opening disk `b`: no disk `b` is configured"]);
    let of = mount(&one, "a", 0, ROOT).unwrap();
    assert_eq!((of.version, of.block_bytes, of.name_max, of.flags), (3, 1024, 60, 0));
    assert_eq!(mount(&one, "a", 0, ROOT), Err(Some(Errno::Busy)));
    assert_eq!(root(&one, "a").unwrap().mode, 0o040_755);
    assert_eq!(lab.news(), ["disk `a` is mounted"]);
}

#[test]
fn what_is_no_file_system_is_not_mounted() {
    let lab = Lab::new(&[]);
    lab.add_disk("zeros", Memory::new(1 << 20));
    lab.add_disk("nothing", Memory::new(0));
    let one = lab.client();
    for label in ["zeros", "nothing"] {
        assert_eq!(mount(&one, label, 0, ROOT), Err(Some(Errno::NotFileSystem)));
        assert_eq!(lab.news().len(), 1, "people are told why");
    }
}

#[test]
fn what_is_in_use_stays_mounted() {
    let lab = Lab::mounted(&["a"]);
    let (one, other) = (lab.client(), lab.client());
    let held = one.root();
    other.open(other.root(), OPEN_READ).unwrap();
    assert_eq!(unmount(&one, "a"), Err(Some(Errno::Busy)));
    one.ask().release(&file::Release { node: held, count: 1 }).unwrap();
    assert_eq!(unmount(&one, "a"), Err(Some(Errno::Busy)), "another client");
    other.vanish();
    assert_eq!(unmount(&one, "a"), Ok(()));
    assert_eq!(unmount(&one, "a"), Err(Some(Errno::NoEntry)));
    assert_eq!(lab.news(), ["disk `a` is unmounted, and everything is written"]);
    // It says on the disk that it needs no check.
    assert_eq!(lab.platter("a").borrow().disk.content()[1024 + 14] & 1, 1);
}

#[test]
fn what_is_mounted_for_reading_is_only_read() {
    let lab = Lab::mounted(&["a"]);
    let one = lab.client();
    let node = one.create(one.root(), "f");
    one.die();
    let one = lab.client();
    unmount(&one, "a").unwrap();
    let before = lab.platter("a").borrow().disk.clone();
    assert_eq!(mount(&one, "a", MOUNT_READ_ONLY, ROOT).unwrap().flags, MOUNT_READ_ONLY);
    let root = one.root();
    assert_eq!(one.lookup(node, "f").map(drop), Err(Some(Errno::Stale)), "of the last mount");
    let node = one.lookup(root, "f").unwrap().node;
    assert_eq!(one.open(node, OPEN_WRITE), Err(Some(Errno::ReadOnly)));
    assert_eq!(one.create_as(root, "g", 0o644, ROOT).map(drop), Err(Some(Errno::ReadOnly)));
    let file = one.open(node, OPEN_READ).unwrap();
    assert_eq!(one.read(file, 0, 10).unwrap(), b"");
    one.ask().sync(&file::Sync {}).unwrap();
    lab.server.borrow_mut().end();
    assert!(lab.platter("a").borrow().disk == before);
}

#[test]
fn mounts_have_their_own_names_and_nodes() {
    let lab = Lab::mounted(&["a", "b"]);
    let one = lab.client();
    let (a, b) = (root(&one, "a").unwrap().node, root(&one, "b").unwrap().node);
    assert_eq!(one.root(), a, "the first one needs no name");
    let in_a = one.create(a, "f");
    let in_b = one.create(b, "f");
    assert_ne!(in_a, in_b);
    assert_eq!(one.rename((a, "f"), (b, "g")), Err(Some(Errno::CrossDevice)));
    let ask = |name| file::Link { node: in_a, directory: b, name, name_bytes: 1, who: ROOT };
    let linked = one.lend(b"g", |name| one.ask().link(&ask(name)));
    assert_eq!(linked.map_err(refusal), Err(Some(Errno::CrossDevice)));
    assert_eq!(one.rename((a, "f"), (a, "g")), Ok(()));
    assert_eq!(one.lookup(a, "g").unwrap().node, in_a);
}
