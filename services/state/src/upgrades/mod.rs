// SPDX-License-Identifier: MIT OR Apache-2.0
//! Upgrades: which image the nodes are to run, and how far each has come. Since version 4.
//!
//! One upgrade goes on at a time. Its leader decides what comes next ([`plan`]); the node that is meant does it and says what came of it.
//! Whatever was agreed on outlasts both, so that an upgrade goes on whoever leads, and nothing is begun twice: who takes a step says
//! which one was taken before.

pub mod plan;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::images::Digest;
use crate::nodes::{NodeId, Nodes, Seat};
use crate::refusal::{Refusal, Thing};
use crate::time::Time;

/// How many upgrades that have ended are remembered.
pub const PAST_MAX: usize = 32;
/// Most bytes of why something failed; what is longer ends there.
pub const CAUSE_BYTES_MAX: usize = 400;
/// Most bytes of the name of a release.
pub const RELEASE_BYTES_MAX: usize = 64;

/// Numbers upgrades in the order in which they were begun; the first is 1.
pub type UpgradeId = u32;

/// What nodes are upgraded to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// SHA-256 of the file.
    pub digest: Digest,
    /// Its size.
    pub bytes: u64,
    /// What a node that runs it says it is.
    pub release: String,
}

/// How an upgrade is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// How many nodes, in the order that was given, must be done before the others begin.
    pub canary: u16,
    /// How many nodes of the cluster may be away at a time, those included that are down for another reason; at least 1.
    pub max_unavailable: u16,
    /// Seconds that a node may take for each step before it has failed.
    pub patience_s: u32,
}

/// What a node does in an upgrade.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// It waits for its turn.
    Waiting,
    /// It gets the bundle and checks it.
    Fetching,
    /// It has the bundle, and waits until it may go.
    Ready,
    /// It gives away what it does for the others, and restarts with the new image.
    Restarting {
        /// The life that it leaves.
        left: Seat,
    },
    /// It runs the new image and is well.
    Done,
    /// It is not upgraded.
    Failed {
        /// Why, for people.
        cause: String,
    },
}

impl Step {
    /// Whether the step may follow on another one.
    fn follows(&self, before: &Step) -> bool {
        match (before, self) {
            (Self::Waiting, Self::Fetching)
            // One that runs the image already.
            | (Self::Waiting | Self::Fetching | Self::Ready, Self::Done)
            | (Self::Fetching, Self::Ready)
            | (Self::Ready, Self::Restarting { .. })
            | (Self::Restarting { .. }, Self::Done)
            // One that has come back with another image, as one without a disk does when its power is cut.
            | (Self::Done, Self::Waiting) => true,
            (before, Self::Failed { .. }) => !matches!(before, Self::Failed { .. } | Self::Done),
            _ => false,
        }
    }

    /// Whether the node is away, or is about to be.
    fn is_away(&self) -> bool {
        matches!(self, Self::Restarting { .. })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting => f.write_str("waiting"),
            Self::Fetching => f.write_str("fetching"),
            Self::Ready => f.write_str("ready"),
            Self::Restarting { .. } => f.write_str("restarting"),
            Self::Done => f.write_str("done"),
            Self::Failed { cause } => write!(f, "failed: {cause}"),
        }
    }
}

/// How far a node has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What it does.
    pub step: Step,
    /// Since when.
    pub since: Time,
    /// How often it restarted in this upgrade.
    pub restarts: u32,
}

/// What an upgrade does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// It goes on by itself.
    Running,
    /// Nodes that are restarting go on, and no other begins.
    Paused {
        /// Why, for people.
        why: String,
    },
    /// All its nodes are done. One that comes back with another image is upgraded again.
    Complete,
    /// Somebody has ended it.
    Cancelled,
}

/// An upgrade.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgrade {
    /// Its number.
    pub id: UpgradeId,
    /// To what.
    pub bundle: Bundle,
    /// How it is to go.
    pub rules: Rules,
    /// What it does.
    pub phase: Phase,
    /// Its nodes, in the order in which they go.
    pub order: Vec<NodeId>,
    /// How far each has come.
    pub nodes: BTreeMap<NodeId, Progress>,
    /// When it was begun.
    pub started: Time,
    /// When its phase changed.
    pub changed: Time,
}

