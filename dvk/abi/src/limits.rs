// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The largest numbers the ABI can express. Memory grows with what is used; each container has
//! configured caps far below these.

/// Nodes of a DVS; node ids are `0..NODES`.
pub const NODES: u32 = 65_536;
/// Distributed Containers of a DVS; ids are `0..CONTAINERS`.
pub const CONTAINERS: u32 = 65_536;
/// Slots of one Distributed Container.
pub const SLOTS: u32 = 65_536;
/// Slots `0..SERVER_SLOTS` are for servers with well-known numbers and are never handed out by a
/// bind to any slot.
pub const SERVER_SLOTS: u32 = 64;
/// Leases of slots start and end at multiples of this.
pub const LEASE_SLOTS: u32 = 32;
/// Bytes of a container's name, without terminator.
pub const NAME_BYTES: usize = 32;
/// Grants that one endpoint can have at once.
pub const MAX_GRANTS: u32 = 65_536;
