// SPDX-License-Identifier: MIT OR Apache-2.0
//! The control device: what makes a node part of a DVS, and containers part of the node.

use crate::device::open;
use crate::error::{Call, Error, Subject};
use crate::sys::{self, Block};
use crate::timeout::Timeout;
use dvk_abi::errno::Errno;
use dvk_abi::ioctl::{self, DvsInit, Event, Info, Lease, LinkInfo};
use dvk_abi::limits::NAME_BYTES;
use dvk_abi::Endpoint;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// How the traffic with a node is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// By frames of the DVK's own Ethernet type.
    Ethernet {
        /// Index of the local network interface.
        interface: u32,
        /// The peer's MAC address.
        address: [u8; 6],
    },
    /// By TIPC, whose bearers lead to the node.
    Tipc {
        /// The longest frame, in bytes; 0 for the longest there is.
        frame_bytes: u32,
    },
    /// By a program that uses [`Control::proxy_get`] and [`Control::proxy_put`].
    Proxy {
        /// What it speaks.
        protocol: Protocol,
        /// The longest frame that it carries, in bytes; 0 for the longest there is.
        frame_bytes: u32,
    },
}

/// What a proxy speaks. The kernel treats all alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// QUIC.
    Quic,
}

impl Protocol {
    /// The value of [`LinkInfo::transport`] and [`LinkAttach::transport`](ioctl::LinkAttach).
    pub const fn number(self) -> u32 {
        match self {
            Self::Tcp => ioctl::TRANSPORT_TCP,
            Self::Udp => ioctl::TRANSPORT_UDP,
            Self::Quic => ioctl::TRANSPORT_QUIC,
        }
    }
}

/// What the endpoints of a container that are bound on one node may take of it at once. 0, which
/// is the default, stands for the ABI's own limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Endpoints.
    pub endpoints: u32,
    /// Grants, of all endpoints together.
    pub grants: u32,
    /// Bytes of bulk data between nodes, or pinned for it.
    pub bytes: u64,
}

/// State of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkState {
    /// There is no transport, or the node is down.
    Down,
    /// The two ends have not greeted each other yet.
    Connecting,
    /// Messages flow.
    Up,
    /// One that this version of the library does not know.
    Other(u32),
}

impl LinkState {
    /// The state in `info`.
    pub fn of(info: &LinkInfo) -> Self {
        match info.state {
            ioctl::LINK_DOWN => Self::Down,
            ioctl::LINK_CONNECTING => Self::Connecting,
            ioctl::LINK_UP => Self::Up,
            other => Self::Other(other),
        }
    }
}

/// The open control device: the administrator's part of the papers' DVK interface (Pessolani et al.
/// 2018, III-C), which maps nodes to the DVS, containers to nodes and links to nodes. The original's
/// names are `dvs_init`, `add_node`, `node_up`, `dc_init` and so on; its proxies are links here.
///
/// Every call needs `CAP_SYS_ADMIN` in the initial user namespace, else it is `EPERM`. All but
/// [`dvs_init`](Self::dvs_init) are `ENODEV` on a node that is in no DVS.
#[derive(Debug)]
pub struct Control {
    pub(crate) file: OwnedFd,
}

impl Control {
    /// Opens `/dev/dvk`, close-on-exec.
    ///
    /// # Errors
    /// Those of `open(2)`.
    pub fn open() -> Result<Self, Error> {
        Self::open_at("/dev/dvk")
    }

    /// Opens the control device at `path`, close-on-exec.
    ///
    /// # Errors
    /// Those of `open(2)`.
    pub fn open_at(path: impl AsRef<Path>) -> Result<Self, Error> {
        Ok(Self { file: open(path.as_ref())? })
    }

    /// Makes this node part of a DVS.
    ///
    /// # Errors
    /// `EEXIST` if it is part of one, `EINVAL` for a node id out of range or incarnation 0.
    pub fn dvs_init(&self, init: &DvsInit) -> Result<(), Error> {
        let mut block = *init;
        let subject = Subject::Node(init.node);
        self.call::<{ ioctl::DVS_INIT }, _>(Call::DvsInit, subject, None, &mut block)
    }

    /// Leaves the DVS: every container is destroyed and every node is down.
    ///
    /// # Errors
    /// None but those named for every call.
    pub fn dvs_end(&self) -> Result<(), Error> {
        sys::call_bare::<{ ioctl::DVS_END }>(&self.file).map_err(|errno| Error {
            call: Call::DvsEnd,
            subject: Subject::None,
            container: None,
            errno,
        })
    }

    /// Says that peer `node` runs, with this incarnation (not 0, higher at every boot of it).
    ///
    /// # Errors
    /// `EINVAL` for a node id out of range, this node's own, or incarnation 0; `ESTALE` for an
    /// incarnation below the last one.
    pub fn node_up(&self, node: u32, incarnation: u32) -> Result<(), Error> {
        let mut block = ioctl::Node { node, incarnation };
        self.call::<{ ioctl::NODE_UP }, _>(Call::NodeUp, Subject::Node(node), None, &mut block)
    }

