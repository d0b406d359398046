// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can be asked, and what is answered. Variants and fields only grow at their end: programs and nodes of other versions have
//! the same numbers for what they know.

use serde::{Deserialize, Serialize};

/// Most bytes of a question.
pub const QUESTION_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes of a value. A message to a group may have half as many.
pub const VALUE_BYTES_MAX: usize = 128 * 1024;
/// Bytes of memory that hold any answer but that to a transaction that reads several keys.
pub const ANSWER_BYTES: usize = 256 * 1024;
/// Most keys that a transaction reads, in either branch.
pub const GETS_MAX: usize = 8;
/// Longest that a question may wait, in milliseconds.
pub const WAIT_MS_MAX: u64 = 20_000;

/// A lease: what is held under it ends with it, unless it is kept alive. None ever comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lease(pub u64);

/// What is asked. Names are the container's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// Which keys there are that begin like this, and their values; of one key, if `exact`.
    Read {
        /// How they begin.
        key: Vec<u8>,
        /// Whether it is the only one.
        exact: bool,
        /// At most so many. There are fewer if they would not fit an answer.
        limit: u32,
        /// Take what this node has, which may be behind, and needs no majority.
        stale: bool,
    },
    /// Compare, then do one thing or the other, at once.
    Transact(Transaction),
    /// Changes of keys that begin like this, from a revision on; waits until there are some. Without a revision, the present one.
    Changes {
        /// How the keys begin.
        prefix: Vec<u8>,
        /// From which revision on.
        from: Option<u64>,
        /// How long to wait, in milliseconds.
        wait_ms: u64,
    },
    /// A lease.
    Grant {
        /// How long it lasts unless it is kept alive, in milliseconds: 500 to a day.
        ttl_ms: u64,
        /// Whose it is, for people.
        owner: String,
    },
    /// That a lease lasts its whole time again, from now on.
    KeepAlive {
        /// Which one.
        lease: Lease,
    },
    /// That a lease ends, and what is held under it.
    Revoke {
        /// Which one.
        lease: Lease,
    },
    /// A lock, or a place of a semaphore. Asking again from the same lease is harmless.
    Acquire {
        /// Which one; it exists while somebody holds it.
        name: String,
        /// Under which lease.
        lease: Lease,
        /// How many can hold it at once; all who ask must say the same.
        places: u32,
        /// Whether to get in line if none is free.
        wait: bool,
        /// Who holds it, for people.
        label: String,
    },
    /// Where a lease stands in the line for a lock; waits until it holds it.
    AwaitLock {
        /// Which lock.
        name: String,
        /// Which lease.
        lease: Lease,
        /// How long to wait, in milliseconds.
        wait_ms: u64,
    },
    /// To hold a lock no more, or to get out of line.
    Release {
        /// Which one.
        name: String,
        /// Under which lease.
        lease: Lease,
    },
    /// To stand for election. Asking again from the same lease is harmless.
    Stand {
        /// In which one; it exists while somebody stands.
        name: String,
        /// Under which lease.
        lease: Lease,
        /// What others should know of this candidate once it leads, such as its endpoint.
        value: Vec<u8>,
    },
    /// Where a candidate stands; waits until it leads.
    AwaitLead {
        /// In which election.
        name: String,
        /// Which candidate.
        lease: Lease,
        /// How long to wait, in milliseconds.
        wait_ms: u64,
    },
    /// Who leads; waits until that is another one than in a term that is known, or nobody.
    Observe {
        /// In which election.
        name: String,
        /// The term that is known.
        known: Option<u64>,
        /// How long to wait, in milliseconds.
        wait_ms: u64,
    },
    /// To lead or stand no more.
    Resign {
        /// In which election.
        name: String,
        /// Which candidate.
        lease: Lease,
    },
    /// To arrive at a barrier. Asking again with the same attempt is harmless.
    Arrive {
        /// At which one; it exists while somebody waits.
        name: String,
        /// Under which lease.
        lease: Lease,
        /// How many it takes; all who arrive must say the same.
        parties: u32,
        /// Greater each time that the lease arrives there.
        attempt: u64,
    },
    /// What has come of an arrival; waits until the barrier opens.
    AwaitPassage {
        /// At which barrier.
        name: String,
        /// Under which lease.
        lease: Lease,
        /// The attempt.
        attempt: u64,
        /// How long to wait, in milliseconds.
        wait_ms: u64,
    },
    /// To go away from a barrier without waiting.
    Depart {
        /// From which one.
        name: String,
        /// Under which lease.
        lease: Lease,
    },
    /// To be a member of a group. Asking again from the same lease is harmless.
    Join {
        /// Of which one; it exists while it has members.
        group: String,
        /// Under which lease.
        lease: Lease,
        /// By which name the others know the member.
        name: String,
    },
    /// To be a member no more.
    Leave {
        /// Of which group.
        group: String,
        /// Under which lease.
        lease: Lease,
    },
    /// That all members, the sender included, get a message. Sending one again because its answer was lost is harmless.
    Send {
        /// To which group.
        group: String,
        /// The sender's lease.
        lease: Lease,
        /// Counts the sender's messages from 1 up.
        number: u64,
        /// What it says.
        payload: Vec<u8>,
    },
    /// What a member has to take from a position on; waits until there is something.
    Deliveries {
        /// Of which group.
        group: String,
        /// The member's lease.
        lease: Lease,
        /// The position.
        from: u64,
        /// How long to wait, in milliseconds.
        wait_ms: u64,
    },
    /// That a member has taken everything up to a position, so that it need not be kept for it.
    Acknowledge {
        /// Of which group.
        group: String,
        /// The member's lease.
        lease: Lease,
        /// The position.
        up_to: u64,
    },
}

