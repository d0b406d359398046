// SPDX-License-Identifier: MIT OR Apache-2.0
//! What this node boots from: an image that it tries is confirmed or given up here, and a disk of its machine is made one that boots.

pub mod api;
mod gate;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dvs_api::{PowerAction, StatusState};
use dvs_bootdisk::install::Machine;
use dvs_bootdisk::BootDisk;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::containers::blocking;
use crate::daemon::Handle;
use crate::orders::Order;
use crate::trial;
use gate::{Gate, Verdict};

/// How long after its start a node must work with an image that it tries.
const TRIAL: Duration = Duration::from_secs(300);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How long the nodes may take to tell this one what they have agreed on.
const AGREEMENT: Duration = Duration::from_secs(10);
/// How soon something is tried again that failed.
const PAUSE: Duration = Duration::from_secs(2);

/// The disk with slots that this node has booted from; or why there is none.
pub type Disk = Result<Arc<BootDisk>, String>;

/// What a machine boots from, and could.
#[derive(Clone, Debug)]
pub struct Boot {
    /// What it has booted from.
    pub disk: Disk,
    /// Where its disks are told of. A pretended machine has none, whatever the one has that it runs on.
    pub machine: Machine,
}

impl Boot {
    /// That of this machine.
    pub fn of_this_machine() -> Self {
        let disk = BootDisk::found().map(Arc::new);
        Self { disk, machine: Machine::default() }
    }

    /// That of a machine that is only pretended: it has no disk but what `directory` has.
    pub fn of_pretended_machine(directory: &Path) -> Self {
        let disk = Err("a pretended machine has booted from nothing".to_owned());
        let under = |name: &str| directory.join(name);
        let machine = Machine {
            block: under("block"),
            devices: under("devices"),
            mounts: under("mounts"),
            command_line: under("cmdline"),
            firmware: under("firmware"),
        };
        Self { disk, machine }
    }
}

/// Sees to an image that is being tried, until it is confirmed or given up. PID 1, which looks in `directory`, restarts the machine if it
/// hears nothing for longer.
pub async fn watch(disk: Arc<BootDisk>, directory: PathBuf, daemon: Handle) {
    if !disk.is_tried() {
        return;
    }
    let own = Arc::clone(&disk);
    loop {
        let own = Arc::clone(&own);
        match blocking(move || own.begin()).await {
            Ok(true) => break,
            // It was confirmed before this daemon started.
            Ok(false) => return tell(&directory),
            Err(error) => {
                println!("warning: note how far the image has come: {error}");
                sleep(PAUSE).await;
            }
        }
    }
    let mut gate = Gate::new(TRIAL);
    loop {
        let missing = missing(&daemon).await;
        // A daemon that is started anew gives the image no more time.
        let now = Duration::from_secs(trial::now_s());
        let (own, given_up) = (Arc::clone(&disk), "the image is given up");
        let done = match gate.look(now, missing.as_deref()) {
            Verdict::Wait => {
                sleep(LOOK).await;
                continue;
            }
            Verdict::Confirm => blocking(move || own.confirm())
                .await
                .map(|_| "this node works with its image, which is confirmed"),
            Verdict::GiveUp(why) => {
                println!("error: this node does not work with its image: {why}");
                blocking(move || own.give_up(&why)).await.map(|()| given_up)
            }
        };
        match done {
            Err(error) => {
                println!("error: {error}");
                sleep(PAUSE).await;
            }
            Ok(what) => {
                println!("{what}");
                match what == given_up {
                    true => reboot(&daemon).await,
                    false => tell(&directory),
                }
                return;
            }
        }
    }
}

fn tell(directory: &Path) {
    if let Err(error) = crate::upgrades::boot::tell(directory) {
        println!("error: {error}");
    }
}

/// What a node lacks to be one that works, for people; `None` for nothing.
pub(crate) async fn missing(daemon: &Handle) -> Option<String> {
    let snapshot = Arc::clone(&daemon.snapshots.borrow());
    let status = &snapshot.status;
    if status.state != StatusState::Ready || snapshot.programmed.is_none() {
        let state = serde_json::to_value(status.state).unwrap_or_default();
        let state = state.as_str().unwrap_or("not ready").to_owned();
        let detail = status.detail.as_str();
        return Some(if detail.is_empty() { state } else { format!("{state}, {detail}") });
    }
    let consensus = match daemon.agreement.consensus() {
        Ok(consensus) => consensus,
        Err(why) => return Some(why),
    };
    match timeout(AGREEMENT, consensus.read(|_| ())).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some("the nodes do not tell what they have agreed on".to_owned()),
    }
}

async fn reboot(daemon: &Handle) {
    daemon.leave().await;
    let (done, told) = oneshot::channel();
    if daemon.orders.send(Order::Power { action: PowerAction::Reboot, done }).await.is_ok() {
        if let Ok(Err(why)) = told.await {
            println!("error: {why}");
        }
    }
}