/// An upgrade that another one has followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// Its number.
    pub id: UpgradeId,
    /// To what.
    pub bundle: Bundle,
    /// How it ended.
    pub phase: Phase,
    /// When it was begun.
    pub started: Time,
    /// When its phase changed for the last time.
    pub changed: Time,
    /// Why nodes failed.
    pub failures: Vec<(NodeId, String)>,
}

/// What can be done about upgrades.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Begins one, after the one before has ended.
    Start {
        /// To what.
        bundle: Bundle,
        /// Of which nodes, in this order.
        nodes: Vec<NodeId>,
        /// How.
        rules: Rules,
    },
    /// Takes a step of a node.
    Advance {
        /// Which upgrade.
        upgrade: UpgradeId,
        /// Which node.
        node: NodeId,
        /// The step that it was at.
        from: Step,
        /// The step that it takes.
        to: Step,
    },
    /// Lets no more nodes begin.
    Pause {
        /// Which upgrade.
        upgrade: UpgradeId,
        /// Why, for people.
        why: String,
    },
    /// Goes on, and tries nodes again that have failed.
    Resume {
        /// Which upgrade.
        upgrade: UpgradeId,
    },
    /// Ends it. Nodes stay with what they have.
    Cancel {
        /// Which upgrade.
        upgrade: UpgradeId,
    },
    /// Says that all its nodes are done.
    Complete {
        /// Which upgrade.
        upgrade: UpgradeId,
    },
}

/// The upgrades of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgrades {
    last: UpgradeId,
    current: Option<Upgrade>,
    past: VecDeque<Past>,
}

impl Upgrade {
    /// Whether it is not over, be it that it is paused.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Paused { .. })
    }

    /// Why nodes failed.
    pub fn failures(&self) -> impl Iterator<Item = (NodeId, &str)> + '_ {
        self.nodes.iter().filter_map(|(id, progress)| match &progress.step {
            Step::Failed { cause } => Some((*id, cause.as_str())),
            _ => None,
        })
    }

    /// What is remembered of it once another one has followed.
    pub fn summary(&self) -> Past {
        Past {
            id: self.id,
            bundle: self.bundle.clone(),
            phase: self.phase.clone(),
            started: self.started,
            changed: self.changed,
            failures: self.failures().map(|(id, cause)| (id, cause.to_owned())).collect(),
        }
    }

    fn set(&mut self, now: Time, phase: Phase) {
        self.phase = phase;
        self.changed = now;
    }
}

impl Upgrades {
    /// The last one that was begun.
    pub fn current(&self) -> Option<&Upgrade> {
        self.current.as_ref()
    }