impl Question {
    /// How much memory its answer may need.
    pub fn answer_bytes(&self) -> usize {
        match self {
            Self::Transact(transaction) => {
                ANSWER_BYTES + transaction.gets().saturating_sub(1) * (VALUE_BYTES_MAX + 4096)
            }
            _ => ANSWER_BYTES,
        }
    }

    /// How long it may wait.
    pub fn wait_ms(&self) -> u64 {
        match self {
            Self::Changes { wait_ms, .. }
            | Self::AwaitLock { wait_ms, .. }
            | Self::AwaitLead { wait_ms, .. }
            | Self::Observe { wait_ms, .. }
            | Self::AwaitPassage { wait_ms, .. }
            | Self::Deliveries { wait_ms, .. } => *wait_ms,
            _ => 0,
        }
    }

    /// Whether it can be asked again without harm when nobody knows whether it was answered. A transaction cannot; of a lease that was
    /// granted twice, one ends by itself.
    pub fn is_harmless(&self) -> bool {
        !matches!(self, Self::Transact(_))
    }
}

/// If all comparisons hold, `then` is done, else `otherwise`. No key may be written twice in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// What has to hold.
    pub compare: Vec<Compare>,
    /// What is done if all of it holds.
    pub then: Vec<Operation>,
    /// What is done if not.
    pub otherwise: Vec<Operation>,
}

impl Transaction {
    /// How many keys it may read.
    pub fn gets(&self) -> usize {
        let gets = |all: &[Operation]| {
            all.iter().filter(|one| matches!(one, Operation::Get { .. })).count()
        };
        gets(&self.then).max(gets(&self.otherwise))
    }
}

/// A comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    /// Which key.
    pub key: Vec<u8>,
    /// What it must have.
    pub subject: Subject,
}

/// What a key must have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Subject {
    /// This value. A key that is not there has none.
    Value(Vec<u8>),
    /// This revision wrote it last; 0 if it must not be there.
    Modified(u64),
}

