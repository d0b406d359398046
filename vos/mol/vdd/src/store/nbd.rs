// SPDX-License-Identifier: MIT OR Apache-2.0
//! A store on the volume of a foreign NBD server. A connection that is lost is made anew, and what was not flushed is said again.

use super::unflushed::{Change, Unflushed};
use super::{Intent, OpenError, Operation, Safety, Shape, Store, StoreError};
use crate::nbd::{NbdUri, Offer, Session, SessionError, Where};
use core::time::Duration;
use socket2::{Domain, SockAddr, Socket, Type};
use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::time::Instant;

/// How long a request may take, new connections included, before it has failed. It is less than clients of a device wait.
pub const NBD_LIMIT: Duration = Duration::from_secs(4);
/// How long it is waited before another connection is tried.
const PAUSE: Duration = Duration::from_millis(50);
/// How much is written at once where zeros must be written.
const ZEROS_BYTES: u64 = 1 << 18;
/// How much of a range is made zeros by one request, in the time that it may take.
const ZEROED_BYTES: u64 = 16 << 20;
/// How many times as fast a server is thought to make zeros as to be sent them.
const ZEROING_SPEED: u64 = 16;

/// A connection, of which everything must be over in time.
#[derive(Debug)]
struct Stream {
    socket: Socket,
    deadline: Instant,
}

impl Stream {
    fn connect(server: &Where, deadline: Instant) -> io::Result<Self> {
        let (domain, address) = match server {
            Where::Tcp(address) => (Domain::for_address(*address), SockAddr::from(*address)),
            Where::Unix(path) => (Domain::UNIX, SockAddr::unix(path)?),
        };
        let socket = Socket::new(domain, Type::STREAM, None)?;
        socket.connect_timeout(&address, rest(deadline)?)?;
        if matches!(server, Where::Tcp(_)) {
            // Requests are waited for.
            socket.set_tcp_nodelay(true)?;
        }
        Ok(Self { socket, deadline })
    }
}

/// The time that is left.
fn rest(deadline: Instant) -> io::Result<Duration> {
    let rest = deadline.saturating_duration_since(Instant::now());
    if rest.is_zero() {
        Err(in_time())
    } else {
        Ok(rest)
    }
}

fn in_time() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the server did not answer in time")
}

/// The wait of a socket that is over is an error of another name.
fn timed(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock {
        in_time()
    } else {
        error
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(Some(rest(self.deadline)?))?;
        self.socket.read(into).map_err(timed)
    }
}

impl Write for Stream {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(Some(rest(self.deadline)?))?;
        self.socket.write(from).map_err(timed)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct Link {
    session: Option<Session<Stream>>,
    unflushed: Unflushed,
    /// Whether the server may have lost what was not flushed.
    must_repeat: bool,
}

impl Link {
    fn lose(&mut self) {
        self.session = None;
        self.must_repeat = true;
    }
}

/// Blocks of a server's volume.
#[derive(Debug)]
pub struct NbdStore {
    uri: NbdUri,
    shape: Shape,
    offer: Offer,
    limit: Duration,
    link: RefCell<Link>,
}

impl NbdStore {
    /// Opens a volume. A request of it fails if it is not done after `limit`, and the next one tries again. Nobody else may write
    /// to it meanwhile: the protocol has no locks.
    ///
    /// # Errors
    /// [`OpenError::Nbd`]: the server is not there, or says what it should not; [`OpenError::NbdReadOnly`].
    pub fn open(uri: &NbdUri, intent: Intent, limit: Duration) -> Result<Self, OpenError> {
        let failed = |error| OpenError::Nbd { uri: uri.to_string(), error };
        let session = begin(uri, Instant::now() + limit).map_err(failed)?;
        let offer = *session.offer();
        if offer.is_read_only && intent == Intent::Write {
            return Err(OpenError::NbdReadOnly { uri: uri.to_string() });
        }
        let Offer { bytes, block_bytes, .. } = offer;
        let shape = Shape { bytes, block_bytes, writable: intent == Intent::Write };
        let link =
            Link { session: Some(session), unflushed: Unflushed::default(), must_repeat: false };
        Ok(Self { uri: uri.clone(), shape, offer, limit, link: link.into() })
    }

    /// Has the server do it, over as many connections as there is time for.
    fn insist(
        &self,
        (operation, position, bytes): (Operation, u64, u64),
        mut ask: impl FnMut(&mut Session<Stream>) -> Result<(), SessionError>,
    ) -> Result<(), StoreError> {
        let deadline = Instant::now() + self.limit;
        let mut link = self.link.borrow_mut();
        loop {
            let done = self.reach(&mut link, deadline).and_then(&mut ask);
            let Err(error) = done else { return Ok(()) };
            if !error.leaves_the_connection() {
                link.lose();
            }
            let rest = deadline.saturating_duration_since(Instant::now());
            if error.is_lost() && !rest.is_zero() {
                std::thread::sleep(PAUSE.min(rest));
                continue;
            }
            let error = io::Error::new(error.kind(), error);
            let store = self.uri.to_string();
            return Err(StoreError::Medium { operation, store, position, bytes, error });
        }
    }

