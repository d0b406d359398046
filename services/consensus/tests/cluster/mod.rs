// SPDX-License-Identifier: MIT OR Apache-2.0
//! Members in one process, on tokio's paused clock: a network that loses, delays and parts, disks that are slow and lose what
//! was not safe when a node is killed.

pub(crate) mod faults;
pub(crate) mod seeds;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dvs_consensus::disk::{Change, Content, Disk, Done, NoDisk, Owner};
use dvs_consensus::{Call, CallError, Consensus, Peer, Timing, Transport};
use dvs_state::leases::{self, LeaseId};
use dvs_state::nodes::{self, Join, Machine, MemberId, NodeId, Role, Seat};
use dvs_state::{Answer, Command};
use tokio::time::sleep;

pub(crate) const CLUSTER: u64 = 0xd75;
/// For how long there are faults.
pub(crate) const FAULTS_MS: u64 = 5_000;
/// How long a client waits for an answer; beyond the patience of the members.
pub(crate) const CLIENT_PATIENCE: Duration = Duration::from_secs(4);

/// Random numbers from a seed (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5555_aaaa_1234_8765)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn fork(&mut self) -> Self {
        Self::new(self.below(u64::MAX))
    }
}

/// Who is there and who hears whom.
pub(crate) struct Network {
    inner: Mutex<Links>,
}

struct Links {
    random: Random,
    running: BTreeMap<NodeId, (Consensus, Arc<AtomicBool>)>,
    cut: BTreeSet<(NodeId, NodeId)>,
    loss_percent: u64,
    delay_ms_max: u64,
}

struct Wire {
    from: NodeId,
    alive: Arc<AtomicBool>,
    network: Arc<Network>,
}

impl Network {
    fn delay(&self) -> Duration {
        let mut links = self.inner.lock().unwrap();
        let most = links.delay_ms_max * 1_000;
        Duration::from_micros(100 + links.random.below(most.max(1)))
    }

    fn passes(&self, from: NodeId, to: NodeId) -> bool {
        let mut links = self.inner.lock().unwrap();
        let lost = links.loss_percent;
        !links.cut.contains(&(from, to)) && !links.random.chance(lost)
    }

    pub(crate) fn running(&self, node: NodeId) -> Option<Consensus> {
        self.inner.lock().unwrap().running.get(&node).map(|(consensus, _)| consensus.clone())
    }

    pub(crate) fn all_running(&self) -> Vec<(NodeId, Consensus)> {
        let links = self.inner.lock().unwrap();
        links.running.iter().map(|(id, (consensus, _))| (*id, consensus.clone())).collect()
    }

    pub(crate) fn cut(&self, pairs: impl IntoIterator<Item = (NodeId, NodeId)>) {
        self.inner.lock().unwrap().cut.extend(pairs);
    }

    pub(crate) fn heal(&self) {
        self.inner.lock().unwrap().cut.clear();
    }

    pub(crate) fn disturb(&self, loss_percent: u64, delay_ms_max: u64) {
        let mut links = self.inner.lock().unwrap();
        links.loss_percent = loss_percent;
        links.delay_ms_max = delay_ms_max;
    }
}

impl Transport for Wire {
    fn call<'a>(&'a self, peer: &'a Peer, request: Vec<u8>) -> Call<'a> {
        Box::pin(async move {
            let no_answer = || async {
                sleep(Duration::from_secs(1)).await;
                Err(CallError::NoAnswer)
            };
            if !self.alive.load(Ordering::Relaxed) {
                return Err(CallError::NotSent);
            }
            sleep(self.network.delay()).await;
            if !self.network.passes(self.from, peer.node) {
                return no_answer().await;
            }
            let target = self.network.inner.lock().unwrap().running.get(&peer.node).cloned();
            let Some((target, target_alive)) = target else { return Err(CallError::NotSent) };
            // Who is asked goes on even if who asked no longer waits.
            let served = tokio::spawn(async move { target.serve(&request).await }).await.unwrap();
            sleep(self.network.delay()).await;
            let lost =
                !target_alive.load(Ordering::Relaxed) || !self.network.passes(peer.node, self.from);
            if lost {
                return no_answer().await;
            }
            Ok(served)
        })
    }
}

