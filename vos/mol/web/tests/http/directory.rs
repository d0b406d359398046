// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files of a directory.

use crate::lab::Web;
use mol_web::server::Limits;
use mol_web::source::Directory;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::time::{Duration, UNIX_EPOCH};

const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

fn served() -> (tempfile::TempDir, Web) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    fs::create_dir_all(root.join("d/e f")).unwrap();
    fs::write(root.join("d/<b>"), "bold").unwrap();
    fs::create_dir(root.join("site")).unwrap();
    fs::write(root.join("site/index.html"), "<p>here</p>").unwrap();
    fs::write(root.join("empty.txt"), "").unwrap();
    fs::write(root.join("a.txt"), "0123456789").unwrap();
    let then = UNIX_EPOCH + Duration::from_secs(784_111_777);
    File::options().write(true).open(root.join("a.txt")).unwrap().set_modified(then).unwrap();
    fs::write(folder.path().join("secret"), "secret").unwrap();
    symlink("../secret", root.join("way-out")).unwrap();
    let sources = vec![Directory::open(&root).unwrap(); 2];
    (folder, Web::new(sources, Limits::default()))
}

#[test]
fn a_file_comes_with_what_is_known_of_it() {
    let (_folder, web) = served();
    let answer = web.get("/a.txt");
    assert_eq!((answer.status, answer.text()), (200, "0123456789"));
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(answer.header("last-modified"), DATE);
    assert_eq!(answer.header("accept-ranges"), "bytes");
    assert!(!answer.header("date").is_empty());
    assert!(answer.header("etag").starts_with('"'), "{answer:?}");
    let head = web.ask("HEAD", "/a.txt", &[("Range", "bytes=0-1")]);
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, "10", 0));
    assert_eq!(web.get("/empty.txt").text(), "");
    web.end();
}

#[test]
fn a_large_file_is_whole() {
    let (folder, web) = served();
    let content: Vec<u8> = (0..1_500_001_u32).map(|at| (at / 7 % 251) as u8).collect();
    fs::write(folder.path().join("root/large"), &content).unwrap();
    assert!(web.get("/large").whole() == content);
    let part = web.ask("GET", "/large", &[("Range", "bytes=100000-1400000")]);
    assert_eq!(part.header("content-range"), "bytes 100000-1400000/1500001");
    assert!(part.whole() == &content[100_000..=1_400_000]);
}

#[test]
fn parts_and_conditions_are_heeded() {
    let (_folder, web) = served();
    let ask = |headers: &[(&str, &str)]| web.ask("GET", "/a.txt", headers);
    let part = ask(&[("Range", "bytes=2-4")]);
    assert_eq!((part.status, part.text()), (206, "234"));
    assert_eq!(part.header("content-range"), "bytes 2-4/10");
    assert_eq!(ask(&[("Range", "bytes=-3")]).text(), "789");
    assert_eq!(ask(&[("Range", "bytes=0-0,2-2")]).status, 200);
    let none = ask(&[("Range", "bytes=10-")]);
    assert_eq!((none.status, none.header("content-range")), (416, "bytes */10"));
    let tag = ask(&[]).header("etag").to_owned();
    let same = ask(&[("If-None-Match", &tag)]);
    assert_eq!((same.status, same.body.len(), same.header("etag")), (304, 0, tag.as_str()));
    assert_eq!(ask(&[("If-Modified-Since", DATE)]).status, 304);
    assert_eq!(ask(&[("If-Match", "\"other\"")]).status, 412);
    assert_eq!(ask(&[("If-Range", &tag), ("Range", "bytes=2-4")]).status, 206);
    assert_eq!(ask(&[("If-Range", "\"other\""), ("Range", "bytes=2-4")]).status, 200);
}

#[test]
fn a_directory_is_its_index_or_a_list() {
    let (_folder, web) = served();
    let index = web.get("/site/");
    assert_eq!((index.status, index.text()), (200, "<p>here</p>"));
    assert_eq!(index.header("content-type"), "text/html; charset=utf-8");
    let list = web.get("/d/");
    assert_eq!(list.status, 200);
    assert!(list.text().contains("<a href=\"e%20f/\">e f/</a>"), "{list:?}");
    assert!(list.text().contains("<a href=\"%3Cb%3E\">&lt;b&gt;</a>"), "{list:?}");
    assert!(web.get("/d/%3Cb%3E").text() == "bold");
    let moved = web.get("//d?a=b");
    assert_eq!((moved.status, moved.header("location")), (301, "/d/?a=b"));
    assert!(!web.get("/").text().contains("way-out"), "it leads out, and is not shown");
}

#[test]
fn what_cannot_be_had_is_refused_with_a_reason() {
    let (_folder, web) = served();
    for (path, status) in [
        ("/none", 404),
        ("/a.txt/", 404),
        ("/a.txt/b", 404),
        ("/way-out", 403),
        ("/../secret", 400),
        ("/%2e%2e/secret", 400),
        ("/a%00", 400),
        ("/%zz", 400),
    ] {
        let answer = web.get(path);
        assert_eq!(answer.status, status, "{path}");
        assert!(answer.text().starts_with(&status.to_string()), "{path}: {answer:?}");
    }
    assert_eq!(web.get(&format!("/{}", "a".repeat(4096))).status, 414);
    let posted = web.ask("POST", "/a.txt", &[("Content-Length", "0")]);
    assert_eq!((posted.status, posted.header("allow")), (405, "GET, HEAD"));
    let long = "a".repeat(20_000);
    assert_eq!(web.ask("GET", "/a.txt", &[("Long", &long)]).status, 431);
    assert_eq!(web.raw(b"GET /a.txt HTTP/1.1\r\nConnection: close\r\n\r\n").status, 400, "no host");
    assert_eq!(web.raw(b"GET /a.txt HTTP/1.0\r\n\r\n").text(), "0123456789");
    assert_eq!(web.ask("GET", "/a.txt", &[("Host", "b")]).status, 400, "two hosts");
    assert_eq!(web.get("/a.txt").status, 200, "nothing is harmed");
}
