// SPDX-License-Identifier: MIT OR Apache-2.0
//! What has happened to the cluster: a ring of events that every node has in the same order.
//!
//! What is decided by a command, [`State::apply`](crate::State::apply) records by itself, so nobody can forget to. What only one
//! node sees, such as frames that were forged, that node has recorded with [`Command::Report`].
//!
//! Each event has the agreed time. People want the time of day too, on which nothing can be agreed: whoever leads says
//! what its clock shows ([`Command::Lead`]), and events are stamped by that. It is a hint, as good as the leader's clock.

use std::collections::VecDeque;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::containers::ContainerId;
use crate::images::Digest;
use crate::links::Transport;
use crate::nodes::{Machine, NodeId, Nodes, Seat};
use crate::refusal::Refusal;
use crate::time::Time;
use crate::upgrades::UpgradeId;

/// Events that are kept; of more, the oldest are dropped.
pub const EVENTS_MAX: usize = 4_096;
/// Most bytes of what a node says of something that it has seen.
pub const TEXT_BYTES_MAX: usize = 512;

/// What can be done with events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Says who leads and what its clock shows. A leader proposes it first of all, and when its clock was set.
    Lead {
        /// Which life of which node leads.
        by: Seat,
        /// In which term of the consensus.
        term: u64,
        /// Milliseconds since 1970 that its clock shows.
        unix_ms: u64,
    },
    /// Records what only one node has seen.
    Report {
        /// Which life of which node.
        by: Seat,
        /// What.
        sight: Sight,
        /// The node that it is about, if it is about another one.
        about: Option<NodeId>,
        /// More of it, for people.
        text: String,
    },
}

/// What a single node sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Sight {
    /// Its link to a node works.
    LinkUp,
    /// Its link to a node does not.
    LinkDown,
    /// Frames were dropped since they were forged, replayed or of strangers.
    FramesDropped,
    /// Somebody who does not belong to the cluster speaks on its segment.
    Stranger,
    /// What ran in a container has ended by itself. Since version 3.
    ContainerEnded,
    /// It has sent a machine all that it boots from. Since version 5.
    MachineBooted,
}

