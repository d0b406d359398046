// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links, addresses, routes and queues of the network namespace that this process is in, as the kernel is told of them (rtnetlink(7)).

use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{bail, Context, Result};
use netlink_packet_core::{
    DefaultNla, NetlinkMessage, NetlinkPayload, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL,
    NLM_F_REPLACE, NLM_F_REQUEST,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;
use rustix::net::sockopt::{set_socket_timeout, Timeout};

use crate::network::Address;

/// The kernel answers at once; this bounds what a surprise could cost.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection to the kernel.
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens one, to the network namespace that this process is in now.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn open() -> Result<Self> {
        let open = || -> Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
            Ok(socket)
        };
        Ok(Self { socket: open().context("asking the kernel about networks")?, sequence: 0 })
    }

    /// Has something done.
    fn ask(&mut self, what: RouteNetlinkMessage, flags: u16) -> std::io::Result<()> {
        self.sequence += 1;
        let mut message = NetlinkMessage::from(what);
        message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let (answer, _) = self.socket.recv_from_full()?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
            .map_err(std::io::Error::other)?;
        match answer.payload {
            NetlinkPayload::Error(error) if error.code.is_none() => Ok(()),
            NetlinkPayload::Error(error) => Err(error.to_io()),
            other => Err(std::io::Error::other(format!("the kernel answered with {other:?}"))),
        }
    }

    /// The number of a link.
    ///
    /// # Errors
    /// When there is none of this name.
    pub(crate) fn index(&self, name: &str) -> Result<u32> {
        name_to_index(&self.socket, name).with_context(|| format!("looking for the link {name}"))
    }

    /// Makes a link.
    ///
    /// # Errors
    /// When there is one of this name, or the kernel refuses.
    pub(crate) fn make(
        &mut self,
        name: &str,
        kind: InfoKind,
        data: Option<InfoData>,
        mtu: Option<u32>,
    ) -> Result<()> {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::IfName(name.to_owned()));
        link.attributes.extend(mtu.map(LinkAttribute::Mtu));
        let info = std::iter::once(LinkInfo::Kind(kind)).chain(data.map(LinkInfo::Data)).collect();
        link.attributes.push(LinkAttribute::LinkInfo(info));
        self.ask(RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL)
            .with_context(|| format!("making the link {name}"))
    }

    /// Puts a link into a bridge.
    ///
    /// # Errors
    /// When one of them does not exist.
    pub(crate) fn put_into(&mut self, name: &str, bridge: &str) -> Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = self.index(name)?;
        link.attributes.push(LinkAttribute::Controller(self.index(bridge)?));
        self.ask(RouteNetlinkMessage::SetLink(link), 0)
            .with_context(|| format!("putting the link {name} into the bridge {bridge}"))
    }

    /// Switches a link on.
    ///
    /// # Errors
    /// When it does not exist.
    pub(crate) fn up(&mut self, name: &str) -> Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = self.index(name)?;
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        self.ask(RouteNetlinkMessage::SetLink(link), 0)
            .with_context(|| format!("switching the link {name} on"))
    }

    /// Removes a link if it exists.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn remove(&mut self, name: &str) -> Result<()> {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.ask(RouteNetlinkMessage::DelLink(link), 0) {
            Err(error) if is_missing(&error) => Ok(()),
            other => other.with_context(|| format!("removing the link {name}")),
        }
    }

    /// Gives a link an address.
    ///
    /// # Errors
    /// When the link does not exist, or has it.
    pub(crate) fn add_address(&mut self, name: &str, address: Address) -> Result<()> {
        let mut message = AddressMessage::default();
        message.header.index = self.index(name)?;
        message.header.prefix_len = address.prefix;
        message.header.family = family(address.address);
        message.attributes.push(AddressAttribute::Address(address.address));
        message.attributes.push(AddressAttribute::Local(address.address));
        self.ask(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
            .with_context(|| format!("giving {name} the address {address}"))
    }

    /// Has packets to elsewhere go by a gateway.
    ///
    /// # Errors
    /// When it is not reached by any link.
    pub(crate) fn add_gateway(&mut self, name: &str, gateway: IpAddr) -> Result<()> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(gateway);
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        message.attributes.push(RouteAttribute::Gateway(match gateway {
            IpAddr::V4(gateway) => RouteAddress::Inet(gateway),
            IpAddr::V6(gateway) => RouteAddress::Inet6(gateway),
        }));
        message.attributes.push(RouteAttribute::Oif(self.index(name)?));
        self.ask(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
            .with_context(|| format!("routing by the gateway {gateway}"))
    }

    /// Has frames for everybody, and for those who have not been heard of, go to a peer of a VXLAN link, by the interface `via`: the
    /// kernel does not take the link's own for a peer's, and a link-local address is on every interface. One that is there stays.
    ///
    /// # Errors
    /// When one of the links does not exist.
    pub(crate) fn add_peer(&mut self, name: &str, peer: IpAddr, via: &str) -> Result<()> {
        let message = RouteNetlinkMessage::NewNeighbour(self.peer(name, peer, via)?);
        match self.ask(message, NLM_F_CREATE | NLM_F_APPEND) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            other => other.with_context(|| format!("telling the link {name} of the node {peer}")),
        }
    }

    /// Has them no longer go there, if they did.
    ///
    /// # Errors
    /// When one of the links does not exist.
    pub(crate) fn remove_peer(&mut self, name: &str, peer: IpAddr, via: &str) -> Result<()> {
        let message = RouteNetlinkMessage::DelNeighbour(self.peer(name, peer, via)?);
        match self.ask(message, 0) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => {
                other.with_context(|| format!("having the link {name} forget the node {peer}"))
            }
        }
    }

    fn peer(&mut self, name: &str, peer: IpAddr, via: &str) -> Result<NeighbourMessage> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = self.index(name)?;
        message.header.state = NeighbourState::Permanent;
        message.header.flags = NeighbourFlags::Own;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(vec![0; 6]));
        message.attributes.push(NeighbourAttribute::Destination(match peer {
            IpAddr::V4(peer) => NeighbourAddress::Inet(peer),
            IpAddr::V6(peer) => NeighbourAddress::Inet6(peer),
        }));
        message.attributes.push(NeighbourAttribute::IfIndex(self.index(via)?));
        Ok(message)
    }

    /// Limits what a link sends, in bits per second, by a bucket of tokens (tc-tbf(8)); without a rate, ends that.
    ///
    /// # Errors
    /// When the kernel has no such queue.
    pub(crate) fn set_limit(&mut self, name: &str, rate: Option<u64>) -> Result<()> {
        let mut message = TcMessage::with_index(
            i32::try_from(self.index(name)?).context("limiting a link with a strange number")?,
        );
        message.header.parent = TcHandle::ROOT;
        let Some(rate) = rate else {
            return match self.ask(RouteNetlinkMessage::DelQueueDiscipline(message), 0) {
                // There is none but the kernel's own, which has no limit.
                Err(error)
                    if matches!(
                        Errno::from_io_error(&error),
                        Some(Errno::NOENT | Errno::INVAL)
                    ) =>
                {
                    Ok(())
                }
                other => other.with_context(|| format!("ending the limit of the link {name}")),
            };
        };
        message.header.handle = TcHandle { major: 1, minor: 0 };
        message.attributes.push(TcAttribute::Kind("tbf".to_owned()));
        message.attributes.push(TcAttribute::Other(DefaultNla::new(TCA_OPTIONS, bucket(rate))));
        match self.ask(RouteNetlinkMessage::NewQueueDiscipline(message), NLM_F_CREATE | NLM_F_REPLACE) {
            Err(error) if error.kind() == ErrorKind::NotFound => bail!(
                "limiting the link {name} to {rate} bits per second: this kernel has no such limit; leave it out, or build the kernel with it"
            ),
            other => {
                other.with_context(|| format!("limiting the link {name} to {rate} bits per second"))
            }
        }
    }
}

