// SPDX-License-Identifier: MIT OR Apache-2.0
//! Nodes and files: what is held, what is open, and what becomes of it.

use crate::lab::{refusal, Desk, Lab, ROOT};
use dvk::GrantId;
use mol_protocol::directory::Entries;
use mol_protocol::file::{
    self, DirectoryPart, FileId, NodeId, SetTime, OPEN_APPEND, OPEN_DURABLE, OPEN_READ, OPEN_WRITE,
};
use mol_protocol::Errno;

const BOTH: u32 = OPEN_READ | OPEN_WRITE;

#[test]
fn what_is_written_is_read_by_others() {
    let lab = Lab::mounted(&["disk"]);
    let (one, other) = (lab.client(), lab.client());
    let root = one.root();
    let made = one.create_as(root, "f", 0o640, ROOT).unwrap();
    assert_eq!((made.bytes, made.mode, made.links), (0, 0o100_640, 1));
    let file = one.open(made.node, OPEN_WRITE).unwrap();
    assert_eq!(one.write(file, 5000, b"content"), Ok(7));

    let found = other.lookup(other.root(), "f").unwrap();
    assert_eq!((found.bytes, found.inode), (5007, made.inode));
    assert_eq!((found.blocks_or_device, found.modified), (2, 1000));
    assert_eq!(found.node, made.node, "it is one node to all");
    let file = other.open(found.node, OPEN_READ).unwrap();
    let data = other.read(file, 4998, 100).unwrap();
    assert_eq!(data, b"\0\0content");
    assert_eq!(other.read(file, 5007, 10).unwrap(), b"");
    assert_eq!(other.write(file, 0, b"x"), Err(Some(Errno::BadFile)), "not open for it");
    other.ask().close(&file::Close { file }).unwrap();
    assert_eq!(other.read(file, 0, 1), Err(Some(Errno::BadFile)));
}

#[test]
fn what_a_client_does_not_hold_it_cannot_name() {
    let lab = Lab::mounted(&["disk"]);
    let (one, other) = (lab.client(), lab.client());
    let node = one.create(one.root(), "f");
    let file = one.open(node, BOTH).unwrap();
    assert_eq!(other.ask().stat(&file::Stat { node }).map_err(refusal), Err(Some(Errno::Stale)));
    assert_eq!(other.open(node, OPEN_READ), Err(Some(Errno::Stale)));
    assert_eq!(other.read(file, 0, 1), Err(Some(Errno::BadFile)));
    assert_eq!(other.lookup(node, "x").map(drop), Err(Some(Errno::Stale)));
    for raw in [0, 77, u64::MAX] {
        let node = NodeId::from_raw(raw);
        assert_eq!(one.ask().stat(&file::Stat { node }).map_err(refusal), Err(Some(Errno::Stale)));
        let file = FileId::from_raw(raw);
        let closed = one.ask().close(&file::Close { file });
        assert_eq!(closed.map_err(refusal), Err(Some(Errno::BadFile)));
    }
}

#[test]
fn holds_are_counted() {
    let lab = Lab::mounted(&["disk"]);
    let one = lab.client();
    let root = one.root();
    let node = one.create(root, "f");
    one.lookup(root, "f").unwrap();
    let release = |count| one.ask().release(&file::Release { node, count }).map_err(refusal);
    assert_eq!(release(3), Err(Some(Errno::Invalid)), "it has two");
    assert_eq!(release(0), Ok(()));
    assert_eq!(release(2), Ok(()));
    assert_eq!(release(1), Err(Some(Errno::Stale)));
    assert_ne!(one.lookup(root, "f").unwrap().node, node, "a number is given once");
}

