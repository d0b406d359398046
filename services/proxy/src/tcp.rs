// SPDX-License-Identifier: MIT OR Apache-2.0
//! The link over TCP: one connection at a time, made anew whenever it breaks.

use crate::batch::{pieces, Decoder, Encoder};
use crate::channel::{Channel, End};
use crate::link::{Link, Refused};
use crate::passage::Passage;
use crate::protection::Protection;
use anyhow::{anyhow, Context, Result};
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use dvk::Frames;
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Instant;

/// How long a connection may take to be made.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// Between two attempts.
const RETRY: Duration = Duration::from_millis(500);
/// How often the sending side looks whether the receiving one has ended.
const LOOK: Duration = Duration::from_millis(200);
/// Connections that may be about to make themselves known at once. Strangers hold the peer up only if they take all of them.
const OPENING_MAX: usize = 16;

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
pub fn carry<L: Link>(passage: Passage<'_, L>, role: Role) -> Result<()> {
    let listener = match role {
        Role::Listen(address) => {
            let listener = TcpListener::bind(address);
            let listener = listener.with_context(|| format!("listening on {address}"))?;
            listener.set_nonblocking(true).context("preparing to listen")?;
            Some(listener)
        }
        Role::Connect(_) => None,
    };
    let mut attached = false;
    while !attached || passage.link.is_attached()? {
        let opened = match (role, &listener) {
            (Role::Connect(address), _) => connect(passage, address),
            (Role::Listen(_), Some(listener)) => accept(passage, listener),
            (Role::Listen(_), None) => Err(anyhow!("nothing is listened to")),
        };
        match opened {
            Ok(Some((channel, peer))) => match exchange(passage, &channel, &mut attached) {
                Ok(()) => return Ok(()),
                Err(Broken::Link(error)) => return Err(error),
                Err(Broken::Connection(why)) => {
                    passage
                        .log
                        .say(format_args!("the connection with {peer} ended"), &format!("{why:#}"));
                }
            },
            Ok(None) => continue,
            Err(error) => {
                let goal = match role {
                    Role::Listen(address) => format!("accepting connections on {address}"),
                    Role::Connect(address) => format!("connecting to {address}"),
                };
                passage.log.say(goal, &format!("{error:#}"));
            }
        }
        if matches!(role, Role::Connect(_)) {
            thread::sleep(RETRY);
        }
    }
    Ok(())
}

/// Makes a connection, and sure of the peer.
fn connect<L: Link>(
    passage: Passage<'_, L>,
    address: SocketAddr,
) -> Result<Option<(Channel, SocketAddr)>> {
    let stream = TcpStream::connect_timeout(&address, CONNECT_PATIENCE)?;
    let identity = identity(passage)?;
    let channel = Channel::open(stream, End::Connecting, identity, passage.counters)?;
    Ok(Some((channel, address)))
}

/// What this end proves itself by, where it has to.
fn identity<'a, L: Link>(passage: Passage<'a, L>) -> Result<Option<&'a dvs_authority::Identity>> {
    match passage.protection {
        Protection::Clear => Ok(None),
        Protection::Sealed(_) => {
            passage.identity.map(Some).context("there is nothing to prove this node by")
        }
    }
}

/// Waits a while for the peer to connect. Whoever else does is told apart beside it, so that a stranger who says nothing keeps nobody
/// waiting.
fn accept<L: Link>(
    passage: Passage<'_, L>,
    listener: &TcpListener,
) -> Result<Option<(Channel, SocketAddr)>> {
    let identity = identity(passage)?;
    let (sender, opened) = channel();
    let mut opening: Vec<(SocketAddr, TcpStream)> = Vec::new();
    let began = Instant::now();
    thread::scope(|scope| {
        let found = loop {
            if let Ok((from, channel)) = opened.try_recv() {
                opening.retain(|(known, _)| *known != from);
                if let Some(channel) = channel {
                    break Ok(Some((channel, from)));
                }
            }
            // A listener notices, too, when it is not wanted any more.
            if opening.is_empty() && began.elapsed() > LOOK {
                break Ok(None);
            }
            if let Err(error) = wait(listener) {
                break Err(error).context("waiting for connections");
            }
            let (stream, from) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => break Err(error).context("accepting a connection"),
            };
            if opening.len() >= OPENING_MAX {
                passage.counters.foreign.add(1);
                passage.log.say(from, "too many connections do not make themselves known");
                continue;
            }
            match stream.try_clone() {
                Ok(clone) => opening.push((from, clone)),
                Err(error) => break Err(error).context("accepting a connection"),
            }
            let sender = sender.clone();
            scope.spawn(move || {
                let told = stream.set_nonblocking(false).map_err(anyhow::Error::from);
                let channel = told.and_then(|()| {
                    Channel::open(stream, End::Listening, identity, passage.counters)
                });
                let channel = channel.inspect_err(|why| {
                    let whom = format_args!("a connection from {from}");
                    passage.log.say(whom, &format!("{why:#}"));
                });
                // Nobody waits any more if the peer was found.
                let _ = sender.send((from, channel.ok()));
            });
        };
        // The others end at once.
        for (_, stream) in opening {
            let _ = stream.shutdown(Shutdown::Both);
        }
        found
    })
}