/// A disk that outlives the node.
#[derive(Clone, Default)]
pub(crate) struct SlowDisk {
    content: Arc<Mutex<Content>>,
    delay_ms: Arc<AtomicU64>,
}

type Queue = Arc<Mutex<VecDeque<(Change, Done)>>>;

struct Attached {
    queue: Queue,
    alive: Arc<AtomicBool>,
    wake: Arc<tokio::sync::Notify>,
}

impl SlowDisk {
    pub(crate) fn slow_down(&self, delay_ms: u64) {
        self.delay_ms.store(delay_ms, Ordering::Relaxed);
    }

    fn attach(&self, alive: Arc<AtomicBool>) -> (Content, Attached) {
        let queue = Queue::default();
        let wake = Arc::new(tokio::sync::Notify::new());
        let attached = Attached {
            queue: Arc::clone(&queue),
            alive: Arc::clone(&alive),
            wake: Arc::clone(&wake),
        };
        let disk = self.clone();
        let content = self.content.lock().unwrap().clone();
        tokio::spawn(async move {
            loop {
                let Some((change, done)) = ({ queue.lock().unwrap().pop_front() }) else {
                    wake.notified().await;
                    continue;
                };
                sleep(Duration::from_millis(disk.delay_ms.load(Ordering::Relaxed))).await;
                if !alive.load(Ordering::Relaxed) {
                    // The power is off: nothing of what was on its way gets there, and who waits for it is told.
                    queue.lock().unwrap().clear();
                    return;
                }
                disk.content.lock().unwrap().apply(change);
                done(Ok(()));
            }
        });
        (content, attached)
    }
}

impl Disk for Attached {
    fn write(&self, change: Change, done: Done) {
        if !self.alive.load(Ordering::Relaxed) {
            return;
        }
        self.queue.lock().unwrap().push_back((change, done));
        self.wake.notify_one();
    }
}

struct Place {
    /// `None` for a node that forgets.
    disk: Option<SlowDisk>,
    member: MemberId,
    run: u64,
}

/// The cluster and its faults.
pub(crate) struct Cluster {
    pub(crate) network: Arc<Network>,
    places: BTreeMap<NodeId, Place>,
    next_member: MemberId,
    timing: Timing,
}

pub(crate) fn timing() -> Timing {
    Timing {
        heartbeat: Duration::from_millis(50),
        election: Duration::from_millis(200),
        patience: Duration::from_secs(3),
        absence: Duration::from_secs(2),
    }
}

impl Cluster {
    /// Forms a cluster of `count` nodes, the last `diskless` of which forget everything when they stop.
    pub(crate) async fn form(random: &mut Random, count: u16, diskless: u16) -> Self {
        let links = Links {
            random: random.fork(),
            running: BTreeMap::new(),
            cut: BTreeSet::new(),
            loss_percent: 0,
            delay_ms_max: 4,
        };
        let network = Arc::new(Network { inner: Mutex::new(links) });
        let places = (0..count).map(|id| {
            let disk = (id < count - diskless).then(SlowDisk::default);
            (id, Place { disk, member: 100 + u64::from(id), run: 1 })
        });
        let places = places.collect();
        let mut cluster = Self { network, places, next_member: 200, timing: timing() };
        let members: BTreeMap<MemberId, Peer> =
            cluster.places.iter().map(|(id, place)| (place.member, Peer { node: *id })).collect();
        for id in 0..count {
            cluster.start(id).await;
        }
        for (_, consensus) in cluster.network.all_running() {
            consensus.form(&members).await.unwrap();
        }
        let joins = (0..count).map(|id| cluster.join(id)).collect();
        let form = Command::Form { name: "dvs".into(), id: CLUSTER, nodes: joins };
        let first = cluster.network.running(0).unwrap();
        while first.propose(&form).await.is_err() {}
        cluster
    }

    pub(crate) fn nodes(&self) -> u16 {
        self.places.len() as u16
    }

