// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can be agreed on, and how it is written down.

use serde::{Deserialize, Serialize};

use crate::refusal::Refusal;
use crate::time::Time;
use crate::{
    barriers, containers, elections, events, groups, images, kv, leases, lifecycle, line, links,
    locks, nodes, tokens, upgrades,
};

/// The latest version of commands and of the state that this release understands.
///
/// A new variant at the end of an enumeration, here or in a module, is a new version; nothing that has been released changes.
/// A command needs the version that it came with. The nodes use it only once a [`Command::Raise`] was agreed on, which asks
/// that every node understands it. So either all nodes apply a command or all refuse it.
pub const VERSION: u16 = 5;

/// A change of the state that is proposed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Nothing but that time passes: what is due ends.
    Tick,
    /// Forms the cluster: the first command of all.
    Form {
        /// Its name, chosen by people.
        name: String,
        /// Its id, drawn at random.
        id: u64,
        /// The first nodes, which get ids from 0 in this order.
        nodes: Vec<nodes::Join>,
    },
    /// Lets the nodes use a later version of commands.
    Raise {
        /// Which one.
        version: u16,
    },
    /// About nodes.
    Nodes(nodes::Command),
    /// About join tokens.
    Tokens(tokens::Command),
    /// About links.
    Links(links::Command),
    /// About Distributed Containers.
    Containers(containers::Command),
    /// About keys and values.
    Kv(kv::Command),
    /// About leases.
    Leases(leases::Command),
    /// About locks.
    Locks(locks::Command),
    /// About elections.
    Elections(elections::Command),
    /// About barriers.
    Barriers(barriers::Command),
    /// About groups.
    Groups(groups::Command),
    /// About events. Since version 2.
    Events(events::Command),
    /// About what becomes of nodes. Since version 2.
    Lifecycle(lifecycle::Command),
    /// About images of containers. Since version 3.
    Images(images::Command),
    /// About upgrades of nodes. Since version 4.
    Upgrades(upgrades::Command),
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It was done.
    Done,
    /// Whether there was anything to do.
    Changed(bool),
    /// A node has this place.
    Seated(nodes::Seat),
    /// What became of the endpoints of a node that died, by container.
    Fates(Vec<(containers::ContainerId, containers::Fate)>),
    /// What came of a command about containers.
    Container(containers::Answer),
    /// What came of a transaction.
    Transaction(kv::TransactionAnswer),
    /// A lease was granted.
    Granted(leases::LeaseId),
    /// A lease lasts for so many milliseconds from now.
    KeptAlive(u64),
    /// Where somebody stands in the line of a lock or election.
    Standing(line::Standing),
    /// What came of arriving at a barrier.
    Passage(barriers::Passage),
    /// The position of a delivery in the stream of a group; `None` for a message that was ordered before.
    Position(Option<u64>),
    /// The number of an upgrade. Since version 4.
    Upgrade(upgrades::UpgradeId),
}

/// What came of a command, or why nothing did.
pub type Outcome = Result<Answer, Refusal>;

/// A command as it stands in the log: with the time that its leader gave it, and the version that it needs, which can be read
/// without understanding the command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The version that the command needs.
    pub needs: u16,
    /// When it was proposed, in agreed time.
    pub now: Time,
    body: Vec<u8>,
}

impl Command {
    /// The version in which the command came.
    pub fn needs(&self) -> u16 {
        match self {
            Self::Upgrades(_) => 4,
            Self::Images(_) => 3,
            Self::Containers(command) => command.needs(),
            Self::Events(command) => command.needs(),
            Self::Lifecycle(_)
            | Self::Tokens(tokens::Command::Issue { .. } | tokens::Command::Redeem { .. }) => 2,
            _ => 1,
        }
    }
}

impl Entry {
    /// Writes a command down.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] if it cannot be, which does not happen to a command that fits into memory twice.
    pub fn new(now: Time, command: &Command) -> Result<Self, Refusal> {
        let body = postcard::to_allocvec(command).map_err(|_| Refusal::Malformed)?;
        Ok(Self { needs: command.needs(), now, body })
    }

    /// Reads the command, if the nodes have agreed to use the version that it needs.
    pub(crate) fn command(&self, agreed: u16) -> Result<Command, Refusal> {
        if self.needs > agreed {
            return Err(Refusal::TooNew { needed: self.needs, agreed });
        }
        match postcard::take_from_bytes(&self.body) {
            Ok((command, [])) => Ok(command),
            Ok(_) | Err(_) => Err(Refusal::Malformed),
        }
    }

    /// How many bytes the command takes.
    pub fn bytes(&self) -> usize {
        self.body.len()
    }
}
