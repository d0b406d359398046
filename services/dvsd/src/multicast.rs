// SPDX-License-Identifier: MIT OR Apache-2.0
//! Beacons and messages of members on the network: UDP on each cluster interface, to an IPv6 link-local multicast group or the link-local
//! address of one node.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use crate::settings::Interface;

/// The group. Transient (RFC 4291, 2.7), link-local, and otherwise arbitrary: the bytes spell
/// `dvs`.
pub const GROUP: Ipv6Addr = Ipv6Addr::new(0xff12, 0, 0, 0, 0, 0, 0x6476, 0x7301);
/// The UDP port.
pub const PORT: u16 = 7701;
/// Longest datagram that is looked at.
const DATAGRAM_MAX: usize = 2048;
/// Datagrams that may wait for the daemon, or for a socket.
const QUEUE: usize = 1_024;

/// A datagram that arrived.
#[derive(Clone, Debug)]
pub struct Datagram {
    /// Index of the interface it came in by.
    pub interface: u32,
    /// The sender's link-local address.
    pub source: Ipv6Addr,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// A datagram to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departure {
    /// Index of the interface it is to go out by.
    pub interface: u32,
    /// The receiver's link-local address; `None` for all.
    pub to: Option<Ipv6Addr>,
    /// What it holds.
    pub bytes: Vec<u8>,
}

impl Departure {
    /// One to all on an interface.
    pub fn to_all(interface: u32, bytes: Vec<u8>) -> Self {
        Self { interface, to: None, bytes }
    }
}

/// The daemon's end of the network: real sockets, or what a test connects.
#[derive(Debug)]
pub struct Network {
    /// What arrives.
    pub inbound: mpsc::Receiver<Datagram>,
    /// What is to be sent. Where it cannot be, it is dropped.
    pub outbound: mpsc::Sender<Departure>,
}

/// Opens a socket on each interface and moves datagrams between them and the daemon.
///
/// # Errors
/// For people: which interface cannot be used, and why.
pub fn start(interfaces: &[Interface]) -> Result<Network, String> {
    let (arrived, inbound) = mpsc::channel(QUEUE);
    let (outbound, mut departing) = mpsc::channel::<Departure>(QUEUE);
    let mut sockets = Vec::new();
    for interface in interfaces {
        let socket = open(interface).map_err(|error| {
            format!("receive datagrams on {} (port {PORT}): {error}", interface.name)
        })?;
        sockets.push((interface.index, std::sync::Arc::new(socket)));
    }
    for (index, socket) in sockets.clone() {
        let arrived = arrived.clone();
        tokio::spawn(async move {
            let mut bytes = vec![0; DATAGRAM_MAX];
            loop {
                // An error is about one datagram, or the interface is down for now.
                let Ok((length, SocketAddr::V6(from))) = socket.recv_from(&mut bytes).await else {
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                };
                let bytes = bytes[..length].to_vec();
                let datagram = Datagram { interface: index, source: *from.ip(), bytes };
                if arrived.send(datagram).await.is_err() {
                    break;
                }
            }
        });
    }
    tokio::spawn(async move {
        while let Some(Departure { interface, to, bytes }) = departing.recv().await {
            for (index, socket) in &sockets {
                if *index == interface {
                    let to = SocketAddrV6::new(to.unwrap_or(GROUP), PORT, 0, *index);
                    // While the interface has no carrier or its address is still being checked
                    // for duplicates, sending fails; the next beacon or message will do.
                    let _ = socket.send_to(&bytes, to).await;
                }
            }
        }
    });
    Ok(Network { inbound, outbound })
}

fn open(interface: &Interface) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_only_v6(true)?;
    socket.bind_device(Some(interface.name.as_bytes()))?;
    socket.set_multicast_if_v6(interface.index)?;
    socket.set_multicast_hops_v6(1)?;
    socket.set_multicast_loop_v6(false)?;
    socket.set_nonblocking(true)?;
    // Not to the group: messages of members come to the interface's own address.
    socket.bind(&SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, PORT, 0, 0).into())?;
    socket.join_multicast_v6(&GROUP, interface.index)?;
    UdpSocket::from_std(socket.into())
}

/// The address that beacons from an interface carry as their source, once it has one.
pub fn link_local(interface: u32) -> Option<Ipv6Addr> {
    // Connecting a datagram socket sends nothing and chooses the source address.
    let socket = std::net::UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(SocketAddrV6::new(GROUP, PORT, 0, interface)).ok()?;
    let SocketAddr::V6(chosen) = socket.local_addr().ok()? else { return None };
    // Where the interface comes up in the meantime, the kernel chooses before it has a route and has one afterwards: such an address
    // may be another interface's, and nobody would reach this node at it.
    let addresses = std::fs::read_to_string("/proc/net/if_inet6").ok()?;
    is_link_local_of(&addresses, interface, *chosen.ip()).then(|| *chosen.ip())
}

/// Whether `address` is a link-local one of an interface, in the kernel's list of addresses: address, index of the interface, length of
/// the prefix, scope and flags in hexadecimal, and the name of the interface.
fn is_link_local_of(addresses: &str, interface: u32, address: Ipv6Addr) -> bool {
    let wanted = format!("{:032x}", u128::from(address));
    address.is_unicast_link_local()
        && addresses.lines().any(|line| {
            let mut fields = line.split_ascii_whitespace();
            let index = |text| u32::from_str_radix(text, 16);
            fields.next() == Some(&*wanted) && fields.next().map(index) == Some(Ok(interface))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_counts_only_for_its_own_interface() {
        let addresses = "\
            fe8000000000000050540ffffed50001 03 40 20 80     eth0\n\
            fe80000000000000505401fffed50001 0a 40 20 80     eth1\n\
            00000000000000000000000000000001 01 80 10 80       lo\n";
        let of = |interface, address: &str| {
            is_link_local_of(addresses, interface, address.parse().unwrap())
        };
        assert!(of(3, "fe80::5054:0fff:fed5:1") && of(10, "fe80::5054:1ff:fed5:1"));
        assert!(!of(3, "fe80::5054:1ff:fed5:1"), "another interface's");
        assert!(!of(3, "fe80::5054:ff:fed5:2"), "nobody's");
        assert!(!of(1, "::1"), "not link-local");
        assert!(!is_link_local_of("fe80\n\n", 3, "fe80::1".parse().unwrap()));
    }
}