/// Waits a short while for a connection.
fn wait(listener: &TcpListener) -> io::Result<()> {
    let mut ready = [PollFd::new(listener, PollFlags::IN)];
    let patience = Timespec::try_from(LOOK / 10).map_err(|_| io::ErrorKind::InvalidInput)?;
    match poll(&mut ready, Some(&patience)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
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
fn exchange<L: Link>(
    passage: Passage<'_, L>,
    channel: &Channel,
    attached: &mut bool,
) -> Result<(), Broken> {
    if !*attached {
        passage.link.attach().map_err(Broken::Link)?;
        *attached = true;
    }
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let end = receive(passage, channel);
            over.store(true, Ordering::Release);
            end
        });
        let sent = send(passage, channel, &over);
        // Ends the other side's read.
        channel.close();
        match (sent, receiver.join()) {
            (Err(Broken::Link(error)), _) | (_, Ok(Err(Broken::Link(error)))) => {
                Err(Broken::Link(error))
            }
            (Ok(true), _) | (_, Ok(Ok(true))) => Ok(()),
            (_, Ok(Err(broken))) | (Err(broken), _) => Err(broken),
            (Ok(false), Ok(Ok(false))) => Err(Broken::Connection(anyhow!("the peer closed it"))),
            (_, Err(_)) => Err(Broken::Link(anyhow!("a thread panicked"))),
        }
    })
}

/// Sends frames until the connection is over. Returns whether another transport has taken over.
fn send<L: Link>(
    passage: Passage<'_, L>,
    channel: &Channel,
    over: &AtomicBool,
) -> Result<bool, Broken> {
    let mut encoder = Encoder::new(passage.compression).map_err(Broken::Link)?;
    let (mut frames, mut bytes) = (Frames::new(), Vec::new());
    while !over.load(Ordering::Acquire) {
        match passage.link.get(&mut frames, LOOK) {
            Ok(()) => {
                let mut carried = 0;
                for piece in pieces(frames.as_bytes()) {
                    bytes.clear();
                    encoder.encode(piece, &mut bytes).map_err(Broken::Link)?;
                    let began = Instant::now();
                    channel.write(&bytes)?;
                    encoder.taken(bytes.len(), began.elapsed());
                    carried += bytes.len();
                }
                passage.counters.sent(&frames, carried);
            }
            Err(Refused::Quiet) => channel.flush()?,
            Err(Refused::TakenOver) => return Ok(true),
            Err(Refused::Failed(error)) => return Err(Broken::Link(error)),
        }
    }
    Ok(false)
}

/// Receives frames until the connection is over. Returns as [`send`].
fn receive<L: Link>(passage: Passage<'_, L>, channel: &Channel) -> Result<bool, Broken> {
    let (mut decoder, mut frames) = (Decoder::default(), Frames::new());
    loop {
        let more =
            channel.read(decoder.incoming(), passage.counters).map_err(Broken::Connection)?;
        while let Some(carried) = decoder.next(&mut frames).map_err(Broken::Connection)? {
            if frames.is_empty() {
                continue;
            }
            passage.counters.received(&frames, carried);
            match passage.link.put(&frames) {
                Ok(()) | Err(Refused::Quiet) => {}
                Err(Refused::TakenOver) => return Ok(true),
                Err(Refused::Failed(error)) => return Err(Broken::Link(error)),
            }
        }
        if !more {
            return Ok(false);
        }
    }
}
