// SPDX-License-Identifier: GPL-2.0
//! The tables under `/sys/kernel/debug/dvk`: which rows there are, and what is in them.
//!
//! A row is found by a number, and written when it is its turn; in between it may have gone. Every
//! lock is held for as long as it takes to copy the facts of one row, and none while they are
//! written: so a table may be long, and whoever reads it slow.

use super::abi::ioctl::LINK_DOWN;
use super::abi::Endpoint;
use super::container::Container;
use super::dvs::{self, Dvs, Registry};
use super::peer::look::{Look, Route};
use super::peer::PeerLink;
use super::rules::report::{
    self, Cell, Table, CONTAINERS, DVS as NODE_ITSELF, ENDPOINTS, LINKS, NODES,
};
use super::sys::SeqFile;
use core::fmt;
use kernel::sync::Arc;

/// One of the tables.
#[derive(Clone, Copy)]
pub(crate) enum File {
    Dvs,
    Nodes,
    Links,
    Containers,
    Endpoints,
}

impl File {
    /// All of them.
    pub(crate) const ALL: [Self; 5] =
        [Self::Dvs, Self::Nodes, Self::Links, Self::Containers, Self::Endpoints];

    /// Its name.
    pub(crate) fn name(self) -> &'static core::ffi::CStr {
        match self {
            Self::Dvs => NODE_ITSELF.name,
            Self::Nodes => NODES.name,
            Self::Links => LINKS.name,
            Self::Containers => CONTAINERS.name,
            Self::Endpoints => ENDPOINTS.name,
        }
    }

    /// The number of the first row from `from` on. That of the head is 0.
    pub(crate) fn find(self, from: u64) -> Option<u64> {
        let Some(from) = from.checked_sub(1) else { return Some(0) };
        let dvs = dvs::get().ok()?;
        let found = match self {
            Self::Dvs => (from == 0).then_some(0),
            Self::Nodes => find_node(dvs, from),
            Self::Links => next(&dvs.peers, from).map(|(node, _)| node.into()),
            Self::Containers => next(&dvs.containers, from).map(|(id, _)| id.into()),
            Self::Endpoints => find_endpoint(dvs, from),
        };
        found.map(|row| row + 1)
    }

    /// Writes a row, unless what it was about is gone.
    pub(crate) fn write(self, row: u64, mut out: SeqFile<'_>) -> Option<()> {
        let out = &mut out;
        let Some(row) = row.checked_sub(1) else {
            let written = match self {
                Self::Dvs => NODE_ITSELF.write_head(out),
                Self::Nodes => NODES.write_head(out),
                Self::Links => LINKS.write_head(out),
                Self::Containers => CONTAINERS.write_head(out),
                Self::Endpoints => ENDPOINTS.write_head(out),
            };
            return written.ok();
        };
        let dvs = dvs::get().ok()?;
        let written = match self {
            Self::Dvs => write_dvs(dvs, out),
            Self::Nodes => write_node(dvs, row, out)?,
            Self::Links => write_link(row, &*at(&dvs.peers, row)?, out),
            Self::Containers => write_container(&*at(&dvs.containers, row)?, out),
            Self::Endpoints => write_endpoint(dvs, row, out)?,
        };
        written.ok()
    }
}

/// The first object whose number is not below `from`.
fn next<T>(registry: &Registry<T>, from: u64) -> Option<(u16, Arc<T>)> {
    registry.next(u32::try_from(from).ok()?)
}

/// The object with this number.
fn at<T>(registry: &Registry<T>, number: u64) -> Option<Arc<T>> {
    registry.get(u16::try_from(number).ok()?)
}

/// This node is in the table, in its place between its peers.
fn find_node(dvs: &Dvs, from: u64) -> Option<u64> {
    let itself = dvs.identity().ok().map(|identity| u64::from(identity.node));
    let peer = next(&dvs.peers, from).map(|(node, _)| u64::from(node));
    match (itself.filter(|node| *node >= from), peer) {
        (Some(itself), Some(peer)) => Some(itself.min(peer)),
        (itself, peer) => itself.or(peer),
    }
}

/// The row of an endpoint: rows are in the order of containers and slots.
fn endpoint_row(container: u16, slot: u32) -> u64 {
    u64::from(container) << 16 | u64::from(slot)
}

fn find_endpoint(dvs: &Dvs, from: u64) -> Option<u64> {
    let mut from = from;
    loop {
        let (id, container) = next(&dvs.containers, from >> 16)?;
        // In a container behind the one that the number names, all slots are of interest.
        let slot = from.saturating_sub(endpoint_row(id, 0)) as u32;
        if let Ok(info) = container.describe_next(slot) {
            return Some(endpoint_row(id, Endpoint::from_raw(info.endpoint).slot()));
        }
        from = (u64::from(id) + 1) << 16;
    }
}

