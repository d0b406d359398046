// SPDX-License-Identifier: GPL-2.0
//! A peer as people see it.

use super::super::abi::ioctl::LinkInfo;
use super::super::carrier::Carrier;
use super::PeerLink;

/// Through which device frames go, and to whom.
pub(crate) struct Route {
    /// Name of the network device.
    pub(crate) interface: [u8; 16],
    /// The peer's address there.
    pub(crate) address: [u8; 6],
}

/// State and counters of a peer and its link at one moment.
pub(crate) struct Look {
    /// The link's own; `rejected` does not include what is forged.
    pub(crate) info: LinkInfo,
    /// Whether the peer is up.
    pub(crate) up: bool,
    /// The newest incarnation that the peer was said to run with.
    pub(crate) incarnation: u32,
    /// The transport that is attached, `TRANSPORT_…`; 0 if there is none.
    pub(crate) transport: u32,
    /// Where the frames go, if they are raw Ethernet.
    pub(crate) route: Option<Route>,
    /// Records that were malformed, or whose sender may not speak for their source.
    pub(crate) forged: u64,
    /// Frames that were sent and that the peer may not have.
    pub(crate) in_flight: u32,
    /// Frames that wait to be sent.
    pub(crate) queued: u32,
    /// Records that wait for room in the link.
    pub(crate) backlog: usize,
    /// Parts of copies that are under way.
    pub(crate) copies: usize,
}

impl PeerLink {
    /// How the peer and its link are.
    pub(crate) fn look(&self) -> Look {
        let state = self.state.lock();
        let carrier = state.carrier.as_ref();
        Look {
            info: state.link.info(),
            up: state.link.peer_incarnation().is_some(),
            incarnation: state.newest,
            transport: carrier.map_or(0, Carrier::transport),
            route: carrier.and_then(Carrier::route).map(|(device, address)| Route {
                interface: device.name(),
                address: *address,
            }),
            forged: state.forged,
            in_flight: state.link.in_flight(),
            queued: state.link.queued(),
            backlog: state.backlog.len(),
            copies: self.transfers.len(),
        }
    }
}
