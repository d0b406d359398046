// SPDX-License-Identifier: MIT OR Apache-2.0
//! One member: proposes, reads, and answers the others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dvs_state::nodes::MemberId;
use dvs_state::{Command, Outcome, Refusal, SnapshotError, State, Time};
use openraft::error::{ClientWriteError, InitializeError, RaftError};
use openraft::{Config, ServerState, SnapshotPolicy};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{timeout_at, Instant};

use crate::clock::Clock;
use crate::disk::{Content, Disk, Owner};
use crate::journal::Journal;
use crate::machine::Machine;
use crate::message::{decode, encode, Ask, Declined, Reply, Request};
use crate::network::Network;
use crate::steward;
use crate::transport::{CallError, Transport};
use crate::types::{Peer, Proposal, Raft};
use crate::voters;

/// Most bytes of a command: it is held in memory by every member until the next snapshot, and sent in one message.
pub const COMMAND_BYTES_MAX: usize = 3 * 1024 * 1024 / 2;
/// Entries after which a snapshot is made.
const SNAPSHOT_ENTRIES: u64 = 5_000;
/// Entries that are kept behind a snapshot for members that are a little behind.
const KEPT_ENTRIES: u64 = 500;
/// Bytes of a piece of a snapshot that is sent.
const PIECE_BYTES: u64 = 512 * 1024;

/// How patient members are. All members of a cluster should have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How often a leader says that it is there.
    pub heartbeat: Duration,
    /// How long a member waits for that at least before it wants to lead; at most it waits twice as long.
    pub election: Duration,
    /// How long a proposal or a read waits for a leader and its answer.
    pub patience: Duration,
    /// How long a voter may be away before another takes its place.
    pub absence: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(150),
            election: Duration::from_millis(750),
            patience: Duration::from_secs(10),
            absence: Duration::from_secs(15),
        }
    }
}

/// Why a member cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The snapshot on the disk cannot be used.
    #[error("starting the consensus from its last snapshot: {0}")]
    Snapshot(#[from] SnapshotError),
    /// Raft does not start.
    #[error("starting the consensus: {0}")]
    Raft(String),
}

/// Why nothing was agreed on, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Nobody leads, so nothing was proposed.
    #[error("no leader was found within {waited_ms} ms, so nothing was changed; the nodes that are left may be too few to agree")]
    NoLeader {
        /// How long it was looked for.
        waited_ms: u128,
    },
    /// It was proposed, and may or may not come into effect.
    #[error("the leader was lost before it answered, so the change may have been made or not; look before you try again")]
    Unknown,
    /// It is too large.
    #[error("the command has {bytes} bytes and may have {COMMAND_BYTES_MAX}; divide it")]
    TooLarge {
        /// How many it has.
        bytes: usize,
    },
    /// It cannot be written down.
    #[error("the command cannot be encoded: {0}")]
    Refused(Refusal),
    /// The member has stopped.
    #[error("the consensus of the node has stopped: {0}")]
    Stopped(String),
}

/// What this member knows of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Who it is.
    pub member: MemberId,
    /// Who leads, as far as it knows.
    pub leader: Option<MemberId>,
    /// The term; it grows with every election.
    pub term: u64,
    /// Who votes.
    pub voters: BTreeSet<MemberId>,
    /// Who learns.
    pub learners: BTreeSet<MemberId>,
    /// Where each of them is.
    pub peers: BTreeMap<MemberId, Peer>,
    /// The end of its log.
    pub last: u64,
    /// Up to where its state has come.
    pub applied: u64,
    /// Up to where it has a snapshot.
    pub snapshot: u64,
    /// Why it has stopped, if it has.
    pub stopped: Option<String>,
}

/// A member. Clones are the same member.
#[derive(Clone)]
pub struct Consensus {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) owner: Owner,
    pub(crate) timing: Timing,
    pub(crate) raft: Raft,
    pub(crate) machine: Machine,
    pub(crate) journal: Journal,
    network: Network,
    clock: Mutex<Clock>,
    started: Instant,
    steward: Mutex<Option<JoinHandle<()>>>,
}

