// SPDX-License-Identifier: MIT OR Apache-2.0
//! A connection to a node.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConnection, StreamOwned};

use crate::{Address, Credentials};

/// A connection to a node's API, on which HTTP is spoken.
#[derive(Debug)]
pub enum Stream {
    /// Over TLS.
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    /// In the clear.
    Plain(TcpStream),
    /// On the node itself.
    Socket(UnixStream),
}

impl Stream {
    pub(crate) fn connect(
        address: &Address,
        credentials: Option<&Credentials>,
        patience: Duration,
    ) -> io::Result<Self> {
        match address {
            Address::Socket(path) => Ok(Self::Socket(UnixStream::connect(path)?)),
            Address::Plain(at) => Ok(Self::Plain(reach(at, patience)?)),
            Address::Tls(at) => {
                let of = credentials.ok_or_else(|| {
                    let text = "a node is reached there with the certificate of an administrator only: choose a context with \
                                --context, or make one with `dvsctl context add`";
                    io::Error::other(text)
                })?;
                let mut stream = reach(at, patience)?;
                let (config, name) = (Arc::clone(&of.config), of.name.clone());
                let mut tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
                // Somebody who accepts connections and says nothing must not be waited for for ever.
                stream.set_read_timeout(Some(patience))?;
                while tls.is_handshaking() {
                    tls.complete_io(&mut stream).map_err(|error| match error.kind() {
                        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
                        _ => error,
                    })?;
                }
                stream.set_read_timeout(None)?;
                Ok(Self::Tls(Box::new(StreamOwned::new(tls, stream))))
            }
        }
    }

    /// After how long reading and writing are given up, with [`io::ErrorKind::WouldBlock`]; `None` for never.
    ///
    /// # Errors
    /// When the system refuses it.
    pub fn set_timeouts(&self, limit: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Tls(stream) => {
                stream.sock.set_read_timeout(limit)?;
                stream.sock.set_write_timeout(limit)
            }
            Self::Plain(stream) => {
                stream.set_read_timeout(limit)?;
                stream.set_write_timeout(limit)
            }
            Self::Socket(stream) => {
                stream.set_read_timeout(limit)?;
                stream.set_write_timeout(limit)
            }
        }
    }

    /// Reads what is there already, without waiting.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if nothing is.
    pub fn read_ready(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.set_nonblocking(true)?;
        let read = self.read(bytes);
        self.set_nonblocking(false)?;
        read
    }

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        match self {
            Self::Tls(stream) => stream.sock.set_nonblocking(nonblocking),
            Self::Plain(stream) => stream.set_nonblocking(nonblocking),
            Self::Socket(stream) => stream.set_nonblocking(nonblocking),
        }
    }

    /// Whether the other end has neither closed it nor sent what nobody asked for.
    pub(crate) fn is_idle(&mut self) -> bool {
        let silent = |looked: io::Result<usize>| matches!(looked, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        let mut byte = [0];
        match self {
            Self::Tls(stream) => {
                let set = stream.sock.set_nonblocking(true);
                let idle = set.is_ok() && silent(stream.sock.peek(&mut byte));
                idle && stream.sock.set_nonblocking(false).is_ok()
            }
            Self::Plain(stream) => {
                let set = stream.set_nonblocking(true);
                let idle = set.is_ok() && silent(stream.peek(&mut byte));
                idle && stream.set_nonblocking(false).is_ok()
            }
            // There is no peeking here; to connect again costs nothing.
            Self::Socket(_) => false,
        }
    }
}

/// Connects to the first address of a name that answers.
fn reach(at: &str, patience: Duration) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    // The system wants an address without brackets, and knows what interface it is of.
    let wrong = || io::Error::new(io::ErrorKind::InvalidInput, "no HOST:PORT");
    let (host, port) = at.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, patience) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tls(stream) => stream.read(bytes),
            Self::Plain(stream) => stream.read(bytes),
            Self::Socket(stream) => stream.read(bytes),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tls(stream) => stream.write(bytes),
            Self::Plain(stream) => stream.write(bytes),
            Self::Socket(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tls(stream) => stream.flush(),
            Self::Plain(stream) => stream.flush(),
            Self::Socket(stream) => stream.flush(),
        }
    }
}
