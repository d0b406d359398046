// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links, addresses and routes through a netlink socket, one question at a time.
//!
//! `rtnetlink`, which the services use, wants an async runtime; PID 1 has none. The message types
//! are the same.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use dvs_config::{InterfaceAddress, Mac};
use netlink_packet_core::{
    NetlinkMessage, NetlinkPayload, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE,
    NLM_F_REQUEST,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use rustix::net::sockopt::{set_socket_timeout, Timeout};

use crate::interfaces::Interface;

/// The kernel answers at once; this bounds what a surprise could cost.
const PATIENCE: Duration = Duration::from_secs(5);

/// A conversation with the kernel about the network.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The Ethernet interfaces of this machine, `lo` and the like left out.
    pub(crate) fn ethernet_interfaces(&mut self) -> io::Result<Vec<Interface>> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self.ask(request, NLM_F_DUMP)?;
        let interface = |answer| match answer {
            RouteNetlinkMessage::NewLink(link) => interface(&link),
            _ => None,
        };
        Ok(answers.into_iter().filter_map(interface).collect())
    }

    /// Switches an interface on.
    pub(crate) fn set_up(&mut self, index: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        self.ask(RouteNetlinkMessage::SetLink(link), NLM_F_ACK).map(drop)
    }

    /// Gives an interface an address and with it the route to its network.
    pub(crate) fn add_address(&mut self, index: u32, address: InterfaceAddress) -> io::Result<()> {
        let ip = IpAddr::V4(address.address());
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = address.prefix_len();
        message.header.scope = AddressScope::Universe;
        message.header.index = index;
        message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
        let request = RouteNetlinkMessage::NewAddress(message);
        self.ask(request, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE).map(drop)
    }

    /// Routes what goes nowhere else over a gateway.
    pub(crate) fn add_default_route(&mut self, index: u32, gateway: Ipv4Addr) -> io::Result<()> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Boot;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        message.attributes =
            vec![RouteAttribute::Gateway(RouteAddress::Inet(gateway)), RouteAttribute::Oif(index)];
        let request = RouteNetlinkMessage::NewRoute(message);
        self.ask(request, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE).map(drop)
    }

    /// Sends a request and gathers what answers it, up to the acknowledgement.
    fn ask(
        &mut self,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence += 1;
        let mut message = NetlinkMessage::from(request);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                // Messages start at multiples of four bytes.
                let length = (message.header.length as usize).next_multiple_of(4);
                rest = rest.get(length.max(4)..).unwrap_or_default();
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(answers),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    _ => (),
                }
            }
        }
    }
}

/// Reads a link as an interface, if it is an Ethernet one.
fn interface(link: &LinkMessage) -> Option<Interface> {
    if link.header.link_layer_type != LinkLayerType::Ether {
        return None;
    }
    let mut name = None;
    let mut mac = None;
    let mut is_virtual = false;
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Address(bytes) => mac = bytes.as_slice().try_into().ok().map(Mac),
            // Only links made by software tell of a kind.
            LinkAttribute::LinkInfo(_) => is_virtual = true,
            _ => (),
        }
    }
    Some(Interface { name: name?, index: link.header.index, mac: mac?, is_virtual })
}

#[cfg(test)]
mod tests {
    use super::Netlink;

    /// Needs no rights, only a kernel: every dump ends, and `lo` is no Ethernet interface.
    #[test]
    fn the_kernel_lists_its_interfaces() {
        let mut netlink = Netlink::open().unwrap();
        for _ in 0..2 {
            let interfaces = netlink.ethernet_interfaces().unwrap();
            assert!(interfaces.iter().all(|interface| interface.name != "lo"));
        }
    }

    #[test]
    fn a_refusal_says_why() {
        let error = Netlink::open().unwrap().set_up(u32::MAX >> 1).unwrap_err();
        // No such device, or no right to ask.
        assert!([19, 1].contains(&error.raw_os_error().unwrap()), "{error}");
    }
}
