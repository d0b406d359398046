// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections: how long they last and how many there are.

use crate::lab::{close, next_head, Web};
use core::time::Duration;
use mol_web::conditions::Version;
use mol_web::server::Limits;
use mol_web::source::{Entry, Fault, Found, Source};
use std::io::{Read, Write};

const HEAD: &[u8] = b"HEAD /f HTTP/1.1\r\nHost: here\r\n\r\n";
const BYTES: u64 = 64 << 20;

/// A file that has nothing but zeros, and a broken one.
struct Zeros;

impl Source for Zeros {
    type Open = bool;

    fn find(&mut self, path: &[u8], _: Duration) -> Result<Found<bool>, Fault> {
        let version = Version { inode: 1, bytes: BYTES, modified: Duration::from_secs(1) };
        match path {
            b"broken" => Ok(Found::File(false, version)),
            b"unreadable" => Err(Fault::Failed("the disk is broken".to_owned())),
            b"crowded" => Err(Fault::Full("too many".to_owned())),
            _ => Ok(Found::File(true, version)),
        }
    }

    fn list(&mut self, _: &[u8], _: Duration) -> Result<Vec<Entry>, Fault> {
        Err(Fault::Absent)
    }

    fn read(
        &mut self,
        is_sound: &bool,
        position: u64,
        into: &mut [u8],
        _: Duration,
    ) -> Result<usize, Fault> {
        match *is_sound || position < 1 << 20 {
            true => Ok(into.len()),
            false => Err(Fault::Failed("the disk is broken".to_owned())),
        }
    }

    fn close(&mut self, _: bool) {}
}

fn served(limits: Limits) -> Web {
    Web::new(vec![Zeros], limits)
}

#[test]
fn a_connection_serves_several_requests() {
    let web = served(Limits::default());
    let mut stream = web.connect();
    for _ in 0..3 {
        stream.write_all(HEAD).unwrap();
        assert_eq!(next_head(&mut stream).status, 200);
    }
    // Two at once are answered in order.
    stream
        .write_all(&[HEAD, &b"HEAD /crowded HTTP/1.1\r\nHost: here\r\n\r\n"[..]].concat())
        .unwrap();
    assert_eq!(next_head(&mut stream).status, 200);
    let crowded = next_head(&mut stream);
    assert_eq!((crowded.status, crowded.header("retry-after")), (503, "5"));
}

#[test]
fn a_disk_that_fails_harms_nothing_else() {
    let web = served(Limits::default());
    assert_eq!(web.get("/unreadable").status, 500);
    let cut = web.get("/broken");
    assert_eq!(cut.status, 200);
    assert!(cut.body.len() <= 1 << 20, "the client sees that it is not whole");
    assert!(web.get("/f").whole().len() as u64 == BYTES);
}

#[test]
fn who_sends_no_request_and_who_takes_no_answer_is_cut_off() {
    let web = served(Limits { idle: Duration::from_millis(200), ..Limits::default() });
    let mut slow = web.connect();
    slow.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    let mut silent = web.connect();
    let mut idle = web.connect();
    idle.write_all(HEAD).unwrap();
    next_head(&mut idle);
    for stream in [&mut slow, &mut silent, &mut idle] {
        // It ends, where a read would otherwise time out.
        let ended = stream.read_to_end(&mut Vec::new());
        assert!(ended.is_ok() || ended.is_err_and(|error| error.raw_os_error() == Some(104)));
    }
    // More than sockets keep; whoever takes it late finds only a part.
    let mut lazy = web.connect();
    lazy.write_all(b"GET /f HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n").unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let mut got = Vec::new();
    let _ = lazy.read_to_end(&mut got);
    assert!((got.len() as u64) < BYTES, "{} bytes", got.len());
}

#[test]
fn there_are_as_many_connections_as_are_allowed() {
    let web = served(Limits { connections: 1, ..Limits::default() });
    let mut first = web.connect();
    first.write_all(HEAD).unwrap();
    next_head(&mut first);
    let mut second = web.connect();
    second.write_all(HEAD).unwrap();
    second.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(second.read(&mut [0]).is_err(), "there is no place for it");
    close(&first);
    second.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    assert_eq!(next_head(&mut second).status, 200);
}

#[test]
fn what_is_under_way_is_finished_when_the_server_ends() {
    let mut web = served(Limits { ending: Duration::from_secs(60), ..Limits::default() });
    let mut idle = web.connect();
    idle.write_all(HEAD).unwrap();
    next_head(&mut idle);
    let mut stream = web.connect();
    stream.write_all(b"GET /f HTTP/1.1\r\nHost: here\r\n\r\n").unwrap();
    next_head(&mut stream);
    web.tell_to_end();
    assert_eq!(idle.read(&mut [0]).unwrap_or(0), 0, "nothing is asked there");
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    assert_eq!(got.len() as u64, BYTES);
    let address = web.address;
    web.end();
    assert!(std::net::TcpStream::connect(address).is_err(), "nobody is there any more");
}
