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
