// SPDX-License-Identifier: GPL-2.0
//! What carries the frames of a link.

use super::abi::errno::Errno;
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
        /// TIPC takes no more frames for now.
        congested: bool,
    },
    /// A program fetches and brings them.
    Proxy {
        /// Which protocol it says it speaks: `TRANSPORT_…`.
        transport: u32,
        /// The longest frame it takes.
        frame_bytes: usize,
    },
}

/// A carrier in use.
pub(crate) struct Attachment {
    /// The carrier.
    pub(crate) carrier: Carrier,
    /// The frame being sent, as long as the longest; nothing for a proxy, which brings its own.
    pub(crate) frame: KVVec<u8>,
}

impl Attachment {
    /// Memory for using `carrier`.
    pub(crate) fn new(carrier: Carrier) -> Result<Self, Errno> {
        let bytes = match &carrier {
            Carrier::Ethernet { device, .. } => device.mtu().min(FRAME_BYTES_MAX),
            #[cfg(CONFIG_DVK_TIPC)]
            Carrier::Tipc { frame_bytes, .. } => *frame_bytes,
            Carrier::Proxy { .. } => 0,
        };
        let frame = KVVec::from_elem(0, bytes, GFP_KERNEL).map_err(|_| Errno::NoMemory)?;
        Ok(Self { carrier, frame })
    }

    /// How much of the protocol's payload fits into a frame.
    pub(crate) fn payload_bytes(&self) -> usize {
        let bytes = match &self.carrier {
            // The buffer keeps its length: a larger MTU is used from the next attach on.
            Carrier::Ethernet { device, .. } => device.mtu().min(self.frame.len()),
            #[cfg(CONFIG_DVK_TIPC)]
            Carrier::Tipc { frame_bytes, .. } => *frame_bytes,
            Carrier::Proxy { frame_bytes, .. } => *frame_bytes,
        };
        bytes.saturating_sub(HEADER_BYTES)
    }

    /// `TRANSPORT_…`.
    pub(crate) fn transport(&self) -> u32 {
        match &self.carrier {
            Carrier::Ethernet { .. } => TRANSPORT_ETHERNET,
            #[cfg(CONFIG_DVK_TIPC)]
            Carrier::Tipc { .. } => TRANSPORT_TIPC,
            Carrier::Proxy { transport, .. } => *transport,
        }
    }

    /// The device that frames go through and the peer's address there, if they are raw Ethernet.
    pub(crate) fn route(&self) -> Option<(&NetDevice, &[u8; 6])> {
        match &self.carrier {
            Carrier::Ethernet { device, address } => Some((device, address)),
            _ => None,
        }
    }

    /// Whether frames go through this device.
    pub(crate) fn is_by(&self, other: *const c_void) -> bool {
        matches!(&self.carrier, Carrier::Ethernet { device, .. } if device.is(other))
    }

    /// Whether the peer's frames come through this device, from this address.
    pub(crate) fn is_from(&self, other: *const c_void, source: &[u8; 6]) -> bool {
        match &self.carrier {
            Carrier::Ethernet { device, address } => device.is(other) && address == source,
            _ => false,
        }
    }

    /// The longest frame that a proxy is to fetch, if one carries them.
    pub(crate) fn proxied(&self) -> Option<usize> {
        match &self.carrier {
            Carrier::Proxy { frame_bytes, .. } => Some(*frame_bytes),
            _ => None,
        }
    }

    /// Whether frames go by TIPC.
    #[cfg(CONFIG_DVK_TIPC)]
    pub(crate) fn is_tipc(&self) -> bool {
        matches!(&self.carrier, Carrier::Tipc { .. })
    }
}
