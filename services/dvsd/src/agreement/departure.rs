// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a node is emptied of what the others need: its vote and its lead.
//!
//! Nobody can be asked for what only a node knew, so before it goes its vote and lead go to another one. That takes a majority
//! which it is still part of; a node that goes without is one that fails.

use std::time::Duration;

use dvs_consensus::{Consensus, ProposeError, Status};
use dvs_state::lifecycle::{Command as Lifecycle, Until};
use dvs_state::nodes::{NodeId, Phase};
use dvs_state::{Command, Refusal, State};
use tokio::time::{sleep, Instant};

use super::mirror::member_of;
use super::Access;
use crate::membership::{Liveness, View};

/// How often is looked whether the vote has gone.
const LOOK: Duration = Duration::from_millis(100);

/// Why a node was not emptied.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Obstacle {
    /// This node takes no part in the consensus.
    #[error("{0}")]
    Absent(String),
    /// The nodes could not agree on it.
    #[error(transparent)]
    Failed(#[from] ProposeError),
    /// They refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nobody else could take over.
    #[error("{0}")]
    Alone(String),
    /// It takes too long.
    #[error("{0}")]
    Slow(String),
}

/// What a node still does for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duties {
    /// It votes.
    pub votes: bool,
    /// It leads.
    pub leads: bool,
}

impl Duties {
    /// Those of a node, as this node knows.
    pub fn of(status: &Status, id: NodeId) -> Self {
        let is = |member| status.peers.get(member).is_some_and(|peer| peer.node == id);
        Self { votes: status.voters.iter().any(is), leads: status.leader.as_ref().is_some_and(is) }
    }

    /// What a node still has that another one should; `None` once it has neither vote nor lead and somebody else leads.
    fn left(status: &Status, id: NodeId) -> Option<&'static str> {
        match Self::of(status, id) {
            Self { leads: true, .. } => Some("leads still"),
            Self { votes: true, .. } => Some("votes still"),
            // One that gave up its lead hears of another leader when that lets it learn.
            _ if !status.leader.is_some_and(|leader| status.peers.contains_key(&leader)) => {
                Some("has given up its lead, and nobody else leads")
            }
            _ => None,
        }
    }
}

/// Whether the others can go on without a node: some other one is heard that may vote, and a majority of the voters, which has to
/// agree on the change, is heard.
///
/// # Errors
/// For people: why not.
pub fn spare(status: &Status, view: &View, state: &State, id: NodeId) -> Result<(), String> {
    let heard = |node: NodeId, member: u64| {
        view.members.iter().any(|seen| {
            seen.seat.id == node
                && seen.liveness == Liveness::Alive
                && member_of(seen.instance, seen.seat) == member
        })
    };
    let voters = status.voters.iter().filter_map(|member| {
        let node = status.peers.get(member)?.node;
        Some((node, *member))
    });
    let present = voters.filter(|(node, member)| heard(*node, *member)).count();
    if present * 2 <= status.voters.len() {
        return Err(format!(
            "{present} of the {} voters are heard, which is no majority, so the vote of node {id} cannot be given \
             to another node",
            status.voters.len()
        ));
    }
    let other = state.nodes().iter().any(|(other, node)| {
        let able = other != id && node.phase != Phase::Draining;
        able && node.member.is_some_and(|member| heard(other, member))
    });
    match other {
        true => Ok(()),
        false => Err(format!(
            "no other node is there that could vote and lead instead of node {id}: all are down or draining"
        )),
    }
}

impl Access {
    /// Empties a node of its vote and lead, and waits until it has neither. With `force` it goes on where no other node can take
    /// them over.
    ///
    /// # Errors
    /// [`Obstacle`]. It may be that the node is being drained nevertheless.
    pub async fn vacate(
        &self,
        id: NodeId,
        until: Until,
        force: bool,
        patience: Duration,
    ) -> Result<(), Obstacle> {
        let consensus = self.consensus().map_err(Obstacle::Absent)?;
        let spared = consensus.look(|state| spare(&consensus.status(), &self.view(), state, id));
        match spared {
            Err(why) if !force => {
                return Err(Obstacle::Alone(format!(
                    "{why}; the cluster could agree on nothing while it is away, and might lose what it \
                     agreed on; start another node first, or use --force"
                )));
            }
            _ => {}
        }
        let able = spared.is_ok();
        // Without a majority nothing is agreed on, and whoever forces it knows.
        let drained = self.drain(&consensus, id, until).await;
        if !able {
            return Ok(());
        }
        drained?;
        let deadline = Instant::now() + patience;
        while let Some(left) = Duties::left(&consensus.status(), id) {
            if Instant::now() >= deadline {
                let text = format!(
                    "node {id} {left} after {} s; look at `dvsctl cluster status`",
                    patience.as_secs()
                );
                return if force { Ok(()) } else { Err(Obstacle::Slow(text)) };
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    async fn drain(&self, consensus: &Consensus, id: NodeId, until: Until) -> Result<(), Obstacle> {
        let seat = consensus.look(|state| state.nodes().seat(id))?;
        let command = Command::Lifecycle(Lifecycle::Drain { seat, until });
        consensus.propose(&command).await??;
        Ok(())
    }
}
