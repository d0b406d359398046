// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clusters under kills, partitions, lost messages and slow disks: nothing that was acknowledged is lost, what clients saw of keys
//! and locks is linearizable, and in the end every node has the same state.
//!
//! A seed gives the faults, the network and what clients do. Raft's own random timeouts are not ours, so the same seed gives the
//! same faults but not the same schedule. `DVS_SEEDS=FIRST..END` runs others than the usual ones.

mod cluster;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use cluster::faults::{disturb, settle};
use cluster::seeds::{on_paused_clock, seeds};
use cluster::{grant, Cluster, Network, Random, CLIENT_PATIENCE, FAULTS_MS};
use dvs_consensus::{Consensus, ProposeError};
use dvs_history::{
    is_linearizable, KeyInput, KeyOutput, Lock, LockInput, LockOutput, Operation, Register,
};
use dvs_state::kv::{Compare, Operation as KvOperation, Order, Selector, Subject, Transaction};
use dvs_state::leases::LeaseId;
use dvs_state::line::Standing;
use dvs_state::nodes::{self, Phase};
use dvs_state::{kv, locks, Answer, Command, Refusal};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout, Instant};

const KEYS: u64 = 3;
const LOCKS: u64 = 2;
const CLIENTS: u64 = 5;

#[derive(Default)]
struct Histories {
    keys: BTreeMap<u64, Vec<Operation<KeyInput, KeyOutput>>>,
    locks: BTreeMap<u64, Vec<Operation<LockInput, LockOutput>>>,
    acknowledged: u64,
    unknown: u64,
}

#[derive(Clone)]
struct Client {
    network: Arc<Network>,
    nodes: u16,
    events: Arc<AtomicU64>,
    histories: Rc<RefCell<Histories>>,
}

/// What a client knows of what it asked for.
enum Seen<T> {
    Answer(T),
    /// It may have been done.
    Unknown,
    /// It was not.
    NotDone,
}

impl Client {
    fn event(&self) -> u64 {
        self.events.fetch_add(1, Ordering::Relaxed)
    }

    fn member(&self, random: &mut Random) -> Option<Consensus> {
        self.network.running(random.below(self.nodes.into()) as u16)
    }

    async fn propose(&self, member: &Consensus, command: Command) -> Seen<Result<Answer, Refusal>> {
        match timeout(CLIENT_PATIENCE, member.propose(&command)).await {
            Ok(Ok(outcome)) => Seen::Answer(outcome),
            Ok(Err(ProposeError::NoLeader { .. } | ProposeError::Stopped(_))) => Seen::NotDone,
            Ok(Err(ProposeError::Unknown)) | Err(_) => Seen::Unknown,
            Ok(Err(error)) => panic!("{error}"),
        }
    }

    fn note_key(&self, key: u64, invoked: u64, input: KeyInput, seen: Seen<KeyOutput>) {
        let returned = self.note(&seen);
        let Some(returned) = returned.map(|at| at.map(|at| (at, output(seen)))) else { return };
        let operation = Operation { invoked, returned, input };
        self.histories.borrow_mut().keys.entry(key).or_default().push(operation);
    }

    fn note_lock(&self, lock: u64, invoked: u64, input: LockInput, seen: Seen<LockOutput>) {
        let returned = self.note(&seen);
        let Some(returned) = returned.map(|at| at.map(|at| (at, output(seen)))) else { return };
        let operation = Operation { invoked, returned, input };
        self.histories.borrow_mut().locks.entry(lock).or_default().push(operation);
    }

    /// When the answer came, if one did; `None` for what was not done.
    fn note<T>(&self, seen: &Seen<T>) -> Option<Option<u64>> {
        let mut histories = self.histories.borrow_mut();
        match seen {
            Seen::Answer(_) => {
                histories.acknowledged += 1;
                Some(Some(self.event()))
            }
            Seen::Unknown => {
                histories.unknown += 1;
                Some(None)
            }
            Seen::NotDone => None,
        }
    }

