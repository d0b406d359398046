// SPDX-License-Identifier: MIT OR Apache-2.0
//! The key-value store: revisions, transactions, and the changes that watchers see. Its model is that of etcd.
//!
//! The store has one revision, which grows by one with every transaction that changes something. A pair knows the revision
//! that created it, the one that changed it last, and how often it was written. Changes are kept for a while so that whoever
//! watches and was away can go on where it was; what is no longer kept is told as [`Refusal::Compacted`].

mod selector;
mod store;
#[cfg(test)]
mod tests;
mod transaction;

pub use selector::Selector;
pub use store::{Change, Event, Pair, Store};
pub use transaction::{
    Compare, Operation, Order, Response, Subject, Transaction, TransactionAnswer,
};

use serde::{Deserialize, Serialize};

#[cfg(doc)]
use crate::refusal::Refusal;

/// A name in the store: any bytes, at least one.
pub type Key = Vec<u8>;

/// Most bytes of a key.
pub const KEY_BYTES_MAX: usize = 1_024;
/// Most bytes of a value.
pub const VALUE_BYTES_MAX: usize = 1024 * 1024;
/// Most comparisons, and most operations of each branch, of a transaction.
pub const OPERATIONS_MAX: usize = 128;
/// Most bytes of all keys and values.
pub const STORE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most changes that are kept for watchers.
pub const HISTORY_EVENTS_MAX: usize = 10_000;
/// Most bytes of keys and values in them.
pub const HISTORY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What can be done with the store. Whatever reads only needs no command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Compares, then does one thing or the other, at once.
    Transact(Transaction),
    /// Forgets changes up to and with a revision.
    Compact {
        /// The last to be forgotten.
        revision: u64,
    },
}
