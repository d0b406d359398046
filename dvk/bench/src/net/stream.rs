// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections: what is written at one end is read at the other. A client says first what is to come: the work, the bytes of a block
//! and how many.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{bail, Context, Result};
use dvk_bench::{Carrier, Work};
use rustix::net::{accept, listen};

use super::{at, in_thread, tipc, Client, BLOCK_BYTES_MAX};
use crate::mechanism::MESSAGE_BYTES;

const PORT: u16 = 7200;
/// After this long without an answer, something hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is said before the work.
struct Head {
    work: Work,
    count: u64,
}

const HEAD_BYTES: usize = 16;

impl Head {
    fn encode(&self) -> [u8; HEAD_BYTES] {
        let (kind, bytes) = match self.work {
            Work::RoundTrip => (0, 0),
            Work::Fetch(bytes) => (1, bytes),
            Work::Store(bytes) => (2, bytes),
        };
        let mut head = [0; HEAD_BYTES];
        head[..4].copy_from_slice(&u32::to_le_bytes(kind));
        head[4..8].copy_from_slice(&bytes.to_le_bytes());
        head[8..].copy_from_slice(&self.count.to_le_bytes());
        head
    }

    fn decode(head: [u8; HEAD_BYTES]) -> Result<Self> {
        let [a, b, c, d, e, f, g, h, count @ ..] = head;
        let bytes = u32::from_le_bytes([e, f, g, h]);
        let work = match u32::from_le_bytes([a, b, c, d]) {
            0 => Work::RoundTrip,
            1 => Work::Fetch(bytes),
            2 => Work::Store(bytes),
            other => bail!("no such work: {other}"),
        };
        Ok(Self { work, count: u64::from_le_bytes(count) })
    }
}

/// A client of a connected socket.
fn client(mut socket: impl Read + Write + Send + 'static) -> Client {
    let mut block = vec![1; BLOCK_BYTES_MAX];
    Box::new(move |work, count| {
        socket.write_all(&Head { work, count }.encode())?;
        match work {
            Work::RoundTrip => {
                let message = &mut block[..MESSAGE_BYTES];
                for _ in 0..count {
                    socket.write_all(message)?;
                    socket.read_exact(message)?;
                }
            }
            Work::Fetch(bytes) => {
                for _ in 0..count {
                    socket.read_exact(&mut block[..bytes as usize])?;
                }
            }
            Work::Store(bytes) => {
                for _ in 0..count {
                    socket.write_all(&block[..bytes as usize])?;
                }
                socket.read_exact(&mut [0])?;
            }
        }
        Ok(())
    })
}

/// Serves a connected socket to its end.
fn serve(mut socket: impl Read + Write) -> Result<()> {
    let mut block = vec![2; BLOCK_BYTES_MAX];
    loop {
        let mut head = [0; HEAD_BYTES];
        match socket.read_exact(&mut head) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        }
        let Head { work, count } = Head::decode(head)?;
        match work {
            Work::RoundTrip => {
                let message = &mut block[..MESSAGE_BYTES];
                for _ in 0..count {
                    socket.read_exact(message)?;
                    socket.write_all(message)?;
                }
            }
            Work::Fetch(bytes) => {
                for _ in 0..count {
                    socket.write_all(&block[..bytes as usize])?;
                }
            }
            Work::Store(bytes) => {
                for _ in 0..count {
                    socket.read_exact(&mut block[..bytes as usize])?;
                }
                socket.write_all(&[0])?;
            }
        }
    }
}

pub(super) fn tcp_client(server: (Ipv6Addr, u32)) -> Result<Client> {
    let address = at(server, PORT).into();
    let socket = TcpStream::connect_timeout(&address, PATIENCE).context("connecting")?;
    // Otherwise a message that follows another, and the last of many blocks, wait for an acknowledgement, which the other end delays.
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(client(socket))
}

pub(super) fn tcp_server() -> Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT))
        .with_context(|| format!("listening on TCP port {PORT}"))?;
    in_thread(move || loop {
        let (socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        in_thread(move || serve(socket));
    });
    Ok(())
}

pub(super) fn tipc_client(carrier: Carrier) -> Result<Client> {
    Ok(client(tipc::connect(carrier, 0)?))
}

pub(super) fn tipc_server(carrier: Carrier) -> Result<()> {
    let socket = tipc::bind(carrier, 0)?;
    listen(&socket, 4).context("listening on a TIPC socket")?;
    in_thread(move || loop {
        let socket = std::fs::File::from(accept(&socket)?);
        in_thread(move || serve(socket));
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn heads_are_read_as_written() {
        for work in [Work::RoundTrip, Work::Fetch(7), Work::Store(u32::MAX)] {
            let read = Head::decode(Head { work, count: u64::MAX - 1 }.encode()).unwrap();
            assert_eq!((read.work, read.count), (work, u64::MAX - 1));
        }
        assert!(Head::decode([9; HEAD_BYTES]).is_err());
    }

    #[test]
    fn all_work_is_done_over_one_connection() {
        let (near, far) = UnixStream::pair().unwrap();
        let server = std::thread::spawn(move || serve(far));
        let mut go = client(near);
        for work in [Work::RoundTrip, Work::Store(1000), Work::Fetch(1 << 20), Work::RoundTrip] {
            go(work, 3).unwrap();
        }
        drop(go);
        server.join().unwrap().unwrap();
    }
}