/// `linux/rtnetlink.h`.
const TCA_OPTIONS: u16 = 2;

/// The options of the queue, of `linux/pkt_sched.h`.
fn bucket(rate: u64) -> Vec<u8> {
    const TCA_TBF_PARMS: u16 = 1;
    const TCA_TBF_RATE64: u16 = 4;
    const TCA_TBF_BURST: u16 = 6;
    const ETHERNET: u8 = 1;
    /// Two of the longest packets that there are before they are cut.
    const BURST_MIN: u64 = 128 << 10;
    let rate_bytes = rate / 8;
    // What comes in 10 ms at once, and what waits for 50 ms: less loses what could be carried, more makes others wait.
    let burst = (rate_bytes / 100).clamp(BURST_MIN, u64::from(u32::MAX) / 8);
    let limit = (rate_bytes / 20).clamp(2 * burst, u64::from(u32::MAX) / 2);
    // Both are below the limits of the type by the lines above.
    let (burst, limit) = (burst as u32, limit as u32);
    let mut parameters = vec![0, ETHERNET, 0, 0, 0, 0, 0, 0];
    // A rate beyond 32 bits is told by another attribute, and by all ones here.
    parameters.extend(u32::try_from(rate_bytes).unwrap_or(u32::MAX).to_ne_bytes());
    // No rate of peaks.
    parameters.extend([0; 12]);
    for number in [limit, 0, 0] {
        parameters.extend(number.to_ne_bytes());
    }
    let mut options = attribute(TCA_TBF_PARMS, &parameters);
    if rate_bytes >= u64::from(u32::MAX) {
        options.extend(attribute(TCA_TBF_RATE64, &rate_bytes.to_ne_bytes()));
    }
    options.extend(attribute(TCA_TBF_BURST, &burst.to_ne_bytes()));
    options
}

/// An attribute whose length is a multiple of 4, which all of ours are.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = (4 + value.len()) as u16;
    [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat()
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn is_missing(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_has_the_layout_of_the_kernel() {
        let options = bucket(80_000_000);
        // Length and kind, then struct tc_tbf_qopt: 36 bytes.
        assert_eq!(options[..4], [40, 0, 1, 0]);
        assert_eq!(options[12..16], 10_000_000_u32.to_ne_bytes());
        assert_eq!(options[28..32], 500_000_u32.to_ne_bytes());
        assert_eq!(options[40..44], [8, 0, 6, 0]);
        assert_eq!(options[44..], (128_u32 << 10).to_ne_bytes());
        assert_eq!(bucket(1 << 40).len(), options.len() + 12);
    }
}
