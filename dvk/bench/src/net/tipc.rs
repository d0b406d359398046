// SPDX-License-Identifier: MIT OR Apache-2.0
//! TIPC sockets of the server and of its clients.

use std::fs::File;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dvk_bench::Carrier;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_timeout, Timeout};
use rustix::net::{self, socket, AddressFamily, SocketType};

use crate::sys::TipcService;

/// How long the name of a server may take to get from node to node.
const NAMED: Duration = Duration::from_secs(10);
/// After this long without an answer, something hangs.
const PATIENCE: Duration = Duration::from_secs(30);
/// The first of the services' types; those below 64 are TIPC's own.
const TYPE: u32 = 7200;

fn of(carrier: Carrier, number: u32) -> (SocketType, TipcService) {
    let (kind, of) = match carrier {
        Carrier::TipcStream => (SocketType::STREAM, 0),
        Carrier::TipcSeqpacket => (SocketType::SEQPACKET, 1),
        _ => (SocketType::from_raw(libc::SOCK_RDM as u32), 2),
    };
    (kind, TipcService::new(TYPE + of, number))
}

fn open(kind: SocketType) -> Result<OwnedFd> {
    socket(AddressFamily::TIPC, kind, None).context("making a TIPC socket")
}

/// A socket with the name of service `number`.
pub(super) fn bind(carrier: Carrier, number: u32) -> Result<OwnedFd> {
    let (kind, service) = of(carrier, number);
    let socket = open(kind)?;
    net::bind(&socket, &service).with_context(|| format!("binding {service:?}"))?;
    Ok(socket)
}

/// A socket that is connected to the service, or that sends everything to it.
pub(super) fn connect(carrier: Carrier, number: u32) -> Result<File> {
    let (kind, service) = of(carrier, number);
    let give_up = Instant::now() + NAMED;
    loop {
        let socket = open(kind)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        match net::connect(&socket, &service) {
            Ok(()) => return Ok(socket.into()),
            Err(Errno::HOSTUNREACH | Errno::CONNREFUSED) if Instant::now() < give_up => {
                thread::sleep(Duration::from_millis(100));
            }
            Err(error) => return Err(error).with_context(|| format!("connecting to {service:?}")),
        }
    }
}
