// SPDX-License-Identifier: MIT OR Apache-2.0
//! The Distributed Containers of this node.
//!
//! What the nodes agree on says which containers there are and which nodes they span ([`desired`]). This node makes it so, again and again:
//! it asks for slots, programs its DVK ([`table`]), and has the runtime make, start and remove containers ([`steps`]). What it does, and
//! why it cannot, is written into the agreed state ([`place`]), so that any node can tell it of all.
//!
//! A DVK is set up anew whenever this node gets another place in the cluster, also when `dvsd` restarts: all endpoints end then. So
//! containers that are found after that are removed and made anew.

pub mod api;
pub(crate) mod definition;
mod desired;
mod network;
mod place;
mod publisher;
mod runtime;
mod steps;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dvs_consensus::Consensus;
use dvs_runtime::{Fault, Phase, Spec, Status};
use dvs_state::containers::{self, ContainerId, Defined, Limits, Workload};
use dvs_state::events::Sight;
use dvs_state::kv::{self, Operation, Transaction};
use dvs_state::nodes::Seat;
use dvs_state::Command;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::agreement::{seat, Access};
use crate::daemon::Handle;
use crate::images::{Progress, States};
use crate::kernel::Kernel;
use crate::membership::Liveness;
use crate::sightings::Sighting;
use desired::{desired, Desired};
pub use network::Underlay;
pub(crate) use place::places;
use place::Report;
use publisher::Publisher;
pub use runtime::Runtime;
use steps::{how_it_ended, name_of, owned, rests, step, Known, Retries, Step};
pub use table::ContainerCall;
use table::Table;

/// How often containers are looked at when nothing else happens: so late it may be noticed that one has ended by itself.
const LOOK: Duration = Duration::from_secs(2);
/// How long nothing is tried after the nodes could not agree, or a call failed.
const PAUSE: Duration = Duration::from_millis(500);

/// Keeps the containers of this node as they are to be.
pub struct Containers {
    daemon: Handle,
    runtime: Arc<dyn Runtime>,
    /// In which place the DVK's containers were made.
    life: Option<Seat>,
    table: Table,
    retries: Retries,
    publisher: Publisher,
    /// What images there are.
    images: watch::Receiver<States>,
    /// What was to be there at the last look.
    wanted: Vec<Desired>,
    /// With which descriptions containers were made, and of which revision these are.
    made: BTreeMap<ContainerId, Made>,
    /// Those of which it was told that they have ended.
    ended: BTreeSet<ContainerId>,
    start: Instant,
    /// What failed last of what is about no container, for the log.
    told: String,
}

/// What a container was made with.
#[derive(Clone, Debug)]
struct Made {
    spec: Spec,
    revision: u32,
}

impl std::fmt::Debug for Containers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Containers").field("life", &self.life).finish_non_exhaustive()
    }
}

impl Containers {
    /// Those of this daemon's node, made by `runtime` of `images`. Ports that they publish are at `address`.
    pub fn new(
        daemon: Handle,
        runtime: Arc<dyn Runtime>,
        images: watch::Receiver<States>,
        address: IpAddr,
    ) -> Self {
        Self {
            daemon,
            publisher: Publisher::new(Arc::clone(&runtime), address),
            runtime,
            life: None,
            table: Table::default(),
            retries: Retries::default(),
            images,
            wanted: Vec::new(),
            made: BTreeMap::new(),
            ended: BTreeSet::new(),
            start: Instant::now(),
            told: String::new(),
        }
    }

    /// Runs for as long as it is polled.
    pub async fn run(mut self) {
        let mut snapshots = self.daemon.snapshots.clone();
        loop {
            let Ok(consensus) = self.access().consensus() else {
                sleep(PAUSE).await;
                continue;
            };
            // What changes while it looks is not to be missed.
            let mut progress = consensus.watch();
            progress.borrow_and_update();
            let seen = snapshots.borrow_and_update().programmed;
            let busy = match self.look(&consensus).await {
                Ok(busy) => {
                    self.told.clear();
                    busy
                }
                Err(why) => {
                    if self.told != why {
                        println!("error: {why}");
                        self.told = why;
                    }
                    sleep(PAUSE).await;
                    false
                }
            };
            if busy {
                continue;
            }
            // Whatever wakes it, or the time, it looks at everything.
            let _ = timeout(LOOK, async {
                tokio::select! {
                    () = another(&consensus, progress, self.life, &self.wanted) => {}
                    // The daemon tells of itself all the time; another place in the cluster is what matters.
                    _ = snapshots.wait_for(|now| now.programmed != seen) => {}
                    Ok(()) = self.images.changed() => {}
                }
            })
            .await;
        }
    }