impl Consensus {
    /// Starts a member with what its disk holds. It takes no part until it is formed or a leader admits it.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(
        owner: Owner,
        timing: Timing,
        content: Content,
        disk: Arc<dyn Disk>,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, StartError> {
        let journal = Journal::new(&content, Arc::clone(&disk));
        let machine = Machine::new(&content, disk)?;
        let network = Network { cluster: owner.cluster, transport, pause: timing.heartbeat };
        let failed = |error: &dyn std::fmt::Display| StartError::Raft(error.to_string());
        let config = config(timing).validate().map_err(|error| failed(&error))?;
        let raft = Raft::new(
            owner.member,
            Arc::new(config),
            network.clone(),
            journal.clone(),
            machine.clone(),
        );
        let raft = raft.await.map_err(|error| failed(&error))?;
        let shared = Arc::new(Shared {
            owner,
            timing,
            raft,
            machine,
            journal,
            network,
            clock: Mutex::default(),
            started: Instant::now(),
            steward: Mutex::default(),
        });
        let consensus = Self { shared };
        let steward = tokio::spawn(steward::run(consensus.clone()));
        *lock(&consensus.shared.steward) = Some(steward);
        Ok(consensus)
    }

    /// Forms the cluster's consensus with its first members. Each of them must be given the same ones; of many, the first few
    /// vote, and the rest is admitted by whoever leads.
    ///
    /// Then somebody proposes [`Command::Form`]. Doing this again is harmless.
    ///
    /// # Errors
    /// [`ProposeError::Stopped`].
    pub async fn form(&self, members: &BTreeMap<MemberId, Peer>) -> Result<(), ProposeError> {
        let first = members.iter().take(voters::quota(members.len()));
        let first: BTreeMap<MemberId, Peer> = first.map(|(id, peer)| (*id, *peer)).collect();
        if !first.contains_key(&self.shared.owner.member) {
            return Ok(());
        }
        match self.shared.raft.initialize(first).await {
            // It has been formed before.
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(ProposeError::Stopped(error.to_string())),
        }
    }

