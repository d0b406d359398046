// SPDX-License-Identifier: MIT OR Apache-2.0
//! What carries a link, and by which addresses.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use dvs_api::Transport;
use dvs_config::Mac;

use crate::membership::{MemberView, Said};

/// The first port of proxies. The port of a link is this one plus twice the id of the node at the
/// other end, and one more for QUIC, which shares its ports with UDP. So no two links of a node and
/// no two transports of a link meet at a port.
pub const PORT: u16 = 7710;
/// The highest id of a node whose link has ports.
pub const PROXIED_ID_MAX: u16 = (u16::MAX - PORT - 1) / 2;

/// How frames reach a peer by raw Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Index of the local interface.
    pub interface: u32,
    /// MAC address of the peer's interface.
    pub mac: Mac,
}

/// How a proxy reaches that of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyRoute {
    /// What it speaks: TCP, UDP or QUIC.
    pub over: Transport,
    /// What it does first.
    pub role: Role,
    /// Its own address: where it listens, or what it binds.
    pub local: SocketAddr,
    /// The peer's: whom it connects to or exchanges datagrams with.
    pub peer: SocketAddr,
}

/// See [`ProxyRoute::role`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It waits for the other one to connect.
    Listen,
    /// It connects to the other one.
    Connect,
    /// The same as the other one: there are no connections.
    Exchange,
}

impl ProxyRoute {
    /// The arguments of `dvs-proxy` that say this.
    pub fn arguments(&self) -> Vec<String> {
        let Self { over, role, local, peer } = self;
        let text = |word: &str| word.to_owned();
        let mut arguments = vec![over.to_string()];
        arguments.extend(match role {
            Role::Listen => vec![text("--listen"), local.to_string()],
            Role::Connect => vec![text("--connect"), peer.to_string()],
            Role::Exchange => {
                vec![text("--local"), local.to_string(), text("--peer"), peer.to_string()]
            }
        });
        arguments
    }
}

/// What carries a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// The kernel, by frames of the DVK's own Ethernet type.
    Ethernet(Route),
    /// The kernel, by TIPC, which finds the peer itself.
    Tipc,
    /// A proxy.
    Proxy(ProxyRoute),
}

impl Carrier {
    /// Which transport it is.
    pub fn transport(&self) -> Transport {
        match self {
            Self::Ethernet(_) => Transport::Ethernet,
            Self::Tipc => Transport::Tipc,
            Self::Proxy(route) => route.over,
        }
    }
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ethernet(route) => write!(f, "Ethernet, at {}", route.mac),
            Self::Tipc => f.write_str("TIPC"),
            Self::Proxy(route) => write!(f, "{}, by a proxy at {}", route.over, route.peer),
        }
    }
}

/// This node's end of all its links.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnEnd {
    /// Link-local addresses by the index of their interface.
    pub link_locals: BTreeMap<u32, Ipv6Addr>,
    /// Address of the management interface.
    pub management: Option<IpAddr>,
}

impl OwnEnd {
    /// What is to carry the link from node `id`, which is this one, to a peer that is heard.
    ///
    /// # Errors
    /// For people: why the transport that was chosen cannot carry it.
    pub fn carrier(&self, id: u16, peer: &MemberView, said: &Said) -> Result<Carrier, String> {
        let over = peer.choice.transport;
        match over {
            Transport::Ethernet => {
                let path = said.path.ok_or("no interface of this node hears it")?;
                let route = Route { interface: path.interface, mac: path.mac };
                return Ok(Carrier::Ethernet(route));
            }
            Transport::Tipc => return Ok(Carrier::Tipc),
            Transport::Tcp | Transport::Udp | Transport::Quic => {}
        }
        let (local, remote) = self.addresses(said)?;
        // On each node, the peer's id tells its links apart.
        let (here, there) = (port(over, peer.seat.id)?, port(over, id)?);
        let role = match over {
            Transport::Udp => Role::Exchange,
            _ if id < peer.seat.id => Role::Listen,
            _ => Role::Connect,
        };
        Ok(Carrier::Proxy(ProxyRoute {
            over,
            role,
            local: with_port(local, here),
            peer: with_port(remote, there),
        }))
    }

    /// Addresses of the two ends by which they reach each other: link-local ones of a segment that
    /// both are on, or else those of the management interfaces.
    fn addresses(&self, said: &Said) -> Result<(SocketAddr, SocketAddr), String> {
        if let Some(path) = said.path {
            let own = self.link_locals.get(&path.interface).ok_or_else(|| {
                format!("interface {} has no link-local address yet", path.interface)
            })?;
            let scoped = |ip| SocketAddr::from(SocketAddrV6::new(ip, 0, 0, path.interface));
            return Ok((scoped(*own), scoped(path.address)));
        }
        match (self.management, said.management) {
            (Some(own), Some(peer)) if own.is_ipv4() == peer.is_ipv4() => {
                Ok((SocketAddr::new(own, 0), SocketAddr::new(peer, 0)))
            }
            _ => {
                Err("the two nodes share no segment, and not both have a management address".into())
            }
        }
    }
}