    fn access(&self) -> &Access {
        &self.daemon.agreement
    }

    /// Does the next thing that there is to do for each container; says whether there may be more.
    async fn look(&mut self, consensus: &Consensus) -> Result<bool, String> {
        let (kernel, programmed) = {
            let snapshot = self.daemon.snapshots.borrow();
            (snapshot.kernel.clone(), snapshot.programmed.map(seat))
        };
        let (Some(kernel), Some(own)) = (kernel, programmed) else { return Ok(false) };
        // While it is not known what there should be, everything stays as it is.
        if !consensus.look(|state| state.nodes().is_present(own)) {
            return Ok(false);
        }
        if self.life != Some(own) {
            self.begin_anew(own).await?;
        }
        let wanted = consensus.look(|state| desired(state, own));
        self.wanted.clone_from(&wanted);
        if wanted.is_empty()
            && self.table.is_empty()
            && !consensus.look(|state| place::is_told(state, own))
        {
            // Most nodes have none most of the time, and to ask the runtime costs a process.
            return Ok(false);
        }
        self.ask_for_slots(consensus, own, &wanted).await?;
        let found = self.list().await?;
        let kept: BTreeSet<ContainerId> = found.keys().copied().collect();
        for call in self.table.plan(&wanted, &kept) {
            let (kernel, asked): (Arc<dyn Kernel>, _) = (Arc::clone(&kernel), call.clone());
            blocking(move || kernel.container(&asked))
                .await
                .map_err(|why| format!("{call}: {why}"))?;
            self.table.done(&call);
        }
        let now_ms = self.start.elapsed().as_millis() as u64;
        let mut busy = false;
        let mut reports = BTreeMap::new();
        self.publish(&wanted, &found);
        let ids: BTreeSet<ContainerId> =
            wanted.iter().map(|one| one.id).chain(kept.iter().copied()).collect();
        self.images.borrow_and_update();
        let neighbours = self.neighbours();
        for id in ids {
            let want = wanted.iter().find(|one| one.id == id);
            let found = found.get(&id);
            self.observe(id, want, found, now_ms);
            let spec = want.map(|want| self.described(want, own, &neighbours));
            let is_ready = self.table.is_ready(id, own.id);
            let next = step(Known {
                wanted: want,
                spec: spec.as_ref(),
                found,
                made: self.made.get(&id).map(|made| &made.spec),
                is_ready,
                may: self.retries.may(id, now_ms),
            });
            let revision = want.map_or(0, |want| want.defined.revision);
            if !matches!(next, Step::Nothing) {
                busy |= self.take(consensus, own, id, &next, revision, now_ms).await;
            }
            if let (Some(made), Some(Ok(spec))) = (self.made.get_mut(&id), &spec) {
                // What was changed makes no difference to the runtime.
                if made.spec == *spec {
                    made.revision = revision;
                }
            }
            let lack = match &spec {
                Some(Err(why)) => Some(why.as_str()),
                _ => (!is_ready).then_some("waiting for slots"),
            };
            let trouble = self.retries.trouble(id);
            let unreached = self.publisher.trouble(id);
            let report = Report::of(want, found, lack, trouble, unreached.as_deref());
            reports.insert(id, report.at(self.made.get(&id).map(|made| made.revision)));
        }
        if busy {
            return Ok(true);
        }
        self.tell(consensus, own, &reports).await?;
        Ok(false)
    }

    /// This node has another place: what was made in the one before is of no use.
    async fn begin_anew(&mut self, own: Seat) -> Result<(), String> {
        self.table = Table::default();
        self.retries = Retries::default();
        self.made.clear();
        self.ended.clear();
        for id in self.list().await?.into_keys() {
            let (runtime, name) = (Arc::clone(&self.runtime), name_of(id));
            blocking(move || runtime.delete(&name)).await.map_err(|fault| fault.to_string())?;
        }
        self.life = Some(own);
        Ok(())
    }

