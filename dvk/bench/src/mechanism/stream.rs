// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is read from and written to: pipes and sockets.

use super::{Pair, MESSAGE_BYTES};
use anyhow::{ensure, Context, Result};
use core::convert::Infallible;
use rustix::fd::OwnedFd;
use rustix::fs::{mknodat, open, FileType, Mode, OFlags, CWD};
use rustix::io::{read, write};
use rustix::net::{socketpair, AddressFamily, SocketFlags, SocketType};
use rustix::pipe::pipe;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;

/// One end of a connection: bytes come in and go out.
struct End {
    input: OwnedFd,
    output: OwnedFd,
}

/// A connection, the client's end and the server's.
pub(super) struct Ends {
    client: End,
    server: End,
    /// What the parent keeps.
    names: Vec<Name>,
}

impl Ends {
    fn new(client: End, server: End) -> Self {
        Self { client, server, names: Vec::new() }
    }

    /// From two sockets that are connected.
    fn sockets(client: OwnedFd, server: OwnedFd) -> Result<Self> {
        let end = |socket: OwnedFd| {
            Ok::<_, std::io::Error>(End { input: socket.try_clone()?, output: socket })
        };
        Ok(Self::new(end(client)?, end(server)?))
    }

    /// Messages go there and come back.
    pub(super) fn round_trip(self) -> Result<Pair> {
        let Self { client, server, names } = self;
        let go = move |count| {
            let mut message = [1; MESSAGE_BYTES];
            for _ in 0..count {
                client.put(&message)?;
                client.take(&mut message)?;
            }
            Ok(())
        };
        let serve = move || -> Result<Infallible> {
            let mut message = [0; MESSAGE_BYTES];
            loop {
                server.take(&mut message)?;
                server.put(&message)?;
            }
        };
        Ok(Pair::keeping(names, go, serve))
    }

    /// The server sends blocks of `bytes`, as many as the client says through a pipe. So neither is ahead when a batch begins.
    pub(super) fn copy(self, bytes: u32) -> Result<Pair> {
        let Self { client, server, names } = self;
        let (orders, give) = pipe().context("making a pipe")?;
        let bytes = bytes as usize;
        let mut block = vec![1; bytes];
        let go = move |count: u64| {
            write(&give, &count.to_ne_bytes())?;
            for _ in 0..count {
                client.take(&mut block)?;
            }
            Ok(())
        };
        let serve = move || -> Result<Infallible> {
            let block = vec![2; bytes];
            loop {
                let mut count = [0; 8];
                read(&orders, &mut count)?;
                for _ in 0..u64::from_ne_bytes(count) {
                    server.put(&block)?;
                }
            }
        };
        Ok(Pair::keeping(names, go, serve))
    }
}

impl End {
    fn take(&self, buffer: &mut [u8]) -> Result<()> {
        let mut taken = 0;
        while taken < buffer.len() {
            let count = read(&self.input, &mut buffer[taken..])?;
            ensure!(count > 0, "the peer has closed the connection");
            taken += count;
        }
        Ok(())
    }

    fn put(&self, mut buffer: &[u8]) -> Result<()> {
        while !buffer.is_empty() {
            let count = write(&self.output, buffer)?;
            buffer = &buffer[count..];
        }
        Ok(())
    }
}

pub(super) fn pipes() -> Result<Ends> {
    let (there, give) = pipe().context("making a pipe")?;
    let (back, answer) = pipe().context("making a pipe")?;
    Ok(Ends::new(End { input: back, output: give }, End { input: there, output: answer }))
}

/// A name in the file system, for as long as this is kept.
struct Name(PathBuf);

impl Drop for Name {
    fn drop(&mut self) {
        // What is left behind in a folder for temporary files harms nobody.
        let _ = std::fs::remove_file(&self.0);
    }
}

pub(super) fn fifos() -> Result<Ends> {
    let make = |direction: &str| -> Result<(Name, OwnedFd, OwnedFd)> {
        let number = std::process::id();
        let path = std::env::temp_dir().join(format!("dvk-bench-{number}-{direction}"));
        let _ = std::fs::remove_file(&path);
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .with_context(|| format!("making the named pipe {}", path.display()))?;
        let open = |flags| open(&path, flags, Mode::empty()).context("opening a named pipe");
        // Opening one end waits for the other, unless somebody has both.
        let both = open(OFlags::RDWR)?;
        let (input, output) = (open(OFlags::RDONLY)?, open(OFlags::WRONLY)?);
        drop(both);
        Ok((Name(path.clone()), input, output))
    };
    let (there_name, there, give) = make("there")?;
    let (back_name, back, answer) = make("back")?;
    let client = End { input: back, output: give };
    let server = End { input: there, output: answer };
    Ok(Ends { client, server, names: vec![there_name, back_name] })
}

fn sockets(family: AddressFamily, kind: SocketType) -> Result<Ends> {
    let (client, server) = socketpair(family, kind, SocketFlags::empty(), None)
        .context("making a pair of connected sockets")?;
    Ends::sockets(client, server)
}

pub(super) fn unix_stream() -> Result<Ends> {
    sockets(AddressFamily::UNIX, SocketType::STREAM)
}

pub(super) fn unix_seqpacket() -> Result<Ends> {
    sockets(AddressFamily::UNIX, SocketType::SEQPACKET)
}

pub(super) fn tipc_stream() -> Result<Ends> {
    sockets(AddressFamily::TIPC, SocketType::STREAM)
}

pub(super) fn tipc_seqpacket() -> Result<Ends> {
    sockets(AddressFamily::TIPC, SocketType::SEQPACKET)
}

pub(super) fn tcp() -> Result<Ends> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listening on 127.0.0.1")?;
    let client = TcpStream::connect(listener.local_addr()?).context("connecting to 127.0.0.1")?;
    let (server, _) = listener.accept()?;
    // Without this, a message that follows another waits for an acknowledgement.
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    Ends::sockets(client.into(), server.into())
}
