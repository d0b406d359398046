// SPDX-License-Identifier: GPL-2.0 OR MIT
//! What nodes send each other: frames ([`frame`]) that carry a stream of records ([`record`] for
//! messages, [`transfer`] for copies).
//!
//! Everything is little-endian and decoded field by field; nothing of a native structure ever
//! reaches the wire. Decoders take any bytes and either give a value or say why not.

pub mod frame;
pub mod record;
pub mod transfer;

/// Ethertype of DVK frames: IEEE 802 local experimental 1.
pub const ETHERTYPE: u16 = 0x88b5;

/// The TIPC service type of a cluster's links: of the upper half, whose types the cluster's id
/// tells apart.
pub const fn tipc_service(cluster: u64) -> u32 {
    (cluster ^ cluster >> 32) as u32 | 1 << 31
}

/// The instance of that service to which node `here` binds its end of the link to node `there`.
pub const fn tipc_instance(here: u16, there: u16) -> u32 {
    (here as u32) << 16 | there as u32
}
