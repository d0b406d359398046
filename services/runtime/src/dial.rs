// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections from the node to a port of a container, whose network the node takes no part in: they are made from within, and handed out.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use nix::sched::{setns, CloneFlags};
use rustix::net::{
    recvmsg, sendmsg, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use crate::place::Place;

/// How long the other end may take to answer: it is on the same machine.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connects to a port at the address of a container, from within its network namespace, and sends the connection away through standard
/// input, which is a socket.
///
/// # Errors
/// When there is none of this name, or nobody listens.
pub(crate) fn dial(name: &str, port: u16) -> Result<()> {
    let place = Place::of(name)?;
    let spec = place.spec()?;
    let init = place.record()?.init.context("entering the container: it has no process")?;
    let address = spec.network.as_ref().and_then(|network| network.addresses.first());
    let address = address.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.address);
    let path = format!("/proc/{}/ns/net", init.pid);
    let namespace = File::open(&path).with_context(|| format!("opening {path}"))?;
    setns(namespace, CloneFlags::CLONE_NEWNET).context("entering the container's net namespace")?;
    let to = SocketAddr::new(address, port);
    let stream = TcpStream::connect_timeout(&to, PATIENCE)
        .with_context(|| format!("connecting to {to} in the container {name}"))?;
    let descriptors = [stream.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    message.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(io::stdin(), &[IoSlice::new(b"+")], &mut message, SendFlags::empty())
        .context("handing the connection out")?;
    Ok(())
}

/// Takes the connection that [`dial`] has sent; `None` if it ended without.
///
/// # Errors
/// When something else came.
pub(crate) fn taken(from: &impl AsFd) -> Result<Option<TcpStream>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut message, RecvFlags::CMSG_CLOEXEC)
            .context("taking a connection")?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut sent: Vec<OwnedFd> = Vec::new();
    for part in message.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = part {
            sent.extend(descriptors);
        }
    }
    ensure!(sent.len() == 1, "taking a connection: {} were sent", sent.len());
    Ok(sent.pop().map(TcpStream::from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn nothing_comes_from_who_has_ended() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert!(taken(&ours).unwrap().is_none());
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        io::Write::write_all(&mut theirs, b"+").unwrap();
        assert!(taken(&ours).is_err(), "a byte is no connection");
    }
}
