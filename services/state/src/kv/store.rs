// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pairs by key, and the changes of late.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::{Key, Selector, HISTORY_BYTES_MAX, HISTORY_EVENTS_MAX};
use crate::leases::LeaseId;
use crate::refusal::Refusal;

/// A value and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// The value.
    pub value: Vec<u8>,
    /// The revision that created the key.
    pub created: u64,
    /// The revision that wrote the value.
    pub modified: u64,
    /// How often it has been written since it was created; 1 at first.
    pub version: u64,
    /// The lease with which the key ends.
    pub lease: Option<LeaseId>,
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The revision that made it. A revision names a key once.
    pub revision: u64,
    /// Which key.
    pub key: Key,
    /// What became of it.
    pub change: Change,
}

/// What became of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// It was written.
    Put(Pair),
    /// It was deleted.
    Deleted,
}

impl Event {
    fn bytes(&self) -> usize {
        let value = match &self.change {
            Change::Put(pair) => pair.value.len(),
            Change::Deleted => 0,
        };
        self.key.len() + value
    }
}

/// The store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Store {
    revision: u64,
    pairs: BTreeMap<Key, Pair>,
    /// Bytes of all keys and values.
    bytes: usize,
    /// Keys by the lease with which they end.
    leased: BTreeMap<LeaseId, BTreeSet<Key>>,
    /// Changes of the revisions after `compacted`.
    history: VecDeque<Event>,
    history_bytes: usize,
    compacted: u64,
}

impl Store {
    /// The revision of the last change; 0 before the first.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The last revision whose changes have been forgotten.
    pub fn compacted(&self) -> u64 {
        self.compacted
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// What a key has.
    pub fn get(&self, key: &[u8]) -> Option<&Pair> {
        self.pairs.get(key)
    }

    /// Keys and what they have, in the order of keys.
    pub fn range(&self, selector: &Selector) -> impl Iterator<Item = (&Key, &Pair)> + '_ {
        selector.bounds().into_iter().flat_map(|bounds| self.pairs.range(bounds))
    }

    /// Changes of the revision `from` and later, as they happened.
    ///
    /// # Errors
    /// [`Refusal::Compacted`] if some of them have been forgotten.
    pub fn events(&self, from: u64) -> Result<impl Iterator<Item = &Event> + '_, Refusal> {
        if from <= self.compacted && self.compacted > 0 {
            return Err(Refusal::Compacted { given: from, oldest: self.compacted });
        }
        let start = self.history.partition_point(|event| event.revision < from);
        Ok(self.history.range(start..))
    }

    pub(super) fn put(&mut self, revision: u64, key: &[u8], value: &[u8], lease: Option<LeaseId>) {
        let before = self.take(key);
        let (created, version) =
            before.map_or((revision, 1), |pair| (pair.created, pair.version + 1));
        let pair = Pair { value: value.to_owned(), created, modified: revision, version, lease };
        if let Some(lease) = lease {
            self.leased.entry(lease).or_default().insert(key.to_owned());
        }
        self.bytes += key.len() + value.len();
        self.pairs.insert(key.to_owned(), pair.clone());
        self.note(revision, key, Change::Put(pair));
    }

    pub(super) fn delete(&mut self, revision: u64, key: &[u8]) -> Option<Pair> {
        let pair = self.take(key)?;
        self.note(revision, key, Change::Deleted);
        Some(pair)
    }

    /// Ends a revision: what changes from now on belongs to the next.
    pub(super) fn commit(&mut self, revision: u64) {
        self.revision = revision;
        while self.history.len() > HISTORY_EVENTS_MAX || self.history_bytes > HISTORY_BYTES_MAX {
            let Some(oldest) = self.history.front().map(|event| event.revision) else { break };
            self.forget(oldest);
        }
    }

    pub(crate) fn compact(&mut self, revision: u64) -> Result<(), Refusal> {
        if revision > self.revision {
            return Err(Refusal::Invalid(format!(
                "the store is at revision {}, and {revision} cannot be compacted yet",
                self.revision
            )));
        }
        if revision <= self.compacted {
            return Err(Refusal::Compacted { given: revision, oldest: self.compacted });
        }
        self.forget(revision);
        Ok(())
    }

    /// Deletes the keys that end with a lease, in one revision.
    pub(crate) fn end_lease(&mut self, lease: LeaseId) {
        let Some(keys) = self.leased.get(&lease).cloned() else { return };
        let revision = self.revision + 1;
        for key in keys {
            self.delete(revision, &key);
        }
        self.commit(revision);
    }

    fn take(&mut self, key: &[u8]) -> Option<Pair> {
        let pair = self.pairs.remove(key)?;
        self.bytes -= key.len() + pair.value.len();
        if let Some(lease) = pair.lease {
            if let Some(keys) = self.leased.get_mut(&lease) {
                keys.remove(key);
                if keys.is_empty() {
                    self.leased.remove(&lease);
                }
            }
        }
        Some(pair)
    }

    fn note(&mut self, revision: u64, key: &[u8], change: Change) {
        let event = Event { revision, key: key.to_owned(), change };
        self.history_bytes += event.bytes();
        self.history.push_back(event);
    }

    fn forget(&mut self, revision: u64) {
        while self.history.front().is_some_and(|event| event.revision <= revision) {
            self.history_bytes -= self.history.pop_front().map_or(0, |event| event.bytes());
        }
        self.compacted = revision;
    }
}
