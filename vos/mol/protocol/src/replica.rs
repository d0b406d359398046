// SPDX-License-Identifier: MIT OR Apache-2.0
//! Copies of a device: what the server of the primary asks those of the other replicas.
//!
//! Only a primary asks, and the others answer, so no two of them ever wait for each other. What may be asked when, and what an
//! answer means, are the rules of replication, which are not told here: they are in the documentation of the crate `mol-vdd`,
//! as is the form of a *row*, the items in lent memory. A request that got lost, or whose answer did, is made again.
//!
//! Numbers that count (epochs, feeds, items, beats) begin at 1; 0 is none of them.
//!
//! # Errors
//! - `ENXIO`: there is no such device, or it has no replicas;
//! - `ESTALE`: the replica that is meant was a run of the server before this one;
//! - `EFAULT`: the memory is not lent, or too small;
//! - `EINVAL`: the row is none, or names blocks that the device has not;
//! - `EIO`: the replica has failed, and takes no part any more.

use crate::Errno;
use dvk::GrantId;

/// How many bytes a primary lends for the answer to a greeting: two sets of 8,192 regions.
pub const SETS_BYTES: usize = 2 * 1024;

dvk::payload! {
    /// The answer to a greeting.
    pub struct Greeted {
        /// If it is not 0: a later epoch is known, so that who asks is not the primary any more. Then the rest is 0.
        pub fenced: u64,
        /// The last epoch in which the replica was known to be in step.
        pub in_step: u64,
        /// How many bytes of the lent memory, from its beginning on, have the set of unsettled regions.
        pub unsettled_bytes: u16,
        /// How many bytes after them have the set of uncommitted regions.
        pub uncommitted_bytes: u16,
        /// Whether the feed is begun. If not, the replica does not know yet that the other one is the primary.
        pub has_begun: bool,
    }
}

dvk::payload! {
    /// The answer to a row of a feed.
    pub struct Fed {
        /// As in [`Greeted`].
        pub fenced: u64,
        /// The last item that was done; 0 if nothing is to be said of items.
        pub sequence: u64,
        /// The last comparison that was made; 0 if none was.
        pub compared: u64,
        /// Whether the blocks that were compared were the same.
        pub is_same: bool,
        /// The last beat that was heard; 0 if none was.
        pub beat: u64,
        /// As in [`Greeted`]; said with a beat.
        pub in_step: u64,
    }
}

dvk::protocol! {
    /// A server that has a replica which is not the primary.
    pub trait ReplicaServer: client ReplicaClient, error Errno {
        /// Begins a feed.
        fn greet(Greet = 0x580 {
            /// The device.
            minor: u32,
            /// Which replica asks.
            from: u32,
            /// Which run of its server.
            life: u64,
            /// Which run of the server that is asked.
            to: u64,
            /// The epoch that makes it the primary.
            epoch: u64,
            /// The feed.
            feed: u64,
            /// [`SETS_BYTES`] of memory, lent for writing.
            sets: GrantId,
        }) -> Greeted;

        /// Gives items of a feed, and beats.
        fn feed(Feed = 0x581 {
            /// The device.
            minor: u32,
            /// How many bytes the row has.
            bytes: u32,
            /// The row, lent for reading.
            row: GrantId,
        }) -> Fed;
    }
}