    async fn key_operation(&self, member: &Consensus, key: u64, input: KeyInput) {
        let invoked = self.event();
        let name = vec![b'k', key as u8];
        let put = |value: u64| KvOperation::Put {
            key: name.clone(),
            value: value.to_be_bytes().to_vec(),
            lease: None,
        };
        let transaction = match &input {
            KeyInput::Get => {
                let read = member.read(|state| {
                    let value = state.kv().get(&name).map(|pair| pair.value.clone());
                    value.map(|value| u64::from_be_bytes(value.try_into().unwrap()))
                });
                let seen = match timeout(CLIENT_PATIENCE, read).await {
                    Ok(Ok(value)) => Seen::Answer(KeyOutput::Value(value)),
                    Ok(Err(_)) | Err(_) => Seen::NotDone,
                };
                return self.note_key(key, invoked, input, seen);
            }
            KeyInput::Put(value) => Transaction::of(vec![put(*value)]),
            KeyInput::Delete => {
                Transaction::of(vec![KvOperation::Delete { keys: Selector::Key(name.clone()) }])
            }
            KeyInput::Swap(old, new) => Transaction {
                compare: vec![Compare {
                    key: name.clone(),
                    order: Order::Equal,
                    subject: Subject::Value(old.to_be_bytes().to_vec()),
                }],
                then: vec![put(*new)],
                otherwise: vec![],
            },
        };
        let command = Command::Kv(kv::Command::Transact(transaction));
        let seen = match self.propose(member, command).await {
            Seen::Answer(Ok(Answer::Transaction(answer))) => Seen::Answer(match input {
                KeyInput::Swap(..) => KeyOutput::Swapped(answer.held),
                _ => KeyOutput::Done,
            }),
            Seen::Answer(other) => panic!("{other:?}"),
            Seen::Unknown => Seen::Unknown,
            Seen::NotDone => Seen::NotDone,
        };
        self.note_key(key, invoked, input, seen);
    }

    async fn lock_operation(&self, member: &Consensus, lock: u64, input: LockInput) {
        let invoked = self.event();
        let name = format!("l{lock}");
        let command = match input {
            LockInput::Acquire(who) => locks::Command::Acquire {
                name,
                lease: LeaseId(who),
                places: 1,
                wait: locks::Wait::Never,
                label: String::new(),
            },
            LockInput::Release(who) => locks::Command::Release { name, lease: LeaseId(who) },
        };
        let seen = match self.propose(member, Command::Locks(command)).await {
            Seen::Answer(Ok(Answer::Standing(Standing::Holding { fence }))) => {
                Seen::Answer(LockOutput::Held(fence))
            }
            Seen::Answer(Err(Refusal::Busy { .. })) => Seen::Answer(LockOutput::Busy),
            Seen::Answer(Ok(Answer::Changed(held))) => Seen::Answer(LockOutput::Released(held)),
            Seen::Answer(other) => panic!("{other:?}"),
            Seen::Unknown => Seen::Unknown,
            Seen::NotDone => Seen::NotDone,
        };
        self.note_lock(lock, invoked, input, seen);
    }

    async fn run(self, mut random: Random, lease: LeaseId, until: Instant) {
        let mut count = 0;
        while Instant::now() < until {
            sleep(Duration::from_millis(5 + random.below(120))).await;
            let Some(member) = self.member(&mut random) else { continue };
            count += 1;
            let fresh = lease.0 * 1_000_000 + count;
            let key = random.below(KEYS);
            match random.below(10) {
                0..=2 => self.key_operation(&member, key, KeyInput::Get).await,
                3 | 4 => self.key_operation(&member, key, KeyInput::Put(fresh)).await,
                5 | 6 => {
                    // What this node has, behind or not, is a fair guess.
                    let name = vec![b'k', key as u8];
                    let guess = member.look(|s| s.kv().get(&name).map(|p| p.value.clone()));
                    let guess = guess.map_or(0, |v| u64::from_be_bytes(v.try_into().unwrap()));
                    self.key_operation(&member, key, KeyInput::Swap(guess, fresh)).await;
                }
                7 if random.chance(50) => self.key_operation(&member, key, KeyInput::Delete).await,
                7 | 8 => {
                    let input = LockInput::Acquire(lease.0);
                    self.lock_operation(&member, random.below(LOCKS), input).await;
                }
                _ => {
                    let input = LockInput::Release(lease.0);
                    self.lock_operation(&member, random.below(LOCKS), input).await;
                }
            }
        }
    }
}