    /// Says that peer `node` is gone: whoever waits for an endpoint there gets `EHOSTUNREACH`.
    ///
    /// # Errors
    /// `ENODEV` if it is not up.
    pub fn node_down(&self, node: u32) -> Result<(), Error> {
        let mut block = ioctl::Node { node, incarnation: 0 };
        self.call::<{ ioctl::NODE_DOWN }, _>(Call::NodeDown, Subject::Node(node), None, &mut block)
    }

    /// Makes a container and its device node. `name` is for people.
    ///
    /// # Errors
    /// `EEXIST` if there is one of this id, `EINVAL` for an id out of range or a name of more than
    /// 32 bytes.
    pub fn dc_create(&self, container: u32, name: &str, limits: Limits) -> Result<(), Error> {
        let name = padded(name).ok_or(Error {
            call: Call::DcCreate,
            subject: Subject::None,
            container: Some(container),
            errno: rustix::io::Errno::INVAL,
        })?;
        let mut block = ioctl::Container {
            container,
            max_endpoints: limits.endpoints,
            name,
            max_grants: limits.grants,
            max_bytes: limits.bytes,
            ..ioctl::Container::default()
        };
        self.call::<{ ioctl::DC_CREATE }, _>(
            Call::DcCreate,
            Subject::None,
            Some(container),
            &mut block,
        )
    }

    /// Destroys a container: every endpoint in it dies.
    ///
    /// # Errors
    /// `ENODEV` if there is none of this id.
    pub fn dc_destroy(&self, container: u32) -> Result<(), Error> {
        let mut block = ioctl::Container { container, ..ioctl::Container::default() };
        self.call::<{ ioctl::DC_DESTROY }, _>(
            Call::DcDestroy,
            Subject::None,
            Some(container),
            &mut block,
        )
    }

    /// Says that a container spans a node, and which slots that node may bind.
    ///
    /// # Errors
    /// `ENODEV` for an unknown container, `EINVAL` for slots out of range or not in whole blocks,
    /// `EBUSY` if another node holds some of them.
    pub fn dc_add_node(&self, lease: &Lease) -> Result<(), Error> {
        let mut block = *lease;
        self.call::<{ ioctl::DC_ADD_NODE }, _>(
            Call::DcAddNode,
            Subject::Node(lease.node),
            Some(lease.container),
            &mut block,
        )
    }

    /// Says that a container no longer spans a node; the node's leases end.
    ///
    /// # Errors
    /// `ENODEV` for an unknown container.
    pub fn dc_remove_node(&self, container: u32, node: u32) -> Result<(), Error> {
        let mut block = Lease { container, node, ..Lease::default() };
        self.call::<{ ioctl::DC_REMOVE_NODE }, _>(
            Call::DcRemoveNode,
            Subject::Node(node),
            Some(container),
            &mut block,
        )
    }

    /// Carries the traffic with a node over `transport`.
    ///
    /// # Errors
    /// `ENODEV` for a node that was never up or an unknown interface, `EMSGSIZE` for frames that are
    /// too short for the protocol.
    pub fn link_attach(&self, node: u32, transport: Transport) -> Result<(), Error> {
        let mut block = ioctl::LinkAttach { node, ..ioctl::LinkAttach::default() };
        match transport {
            Transport::Ethernet { interface, address } => {
                block.transport = ioctl::TRANSPORT_ETHERNET;
                block.interface = interface;
                block.address[..6].copy_from_slice(&address);
            }
            Transport::Tipc { frame_bytes } => {
                block.transport = ioctl::TRANSPORT_TIPC;
                block.frame_bytes = frame_bytes;
            }
            Transport::Proxy { protocol, frame_bytes } => {
                block.transport = protocol.number();
                block.frame_bytes = frame_bytes;
            }
        }
        let subject = Subject::Node(node);
        self.call::<{ ioctl::LINK_ATTACH }, _>(Call::LinkAttach, subject, None, &mut block)
    }

    /// Stops carrying traffic with a node.
    ///
    /// # Errors
    /// `ENOTCONN` if no link to it is attached.
    pub fn link_detach(&self, node: u32) -> Result<(), Error> {
        let mut block = ioctl::LinkAttach { node, ..ioctl::LinkAttach::default() };
        let subject = Subject::Node(node);
        self.call::<{ ioctl::LINK_DETACH }, _>(Call::LinkDetach, subject, None, &mut block)
    }

    /// State and counters of the link to a node; [`LinkState::of`] reads the state.
    ///
    /// # Errors
    /// `ENODEV` if the node is unknown.
    pub fn link_info(&self, node: u32) -> Result<LinkInfo, Error> {
        let mut block = LinkInfo { node, ..LinkInfo::default() };
        let subject = Subject::Node(node);
        self.call::<{ ioctl::LINK_INFO }, _>(Call::LinkInfo, subject, None, &mut block)?;
        Ok(block)
    }

