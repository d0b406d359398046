// SPDX-License-Identifier: MIT OR Apache-2.0
//! The client library: paths, files and directories.

use crate::lab::{Desk, Lab, SERVER};
use dvk::Endpoint;
use mol_fs::client::Files;
use mol_fs::disk::Memory;
use mol_fs::run::transfer;
use mol_protocol::file::{OPEN_READ, OPEN_WRITE};
use mol_protocol::Errno;

const BOTH: u32 = OPEN_READ | OPEN_WRITE;

fn lab() -> Lab {
    let lab = Lab::new(&[]);
    let mut disk = Memory::new(8 << 20);
    mol_fs::format::make(&mut disk, 4096, 4096, 0).unwrap();
    lab.add_disk("disk", disk);
    lab.server.borrow_mut().mount_label("disk", false).unwrap();
    lab
}

fn put(files: &Files<'_, Desk>, path: &str, content: &[u8]) {
    let (above, name) = files.parent("", path.as_bytes()).unwrap();
    above.create(name, 0o644, BOTH).unwrap().write(0, content).unwrap();
}

fn get(files: &Files<'_, Desk>, path: &str) -> Result<Vec<u8>, Option<Errno>> {
    let node = files.follow("", path.as_bytes()).map_err(|error| error.errno)?;
    let mut content = vec![0xaa; node.attributes.bytes as usize + 10];
    let count = node.open(OPEN_READ).unwrap().read(0, &mut content).unwrap();
    content.truncate(count);
    Ok(content)
}

#[test]
fn a_file_of_any_size_comes_back() {
    let lab = lab();
    let desk = lab.client();
    let files = Files::new(&desk, SERVER, 0, 0);
    // More than one request may carry, and no multiple of anything.
    let content: Vec<u8> = (0..2_500_001_u32).map(|at| (at / 7 % 251) as u8).collect();
    put(&files, "f", &content);
    assert!(get(&files, "/f") == Ok(content));
    let file = files.find("disk", b"f").unwrap().open(BOTH).unwrap();
    file.truncate(5).unwrap();
    file.sync().unwrap();
    drop(file);
    assert_eq!(get(&files, "f").map(|content| content.len()), Ok(5));
    assert!(lab.server.borrow().clients().is_empty(), "everything was given back");
}

#[test]
fn paths_lead_through_directories_and_links() {
    let lab = lab();
    let desk = lab.client();
    let files = Files::new(&desk, SERVER, 0, 0);
    let root = files.root("").unwrap();
    let a = root.make_directory(b"a", 0o755).unwrap();
    a.make_directory(b"b", 0o755).unwrap();
    put(&files, "a/b/f", b"content");
    root.make_link(b"relative", b"a/b").unwrap();
    a.make_link(b"absolute", b"/a/b/f").unwrap();
    a.make_link(b"up", b"../relative/../b").unwrap();
    for path in ["a/b/f", "//a//b/./f", "relative/f", "a/absolute", "a/up/f", "a/b/../b/f"] {
        assert_eq!(get(&files, path).as_deref(), Ok(&b"content"[..]), "{path}");
    }
    let mode = |path: &[u8]| files.find("", path).unwrap().attributes.mode & 0o170_000;
    assert_eq!((mode(b"relative"), mode(b"relative/")), (0o120_000, 0o040_000));
    assert_eq!(files.find("", b"relative").unwrap().read_link().unwrap(), b"a/b");

    root.make_link(b"loop", b"loop/x").unwrap();
    assert_eq!(get(&files, "loop"), Err(Some(Errno::LinkLoop)));
    assert_eq!(get(&files, "a/none/f"), Err(Some(Errno::NoEntry)));
    assert_eq!(get(&files, "a/b/f/x"), Err(Some(Errno::NotDirectory)));
    let error = files.find("", b"a/none").unwrap_err();
    assert!(error.to_string().starts_with("cannot find `none` in `a/none`: "), "{error}");
    assert_eq!(files.parent("", b"/").unwrap_err().errno, Some(Errno::Invalid));
    assert_eq!(files.root("other").unwrap_err().errno, Some(Errno::NoEntry));
    drop((root, a));
    assert!(lab.server.borrow().clients().is_empty(), "everything was given back");
}

