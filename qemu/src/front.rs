// SPDX-License-Identifier: MIT OR Apache-2.0
//! A port of the host that leads to the nodes: each TCP connection to it is joined to one node, the next one to the next node, and a node
//! that does not take a connection is passed over.
//!
//! QEMU's user-mode network takes a connection from the host before the guest has done so, and reads nothing from it until then. So
//! what tells a guest that has accepted from one that is still booting is whether what was sent is read; what no guest has read can be
//! sent to another one without anybody getting it twice. While nothing was sent, nothing tells them apart: a node that speaks first shows by that
//! that it has accepted. A connection at which neither end says anything is cut after a while.

use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::socket::{not_now, wait};

/// How long a node may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long both ends may say nothing at first.
const SILENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether a node has read what was sent.
const LOOK: Duration = Duration::from_millis(20);
/// How much of what a client says first is kept until a node has begun to read it.
const OPENING_MAX: usize = 16 << 10;
/// Where Linux lists the TCP connections of this network namespace.
const TABLE: &str = "/proc/net/tcp";

/// A port of the host, and the port of the nodes that it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// TCP port on the host's 127.0.0.1.
    pub port: u16,
    /// TCP port at the management address of each node.
    pub guest: u16,
}

impl FromStr for Publish {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let number = |text: &str| text.parse().ok().filter(|port: &u16| *port != 0);
        let (port, guest) = text.split_once(':').unwrap_or((text, text));
        match (number(port), number(guest)) {
            (Some(port), Some(guest)) => Ok(Self { port, guest }),
            _ => Err(format!(
                "`{text}` is no port: write PORT or PORT:GUESTPORT, as 8080:80, each from 1 to 65535"
            )),
        }
    }
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "127.0.0.1:{} leads to port {} of the nodes", self.port, self.guest)
    }
}

/// Makes sure that ports can be had, so that one that is taken shows before anything is built.
///
/// # Errors
/// When one is taken, or may not be used.
pub fn check_free(published: &[Publish]) -> Result<()> {
    published.iter().try_for_each(|publish| listen(publish.port).map(drop))
}

fn listen(port: u16) -> Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => Error::Invalid(format!(
            "listening on 127.0.0.1:{port}: another program has this port; end it or choose another one with --publish"
        )),
        _ => Error::System { attempt: "listening on a published port of 127.0.0.1", source },
    })
}

/// How long it is waited for others.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// For a node to accept a connection.
    patience: Duration,
    /// For either end to say something.
    silence: Duration,
}

/// A published port being served. When it is dropped, nobody is taken any more; connections end with the nodes.
#[derive(Debug)]
pub(crate) struct Front {
    port: u16,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Front {
    /// Listens on `port`, and joins clients to `nodes`: ports of the host that lead to one node each.
    pub(crate) fn start(port: u16, nodes: Vec<u16>) -> Result<Front> {
        Self::with_limits(port, nodes, Limits { patience: PATIENCE, silence: SILENCE })
    }

    fn with_limits(port: u16, nodes: Vec<u16>, limits: Limits) -> Result<Front> {
        let attempt = "serving a published port of 127.0.0.1";
        let listener = listen(port)?;
        let port = listener.local_addr().map_err(Error::system(attempt))?.port();
        let ended = Arc::new(AtomicBool::new(false));
        let seen = ended.clone();
        let nodes: Arc<[u16]> = nodes.into();
        let thread = std::thread::Builder::new().name(format!("port {port}"));
        let thread = thread.spawn(move || {
            for (turn, client) in listener.incoming().enumerate() {
                if seen.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(client) = client else {
                    // Out of file descriptors, most likely; connections that end give some back.
                    std::thread::sleep(LOOK);
                    continue;
                };
                let nodes = nodes.clone();
                let join = move || join(&client, &in_turn(&nodes, turn), limits);
                // A client that gets no thread is cut off.
                let _ = std::thread::Builder::new().name("joined".to_owned()).spawn(join);
            }
        });
        let thread = Some(thread.map_err(Error::system(attempt))?);
        Ok(Front { port, ended, thread })
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes the thread. Should that fail, it ends with the process.
        let woken = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| woken) {
            let _ = thread.join();
        }
    }
}

/// All nodes, beginning with the one whose turn it is.
fn in_turn(nodes: &[u16], turn: usize) -> Vec<u16> {
    let first = turn.checked_rem(nodes.len()).unwrap_or(0);
    [&nodes[first..], &nodes[..first]].concat()
}

/// Joins a client to the first node that takes it; it is cut off if none does.
fn join(client: &TcpStream, nodes: &[u16], limits: Limits) {
    let mut opening = Vec::new();
    for &node in nodes {
        match offer(client, node, &mut opening, limits) {
            Ok(Offered::Taken(node)) => return relay(client, &node),
            Ok(Offered::NotTaken) => {}
            Ok(Offered::ClientGone | Offered::Silent) | Err(_) => return,
        }
    }
}

/// What became of a connection that was offered to a node.
enum Offered {
    Taken(TcpStream),
    NotTaken,
    ClientGone,
    /// Neither end has said anything.
    Silent,
}

