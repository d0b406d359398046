// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links, addresses and routes through a netlink socket, one question at a time.
//!
//! `rtnetlink`, which the services use, wants an async runtime; PID 1 has none. The message types
//! are the same.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use dvs_config::{
    Bond, BondMode, InterfaceAddress, InterfaceKind, LacpRate, Mac, TransmitHashPolicy,
};
use netlink_packet_core::{
    NetlinkMessage, NetlinkPayload, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE,
    NLM_F_REQUEST,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    self, BondLacpRate, BondXmitHashPolicy, InfoBond, InfoData, InfoKind, InfoPortKind, InfoVlan,
    LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
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
        self.ask(RouteNetlinkMessage::SetLink(switched(index, LinkFlags::Up)), NLM_F_ACK).map(drop)
    }

    /// Makes a bond, still without members. `primary` is the index of the one that sends whenever it can.
    pub(crate) fn make_bond(&mut self, bond: &Bond, primary: Option<u32>) -> io::Result<()> {
        let request = RouteNetlinkMessage::NewLink(new_bond(bond, primary));
        self.ask(request, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).map(drop)
    }

    /// Makes an interface a member of a bond, which takes none that are switched on and switches them on itself.
    pub(crate) fn put_into(&mut self, index: u32, bond: u32) -> io::Result<()> {
        let off = RouteNetlinkMessage::SetLink(switched(index, LinkFlags::empty()));
        self.ask(off, NLM_F_ACK)?;
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes = vec![LinkAttribute::Controller(bond)];
        self.ask(RouteNetlinkMessage::SetLink(link), NLM_F_ACK).map(drop)
    }

    /// Makes an interface of the frames of another one that are tagged with a number.
    pub(crate) fn make_vlan(&mut self, name: &str, parent: u32, id: u16) -> io::Result<()> {
        let request = RouteNetlinkMessage::NewLink(new_vlan(name, parent, id));
        self.ask(request, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).map(drop)
    }

    /// Removes an interface that was made.
    pub(crate) fn remove(&mut self, index: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        self.ask(RouteNetlinkMessage::DelLink(link), NLM_F_ACK).map(drop)
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
    let (mut name, mut mac, mut permanent) = (None, None, None);
    let (mut kind, mut is_member) = (InterfaceKind::Adapter, false);
    let address = |bytes: &Vec<u8>| bytes.as_slice().try_into().ok().map(Mac);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Address(bytes) => mac = address(bytes),
            LinkAttribute::PermAddress(bytes) => permanent = address(bytes),
            LinkAttribute::LinkInfo(parts) => {
                for part in parts {
                    match part {
                        // Only links made by software tell of a kind.
                        LinkInfo::Kind(InfoKind::Bond) => kind = InterfaceKind::Bond,
                        LinkInfo::Kind(InfoKind::Vlan) => kind = InterfaceKind::Vlan,
                        LinkInfo::Kind(_) => kind = InterfaceKind::Other,
                        LinkInfo::PortKind(port) => is_member = *port == InfoPortKind::Bond,
                        _ => (),
                    }
                }
            }
            _ => (),
        }
    }
    let mac = mac?;
    let own_mac = permanent.unwrap_or(mac);
    Some(Interface { name: name?, index: link.header.index, mac, own_mac, kind, is_member })
}

/// An interface on or, with no flags, off.
fn switched(index: u32, flags: LinkFlags) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = flags;
    link.header.change_mask = LinkFlags::Up;
    link
}

fn new_bond(bond: &Bond, primary: Option<u32>) -> LinkMessage {
    let mode = match bond.mode {
        BondMode::ActiveBackup => link::BondMode::ActiveBackup,
        BondMode::Ieee8023ad => link::BondMode::Ieee8023Ad,
        BondMode::BalanceXor => link::BondMode::BalanceXor,
    };
    // The kernel takes the others only after the mode that has them.
    let mut settings = vec![InfoBond::Mode(mode), InfoBond::MiiMon(bond.miimon_ms)];
    settings.extend(primary.map(InfoBond::Primary));
    settings.extend(bond.transmit_hash_policy.map(|policy| {
        InfoBond::XmitHashPolicy(match policy {
            TransmitHashPolicy::Layer2 => BondXmitHashPolicy::Layer2,
            TransmitHashPolicy::Layer23 => BondXmitHashPolicy::Layer23,
            TransmitHashPolicy::Layer34 => BondXmitHashPolicy::Layer34,
        })
    }));
    settings.extend(bond.lacp_rate.map(|rate| {
        InfoBond::AdLacpRate(match rate {
            LacpRate::Slow => BondLacpRate::Slow,
            LacpRate::Fast => BondLacpRate::Fast,
        })
    }));
    let info = vec![LinkInfo::Kind(InfoKind::Bond), LinkInfo::Data(InfoData::Bond(settings))];
    let mut link = LinkMessage::default();
    link.attributes =
        vec![LinkAttribute::IfName(bond.name.to_string()), LinkAttribute::LinkInfo(info)];
    link
}

fn new_vlan(name: &str, parent: u32, id: u16) -> LinkMessage {
    let settings = InfoData::Vlan(vec![InfoVlan::Id(id)]);
    let info = vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(settings)];
    let mut link = LinkMessage::default();
    link.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Link(parent),
        LinkAttribute::LinkInfo(info),
    ];
    link
}

