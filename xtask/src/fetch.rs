// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fetches files over HTTP from a server of the host's loopback interface, also in parts: what was received before a connection was cut
//! is not lost.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The most bytes of an answer before its body.
const HEAD_MAX: usize = 64 << 10;

/// What a server has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The status, such as 200.
    pub(crate) status: u16,
    /// What came of the body.
    pub(crate) body: Vec<u8>,
    /// Whether that is all of it.
    pub(crate) is_whole: bool,
}

/// Asks for a file, or for what comes `from` there, and waits for each piece as long as `patience`. Whenever a part of the body has come, `watch` is told
/// how many bytes of it there are now.
///
/// # Errors
/// When there is no connection or no answer. A body that ends early is an answer.
pub(crate) fn get(
    server: SocketAddr,
    path: &str,
    from: usize,
    patience: Duration,
    mut watch: impl FnMut(usize),
) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&server, patience)?;
    stream.set_read_timeout(Some(patience))?;
    let range = if from > 0 { format!("Range: bytes={from}-\r\n") } else { String::new() };
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {server}\r\n{range}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut head = Vec::new();
    let mut piece = [0; 64 << 10];
    let body = loop {
        let count = stream.read(&mut piece)?;
        head.extend_from_slice(&piece[..count]);
        if let Some(end) = head.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break head.split_off(end + 4);
        }
        if count == 0 || head.len() > HEAD_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is none of HTTP"));
        }
    };
    let nonsense = || io::Error::new(io::ErrorKind::InvalidData, "the answer makes no sense");
    let (status, length) = understood(&String::from_utf8_lossy(&head)).ok_or_else(nonsense)?;
    let mut answer = Answer { status, body, is_whole: false };
    if !answer.body.is_empty() {
        watch(answer.body.len());
    }
    while answer.body.len() < length {
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return Ok(answer),
            Ok(count) => answer.body.extend_from_slice(&piece[..count]),
        }
        watch(answer.body.len());
    }
    answer.body.truncate(length);
    answer.is_whole = true;
    Ok(answer)
}

/// The status and the length of the body.
fn understood(head: &str) -> Option<(u16, usize)> {
    let mut lines = head.lines();
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.split(' ').next()?.parse().ok()?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    })?;
    Some((status, length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    /// Answers one request; what was asked.
    fn answered(answer: &'static str, from: usize) -> (String, io::Result<Answer>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let asked = thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                client.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            client.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(request).unwrap()
        });
        let mut seen = 0;
        let got = get(server, "/file", from, Duration::from_secs(60), |bytes| seen = bytes);
        if let Ok(answer) = &got {
            assert_eq!(seen, answer.body.len());
        }
        (asked.join().unwrap(), got)
    }

    #[test]
    fn a_body_that_ends_early_is_known_to_be_a_part() {
        let answer = |body: &str, is_whole| Answer { status: 200, body: body.into(), is_whole };
        let (asked, got) = answered("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwhole", 0);
        assert!(asked.starts_with("GET /file HTTP/1.1\r\n") && !asked.contains("Range"), "{asked}");
        assert_eq!(got.unwrap(), answer("whole", true));
        let (_, got) = answered("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwho", 0);
        assert_eq!(got.unwrap(), answer("who", false));
    }

    #[test]
    fn the_rest_is_asked_for() {
        let (asked, got) =
            answered("HTTP/1.1 206 Partial Content\r\nContent-Length: 2\r\n\r\nle", 3);
        assert!(asked.contains("\r\nRange: bytes=3-\r\n"), "{asked}");
        assert_eq!(got.unwrap(), Answer { status: 206, body: b"le".to_vec(), is_whole: true });
    }

    #[test]
    fn nonsense_is_an_error() {
        for answer in ["", "SSH-2.0\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200"] {
            answered(answer, 0).1.unwrap_err();
        }
    }
}
