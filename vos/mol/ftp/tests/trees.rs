// SPDX-License-Identifier: MIT OR Apache-2.0
//! Trees go to a file server and come back, over a stream, without a kernel.

#[allow(dead_code, reason = "the server's own tests need more of it")]
#[path = "../../fs/tests/server/lab.rs"]
mod lab;

use std::fs;
use std::os::unix::fs::{symlink, MetadataExt};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use lab::{Desk, Lab, SERVER};
use mol_fs::client::Files;
use mol_fs::disk::Memory;
use mol_ftp::{list, make_directory, remove, table, Listed, Remote};
use mol_protocol::Errno;
use vos_transfer::{read_from, unpack, Error, Local, Packer, Raw};

const MODIFIED_S: u64 = 1_234_567;

fn lab() -> Lab {
    let lab = Lab::new(&[]);
    let mut disk = Memory::new(16 << 20);
    mol_fs::format::make(&mut disk, 4096, 4096, 0).unwrap();
    lab.add_disk("disk", disk);
    lab.server.borrow_mut().mount_label("disk", false).unwrap();
    lab
}

fn names(files: &Files<'_, Desk>, path: &str) -> Vec<String> {
    list(files, "", path.as_bytes()).unwrap().into_iter().map(|it| it.name).collect()
}

/// What a stream from here brings to a path there.
fn receive(files: &Files<'_, Desk>, stream: &[u8], path: &str) -> Result<(), Error> {
    let mut stream = stream;
    unpack(&mut stream, &mut Remote::new(files, "", path.as_bytes()))
}

fn packed(path: &Path) -> Vec<u8> {
    let mut stream = Vec::new();
    Local::new(path).send(true, &mut Packer::new(&mut stream)).unwrap();
    stream
}

fn sent(files: &Files<'_, Desk>, path: &str) -> Result<Vec<u8>, Error> {
    let mut stream = Vec::new();
    Remote::new(files, "", path.as_bytes()).send(true, &mut Packer::new(&mut stream))?;
    Ok(stream)
}

fn content(files: &Files<'_, Desk>, path: &str) -> Vec<u8> {
    let mut out = Vec::new();
    Remote::new(files, "", path.as_bytes()).send(false, &mut Raw(&mut out)).unwrap();
    out
}

/// Files of several requests and more than are synced together, a link, an empty directory.
fn tree(folder: &Path) {
    fs::create_dir_all(folder.join("site/a/empty")).unwrap();
    let large: Vec<u8> = (0..2_500_001_u32).map(|at| (at / 7 % 251) as u8).collect();
    fs::write(folder.join("site/a/large"), large).unwrap();
    for number in 0..150 {
        fs::write(folder.join(format!("site/a/file-{number}")), format!("{number}")).unwrap();
    }
    symlink("a/large", folder.join("site/link")).unwrap();
    let file = fs::File::options().write(true).open(folder.join("site/a/large")).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_secs(MODIFIED_S)).unwrap();
    let directory = fs::File::open(folder.join("site/a")).unwrap();
    directory.set_modified(UNIX_EPOCH + Duration::from_secs(MODIFIED_S)).unwrap();
}

#[test]
fn a_tree_goes_to_a_server_and_comes_back_the_same() {
    let folder = tempfile::tempdir().unwrap();
    tree(folder.path());
    let stream = packed(&folder.path().join("site"));
    let lab = lab();
    let desk = lab.client();
    let files = Files::new(&desk, SERVER, 0, 0);
    receive(&files, &stream, "/").unwrap();
    assert_eq!(names(&files, "/"), ["site"]);
    assert!(sent(&files, "/site").unwrap() == stream, "the same paths, permissions, times, bytes");
    // Over itself, and under another name.
    receive(&files, &stream, "/").unwrap();
    receive(&files, &stream, "/other").unwrap();
    assert_eq!(names(&files, "/"), ["other", "site"]);
    assert!(sent(&files, "/other/.").unwrap() == packed(&folder.path().join("site/.")));
    assert!(content(&files, "/site/a/large") == content(&files, "/other/a/large"));
    assert_eq!(list(&files, "", b"/site/a").unwrap(), list(&files, "", b"/other/a").unwrap());
    assert_eq!(names(&files, "/other/a").len(), 152, "and nothing under another name");
    assert_eq!(content(&files, "/other/a/file-7"), b"7");
    let error = Remote::new(&files, "", b"/site").send(false, &mut Raw(Vec::new())).unwrap_err();
    assert!(matches!(error, Error::Directory(_)), "{error}");
    // Between the server and files of its container it goes without a stream.
    Remote::new(&files, "", b"/site")
        .send(true, &mut Local::new(folder.path().join("back")))
        .unwrap();
    let back = fs::metadata(folder.path().join("back/a/large")).unwrap();
    assert_eq!((back.len(), back.mtime()), (2_500_001, MODIFIED_S as i64));
    drop(files);
    assert!(lab.server.borrow().clients().is_empty(), "everything was given back");
}

#[test]
fn a_root_goes_by_what_is_in_it() {
    let lab = lab();
    let desk = lab.client();
    let files = Files::new(&desk, SERVER, 0, 0);
    read_from(&mut &b"one"[..], 5, &mut Remote::new(&files, "", b"/f")).unwrap();
    let all = sent(&files, "/").unwrap();
    make_directory(&files, "", b"/copy", false).unwrap();
    receive(&files, &all, "/copy").unwrap();
    assert_eq!(names(&files, "/copy"), ["f"]);
    let error = read_from(&mut &b"two"[..], 5, &mut Remote::new(&files, "", b"/copy")).unwrap_err();
    assert!(matches!(error, Error::OnlyFile), "{error}");
}

