// SPDX-License-Identifier: MIT OR Apache-2.0
//! Elections and groups under kills, partitions, lost messages and slow disks: what clients saw of an election is linearizable, and the
//! members of a group saw one stream, in which is once whatever was acknowledged.
//!
//! As with keys and locks, a seed gives the faults and what clients do, and `DVS_SEEDS=FIRST..END` runs others than the usual ones.

mod cluster;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use cluster::faults::{disturb, settle};
use cluster::seeds::seeds;
use cluster::{grant, Cluster, Network, Random, CLIENT_PATIENCE, FAULTS_MS};
use dvs_consensus::{Consensus, ProposeError};
use dvs_history::group::{self, Delivered, Sent, Stream};
use dvs_history::{is_linearizable, Election, ElectionInput, ElectionOutput, Operation};
use dvs_state::groups::Content;
use dvs_state::leases::LeaseId;
use dvs_state::line::Standing;
use dvs_state::{elections, groups, Answer, Command};
use tokio::time::{sleep, timeout, Instant};

const ELECTION: &str = "e";
const GROUP: &str = "g";
const CANDIDATES: u64 = 4;
/// The first of them stays to the end, so that there is one group all the time.
const MEMBERS: u64 = 4;

#[derive(Default)]
struct Seen {
    election: Vec<Operation<ElectionInput, ElectionOutput>>,
    streams: BTreeMap<u64, Stream>,
    sent: Vec<Sent>,
    acknowledged: u64,
    unknown: u64,
}

#[derive(Clone)]
struct Client {
    network: Arc<Network>,
    nodes: u16,
    events: Arc<AtomicU64>,
    seen: Rc<RefCell<Seen>>,
}

impl Client {
    fn event(&self) -> u64 {
        self.events.fetch_add(1, Ordering::Relaxed)
    }

    fn member(&self, random: &mut Random) -> Option<Consensus> {
        self.network.running(random.below(self.nodes.into()) as u16)
    }

    /// What came of a command; `None` if that is not known, or, with `false`, if nothing did.
    async fn propose(&self, member: &Consensus, command: Command) -> Result<Answer, bool> {
        match timeout(CLIENT_PATIENCE, member.propose(&command)).await {
            Ok(Ok(Ok(answer))) => {
                self.seen.borrow_mut().acknowledged += 1;
                Ok(answer)
            }
            Ok(Err(ProposeError::NoLeader { .. } | ProposeError::Stopped(_))) => Err(false),
            Ok(Err(ProposeError::Unknown)) | Err(_) => {
                self.seen.borrow_mut().unknown += 1;
                Err(true)
            }
            Ok(other) => panic!("{command:?}: {other:?}"),
        }
    }

    async fn ask_election(&self, member: &Consensus, input: ElectionInput) {
        let invoked = self.event();
        let name = ELECTION.to_owned();
        let command = match input {
            ElectionInput::Stand(who) => {
                elections::Command::Stand { name, lease: LeaseId(who), value: Vec::new() }
            }
            ElectionInput::Resign(who) => elections::Command::Resign { name, lease: LeaseId(who) },
            ElectionInput::Observe => {
                let read = member.read(|state| {
                    state.elections().leader(ELECTION).map(|it| (it.lease.0, it.term))
                });
                let Ok(Ok(leader)) = timeout(CLIENT_PATIENCE, read).await else { return };
                let returned = Some((self.event(), ElectionOutput::Leader(leader)));
                self.seen.borrow_mut().election.push(Operation { invoked, returned, input });
                return;
            }
        };
        let returned = match self.propose(member, Command::Elections(command)).await {
            Ok(Answer::Standing(Standing::Holding { fence })) => Some(ElectionOutput::Leads(fence)),
            Ok(Answer::Standing(Standing::Waiting { ahead })) => Some(ElectionOutput::Waits(ahead)),
            Ok(Answer::Changed(stood)) => Some(ElectionOutput::Resigned(stood)),
            Ok(other) => panic!("{other:?}"),
            Err(true) => None,
            Err(false) => return,
        };
        let returned = returned.map(|output| (self.event(), output));
        self.seen.borrow_mut().election.push(Operation { invoked, returned, input });
    }

    async fn campaign(self, mut random: Random, lease: LeaseId, until: Instant) {
        while Instant::now() < until {
            sleep(Duration::from_millis(5 + random.below(150))).await;
            let Some(member) = self.member(&mut random) else { continue };
            let input = match random.below(6) {
                0..=2 => ElectionInput::Stand(lease.0),
                3 | 4 => ElectionInput::Resign(lease.0),
                _ => ElectionInput::Observe,
            };
            self.ask_election(&member, input).await;
        }
    }

    /// Asks one member after the other until one answers: joining, sending again and leaving are harmless to be done twice.
    async fn insist(&self, random: &mut Random, command: groups::Command) -> Answer {
        loop {
            sleep(Duration::from_millis(5 + random.below(80))).await;
            let Some(member) = self.member(random) else { continue };
            if let Ok(answer) = self.propose(&member, Command::Groups(command.clone())).await {
                return answer;
            }
        }
    }

