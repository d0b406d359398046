// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the nodes agree on: the cluster itself, keys and values, leases and locks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most bytes of a value that the API takes. The store itself takes more, but everything has to go through
/// every voter.
pub const KV_VALUE_BYTES_MAX: usize = 128 * 1024;
/// Longest that a request may wait for something to happen, in milliseconds.
pub const WAIT_MS_MAX: u64 = 30_000;

/// Answer of `GET /v1/cluster`: how the nodes agree, as the node that answers knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterStatus {
    /// Name of the cluster; empty until the nodes have agreed on it.
    pub name: String,
    /// Id of the cluster, 16 hexadecimal digits; empty until the nodes have agreed on it.
    pub id: String,
    /// The node that answers.
    pub node: u32,
    /// The node that leads; `None` while nobody is known to.
    pub leader: Option<u32>,
    /// The term, which grows with every election.
    pub term: u64,
    /// Whether a majority of the voters is heard by the node that answers.
    pub majority: bool,
    /// The members of the consensus, by node.
    pub members: Vec<ClusterMember>,
    /// Up to which place of the log the node that answers has come.
    pub applied: u64,
    /// The end of its log.
    pub last: u64,
    /// Up to which place of the log it has a snapshot.
    pub snapshot: u64,
    /// Version of what can be agreed on.
    pub version: u16,
    /// Why the node cannot take part any more; `None` if it can.
    pub trouble: Option<String>,
}

/// See [`ClusterStatus::members`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterMember {
    /// The node it is on.
    pub node: u32,
    /// The node's name; empty for one that is no node any more.
    pub name: String,
    /// Its id, 16 hexadecimal digits: another one whenever a node without a disk starts.
    pub member: String,
    /// Whether it votes; else it learns.
    pub voter: bool,
    /// Whether the node is heard in the life that it is a member of.
    pub heard: bool,
}

/// A value: text where it is some, else its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum KvValue {
    /// UTF-8.
    Text(String),
    /// Anything.
    Bytes(KvBytes),
}

/// See [`KvValue::Bytes`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KvBytes {
    /// Two hexadecimal digits for each byte.
    pub hex: String,
}

impl KvValue {
    /// The value that has these bytes.
    pub fn of(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) => Self::Text(text),
            Err(error) => {
                let hex = error.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
                Self::Bytes(KvBytes { hex })
            }
        }
    }

    /// Its bytes; `None` if what should be hexadecimal digits is something else.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        match self {
            Self::Text(text) => Some(text.clone().into_bytes()),
            Self::Bytes(KvBytes { hex }) => {
                let digits: Option<Vec<u8>> =
                    hex.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
                let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
                Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
            }
        }
    }
}

/// A key and what it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KvPair {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: KvValue,
    /// The revision that created it.
    pub created: u64,
    /// The revision that wrote it last.
    pub modified: u64,
    /// How often it was written since it was created.
    pub version: u64,
    /// The lease with which it ends.
    pub lease: Option<u64>,
}

/// Answer of `GET /v1/kv?key=K` and `GET /v1/kv?prefix=P&limit=N`. With `stale=true` it is what the node that answers has, which
/// may be behind; else it shows everything that was agreed on before the question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KvRange {
    /// The revision of the store.
    pub revision: u64,
    /// How many keys there are, those beyond the limit included.
    pub count: u64,
    /// In the order of keys.
    pub pairs: Vec<KvPair>,
}

/// Body of `POST /v1/kv`: if all comparisons hold, `then` is done, else `otherwise`; at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KvTransaction {
    /// What has to hold.
    #[serde(default)]
    pub compare: Vec<KvCompare>,
    /// What is done if all of it holds.
    pub then: Vec<KvOperation>,
    /// What is done if not.
    #[serde(default)]
    pub otherwise: Vec<KvOperation>,
}

/// A comparison that holds if what is given is as it is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KvCompare {
    /// Which key.
    pub key: String,
    /// Its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<KvValue>,
    /// The revision that wrote it last; 0 for a key that is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<u64>,
}

/// One operation. Each sees what those before it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum KvOperation {
    /// Reads a key.
    Get {
        /// Which one.
        key: String,
    },
    /// Writes a key.
    Put {
        /// Which one.
        key: String,
        /// Its value.
        value: KvValue,
        /// The lease with which it ends.
        #[serde(default)]
        lease: Option<u64>,
    },
    /// Deletes a key, or those that begin with it.
    Delete {
        /// Which one.
        key: String,
        /// Whether all that begin so are meant.
        #[serde(default)]
        prefix: bool,
    },
}

/// Answer of `POST /v1/kv`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KvDone {
    /// The revision of the store after it.
    pub revision: u64,
    /// Whether all comparisons held.
    pub held: bool,
    /// What came of each operation.
    pub results: Vec<KvResult>,
}