/// The port, on one node, of the link to node `peer`.
fn port(over: Transport, peer: u16) -> Result<u16, String> {
    if peer > PROXIED_ID_MAX {
        return Err(format!(
            "the link to a node whose id is above {PROXIED_ID_MAX} has no port for proxies"
        ));
    }
    Ok(PORT + 2 * peer + u16::from(over == Transport::Quic))
}

fn with_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::beacon::{Choice, Seat};
    use crate::membership::{Liveness, Path};

    fn said(path: Option<Path>, management: Option<&str>) -> Said {
        Said {
            release: "0.1.0".into(),
            echo: 0,
            management: management.map(|text| text.parse().unwrap()),
            uptime_s: 0,
            at_ms: 0,
            path,
        }
    }

    fn path(n: u16) -> Option<Path> {
        let address = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n);
        Some(Path { interface: 2, mac: Mac([2, 0, 0, 0, 0, n as u8]), address })
    }

    fn own(n: u16) -> OwnEnd {
        let address = path(n).unwrap().address;
        OwnEnd { link_locals: BTreeMap::from([(2, address)]), management: None }
    }

    fn member(id: u16, transport: Transport) -> MemberView {
        MemberView {
            seat: Seat { id, incarnation: 1 },
            mac: Mac([2; 6]),
            local: false,
            liveness: Liveness::Alive,
            ready: true,
            said: None,
            name: String::new(),
            choice: Choice { revision: 1, transport },
        }
    }

    fn proxy(from: u16, to: u16, over: Transport) -> ProxyRoute {
        match own(from).carrier(from, &member(to, over), &said(path(to), None)) {
            Ok(Carrier::Proxy(route)) => route,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_two_ends_of_a_link_meet() {
        for over in [Transport::Tcp, Transport::Quic] {
            let (lower, higher) = (proxy(3, 8, over), proxy(8, 3, over));
            assert_eq!((lower.role, higher.role), (Role::Listen, Role::Connect));
            assert_eq!(lower.local, higher.peer);
        }
        let (lower, higher) = (proxy(3, 8, Transport::Udp), proxy(8, 3, Transport::Udp));
        assert_eq!((lower.role, higher.role), (Role::Exchange, Role::Exchange));
        assert_eq!((lower.local, lower.peer), (higher.peer, higher.local));
    }

    #[test]
    fn arguments_are_those_of_the_proxy() {
        let listen = proxy(0, 1, Transport::Tcp).arguments();
        assert_eq!(listen, ["tcp", "--listen", "[fe80::%2]:7712"]);
        let connect = proxy(1, 0, Transport::Quic).arguments();
        assert_eq!(connect, ["quic", "--connect", "[fe80::%2]:7713"]);
        let udp = proxy(1, 0, Transport::Udp).arguments();
        assert_eq!(udp, ["udp", "--local", "[fe80::1%2]:7710", "--peer", "[fe80::%2]:7712"]);
    }

    #[test]
    fn no_two_links_of_a_node_share_a_port() {
        let mut datagrams = BTreeSet::new();
        let mut streams = BTreeSet::new();
        for peer in (0..53).chain([PROXIED_ID_MAX]) {
            assert!(streams.insert(port(Transport::Tcp, peer).unwrap()));
            assert!(datagrams.insert(port(Transport::Udp, peer).unwrap()));
            assert!(datagrams.insert(port(Transport::Quic, peer).unwrap()));
        }
        assert_eq!(datagrams.last(), Some(&(PORT + 2 * PROXIED_ID_MAX + 1)));
        assert!(port(Transport::Tcp, PROXIED_ID_MAX + 1).unwrap_err().contains("above 28912"));
    }

    #[test]
    fn nodes_without_a_common_segment_use_their_management_addresses() {
        let own = OwnEnd { management: Some("10.0.0.1".parse().unwrap()), ..own(1) };
        let carrier =
            |transport, management| own.carrier(1, &member(2, transport), &said(None, management));
        let Ok(Carrier::Proxy(route)) = carrier(Transport::Tcp, Some("10.0.0.2")) else {
            panic!("no proxy")
        };
        assert_eq!(route.local, "10.0.0.1:7714".parse().unwrap());
        for (transport, management) in [
            (Transport::Ethernet, Some("10.0.0.2")),
            (Transport::Tcp, None),
            (Transport::Udp, Some("fd00::2")),
        ] {
            assert!(carrier(transport, management).is_err(), "{transport} {management:?}");
        }
        assert_eq!(carrier(Transport::Tipc, None), Ok(Carrier::Tipc));
    }

    #[test]
    fn an_interface_without_an_address_is_waited_for() {
        let nothing = OwnEnd::default();
        let member = member(2, Transport::Udp);
        let error = nothing.carrier(1, &member, &said(path(2), None)).unwrap_err();
        assert!(error.contains("interface 2 has no link-local address yet"), "{error}");
    }
}
