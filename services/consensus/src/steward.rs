// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a leader does by itself: lets time pass, and sees to it that the right members vote.

use std::collections::BTreeMap;
use std::time::Duration;

use dvs_state::nodes::{MemberId, Phase, Role};
use dvs_state::{Command, State};
use openraft::ChangeMembers;
use tokio::time::{sleep, Instant};

use crate::consensus::Consensus;
use crate::types::Peer;
use crate::voters::{next_step, Standing, Step};

/// Entries that a member may be behind and count as current.
const CURRENT_WITHIN: u64 = 200;
/// Bytes of the log from which a snapshot is made, whatever the number of entries.
const LOG_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Since when members are away, as this node has seen it.
#[derive(Debug, Default)]
struct Absences(BTreeMap<MemberId, Instant>);

impl Absences {
    /// Notes who is up, and says how long a member has been away.
    fn note(&mut self, member: MemberId, up: bool, now: Instant) -> Duration {
        if up {
            self.0.remove(&member);
            return Duration::ZERO;
        }
        now.duration_since(*self.0.entry(member).or_insert(now))
    }
}

/// Runs until it is aborted.
pub(crate) async fn run(consensus: Consensus) {
    let mut absences = Absences::default();
    let mut resigned = None;
    let beat = consensus.shared.timing.heartbeat;
    loop {
        sleep(beat).await;
        // A log of few but large entries is dropped as well, on whichever member it is.
        if consensus.shared.journal.bytes() > LOG_BYTES_MAX {
            drop(consensus.shared.raft.trigger().snapshot().await);
        }
        if !consensus.is_leader() {
            absences = Absences::default();
            continue;
        }
        let deadline = Instant::now() + consensus.shared.timing.patience;
        let due = consensus.look(State::deadline);
        if due.is_some_and(|due| due <= consensus.now()) {
            // If it fails somebody else leads, and will do it.
            drop(consensus.propose_here(&Command::Tick, deadline).await);
        }
        let peers = peers(&consensus);
        if peers.is_empty() {
            continue;
        }
        let standings = standings(&consensus, &peers, &mut absences);
        let status = consensus.status();
        // A leader that is to be no member any more leads until that is known to those who elect another. What is to be changed
        // then, that one does.
        let own = consensus.shared.owner.member;
        let is_member = status.voters.contains(&own) || status.learners.contains(&own);
        let waits = |(term, until): (u64, Instant)| term == status.term && Instant::now() < until;
        if !is_member || resigned.is_some_and(waits) {
            continue;
        }
        if let Some(step) = next_step(&status.voters, &status.learners, &standings) {
            if matches!(&step, Step::Elect(voters) if !voters.contains(&own)) {
                resigned = Some((status.term, deadline + consensus.shared.timing.patience));
            }
            // What cannot be done now is found again by the next round.
            let change = tokio::time::timeout_at(deadline, perform(&consensus, step, &peers));
            drop(change.await);
        }
    }
}

/// The members that nodes have, and where they are.
fn peers(consensus: &Consensus) -> BTreeMap<MemberId, Peer> {
    consensus.look(|state| {
        let members = state.nodes().iter().filter_map(|(id, node)| Some((node.member?, id)));
        members.map(|(member, node)| (member, Peer { node })).collect()
    })
}

fn standings(
    consensus: &Consensus,
    peers: &BTreeMap<MemberId, Peer>,
    absences: &mut Absences,
) -> BTreeMap<MemberId, Standing> {
    let metrics = consensus.shared.raft.metrics().borrow().clone();
    let last = metrics.last_log_index.unwrap_or(0);
    let own = consensus.shared.owner.member;
    let now = Instant::now();
    let mut standings = BTreeMap::new();
    for (member, peer) in peers {
        let Some((up, may_vote)) = consensus.look(|state| {
            let node = state.nodes().get(peer.node)?;
            Some((node.up, node.role == Role::Voter && node.phase != Phase::Draining))
        }) else {
            continue;
        };
        let has = metrics.replication.as_ref().and_then(|all| all.get(member).copied().flatten());
        let is_current = *member == own || has.is_some_and(|id| id.index + CURRENT_WITHIN >= last);
        let away = absences.note(*member, up || *member == own, now);
        let is_there = away < consensus.shared.timing.absence;
        standings.insert(*member, Standing { may_vote, is_there, is_current });
    }
    standings
}

async fn perform(consensus: &Consensus, step: Step, peers: &BTreeMap<MemberId, Peer>) {
    let raft = &consensus.shared.raft;
    // Whatever fails is looked at anew in the next round.
    match step {
        Step::Admit(member) => {
            let peer = peers.get(&member).copied().unwrap_or_default();
            drop(raft.add_learner(member, peer, false).await);
        }
        Step::Elect(voters) => {
            // A leader that becomes a learner goes on leading; one that is no member at all steps down, and whoever leads then lets
            // it learn again.
            let stays = voters.contains(&consensus.shared.owner.member);
            drop(raft.change_membership(voters, stays).await);
        }
        Step::Dismiss(members) => {
            drop(raft.change_membership(ChangeMembers::RemoveNodes(members), true).await);
        }
    }
}
