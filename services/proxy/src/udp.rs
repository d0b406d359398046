// SPDX-License-Identifier: MIT OR Apache-2.0
//! The link over UDP: a frame is a datagram.

mod clear;
mod sealed;

use crate::link::Link;
use crate::passage::Passage;
use crate::protection::Protection;
use anyhow::{Context, Result};
use core::time::Duration;
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use std::io;
use std::net::{SocketAddr, UdpSocket};

pub use crate::datagram::packet::OVERHEAD_BYTES;

/// How often either side looks whether the other one has ended.
const LOOK: Duration = Duration::from_millis(200);
/// The longest datagram there is.
const DATAGRAM_BYTES_MAX: usize = 1 << 16;
/// What the socket holds of datagrams that came: a full window of the longest frames, and what the kernel counts beside them.
const SOCKET_BYTES: usize = 1 << 22;

/// Carries the link between two addresses until another transport does.
///
/// # Errors
/// When the socket cannot be had, or the link fails.
pub fn carry<L: Link>(passage: Passage<'_, L>, local: SocketAddr, peer: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind(local).with_context(|| format!("binding {local}"))?;
    // From here on, only the peer's datagrams are received.
    socket.connect(peer).with_context(|| format!("choosing {peer} as the peer"))?;
    // Who may not have that much gets what the system gives everybody.
    if set_socket_recv_buffer_size_force(&socket, SOCKET_BYTES).is_err() {
        let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(SOCKET_BYTES);
    }
    match passage.protection {
        Protection::Clear => clear::carry(passage, &socket),
        Protection::Sealed(keys) => sealed::carry(passage, &socket, keys),
    }
}

/// Whether there was just no datagram, or word that nobody listens at the peer yet.
fn is_nothing(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::WouldBlock | Kind::TimedOut | Kind::Interrupted | Kind::ConnectionRefused
    )
}
