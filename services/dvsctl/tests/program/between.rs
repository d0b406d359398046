// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stands between the program and a node: sees each request, and may have the node not see it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

/// What becomes of a request.
pub(crate) enum Verdict {
    /// The node answers it.
    Pass,
    /// It is answered with this status, and never gets to the node.
    Refuse(u16),
}

/// Gives the address at which requests are taken for the node at `url`; `judge` is given the method and path of each.
pub(crate) fn between(
    url: &str,
    judge: impl Fn(&str) -> Verdict + Send + Sync + 'static,
) -> String {
    let node = url.strip_prefix("http://").unwrap().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap();
    let judge = Arc::new(judge);
    thread::spawn(move || {
        for client in listener.incoming() {
            let (client, node, judge) = (client.unwrap(), node.clone(), Arc::clone(&judge));
            // Who asked may go away at any time.
            thread::spawn(move || carry(client, &node, &*judge).ok());
        }
    });
    format!("http://{own}")
}

/// Carries one request, and its answer back.
fn carry(
    mut client: TcpStream,
    node: &str,
    judge: &dyn Fn(&str) -> Verdict,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let (mut head, mut bytes) = (Vec::<String>::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let lower = line.to_ascii_lowercase();
        if let Some(length) = lower.strip_prefix("content-length:") {
            bytes = length.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
        if !lower.starts_with("connection:") {
            head.push(line);
        }
    }
    let mut body = vec![0; bytes];
    reader.read_exact(&mut body)?;
    let request = head[0].trim_end().trim_end_matches(" HTTP/1.1");
    if let Verdict::Refuse(status) = judge(request) {
        let text = r#"{"error":"nobody leads"}"#;
        let length = text.len();
        return write!(
            client,
            "HTTP/1.1 {status} No\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{text}"
        );
    }
    let mut node = TcpStream::connect(node)?;
    write!(node, "{}connection: close\r\n\r\n", head.concat())?;
    node.write_all(&body)?;
    let mut answer = Vec::new();
    node.read_to_end(&mut answer)?;
    client.write_all(&answer)
}
