// SPDX-License-Identifier: MIT OR Apache-2.0
//! Datagrams in the clear: each is a frame, and nothing else.

use super::{is_nothing, DATAGRAM_BYTES_MAX, LOOK};
use crate::datagram::packet::is_sealed;
use crate::link::{Link, Refused};
use crate::passage::Passage;
use anyhow::{anyhow, Context, Result};
use core::sync::atomic::{AtomicBool, Ordering};
use dvk::Frames;
use rustix::net::{recv, RecvFlags};
use std::net::UdpSocket;
use std::thread;

pub(super) fn carry<L: Link>(passage: Passage<'_, L>, socket: &UdpSocket) -> Result<()> {
    socket.set_read_timeout(Some(LOOK)).context("setting the timeout of a socket")?;
    passage.link.attach()?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let end = receive(passage, socket, &over);
            over.store(true, Ordering::Release);
            end
        });
        let sent = send(passage, socket, &over);
        over.store(true, Ordering::Release);
        let received = receiver.join().map_err(|_| anyhow!("a thread panicked"))?;
        sent.and(received)
    })
}

fn send<L: Link>(passage: Passage<'_, L>, socket: &UdpSocket, over: &AtomicBool) -> Result<()> {
    let mut frames = Frames::new();
    while !over.load(Ordering::Acquire) {
        match passage.link.get(&mut frames, LOOK) {
            Ok(()) => {
                let mut carried = 0;
                for frame in frames.iter() {
                    // What cannot be sent, because nobody listens there yet, the path is too narrow or the queue is full, is
                    // lost as any datagram may be, and sent again by the link.
                    let _ = socket.send(frame);
                    carried += frame.len();
                }
                passage.counters.sent(&frames, carried);
            }
            Err(Refused::Quiet) => {}
            Err(Refused::TakenOver) => return Ok(()),
            Err(Refused::Failed(error)) => return Err(error),
        }
    }
    Ok(())
}

fn receive<L: Link>(passage: Passage<'_, L>, socket: &UdpSocket, over: &AtomicBool) -> Result<()> {
    let (mut frames, mut datagram) = (Frames::new(), vec![0; DATAGRAM_BYTES_MAX]);
    while !over.load(Ordering::Acquire) {
        frames.clear();
        match socket.recv(&mut datagram) {
            Ok(len) => take(passage, socket, &datagram[..len], &mut frames),
            Err(error) if is_nothing(&error) => continue,
            Err(error) => return Err(error).context("receiving datagrams"),
        }
        // What has come meanwhile goes with it.
        while frames.has_room(DATAGRAM_BYTES_MAX) {
            let Ok((len, _)) = recv(socket, &mut datagram[..], RecvFlags::DONTWAIT) else { break };
            take(passage, socket, &datagram[..len], &mut frames);
        }
        if frames.is_empty() {
            continue;
        }
        passage.counters.received(&frames, frames.iter().map(<[u8]>::len).sum());
        match passage.link.put(&frames) {
            Ok(()) | Err(Refused::Quiet) => {}
            Err(Refused::TakenOver) => return Ok(()),
            Err(Refused::Failed(error)) => return Err(error),
        }
    }
    Ok(())
}

fn take<L: Link>(
    passage: Passage<'_, L>,
    socket: &UdpSocket,
    datagram: &[u8],
    frames: &mut Frames,
) {
    if is_sealed(datagram) {
        passage.counters.foreign.add(1);
        let whom = socket.peer_addr().map_or_else(|_| "the peer".to_owned(), |it| it.to_string());
        let why = "its datagrams are encrypted: cluster.insecure is true here and false there";
        passage.log.say(whom, why);
    } else {
        frames.push(datagram);
    }
}
