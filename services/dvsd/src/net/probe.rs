// SPDX-License-Identifier: MIT OR Apache-2.0
//! One echo request or TCP connection, and what comes of it.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use dvs_api::{Echo, EchoOutcome, TcpConnection, TcpOutcome};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::net::{recvfrom, RecvFlags, SocketAddrAny};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::icmp::{self, Mark, Said};

/// An echo request: to whom, over how many routers, of how many bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shout {
    /// Its port is of no importance, its scope is that of a link-local address.
    pub(super) to: SocketAddr,
    pub(super) mark: Mark,
    pub(super) hops: u8,
    pub(super) bytes: u16,
    pub(super) limit: Duration,
}

/// Sends an echo request and waits for what somebody says to it; blocks its thread meanwhile.
///
/// # Errors
/// For people: why it could not be sent.
pub(super) fn echo(shout: &Shout) -> Result<Echo, String> {
    let address = shout.to.ip();
    let answer = |from, began: Instant, outcome| Echo {
        address,
        sequence: shout.mark.sequence,
        bytes: shout.bytes,
        from,
        rtt_us: Some(began.elapsed().as_micros() as u64),
        outcome,
    };
    let failed = |what: &str, error: io::Error| format!("{what} {address}: {error}");
    let socket = open(shout).map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => {
            "ping: dvsd may not open raw sockets here; it needs CAP_NET_RAW".to_owned()
        }
        _ => failed("open a socket to ping", error),
    })?;
    let message = icmp::request(address, shout.mark, shout.bytes.into());
    let to = SocketAddr::from((address, 0));
    let to = match (to, shout.to) {
        (SocketAddr::V6(mut to), SocketAddr::V6(given)) => {
            to.set_scope_id(given.scope_id());
            SocketAddr::V6(to)
        }
        (to, _) => to,
    };
    let began = Instant::now();
    match socket.send_to(&message, &to.into()) {
        Ok(_) => {}
        Err(error) if is_no_way(&error) => {
            return Ok(answer(None, began, EchoOutcome::Unreachable(error.to_string())));
        }
        Err(error) => return Err(failed("ping", error)),
    }
    let mut packet = vec![0; usize::from(u16::MAX)];
    loop {
        let Some(left) = shout.limit.checked_sub(began.elapsed()) else {
            let timed_out = answer(None, began, EchoOutcome::TimedOut);
            return Ok(Echo { rtt_us: None, ..timed_out });
        };
        if !is_readable(&socket, left).map_err(|error| failed("wait for", error))? {
            continue;
        }
        let (bytes, from) = match recvfrom(&socket, &mut packet[..], RecvFlags::DONTWAIT) {
            Ok((bytes, _, from)) => (bytes, from),
            // What made it readable is gone, or says that an earlier packet did not get there, which a message says as well.
            Err(_) => continue,
        };
        let outcome = match icmp::said(&packet[..bytes], address, shout.mark) {
            Some(Said::Reply) => EchoOutcome::Reply,
            Some(Said::Expired) => EchoOutcome::Expired,
            Some(Said::Unreachable(why)) => EchoOutcome::Unreachable(why.into()),
            None => continue,
        };
        return Ok(answer(from.and_then(ip_of), began, outcome));
    }
}

fn open(shout: &Shout) -> io::Result<Socket> {
    match shout.to {
        SocketAddr::V4(_) => {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
            socket.set_ttl_v4(shout.hops.into())?;
            Ok(socket)
        }
        SocketAddr::V6(_) => {
            let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
            socket.set_unicast_hops_v6(shout.hops.into())?;
            Ok(socket)
        }
    }
}

/// Whether this node itself knows of no way there.
fn is_no_way(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable)
}

fn is_readable(socket: &Socket, limit: Duration) -> io::Result<bool> {
    let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
    match poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&limit)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn ip_of(address: SocketAddrAny) -> Option<IpAddr> {
    SocketAddr::try_from(address).ok().map(|address| address.ip())
}

/// Connects, and closes the connection.
pub(super) async fn connect(address: SocketAddr, limit: Duration) -> TcpConnection {
    let began = Instant::now();
    let connected = timeout(limit, TcpStream::connect(address)).await;
    let rtt_us = Some(began.elapsed().as_micros() as u64);
    let (from, rtt_us, outcome) = match connected {
        Ok(Ok(stream)) => (stream.local_addr().ok(), rtt_us, TcpOutcome::Connected),
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {
            (None, rtt_us, TcpOutcome::Refused)
        }
        Ok(Err(error)) => (None, rtt_us, TcpOutcome::Failed(error.to_string())),
        Err(_) => (None, None, TcpOutcome::TimedOut),
    };
    TcpConnection { address, from, rtt_us, outcome }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The loopback answers, of either version, and so quickly that no wait is too short.
    #[test]
    fn the_loopback_echoes() {
        for (number, to) in ["127.0.0.1:0", "[::1]:0"].into_iter().enumerate() {
            let mark = Mark { identifier: 0x4242, sequence: number as u16 };
            let to: SocketAddr = to.parse().unwrap();
            let shout = Shout { to, mark, hops: 1, bytes: 1_000, limit: Duration::from_secs(10) };
            match echo(&shout) {
                Ok(echo) => {
                    assert_eq!((&echo.outcome, echo.from), (&EchoOutcome::Reply, Some(to.ip())));
                    assert_eq!((echo.sequence, echo.bytes), (number as u16, 1_000));
                    assert!(echo.rtt_us.is_some_and(|us| us < 10_000_000), "{echo:?}");
                }
                // Whoever runs tests need not be root, and is told so.
                Err(why) => assert!(why.contains("it needs CAP_NET_RAW"), "{why}"),
            }
        }
    }

    #[tokio::test]
    async fn a_port_is_open_or_closed_or_silent() {
        for own in ["127.0.0.1:0", "[::1]:0"] {
            let listener = tokio::net::TcpListener::bind(own).await.unwrap();
            let address = listener.local_addr().unwrap();
            let open = connect(address, Duration::from_secs(10)).await;
            assert_eq!((open.outcome, open.address), (TcpOutcome::Connected, address));
            assert_eq!(open.from.map(|from| from.ip()), Some(address.ip()));
            // A port that is held and not listened on: nobody else can come to listen on it meanwhile.
            let held = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
            held.bind(&SocketAddr::new(address.ip(), 0).into()).unwrap();
            let address = held.local_addr().unwrap().as_socket().unwrap();
            let closed = connect(address, Duration::from_secs(10)).await;
            assert_eq!((closed.outcome, closed.from), (TcpOutcome::Refused, None));
            // Whoever has no room for one more connection says nothing at all.
            held.listen(0).unwrap();
            let mut taken = Vec::new();
            let silent = loop {
                let one = connect(address, Duration::from_millis(300)).await;
                if one.outcome != TcpOutcome::Connected {
                    break one;
                }
                taken.push(one);
                assert!(taken.len() < 10, "{taken:?}");
            };
            assert_eq!((silent.outcome, silent.rtt_us), (TcpOutcome::TimedOut, None));
        }
    }
}