    /// A connection whose server has all that was answered.
    fn reach<'l>(
        &self,
        link: &'l mut Link,
        deadline: Instant,
    ) -> Result<&'l mut Session<Stream>, SessionError> {
        if link.session.is_none() {
            let session = begin(&self.uri, deadline)?;
            if *session.offer() != self.offer {
                // Another volume must not get the blocks of this one.
                let export = self.uri.export.clone();
                let why = "it is not what it was before the connection was lost".to_owned();
                return Err(SessionError::Refused { export, why });
            }
            link.session = Some(session);
        }
        let Some(session) = &mut link.session else {
            return Err(SessionError::Stream(io::ErrorKind::NotConnected.into()));
        };
        session.stream_mut().deadline = deadline;
        if link.must_repeat {
            for change in link.unflushed.changes() {
                match change {
                    Change::Write { position, data } => session.write(*position, data, false)?,
                    Change::Zero { position, bytes } => {
                        zero(session, self.offer.can_write_zeroes, *position, *bytes)?;
                    }
                }
            }
            link.must_repeat = false;
        }
        Ok(session)
    }

    fn check_change(
        &self,
        operation: Operation,
        position: u64,
        bytes: u64,
    ) -> Result<(), StoreError> {
        self.shape.check(operation, position, bytes)?;
        match self.shape.writable {
            true => Ok(()),
            false => Err(StoreError::ReadOnly { operation, store: self.uri.to_string() }),
        }
    }

    /// Has room for another change.
    fn make_room(&mut self, bytes: usize) -> Result<(), StoreError> {
        match self.link.get_mut().unflushed.has_room(bytes) {
            true => Ok(()),
            false => self.flush(),
        }
    }

    /// Keeps what was answered, if it is not safe then.
    fn keep(&mut self, is_safe: bool, bytes: usize, change: impl FnOnce() -> Change) {
        if self.offer.can_flush {
            self.link.get_mut().unflushed.keep(is_safe, bytes, change);
        }
    }

    /// Makes a part of a range zeros.
    fn zero_part(&mut self, position: u64, bytes: u64) -> Result<(), StoreError> {
        let can_write_zeroes = self.offer.can_write_zeroes;
        let sent = if can_write_zeroes { bytes / ZEROING_SPEED } else { bytes } as usize;
        self.make_room(sent)?;
        self.insist((Operation::Zero, position, bytes), |session| {
            zero(session, can_write_zeroes, position, bytes)
        })?;
        self.keep(false, sent, || Change::Zero { position, bytes });
        Ok(())
    }
}

fn begin(uri: &NbdUri, deadline: Instant) -> Result<Session<Stream>, SessionError> {
    Session::begin(Stream::connect(&uri.server, deadline)?, &uri.export)
}

fn zero(
    session: &mut Session<Stream>,
    can_write_zeroes: bool,
    position: u64,
    bytes: u64,
) -> Result<(), SessionError> {
    if can_write_zeroes {
        return session.write_zeroes(position, bytes);
    }
    let zeros = vec![0; ZEROS_BYTES.min(bytes) as usize];
    let mut done = 0;
    while done < bytes {
        let length = (bytes - done).min(ZEROS_BYTES);
        session.write(position + done, &zeros[..length as usize], false)?;
        done += length;
    }
    Ok(())
}

impl Store for NbdStore {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn lasts(&self) -> bool {
        true
    }

    fn read(&self, position: u64, into: &mut [u8]) -> Result<(), StoreError> {
        let bytes = into.len() as u64;
        self.shape.check(Operation::Read, position, bytes)?;
        self.insist((Operation::Read, position, bytes), |session| session.read(position, into))
    }

    fn write(&mut self, position: u64, from: &[u8], safety: Safety) -> Result<(), StoreError> {
        let bytes = from.len() as u64;
        self.check_change(Operation::Write, position, bytes)?;
        self.make_room(from.len())?;
        let is_safe = safety == Safety::AtOnce && self.offer.can_fua;
        self.insist((Operation::Write, position, bytes), |session| {
            session.write(position, from, is_safe)
        })?;
        self.keep(is_safe, from.len(), || Change::Write { position, data: from.into() });
        match safety {
            Safety::AtOnce if !is_safe => self.flush(),
            _ => Ok(()),
        }
    }

    fn zero(&mut self, position: u64, bytes: u64) -> Result<(), StoreError> {
        self.check_change(Operation::Zero, position, bytes)?;
        // A long range would take longer than a request may.
        let mut done = 0;
        while done < bytes {
            let length = (bytes - done).min(ZEROED_BYTES);
            self.zero_part(position + done, length)?;
            done += length;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        if !self.shape.writable || !self.offer.can_flush {
            return Ok(());
        }
        let flushed = self.insist((Operation::Flush, 0, self.shape.bytes), Session::flush);
        let link = self.link.get_mut();
        match flushed {
            Ok(()) => link.unflushed.clear(),
            // The server may have dropped what it could not make safe.
            Err(_) => link.must_repeat = true,
        }
        flushed
    }
}

impl Drop for NbdStore {
    fn drop(&mut self) {
        if let Some(mut session) = self.link.get_mut().session.take() {
            session.stream_mut().deadline = Instant::now() + PAUSE;
            session.end();
        }
    }
}
