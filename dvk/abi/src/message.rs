// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The unit of M3-IPC: a message of 64 bytes.

use super::endpoint::Endpoint;

/// Bytes of a message.
pub const MESSAGE_BYTES: usize = 64;
/// Bytes of a message that belong to the protocol its `kind` names.
pub const PAYLOAD_BYTES: usize = 48;

/// `kind` of what `receive` returns for a notification. Protocols use other values.
pub const KIND_NOTIFY: u32 = 0xffff_0001;

/// A message as user space, the kernel and the wire see it: 64 bytes, no pointers.
///
/// `source` is set by the kernel at delivery; what the sender put there is ignored. `kind` says
/// which protocol's view of the payload applies; kinds from `0xffff_0000` up are the DVK's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Message {
    /// Endpoint of the sender.
    pub source: u64,
    /// Meaning of the payload.
    pub kind: u32,
    /// Free for the protocol.
    pub flags: u32,
    /// The protocol's data, little-endian by convention.
    pub payload: [u8; PAYLOAD_BYTES],
}

const _: () = assert!(core::mem::size_of::<Message>() == MESSAGE_BYTES);
const _: () = assert!(core::mem::align_of::<Message>() == MESSAGE_BYTES);

impl Message {
    /// All bytes zero.
    pub const ZERO: Self = Self { source: 0, kind: 0, flags: 0, payload: [0; PAYLOAD_BYTES] };

    /// A message of `kind` with a zeroed payload.
    pub const fn new(kind: u32) -> Self {
        Self { kind, ..Self::ZERO }
    }

    /// What `receive` returns for the notification `bits` of `source`: the bits are the first
    /// eight bytes of the payload.
    pub fn notification(source: Endpoint, bits: u64) -> Self {
        let mut message = Self { source: source.raw(), ..Self::new(KIND_NOTIFY) };
        message.payload[..8].copy_from_slice(&bits.to_le_bytes());
        message
    }

    /// The bits of a notification; `None` if the message is not one.
    pub fn notify_bits(&self) -> Option<u64> {
        if self.kind != KIND_NOTIFY {
            return None;
        }
        let (bits, _) = self.payload.split_first_chunk::<8>()?;
        Some(u64::from_le_bytes(*bits))
    }

    /// The sender.
    pub const fn source(&self) -> Endpoint {
        Endpoint::from_raw(self.source)
    }

    /// The message as it goes over the wire: all fields little-endian, in order.
    pub fn to_le_bytes(&self) -> [u8; MESSAGE_BYTES] {
        let mut bytes = [0; MESSAGE_BYTES];
        bytes[0..8].copy_from_slice(&self.source.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.kind.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.flags.to_le_bytes());
        bytes[16..].copy_from_slice(&self.payload);
        bytes
    }

    /// The message that [`to_le_bytes`](Self::to_le_bytes) gave these bytes for.
    pub fn from_le_bytes(bytes: &[u8; MESSAGE_BYTES]) -> Self {
        let u64_at = |at: usize| {
            let mut field = [0; 8];
            field.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(field)
        };
        let head = u64_at(8);
        let mut payload = [0; PAYLOAD_BYTES];
        payload.copy_from_slice(&bytes[16..]);
        Self { source: u64_at(0), kind: head as u32, flags: (head >> 32) as u32, payload }
    }
}
