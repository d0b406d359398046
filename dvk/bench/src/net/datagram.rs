// SPDX-License-Identifier: MIT OR Apache-2.0
//! Round trips by datagrams, of which one is under way at a time.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, UdpSocket};
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use dvk_bench::{Carrier, Work};
use rustix::net::{recvfrom, sendto, RecvFlags, SendFlags};

use super::{at, in_thread, tipc, Client};
use crate::mechanism::MESSAGE_BYTES;

/// The port of the first server.
const PORT: u16 = 7200;
/// After this long without an answer, it is lost.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn udp_client(server: (Ipv6Addr, u32), number: u32) -> Result<Client> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).context("binding a UDP socket")?;
    socket.connect(at(server, port(number))).context("choosing the server")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(round_trips(move |message| {
        socket.send(message)?;
        Ok(socket.recv(message)?)
    }))
}

fn port(number: u32) -> u16 {
    PORT + number as u16
}

pub(super) fn udp_server(number: u32) -> Result<()> {
    let port = port(number);
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))
        .with_context(|| format!("binding UDP port {port}"))?;
    in_thread(move || {
        let mut message = [0; MESSAGE_BYTES];
        loop {
            let (length, from) = socket.recv_from(&mut message)?;
            socket.send_to(&message[..length], from)?;
        }
    });
    Ok(())
}

pub(super) fn tipc_client(number: u32) -> Result<Client> {
    let mut socket = tipc::connect(Carrier::TipcRdm, number)?;
    Ok(round_trips(move |message| {
        socket.write_all(message)?;
        Ok(socket.read(message)?)
    }))
}

pub(super) fn tipc_server(number: u32) -> Result<()> {
    let socket = tipc::bind(Carrier::TipcRdm, number)?;
    in_thread(move || {
        let mut message = [0; MESSAGE_BYTES];
        loop {
            let (_, length, from) = recvfrom(&socket, &mut message[..], RecvFlags::empty())?;
            let from = from.context("a TIPC message from nobody")?;
            sendto(&socket, &message[..length], SendFlags::empty(), &from)?;
        }
    });
    Ok(())
}

/// A client that has each message sent and answered.
fn round_trips(mut exchange: impl FnMut(&mut [u8]) -> Result<usize> + Send + 'static) -> Client {
    Box::new(move |work, count| {
        ensure!(work == Work::RoundTrip, "datagrams do round trips only");
        let mut message = [1; MESSAGE_BYTES];
        for _ in 0..count {
            let length = exchange(&mut message)?;
            ensure!(length == MESSAGE_BYTES, "{length} bytes came back");
        }
        Ok(())
    })
}