    /// Takes what a member has of the group's stream, which may be behind.
    fn take(&self, member: &Consensus, lease: LeaseId) {
        let mut seen = self.seen.borrow_mut();
        let stream = seen.streams.entry(lease.0).or_default();
        let from = stream.last().map_or(0, |(position, _)| position + 1);
        member.look(|state| {
            let Some(group) = state.groups().get(GROUP) else { return };
            // One that is behind may not know this member yet.
            let Ok(deliveries) = group.deliveries(lease, from) else { return };
            stream.extend(deliveries.map(|delivery| {
                let delivered = match delivery.content.clone() {
                    Content::View { number, members } => Delivered::View {
                        number,
                        members: members.into_iter().map(|(lease, _)| lease.0).collect(),
                    },
                    Content::Message { sender, number, payload } => Delivered::Message {
                        sender: sender.0,
                        number,
                        text: String::from_utf8(payload).unwrap(),
                    },
                };
                (delivery.position, delivered)
            }));
        });
    }

    /// One who joins, sends, takes and, but for the one who stays, leaves.
    async fn belong(self, mut random: Random, lease: LeaseId, stays: bool, until: Instant) {
        let group = || GROUP.to_owned();
        let join = groups::Command::Join { group: group(), lease, name: lease.to_string() };
        self.insist(&mut random, join).await;
        let mut number = 0;
        let end = match stays {
            true => until,
            false => Instant::now() + Duration::from_millis(500 + random.below(4_000)),
        };
        while Instant::now() < end {
            number += 1;
            let payload = format!("{number} of {lease}").into_bytes();
            let message = groups::Command::Multicast { group: group(), lease, number, payload };
            let invoked = self.event();
            let answer = self.insist(&mut random, message).await;
            let Answer::Position(position) = answer else { panic!("{answer:?}") };
            let returned = self.event();
            let sent = Sent { sender: lease.0, number, invoked, returned, position };
            self.seen.borrow_mut().sent.push(sent);
            let Some(member) = self.member(&mut random) else { continue };
            self.take(&member, lease);
            let up_to = self.seen.borrow().streams[&lease.0].last().map(|(at, _)| *at);
            if let Some(up_to) = up_to.filter(|_| random.chance(50)) {
                self.insist(
                    &mut random,
                    groups::Command::Acknowledge { group: group(), lease, up_to },
                )
                .await;
            }
        }
        if !stays {
            self.insist(&mut random, groups::Command::Leave { group: group(), lease }).await;
        }
    }
}

async fn simulate(seed: u64) -> (u64, u64) {
    let mut random = Random::new(seed);
    let (count, diskless) = [(3, 0), (5, 0), (5, 1), (4, 1)][random.below(4) as usize];
    let mut cluster = Cluster::form(&mut random, count, diskless).await;
    let first = cluster.network.running(0).unwrap();
    let client = Client {
        network: Arc::clone(&cluster.network),
        nodes: count,
        events: Arc::default(),
        seen: Rc::default(),
    };
    let mut clients = Vec::new();
    let mut leases = Vec::new();
    for _ in 0..CANDIDATES + MEMBERS {
        leases.push(grant(&first).await);
    }
    let until = Instant::now() + Duration::from_millis(FAULTS_MS);
    let stays = leases[CANDIDATES as usize];
    let join = groups::Command::Join { group: GROUP.into(), lease: stays, name: stays.to_string() };
    first.propose(&Command::Groups(join)).await.unwrap().unwrap();
    for (at, lease) in leases.into_iter().enumerate() {
        let (client, random) = (client.clone(), random.fork());
        clients.push(match (at as u64) < CANDIDATES {
            true => tokio::task::spawn_local(client.campaign(random, lease, until)),
            false => tokio::task::spawn_local(client.belong(random, lease, lease == stays, until)),
        });
    }
    disturb(&mut cluster, &mut random, until).await;
    for running in clients {
        running.await.unwrap();
    }
    settle(&cluster).await;
    for node in 0..count {
        let member = cluster.network.running(node).unwrap();
        client.ask_election(&member, ElectionInput::Observe).await;
        client.take(&member, stays);
    }
    let seen = client.seen.take();
    assert!(is_linearizable::<Election>(&seen.election), "{:#?}", seen.election);
    if let Err(why) = group::check(&seen.streams, &seen.sent) {
        panic!("{why}: {:#?}, {:#?}", seen.streams, seen.sent);
    }
    assert!(seen.sent.len() > 3, "there is nothing to check in {:?}", seen.sent);
    (seen.acknowledged, seen.unknown)
}

#[test]
fn elections_are_linearizable_and_members_of_groups_see_one_stream() {
    // Faults that leave nothing to do, or none at all, would prove nothing.
    let (acknowledged, unknown, count) = seeds(0..100, simulate);
    assert!(acknowledged > 50 * count && unknown * 20 > count, "{acknowledged}, {unknown}");
}
