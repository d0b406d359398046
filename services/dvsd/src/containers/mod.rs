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
mod desired;
mod place;
mod runtime;
mod steps;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dvs_consensus::Consensus;
use dvs_runtime::{Fault, Status};
use dvs_state::containers::{self, ContainerId, Limits};
use dvs_state::kv::{self, Operation, Transaction};
use dvs_state::nodes::Seat;
use dvs_state::Command;
use tokio::time::{sleep, timeout};

use crate::agreement::{seat, Access};
use crate::daemon::Handle;
use crate::kernel::Kernel;
use desired::{desired, Desired};
pub(crate) use place::places;
use place::Report;
pub use runtime::Runtime;
use steps::{name_of, owned, step, Retries, Step};
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
    start: Instant,
    /// What failed last of what is about no container, for the log.
    told: String,
}

impl std::fmt::Debug for Containers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Containers").field("life", &self.life).finish_non_exhaustive()
    }
}

impl Containers {
    /// Those of this daemon's node, made by `runtime`.
    pub fn new(daemon: Handle, runtime: Arc<dyn Runtime>) -> Self {
        Self {
            daemon,
            runtime,
            life: None,
            table: Table::default(),
            retries: Retries::default(),
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
                    _ = progress.changed() => {}
                    // The daemon tells of itself all the time; another place in the cluster is what matters.
                    _ = snapshots.wait_for(|now| now.programmed != seen) => {}
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
        let ids: BTreeSet<ContainerId> =
            wanted.iter().map(|one| one.id).chain(kept.iter().copied()).collect();
        for id in ids {
            let want = wanted.iter().find(|one| one.id == id);
            let is_ready = self.table.is_ready(id, own.id);
            let next = step(want, found.get(&id), is_ready, self.retries.may(id, now_ms));
            if !matches!(next, Step::Nothing) {
                busy |= self.take(consensus, own, id, &next, now_ms).await;
            }
            let trouble = self.retries.trouble(id);
            reports.insert(id, Report::of(want.is_some(), found.get(&id), is_ready, trouble));
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
        for id in self.list().await?.into_keys() {
            let (runtime, name) = (Arc::clone(&self.runtime), name_of(id));
            blocking(move || runtime.delete(&name)).await.map_err(|fault| fault.to_string())?;
        }
        self.life = Some(own);
        Ok(())
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
            Step::Start => runtime.start(&name),
            Step::Delete => runtime.delete(&name),
        })
        .await;
        match done {
            Ok(()) => {
                if matches!(step, Step::Start) {
                    self.retries.succeeded(id);
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

async fn write(consensus: &Consensus, mut changes: Vec<Operation>) -> Result<(), String> {
    while !changes.is_empty() {
        let rest = changes.split_off(changes.len().min(kv::OPERATIONS_MAX));
        let transaction = Transaction { then: changes, ..Transaction::default() };
        propose(consensus, &Command::Kv(kv::Command::Transact(transaction))).await?;
        changes = rest;
    }
    Ok(())
}

/// Whether nodes could make a container of that name and with these limits.
///
/// # Errors
/// For people: why not.
pub(crate) fn check(name: &str, limits: &Limits) -> Result<(), String> {
    let (name, limits) = (name.to_owned(), limits.clone());
    let asked = Desired { id: 1, name, limits, leases: BTreeMap::new() };
    steps::spec(&asked).check().map_err(|error| format!("{error:#}"))
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
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The daemon is ending.
            Err(_) => std::future::pending().await,
        },
    }
}