impl Command {
    /// The version that it came with.
    pub(crate) fn needs(&self) -> u16 {
        match self {
            Self::Report { sight: Sight::ContainerEnded, .. } => 3,
            Self::Report { sight: Sight::MachineBooted, .. } => 5,
            Self::Report { .. } | Self::Lead { .. } => 2,
        }
    }
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Happening {
    /// From here on events are recorded.
    Begun {
        /// The cluster's name.
        name: String,
    },
    /// The nodes use a later version of the state.
    Raised {
        /// Which one.
        version: u16,
    },
    /// Another node, or another term of the same one, leads.
    Leads {
        /// Which node.
        node: NodeId,
        /// In which term.
        term: u64,
    },
    /// A node has got its place.
    NodeJoined {
        /// Which one, in which life.
        seat: Seat,
        /// Its name.
        name: String,
        /// Which machine it is.
        machine: Machine,
    },
    /// A node is one like any other.
    NodeReady {
        /// Which one.
        node: NodeId,
    },
    /// A node is being emptied.
    NodeDraining {
        /// Which one.
        node: NodeId,
    },
    /// A node is no node any more.
    NodeRemoved {
        /// Which one.
        node: NodeId,
        /// Its name.
        name: String,
    },
    /// A machine that was removed may come back.
    MachineAllowed {
        /// Which machine.
        machine: Machine,
    },
    /// The others hear a node again.
    NodeUp {
        /// Which one.
        node: NodeId,
    },
    /// The others do not hear a node.
    NodeDown {
        /// Which one.
        node: NodeId,
    },
    /// A node has another name.
    NodeRenamed {
        /// Which one.
        node: NodeId,
        /// Its name before.
        from: String,
        /// Its name now.
        to: String,
    },
    /// A join token was made.
    TokenCreated {
        /// Its name.
        token: String,
    },
    /// A join token was made invalid.
    TokenRevoked {
        /// Its name.
        token: String,
    },
    /// The time of a join token is over.
    TokenExpired {
        /// Its name.
        token: String,
    },
    /// A machine has joined with a token.
    TokenUsed {
        /// Its name.
        token: String,
    },
    /// Something else carries a link.
    TransportChosen {
        /// The node at one end.
        a: NodeId,
        /// The node at the other.
        b: NodeId,
        /// By what; `None` for what the nodes find best.
        transport: Option<Transport>,
    },
    /// A container was made.
    ContainerCreated {
        /// Its id.
        id: ContainerId,
        /// Its name.
        name: String,
    },
    /// A container spans other nodes.
    ContainerScaled {
        /// Its id.
        id: ContainerId,
        /// Its name.
        name: String,
        /// Nodes that it spans now.
        nodes: Vec<NodeId>,
    },
    /// A container was ended.
    ContainerDeleted {
        /// Its id.
        id: ContainerId,
        /// Its name.
        name: String,
    },
    /// A node has seen something.
    Seen {
        /// Which node.
        by: NodeId,
        /// What.
        sight: Sight,
        /// The node that it is about, if it is about another one.
        about: Option<NodeId>,
        /// More of it.
        text: String,
    },
    /// A container was changed.
    ContainerChanged {
        /// Its id.
        id: ContainerId,
        /// Its name.
        name: String,
        /// Counts its changes.
        revision: u32,
    },
    /// A name stands for an image of containers.
    ImageNamed {
        /// The name.
        name: String,
        /// Which image.
        digest: Digest,
    },
    /// A name stands for no image any more.
    ImageForgotten {
        /// The name.
        name: String,
    },
    /// Nodes are being upgraded. This and what follows is since version 4.
    UpgradeStarted {
        /// Its number.
        upgrade: UpgradeId,
        /// To what.
        release: String,
    },
    /// A node restarts with the new image.
    UpgradeRestarts {
        /// In which upgrade.
        upgrade: UpgradeId,
        /// Which node.
        node: NodeId,
    },
    /// A node runs the new image.
    NodeUpgraded {
        /// By which upgrade.
        upgrade: UpgradeId,
        /// Which node.
        node: NodeId,
    },
    /// A node was not upgraded.
    UpgradeFailed {
        /// In which upgrade.
        upgrade: UpgradeId,
        /// Which node.
        node: NodeId,
        /// Why, for people.
        cause: String,
    },
    /// No more nodes begin.
    UpgradePaused {
        /// Its number.
        upgrade: UpgradeId,
        /// Why, for people.
        why: String,
    },
    /// It goes on.
    UpgradeResumed {
        /// Its number.
        upgrade: UpgradeId,
    },
    /// Somebody has ended it.
    UpgradeCancelled {
        /// Its number.
        upgrade: UpgradeId,
    },
    /// All its nodes run the new image.
    UpgradeComplete {
        /// Its number.
        upgrade: UpgradeId,
    },
}

impl Happening {
    /// A word for it, which stays the same from release to release.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Begun { .. } => "log-begun",
            Self::Raised { .. } => "version-raised",
            Self::Leads { .. } => "leader-elected",
            Self::NodeJoined { .. } => "node-joined",
            Self::NodeReady { .. } => "node-ready",
            Self::NodeDraining { .. } => "node-draining",
            Self::NodeRemoved { .. } => "node-removed",
            Self::MachineAllowed { .. } => "machine-allowed",
            Self::NodeUp { .. } => "node-up",
            Self::NodeDown { .. } => "node-down",
            Self::NodeRenamed { .. } => "node-renamed",
            Self::TokenCreated { .. } => "token-created",
            Self::TokenRevoked { .. } => "token-revoked",
            Self::TokenExpired { .. } => "token-expired",
            Self::TokenUsed { .. } => "token-used",
            Self::TransportChosen { .. } => "transport-chosen",
            Self::ContainerCreated { .. } => "container-created",
            Self::ContainerScaled { .. } => "container-scaled",
            Self::ContainerDeleted { .. } => "container-deleted",
            Self::ContainerChanged { .. } => "container-changed",
            Self::ImageNamed { .. } => "image-named",
            Self::ImageForgotten { .. } => "image-forgotten",
            Self::UpgradeStarted { .. } => "upgrade-started",
            Self::UpgradeRestarts { .. } => "upgrade-restarts",
            Self::NodeUpgraded { .. } => "node-upgraded",
            Self::UpgradeFailed { .. } => "upgrade-failed",
            Self::UpgradePaused { .. } => "upgrade-paused",
            Self::UpgradeResumed { .. } => "upgrade-resumed",
            Self::UpgradeCancelled { .. } => "upgrade-cancelled",
            Self::UpgradeComplete { .. } => "upgrade-complete",
            Self::Seen { sight, .. } => match sight {
                Sight::LinkUp => "link-up",
                Sight::LinkDown => "link-down",
                Sight::FramesDropped => "frames-dropped",
                Sight::Stranger => "stranger-heard",
                Sight::ContainerEnded => "container-ended",
                Sight::MachineBooted => "machine-booted",
            },
        }
    }

    /// The nodes that it is about, the one that has seen it first.
    pub fn nodes(&self) -> Vec<NodeId> {
        match self {
            Self::Leads { node, .. }
            | Self::NodeReady { node }
            | Self::NodeDraining { node }
            | Self::NodeRemoved { node, .. }
            | Self::NodeUp { node }
            | Self::NodeDown { node }
            | Self::NodeRenamed { node, .. }
            | Self::UpgradeRestarts { node, .. }
            | Self::NodeUpgraded { node, .. }
            | Self::UpgradeFailed { node, .. } => vec![*node],
            Self::NodeJoined { seat, .. } => vec![seat.id],
            Self::TransportChosen { a, b, .. } => vec![*a, *b],
            Self::ContainerScaled { nodes, .. } => nodes.clone(),
            Self::Seen { by, about, .. } => [*by].into_iter().chain(*about).collect(),
            Self::Begun { .. }
            | Self::Raised { .. }
            | Self::MachineAllowed { .. }
            | Self::TokenCreated { .. }
            | Self::TokenRevoked { .. }
            | Self::TokenExpired { .. }
            | Self::TokenUsed { .. }
            | Self::ContainerCreated { .. }
            | Self::ContainerDeleted { .. }
            | Self::ContainerChanged { .. }
            | Self::ImageNamed { .. }
            | Self::ImageForgotten { .. }
            | Self::UpgradeStarted { .. }
            | Self::UpgradePaused { .. }
            | Self::UpgradeResumed { .. }
            | Self::UpgradeCancelled { .. }
            | Self::UpgradeComplete { .. } => Vec::new(),
        }
    }
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begun { name } => write!(f, "events of cluster {name} are recorded from here on"),
            Self::Raised { version } => write!(f, "the nodes use version {version} of the state"),
            Self::Leads { node, term } => write!(f, "node {node} leads, in term {term}"),
            Self::NodeJoined { seat, name, machine } => {
                write!(f, "machine {machine} is node {seat}, named {name}")
            }
            Self::NodeReady { node } => write!(f, "node {node} is ready"),
            Self::NodeDraining { node } => write!(f, "node {node} is being drained"),
            Self::NodeRemoved { node, name } => write!(f, "node {node}, {name}, was removed"),
            Self::MachineAllowed { machine } => {
                write!(f, "machine {machine} may be a node again")
            }
            Self::NodeUp { node } => write!(f, "node {node} is heard again"),
            Self::NodeDown { node } => write!(f, "node {node} is not heard any more"),
            Self::NodeRenamed { node, from, to } => {
                write!(f, "node {node} is named {to} and no longer {from}")
            }
            Self::TokenCreated { token } => write!(f, "join token {token} was created"),
            Self::TokenRevoked { token } => write!(f, "join token {token} was revoked"),
            Self::TokenExpired { token } => write!(f, "join token {token} has run out"),
            Self::TokenUsed { token } => write!(f, "a machine has joined with token {token}"),
            Self::TransportChosen { a, b, transport: None } => {
                write!(f, "the nodes choose what carries the link between nodes {a} and {b}")
            }
            Self::TransportChosen { a, b, transport: Some(transport) } => {
                write!(f, "the link between nodes {a} and {b} is to go over {transport:?}")
            }
            Self::ContainerCreated { id, name } => write!(f, "container {id}, {name}, was created"),
            Self::ContainerScaled { id, name, nodes } => {
                let nodes: Vec<_> = nodes.iter().map(ToString::to_string).collect();
                write!(f, "container {id}, {name}, spans nodes {}", nodes.join(", "))
            }
            Self::ContainerDeleted { id, name } => write!(f, "container {id}, {name}, was deleted"),
            Self::ContainerChanged { id, name, revision } => {
                write!(f, "container {id}, {name}, was changed: revision {revision}")
            }
            Self::ImageNamed { name, digest } => {
                write!(f, "image {name} stands for the archive with SHA-256 {digest}")
            }
            Self::ImageForgotten { name } => write!(f, "image {name} was removed"),
            Self::UpgradeStarted { upgrade, release } => {
                write!(f, "upgrade {upgrade} to {release} has begun")
            }
            Self::UpgradeRestarts { upgrade, node } => {
                write!(f, "node {node} restarts with a new image, in upgrade {upgrade}")
            }
            Self::NodeUpgraded { upgrade, node } => {
                write!(f, "node {node} runs the new image of upgrade {upgrade}")
            }
            Self::UpgradeFailed { upgrade, node, cause } => {
                write!(f, "node {node} was not upgraded, in upgrade {upgrade}: {cause}")
            }
            Self::UpgradePaused { upgrade, why } => {
                write!(f, "upgrade {upgrade} is paused: {why}")
            }
            Self::UpgradeResumed { upgrade } => write!(f, "upgrade {upgrade} goes on"),
            Self::UpgradeCancelled { upgrade } => write!(f, "upgrade {upgrade} was cancelled"),
            Self::UpgradeComplete { upgrade } => write!(f, "upgrade {upgrade} is complete"),
            Self::Seen { by, text, .. } => write!(f, "node {by}: {text}"),
        }
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in agreed time.
    pub at: Time,
    /// When by the clock of who led, in milliseconds since 1970; `None` before somebody has said what it shows.
    pub unix_ms: Option<u64>,
    /// What.
    pub what: Happening,
}

