// SPDX-License-Identifier: MIT OR Apache-2.0
//! The link over TCP: one connection at a time, made anew whenever it breaks.

use crate::link::{Link, Refused};
use crate::stream::{encode, Decoder, PREFACE};
use anyhow::{Context, Result};
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use dvk::Frames;
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

/// How long a connection may take to be made.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// Between two attempts.
const RETRY: Duration = Duration::from_millis(500);
/// How often the sending side looks whether the receiving one has ended.
const LOOK: Duration = Duration::from_millis(200);
/// A peer that takes nothing for so long is gone.
const SEND_PATIENCE: Duration = Duration::from_secs(10);

/// Which end makes the connection.
#[derive(Clone, Copy, Debug)]
pub enum Role {
    /// The other one, to this address.
    Listen(SocketAddr),
    /// This one, to this address.
    Connect(SocketAddr),
}

/// Carries the link until another transport does.
///
/// # Errors
/// When nothing can be listened to, or the link fails.
pub fn carry(link: &impl Link, role: Role) -> Result<()> {
    let listener = match role {
        Role::Listen(address) => {
            let listener = TcpListener::bind(address);
            Some(listener.with_context(|| format!("listening on {address}"))?)
        }
        Role::Connect(_) => None,
    };
    let mut attached = false;
    while !attached || link.is_attached()? {
        let stream = match role {
            Role::Connect(address) => TcpStream::connect_timeout(&address, CONNECT_PATIENCE),
            Role::Listen(_) => accept(listener.as_ref()),
        };
        match stream {
            Ok(stream) => match exchange(link, &stream, &mut attached) {
                Ok(()) => return Ok(()),
                Err(Broken::Link(error)) => return Err(error),
                Err(Broken::Connection(why)) => {
                    eprintln!("dvs-proxy: {}: {why:#}", peer(&stream));
                }
            },
            Err(error) if error.kind() == io::ErrorKind::TimedOut => continue,
            Err(error) => eprintln!("dvs-proxy: {}: {error}", goal(role)),
        }
        thread::sleep(RETRY);
    }
    Ok(())
}

/// Waits a while for a connection, so that a listener notices, too, when it is not wanted any more.
fn accept(listener: Option<&TcpListener>) -> io::Result<TcpStream> {
    let listener = listener.ok_or(io::ErrorKind::NotConnected)?;
    let mut ready = [PollFd::new(listener, PollFlags::IN)];
    let patience = Timespec::try_from(LOOK).map_err(|_| io::ErrorKind::InvalidInput)?;
    match poll(&mut ready, Some(&patience))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(listener.accept()?.0),
    }
}

fn goal(role: Role) -> String {
    match role {
        Role::Listen(address) => format!("accepting a connection on {address}"),
        Role::Connect(address) => format!("connecting to {address}"),
    }
}

fn peer(stream: &TcpStream) -> String {
    match stream.peer_addr() {
        Ok(address) => format!("the connection with {address} ended"),
        Err(_) => "the connection ended".to_owned(),
    }
}

/// Why frames are no longer exchanged.
enum Broken {
    Connection(anyhow::Error),
    Link(anyhow::Error),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Connection(error.into())
    }
}

/// Exchanges frames over one connection. Ends well when another transport has taken over.
fn exchange(link: &impl Link, stream: &TcpStream, attached: &mut bool) -> Result<(), Broken> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(SEND_PATIENCE))?;
    greet(stream)?;
    if !*attached {
        link.attach().map_err(Broken::Link)?;
        *attached = true;
    }
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let end = receive(link, stream);
            over.store(true, Ordering::Release);
            end
        });
        let sent = send(link, stream, &over);
        // Ends the other side's read; an error is that the connection is gone already.
        let _ = stream.shutdown(Shutdown::Both);
        match (sent, receiver.join()) {
            (Err(Broken::Link(error)), _) | (_, Ok(Err(Broken::Link(error)))) => {
                Err(Broken::Link(error))
            }
            (Ok(true), _) | (_, Ok(Ok(true))) => Ok(()),
            (_, Ok(Err(broken))) | (Err(broken), _) => Err(broken),
            (Ok(false), Ok(Ok(false))) => {
                Err(Broken::Connection(anyhow::anyhow!("the peer closed it")))
            }
            (_, Err(_)) => Err(Broken::Link(anyhow::anyhow!("a thread panicked"))),
        }
    })
}

/// Says what is spoken, and makes sure that the peer speaks it, too: whoever else may have connected gets no frame.
fn greet(mut stream: &TcpStream) -> Result<(), Broken> {
    stream.write_all(&PREFACE)?;
    stream.set_read_timeout(Some(CONNECT_PATIENCE))?;
    let mut preface = [0; PREFACE.len()];
    stream.read_exact(&mut preface)?;
    stream.set_read_timeout(None)?;
    if preface != PREFACE {
        let why = "the peer is no dvs-proxy of this version: its stream begins otherwise";
        return Err(Broken::Connection(anyhow::anyhow!(why)));
    }
    Ok(())
}

/// Sends frames until the connection is over. Returns whether another transport has taken over.
fn send(link: &impl Link, mut stream: &TcpStream, over: &AtomicBool) -> Result<bool, Broken> {
    let (mut frames, mut bytes) = (Frames::new(), Vec::new());
    while !over.load(Ordering::Acquire) {
        match link.get(&mut frames, LOOK) {
            Ok(()) => {
                bytes.clear();
                encode(&frames, &mut bytes);
                stream.write_all(&bytes)?;
            }
            Err(Refused::Quiet) => {}
            Err(Refused::TakenOver) => return Ok(true),
            Err(Refused::Failed(error)) => return Err(Broken::Link(error)),
        }
    }
    Ok(false)
}

/// Receives frames until the connection is over. Returns as [`send`].
fn receive(link: &impl Link, mut stream: &TcpStream) -> Result<bool, Broken> {
    let mut decoder = Decoder::default();
    let (mut frames, mut bytes) = (Frames::new(), vec![0; 1 << 16]);
    loop {
        let len = stream.read(&mut bytes)?;
        if len == 0 {
            return Ok(false);
        }
        let mut piece = &bytes[..len];
        loop {
            decoder.take(piece, &mut frames).map_err(Broken::Connection)?;
            if !frames.is_empty() {
                match link.put(&frames) {
                    Ok(()) | Err(Refused::Quiet) => {}
                    Err(Refused::TakenOver) => return Ok(true),
                    Err(Refused::Failed(error)) => return Err(Broken::Link(error)),
                }
                frames.clear();
            }
            if !decoder.is_full() {
                break;
            }
            piece = &[];
        }
    }
}
