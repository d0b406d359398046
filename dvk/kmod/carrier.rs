// SPDX-License-Identifier: GPL-2.0
//! What carries the frames of a link.

use super::abi::errno::Errno;
use super::abi::ioctl::TRANSPORT_ETHERNET;
use super::abi::wire::frame::{HEADER_BYTES, MAX_PAYLOAD_BYTES};
use super::sys::NetDevice;
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
    pub(crate) frame: KVec<u8>,
}

impl Attachment {
    /// Memory for using `carrier`.
    pub(crate) fn new(carrier: Carrier) -> Result<Self, Errno> {
        let bytes = match &carrier {
            Carrier::Ethernet { device, .. } => device.mtu().min(FRAME_BYTES_MAX),
            Carrier::Proxy { .. } => 0,
        };
        let frame = KVec::from_elem(0, bytes, GFP_KERNEL).map_err(|_| Errno::NoMemory)?;
        Ok(Self { carrier, frame })
    }

    /// How much of the protocol's payload fits into a frame.
    pub(crate) fn payload_bytes(&self) -> usize {
        let bytes = match &self.carrier {
            // The buffer keeps its length: a larger MTU is used from the next attach on.
            Carrier::Ethernet { device, .. } => device.mtu().min(self.frame.len()),
            Carrier::Proxy { frame_bytes, .. } => *frame_bytes,
        };
        bytes.saturating_sub(HEADER_BYTES)
    }

    /// `TRANSPORT_…`.
    pub(crate) fn transport(&self) -> u32 {
        match &self.carrier {
            Carrier::Ethernet { .. } => TRANSPORT_ETHERNET,
            Carrier::Proxy { transport, .. } => *transport,
        }
    }

    /// The device that frames go through and the peer's address there, unless a proxy carries them.
    pub(crate) fn route(&self) -> Option<(&NetDevice, &[u8; 6])> {
        match &self.carrier {
            Carrier::Ethernet { device, address } => Some((device, address)),
            Carrier::Proxy { .. } => None,
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
            Carrier::Proxy { .. } => false,
        }
    }

    /// The longest frame that a proxy is to fetch, if one carries them.
    pub(crate) fn proxied(&self) -> Option<usize> {
        match &self.carrier {
            Carrier::Ethernet { .. } => None,
            Carrier::Proxy { frame_bytes, .. } => Some(*frame_bytes),
        }
    }
}