    /// Has the ports be there that lead to containers that run.
    fn publish(&mut self, wanted: &[Desired], found: &BTreeMap<ContainerId, Status>) {
        let runs = |one: &&Desired| {
            found.get(&one.id).is_some_and(|status| status.phase == Phase::Running)
        };
        let ports = wanted.iter().filter(runs).flat_map(|one| {
            let network = one.defined.workload.network.iter();
            network.flat_map(|network| network.publish.iter().map(|port| (one.id, *port)))
        });
        self.publisher.publish(&ports.collect());
    }

    /// Where other nodes are, for the networks of containers.
    fn neighbours(&self) -> network::Neighbours {
        let view = self.access().view();
        let heard = view.members.iter().filter(|it| !it.local && it.liveness == Liveness::Alive);
        heard
            .filter_map(|member| {
                let path = member.said.as_ref()?.path?;
                Some((member.seat.id, (path.interface, path.address)))
            })
            .collect()
    }

    /// What the runtime is to make.
    ///
    /// # Errors
    /// For people: what is missing for that.
    fn described(
        &self,
        wanted: &Desired,
        own: Seat,
        neighbours: &network::Neighbours,
    ) -> Result<Spec, String> {
        let workload = &wanted.defined.workload;
        let made = self.made.get(&wanted.id).map(|made| &made.spec);
        if let Some(image) = &workload.image {
            match self.images.borrow().get(&image.digest) {
                Some(Progress::Ready) => {}
                Some(Progress::Busy(what)) => return Err(what.clone()),
                Some(Progress::Failed(why)) => {
                    return Err(format!("its image {}: {why}", image.name))
                }
                None => return Err(format!("waiting for its image {}", image.name)),
            }
        }
        let network = workload.network.as_ref().map(|network| {
            let before = made.and_then(|made| made.network.as_ref()?.overlay.as_ref());
            let before = before.map(|it| it.interface.as_str());
            let underlays = &self.daemon.snapshots.borrow().underlays;
            network::network(
                wanted.id,
                network,
                own.id,
                &wanted.nodes,
                underlays,
                neighbours,
                before,
            )
        });
        Ok(steps::spec(wanted, network.transpose()?, made))
    }

    /// Takes note of what has happened to a container by itself.
    fn observe(
        &mut self,
        id: ContainerId,
        wanted: Option<&Desired>,
        found: Option<&Status>,
        now_ms: u64,
    ) {
        if wanted.is_none() && found.is_none() {
            self.retries.forget(id);
        }
        match found {
            Some(Status { phase: Phase::Running, .. }) => self.retries.runs(id, now_ms),
            Some(status) if status.phase == Phase::Stopped => {
                let Some(wanted) = wanted.filter(|_| self.ended.insert(id)) else { return };
                let how = how_it_ended(status);
                let rests = rests(wanted, found);
                let text = format!("container {}: {how}", wanted.name);
                println!("note: {text}{}", if rests { "" } else { "; it is started again" });
                let sight = Sight::ContainerEnded;
                self.daemon.journal.record(Sighting { sight, about: None, text });
                if !rests {
                    self.retries.failed(id, now_ms, &how);
                }
            }
            _ => {}
        }
    }

    /// What the runtime has of ours.
    async fn list(&self) -> Result<BTreeMap<ContainerId, Status>, String> {
        let runtime = Arc::clone(&self.runtime);
        let all = blocking(move || runtime.list()).await.map_err(|fault| fault.to_string())?;
        Ok(all.into_iter().filter_map(|status| Some((owned(&status.name)?, status))).collect())
    }

    async fn ask_for_slots(
        &self,
        consensus: &Consensus,
        own: Seat,
        wanted: &[Desired],
    ) -> Result<(), String> {
        for one in wanted.iter().filter(|one| !one.leases.contains_key(&own.id)) {
            let take = containers::Command::TakeSlots { id: one.id, holder: own, blocks: 1 };
            propose(consensus, &Command::Containers(take)).await?;
        }
        Ok(())
    }