/// Connects to a node, and sends it what the client says first; `opening` has that when it has to be offered to another one.
///
/// # Errors
/// When the client's connection fails.
fn offer(
    client: &TcpStream,
    port: u16,
    opening: &mut Vec<u8>,
    Limits { patience, silence }: Limits,
) -> io::Result<Offered> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let Ok(node) = TcpStream::connect_timeout(&address, patience) else {
        return Ok(Offered::NotTaken);
    };
    let _ = (node.set_nodelay(true), client.set_nodelay(true));
    node.set_nonblocking(true)?;
    client.set_nonblocking(true)?;
    let began = Instant::now();
    let mut sent: Option<Sent> = None;
    loop {
        match first_word(&node) {
            Word::Nothing => {}
            Word::Said => return Ok(Offered::Taken(node)),
            Word::Closed if sent.is_none() => return Ok(Offered::NotTaken),
            Word::Closed => {
                // It has read all and closed; or it had closed before, and then answers what was sent with a reset.
                std::thread::sleep(LOOK);
                let refused = !matches!(node.take_error(), Ok(None));
                return Ok(if refused { Offered::NotTaken } else { Offered::Taken(node) });
            }
            Word::Reset => return Ok(Offered::NotTaken),
        }
        if sent.as_mut().is_some_and(|sent| sent.is_read(&node)) {
            return Ok(Offered::Taken(node));
        }
        match &sent {
            Some(sent) if sent.at.elapsed() >= patience => return Ok(Offered::NotTaken),
            None if !opening.is_empty() => {
                // A new connection has room for it.
                if (&node).write_all(opening).is_err() {
                    return Ok(Offered::NotTaken);
                }
                sent = Some(Sent { bytes: opening.len(), at: Instant::now(), arrived: false });
                continue;
            }
            None if began.elapsed() >= silence => return Ok(Offered::Silent),
            _ => {}
        }
        let mut fds = vec![PollFd::new(&node, PollFlags::IN)];
        if sent.is_none() {
            fds.push(PollFd::new(client, PollFlags::IN));
        }
        let rest = silence.saturating_sub(began.elapsed());
        wait(&mut fds, Some(if sent.is_some() { LOOK } else { rest }))?;
        if sent.is_none() {
            let mut bytes = [0; OPENING_MAX];
            let mut client = client;
            match client.read(&mut bytes) {
                Ok(0) => return Ok(Offered::ClientGone),
                Ok(count) => opening.extend_from_slice(&bytes[..count]),
                Err(error) if not_now(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// What a node has said first.
enum Word {
    Nothing,
    Said,
    Closed,
    Reset,
}

fn first_word(node: &TcpStream) -> Word {
    match node.peek(&mut [0]) {
        Ok(0) => Word::Closed,
        Ok(_) => Word::Said,
        Err(error) if not_now(&error) => Word::Nothing,
        Err(_) => Word::Reset,
    }
}

/// What a node was sent and may not have read.
struct Sent {
    bytes: usize,
    at: Instant,
    /// Whether it has been seen to be in the node's queue.
    arrived: bool,
}

impl Sent {
    /// Whether the other end has begun to read it.
    fn is_read(&mut self, node: &TcpStream) -> bool {
        let ends = (node.local_addr(), node.peer_addr());
        let (Ok(SocketAddr::V4(own)), Ok(SocketAddr::V4(other))) = ends else { return false };
        let Ok(table) = fs::read_to_string(TABLE) else {
            // Without the table there is no way to tell; most nodes do accept.
            return self.at.elapsed() >= LOOK;
        };
        // Two looks: the lines of a table are not of one moment.
        let arrived = std::mem::replace(
            &mut self.arrived,
            queues(&table, own, other).is_some_and(|queues| queues.unacknowledged == 0),
        );
        arrived && queues(&table, other, own).is_some_and(|queues| queues.unread < self.bytes)
    }
}

/// Bytes on their way, at one end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Queues {
    unacknowledged: usize,
    unread: usize,
}

/// Those of the end `own` of the connection with `other`, in a table as Linux writes it (Documentation/networking/proc_net_tcp.rst).
fn queues(table: &str, own: SocketAddrV4, other: SocketAddrV4) -> Option<Queues> {
    let shown = |end: SocketAddrV4| {
        format!("{:08X}:{:04X}", u32::from_ne_bytes(end.ip().octets()), end.port())
    };
    let ends = [shown(own), shown(other)];
    table.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        if !ends.iter().all(|end| words.next() == Some(end)) {
            return None;
        }
        let (sending, receiving) = words.nth(1)?.split_once(':')?;
        Some(Queues {
            unacknowledged: usize::from_str_radix(sending, 16).ok()?,
            unread: usize::from_str_radix(receiving, 16).ok()?,
        })
    })
}

/// Passes everything on, both ways, until both ends have closed or one is cut off.
fn relay(client: &TcpStream, node: &TcpStream) {
    if client.set_nonblocking(false).and_then(|()| node.set_nonblocking(false)).is_err() {
        return;
    }
    std::thread::scope(|scope| {
        scope.spawn(|| pass(client, node));
        pass(node, client);
    });
}

fn pass(from: &TcpStream, to: &TcpStream) {
    let (mut reader, mut writer) = (from, to);
    match io::copy(&mut reader, &mut writer) {
        // One end may have said all and still listen.
        Ok(_) => drop(to.shutdown(Shutdown::Write)),
        Err(_) => {
            let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        }
    }
}

#[cfg(test)]
mod tests;
