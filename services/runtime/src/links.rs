// SPDX-License-Identifier: MIT OR Apache-2.0
//! The links of a container's network: its own end, and what there is of it on the node.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;

use anyhow::{Context, Result};
use netlink_packet_route::link::{
    InfoBridge, InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkMessage,
};

use nix::sched::{setns, CloneFlags};

use crate::netlink::Netlink;
use crate::network::{Network, Overlay, INSIDE};

/// The port of RFC 7348.
const PORT: u16 = 4789;

/// What VXLAN puts around a packet: IPv6 or IPv4, UDP, its own header, and the Ethernet header of the packet.
const AROUND_IPV6: u32 = 40 + 8 + 8 + 14;
const AROUND_IPV4: u32 = 20 + 8 + 8 + 14;

/// Settings of a link by which the node would take part in the network of a container: it would give itself an address, answer for its
/// other addresses, and take packets whose answers go elsewhere (Documentation/networking/ip-sysctl.rst).
const APART: [(&str, &str, &str); 3] =
    [("ipv6", "disable_ipv6", "1"), ("ipv4", "arp_ignore", "8"), ("ipv4", "rp_filter", "1")];

/// Makes what there is of a network on the node, with the other end of the pair in the network namespace of the process `pid`.
///
/// # Errors
/// When the kernel refuses; then some of it may be there.
pub(crate) fn make(network: &Network, pid: u32) -> Result<()> {
    let mut netlink = Netlink::open()?;
    let mtu = match (&network.overlay, network.mtu) {
        (_, Some(mtu)) => Some(mtu),
        (Some(overlay), None) => Some(room(overlay)?),
        (None, None) => None,
    };
    let pair = network.pair();
    let mut inside = LinkMessage::default();
    inside.attributes.push(LinkAttribute::IfName(INSIDE.to_owned()));
    inside.attributes.push(LinkAttribute::NetNsPid(pid));
    inside.attributes.extend(mtu.map(LinkAttribute::Mtu));
    let peer = InfoData::Veth(InfoVeth::Peer(inside));
    netlink.make(&pair, InfoKind::Veth, Some(peer), mtu)?;
    keep_apart(&pair)?;
    netlink.set_limit(&pair, network.rate)?;
    if let Some(overlay) = &network.overlay {
        span(&mut netlink, network, overlay, mtu)?;
    }
    netlink.up(&pair)
}

fn span(
    netlink: &mut Netlink,
    network: &Network,
    overlay: &Overlay,
    mtu: Option<u32>,
) -> Result<()> {
    let (bridge, tunnel) = (network.bridge(), network.tunnel());
    // Who listens to which groups is not looked at: neighbours are asked for by such frames, and a network of a few needs no pruning.
    let settings = InfoData::Bridge(vec![InfoBridge::MulticastSnooping(false)]);
    netlink.make(&bridge, InfoKind::Bridge, Some(settings), mtu)?;
    keep_apart(&bridge)?;
    let settings = vec![
        InfoVxlan::Id(overlay.id),
        InfoVxlan::Link(netlink.index(&overlay.interface)?),
        match overlay.local {
            IpAddr::V4(local) => InfoVxlan::Local(local),
            IpAddr::V6(local) => InfoVxlan::Local6(local),
        },
        InfoVxlan::Port(PORT),
        InfoVxlan::Learning(true),
    ];
    netlink.make(&tunnel, InfoKind::Vxlan, Some(InfoData::Vxlan(settings)), mtu)?;
    keep_apart(&tunnel)?;
    for peer in &overlay.peers {
        netlink.add_peer(&tunnel, *peer, &overlay.interface)?;
    }
    for link in [&network.pair(), &tunnel] {
        netlink.put_into(link, &bridge)?;
    }
    netlink.up(&tunnel)?;
    netlink.up(&bridge)
}

/// The longest packet that fits into one of the node's.
fn room(overlay: &Overlay) -> Result<u32> {
    let path = format!("/sys/class/net/{}/mtu", overlay.interface);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let mtu: u32 = text.trim().parse().with_context(|| format!("reading {path}"))?;
    let around = if overlay.local.is_ipv4() { AROUND_IPV4 } else { AROUND_IPV6 };
    Ok(mtu.saturating_sub(around))
}

fn keep_apart(link: &str) -> Result<()> {
    for (family, setting, value) in APART {
        let path = format!("/proc/sys/net/{family}/conf/{link}/{setting}");
        match fs::write(&path, value) {
            // A kernel without this family has nothing to be kept apart.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            other => other.with_context(|| format!("writing {value} into {path}"))?,
        }
    }
    Ok(())
}

/// Gives a network another rate and other peers. `pid` is the container's first process.
///
/// # Errors
/// When the kernel refuses; then some of it may be changed.
pub(crate) fn change(old: &Network, new: &Network, pid: i32) -> Result<()> {
    let mut netlink = Netlink::open()?;
    if let (Some(before), Some(after)) = (&old.overlay, &new.overlay) {
        let tunnel = new.tunnel();
        for peer in before.peers.iter().filter(|peer| !after.peers.contains(peer)) {
            netlink.remove_peer(&tunnel, *peer, &before.interface)?;
        }
        for peer in after.peers.iter().filter(|peer| !before.peers.contains(peer)) {
            netlink.add_peer(&tunnel, *peer, &after.interface)?;
        }
    }
    if new.rate == old.rate {
        return Ok(());
    }
    netlink.set_limit(&new.pair(), new.rate)?;
    let path = format!("/proc/{pid}/ns/net");
    let namespace = fs::File::open(&path).with_context(|| format!("opening {path}"))?;
    setns(namespace, CloneFlags::CLONE_NEWNET).context("entering the container's net namespace")?;
    Netlink::open()?.set_limit(INSIDE, new.rate)
}

/// Removes what there is of a network on the node.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn remove(network: &Network) -> Result<()> {
    let mut netlink = Netlink::open()?;
    for link in [network.pair(), network.tunnel(), network.bridge()] {
        netlink.remove(&link)?;
    }
    Ok(())
}

/// Sets up the container's ends, in its network namespace.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn set_up(network: Option<&Network>) -> Result<()> {
    let mut netlink = Netlink::open()?;
    netlink.up("lo")?;
    let Some(network) = network else { return Ok(()) };
    for address in &network.addresses {
        netlink.add_address(INSIDE, *address)?;
    }
    netlink.set_limit(INSIDE, network.rate)?;
    netlink.up(INSIDE)?;
    for gateway in &network.gateways {
        netlink.add_gateway(INSIDE, *gateway)?;
    }
    Ok(())
}