    pub(crate) fn disk(&self, id: NodeId) -> Option<&SlowDisk> {
        self.places[&id].disk.as_ref()
    }

    fn join(&self, id: NodeId) -> Join {
        let place = &self.places[&id];
        Join {
            machine: Machine([2, 0, 0, 0, 0, id as u8]),
            run: place.run,
            name: None,
            role: Role::Voter,
            member: Some(place.member),
            understands: dvs_state::VERSION,
            place: None,
        }
    }

    async fn start(&mut self, id: NodeId) {
        let place = &self.places[&id];
        let alive = Arc::new(AtomicBool::new(true));
        let (content, disk): (Content, Arc<dyn Disk>) = match &place.disk {
            Some(disk) => {
                let (content, attached) = disk.attach(Arc::clone(&alive));
                (content, Arc::new(attached))
            }
            None => (Content::default(), Arc::new(NoDisk)),
        };
        let network = Arc::clone(&self.network);
        let wire = Arc::new(Wire { from: id, alive: Arc::clone(&alive), network });
        let owner = Owner { cluster: CLUSTER, member: place.member };
        let consensus = Consensus::start(owner, self.timing, content, disk, wire).await.unwrap();
        self.network.inner.lock().unwrap().running.insert(id, (consensus, alive));
    }

    /// Takes the power from a node. The others notice after a while and say so.
    pub(crate) async fn kill(&mut self, id: NodeId) {
        let running = self.network.inner.lock().unwrap().running.remove(&id);
        let Some((consensus, alive)) = running else { return };
        alive.store(false, Ordering::Relaxed);
        consensus.stop().await;
        self.tell_up(id, false);
    }

    /// Gives it the power back. One that has forgotten everything is another member and asks to join.
    pub(crate) async fn restart(&mut self, id: NodeId) {
        if self.network.running(id).is_some() {
            return;
        }
        let next_member = self.next_member;
        let place = self.places.get_mut(&id).unwrap();
        place.run += 1;
        if place.disk.is_none() {
            place.member = next_member;
            self.next_member += 1;
        }
        self.start(id).await;
        let join = Command::Nodes(nodes::Command::Join(self.join(id)));
        let network = Arc::clone(&self.network);
        tokio::spawn(async move {
            // It asks others: it is no member itself yet.
            loop {
                for (other, consensus) in network.all_running() {
                    if other != id
                        && matches!(consensus.propose(&join).await, Ok(Ok(Answer::Seated(_))))
                    {
                        return;
                    }
                }
                sleep(Duration::from_millis(200)).await;
            }
        });
    }

    fn tell_up(&self, id: NodeId, up: bool) {
        let network = Arc::clone(&self.network);
        tokio::spawn(async move {
            for _ in 0..20 {
                sleep(Duration::from_millis(500)).await;
                if network.running(id).is_some() {
                    return;
                }
                let Some((_, witness)) = network.all_running().into_iter().next() else { continue };
                let Ok(seat) = witness.look(|state| state.nodes().seat(id)) else { continue };
                let command = nodes::Command::SetUp { seat: Seat { ..seat }, up };
                if witness.propose(&Command::Nodes(command)).await.is_ok() {
                    return;
                }
            }
        });
    }

    /// Whether everybody is there and the voters are members that nodes have.
    pub(crate) fn is_whole(&self) -> bool {
        let running = self.network.all_running();
        let members: BTreeSet<MemberId> = self.places.values().map(|place| place.member).collect();
        running.len() == self.places.len()
            && running.iter().all(|(_, consensus)| {
                let status = consensus.status();
                let known: BTreeSet<_> = status.voters.union(&status.learners).copied().collect();
                known == members && status.voters.len() >= 3
            })
    }
}

/// A lease that outlasts the run, of a cluster that is whole.
pub(crate) async fn grant(member: &Consensus) -> LeaseId {
    let command = leases::Command::Grant { ttl_ms: leases::TTL_MS_MAX, owner: "client".into() };
    match member.propose(&Command::Leases(command)).await {
        Ok(Ok(Answer::Granted(lease))) => lease,
        other => panic!("{other:?}"),
    }
}
