// SPDX-License-Identifier: GPL-2.0 OR MIT
//! What a link is made with.

use super::super::abi::wire::frame::Versions;
use core::num::NonZeroU32;

/// The intervals of a link, in nanoseconds. Intervals of 0 count as 1.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long an acknowledgement waits for data to travel with. Longer than a server takes to
    /// answer, so that request and reply need no other frames. The same on all nodes.
    pub ack_delay_ns: u64,
    /// Retransmission timeout while no round-trip time is known.
    pub rto_initial_ns: u64,
    /// Least retransmission timeout.
    pub rto_min_ns: u64,
    /// Greatest retransmission timeout.
    pub rto_max_ns: u64,
    /// Interval between the first two greetings; doubles from then on.
    pub hello_first_ns: u64,
    /// Greatest interval between greetings.
    pub hello_max_ns: u64,
    /// Silence of the peer after which it is asked for an answer, and asked again.
    pub keepalive_ns: u64,
    /// Unanswered questions after which the peer is lost.
    pub keepalive_misses: u32,
}

impl Timing {
    /// Suits a local network, also one of virtual machines.
    pub const DEFAULT: Self = Self {
        ack_delay_ns: 2_000_000,
        rto_initial_ns: 100_000_000,
        rto_min_ns: 8_000_000,
        rto_max_ns: 1_000_000_000,
        hello_first_ns: 20_000_000,
        hello_max_ns: 1_000_000_000,
        keepalive_ns: 500_000_000,
        keepalive_misses: 4,
    };
}

/// What a link is made with.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The DVS; frames of another are dropped.
    pub cluster: u64,
    /// This node's id.
    pub local_node: u16,
    /// The peer's id.
    pub peer_node: u16,
    /// This run of this node.
    pub local_incarnation: NonZeroU32,
    /// Versions to offer: [`Versions::SUPPORTED`], or fewer while a cluster is being upgraded.
    pub versions: Versions,
    /// Frames that the peer may send ahead of what has been acknowledged; at least 1 and at most
    /// [`MAX_WINDOW`](super::super::abi::wire::frame::MAX_WINDOW) count.
    pub receive_window: u16,
    /// Number of the first data frame of each stream. Any value will do.
    pub first_sequence: u32,
    /// Intervals.
    pub timing: Timing,
}
