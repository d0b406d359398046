// SPDX-License-Identifier: GPL-2.0
//! The calls of the control device: they make this node part of a DVS and keep its tables of
//! containers, peers and remote endpoints as the control plane wants them.

use super::abi::errno::Errno;
#[cfg(CONFIG_DVK_TIPC)]
use super::abi::ioctl::TRANSPORT_TIPC;
use super::abi::ioctl::{
    self, EndpointInfo, LinkAttach, LinkInfo, Migrate, MigrateEnd, PromoteBackup, ProxyFrames,
    RemoteEndpoint, NODE_NONE, REMOTE_REPLICATED, TRANSPORT_ETHERNET, TRANSPORT_QUIC,
    TRANSPORT_TCP, TRANSPORT_UDP,
};
use super::abi::limits::{CONTAINERS, NODES};
use super::abi::Endpoint;
use super::carrier::{Carrier, FRAME_BYTES_MAX};
use super::container::{self, Container};
use super::dvs::{self, Dvs, Identity};
use super::local_port::Timeout;
use super::migration::{Passage, STATE_BYTES_MAX};
use super::peer::PeerLink;
use super::sys;
use super::uapi::{from_kernel, Argument, Memory};
use super::watch::ControlFile;
use core::num::NonZeroU32;
use kernel::prelude::*;
use kernel::str::CString;

/// Minor number of a container's device: 0 is the control device.
fn minor(container: u16) -> u32 {
    u32::from(container) + 1
}

fn node_id(node: u32) -> Result<u16, Errno> {
    if node < NODES {
        u16::try_from(node).map_err(|_| Errno::Invalid)
    } else {
        Err(Errno::Invalid)
    }
}

fn container_id(container: u32) -> Result<u16, Errno> {
    if container < CONTAINERS {
        u16::try_from(container).map_err(|_| Errno::Invalid)
    } else {
        Err(Errno::Invalid)
    }
}

/// Carries out a control call. Whoever was given the open file must be allowed, too.
// Not a part of the function through which every message goes, whose frame it would enlarge.
#[inline(never)]
pub(crate) fn ioctl(file: &ControlFile, cmd: u32, argument: Argument) -> Result<(), Errno> {
    if !sys::may_control() {
        return Err(Errno::NotPermitted);
    }
    let dvs = dvs::get()?;
    // These wait, for what other calls may have to end.
    match cmd {
        ioctl::EVENTS => return file.events(argument),
        ioctl::MIGRATE_START => return migrate_start(dvs, argument),
        ioctl::MIGRATE_COMMIT => return migrate_end(dvs, &argument.read()?, Container::commit),
        ioctl::MIGRATE_ROLLBACK => {
            return migrate_end(dvs, &argument.read()?, Container::roll_back)
        }
        ioctl::PROMOTE_BACKUP => return promote_backup(dvs, &argument.read()?),
        ioctl::LINK_ATTACH => {
            let block = argument.read()?;
            make_room(dvs, &block)?;
            let _serialised = dvs.control.lock();
            return link_attach(dvs, &block);
        }
        ioctl::PROXY_GET => return proxied(dvs, argument)?.proxy_get(argument),
        ioctl::PROXY_PUT => return proxied(dvs, argument)?.proxy_put(argument),
        _ => {}
    }
    let _serialised = dvs.control.lock();
    match cmd {
        ioctl::DVS_INIT => dvs_init(dvs, &argument.read()?),
        ioctl::DVS_END => dvs_end(dvs),
        ioctl::NODE_UP => node_up(dvs, &argument.read()?),
        ioctl::NODE_DOWN => node_down(dvs, &argument.read()?),
        ioctl::DC_CREATE => dc_create(dvs, &argument.read()?),
        ioctl::DC_DESTROY => dc_destroy(dvs, &argument.read()?),
        ioctl::DC_ADD_NODE => dc_add_node(dvs, &argument.read()?),
        ioctl::DC_REMOVE_NODE => dc_remove_node(dvs, &argument.read()?),
        ioctl::LINK_DETACH => peer(dvs, argument.read::<LinkAttach>()?.node)?.detach(),
        ioctl::LINK_INFO => {
            let block: LinkInfo = argument.read()?;
            argument.write(&peer(dvs, block.node)?.info())
        }
        ioctl::ENDPOINT_SET_REMOTE => endpoint_set_remote(dvs, &argument.read()?),
        ioctl::ENDPOINT_INFO => {
            dvs.identity()?;
            let mut block: EndpointInfo = argument.read()?;
            block.info = container(dvs, block.container)?.describe_next(block.slot)?;
            block.slot = Endpoint::from_raw(block.info.endpoint).slot();
            argument.write(&block)
        }
        _ => Err(Errno::NotACall),
    }
}

