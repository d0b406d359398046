// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files whose readiness a tokio runtime watches.

use rustix::fd::AsRawFd;
use std::io;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::io::Interest;

/// What owns an open file.
///
/// # Safety
/// It keeps one file open as long as it lives, and `as_raw_fd` always gives that one.
pub(crate) unsafe trait FileOwner: AsRawFd {}

// SAFETY: the descriptor is owned, and nothing puts another in its place through `&Port`.
unsafe impl FileOwner for crate::port::Port {}
// SAFETY: a stream owns its socket, and nothing puts another in its place through `&UnixStream`.
#[cfg(test)]
unsafe impl FileOwner for std::os::unix::net::UnixStream {}

/// A file of which the runtime knows when it is readable. It gives no exclusive access to the
/// file, which could replace it.
#[derive(Debug)]
pub(crate) struct Readable<F: FileOwner>(AsyncFd<F>);

impl<F: FileOwner> Readable<F> {
    /// Registers a file. Panics outside of a runtime that does I/O.
    pub(crate) fn new(file: F) -> io::Result<Self> {
        // SAFETY: `FileOwner` says that the descriptor is open and the same as long as `file`
        // lives, which is owned by the `AsyncFd` and never lent exclusively.
        let registered = unsafe { AsyncFd::register_with_interest(file, Interest::READABLE) };
        Ok(Self(registered.map_err(|error| error.into_parts().1)?))
    }

    /// Waits until the file is readable.
    pub(crate) async fn readable(&self) -> io::Result<AsyncFdReadyGuard<'_, F>> {
        self.0.readable().await
    }

    /// The file.
    pub(crate) fn get_ref(&self) -> &F {
        self.0.get_ref()
    }

    /// The file, which the runtime forgets.
    pub(crate) fn into_inner(self) -> F {
        self.0.into_inner()
    }
}