#[test]
fn a_file_without_a_name_is_there_until_its_last_user_goes() {
    let lab = Lab::mounted(&["disk"]);
    let (one, other) = (lab.client(), lab.client());
    let root = one.root();
    let before = one.free(root);
    let node = one.create(root, "f");
    let file = one.open(node, BOTH).unwrap();
    one.write(file, 0, &[7; 3000]).unwrap();
    let found = other.lookup(other.root(), "f").unwrap();
    other.open(found.node, OPEN_READ).unwrap();
    one.unlink(root, "f").unwrap();
    assert_eq!(one.lookup(root, "f").map(drop), Err(Some(Errno::NoEntry)));
    assert_eq!(one.read(file, 2999, 10).unwrap(), [7]);
    assert_eq!(one.ask().stat(&file::Stat { node }).unwrap().links, 0);
    assert_ne!(one.free(root), before);
    one.ask().release(&file::Release { node, count: 1 }).unwrap();
    one.ask().close(&file::Close { file }).unwrap();
    assert_ne!(one.free(root), before, "another client has it open");
    other.die();
    assert_eq!(one.free(root), before, "what the dead had is given back");
}

fn read_directory(
    desk: &Desk,
    file: FileId,
    position: u64,
    bytes: u32,
) -> Result<(DirectoryPart, Vec<u8>), Option<Errno>> {
    let ask = |into| file::ReadDirectory { file, position, into, bytes };
    let (part, mut records) =
        desk.lend_mut(bytes as usize, |into| desk.ask().read_directory(&ask(into)));
    let part = part.map_err(refusal)?;
    records.truncate(part.bytes as usize);
    Ok((part, records))
}

#[test]
fn a_directory_is_listed_in_parts_with_everything_once() {
    let lab = Lab::mounted(&["disk"]);
    let one = lab.client();
    let root = one.root();
    let mut expected = vec![".".to_owned(), "..".to_owned()];
    for index in 0..30 {
        let name = format!("file-{index}");
        one.create(root, &name);
        expected.push(name);
    }
    let file = one.open(root, OPEN_READ).unwrap();
    let (mut position, mut found, mut parts) = (0, Vec::new(), 0);
    loop {
        let (part, records) = read_directory(&one, file, position, 100).unwrap();
        if part.bytes == 0 {
            break;
        }
        let entries = Entries::new(&records).map(Result::unwrap);
        found.extend(entries.map(|entry| String::from_utf8(entry.name.to_vec()).unwrap()));
        position = part.next;
        parts += 1;
        if parts == 1 {
            // Neither takes a part of what has not been listed yet.
            one.unlink(root, "file-0").unwrap();
            one.unlink(root, "file-29").unwrap();
            expected.retain(|name| name != "file-29");
        }
    }
    assert!(parts > 5, "{parts} parts");
    assert!(found.contains(&"file-0".to_owned()));
    assert_eq!(found, expected);
    assert_eq!(read_directory(&one, file, 0, 10).map(drop), Err(Some(Errno::Invalid)));
    assert_eq!(read_directory(&one, file, 7, 100).map(drop), Err(Some(Errno::Invalid)));
    let node = one.lookup(root, "file-1").unwrap().node;
    let file = one.open(node, OPEN_READ).unwrap();
    assert_eq!(read_directory(&one, file, 0, 100).map(drop), Err(Some(Errno::NotDirectory)));
    assert_eq!(one.open(root, BOTH), Err(Some(Errno::IsDirectory)));
}

#[test]
fn appending_goes_to_the_end_whoever_writes() {
    let lab = Lab::mounted(&["disk"]);
    let (one, other) = (lab.client(), lab.client());
    let node = one.create(one.root(), "log");
    let file = one.open(node, BOTH | OPEN_APPEND).unwrap();
    let theirs =
        other.open(other.lookup(other.root(), "log").unwrap().node, OPEN_WRITE | OPEN_APPEND);
    assert_eq!(one.write(file, 0, b"one"), Ok(3));
    assert_eq!(other.write(theirs.unwrap(), 0, b"two"), Ok(3));
    assert_eq!(one.write(file, 1, b"three"), Ok(5));
    assert_eq!(one.read(file, 0, 100).unwrap(), b"onetwothree");
}