    /// Proposes a command and waits for what comes of it.
    ///
    /// # Errors
    /// [`ProposeError`]; only with [`ProposeError::Unknown`] the command may have come into effect. A refusal is no error but
    /// an outcome.
    pub async fn propose(&self, command: &Command) -> Result<Outcome, ProposeError> {
        let size = dvs_state::Entry::new(Time::default(), command);
        let bytes = size.map_err(ProposeError::Refused)?.bytes();
        if bytes > COMMAND_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes });
        }
        let deadline = Instant::now() + self.shared.timing.patience;
        loop {
            let declined = match self.leader(deadline).await? {
                (leader, _) if leader == self.shared.owner.member => {
                    self.propose_here(command, deadline).await
                }
                (leader, peer) => {
                    let asked =
                        self.shared.network.ask(leader, &peer, Ask::Propose(command.clone()));
                    match timeout_at(deadline, asked).await {
                        Ok(Ok(Reply::Proposed(answer))) => answer,
                        Ok(Err(CallError::NotSent)) => Err(Declined::NotLeader),
                        Ok(Ok(_) | Err(CallError::NoAnswer)) | Err(_) => Err(Declined::Unknown),
                    }
                }
            };
            match declined {
                Ok(outcome) => return Ok(outcome),
                Err(Declined::Unknown) => return Err(ProposeError::Unknown),
                Err(Declined::Stopped(why)) => return Err(ProposeError::Stopped(why)),
                Err(Declined::NotLeader) => self.pause(deadline).await?,
            }
        }
    }

    /// Reads from a state that shows everything that was agreed on before the call, whoever asked for it (linearizable).
    ///
    /// # Errors
    /// [`ProposeError`], but for those that concern changes.
    pub async fn read<T>(&self, look: impl FnOnce(&State) -> T) -> Result<T, ProposeError> {
        let deadline = Instant::now() + self.shared.timing.patience;
        let index = loop {
            let answer = match self.leader(deadline).await? {
                (leader, _) if leader == self.shared.owner.member => {
                    self.read_index(deadline).await
                }
                (leader, peer) => {
                    let asked = self.shared.network.ask(leader, &peer, Ask::ReadIndex);
                    match timeout_at(deadline, asked).await {
                        Ok(Ok(Reply::ReadIndex(answer))) => answer,
                        // Asking changes nothing, so it can be done again.
                        Ok(Ok(_) | Err(_)) | Err(_) => Err(Declined::NotLeader),
                    }
                }
            };
            match answer {
                Ok(index) => break index,
                Err(Declined::Stopped(why)) => return Err(ProposeError::Stopped(why)),
                Err(Declined::NotLeader | Declined::Unknown) => self.pause(deadline).await?,
            }
        };
        let mut progress = self.shared.machine.progress();
        let caught_up = progress.wait_for(|applied| *applied >= index);
        match timeout_at(deadline, caught_up).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err(ProposeError::Stopped("its state is gone".into())),
            Err(_) => return Err(self.no_leader()),
        }
        Ok(self.look(look))
    }

    /// Reads from the state as this node has it, which may be behind; nothing needs to be agreed on for that.
    pub fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        self.shared.machine.look(look)
    }

    /// Tells whenever the state has changed: up to which index of the log it has come.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.shared.machine.progress()
    }

    /// What this member knows of the others.
    pub fn status(&self) -> Status {
        let metrics = self.shared.raft.metrics().borrow().clone();
        let membership = metrics.membership_config.membership();
        let index = |id: Option<crate::types::LogId>| id.map_or(0, |id| id.index);
        Status {
            member: metrics.id,
            leader: metrics.current_leader,
            term: metrics.current_term,
            voters: membership.voter_ids().collect(),
            learners: membership.learner_ids().collect(),
            peers: membership.nodes().map(|(id, peer)| (*id, *peer)).collect(),
            last: metrics.last_log_index.unwrap_or(0),
            applied: index(metrics.last_applied),
            snapshot: index(metrics.snapshot),
            stopped: metrics.running_state.err().map(|fatal| fatal.to_string()),
        }
    }

    /// Whether this member leads, as far as it knows.
    pub fn is_leader(&self) -> bool {
        self.shared.raft.metrics().borrow().state == ServerState::Leader
    }

    /// Answers what another member has sent.
    pub async fn serve(&self, request: &[u8]) -> Vec<u8> {
        let reply = match decode::<Request>(request) {
            Some(Request { cluster, to, .. })
                if (Owner { cluster, member: to }) != self.shared.owner =>
            {
                Reply::NotMe
            }
            Some(Request { body, .. }) => self.answer(body).await,
            None => Reply::Malformed,
        };
        encode(&reply).unwrap_or_default()
    }

    /// Stops. What was given to the disk is written still.
    pub async fn stop(&self) {
        let steward = lock(&self.shared.steward).take();
        if let Some(steward) = steward {
            steward.abort();
        }
        // It fails only if it has stopped already.
        drop(self.shared.raft.shutdown().await);
    }

    async fn answer(&self, ask: Ask) -> Reply {
        let raft = &self.shared.raft;
        let deadline = Instant::now() + self.shared.timing.patience;
        match ask {
            Ask::Vote(vote) => Reply::Vote(raft.vote(vote).await),
            Ask::Append(append) => Reply::Append(raft.append_entries(append).await),
            Ask::Snapshot(piece) => Reply::Snapshot(raft.install_snapshot(piece).await),
            Ask::Propose(command) => Reply::Proposed(self.propose_here(&command, deadline).await),
            Ask::ReadIndex => Reply::ReadIndex(self.read_index(deadline).await),
        }
    }

    pub(crate) async fn propose_here(
        &self,
        command: &Command,
        deadline: Instant,
    ) -> Result<Outcome, Declined> {
        if self.is_alone() {
            return Err(Declined::NotLeader);
        }
        let entry = dvs_state::Entry::new(self.now(), command);
        let Ok(entry) = entry else { return Ok(Err(Refusal::Malformed)) };
        let proposal = Proposal::new(entry);
        let taken = proposal.watch();
        match timeout_at(deadline, self.shared.raft.client_write(proposal)).await {
            Ok(Ok(response)) => Ok(response.data),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))))
                if !taken.is_set() =>
            {
                Err(Declined::NotLeader)
            }
            Ok(Err(RaftError::APIError(_))) | Err(_) => Err(Declined::Unknown),
            // It may have stopped after it sent the entry to others.
            Ok(Err(RaftError::Fatal(_))) if taken.is_set() => Err(Declined::Unknown),
            Ok(Err(RaftError::Fatal(fatal))) => Err(Declined::Stopped(fatal.to_string())),
        }
    }

    /// Whether this member leads, but has not heard a majority for so long that others may have chosen another leader. Raft would
    /// take a command then and keep it until a majority is back or another leader drops it, and nobody could say which; so
    /// none is given to it.
    fn is_alone(&self) -> bool {
        let silent_ms = self.shared.raft.metrics().borrow().millis_since_quorum_ack;
        silent_ms.is_some_and(|ms| u128::from(ms) > 2 * self.shared.timing.election.as_millis())
    }

    async fn read_index(&self, deadline: Instant) -> Result<u64, Declined> {
        match timeout_at(deadline, self.shared.raft.get_read_log_id()).await {
            Ok(Ok((index, _))) => Ok(index.map_or(0, |id| id.index)),
            Ok(Err(RaftError::APIError(_))) | Err(_) => Err(Declined::NotLeader),
            Ok(Err(RaftError::Fatal(fatal))) => Err(Declined::Stopped(fatal.to_string())),
        }
    }

    /// The agreed time that a command has which is proposed here and now; on a member that does not lead, about what it is.
    pub fn now(&self) -> Time {
        let term = self.shared.raft.metrics().borrow().current_term;
        let applied = self.look(State::now);
        let monotonic_ms = u64::try_from(self.shared.started.elapsed().as_millis());
        lock(&self.shared.clock).stamp(term, applied, monotonic_ms.unwrap_or(u64::MAX))
    }

    async fn leader(&self, deadline: Instant) -> Result<(MemberId, Peer), ProposeError> {
        let mut metrics = self.shared.raft.metrics();
        let led = metrics.wait_for(|m| m.current_leader.is_some() || m.running_state.is_err());
        let found = match timeout_at(deadline, led).await {
            Ok(Ok(found)) => found,
            Ok(Err(_)) => return Err(ProposeError::Stopped("it was shut down".into())),
            Err(_) => return Err(self.no_leader()),
        };
        if let Err(fatal) = &found.running_state {
            return Err(ProposeError::Stopped(fatal.to_string()));
        }
        let leader = found.current_leader.unwrap_or_default();
        let peer = found.membership_config.membership().get_node(&leader).copied();
        Ok((leader, peer.unwrap_or_default()))
    }

    /// Waits until it makes sense to ask again.
    async fn pause(&self, deadline: Instant) -> Result<(), ProposeError> {
        let until = Instant::now() + self.shared.timing.heartbeat / 2;
        if until >= deadline {
            return Err(self.no_leader());
        }
        tokio::time::sleep_until(until).await;
        Ok(())
    }

    fn no_leader(&self) -> ProposeError {
        ProposeError::NoLeader { waited_ms: self.shared.timing.patience.as_millis() }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn config(timing: Timing) -> Config {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Config {
        cluster_name: "dvs".into(),
        heartbeat_interval: ms(timing.heartbeat),
        election_timeout_min: ms(timing.election),
        election_timeout_max: ms(timing.election * 2),
        install_snapshot_timeout: ms(timing.patience),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_ENTRIES),
        max_in_snapshot_log_to_keep: KEPT_ENTRIES,
        snapshot_max_chunk_size: PIECE_BYTES,
        ..Config::default()
    }
}