    /// Takes a step, after it was told that it is being taken. Returns whether it is worth to look again at once.
    async fn take(
        &mut self,
        consensus: &Consensus,
        own: Seat,
        id: ContainerId,
        step: &Step,
        revision: u32,
        now_ms: u64,
    ) -> bool {
        let during = BTreeMap::from([(id, Report::during(step))]);
        let put = consensus.look(|state| place::puts(state, own, &during));
        // People may want to know, but nothing depends on it.
        let _ = write(consensus, put).await;
        let (runtime, name, taken) = (Arc::clone(&self.runtime), name_of(id), step.clone());
        let done: Result<(), Fault> = blocking(move || match taken {
            Step::Nothing => Ok(()),
            Step::Create(spec) => runtime.create(&spec),
            Step::Update(spec) => runtime.update(&spec),
            Step::Start => runtime.start(&name),
            Step::Delete => runtime.delete(&name),
        })
        .await;
        match done {
            Ok(()) => {
                match step {
                    Step::Start => self.retries.started(id, now_ms),
                    Step::Create(spec) | Step::Update(spec) => {
                        let spec = Spec::clone(spec);
                        self.made.insert(id, Made { spec, revision });
                    }
                    Step::Delete => {
                        self.made.remove(&id);
                        self.ended.remove(&id);
                    }
                    Step::Nothing => {}
                }
                true
            }
            Err(fault) => {
                if self.retries.failed(id, now_ms, &fault.to_string()) {
                    println!("error: container {}: {fault}", name_of(id));
                }
                false
            }
        }
    }

    /// Writes down what is not written down like that yet, and removes what is over.
    async fn tell(
        &self,
        consensus: &Consensus,
        own: Seat,
        reports: &BTreeMap<ContainerId, Report>,
    ) -> Result<(), String> {
        let changes = consensus.look(|state| {
            let mut changes = place::puts(state, own, reports);
            changes.extend(place::removals(state, own, reports));
            changes
        });
        write(consensus, changes).await
    }
}

/// Waits until something else is to be there. Most of what the nodes agree on is about other things, and each look at containers costs a process.
async fn another(
    consensus: &Consensus,
    mut progress: watch::Receiver<u64>,
    own: Option<Seat>,
    wanted: &[Desired],
) {
    while progress.changed().await.is_ok() {
        let is_same = |own| consensus.look(|state| desired(state, own) == wanted);
        if !own.is_some_and(is_same) {
            return;
        }
    }
    std::future::pending().await
}

/// Has the nodes agree on changes of keys.
///
/// # Errors
/// For people: why they are refused.
pub(crate) async fn write(
    consensus: &Consensus,
    mut changes: Vec<Operation>,
) -> Result<(), String> {
    while !changes.is_empty() {
        let rest = changes.split_off(changes.len().min(kv::OPERATIONS_MAX));
        let transaction = Transaction { then: changes, ..Transaction::default() };
        propose(consensus, &Command::Kv(kv::Command::Transact(transaction))).await?;
        changes = rest;
    }
    Ok(())
}

/// Whether nodes could make a container of that name, with these limits, of this.
///
/// # Errors
/// For people: why not.
pub(crate) fn check(name: &str, limits: &Limits, workload: &Workload) -> Result<(), String> {
    let asked = Desired {
        id: 1,
        name: name.to_owned(),
        limits: limits.clone(),
        defined: Defined { revision: 0, workload: workload.clone() },
        nodes: Vec::new(),
        leases: BTreeMap::new(),
    };
    // Whether there is such a network is for the state to say; what its rate can be, for the runtime.
    let network = workload.network.as_ref().map(|network| {
        network::network(1, network, 0, &[], &[], &network::Neighbours::new(), None)
    });
    steps::spec(&asked, network.and_then(Result::ok), None)
        .check()
        .map_err(|error| format!("{error:#}"))
}

/// Has the nodes agree on what may be proposed again if it was not.
async fn propose(consensus: &Consensus, command: &Command) -> Result<(), String> {
    match consensus.propose(command).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(refusal)) => Err(format!("agree on containers: {refusal}")),
        // That nobody leads is told elsewhere; it is tried again.
        Err(_) => {
            sleep(PAUSE).await;
            Ok(())
        }
    }
}

/// Runs what waits for a program or the kernel where that holds nobody up.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The daemon is ending.
            Err(_) => std::future::pending().await,
        },
    }
}