#[test]
fn what_was_there_stays_until_all_of_the_new_has_come() {
    let folder = tempfile::tempdir().unwrap();
    let lab = lab();
    let desk = lab.client();
    let files = Files::new(&desk, SERVER, 0, 0);
    let path = folder.path().join("f");
    fs::write(&path, vec![1; 1_500_000]).unwrap();
    let first = packed(&path);
    receive(&files, &first, "/f").unwrap();
    fs::write(&path, vec![2; 1_400_000]).unwrap();
    let second = packed(&path);
    for end in [40, 200_000, second.len() - 100, second.len() - 1] {
        let error = receive(&files, &second[..end], "/f").unwrap_err();
        assert!(matches!(error, Error::Cut(_)), "{end}: {error}");
        assert_eq!(names(&files, "/"), ["f"], "{end}");
        assert!(content(&files, "/f") == vec![1; 1_500_000], "{end}");
    }
    // The last byte of the content, which no header covers.
    let mut changed = second.clone();
    let at = changed.iter().rposition(|byte| *byte == 2).unwrap();
    changed[at - 100] = 3;
    assert!(receive(&files, &changed, "/f").is_err());
    assert!(content(&files, "/f") == vec![1; 1_500_000]);
    receive(&files, &second, "/f").unwrap();
    assert!(content(&files, "/f") == vec![2; 1_400_000]);
    let platter = lab.platter("disk");
    let is_there = platter.borrow().disk.content().windows(4096).any(|bytes| bytes == [2; 4096]);
    assert!(is_there, "it is on stable storage");
}

#[test]
fn a_disk_without_room_is_told_and_nothing_is_left() {
    let lab = lab();
    let desk = lab.client();
    let files = Files::new(&desk, SERVER, 0, 0);
    let free = || files.root("").unwrap().file_system().unwrap().blocks_free;
    let before = free();
    let mut large = std::io::Read::take(std::io::repeat(7), 20 << 20);
    let error = read_from(&mut large, 0, &mut Remote::new(&files, "", b"/f")).unwrap_err();
    assert!(error.to_string().contains("ENOSPC"), "{error}");
    assert_eq!((names(&files, "/").len(), free()), (0, before));
    let error = receive(&files, &sent(&files, "/").unwrap(), "/none/f").unwrap_err();
    assert!(error.to_string().contains("ENOENT"), "{error}");
}

#[test]
fn a_directory_gives_way_to_nothing() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("x")).unwrap();
    fs::write(folder.path().join("x/d"), "file").unwrap();
    let stream = packed(&folder.path().join("x"));
    let lab = lab();
    let desk = lab.client();
    let files = Files::new(&desk, SERVER, 0, 0);
    make_directory(&files, "", b"x/d/e", true).unwrap();
    assert!(receive(&files, &stream, "/").is_err());
    assert_eq!((names(&files, "/x"), names(&files, "/x/d")), (vec!["d".into()], vec!["e".into()]));
    // Nor does a link lead a directory elsewhere.
    make_directory(&files, "", b"y", false).unwrap();
    files.root("").unwrap().make_link(b"z", b"y").unwrap();
    fs::create_dir_all(folder.path().join("w/z")).unwrap();
    fs::write(folder.path().join("w/z/f"), "file").unwrap();
    let mut stream = Vec::new();
    Local::new(folder.path().join("w/.")).send(true, &mut Packer::new(&mut stream)).unwrap();
    assert!(receive(&files, &stream, "/").is_err());
    assert_eq!(names(&files, "/y"), [""; 0]);
}

#[test]
fn directories_are_made_listed_and_removed() {
    let lab = lab();
    let desk = lab.client();
    let files = Files::new(&desk, SERVER, 0, 0);
    let refused = |done: Result<(), mol_fs::client::FilesError>| done.unwrap_err().errno;
    assert_eq!(refused(make_directory(&files, "", b"/a/b", false)), Some(Errno::NoEntry));
    make_directory(&files, "", b"/a//b/", true).unwrap();
    make_directory(&files, "", b"a/b/c", true).unwrap();
    make_directory(&files, "", b"/", true).unwrap();
    assert_eq!(refused(make_directory(&files, "", b"/a", false)), Some(Errno::Exists));
    read_from(&mut &b"content"[..], 9, &mut Remote::new(&files, "", b"/a/f")).unwrap();
    assert_eq!(refused(make_directory(&files, "", b"/a/f", true)), Some(Errno::NotDirectory));
    let all = list(&files, "", b"/a").unwrap();
    let file = Listed {
        name: "f".into(),
        kind: "file",
        mode: 0o644,
        links: 1,
        user: 0,
        group: 0,
        bytes: 7,
        modified_s: 9,
    };
    assert_eq!((all.len(), &all[1]), (2, &file));
    assert_eq!(list(&files, "", b"/a/f").unwrap(), [file]);
    let text = table(&all);
    assert!(
        text.ends_with("- 0644   1     0     0          7 f\n") && text.starts_with("d 0755"),
        "{text}"
    );

    for number in 0..30 {
        let path = format!("/a/b/c/file-{number}");
        read_from(&mut &b"x"[..], 0, &mut Remote::new(&files, "", path.as_bytes())).unwrap();
    }
    assert_eq!(refused(remove(&files, "", b"/a", false)), Some(Errno::IsDirectory));
    remove(&files, "", b"/a/f", false).unwrap();
    remove(&files, "", b"/a", true).unwrap();
    assert_eq!(names(&files, "/"), [""; 0]);
    assert_eq!(refused(remove(&files, "", b"/a", true)), Some(Errno::NoEntry));
    assert_eq!(refused(remove(&files, "", b"/", true)), Some(Errno::Invalid));
    drop(files);
    assert!(lab.server.borrow().clients().is_empty(), "everything was given back");
}
