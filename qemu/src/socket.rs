// SPDX-License-Identifier: MIT OR Apache-2.0
//! Unix sockets that never make a thread wait, and the bell that wakes a thread out of `poll`.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{poll, PollFd, Timespec};
use rustix::net::{connect, socket_with, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Connects to `path` without waiting, even if the listener's backlog is full; the stream is non-blocking.
pub(crate) fn dial(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

/// Waits for events or until `timeout` has passed (`None`: forever). A signal counts as no event.
pub(crate) fn wait(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<()> {
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: timeout.as_secs().min(3600) as i64,
        tv_nsec: i64::from(timeout.subsec_nanos()),
    });
    match poll(fds, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether an I/O error only says "not now".
pub(crate) fn not_now(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Wakes the thread that polls the other end.
#[derive(Clone, Debug)]
pub(crate) struct Bell(Arc<UnixStream>);

/// The end that is polled.
#[derive(Debug)]
pub(crate) struct Ear(UnixStream);

/// A bell and its ear. The ear also becomes readable when the last bell is gone.
pub(crate) fn bell() -> io::Result<(Bell, Ear)> {
    let (near, far) = UnixStream::pair()?;
    near.set_nonblocking(true)?;
    far.set_nonblocking(true)?;
    Ok((Bell(Arc::new(near)), Ear(far)))
}

impl Bell {
    pub(crate) fn ring(&self) {
        // A full pipe means that the ear has plenty to hear; a closed one, that nobody listens.
        let _ = (&*self.0).write(&[1]);
    }
}

impl Ear {
    /// Takes in what was rung.
    pub(crate) fn hear(&self) {
        let mut rings = [0; 64];
        while matches!((&self.0).read(&mut rings), Ok(count) if count > 0) {}
    }
}

impl AsFd for Ear {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