/// The last events, and by what they are stamped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    ring: VecDeque<Event>,
    /// The number of the last event; the first has 1.
    last: u64,
    led: Option<(NodeId, u64)>,
    /// An agreed time, and what the leader's clock showed then.
    clock: Option<(Time, u64)>,
}

impl Events {
    /// The number of the last event; 0 before the first.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The number of the oldest event that is kept; that of the next one if there is none.
    pub fn oldest(&self) -> u64 {
        self.last + 1 - self.ring.len() as u64
    }

    /// Those with numbers above `after`, in order.
    pub fn after(&self, after: u64) -> impl Iterator<Item = (u64, &Event)> + '_ {
        let oldest = self.oldest();
        let skipped = (after.saturating_add(1)).saturating_sub(oldest);
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX).min(self.ring.len());
        (oldest + skipped as u64..).zip(self.ring.range(skipped..))
    }

    /// Whose lead was recorded last, and its term.
    pub fn led(&self) -> Option<(NodeId, u64)> {
        self.led
    }

    /// What the clock that events are stamped by shows at an agreed time.
    pub fn unix_ms(&self, at: Time) -> Option<u64> {
        let (then, unix_ms) = self.clock?;
        Some(unix_ms.saturating_add(at.0).saturating_sub(then.0))
    }

    pub(crate) fn record(&mut self, at: Time, what: Happening) {
        if self.ring.len() >= EVENTS_MAX {
            self.ring.pop_front();
        }
        self.last += 1;
        self.ring.push_back(Event { at, unix_ms: self.unix_ms(at), what });
    }

    pub(crate) fn apply(
        &mut self,
        now: Time,
        nodes: &Nodes,
        command: &Command,
    ) -> Result<(), Refusal> {
        match command {
            Command::Lead { by, term, unix_ms } => {
                nodes.check_present(*by)?;
                // The lead of an earlier term may be agreed on late.
                if self.led.is_some_and(|(_, led)| *term < led) {
                    return Ok(());
                }
                self.clock = Some((now, *unix_ms));
                if self.led != Some((by.id, *term)) {
                    self.led = Some((by.id, *term));
                    self.record(now, Happening::Leads { node: by.id, term: *term });
                }
            }
            Command::Report { by, sight, about, text } => {
                nodes.check_present(*by)?;
                if text.len() > TEXT_BYTES_MAX {
                    return Err(Refusal::limit("bytes of what a node has seen", TEXT_BYTES_MAX));
                }
                if text.chars().any(char::is_control) {
                    return Err(Refusal::Invalid(
                        "what a node has seen cannot be told with control characters".into(),
                    ));
                }
                let (by, sight, about, text) = (by.id, *sight, *about, text.clone());
                self.record(now, Happening::Seen { by, sight, about, text });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up(node: NodeId) -> Happening {
        Happening::NodeUp { node }
    }

    #[test]
    fn the_oldest_are_dropped_and_numbers_go_on() {
        let mut events = Events::default();
        assert_eq!((events.oldest(), events.after(0).count()), (1, 0));
        let count = EVENTS_MAX as u64 + 10;
        for n in 0..count {
            events.record(Time(n), up(0));
        }
        assert_eq!((events.oldest(), events.last()), (11, count));
        assert_eq!(events.after(0).next().unwrap().0, 11);
        let found: Vec<_> = events.after(count - 2).map(|(n, event)| (n, event.at.0)).collect();
        assert_eq!(found, [(count - 1, count - 2), (count, count - 1)]);
        assert_eq!(events.after(count).count(), 0);
        assert_eq!(events.after(u64::MAX).count(), 0);
    }

    #[test]
    fn events_are_stamped_by_the_clock_of_who_leads() {
        let mut events = Events::default();
        let mut nodes = Nodes::default();
        let seat = nodes.join(&crate::nodes::tests::join(1, 10), 1).unwrap().0;
        events.record(Time(5), up(0));
        let lead = |term, unix_ms| Command::Lead { by: seat, term, unix_ms };
        events.apply(Time(100), &nodes, &lead(3, 1_000_000)).unwrap();
        events.record(Time(250), up(0));
        // Its clock was set back; that is nothing that has happened to the cluster.
        events.apply(Time(300), &nodes, &lead(3, 500_000)).unwrap();
        events.record(Time(301), up(0));
        // Agreed on late.
        events.apply(Time(302), &nodes, &lead(2, 7)).unwrap();
        events.record(Time(303), up(0));
        let stamps: Vec<_> = events.after(0).map(|(_, event)| event.unix_ms).collect();
        assert_eq!(stamps, [None, Some(1_000_000), Some(1_000_150), Some(500_001), Some(500_003)]);
        assert_eq!(events.led(), Some((seat.id, 3)));
    }

    #[test]
    fn only_a_present_node_reports_and_only_what_fits_on_a_line() {
        let mut events = Events::default();
        let mut nodes = Nodes::default();
        let by = nodes.join(&crate::nodes::tests::join(1, 10), 1).unwrap().0;
        let report = |by, text: &str| Command::Report {
            by,
            sight: Sight::LinkDown,
            about: Some(3),
            text: text.into(),
        };
        events.apply(Time(0), &nodes, &report(by, "the link to node 3 is down")).unwrap();
        let earlier = Seat { incarnation: by.incarnation + 1, ..by };
        for wrong in
            [report(earlier, "x"), report(by, "a\nb"), report(by, &"x".repeat(TEXT_BYTES_MAX + 1))]
        {
            assert!(events.apply(Time(0), &nodes, &wrong).is_err(), "{wrong:?}");
        }
        let (_, event) = events.after(0).next().unwrap();
        assert_eq!((event.what.kind(), event.what.nodes()), ("link-down", vec![by.id, 3]));
        assert_eq!(events.last(), 1);
    }
}
