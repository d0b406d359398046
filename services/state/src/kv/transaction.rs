// SPDX-License-Identifier: MIT OR Apache-2.0
//! Transactions: compare, then do one thing or the other, at once.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::store::{Pair, Store};
use super::{Key, Selector, KEY_BYTES_MAX, OPERATIONS_MAX, STORE_BYTES_MAX, VALUE_BYTES_MAX};
use crate::leases::{LeaseId, Leases};
use crate::refusal::Refusal;

/// If all comparisons hold, `then` is done, else `otherwise`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// What has to hold.
    pub compare: Vec<Compare>,
    /// What is done if all of it holds.
    pub then: Vec<Operation>,
    /// What is done if not.
    pub otherwise: Vec<Operation>,
}

/// One comparison. A key that is not there has no value, compares as 0 in all numbers, and holds no lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    /// Which key.
    pub key: Key,
    /// How what it has must stand to what is given.
    pub order: Order,
    /// What of it is compared, and with what.
    pub subject: Subject,
}

/// How two things stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// They are the same.
    Equal,
    /// They are not.
    Unequal,
    /// The first is less.
    Less,
    /// The first is greater.
    Greater,
}

/// What of a key is compared, and with what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Subject {
    /// Its value, byte for byte. It never holds for a key that is not there.
    Value(Vec<u8>),
    /// How often it was written; 0 for a key that is not there.
    Version(u64),
    /// The revision that created it.
    Created(u64),
    /// The revision that wrote it last.
    Modified(u64),
    /// The lease with which it ends.
    Lease(Option<LeaseId>),
}

/// One operation. Each sees what those before it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Reads.
    Get {
        /// Which keys.
        keys: Selector,
        /// At most so many.
        limit: u32,
    },
    /// Writes.
    Put {
        /// Which key.
        key: Key,
        /// Its value.
        value: Vec<u8>,
        /// The lease with which it ends, if one.
        lease: Option<LeaseId>,
    },
    /// Deletes.
    Delete {
        /// Which keys.
        keys: Selector,
    },
}

/// What came of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionAnswer {
    /// The revision of the store after it.
    pub revision: u64,
    /// Whether all comparisons held.
    pub held: bool,
    /// What came of each operation.
    pub responses: Vec<Response>,
}

/// What came of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// What was read.
    Got {
        /// Keys and what they have, in the order of keys.
        pairs: Vec<(Key, Pair)>,
        /// How many there are, those beyond the limit included.
        count: u64,
    },
    /// It was written.
    Put,
    /// So many were deleted.
    Deleted(u64),
}

impl Order {
    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Equal => ordering == Ordering::Equal,
            Self::Unequal => ordering != Ordering::Equal,
            Self::Less => ordering == Ordering::Less,
            Self::Greater => ordering == Ordering::Greater,
        }
    }
}

impl Compare {
    /// Whether it holds.
    pub fn holds(&self, store: &Store) -> bool {
        let pair = store.get(&self.key);
        let number = |of: fn(&Pair) -> u64| pair.map_or(0, of);
        let ordering = match &self.subject {
            Subject::Value(value) => match pair {
                Some(pair) => pair.value.cmp(value),
                None => return false,
            },
            Subject::Version(version) => number(|pair| pair.version).cmp(version),
            Subject::Created(revision) => number(|pair| pair.created).cmp(revision),
            Subject::Modified(revision) => number(|pair| pair.modified).cmp(revision),
            Subject::Lease(lease) => pair.and_then(|pair| pair.lease).cmp(lease),
        };
        self.order.holds(ordering)
    }
}

impl Transaction {
    /// A transaction without comparisons.
    pub fn of(operations: Vec<Operation>) -> Self {
        Self { then: operations, ..Self::default() }
    }

    fn check(&self) -> Result<(), Refusal> {
        let longest = self.compare.len().max(self.then.len()).max(self.otherwise.len());
        if longest > OPERATIONS_MAX {
            return Err(Refusal::limit(
                "comparisons or operations of a transaction",
                OPERATIONS_MAX,
            ));
        }
        for branch in [&self.then, &self.otherwise] {
            for (at, operation) in branch.iter().enumerate() {
                let Operation::Put { key, value, .. } = operation else { continue };
                if key.is_empty() {
                    return Err(Refusal::Invalid("a key cannot be empty; give it a byte".into()));
                }
                if key.len() > KEY_BYTES_MAX {
                    return Err(Refusal::limit("bytes of a key", KEY_BYTES_MAX));
                }
                if value.len() > VALUE_BYTES_MAX {
                    return Err(Refusal::limit("bytes of a value", VALUE_BYTES_MAX));
                }
                // One revision has one event for a key, so that a watcher needs no order within it.
                let touches = |other: &Operation| match other {
                    Operation::Put { key: other, .. } => other == key,
                    Operation::Delete { keys } => keys.contains(key),
                    Operation::Get { .. } => false,
                };
                if branch.iter().enumerate().any(|(other, op)| other != at && touches(op)) {
                    return Err(Refusal::Invalid(format!(
                        "the transaction changes key {:?} twice; let it do so once",
                        String::from_utf8_lossy(key)
                    )));
                }
            }
        }
        Ok(())
    }

    pub(crate) fn run(
        &self,
        store: &mut Store,
        leases: &Leases,
    ) -> Result<TransactionAnswer, Refusal> {
        self.check()?;
        let held = self.compare.iter().all(|compare| compare.holds(store));
        let operations = if held { &self.then } else { &self.otherwise };
        let mut growth = 0;
        let mut shrinkage = 0;
        for operation in operations {
            let Operation::Put { key, value, lease } = operation else { continue };
            lease.map_or(Ok(()), |lease| leases.check(lease))?;
            growth += key.len() + value.len();
            shrinkage += store.get(key).map_or(0, |pair| key.len() + pair.value.len());
        }
        if growth > shrinkage && store.bytes() + growth - shrinkage > STORE_BYTES_MAX {
            return Err(Refusal::limit("bytes of all keys and values", STORE_BYTES_MAX));
        }
        let revision = store.revision() + 1;
        let mut changed = false;
        let mut responses = Vec::with_capacity(operations.len());
        for operation in operations {
            responses.push(match operation {
                Operation::Get { keys, limit } => {
                    let limit = *limit as usize;
                    let mut pairs = Vec::new();
                    let mut count = 0;
                    for (key, pair) in store.range(keys) {
                        if pairs.len() < limit {
                            pairs.push((key.clone(), pair.clone()));
                        }
                        count += 1;
                    }
                    Response::Got { pairs, count }
                }
                Operation::Put { key, value, lease } => {
                    store.put(revision, key, value, *lease);
                    changed = true;
                    Response::Put
                }
                Operation::Delete { keys } => {
                    let found: Vec<Key> = store.range(keys).map(|(key, _)| key.clone()).collect();
                    for key in &found {
                        store.delete(revision, key);
                    }
                    changed |= !found.is_empty();
                    Response::Deleted(found.len() as u64)
                }
            });
        }
        if changed {
            store.commit(revision);
        }
        Ok(TransactionAnswer { revision: store.revision(), held, responses })
    }
}
