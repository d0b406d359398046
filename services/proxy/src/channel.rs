// SPDX-License-Identifier: MIT OR Apache-2.0
//! A TCP connection with the peer, in TLS or in the clear: bytes both ways at once.

use crate::counters::Counters;
use anyhow::{anyhow, bail, Context, Result};
use core::time::Duration;
use dvs_authority::{explain, Identity};
use rustls::{ClientConnection, Connection, ServerConnection};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What each end says first in the clear: a name and the version of the format. In TLS, where the protocol is
/// agreed upon before, it says that the certificate was accepted.
const PREFACE: [u8; 8] = *b"dvs-lnk\x02";
/// How long two ends may take to know each other.
const PATIENCE: Duration = Duration::from_secs(5);
/// A peer that acknowledges nothing for so long is gone.
const ACKNOWLEDGEMENT_PATIENCE: Duration = Duration::from_secs(10);
/// Bytes that the kernel takes and has not sent. A write waits where more would wait, so that frames stay in the link until the path is
/// ready for them, and so that how long writes take says how fast the path is.
const UNSENT_BYTES: u32 = 1 << 16;
/// Bytes that are encrypted before they are written.
const WRITE_BYTES: usize = 1 << 16;
const READ_BYTES: usize = 1 << 16;
/// What a handshake or an alert of TLS begins with.
const TLS_HANDSHAKE: u8 = 22;
const TLS_ALERT: u8 = 21;
/// An alert of TLS by which one who speaks in the clear hears that TLS is spoken here: fatal, `protocol_version` (RFC 8446, 6).
const ALERT: [u8; 7] = [TLS_ALERT, 3, 3, 0, 2, 2, 70];

/// Which end of a connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Listening,
    Connecting,
}

/// A connection whose other end is the peer.
#[derive(Debug)]
pub(crate) struct Channel {
    stream: TcpStream,
    tls: Option<Mutex<Connection>>,
}

impl Channel {
    /// Makes sure of the peer: by TLS if there is an identity to prove, else that it speaks in the clear as well.
    ///
    /// # Errors
    /// For people: why the other end is not the peer, or the connection broke.
    pub(crate) fn open(
        stream: TcpStream,
        end: End,
        identity: Option<&Identity>,
        counters: &Counters,
    ) -> Result<Self> {
        stream.set_nodelay(true)?;
        let socket = socket2::SockRef::from(&stream);
        socket.set_tcp_user_timeout(Some(ACKNOWLEDGEMENT_PATIENCE))?;
        socket.set_tcp_notsent_lowat(UNSENT_BYTES)?;
        stream.set_write_timeout(Some(ACKNOWLEDGEMENT_PATIENCE))?;
        let mut opening = Opening { stream: &stream, deadline: Instant::now() + PATIENCE };
        let tls = match identity {
            Some(identity) => opening.speak_tls(end, identity).map(Some),
            None => opening.speak_clearly().map(|()| None),
        };
        let tls = tls.inspect_err(|error| {
            if !error.is::<io::Error>() {
                counters.foreign.add(1);
            }
        })?;
        stream.set_read_timeout(None)?;
        counters.handshakes.add(1);
        Ok(Self { stream, tls: tls.map(Mutex::new) })
    }

