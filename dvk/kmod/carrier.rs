// SPDX-License-Identifier: GPL-2.0
//! What carries the frames of a link.

use super::abi::ioctl::TRANSPORT_ETHERNET;
#[cfg(CONFIG_DVK_TIPC)]
use super::abi::ioctl::TRANSPORT_TIPC;
use super::abi::wire::frame::{HEADER_BYTES, MAX_PAYLOAD_BYTES};
use super::sys::NetDevice;
#[cfg(CONFIG_DVK_TIPC)]
use super::sys::TipcSocket;
use core::ffi::c_void;
use kernel::prelude::*;

/// The longest frame of the protocol.
pub(crate) const FRAME_BYTES_MAX: usize = HEADER_BYTES + MAX_PAYLOAD_BYTES;

/// How frames get to the peer.
pub(crate) enum Carrier {
    /// Through a device, by raw Ethernet.
    Ethernet {
        /// The device.
        device: NetDevice,
        /// The peer's address.
        address: [u8; 6],
    },
    /// By TIPC.
    #[cfg(CONFIG_DVK_TIPC)]
    Tipc {
        /// This node's end.
        socket: TipcSocket,
        /// The longest frame.
        frame_bytes: usize,
    },
    /// A program fetches and brings them.
    Proxy {
        /// Which protocol it says it speaks: `TRANSPORT_…`.
        transport: u32,
        /// The longest frame it takes.
        frame_bytes: usize,
    },
}

impl Carrier {
    /// How much of the protocol's payload fits into a frame.
    pub(crate) fn payload_bytes(&self) -> usize {
        let bytes = match self {
            Self::Ethernet { device, .. } => device.mtu(),
            #[cfg(CONFIG_DVK_TIPC)]
            Self::Tipc { frame_bytes, .. } => *frame_bytes,
            Self::Proxy { frame_bytes, .. } => *frame_bytes,
        };
        bytes.saturating_sub(HEADER_BYTES)
    }

    /// `TRANSPORT_…`.
    pub(crate) fn transport(&self) -> u32 {
        match self {
            Self::Ethernet { .. } => TRANSPORT_ETHERNET,
            #[cfg(CONFIG_DVK_TIPC)]
            Self::Tipc { .. } => TRANSPORT_TIPC,
            Self::Proxy { transport, .. } => *transport,
        }
    }

    /// The device that frames go through and the peer's address there, if they are raw Ethernet.
    pub(crate) fn route(&self) -> Option<(&NetDevice, &[u8; 6])> {
        match self {
            Self::Ethernet { device, address } => Some((device, address)),
            _ => None,
        }
    }

    /// Whether frames go through this device.
    pub(crate) fn is_by(&self, other: *const c_void) -> bool {
        matches!(self, Self::Ethernet { device, .. } if device.is(other))
    }

    /// Whether the peer's frames come through this device, from this address.
    pub(crate) fn is_from(&self, other: *const c_void, source: &[u8; 6]) -> bool {
        match self {
            Self::Ethernet { device, address } => device.is(other) && address == source,
            _ => false,
        }
    }

    /// The longest frame that a proxy is to fetch, if one carries them.
    pub(crate) fn proxied(&self) -> Option<usize> {
        match self {
            Self::Proxy { frame_bytes, .. } => Some(*frame_bytes),
            _ => None,
        }
    }

    /// Whether frames go by TIPC.
    #[cfg(CONFIG_DVK_TIPC)]
    pub(crate) fn is_tipc(&self) -> bool {
        matches!(self, Self::Tipc { .. })
    }
}
