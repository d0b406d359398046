// SPDX-License-Identifier: MIT OR Apache-2.0
//! The DVS that programs find: containers, leases, nodes and links. Programs spoil it; this mends it.

use core::sync::atomic::Ordering::Relaxed;
use std::fs::File;

use anyhow::{Context, Result};
use dvk_abi::ioctl::{
    Container, DvsInit, Lease, LinkAttach, LinkInfo, Node, DC_ADD_NODE, DC_CREATE, DVS_END,
    DVS_INIT, LINK_ATTACH, LINK_DOWN, LINK_INFO, NODE_UP, TRANSPORT_ETHERNET,
};
use dvk_fuzz::program::{lease_slot, CONTAINERS, GENERATION, LEASED, NARROW, NODES};

use super::board::Board;

/// The cluster of all frames.
pub(crate) const CLUSTER: u64 = 1;

/// The control device.
pub(crate) fn control() -> Result<File> {
    File::options()
        .read(true)
        .write(true)
        .open("/dev/dvk")
        .context("opening /dev/dvk; it takes a kernel with the DVK, and root")
}

/// Makes what is missing. Errors say that something is there, or that somebody else undoes it at
/// this moment.
pub(crate) fn mend(control: &File, board: &Board) {
    let mut init = DvsInit { cluster: CLUSTER, node: 0, incarnation: 1 };
    let _ = dvk::raw::call::<DVS_INIT, _>(control, &mut init);
    for container in 0..CONTAINERS - 1 {
        let narrow = container >= NARROW;
        let mut block = Container {
            container,
            max_endpoints: if narrow { 12 } else { 0 },
            max_grants: if narrow { 12 } else { 0 },
            max_bytes: if narrow { 64 << 10 } else { 0 },
            ..Container::default()
        };
        let _ = dvk::raw::call::<DC_CREATE, _>(control, &mut block);
        for node in 0..NODES {
            let mut lease = Lease {
                container,
                node,
                first_slot: lease_slot(node),
                slots: LEASED,
                first_generation: GENERATION,
                reserved: 0,
            };
            let _ = dvk::raw::call::<DC_ADD_NODE, _>(control, &mut lease);
        }
    }
    // The last node stays down.
    for node in 1..NODES - 1 {
        let mut info = LinkInfo { node, ..LinkInfo::default() };
        let known = dvk::raw::call::<LINK_INFO, _>(control, &mut info).is_ok();
        if !known || info.state == LINK_DOWN && info.transport == 0 {
            let incarnation = board.incarnation.fetch_add(1, Relaxed) + 1;
            let _ = dvk::raw::call::<NODE_UP, _>(control, &mut Node { node, incarnation });
        }
        if !known || info.transport == 0 {
            let interface = board.interfaces[node as usize - 1].load(Relaxed);
            let address = [2, 0, 0, 0, 0, node as u8, 0, 0];
            let transport = TRANSPORT_ETHERNET;
            let mut block = LinkAttach { node, transport, interface, frame_bytes: 0, address };
            let _ = dvk::raw::call::<LINK_ATTACH, _>(control, &mut block);
        }
    }
}

/// Leaves the DVS.
pub(crate) fn end(control: &File) {
    // That this node was in none is fine.
    let _ = dvk::raw::call_bare::<DVS_END>(control);
}