    /// Writes all of it. Only one thread may.
    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let Some(tls) = &self.tls else { return (&self.stream).write_all(bytes) };
        let mut sealed = Vec::with_capacity(WRITE_BYTES + 1024);
        for piece in bytes.chunks(WRITE_BYTES) {
            let mut tls = lock(tls);
            tls.writer().write_all(piece)?;
            seal(&mut tls, &mut sealed)?;
            drop(tls);
            (&self.stream).write_all(&sealed)?;
            sealed.clear();
        }
        Ok(())
    }

    /// Writes what TLS wants to say by itself. Only the thread that writes may.
    pub(crate) fn flush(&self) -> io::Result<()> {
        let Some(tls) = &self.tls else { return Ok(()) };
        let mut sealed = Vec::new();
        seal(&mut lock(tls), &mut sealed)?;
        (&self.stream).write_all(&sealed)
    }

    /// Adds bytes that come to `into`, waiting for them; false at the end. Only one thread may.
    ///
    /// # Errors
    /// When the connection breaks. What is not the peer's is counted as forged.
    pub(crate) fn read(&self, into: &mut Vec<u8>, counters: &Counters) -> Result<bool> {
        let mut bytes = [0; READ_BYTES];
        let len = loop {
            match (&self.stream).read(&mut bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        let Some(tls) = &self.tls else {
            into.extend_from_slice(&bytes[..len]);
            return Ok(len != 0);
        };
        let mut rest = &bytes[..len];
        let mut tls = lock(tls);
        loop {
            // At the end, TLS wants to hear of it as well: a connection that was cut is not one that was closed.
            tls.read_tls(&mut rest)?;
            let state = tls.process_new_packets().map_err(|error| {
                counters.forged.add(1);
                anyhow!(explain(&error))
            })?;
            let begin = into.len();
            into.resize(begin + state.plaintext_bytes_to_read(), 0);
            tls.reader().read_exact(&mut into[begin..])?;
            if state.peer_has_closed() || len == 0 {
                return Ok(false);
            }
            if rest.is_empty() {
                return Ok(true);
            }
        }
    }

    /// Ends it for both ends, and both threads.
    pub(crate) fn close(&self) {
        // An error is that it is gone already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

fn lock(tls: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    // A thread that panicked ends the other one by closing the connection.
    tls.lock().unwrap_or_else(PoisonError::into_inner)
}

fn seal(tls: &mut Connection, into: &mut Vec<u8>) -> io::Result<()> {
    while tls.wants_write() {
        tls.write_tls(into)?;
    }
    Ok(())
}

/// A connection whose other end is not known yet.
struct Opening<'a> {
    stream: &'a TcpStream,
    deadline: Instant,
}

impl Opening<'_> {
    /// Reads what is there, not beyond the deadline; empty at the end.
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!("the peer did not make itself known within {} s", PATIENCE.as_secs());
        }
        self.stream.set_read_timeout(Some(left))?;
        match self.stream.read(bytes) {
            Ok(len) => Ok(len),
            Err(error) if error.kind() == ErrorKind::Interrupted => self.read(bytes),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                bail!("the peer did not make itself known within {} s", PATIENCE.as_secs())
            }
            Err(error) => Err(error).context("waiting for the peer to make itself known"),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("making this node known to the peer")
    }

    fn speak_clearly(&mut self) -> Result<()> {
        self.write(&PREFACE)?;
        let mut preface = Vec::new();
        while preface.len() < PREFACE.len() {
            let mut bytes = [0; PREFACE.len()];
            let room = PREFACE.len() - preface.len();
            let len = self.read(&mut bytes[..room])?;
            preface.extend_from_slice(&bytes[..len]);
            match preface.first() {
                Some(&(TLS_HANDSHAKE | TLS_ALERT)) => {
                    bail!("the peer speaks TLS only: cluster.insecure is true here and false there")
                }
                None => return Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
                Some(_) if len == 0 => break,
                Some(_) => {}
            }
        }
        check_preface(&preface)
    }

    fn speak_tls(&mut self, end: End, identity: &Identity) -> Result<Connection> {
        let mut tls: Connection = match end {
            End::Listening => ServerConnection::new(Arc::new(identity.server()?))?.into(),
            End::Connecting => {
                ClientConnection::new(Arc::new(identity.client()?), identity.peer())?.into()
            }
        };
        // Batches are given to it whole, and taken from it at once.
        tls.set_buffer_limit(None);
        let (mut first, mut bytes, mut preface) = (true, vec![0; READ_BYTES], Vec::new());
        tls.writer().write_all(&PREFACE)?;
        loop {
            let mut sealed = Vec::new();
            seal(&mut tls, &mut sealed)?;
            self.write(&sealed)?;
            if !tls.is_handshaking() && preface.len() == PREFACE.len() {
                check_preface(&preface)?;
                return Ok(tls);
            }
            let len = self.read(&mut bytes)?;
            if core::mem::take(&mut first) {
                self.expect_tls(bytes[..len].first().copied())?;
            }
            let mut rest = &bytes[..len];
            loop {
                tls.read_tls(&mut rest)?;
                let state = match tls.process_new_packets() {
                    Ok(state) => state,
                    Err(error) => {
                        // Tells the peer; that it cannot be told is no news.
                        let mut sealed = Vec::new();
                        let _ = seal(&mut tls, &mut sealed).map(|()| self.write(&sealed));
                        let _ = self.stream.shutdown(Shutdown::Write);
                        bail!(explain(&error));
                    }
                };
                let begin = preface.len();
                let room = state.plaintext_bytes_to_read().min(PREFACE.len() - begin);
                preface.resize(begin + room, 0);
                tls.reader().read_exact(&mut preface[begin..])?;
                if rest.is_empty() {
                    break;
                }
            }
            if len == 0 {
                return Err(io::Error::from(ErrorKind::UnexpectedEof))
                    .context("the peer closed the connection before it had proved itself");
            }
        }
    }

    /// Whether TLS is what the peer's first byte belongs to.
    fn expect_tls(&mut self, first: Option<u8>) -> Result<()> {
        match first {
            Some(TLS_HANDSHAKE | TLS_ALERT) | None => Ok(()),
            Some(byte) => {
                let _ = self.write(&ALERT);
                let _ = self.stream.shutdown(Shutdown::Write);
                if byte == PREFACE[0] {
                    bail!("the peer speaks in the clear: cluster.insecure is true there and false here");
                }
                bail!("the peer is no dvs-proxy: it speaks no TLS")
            }
        }
    }
}

fn check_preface(preface: &[u8]) -> Result<()> {
    if preface != PREFACE {
        bail!("the peer is no dvs-proxy of this version: its stream begins otherwise");
    }
    Ok(())
}
