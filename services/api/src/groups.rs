// SPDX-License-Identifier: MIT OR Apache-2.0
//! Groups: members that all see the same messages and the same changes of membership, in the same order.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::KvValue;

/// An element of `GET /v1/groups`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Group {
    /// Its name; it exists while it has members.
    pub name: String,
    /// Position of what was delivered last.
    pub last: u64,
    /// Who belongs to it.
    pub members: Vec<GroupMember>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GroupMember {
    /// Its lease.
    pub lease: u64,
    /// By which name the others know it.
    pub name: String,
}

/// Body of `POST /v1/groups`. Asking again from the same lease is harmless.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupJoin {
    /// Which group.
    pub group: String,
    /// Under which lease.
    pub lease: u64,
    /// By which name the others are to know the member.
    pub name: String,
}

/// Body of `POST /v1/groups/leave`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupLeave {
    /// Which group.
    pub group: String,
    /// Under which lease.
    pub lease: u64,
}

/// Answer of `POST /v1/groups/leave`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GroupLeft {
    /// Whether the lease was a member.
    pub left: bool,
}

/// Body of `POST /v1/groups/messages`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupMessage {
    /// To which group.
    pub group: String,
    /// The sender's lease; it is a member.
    pub lease: u64,
    /// Counts the sender's messages from 1 up. Sending one again because its answer was lost is harmless.
    pub number: u64,
    /// What it says, at most 64 KiB.
    pub payload: KvValue,
}

/// Answer of `POST /v1/groups` and `POST /v1/groups/messages`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GroupPosition {
    /// Where the member's stream begins, or where the message is in it; `None` for a message that was ordered before.
    pub position: Option<u64>,
}

/// Body of `POST /v1/groups/acknowledge`: up to there, a member has taken everything, and it need not be kept for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupAcknowledgement {
    /// Which group.
    pub group: String,
    /// Under which lease.
    pub lease: u64,
    /// The position.
    pub up_to: u64,
}

/// Answer of `POST /v1/groups/acknowledge`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GroupAcknowledged {
    /// The position.
    pub up_to: u64,
}

/// An element of the answer of `GET /v1/groups/deliveries?group=G&lease=L&from=P&wait_ms=T`, which waits until there is something at this
/// position, or the time is over. All members get the same, without gaps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GroupDelivery {
    /// Its place in the stream.
    pub position: u64,
    /// What is delivered.
    pub content: GroupContent,
}

/// What is delivered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GroupContent {
    /// From here on these are the members.
    View {
        /// Greater than that of every view before.
        number: u64,
        /// Who they are.
        members: Vec<GroupMember>,
    },
    /// A message.
    Message {
        /// The sender's lease.
        sender: u64,
        /// The sender's count.
        number: u64,
        /// What it says.
        payload: KvValue,
    },
}
