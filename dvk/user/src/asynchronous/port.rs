// SPDX-License-Identifier: MIT OR Apache-2.0
//! The endpoint of a server that is asynchronous.

use super::shut_down;
use crate::error::{Call, Error};
use crate::port::{How, Port, Received};
use crate::server::Then;
use crate::sys::{FileOwner, Readable};
use crate::timeout::Timeout;
use dvk_abi::errno::Errno;
use dvk_abi::{Endpoint, Message};
use std::io;
use std::sync::{Mutex, PoisonError};

/// An endpoint that receives, replies and notifies without ever blocking a thread.
///
/// It may be shared by tasks: one of them gets each message, and any may reply. It receives from
/// anybody only: a file polls readable for whatever there is, and says nothing of the death of one
/// peer, so a wait for a specific source might never end. See [the module](crate::asynchronous) for
/// why it makes no calls; those are for [`AsyncCalls`](super::AsyncCalls).
#[derive(Debug)]
pub struct AsyncPort {
    file: Readable<Port>,
    /// Held for the moment of a `receive` that does not wait: even that opens a call in the
    /// kernel, and a second one at the same time would be `EBUSY`.
    turn: Mutex<()>,
}

impl AsyncPort {
    /// Registers an endpoint with the runtime.
    ///
    /// # Errors
    /// Those of `epoll_ctl(2)`.
    ///
    /// # Panics
    /// Outside of a tokio runtime, or in one without I/O.
    pub fn new(port: Port) -> io::Result<Self> {
        let file = Readable::new(port)?;
        Ok(Self { file, turn: Mutex::new(()) })
    }

    /// The endpoint, to be used by threads again.
    pub fn into_inner(self) -> Port {
        self.file.into_inner()
    }

    /// The port, for what does not wait, such as [`Port::info`]. A call that waits blocks the
    /// thread of the runtime, and makes [`receive`](Self::receive) fail with `EBUSY` meanwhile.
    pub fn get_ref(&self) -> &Port {
        self.file.get_ref()
    }

    /// The endpoint's value.
    pub fn endpoint(&self) -> Endpoint {
        self.get_ref().endpoint()
    }

    /// Waits for a message from anybody, sent in whatever way.
    ///
    /// Dropping the future loses no message.
    ///
    /// # Errors
    /// `ENOTCONN` once the endpoint is unbound or its container destroyed; `ECANCELED` if the
    /// runtime shuts down.
    pub async fn receive(&self) -> Result<Received, Error> {
        take_when_ready(&self.file, |port| {
            let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            port.receive(Endpoint::ANY, Timeout::NoWait)
        })
        .await
    }

    /// Answers `to`; see [`Port::reply`]. Never waits.
    ///
    /// # Errors
    /// As there.
    pub fn reply(&self, to: Endpoint, message: &Message) -> Result<(), Error> {
        self.get_ref().reply(to, message)
    }

    /// Sets notification bits at `to`; see [`Port::notify`]. Never waits.
    ///
    /// # Errors
    /// As there.
    pub fn notify(&self, to: Endpoint, bits: u64) -> Result<(), Error> {
        self.get_ref().notify(to, bits)
    }

    /// The loop of a server, as [`serve`](crate::serve), with the same view of clients that are
    /// gone. A handler that has to wait says [`Then::Continue`] and leaves the reply to a task.
    ///
    /// # Errors
    /// Those of [`receive`](Self::receive).
    pub async fn serve(&self, mut handle: impl FnMut(&Received) -> Then) -> Result<(), Error> {
        loop {
            let received = self.receive().await?;
            match handle(&received) {
                Then::Reply(message) if received.how == How::Request => {
                    // What a reply fails with is that nobody waits for it any more.
                    let _ = self.reply(received.source(), &message);
                }
                Then::Reply(_) | Then::Continue => {}
                Then::Stop => return Ok(()),
            }
        }
    }
}

/// Calls `take` whenever `file` is readable, until it gives anything but `EAGAIN`.
async fn take_when_ready<F: FileOwner, T>(
    file: &Readable<F>,
    take: impl Fn(&F) -> Result<T, Error>,
) -> Result<T, Error> {
    loop {
        let mut ready = file.readable().await.map_err(|_| shut_down(Call::Receive))?;
        match take(file.get_ref()) {
            // A signal cannot end a call that does not wait; should that change, it is tried anew.
            Err(error) if error.is(Errno::Interrupted) => {}
            Err(error) if error.is(Errno::WouldBlock) => ready.clear_ready(),
            taken => return taken,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Subject;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    /// A file of which one byte is a message, with its other end.
    fn file() -> (Readable<UnixStream>, UnixStream) {
        let (file, peer) = UnixStream::pair().unwrap();
        file.set_nonblocking(true).unwrap();
        (Readable::new(file).unwrap(), peer)
    }

    fn take(mut file: &UnixStream) -> Result<u8, Error> {
        let mut byte = [0];
        match file.read_exact(&mut byte) {
            Ok(()) => Ok(byte[0]),
            Err(error) => Err(Error {
                call: Call::Receive,
                subject: Subject::None,
                container: None,
                errno: rustix::io::Errno::from_io_error(&error)
                    .unwrap_or(rustix::io::Errno::NOTCONN),
            }),
        }
    }

    #[test]
    fn messages_are_taken_as_they_come() {
        runtime().block_on(async {
            let (file, mut peer) = file();
            peer.write_all(&[1, 2]).unwrap();
            assert_eq!(take_when_ready(&file, take).await, Ok(1));
            assert_eq!(take_when_ready(&file, take).await, Ok(2));
            let waits = tokio::spawn(async move { take_when_ready(&file, take).await });
            tokio::task::yield_now().await;
            assert!(!waits.is_finished());
            peer.write_all(&[3]).unwrap();
            assert_eq!(waits.await.unwrap(), Ok(3));
        });
    }

    #[test]
    fn a_dropped_receive_takes_nothing() {
        runtime().block_on(async {
            let (file, mut peer) = file();
            tokio::select! {
                biased;
                taken = take_when_ready(&file, take) => panic!("{taken:?} came from nowhere"),
                () = tokio::task::yield_now() => peer.write_all(&[4]).unwrap(),
            }
            assert_eq!(take_when_ready(&file, take).await, Ok(4));
        });
    }

    #[test]
    fn a_file_that_hangs_up_is_an_error() {
        runtime().block_on(async {
            let (file, peer) = file();
            drop(peer);
            let error = take_when_ready(&file, take).await.unwrap_err();
            assert!(error.is(Errno::NotConnected), "{error}");
        });
    }
}
