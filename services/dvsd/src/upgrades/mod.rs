// SPDX-License-Identifier: MIT OR Apache-2.0
//! Upgrades of this node to another image.
//!
//! The nodes agree on what each of them does next ([`dvs_state::upgrades`]); here a node does that, and says what came of it. It never acts on
//! its own: what it finds agreed on when it starts says what it was at.

pub mod api;
pub mod boot;
mod drivers;
pub(crate) mod rollout;

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dvs_api::PowerAction;
use dvs_bundle::{Manifest, TrustedKeys};
use dvs_consensus::Consensus;
use dvs_state::lifecycle::{Command as Lifecycle, Until};
use dvs_state::nodes::Seat;
use dvs_state::upgrades::{Bundle, Command as Upgrade, Phase, Step, UpgradeId};
use dvs_state::Command;
use tokio::sync::oneshot;
use tokio::time::{sleep, Instant};

use crate::agreement::seat;
use crate::containers::blocking;
use crate::daemon::Handle;
use crate::images::{Progress, Store};
use crate::machine;
use crate::orders::Order;
use boot::Boot;

/// The keys whose bundles this node takes: they are part of its image.
pub const KEYS: &str = "/etc/dvs/release-keys";
/// Where the kernel tells of devices.
const SYSFS: &str = "/sys";
/// How often it is looked what there is to do when nothing is agreed on.
const LOOK: Duration = Duration::from_millis(500);
/// How long nothing is tried after something failed.
const PAUSE: Duration = Duration::from_secs(2);
/// How long a node must be well before its image is good.
const WELL: Duration = Duration::from_secs(2);
/// How long it may be impossible to get the bundle before that is a failure.
const FETCH: Duration = Duration::from_secs(15);
/// How long the vote of a node may take to go to another one.
const VACATE: Duration = Duration::from_secs(20);
/// How long PID 1 may take to restart the machine.
const RESTART: Duration = Duration::from_secs(60);
/// Of the time that a node has for a step, in percent, how much a new image has until it is confirmed.
const TRIAL_PERCENT: u32 = 70;
/// How many times the size of a bundle must be free as memory: the bundle, its parts as files, and the kernel's copy of these.
const MEMORY_TIMES: u64 = 3;

/// Sees to the upgrades of this node.
pub struct Upgrades {
    daemon: Handle,
    store: Store,
    boot: Arc<dyn Boot>,
    keys: PathBuf,
    release: String,
    /// Since when it is as a node should be.
    well: Option<Instant>,
    /// Since when the bundle cannot be had.
    failing: Option<Instant>,
    is_confirmed: bool,
    told: String,
}

impl std::fmt::Debug for Upgrades {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upgrades").field("release", &self.release).finish_non_exhaustive()
    }
}

/// What is agreed on about this node.
struct Task {
    upgrade: UpgradeId,
    bundle: Bundle,
    patience_s: u32,
    is_cancelled: bool,
    step: Step,
}

impl Task {
    /// Whether the image that runs may be kept as far as people are concerned.
    fn allows(&self, release: &str) -> bool {
        self.is_cancelled || self.step == Step::Done || self.bundle.release != release
    }
}

impl Upgrades {
    /// Those of this daemon's node, which runs `release` and trusts the keys in the file `keys`.
    pub fn new(
        daemon: Handle,
        store: Store,
        boot: Arc<dyn Boot>,
        keys: PathBuf,
        release: String,
    ) -> Self {
        let (well, failing, is_confirmed, told) = (None, None, false, String::new());
        Self { daemon, store, boot, keys, release, well, failing, is_confirmed, told }
    }