/// What came of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KvResult {
    /// What was read; none, or one.
    Got(Option<KvPair>),
    /// It was written.
    Put,
    /// So many keys were deleted.
    Deleted(u64),
}

/// Answer of `GET /v1/kv/changes?prefix=P&from=R&wait_ms=T`: changes of revision `from` and later. Without any, it waits for some.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KvChanges {
    /// The revision that the answer has come to. Go on with the next one.
    pub revision: u64,
    /// As they happened.
    pub changes: Vec<KvChange>,
}

/// A change of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KvChange {
    /// The revision that made it.
    pub revision: u64,
    /// Which key.
    pub key: String,
    /// What it has now; `None` if it was deleted.
    pub pair: Option<KvPair>,
}

/// Body of `POST /v1/leases`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LeaseRequest {
    /// How many milliseconds it lasts unless it is kept alive.
    pub ttl_ms: u64,
    /// Whose it is, for people.
    #[serde(default)]
    pub owner: String,
}

/// Answer of `POST /v1/leases` and `POST /v1/leases/{id}`, which keeps a lease alive. `DELETE /v1/leases/{id}` ends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Lease {
    /// Its id.
    pub lease: u64,
    /// How many milliseconds it lasts from now on.
    pub ttl_ms: u64,
}

/// An element of `GET /v1/leases`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeaseInfo {
    /// Its id.
    pub lease: u64,
    /// How many milliseconds it lasts whenever it is kept alive.
    pub ttl_ms: u64,
    /// How many are left.
    pub left_ms: u64,
    /// Whose it is, for people.
    pub owner: String,
}

/// An element of `GET /v1/locks`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Lock {
    /// Its name.
    pub name: String,
    /// How many can hold it at once.
    pub places: u32,
    /// Who holds it.
    pub holders: Vec<LockHolder>,
    /// Who waits for it, the next first.
    pub waiting: Vec<LockHolder>,
}

/// Who holds a lock or waits for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LockHolder {
    /// Under which lease.
    pub lease: u64,
    /// Its fencing token; `None` for one who waits.
    pub fence: Option<u64>,
    /// What it says of itself.
    pub label: String,
}

/// Body of `POST /v1/locks`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LockRequest {
    /// Which lock.
    pub name: String,
    /// Under which lease.
    pub lease: u64,
    /// How many can hold it at once.
    #[serde(default = "one")]
    pub places: u32,
    /// Whether to get in line if it is not free.
    #[serde(default)]
    pub wait: bool,
    /// Who wants it, for people.
    #[serde(default)]
    pub label: String,
}

fn one() -> u32 {
    1
}

/// Where a lease stands: answer of `POST /v1/locks`, and of `GET /v1/locks/standing?name=N&lease=L&wait_ms=T`, which waits until it
/// holds the lock, or the time is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LockStanding {
    /// The fencing token, if it holds the lock: greater than that of everybody who held it before.
    pub fence: Option<u64>,
    /// How many wait before it, if it waits.
    pub ahead: Option<u32>,
}

/// Body of `POST /v1/locks/release`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LockRelease {
    /// Which lock.
    pub name: String,
    /// Under which lease it is held.
    pub lease: u64,
}

/// Answer of `POST /v1/locks/release`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LockReleased {
    /// Whether the lease held the lock or was in line.
    pub released: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_text_where_it_can_be() {
        for (bytes, json) in
            [(&b"east"[..], r#""east""#), (b"", r#""""#), (b"\xff\x00a", r#"{"hex":"ff0061"}"#)]
        {
            let value = KvValue::of(bytes.to_vec());
            assert_eq!(serde_json::to_string(&value).unwrap(), json);
            let back: KvValue = serde_json::from_str(json).unwrap();
            assert_eq!(back.bytes().as_deref(), Some(bytes));
        }
        for wrong in ["f", "fg", "ff0"] {
            assert_eq!(KvValue::Bytes(KvBytes { hex: wrong.into() }).bytes(), None);
        }
    }

    #[test]
    fn a_transaction_is_written_as_people_do() {
        let text =
            r#"{"compare":[{"key":"a","modified":0}],"then":[{"put":{"key":"a","value":"1"}}]}"#;
        let transaction: KvTransaction = serde_json::from_str(text).unwrap();
        assert_eq!(transaction.compare[0].modified, Some(0));
        assert!(transaction.otherwise.is_empty());
        let error = serde_json::from_str::<KvTransaction>(r#"{"then":[{"putt":{}}]}"#);
        assert!(error.unwrap_err().to_string().contains("unknown variant `putt`"));
    }
}