    /// Says that `endpoint` of `container` lives on another node.
    ///
    /// # Errors
    /// `ENODEV` for an unknown container, `ESTALE` if a higher generation of the slot is known,
    /// `EBUSY` if the slot is bound here, or the same generation on a third node; `EINVAL` for a
    /// value that names nobody, or this node.
    pub fn endpoint_set_remote(
        &self,
        container: u32,
        endpoint: Endpoint,
        node: u32,
    ) -> Result<(), Error> {
        let mut block = ioctl::RemoteEndpoint {
            endpoint: endpoint.raw(),
            container,
            node,
            ..ioctl::RemoteEndpoint::default()
        };
        self.call::<{ ioctl::ENDPOINT_SET_REMOTE }, _>(
            Call::EndpointSetRemote,
            Subject::To(endpoint),
            Some(container),
            &mut block,
        )
    }

    /// Forgets where `endpoint` of `container` lives: from here on it is dead.
    ///
    /// # Errors
    /// `ENODEV` for an unknown container, `ESRCH` if the endpoint is not known as a remote one.
    pub fn endpoint_forget(&self, container: u32, endpoint: Endpoint) -> Result<(), Error> {
        self.endpoint_set_remote(container, endpoint, ioctl::NODE_NONE)
    }

    /// What this node knows of the first endpoint of `container` from `slot` up, or `None` if
    /// there is none. Of endpoints on other nodes it knows where they are.
    ///
    /// # Errors
    /// `ENODEV` for an unknown container.
    pub fn endpoint_info(&self, container: u32, slot: u32) -> Result<Option<Info>, Error> {
        let mut block = ioctl::EndpointInfo { container, slot, ..Default::default() };
        let called = self.call::<{ ioctl::ENDPOINT_INFO }, _>(
            Call::EndpointInfo,
            Subject::Number(slot),
            Some(container),
            &mut block,
        );
        match called {
            Ok(()) => Ok(Some(block.info)),
            Err(error) if error.is(Errno::NoEndpoint) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All endpoints of `container` that this node knows, in the order of their slots. They may
    /// come and go meanwhile.
    ///
    /// # Errors
    /// `ENODEV` for an unknown container.
    pub fn endpoints(&self, container: u32) -> Result<Vec<Info>, Error> {
        let mut found = Vec::new();
        let mut slot = 0;
        while let Some(info) = self.endpoint_info(container, slot)? {
            slot = Endpoint::from_raw(info.endpoint).slot() + 1;
            found.push(info);
        }
        Ok(found)
    }

    /// Takes what happened on this node since the last time, or waits for it: how many events are
    /// in `into` now, and how many were lost before them because they were not taken in time. The
    /// events of this file begin at its first call. It polls readable while there are some.
    ///
    /// # Errors
    /// `EAGAIN` or `ETIMEDOUT` if nothing happened in time, `EINTR` if a signal came, `EINVAL` if
    /// `into` is empty.
    pub fn events(&self, into: &mut [Event], timeout: Timeout) -> Result<(usize, u64), Error> {
        sys::events(&self.file, into, timeout.as_ns()).map_err(|errno| Error {
            call: Call::Events,
            subject: Subject::None,
            container: None,
            errno,
        })
    }

    pub(crate) fn call<const OPCODE: u32, B: Block>(
        &self,
        call: Call,
        subject: Subject,
        container: Option<u32>,
        block: &mut B,
    ) -> Result<(), Error> {
        sys::call::<OPCODE, B>(&self.file, block).map_err(|errno| Error {
            call,
            subject,
            container,
            errno,
        })
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn padded(name: &str) -> Option<[u8; NAME_BYTES]> {
    let mut bytes = [0; NAME_BYTES];
    bytes.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_padded_and_never_cut() {
        assert_eq!(&padded("web").unwrap()[..4], b"web\0");
        assert!(padded(&"n".repeat(32)).is_some());
        assert!(padded(&"n".repeat(33)).is_none());
    }

    #[test]
    fn errors_name_node_and_container() {
        let control = Control::open_at("/dev/null").unwrap();
        let lease = Lease { container: 2, node: 5, ..Lease::default() };
        assert_eq!(
            control.dc_add_node(&lease).unwrap_err().to_string(),
            "dc_add_node of node 5 in container 2: not a call of this device (ENOTTY)"
        );
        let long = control.dc_create(1, &"n".repeat(33), Limits::default()).unwrap_err();
        assert!(long.is(crate::Errno::Invalid), "{long}");
    }

    #[test]
    fn every_link_state_of_the_abi_is_known() {
        let state = |state| LinkState::of(&LinkInfo { state, ..LinkInfo::default() });
        assert_eq!(state(ioctl::LINK_DOWN), LinkState::Down);
        assert_eq!(state(ioctl::LINK_CONNECTING), LinkState::Connecting);
        assert_eq!(state(ioctl::LINK_UP), LinkState::Up);
        assert_eq!(state(77), LinkState::Other(77));
    }
}