#[test]
fn names_are_listed_moved_and_removed() {
    let lab = lab();
    let desk = lab.client();
    let files = Files::new(&desk, SERVER, 0, 0);
    let root = files.root("").unwrap();
    let directory = root.make_directory(b"d", 0o755).unwrap();
    // More than one request lists.
    let expected: Vec<Vec<u8>> =
        (0..500).map(|index| format!("a-name-of-some-length-{index:05}").into_bytes()).collect();
    for name in &expected {
        directory.create(name, 0o644, BOTH).unwrap();
    }
    let names = |node: &mol_fs::client::Node<'_, Desk>| -> Vec<Vec<u8>> {
        node.list().unwrap().into_iter().map(|named| named.name).collect()
    };
    assert_eq!(names(&directory), expected);
    directory.rename(&expected[3], &root, b"moved").unwrap();
    let other = root.lookup(b"moved").unwrap();
    assert_eq!(other.stat().unwrap().links, 1);
    root.unlink(b"moved").unwrap();
    assert_eq!(other.stat().unwrap().links, 0, "it is held");
    assert_eq!(root.remove_directory(b"d").unwrap_err().errno, Some(Errno::NotEmpty));
    for name in names(&directory) {
        directory.unlink(&name).unwrap();
    }
    root.remove_directory(b"d").unwrap();
    assert_eq!(names(&root), Vec::<Vec<u8>>::new());
    assert_eq!(root.create(b"", 0o644, BOTH).unwrap_err().errno, Some(Errno::Invalid));
}

#[test]
fn people_put_get_list_and_remove() {
    let lab = lab();
    let desk = lab.client();
    let files = Files::new(&desk, SERVER, 0, 0);
    let content: Vec<u8> = (0..1_500_000_u32).map(|at| (at % 251) as u8).collect();
    transfer::make_directory(&files, ("", b"d")).unwrap();
    for content in [&content[..], b"shorter"] {
        let put = transfer::put(&files, ("", b"/d/f"), &mut &content[..]).unwrap();
        let mut got = Vec::new();
        assert_eq!(transfer::get(&files, ("", b"/d/f"), &mut got).unwrap(), put);
        assert!(got == content);
    }
    let platter = lab.platter("disk");
    let is_there = platter.borrow().disk.content().windows(7).any(|bytes| bytes == b"shorter");
    assert!(is_there, "what was put is synced");
    let mut listed = Vec::new();
    transfer::list(&files, ("", b"/d"), &mut listed).unwrap();
    assert_eq!(String::from_utf8(listed).unwrap(), "- 0644   1     0     0          7 f\n");
    transfer::rename(&files, "", b"d/f", b"g").unwrap();
    transfer::remove(&files, ("", b"d")).unwrap();
    assert!(transfer::get(&files, ("", b"/"), &mut Vec::new()).is_err(), "a directory");
    transfer::remove(&files, ("", b"g")).unwrap();
    let mut listed = Vec::new();
    transfer::list(&files, ("", b"/"), &mut listed).unwrap();
    assert!(listed.is_empty());
    assert!(lab.server.borrow().clients().is_empty(), "everything was given back");
}

#[test]
fn a_full_disk_and_a_missing_server_are_told() {
    let lab = lab();
    let desk = lab.client();
    let files = Files::new(&desk, SERVER, 0, 0);
    let root = files.root("").unwrap();
    let file = root.create(b"f", 0o644, BOTH).unwrap();
    let error = file.write(0, &vec![1; 9 << 20]).unwrap_err();
    assert_eq!(error.errno, Some(Errno::NoSpace), "{error}");
    assert!(root.file_system().unwrap().blocks_free < 4);

    let nobody = Files::new(&desk, Endpoint::NONE, 0, 0);
    let error = nobody.root("").unwrap_err();
    assert_eq!(error.errno, None, "nobody said no");
    assert_eq!(error.to_string(), "cannot reach the server's first file system: nobody is there");
}