#[cfg(test)]
mod tests {
    use dvs_config::{Bond, Config, InterfaceKind, Mac, Source};
    use netlink_packet_core::{Emitable, Parseable};
    use netlink_packet_route::link::{LinkLayerType, LinkMessage};

    use super::{interface, new_bond, new_vlan, switched, LinkFlags, Netlink};

    /// What follows the header of a link in a request: attributes, each its length, its type and its value, in multiples of four.
    fn attributes(link: &LinkMessage) -> Vec<u8> {
        let mut bytes = vec![0; link.buffer_len()];
        link.emit(&mut bytes);
        let (header, attributes) = bytes.split_at(16);
        assert_eq!(header, [0; 16]);
        attributes.to_vec()
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = (value.len() as u16 + 4).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// Types of attributes (`linux/if_link.h`).
    const ADDRESS: u16 = 1;
    const IFNAME: u16 = 3;
    const LINK: u16 = 5;
    const LINKINFO: u16 = 18;
    const PERM_ADDRESS: u16 = 54;

    fn bond(rest: &str) -> Bond {
        let text = format!("[[network.bond]]\nname = 'b0'\ninterfaces = ['eth0']\n{rest}");
        Config::from_sources(&[(Source::FwCfg, text)]).unwrap().network.bond.remove(0)
    }

    #[test]
    fn a_bond_is_asked_for_as_the_kernel_reads_it() {
        let asked = |settings: &[Vec<u8>]| {
            let info = [attribute(1, b"bond\0"), attribute(2, &settings.concat())].concat();
            [attribute(IFNAME, b"b0\0"), attribute(LINKINFO, &info)].concat()
        };
        let every = |ms: u32| attribute(3, &ms.to_ne_bytes());
        let backup = new_bond(&bond("primary = 'eth0'\nmiimon_ms = 50"), Some(7));
        let settings = [attribute(1, &[1]), every(50), attribute(11, &7_u32.to_ne_bytes())];
        assert_eq!(attributes(&backup), asked(&settings));
        let text = "mode = '802.3ad'\nlacp_rate = 'fast'\ntransmit_hash_policy = 'layer3+4'";
        let settings = [attribute(1, &[4]), every(100), attribute(14, &[1]), attribute(21, &[1])];
        assert_eq!(attributes(&new_bond(&bond(text), None)), asked(&settings));
        let text = "mode = 'balance-xor'\ntransmit_hash_policy = 'layer2+3'";
        let settings = [attribute(1, &[2]), every(100), attribute(14, &[2])];
        assert_eq!(attributes(&new_bond(&bond(text), None)), asked(&settings));
    }

    #[test]
    fn a_vlan_is_asked_for_as_the_kernel_reads_it() {
        let info = [attribute(1, b"vlan\0"), attribute(2, &attribute(1, &100_u16.to_ne_bytes()))];
        let expected = [
            attribute(IFNAME, b"b0.100\0"),
            attribute(LINK, &9_u32.to_ne_bytes()),
            attribute(LINKINFO, &info.concat()),
        ];
        assert_eq!(attributes(&new_vlan("b0.100", 9, 100)), expected.concat());
    }

    #[test]
    fn an_interface_is_switched_off_before_it_is_put_into_a_bond() {
        let mut bytes = [0; 16];
        switched(7, LinkFlags::empty()).emit(&mut bytes);
        // Family and type, index, flags, and which of these change.
        assert_eq!(bytes, [0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    }

    /// What the kernel says of an Ethernet link with these attributes.
    fn told(attributes: &[Vec<u8>]) -> super::Interface {
        let mut link = LinkMessage::default();
        (link.header.link_layer_type, link.header.index) = (LinkLayerType::Ether, 5);
        let mut bytes = vec![0; 16];
        link.emit(&mut bytes);
        let name = attribute(IFNAME, b"x\0");
        let address = attribute(ADDRESS, &[2, 0, 0, 0, 0, 1]);
        bytes.extend([name, address, attributes.concat()].concat());
        interface(&LinkMessage::parse(&bytes).unwrap()).unwrap()
    }

    #[test]
    fn members_of_bonds_are_known_and_have_the_address_that_they_came_with() {
        let permanent = attribute(PERM_ADDRESS, &[2, 0, 0, 0, 0, 9]);
        let adapter = told(std::slice::from_ref(&permanent));
        assert_eq!(
            (adapter.mac, adapter.own_mac),
            (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 9]))
        );
        assert_eq!((adapter.kind, adapter.is_member), (InterfaceKind::Adapter, false));
        // `linux/if_link.h`: IFLA_INFO_SLAVE_KIND; there is no kind besides.
        let member = told(&[permanent, attribute(LINKINFO, &attribute(4, b"bond\0"))]);
        assert_eq!((member.kind, member.is_member), (InterfaceKind::Adapter, true));
        let kind = |name: &[u8]| told(&[attribute(LINKINFO, &attribute(1, name))]).kind;
        assert_eq!(kind(b"bond\0"), InterfaceKind::Bond);
        assert_eq!(kind(b"vlan\0"), InterfaceKind::Vlan);
        assert_eq!(kind(b"macsec\0"), InterfaceKind::Other);
        assert_eq!(told(&[]).own_mac, Mac([2, 0, 0, 0, 0, 1]));
    }

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