fn output<T>(seen: Seen<T>) -> T {
    match seen {
        Seen::Answer(output) => output,
        Seen::Unknown | Seen::NotDone => unreachable!("there is no answer"),
    }
}

async fn simulate(seed: u64) -> (u64, u64) {
    let mut random = Random::new(seed);
    let (count, diskless) = [(3, 0), (5, 0), (5, 1), (4, 1)][random.below(4) as usize];
    let mut cluster = Cluster::form(&mut random, count, diskless).await;
    let until = Instant::now() + Duration::from_millis(FAULTS_MS);
    let client = Client {
        network: Arc::clone(&cluster.network),
        nodes: count,
        events: Arc::default(),
        histories: Rc::default(),
    };
    let first = cluster.network.running(0).unwrap();
    let mut clients: Vec<JoinHandle<()>> = Vec::new();
    for _ in 0..CLIENTS {
        let lease = grant(&first).await;
        let run = client.clone().run(random.fork(), lease, until);
        clients.push(tokio::task::spawn_local(run));
    }
    disturb(&mut cluster, &mut random, until).await;
    for running in clients {
        running.await.unwrap();
    }
    settle(&cluster).await;
    // What was acknowledged must be there, wherever one looks.
    for node in 0..count {
        let member = cluster.network.running(node).unwrap();
        for key in 0..KEYS {
            client.key_operation(&member, key, KeyInput::Get).await;
        }
    }
    let histories = client.histories.take();
    for (key, history) in &histories.keys {
        assert!(is_linearizable::<Register>(history), "key {key}: {history:#?}");
    }
    for (lock, history) in &histories.locks {
        assert!(is_linearizable::<Lock>(history), "lock {lock}: {history:#?}");
    }
    (histories.acknowledged, histories.unknown)
}

#[test]
fn histories_under_faults_are_linearizable_and_all_nodes_end_the_same() {
    // Faults that leave nothing to do, or none at all, would prove nothing.
    let (acknowledged, unknown, count) = seeds(0..200, simulate);
    assert!(acknowledged > 50 * count && unknown * 20 > count, "{acknowledged}, {unknown}");
}

/// Each leader in turn is drained and undrained, while somebody writes.
async fn drain_leaders(seed: u64) {
    let mut random = Random::new(seed);
    let cluster = Cluster::form(&mut random, 4, 0).await;
    let deadline = Instant::now() + Duration::from_secs(600);
    for round in 0..3 {
        while !cluster.is_whole() {
            assert!(Instant::now() < deadline, "seed {seed}, round {round}: it is not whole");
            sleep(Duration::from_millis(50)).await;
        }
        let members = cluster.network.all_running();
        let leading = || members.iter().find(|(_, member)| member.is_leader()).map(|(id, _)| *id);
        let Some(old) = leading() else { continue };
        let other = &members.iter().find(|(id, _)| *id != old).unwrap().1;
        let phase = |phase| {
            let seat = other.look(|state| state.nodes().seat(old)).unwrap();
            Command::Nodes(nodes::Command::SetPhase { seat, phase })
        };
        while !matches!(other.propose(&phase(Phase::Draining)).await, Ok(Ok(_))) {}
        loop {
            assert!(Instant::now() < deadline, "seed {seed}: node {old} leads or votes still");
            let status = other.status();
            let voter =
                |id: u16| status.voters.iter().any(|member| status.peers[member].node == id);
            let learns = status.learners.iter().any(|member| status.peers[member].node == old);
            if leading().is_some_and(|now| now != old) && !voter(old) && learns {
                break;
            }
            // Whatever comes of it: there may be no leader at the moment.
            drop(other.propose(&Command::Tick).await);
            sleep(Duration::from_millis(20)).await;
        }
        while !matches!(other.propose(&phase(Phase::Ready)).await, Ok(Ok(_))) {}
    }
    settle(&cluster).await;
}

#[test]
fn a_leader_that_is_drained_gives_its_lead_and_vote_away_and_learns() {
    for seed in 0..20 {
        on_paused_clock(drain_leaders(seed));
    }
}
