// SPDX-License-Identifier: MIT OR Apache-2.0
//! The services of the cluster inside of containers: in each container that spans this node, an endpoint of this daemon answers the
//! questions of `dvk-services` ([`desk`], [`answer`]).
//!
//! It binds the container's server slot 63 on every node, each for the programs of its own node, and tells no other node's DVK of it. One slot on
//! one node with another node to take its place would have every question cross the network twice, and a time without an answer whenever that
//! node fails; here whoever can ask has its answerer on the same machine, and what must survive a node is what the nodes agree on anyway.
//! Endpoints of one slot on several nodes differ by their generations, which come from each node's own lease, so that one that a program
//! took along to another node is known to be stale there.
//!
//! A container has a space of names of its own ([`space`]). What a container leaves behind when it is deleted, whoever leads removes ([`sweep`]).

mod answer;
mod convert;
mod desk;
mod space;
mod sweep;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dvs_consensus::Consensus;
use dvs_state::containers::ContainerId;
use dvs_state::nodes::Seat;
use tokio::task::JoinHandle;
use tokio::time::{timeout, Instant};

use crate::agreement::asking::Asking;
use crate::agreement::seat;
use crate::daemon::Handle;
use crate::kernel::Kernel;
use desk::Desk;
use space::Space;

/// How often it is looked which containers there are, when nothing else happens.
const LOOK: Duration = Duration::from_millis(500);
/// How often it is looked for what containers have left behind.
const SWEEP: Duration = Duration::from_secs(2);
/// Looks after which a slot that cannot be bound is told of: the DVK gets to know of a container a little later than this.
const PATIENCE: u32 = 20;

/// Answers in the containers of this node.
#[derive(Debug)]
pub struct Services {
    daemon: Handle,
    /// In which place the endpoints were bound.
    life: Option<Seat>,
    desks: BTreeMap<ContainerId, JoinHandle<()>>,
    /// How often in a row a slot could not be bound.
    failed: BTreeMap<ContainerId, u32>,
}

impl Services {
    /// Those of this daemon's node.
    pub fn new(daemon: Handle) -> Self {
        Self { daemon, life: None, desks: BTreeMap::new(), failed: BTreeMap::new() }
    }

    /// Runs for as long as it is polled.
    pub async fn run(mut self) {
        let mut swept = Instant::now();
        loop {
            let Ok(consensus) = self.daemon.agreement.consensus() else {
                self.close(|_| false);
                tokio::time::sleep(LOOK).await;
                continue;
            };
            let mut progress = consensus.watch();
            progress.borrow_and_update();
            self.look(&consensus);
            if swept.elapsed() >= SWEEP {
                swept = Instant::now();
                sweep::sweep(&consensus).await;
            }
            // Most of what is agreed on is about no container, so it looks after a while all the same.
            let _ = timeout(LOOK, progress.changed()).await;
            tokio::time::sleep(LOOK / 10).await;
        }
    }

    /// Opens a desk in each container that spans this node, and closes all others.
    fn look(&mut self, consensus: &Consensus) {
        let (kernel, programmed) = {
            let snapshot = self.daemon.snapshots.borrow();
            (snapshot.kernel.clone(), snapshot.programmed.map(seat))
        };
        // In another place all endpoints of the one before have ended.
        if self.life != programmed {
            self.close(|_| false);
            self.life = programmed;
        }
        let (Some(kernel), Some(own)) = (kernel, programmed) else { return };
        let wanted: BTreeSet<ContainerId> = consensus.look(|state| {
            let spanning = state.containers().iter().filter(|(_, it)| it.nodes.contains(&own.id));
            match state.nodes().is_present(own) {
                true => spanning.map(|(id, _)| id).collect(),
                false => BTreeSet::new(),
            }
        });
        self.close(|id| wanted.contains(&id));
        for id in wanted {
            if !self.desks.contains_key(&id) {
                self.open(&*kernel, id);
            }
        }
    }

    fn open(&mut self, kernel: &dyn Kernel, id: ContainerId) {
        match kernel.serve(id.into(), dvk_services::SLOT) {
            Ok(port) => {
                self.failed.remove(&id);
                let asking = Asking::new(self.daemon.agreement.clone());
                let desk = Desk::new(Arc::from(port), asking, Space::of(id));
                self.desks.insert(id, tokio::spawn(desk.serve()));
            }
            Err(why) => {
                let failed = self.failed.entry(id).or_default();
                *failed += 1;
                if *failed == PATIENCE {
                    println!("error: answer the questions of container {id}: {why}");
                }
            }
        }
    }

    /// Closes the desks that are not to be kept, and forgets those that have ended by themselves.
    fn close(&mut self, keep: impl Fn(ContainerId) -> bool) {
        self.failed.retain(|id, _| keep(*id));
        self.desks.retain(|id, desk| {
            let kept = keep(*id) && !desk.is_finished();
            if !kept {
                desk.abort();
            }
            kept
        });
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        self.close(|_| false);
    }
}
