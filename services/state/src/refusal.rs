// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a command changed nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a refusal can be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Thing {
    /// A node.
    Node,
    /// A join token.
    Token,
    /// A Distributed Container.
    Container,
    /// An endpoint of a container.
    Endpoint,
    /// A block of a container's slots.
    Block,
    /// A lease of time.
    Lease,
    /// A lock or semaphore.
    Lock,
    /// An election.
    Election,
    /// A barrier.
    Barrier,
    /// A group.
    Group,
    /// An image of containers.
    Image,
    /// An upgrade of nodes.
    Upgrade,
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "node",
            Self::Token => "join token",
            Self::Container => "container",
            Self::Endpoint => "endpoint",
            Self::Block => "block of slots",
            Self::Lease => "lease",
            Self::Lock => "lock",
            Self::Election => "election",
            Self::Barrier => "barrier",
            Self::Group => "group",
            Self::Image => "image",
            Self::Upgrade => "upgrade",
        })
    }
}

/// Why a command changed nothing. It is part of what all nodes agree on, so it says nothing of the node that answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The command is of a later version than the nodes have agreed to use.
    #[error(
        "the command needs version {needed} of the cluster's state, which is at version {agreed}; \
         nodes of an earlier release must be updated; if there are none, try again in a moment"
    )]
    TooNew {
        /// What the command needs.
        needed: u16,
        /// What is in use.
        agreed: u16,
    },
    /// The command's bytes are not a command.
    #[error("the command cannot be decoded; whoever sent it is of another release or at fault")]
    Malformed,
    /// There is no cluster yet.
    #[error("the cluster has not been formed yet; form it first")]
    NotFormed,
    /// There is no such thing, or no longer.
    #[error("there is no {what} {name}")]
    Missing {
        /// What was looked for.
        what: Thing,
        /// Its name or number.
        name: String,
    },
    /// There is one already.
    #[error("there is a {what} {name} already; choose another name, or remove it first")]
    Exists {
        /// What was to be made.
        what: Thing,
        /// Its name or number.
        name: String,
    },
    /// An argument makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// Somebody else has it, and the command did not want to wait.
    #[error("{what} {name} is held by somebody else; wait for it, or try again later")]
    Busy {
        /// What was wanted.
        what: Thing,
        /// Its name or number.
        name: String,
    },
    /// The command was made from knowledge that is out of date.
    #[error("{what} {name} has changed meanwhile: it is at {current}, not {given}; look again")]
    Stale {
        /// What was to be changed.
        what: Thing,
        /// Its name or number.
        name: String,
        /// The number it is at.
        current: u64,
        /// The number the command was made for.
        given: u64,
    },
    /// A limit would be passed.
    #[error("{what} would exceed its limit of {most}")]
    Limit {
        /// What is limited, with its unit.
        what: String,
        /// The limit.
        most: u64,
    },
    /// Revisions or positions up to this one are no longer kept.
    #[error("changes up to {oldest} are no longer kept, and {given} was asked for; read the present state and go on from there")]
    Compacted {
        /// The first that was wanted.
        given: u64,
        /// The last that has been dropped.
        oldest: u64,
    },
}

impl Refusal {
    /// There is no such thing.
    pub fn missing(what: Thing, name: impl ToString) -> Self {
        Self::Missing { what, name: name.to_string() }
    }

    /// There is one already.
    pub fn exists(what: Thing, name: impl ToString) -> Self {
        Self::Exists { what, name: name.to_string() }
    }

    /// A limit would be passed.
    pub fn limit(what: impl ToString, most: impl TryInto<u64>) -> Self {
        Self::Limit { what: what.to_string(), most: most.try_into().unwrap_or(u64::MAX) }
    }
}
