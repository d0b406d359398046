// SPDX-License-Identifier: MIT OR Apache-2.0
//! Trees are copied whole or not, wherever the stream ends and whatever is in it.

use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::fs::{symlink, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use tempfile::TempDir;
use vos_transfer::{
    name_of, read_from, unpack, About, Copied, Error, Local, Packer, Raw, Sink, Top, Watched,
};

const ABOUT: About = About { mode: 0o640, modified_s: 1_000_000_007 };

/// Directories, an empty and a large file, a link, and a directory that nobody may write.
fn tree() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path().join("site");
    fs::create_dir_all(top.join("a/empty")).unwrap();
    fs::write(top.join("a/nothing"), "").unwrap();
    let large: Vec<u8> = (0..200_000_u32).map(|at| (at / 7 % 251) as u8).collect();
    fs::write(top.join("a/large"), large).unwrap();
    symlink("../a/large", top.join("link")).unwrap();
    let file = fs::File::options().write(true).open(top.join("a/large")).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_secs(ABOUT.modified_s)).unwrap();
    fs::set_permissions(top.join("a/large"), Permissions::from_mode(0o604)).unwrap();
    fs::set_permissions(top.join("a"), Permissions::from_mode(0o555)).unwrap();
    folder
}

fn packed(path: &Path) -> Vec<u8> {
    let mut stream = Vec::new();
    Local::new(path).send(true, &mut Packer::new(&mut stream)).unwrap();
    stream
}

fn unpacked(mut stream: &[u8], to: &Path) -> Result<Copied, Error> {
    let mut sink = Local::new(to);
    let mut watched = Watched::new(&mut sink, |_, _| {});
    unpack(&mut stream, &mut watched)?;
    Ok(watched.copied())
}

/// Everything in a folder: paths, permissions, and content or where a link leads.
fn seen(folder: &Path) -> Vec<(PathBuf, u32, i64, Vec<u8>)> {
    let mut all = Vec::new();
    let mut rest = vec![folder.to_owned()];
    while let Some(path) = rest.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let (mut time, mut content) = (metadata.mtime(), Vec::new());
        if metadata.is_dir() {
            rest.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if metadata.is_symlink() {
            // A link has no time that anybody keeps.
            (time, content) =
                (0, fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes());
        } else {
            content = fs::read(&path).unwrap();
        }
        let below = path.strip_prefix(folder).unwrap().to_owned();
        all.push((below, metadata.mode(), time, content));
    }
    all.sort();
    all
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let from = tree();
    let site = from.path().join("site");
    let stream = packed(&site);
    let to = tempfile::tempdir().unwrap();
    let copied = unpacked(&stream, &to.path().join("new")).unwrap();
    assert_eq!(copied, Copied { files: 2, directories: 3, links: 1, bytes: 200_000 });
    assert_eq!(seen(&to.path().join("new")), seen(&site));
    // Into a directory that is there it comes by its name, and what was there is replaced.
    for _ in 0..2 {
        let writable = to.path().join("site/a");
        if writable.exists() {
            fs::set_permissions(&writable, Permissions::from_mode(0o755)).unwrap();
            fs::write(writable.join("large"), "other").unwrap();
            fs::set_permissions(&writable, Permissions::from_mode(0o555)).unwrap();
        }
        // Who is no superuser cannot write into a directory that is there and forbids it.
        if unpacked(&stream, to.path()).is_ok() {
            let content = |all: Vec<(PathBuf, u32, i64, Vec<u8>)>| -> Vec<_> {
                all.into_iter().map(|(path, mode, _, content)| (path, mode, content)).collect()
            };
            assert_eq!(content(seen(&to.path().join("site"))), content(seen(&site)));
        }
    }
    assert_eq!(packed(&site), stream, "the same tree is the same stream");
}

#[test]
fn a_stream_that_is_cut_or_changed_is_an_error_and_no_file_is_half_there() {
    let from = tempfile::tempdir().unwrap();
    fs::create_dir(from.path().join("d")).unwrap();
    fs::write(from.path().join("d/one"), [7; 60]).unwrap();
    fs::write(from.path().join("d/two"), [8; 60]).unwrap();
    let stream = packed(&from.path().join("d"));
    let whole = |to: &Path| {
        ["one", "two"].map(|name| fs::read(to.join(name)).ok().map(|content| content.len()))
    };
    for end in 0..stream.len() {
        let to = tempfile::tempdir().unwrap();
        let to = to.path().join("x");
        let error = unpacked(&stream[..end], &to).unwrap_err();
        assert!(matches!(error, Error::Cut(_)), "{end}: {error}");
        for length in whole(&to).into_iter().flatten() {
            assert_eq!(length, 60, "{end}");
        }
        let left = fs::read_dir(&to).map_or(0, Iterator::count);
        assert!(left <= whole(&to).into_iter().flatten().count(), "{end}: nothing is left over");
    }
    for at in 0..stream.len() {
        let to = tempfile::tempdir().unwrap();
        let mut changed = stream.clone();
        changed[at] ^= 0x20;
        assert!(unpacked(&changed, &to.path().join("x")).is_err(), "byte {at}");
    }
    assert!(unpacked(&stream, &from.path().join("y")).is_ok());
}

