// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel arguments by which drivers make no devices that nobody has asked for: each takes memory, time at every boot, or has to be
//! removed again.

/// A bond; eight loop devices (`/dev/loop-control` gives those that are wanted); all but two of sixteen network block devices, of which
/// more are made over netlink.
pub const ARGUMENTS: &str = "bonding.max_bonds=0 loop.max_loop=0 nbd.nbds_max=2";
