// SPDX-License-Identifier: MIT OR Apache-2.0
//! What becomes of nodes: draining, restarting, removing them.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use dvs_api::{
    Node, NodeDrain, NodePhase, NodeRemoval, NodeRename, NodeStanding, NodeState, PowerAction,
    PowerAnswer, PowerRequest, WipeRequest, Wiped,
};

use crate::arguments::{
    DrainArguments, NodeCommand, Output, PowerArguments, RemoveArguments, ResetArguments,
};
use crate::cluster::{Cluster, Error};
use crate::{print, Failure};

/// How often is looked whether something has come about.
const POLL: Duration = Duration::from_millis(500);
/// How long a node may take to leave out one that it has agreed to remove.
const HEEDED: Duration = Duration::from_secs(30);

pub(crate) fn run(cluster: &Cluster, output: Output, command: &NodeCommand) -> Result<(), Failure> {
    match command {
        NodeCommand::List | NodeCommand::Show { .. } => Ok(()),
        NodeCommand::Drain(drain) => self::drain(cluster, output, drain),
        NodeCommand::Undrain { node } => {
            let path = format!("/v1/nodes/{node}/undrain");
            let standing: NodeStanding = cluster.agreeing()?.post(&path, &())?;
            print(output, &standing, || format!("node {node} is a node like any other again\n"))
        }
        NodeCommand::Rename { node, name } => {
            let path = format!("/v1/nodes/{node}/name");
            let rename = NodeRename { name: name.clone() };
            let standing: NodeStanding = cluster.agreeing()?.put(&path, &rename)?;
            print(output, &standing, || format!("node {node} is named {}\n", standing.name))
        }
        NodeCommand::Reboot(power) => self::power(cluster, output, power, PowerAction::Reboot),
        NodeCommand::Shutdown(power) => self::power(cluster, output, power, PowerAction::Shutdown),
        NodeCommand::Remove(remove) => self::remove(cluster, output, remove),
        NodeCommand::Reset(reset) => self::reset(cluster, output, reset),
        NodeCommand::Install(install) => crate::boot::install(cluster, output, install),
        NodeCommand::Images { node } => crate::boot::images(cluster, output, *node),
    }
}

fn progress(text: &str) {
    if io::stderr().is_terminal() {
        eprintln!("{text}…");
    }
}

fn drain(cluster: &Cluster, output: Output, drain: &DrainArguments) -> Result<(), Failure> {
    let DrainArguments { node, force } = *drain;
    progress(&format!("giving the vote of node {node} to another one"));
    let path = format!("/v1/nodes/{node}/drain");
    let asked = NodeDrain { force };
    let standing: NodeStanding = cluster.agreeing()?.post(&path, &asked)?;
    print(output, &standing, || {
        let left = match &standing.containers[..] {
            [] => String::new(),
            names => format!(
                "; what runs there stays: {} (`dvsctl dc scale` moves a container off it)",
                names.join(", ")
            ),
        };
        let duties = match (standing.leads, standing.votes) {
            (false, false) => "it neither votes nor leads",
            (true, _) => "it leads still, since no other node can",
            (false, true) => "it votes still, since no other node can",
        };
        format!("node {node} is drained: nothing new is placed on it, and {duties}{left}\n")
    })
}

/// What a node says of its standing.
fn standing(cluster: &Cluster, node: u32) -> Result<NodeStanding, Error> {
    cluster.any(&format!("/v1/nodes/{node}/standing"))
}

fn power(
    cluster: &Cluster,
    output: Output,
    arguments: &PowerArguments,
    action: PowerAction,
) -> Result<(), Failure> {
    let PowerArguments { node, force, no_wait, timeout_s } = *arguments;
    let endpoint = cluster.node(node)?;
    progress(&format!("node {node} gives its vote to another one"));
    let request = PowerRequest { action, force };
    let answer: PowerAnswer = endpoint.post("/v1/power", &request)?;
    if !no_wait {
        let deadline = Instant::now() + Duration::from_secs(timeout_s);
        let before = answer.incarnation.unwrap_or_default();
        match action {
            PowerAction::Reboot => await_back(cluster, node, before, deadline)?,
            PowerAction::Shutdown => await_gone(cluster, node, deadline)?,
        }
    }
    print(output, &answer, || match (action, no_wait) {
        (PowerAction::Reboot, false) => format!("node {node} has restarted and is ready\n"),
        (PowerAction::Reboot, true) => format!("node {node} restarts\n"),
        (PowerAction::Shutdown, false) => format!("node {node} is off\n"),
        (PowerAction::Shutdown, true) => format!("node {node} switches itself off\n"),
    })
}

fn await_back(cluster: &Cluster, node: u32, before: u32, deadline: Instant) -> Result<(), Failure> {
    progress(&format!("waiting for node {node} to come back"));
    loop {
        let seen = cluster.any::<Node>(&format!("/v1/nodes/{node}"));
        if let Ok(seen) = &seen {
            let works = matches!(seen.state, NodeState::Ready | NodeState::Draining);
            if seen.incarnation > before && works {
                return Ok(());
            }
        }
        if Instant::now() >= deadline {
            let last = match seen {
                Ok(seen) => format!("it is {} in incarnation {}", seen.state, seen.incarnation),
                Err(error) => error.to_string(),
            };
            return Err(Failure::Refused(format!(
                "node {node} was asked to restart and is not back yet: {last}; look at its console, or \
                 wait longer with --timeout"
            )));
        }
        std::thread::sleep(POLL);
    }
}