fn peer(dvs: &Dvs, node: u32) -> Result<kernel::sync::Arc<PeerLink>, Errno> {
    dvs.identity()?;
    dvs.peers.get(node_id(node)?).ok_or(Errno::NoDevice)
}

fn dvs_init(dvs: &Dvs, block: &ioctl::DvsInit) -> Result<(), Errno> {
    let node = node_id(block.node)?;
    if block.incarnation == 0 {
        return Err(Errno::Invalid);
    }
    if dvs.identity().is_ok() {
        return Err(Errno::Exists);
    }
    dvs.set_identity(Some(Identity {
        cluster: block.cluster,
        node,
        incarnation: block.incarnation,
    }));
    Ok(())
}

fn dvs_end(dvs: &Dvs) -> Result<(), Errno> {
    dvs.identity()?;
    while let Some(id) = dvs.containers.first() {
        destroy(dvs, id)?;
    }
    while let Some(node) = dvs.peers.first() {
        dvs.peers.remove(node)?.shutdown();
    }
    dvs.set_identity(None);
    Ok(())
}

fn node_up(dvs: &Dvs, block: &ioctl::Node) -> Result<(), Errno> {
    let identity = dvs.identity()?;
    let node = node_id(block.node)?;
    let incarnation = NonZeroU32::new(block.incarnation).ok_or(Errno::Invalid)?;
    if node == identity.node {
        return Err(Errno::Invalid);
    }
    let peer = match dvs.peers.get(node) {
        Some(peer) => peer,
        None => {
            let peer = PeerLink::new(identity, node)?;
            dvs.peers.add(node, peer.clone())?;
            peer
        }
    };
    peer.check_up(incarnation)?;
    // Whatever waits for an earlier incarnation never hears from it again.
    take_down(dvs, node, &peer);
    dvs.set_node_down(node, false);
    peer.up(incarnation);
    Ok(())
}

fn node_down(dvs: &Dvs, block: &ioctl::Node) -> Result<(), Errno> {
    let peer = peer(dvs, block.node)?;
    if !peer.is_up() {
        return Err(Errno::NoDevice);
    }
    take_down(dvs, node_id(block.node)?, &peer);
    Ok(())
}

fn take_down(dvs: &Dvs, node: u16, peer: &PeerLink) {
    peer.down();
    dvs.fail_waiters(node);
    dvs.set_node_down(node, true);
    peer.release_fences();
}

fn dc_create(dvs: &Dvs, block: &ioctl::Container) -> Result<(), Errno> {
    let identity = dvs.identity()?;
    let id = container_id(block.container)?;
    if block.reserved != 0 {
        return Err(Errno::Invalid);
    }
    let container = Container::new(id, identity.node, block).map_err(|_| Errno::NoMemory)?;
    dvs.containers.add(id, container)?;
    let name = CString::try_from_fmt(fmt!("dvk-dc{id}"));
    let added = name.and_then(|name| sys::add_device(minor(id), &name));
    added.map_err(|error| {
        // Nobody but this call knows it, unless by a device node that was made by hand.
        if let Ok(container) = dvs.containers.remove(id) {
            container.destroy();
        }
        from_kernel(error)
    })
}

fn dc_destroy(dvs: &Dvs, block: &ioctl::Container) -> Result<(), Errno> {
    dvs.identity()?;
    destroy(dvs, container_id(block.container)?)
}

fn destroy(dvs: &Dvs, id: u16) -> Result<(), Errno> {
    let container = dvs.containers.remove(id)?;
    sys::remove_device(minor(id));
    container.destroy();
    Ok(())
}

fn dc_add_node(dvs: &Dvs, block: &ioctl::Lease) -> Result<(), Errno> {
    dvs.identity()?;
    if block.reserved != 0 {
        return Err(Errno::Invalid);
    }
    let node = node_id(block.node)?;
    let lease = container::lease(node, block.first_slot, block.slots, block.first_generation)?;
    container(dvs, block.container)?.lease(lease)
}

fn dc_remove_node(dvs: &Dvs, block: &ioctl::Lease) -> Result<(), Errno> {
    dvs.identity()?;
    container(dvs, block.container)?.remove_node(node_id(block.node)?)
}

fn container(dvs: &Dvs, id: u32) -> Result<kernel::sync::Arc<Container>, Errno> {
    dvs.containers.get(container_id(id)?).ok_or(Errno::NoDevice)
}

/// Prepares a link for the transport that it is to have. What is wrong with that is for
/// [`link_attach`] to say.
fn make_room(dvs: &Dvs, block: &LinkAttach) -> Result<(), Errno> {
    let frame_bytes = match block.transport {
        TRANSPORT_ETHERNET => sys::NetDevice::get(block.interface).map(|device| device.mtu()),
        _ => Some(frame_bytes(block)),
    };
    match frame_bytes {
        Some(bytes) => peer(dvs, block.node)?.narrow(bytes),
        None => Ok(()),
    }
}