/// Says what it likes.
fn stream_of(say: impl FnOnce(&mut dyn Sink) -> Result<(), Error>) -> Vec<u8> {
    let mut stream = Vec::new();
    let mut packer = Packer::new(&mut stream);
    packer.begin(&Top { name: Some("x".into()), bytes: None }).unwrap();
    say(&mut packer).unwrap();
    packer.end().unwrap();
    stream
}

#[test]
fn nothing_goes_through_links() {
    let folder = tempfile::tempdir().unwrap();
    let outside = folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let top = folder.path().join("top");
    let through = stream_of(|sink| {
        sink.directory(Path::new(""), ABOUT)?;
        sink.link(Path::new("a"), Path::new("../outside"))?;
        sink.directory(Path::new("a"), ABOUT)?;
        sink.file(Path::new("a/f"), ABOUT, &mut &b"harm"[..])
    });
    assert!(unpacked(&through, &top).is_err(), "a directory where a link is to be");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);

    // Nor through one that came earlier.
    fs::create_dir(folder.path().join("other")).unwrap();
    let other = folder.path().join("other");
    symlink("../outside", other.join("a")).unwrap();
    let later = stream_of(|sink| {
        sink.directory(Path::new(""), ABOUT)?;
        sink.directory(Path::new("a"), ABOUT)?;
        sink.file(Path::new("a/f"), ABOUT, &mut &b"harm"[..])
    });
    fs::rename(&other, folder.path().join("x")).unwrap();
    assert!(unpacked(&later, folder.path()).is_err());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);

    let orphan = stream_of(|sink| {
        sink.directory(Path::new(""), ABOUT)?;
        sink.file(Path::new("b/f"), ABOUT, &mut &b"harm"[..])
    });
    let error = unpacked(&orphan, &folder.path().join("z")).unwrap_err();
    assert!(error.to_string().contains("before its directory"), "{error}");
}

#[test]
fn one_file_goes_in_and_out_of_pipes() {
    let folder = tempfile::tempdir().unwrap();
    let mut stream = Vec::new();
    read_from(&mut &b"content"[..], 5, &mut Packer::new(&mut stream)).unwrap();
    unpacked(&stream, &folder.path().join("f")).unwrap();
    let there = fs::metadata(folder.path().join("f")).unwrap();
    assert_eq!((there.len(), there.mode() & 0o777, there.mtime()), (7, 0o644, 5));
    assert!(unpacked(&stream, folder.path()).is_err(), "it has no name to have in a directory");

    let mut out = Vec::new();
    unpack(&mut stream.as_slice(), &mut Raw(&mut out)).unwrap();
    assert_eq!(out, b"content");
    let tree = packed(folder.path());
    let error = unpack(&mut tree.as_slice(), &mut Raw(&mut out)).unwrap_err();
    assert!(matches!(error, Error::OnlyFile), "{error}");
    let mut nowhere = Vec::new();
    let error = Local::new(folder.path()).send(false, &mut Packer::new(&mut nowhere)).unwrap_err();
    assert!(matches!(error, Error::Directory(_)) && nowhere.is_empty(), "{error}");
}

#[test]
fn what_is_neither_file_nor_directory_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
    let mut stream = Vec::new();
    let error = Local::new(folder.path()).send(true, &mut Packer::new(&mut stream)).unwrap_err();
    assert!(error.to_string().contains("/socket is no file, directory"), "{error}");
}

/// What cannot be read to its end.
struct Broken(usize);

impl Read for Broken {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.0 == 0 {
            return Err(std::io::Error::other("the disk is on fire"));
        }
        let length = into.len().min(self.0);
        self.0 -= length;
        Ok(length)
    }
}

#[test]
fn a_source_that_fails_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = Local::new(folder.path().join("f"));
    let error = read_from(&mut Broken(100_000), 0, &mut sink).unwrap_err();
    assert!(error.to_string().ends_with("/f is to have: the disk is on fire"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_name_is_that_of_what_is_named() {
    let name = |path: &str| name_of(Path::new(path)).map(|name| name.into_string().unwrap());
    assert_eq!(name("a/b"), Some("b".into()));
    assert_eq!(name("/a/b/"), Some("b".into()));
    for none in ["/", ".", "/a/.", ".."] {
        assert_eq!(name(none), None, "{none}");
    }
}