/// Until another node says that it is gone; if there is none, until it does not answer itself.
fn await_gone(cluster: &Cluster, node: u32, deadline: Instant) -> Result<(), Failure> {
    progress(&format!("waiting for node {node} to be gone"));
    loop {
        match cluster.any::<Node>(&format!("/v1/nodes/{node}")) {
            Ok(seen) if seen.state == NodeState::Down => return Ok(()),
            Err(Error::Unreachable(_)) => return Ok(()),
            _ if Instant::now() >= deadline => {
                return Err(Failure::Refused(format!(
                    "node {node} was asked to switch itself off and is heard still; look at its console, \
                     or wait longer with --timeout"
                )));
            }
            _ => std::thread::sleep(POLL),
        }
    }
}

fn remove(cluster: &Cluster, output: Output, remove: &RemoveArguments) -> Result<(), Failure> {
    let RemoveArguments { node, force } = *remove;
    let standing = out(cluster, node, force, true)?;
    print(output, &standing, || {
        format!(
            "node {node}, {}, was removed; machine {} stays out until `dvsctl node reset {node}`\n",
            standing.name, standing.machine
        )
    })
}

/// Has the nodes agree that a node is none any more, and waits until none of those that answer lists it.
fn out(cluster: &Cluster, node: u32, force: bool, barred: bool) -> Result<NodeStanding, Failure> {
    // The removed node itself cannot tell what became of it.
    let endpoint = cluster.agreeing_but(Some(node))?;
    progress(&format!("giving the vote of node {node} to another one, and removing it"));
    // One that is not kept out may come back at once, in a later life.
    let last = match barred {
        true => u32::MAX,
        false => self::standing(cluster, node)?.incarnation,
    };
    let path = format!("/v1/nodes/{node}/remove");
    let removal = NodeRemoval { force, barred };
    let standing: NodeStanding = endpoint.post(&path, &removal)?;
    let deadline = Instant::now() + HEEDED;
    loop {
        let nodes: Vec<Node> = endpoint.get("/v1/nodes")?;
        let is_it = |seen: &Node| seen.id == node && seen.incarnation <= last;
        if !nodes.iter().any(is_it) {
            return Ok(standing);
        }
        if Instant::now() >= deadline {
            return Err(Failure::Refused(format!(
                "the nodes have agreed to remove node {node}, but {} lists it still; look at its log",
                endpoint.url()
            )));
        }
        std::thread::sleep(POLL);
    }
}

fn reset(cluster: &Cluster, output: Output, reset: &ResetArguments) -> Result<(), Failure> {
    let ResetArguments { power, disk, wipe, shutdown } = reset;
    let PowerArguments { node, force, no_wait, timeout_s } = *power;
    // One that is to come back by itself may.
    let stays_out = disk.is_some() || *shutdown;
    let before = standing(cluster, node)?;
    let deadline = Instant::now() + Duration::from_secs(timeout_s);
    let (standing, incarnation) = match before.phase {
        // It hears that it may come back, and does by itself.
        NodePhase::Removed => {
            if stays_out {
                return Err(Failure::Refused(format!(
                    "node {node} was removed and is asked nothing any more: have it come back with `dvsctl node reset {node}`, and then reset \
                     it with --disk or --shutdown"
                )));
            }
            let path = format!("/v1/nodes/{node}/allow");
            (cluster.agreeing_but(Some(node))?.post(&path, &())?, before.incarnation)
        }
        _ => {
            // Found while it is a node: nobody can tell later which endpoint it was.
            let itself = cluster.node(node)?;
            if itself.is_relayed() {
                return Err(Failure::Refused(format!(
                    "node {node} is reached by another node only, which will not know it once it is removed; name its API with --endpoint"
                )));
            }
            // What is refused is refused before anything is done.
            if let Some(disk) = disk {
                let request = WipeRequest { disk: disk.clone(), dry_run: true };
                let Wiped { disk, .. } = itself.post("/v1/boot/disk/wipe", &request)?;
                let text = format!(
                    "{disk} of node {node} boots it, and its images, configuration and secrets there would be lost"
                );
                if !wipe && !crate::boot::confirmed(&text)? {
                    return Err(Failure::Refused(format!("{text}; say --wipe if you mean it")));
                }
            }
            // Its vote goes first: a node that cannot give it away has to go on booting.
            let standing = out(cluster, node, force, stays_out)?;
            if let Some(disk) = disk {
                progress(&format!("wiping {disk} of node {node}"));
                let request = WipeRequest { disk: disk.clone(), dry_run: false };
                let wiped = itself.post::<Wiped>("/v1/boot/disk/wipe", &request);
                wiped.map_err(|error| {
                    Failure::Refused(format!(
                        "node {node} was removed, but {disk} is not wiped: {error}; have it come back with `dvsctl node reset {node}` and try again"
                    ))
                })?;
            }
            let action = if *shutdown { PowerAction::Shutdown } else { PowerAction::Reboot };
            let request = PowerRequest { action, force: true };
            let answer: PowerAnswer = itself.post("/v1/power", &request)?;
            (standing, answer.incarnation.unwrap_or_default().max(before.incarnation))
        }
    };
    if !no_wait && !stays_out {
        await_back(cluster, node, incarnation, deadline)?;
    }
    print(output, &standing, || {
        let what = if *shutdown { "switches itself off" } else { "restarts" };
        let wiped = disk.iter().map(|disk| format!("; {disk} boots nothing any more"));
        match (stays_out, no_wait) {
            (true, _) => format!(
                "node {node} was removed and {what}{}; its machine stays out until `dvsctl node reset {node}`\n",
                wiped.collect::<String>()
            ),
            (false, true) => format!("node {node} may come back, with nothing of what it was\n"),
            (false, false) => {
                format!("node {node} is back and ready, with nothing of what it was\n")
            }
        }
    })
}