#[test]
fn what_was_synced_or_written_durably_is_on_the_disk() {
    let lab = Lab::mounted(&["disk"]);
    let one = lab.client();
    let root = one.root();
    let has = |text: &[u8]| {
        let platter = lab.platter("disk");
        let platter = platter.borrow();
        platter.disk.content().windows(text.len()).any(|bytes| bytes == text)
    };
    let file = one.open(one.create(root, "a"), BOTH).unwrap();
    one.write(file, 0, b"written late").unwrap();
    assert!(!has(b"written late"));
    one.ask().sync_file(&file::SyncFile { file }).unwrap();
    assert!(has(b"written late"));
    let durable = one.open(one.create(root, "b"), BOTH | OPEN_DURABLE).unwrap();
    one.write(durable, 0, b"written at once").unwrap();
    assert!(has(b"written at once"));
    one.write(file, 0, b"written by the clock").unwrap();
    lab.server.borrow_mut().tick();
    assert!(!has(b"written by the clock"));
    lab.world.seconds.set(1005);
    lab.server.borrow_mut().tick();
    assert!(has(b"written by the clock"));
    one.write(file, 0, b"written for all").unwrap();
    one.ask().sync(&file::Sync {}).unwrap();
    assert!(has(b"written for all"));
    one.write(file, 0, b"written in the end").unwrap();
    lab.server.borrow_mut().end();
    assert!(has(b"written in the end"));
}

#[test]
fn a_file_is_cut_and_made_longer() {
    let lab = Lab::mounted(&["disk"]);
    let one = lab.client();
    let node = one.create(one.root(), "f");
    let file = one.open(node, BOTH).unwrap();
    one.write(file, 0, &[1; 2000]).unwrap();
    let cut = one.ask().truncate(&file::Truncate { node, bytes: 10, who: ROOT }).unwrap();
    assert_eq!((cut.bytes, cut.blocks_or_device), (10, 2));
    let longer = one.ask().truncate_open(&file::TruncateOpen { file, bytes: 20_000 }).unwrap();
    assert_eq!((longer.bytes, longer.blocks_or_device), (20_000, 2));
    assert_eq!(one.read(file, 8, 4).unwrap(), [1, 1, 0, 0]);
    let most = file::Truncate { node, bytes: 1 << 40, who: ROOT };
    assert_eq!(one.ask().truncate(&most).map_err(refusal), Err(Some(Errno::TooLarge)));
    let reading = one.open(node, OPEN_READ).unwrap();
    let cut = one.ask().truncate_open(&file::TruncateOpen { file: reading, bytes: 0 });
    assert_eq!(cut.map_err(refusal), Err(Some(Errno::BadFile)));
}

#[test]
fn links_and_device_nodes_are_made_and_read() {
    let lab = Lab::mounted(&["disk"]);
    let one = lab.client();
    let root = one.root();
    let ask = |names| file::MakeSymbolicLink {
        directory: root,
        names,
        name_bytes: 1,
        path_bytes: 5,
        who: ROOT,
    };
    let link = one.lend(b"sa/b/c", |names| one.ask().make_symbolic_link(&ask(names))).unwrap();
    assert_eq!((link.mode, link.bytes), (0o120_777, 5));
    for (bytes, expected) in [(10, &b"a/b/c"[..]), (3, b"a/b")] {
        let ask = |into| file::ReadLink { node: link.node, into, bytes };
        let (length, path) = one.lend_mut(bytes as usize, |into| one.ask().read_link(&ask(into)));
        assert_eq!(length.unwrap(), 5);
        assert_eq!(&path[..expected.len()], expected);
    }
    assert_eq!(one.open(link.node, OPEN_READ), Err(Some(Errno::LinkLoop)));

    let node = |mode, device| {
        let ask =
            |name| file::MakeNode { directory: root, name, name_bytes: 1, mode, device, who: ROOT };
        one.lend(b"n", |name| one.ask().make_node(&ask(name))).map_err(refusal)
    };
    assert_eq!(node(0o040_755, 0).map(drop), Err(Some(Errno::Invalid)), "a directory");
    assert_eq!(node(0o010_644, 1).map(drop), Err(Some(Errno::Invalid)), "a pipe for a device");
    let made = node(0o060_600, 0x801).unwrap();
    assert_eq!((made.mode, made.blocks_or_device), (0o060_600, 0x801));
    assert_eq!(one.open(made.node, OPEN_READ), Err(Some(Errno::NoSuchDevice)));

    let f = one.create(root, "f");
    let further = |node, directory| {
        let ask = |name| file::Link { node, directory, name, name_bytes: 1, who: ROOT };
        one.lend(b"g", |name| one.ask().link(&ask(name))).map_err(refusal)
    };
    assert_eq!(further(f, root), Ok(()));
    assert_eq!(further(f, root), Err(Some(Errno::Exists)));
    assert_eq!(one.lookup(root, "g").unwrap().node, f);
    assert_eq!(one.ask().stat(&file::Stat { node: f }).unwrap().links, 2);
}