/// The longest frame of a transport that is told it.
fn frame_bytes(block: &LinkAttach) -> usize {
    match block.frame_bytes {
        0 => FRAME_BYTES_MAX,
        bytes => FRAME_BYTES_MAX.min(bytes as usize),
    }
}

fn link_attach(dvs: &Dvs, block: &LinkAttach) -> Result<(), Errno> {
    let peer = peer(dvs, block.node)?;
    match block.transport {
        TRANSPORT_ETHERNET => {
            let [a, b, c, d, e, f, 0, 0] = block.address else { return Err(Errno::Invalid) };
            if block.frame_bytes != 0 {
                return Err(Errno::Invalid);
            }
            let _held = sys::DevicesHeld::new();
            let device = sys::NetDevice::get(block.interface).ok_or(Errno::NoDevice)?;
            peer.attach(Carrier::Ethernet { device, address: [a, b, c, d, e, f] })
        }
        transport @ (TRANSPORT_TCP | TRANSPORT_UDP | TRANSPORT_QUIC) => {
            if block.address != [0; 8] || block.interface != 0 {
                return Err(Errno::Invalid);
            }
            peer.attach(Carrier::Proxy { transport, frame_bytes: frame_bytes(block) })
        }
        #[cfg(CONFIG_DVK_TIPC)]
        TRANSPORT_TIPC => {
            if block.address != [0; 8] || block.interface != 0 {
                return Err(Errno::Invalid);
            }
            let carrier = peer.tipc(dvs.identity()?, frame_bytes(block))?;
            peer.attach(carrier)
        }
        _ => Err(Errno::Invalid),
    }
}

/// The link that a proxy's block names.
fn proxied(dvs: &Dvs, argument: Argument) -> Result<kernel::sync::Arc<PeerLink>, Errno> {
    peer(dvs, argument.read::<ProxyFrames>()?.node)
}

fn endpoint_set_remote(dvs: &Dvs, block: &RemoteEndpoint) -> Result<(), Errno> {
    dvs.identity()?;
    if block.flags & !REMOTE_REPLICATED != 0 || block.reserved != 0 {
        return Err(Errno::Invalid);
    }
    let replicated = block.flags & REMOTE_REPLICATED != 0;
    let node = if block.node == NODE_NONE { None } else { Some(node_id(block.node)?) };
    let endpoint = Endpoint::from_raw(block.endpoint);
    container(dvs, block.container)?.set_remote(endpoint, node, replicated)
}

fn migrate_start(dvs: &Dvs, argument: Argument) -> Result<(), Errno> {
    let identity = dvs.identity()?;
    let mut block: Migrate = argument.read()?;
    let container = container(dvs, block.container)?;
    let passage = Passage {
        endpoint: Endpoint::from_raw(block.endpoint),
        from: node_id(block.source)?,
        to: node_id(block.destination)?,
        epoch: block.epoch,
    };
    let timeout = Timeout::from_ns(block.timeout_ns);
    if passage.from == passage.to {
        return Err(Errno::Invalid);
    }
    if passage.from == identity.node {
        let state = container.start_leaving(&passage, timeout)?;
        let room = block.state_len;
        block.state_len = state.len() as u64;
        if room < block.state_len {
            argument.write(&block)?;
            return Err(Errno::TooLong);
        }
        Memory(block.state).write(&state)?;
        return argument.write(&block);
    }
    let state = if passage.to == identity.node {
        let len = usize::try_from(block.state_len).map_err(|_| Errno::Invalid)?;
        if len > STATE_BYTES_MAX {
            return Err(Errno::Invalid);
        }
        Some(Memory(block.state).read(len)?)
    } else {
        None
    };
    container.start_elsewhere(&passage, state.as_deref(), timeout)
}

fn migrate_end(
    dvs: &Dvs,
    block: &MigrateEnd,
    end: impl FnOnce(&Container, Endpoint, u32) -> Result<(), Errno>,
) -> Result<(), Errno> {
    dvs.identity()?;
    let container = container(dvs, block.container)?;
    end(&container, Endpoint::from_raw(block.endpoint), block.epoch)
}

fn promote_backup(dvs: &Dvs, block: &PromoteBackup) -> Result<(), Errno> {
    dvs.identity()?;
    if block.reserved != 0 {
        return Err(Errno::Invalid);
    }
    let container = container(dvs, block.container)?;
    container.promote(Endpoint::from_raw(block.endpoint), node_id(block.node)?, block.epoch)
}