fn write_dvs(dvs: &Dvs, out: &mut SeqFile<'_>) -> fmt::Result {
    let identity = dvs.identity().ok();
    let number = |number: Option<u64>| number.map_or(Cell::Nothing, Cell::Number);
    NODE_ITSELF.write_row(
        out,
        [
            number(identity.map(|identity| identity.node.into())),
            identity.map_or(Cell::Nothing, |identity| Cell::Bits(identity.cluster)),
            number(identity.map(|identity| identity.incarnation.into())),
            Cell::Number(super::versions().min.into()),
            Cell::Number(super::versions().max.into()),
            Cell::Number(dvs.containers.len() as u64),
            Cell::Number(dvs.peers.len() as u64),
            Cell::Number(dvs.malformed.count()),
            Cell::Number(dvs.strangers.count()),
        ],
    )
}

fn write_node(dvs: &Dvs, node: u64, out: &mut SeqFile<'_>) -> Option<fmt::Result> {
    let itself = dvs.identity().ok().filter(|identity| u64::from(identity.node) == node);
    let (state, incarnation) = match itself {
        Some(identity) => ("self", identity.incarnation),
        None => {
            let look = at(&dvs.peers, node)?.look();
            (if look.up { "up" } else { "down" }, look.incarnation)
        }
    };
    let cells = [Cell::Number(node), Cell::Word(state), Cell::unless_0(incarnation.into())];
    Some(NODES.write_row(out, cells))
}

fn write_link(node: u64, peer: &PeerLink, out: &mut SeqFile<'_>) -> fmt::Result {
    let Look { info, transport, route, forged, in_flight, queued, backlog, copies, .. } = peer.look();
    let [interface, address] = match &route {
        None => [Cell::Nothing; 2],
        Some(Route { interface, address }) => [Cell::Text(interface), Cell::Address(*address)],
    };
    let transport = report::transport(transport).map_or(Cell::Nothing, Cell::Word);
    // A link that is down measures nothing.
    let rtt_us = if info.state == LINK_DOWN { 0 } else { info.rtt_us };
    LINKS.write_row(
        out,
        [
            Cell::Number(node),
            transport,
            interface,
            address,
            Cell::Word(report::link_state(info.state)),
            Cell::unless_0(rtt_us.into()),
            Cell::Number(info.frames_sent),
            Cell::Number(info.frames_received),
            Cell::Number(info.bytes_sent),
            Cell::Number(info.bytes_received),
            Cell::Number(info.retransmissions),
            Cell::Number(info.duplicates),
            Cell::Number(info.rejected),
            Cell::Number(forged),
            Cell::Number(in_flight.into()),
            Cell::Number(queued.into()),
            Cell::Number(backlog as u64),
            Cell::Number(copies as u64),
        ],
    )
}

fn write_container(container: &Container, out: &mut SeqFile<'_>) -> fmt::Result {
    let (bound, max_bound) = container.bound().unwrap_or_default();
    let (grants, bytes) = container.limits().used();
    CONTAINERS.write_row(
        out,
        [
            Cell::Number(container.id().into()),
            Cell::Number(bound.into()),
            Cell::Number(max_bound.into()),
            Cell::Number(grants.taken),
            Cell::Number(grants.most),
            Cell::Number(bytes.taken),
            if bytes.is_unlimited() { Cell::Nothing } else { Cell::Number(bytes.most) },
            Cell::Text(container.name()),
        ],
    )
}

fn write_endpoint(dvs: &Dvs, row: u64, out: &mut SeqFile<'_>) -> Option<fmt::Result> {
    let (id, slot) = (row >> 16, (row & 0xffff) as u32);
    let container = at(&dvs.containers, id)?;
    let info = container.describe_next(slot).ok()?;
    let endpoint = Endpoint::from_raw(info.endpoint);
    if endpoint.slot() != slot {
        return None;
    }
    let place = [
        Cell::Number(id),
        Cell::Number(slot.into()),
        Cell::Number(endpoint.generation().into()),
        Cell::Number(info.node.into()),
    ];
    // Of an endpoint on another node this one knows where it is, and no more.
    let rest = if info.node != u32::from(container.local()) {
        [Cell::Nothing; 10]
    } else {
        [
            Cell::Word(report::endpoint_role(info.role)),
            Cell::Word(report::endpoint_state(info.state)),
            Cell::Endpoint(Endpoint::from_raw(info.waits_for)),
            Cell::Number(info.senders.into()),
            Cell::Number(info.clients.into()),
            Cell::Number(info.notices.into()),
            Cell::Number(info.grants.into()),
            Cell::Number(info.received),
            Cell::Number(info.sent),
            Cell::Number(info.epoch.into()),
        ]
    };
    let mut cells = [Cell::Nothing; 14];
    cells[..4].copy_from_slice(&place);
    cells[4..].copy_from_slice(&rest);
    Some(Table::write_row(&ENDPOINTS, out, cells))
}