#[test]
fn times_and_owners_are_set() {
    let lab = Lab::mounted(&["disk"]);
    let one = lab.client();
    let node = one.create(one.root(), "f");
    lab.world.seconds.set(2000);
    let (accessed, modified) = (SetTime::To(5), SetTime::Now);
    let set = file::SetTimes { node, accessed, modified, who: ROOT };
    let status = one.ask().set_times(&set).unwrap();
    assert_eq!((status.accessed, status.modified, status.changed), (5, 2000, 2000));
    let set = file::SetOwner { node, user: 7, group: u32::MAX, who: ROOT };
    let status = one.ask().set_owner(&set).unwrap();
    assert_eq!((status.user, status.group), (7, 0));
    let status = one.ask().set_mode(&file::SetMode { node, mode: 0o4711, who: ROOT }).unwrap();
    assert_eq!(status.mode, 0o104_711);
    let all = file::SetMode { node, mode: 0o10_000, who: ROOT };
    assert_eq!(one.ask().set_mode(&all).map_err(refusal), Err(Some(Errno::Invalid)));
}

#[test]
fn memory_that_is_not_lent_is_refused() {
    let lab = Lab::mounted(&["disk"]);
    let one = lab.client();
    let root = one.root();
    let fault = Err(Some(Errno::Fault));
    let lookup = |name, name_bytes| {
        one.ask().lookup(&file::Lookup { directory: root, name, name_bytes, who: ROOT })
    };
    assert_eq!(lookup(GrantId::NONE, 3).map_err(refusal), fault);
    assert_eq!(one.lend(b"ab", |name| lookup(name, 3)).map_err(refusal), fault, "too little");
    let (found, _) = one.lend_mut(3, |name| lookup(name, 3));
    assert_eq!(found.map_err(refusal), fault, "not for reading");
    assert_eq!(one.lend(b"ab", |name| lookup(name, 0)).map_err(refusal), Err(Some(Errno::Invalid)));
    let long = [b'x'; 61];
    let found = one.lend(&long, |name| lookup(name, 61)).map_err(refusal);
    assert_eq!(found, Err(Some(Errno::NameTooLong)));
    let found = lookup(GrantId::NONE, 256).map_err(refusal);
    assert_eq!(found, Err(Some(Errno::NameTooLong)));

    let file = one.open(one.create(root, "f"), BOTH).unwrap();
    one.write(file, 0, b"0123456789").unwrap();
    let read = |into| file::Read { file, position: 0, into, offset: 8, bytes: 10 };
    let (done, memory) = one.lend_mut(17, |into| one.ask().read(&read(into)));
    assert_eq!(done.map_err(refusal), Err(Some(Errno::Fault)), "one byte too small");
    assert_eq!(memory, [0xaa; 17]);
    let write = |from| file::Write { file, position: 0, from, offset: 8, bytes: 3 };
    let done = one.lend(b"0123456789", |from| one.ask().write(&write(from)));
    assert_eq!(done.map_err(refusal), Err(Some(Errno::Fault)));
    assert_eq!(one.read(file, 0, 100).unwrap(), b"0123456789", "nothing was written");
}