    /// Runs for as long as it is polled.
    pub async fn run(mut self) {
        loop {
            match self.look().await {
                Ok(()) => {
                    self.told.clear();
                    sleep(LOOK).await;
                }
                Err(why) => {
                    if self.told != why {
                        println!("error: {why}");
                        self.told = why;
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }

    async fn look(&mut self) -> Result<(), String> {
        let Ok(consensus) = self.daemon.agreement.consensus() else {
            self.well = None;
            return Ok(());
        };
        let programmed = self.daemon.snapshots.borrow().programmed;
        let Some(own) = programmed.map(seat) else { return Ok(()) };
        let task = consensus.look(|state| {
            let upgrade = state.upgrades().current()?;
            let progress = upgrade.nodes.get(&own.id)?;
            Some(Task {
                upgrade: upgrade.id,
                bundle: upgrade.bundle.clone(),
                patience_s: upgrade.rules.patience_s,
                is_cancelled: upgrade.phase == Phase::Cancelled,
                step: progress.step.clone(),
            })
        });
        // What it has agreed on may be behind right after it has started.
        let is_current = consensus.look(|state| state.nodes().is_present(own));
        let is_free = task.as_ref().is_none_or(|task| task.allows(&self.release));
        let awaits = |task: &Task| matches!(task.step, Step::Restarting { left } if left != own);
        let is_well = match !self.is_confirmed || task.as_ref().is_some_and(awaits) {
            true => self.is_well().await,
            // Nobody asks.
            false => false,
        };
        if is_well && is_current && is_free && !self.is_confirmed {
            let boot = Arc::clone(&self.boot);
            blocking(move || boot.confirm()).await?;
            self.is_confirmed = true;
        }
        match task.filter(|task| is_current && !task.is_cancelled) {
            Some(task) => self.act(&consensus, own, &task, is_well).await,
            None => Ok(()),
        }
    }

    /// Whether this node has been as it should be for a while.
    async fn is_well(&mut self) -> bool {
        let is_well = crate::boot::missing(&self.daemon).await.is_none();
        let since = self.well.take().unwrap_or_else(Instant::now);
        self.well = is_well.then_some(since);
        is_well && since.elapsed() >= WELL
    }

    async fn act(
        &mut self,
        consensus: &Consensus,
        own: Seat,
        task: &Task,
        is_well: bool,
    ) -> Result<(), String> {
        let next = match &task.step {
            Step::Fetching => self.fetched(&task.bundle).await,
            Step::Restarting { left } if *left == own => {
                // It comes back from here only if that failed.
                let cause = self.restart(own, task).await;
                let undrained = Command::Lifecycle(Lifecycle::Undrain { id: own.id });
                if let Err(error) = consensus.propose(&undrained).await {
                    println!("warning: make this node one like any other again: {error}");
                }
                Some(Step::Failed { cause })
            }
            Step::Restarting { .. } if is_well && task.bundle.release == self.release => {
                Some(Step::Done)
            }
            Step::Waiting | Step::Ready | Step::Restarting { .. } | Step::Done => None,
            Step::Failed { .. } => None,
        };
        let Some(to) = next else { return Ok(()) };
        println!("upgrade {}: {to}", task.upgrade);
        let (upgrade, from) = (task.upgrade, task.step.clone());
        let command = Command::Upgrades(Upgrade::Advance { upgrade, node: own.id, from, to });
        match consensus.propose(&command).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(refusal)) => Err(format!("say how far this node is upgraded: {refusal}")),
            Err(error) => Err(format!("say how far this node is upgraded: {error}")),
        }
    }

    /// What came of getting the bundle, once something did.
    async fn fetched(&mut self, bundle: &Bundle) -> Option<Step> {
        match self.store.state(bundle.digest) {
            Some(Progress::Ready) => {}
            Some(Progress::Failed(why)) => {
                let since = *self.failing.get_or_insert_with(Instant::now);
                let cause = format!("it cannot get the bundle: {why}");
                return (since.elapsed() >= FETCH).then_some(Step::Failed { cause });
            }
            Some(Progress::Busy(_)) | None => return None,
        }
        self.failing = None;
        let available = machine::usage(Path::new(machine::PROC)).memory_available_bytes;
        let needed = MEMORY_TIMES * bundle.bytes;
        if available < needed {
            let cause = format!(
                "it has {} MiB of memory left, and the upgrade takes {} MiB; end some of what runs on it",
                available >> 20,
                needed >> 20
            );
            return Some(Step::Failed { cause });
        }
        let (path, keys) = (self.store.path(bundle.digest), self.keys.clone());
        let checked = blocking(move || {
            let mut image = Vec::new();
            let manifest = read(&path, &keys, |piece| image.extend_from_slice(piece))?;
            match drivers::missing(&image, &drivers::in_use(Path::new(SYSFS))) {
                None => Ok(manifest),
                Some(missing) => Err(missing),
            }
        });
        Some(match checked.await {
            Ok(manifest) if manifest.release == bundle.release => Step::Ready,
            Ok(manifest) => {
                let cause =
                    format!("the bundle is {}, and not what was agreed on", manifest.release);
                Step::Failed { cause }
            }
            Err(cause) => Step::Failed { cause },
        })
    }

    /// Restarts the machine with the new image. Comes back with why it did not.
    async fn restart(&self, own: Seat, task: &Task) -> String {
        let (path, keys) = (self.store.path(task.bundle.digest), self.keys.clone());
        let image = blocking(move || {
            let mut image = Vec::new();
            read(&path, &keys, |piece| image.extend_from_slice(piece)).map(|_| image)
        });
        let image = match image.await {
            Ok(image) => image,
            Err(why) => return why,
        };
        let vacated = self.daemon.agreement.vacate(own.id, Until::Back, false, VACATE).await;
        if let Err(obstacle) = vacated {
            return format!("it cannot be spared: {obstacle}");
        }
        let (boot, release) = (Arc::clone(&self.boot), task.bundle.release.clone());
        let trial_s = task.patience_s * TRIAL_PERCENT / 100;
        if let Err(why) = blocking(move || boot.arm(&release, &image, trial_s.max(1))).await {
            return why;
        }
        println!("upgrade {}: restarting with {}", task.upgrade, task.bundle.release);
        let (done, asked) = oneshot::channel();
        let order = Order::Power { action: PowerAction::Reboot, done };
        if self.daemon.orders.send(order).await.is_err() {
            return "its daemon takes no orders".to_owned();
        }
        match asked.await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => return why,
            Err(_) => return "its daemon takes no orders".to_owned(),
        }
        // The machine ends in the meantime; what is left to say is that it did not.
        sleep(RESTART).await;
        format!("it has not restarted within {} s", RESTART.as_secs())
    }
}

/// Reads a bundle, and gives its image away piece by piece.
fn read(path: &Path, keys: &Path, mut take: impl FnMut(&[u8])) -> Result<Manifest, String> {
    let trusted = trusted(keys)?;
    let file = File::open(path).map_err(|error| format!("open the bundle: {error}"))?;
    let mut file = BufReader::new(file);
    let read = dvs_bundle::verify(&mut file, &trusted, std::env::consts::ARCH, |piece| {
        take(piece);
        Ok(())
    });
    read.map_err(|error| error.to_string())
}

fn trusted(keys: &Path) -> Result<TrustedKeys, String> {
    let text = fs::read_to_string(keys).map_err(|error| {
        format!("read {}, the keys that bundles are checked with: {error}", keys.display())
    })?;
    TrustedKeys::parse(&text).map_err(|error| format!("{}: {error}", keys.display()))
}