/// One operation. Each sees what those before it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Reads a key.
    Get {
        /// Which one.
        key: Vec<u8>,
    },
    /// Writes a key.
    Put {
        /// Which one: at most 1,000 bytes.
        key: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
        /// The lease with which it ends, if one.
        lease: Option<Lease>,
    },
    /// Deletes a key, or all that begin like it.
    Delete {
        /// Which one.
        key: Vec<u8>,
        /// Whether all that begin like it are meant.
        prefix: bool,
    },
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Question::Read`].
    Range(Range),
    /// To [`Question::Transact`].
    Transacted(Transacted),
    /// To [`Question::Changes`]: up to which revision these are all, and what changed, in that order.
    Changes(u64, Vec<Change>),
    /// To [`Question::Grant`] and [`Question::KeepAlive`].
    Lease(Lease),
    /// Where a lease stands: to those about locks and elections.
    Line(Line),
    /// To [`Question::Observe`].
    Leader(Option<Leader>),
    /// What has come of an arrival.
    Passage(Passage),
    /// Where a member's stream begins, or where its message is; `None` for a message that was ordered before.
    Position(Option<u64>),
    /// To [`Question::Deliveries`]; without gaps.
    Deliveries(Vec<Delivery>),
    /// Whether something was ended: a lock given back, a candidacy, a membership, a wait.
    Changed(bool),
    /// It was done.
    Done,
    /// It was not.
    Refused(Refusal),
}

/// Some keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The revision of the store.
    pub revision: u64,
    /// How many keys there are, those that are left out included.
    pub count: u64,
    /// In the order of their bytes.
    pub pairs: Vec<Pair>,
}

/// A key, and what it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// The key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
    /// The revision that created it.
    pub created: u64,
    /// The revision that wrote it last.
    pub modified: u64,
    /// How often it was written since it was created.
    pub version: u64,
    /// The lease with which it ends.
    pub lease: Option<Lease>,
}

/// What came of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transacted {
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
    Got(Option<Pair>),
    /// It was written.
    Put,
    /// So many were deleted.
    Deleted(u64),
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The revision that made it. A revision names a key once.
    pub revision: u64,
    /// Which key.
    pub key: Vec<u8>,
    /// What it has now; `None` if it was deleted.
    pub pair: Option<Pair>,
}

/// Where somebody stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Line {
    /// It holds the lock, or leads.
    Holding {
        /// Greater than that of everybody before: a fencing token, in an election the term. Whoever guards something should refuse
        /// a lower one than it has seen.
        fence: u64,
    },
    /// It waits.
    Waiting {
        /// For so many who wait before it.
        ahead: u32,
    },
}

/// Who leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// Its lease.
    pub lease: Lease,
    /// Its term.
    pub term: u64,
    /// What it says of itself.
    pub value: Vec<u8>,
}

/// What has come of an arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Passage {
    /// So many are missing.
    Waiting {
        /// How many.
        missing: u32,
    },
    /// All have arrived.
    Open {
        /// The same number for all who went through together.
        round: u64,
    },
}

/// One element of a group's stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Its place in the stream.
    pub position: u64,
    /// What is delivered.
    pub content: Delivered,
}

/// What is delivered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delivered {
    /// From here on these are the members.
    View {
        /// Greater than that of every view before.
        number: u64,
        /// Their leases and names.
        members: Vec<(Lease, String)>,
    },
    /// A message.
    Message {
        /// The sender's lease.
        sender: Lease,
        /// The sender's count.
        number: u64,
        /// What it says.
        payload: Vec<u8>,
    },
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// For programs.
    pub reason: Reason,
    /// For people.
    pub text: String,
}

/// Why something was not done, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// There is no such thing, or no longer: a lease that has ended is the usual one.
    Missing,
    /// It makes no sense.
    Invalid,
    /// Somebody else holds it.
    Busy,
    /// It was made from knowledge that is out of date.
    Stale,
    /// A limit would be passed.
    Limit,
    /// What is asked for is not kept any more.
    Compacted,
    /// Nobody leads, so nothing was done; ask again.
    Leaderless,
    /// The leader was lost: it may have been done or not.
    Unknown,
}
