// SPDX-License-Identifier: MIT OR Apache-2.0
//! The link over UDP: a frame is a datagram.

use crate::link::{Link, Refused};
use anyhow::{Context, Result};
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use dvk::Frames;
use rustix::net::{recv, RecvFlags};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::thread;

/// How often either side looks whether the other one has ended.
const LOOK: Duration = Duration::from_millis(200);
/// The longest datagram there is.
const DATAGRAM_BYTES_MAX: usize = 1 << 16;

/// Carries the link between two addresses until another transport does.
///
/// # Errors
/// When the socket cannot be had, or the link fails.
pub fn carry(link: &impl Link, local: SocketAddr, peer: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind(local).with_context(|| format!("binding {local}"))?;
    // From here on, only the peer's datagrams are received.
    socket.connect(peer).with_context(|| format!("choosing {peer} as the peer"))?;
    socket.set_read_timeout(Some(LOOK)).context("setting the timeout of a socket")?;
    link.attach()?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let end = receive(link, &socket, &over);
            over.store(true, Ordering::Release);
            end
        });
        let sent = send(link, &socket, &over);
        over.store(true, Ordering::Release);
        let received = receiver.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
        sent.and(received)
    })
}

fn send(link: &impl Link, socket: &UdpSocket, over: &AtomicBool) -> Result<()> {
    let mut frames = Frames::new();
    while !over.load(Ordering::Acquire) {
        match link.get(&mut frames, LOOK) {
            Ok(()) => {
                for frame in frames.iter() {
                    // What cannot be sent, because nobody listens there yet, the path is too narrow or the queue is full, is
                    // lost as any datagram may be, and sent again by the link.
                    let _ = socket.send(frame);
                }
            }
            Err(Refused::Quiet) => {}
            Err(Refused::TakenOver) => return Ok(()),
            Err(Refused::Failed(error)) => return Err(error),
        }
    }
    Ok(())
}

fn receive(link: &impl Link, socket: &UdpSocket, over: &AtomicBool) -> Result<()> {
    let (mut frames, mut datagram) = (Frames::new(), vec![0; DATAGRAM_BYTES_MAX]);
    while !over.load(Ordering::Acquire) {
        frames.clear();
        match socket.recv(&mut datagram) {
            Ok(len) => frames.push(&datagram[..len]),
            Err(error) if is_nothing(&error) => continue,
            Err(error) => return Err(error).context("receiving datagrams"),
        }
        // What has come meanwhile goes with it.
        while frames.has_room(DATAGRAM_BYTES_MAX) {
            let Ok((len, _)) = recv(socket, &mut datagram[..], RecvFlags::DONTWAIT) else { break };
            frames.push(&datagram[..len]);
        }
        match link.put(&frames) {
            Ok(()) | Err(Refused::Quiet) => {}
            Err(Refused::TakenOver) => return Ok(()),
            Err(Refused::Failed(error)) => return Err(error),
        }
    }
    Ok(())
}

/// Whether there was just no datagram, or word that nobody listens at the peer yet.
fn is_nothing(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::WouldBlock | Kind::TimedOut | Kind::Interrupted | Kind::ConnectionRefused
    )
}