    /// Those before it, the latest first.
    pub fn past(&self) -> impl Iterator<Item = &Past> + '_ {
        self.past.iter()
    }

    /// What the nodes ran before the last one that was begun, as far as it is known: the bundle of the latest that was completed.
    pub fn before(&self) -> Option<&Bundle> {
        let release = self.current.as_ref().map(|current| &current.bundle.release);
        let mut completed = self.past.iter().filter(|past| past.phase == Phase::Complete);
        completed.find(|past| Some(&past.bundle.release) != release).map(|past| &past.bundle)
    }

    /// The bundles that are still of use.
    pub fn bundles(&self) -> impl Iterator<Item = &Bundle> + '_ {
        self.current.iter().map(|current| &current.bundle).chain(self.before())
    }

    pub(crate) fn apply(
        &mut self,
        nodes: &Nodes,
        now: Time,
        command: &Command,
    ) -> Result<UpgradeId, Refusal> {
        match command {
            Command::Start { bundle, nodes: order, rules } => {
                self.start(nodes, now, bundle, order, *rules)
            }
            Command::Advance { upgrade, node, from, to } => {
                let current = self.open(*upgrade, true)?;
                let missing = || Refusal::missing(Thing::Node, format!("{node} in this upgrade"));
                let progress = current.nodes.get_mut(node).ok_or_else(missing)?;
                if progress.step != *from || !to.follows(from) {
                    return Err(Refusal::Invalid(format!(
                        "node {node} is at `{}` in upgrade {upgrade}; from `{from}` to `{to}` is no way from there",
                        progress.step
                    )));
                }
                let restarts = progress.restarts + u32::from(to.is_away());
                *progress = Progress { step: limited(to), since: now, restarts };
                if *to == Step::Waiting {
                    current.set(now, Phase::Running);
                }
                Ok(*upgrade)
            }
            Command::Pause { upgrade, why } => {
                let current = self.open(*upgrade, false)?;
                current.set(now, Phase::Paused { why: cut(why) });
                Ok(*upgrade)
            }
            Command::Resume { upgrade } => {
                let current = self.open(*upgrade, false)?;
                for progress in current.nodes.values_mut() {
                    if matches!(progress.step, Step::Failed { .. }) {
                        *progress = Progress { step: Step::Waiting, since: now, restarts: 0 };
                    }
                }
                current.set(now, Phase::Running);
                Ok(*upgrade)
            }
            Command::Cancel { upgrade } => {
                self.open(*upgrade, true)?.set(now, Phase::Cancelled);
                Ok(*upgrade)
            }
            Command::Complete { upgrade } => {
                let current = self.open(*upgrade, false)?;
                if current.nodes.values().any(|progress| progress.step != Step::Done) {
                    let text = format!("upgrade {upgrade} has nodes that are not done");
                    return Err(Refusal::Invalid(text));
                }
                current.set(now, Phase::Complete);
                Ok(*upgrade)
            }
        }
    }

    fn start(
        &mut self,
        nodes: &Nodes,
        now: Time,
        bundle: &Bundle,
        order: &[NodeId],
        rules: Rules,
    ) -> Result<UpgradeId, Refusal> {
        if let Some(open) = self.current.as_ref().filter(|current| current.is_open()) {
            return Err(Refusal::Busy { what: Thing::Upgrade, name: open.id.to_string() });
        }
        crate::check_name("a release", &bundle.release)?;
        if bundle.release.len() > RELEASE_BYTES_MAX {
            return Err(Refusal::limit("bytes of the name of a release", RELEASE_BYTES_MAX));
        }
        if rules.max_unavailable == 0 || rules.patience_s == 0 {
            let text = "at least one node must be allowed to be away, for at least a second";
            return Err(Refusal::Invalid(text.into()));
        }
        let mut progress = BTreeMap::new();
        for id in order {
            nodes.seat(*id)?;
            let waiting = Progress { step: Step::Waiting, since: now, restarts: 0 };
            if progress.insert(*id, waiting).is_some() {
                return Err(Refusal::Invalid(format!("node {id} is named twice")));
            }
        }
        if progress.is_empty() {
            return Err(Refusal::Invalid("an upgrade of no node does nothing; name one".into()));
        }
        if let Some(ended) = &self.current {
            self.past.push_front(ended.summary());
            self.past.truncate(PAST_MAX);
        }
        self.last += 1;
        self.current = Some(Upgrade {
            id: self.last,
            bundle: bundle.clone(),
            rules,
            phase: Phase::Running,
            order: order.to_vec(),
            nodes: progress,
            started: now,
            changed: now,
        });
        Ok(self.last)
    }

    /// Leaves out a node that was removed.
    pub(crate) fn forget(&mut self, id: NodeId) {
        if let Some(current) = &mut self.current {
            current.nodes.remove(&id);
            current.order.retain(|other| *other != id);
        }
    }

    /// The current one, if it has this number and is not over, or is complete where that will do.
    fn open(&mut self, id: UpgradeId, complete: bool) -> Result<&mut Upgrade, Refusal> {
        let current = self.current.as_mut().filter(|current| current.id == id);
        let current = current.ok_or_else(|| Refusal::missing(Thing::Upgrade, id))?;
        match &current.phase {
            Phase::Running | Phase::Paused { .. } => Ok(current),
            Phase::Complete if complete => Ok(current),
            Phase::Complete | Phase::Cancelled => {
                Err(Refusal::Invalid(format!("upgrade {id} has ended")))
            }
        }
    }
}

fn limited(step: &Step) -> Step {
    match step {
        Step::Failed { cause } => Step::Failed { cause: cut(cause) },
        other => other.clone(),
    }
}

/// What is kept of a text for people.
pub(crate) fn cut(text: &str) -> String {
    let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut bytes = 0;
    printable
        .take_while(|c| {
            bytes += c.len_utf8();
            bytes <= CAUSE_BYTES_MAX
        })
        .collect()
}
