// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the leader decides about an upgrade: from what was agreed on and which nodes are heard, the next command.

use std::collections::BTreeMap;

use super::{Command, Phase, Progress, Step, Upgrade};
use crate::nodes::{NodeId, Nodes, Seat};
use crate::time::Time;

/// How often a node may restart in an upgrade: one that never comes back with the image is given up.
pub const RESTARTS_MAX: u32 = 3;

/// A node that is heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// Its present life.
    pub seat: Seat,
    /// Whether it does what nodes do.
    pub is_ready: bool,
    /// What it says it runs.
    pub release: String,
}

/// The next command that is due; `None` while there is nothing but to wait.
///
/// - A node that does not come on within the time of the rules, or comes back with another image, has failed; then the upgrade is paused.
/// - All nodes get the bundle at once. They restart in order, as many at a time as may be away, and only once those have come back
///   that go first.
/// - A node that comes back with another image after it was done, as one without a disk does when its power is cut, begins anew, but
///   not for ever.
pub fn next(
    upgrade: &Upgrade,
    nodes: &Nodes,
    seen: &BTreeMap<NodeId, Sight>,
    now: Time,
) -> Option<Command> {
    if upgrade.phase == Phase::Cancelled {
        return None;
    }
    let failure = upgrade.nodes.iter().find_map(|(id, progress)| {
        let cause = failed(upgrade, seen.get(id), progress, now)?;
        Some(advance(upgrade, *id, progress, Step::Failed { cause }))
    });
    if failure.is_some() {
        return failure;
    }
    match upgrade.phase {
        Phase::Running => {}
        Phase::Complete => return again(upgrade, seen),
        Phase::Paused { .. } | Phase::Cancelled => return None,
    }
    if let Some((id, cause)) = upgrade.failures().next() {
        return Some(Command::Pause { upgrade: upgrade.id, why: format!("node {id}: {cause}") });
    }
    let runs_it = |id: &NodeId| {
        seen.get(id).is_some_and(|sight| sight.is_ready && sight.release == upgrade.bundle.release)
    };
    for (id, progress) in &upgrade.nodes {
        match progress.step {
            Step::Waiting | Step::Fetching | Step::Ready if runs_it(id) => {
                return Some(advance(upgrade, *id, progress, Step::Done));
            }
            Step::Waiting if seen.contains_key(id) => {
                return Some(advance(upgrade, *id, progress, Step::Fetching));
            }
            _ => {}
        }
    }
    if upgrade.nodes.values().all(|progress| progress.step == Step::Done) {
        return Some(Command::Complete { upgrade: upgrade.id });
    }
    let id = candidate(upgrade, nodes, seen)?;
    let (sight, progress) = (seen.get(&id)?, upgrade.nodes.get(&id)?);
    Some(advance(upgrade, id, progress, Step::Restarting { left: sight.seat }))
}

fn advance(upgrade: &Upgrade, node: NodeId, progress: &Progress, to: Step) -> Command {
    Command::Advance { upgrade: upgrade.id, node, from: progress.step.clone(), to }
}

/// Why a node has failed, if it has.
fn failed(
    upgrade: &Upgrade,
    sight: Option<&Sight>,
    progress: &Progress,
    now: Time,
) -> Option<String> {
    let patience_s = upgrade.rules.patience_s;
    let is_late = now >= progress.since.after(u64::from(patience_s) * 1_000);
    let wanted = &upgrade.bundle.release;
    match &progress.step {
        Step::Restarting { left } => match sight {
            Some(sight) if sight.seat.incarnation > left.incarnation && sight.release != *wanted => {
                Some(format!(
                    "it came back with {} instead of {wanted}: the new image failed, hung until a watchdog restarted the \
                     machine, or was not well in time",
                    sight.release
                ))
            }
            _ if !is_late => None,
            None => Some(format!("it has not come back within {patience_s} s")),
            Some(sight) if sight.seat == *left => {
                Some(format!("it has not restarted within {patience_s} s"))
            }
            Some(_) => Some(format!(
                "it came back with {wanted}, and was not well within {patience_s} s"
            )),
        },
        // One that is down gets the bundle when it is back.
        Step::Fetching if is_late && sight.is_some() => {
            Some(format!("it has not got the bundle within {patience_s} s"))
        }
        _ => None,
    }
}

/// The node that may restart next.
fn candidate(upgrade: &Upgrade, nodes: &Nodes, seen: &BTreeMap<NodeId, Sight>) -> Option<NodeId> {
    let away = |id: &NodeId| {
        let leaves = upgrade.nodes.get(id).is_some_and(|progress| progress.step.is_away());
        leaves || !seen.get(id).is_some_and(|sight| sight.is_ready)
    };
    let unavailable = nodes.iter().filter(|(id, _)| away(id)).count();
    if unavailable >= upgrade.rules.max_unavailable.into() {
        return None;
    }
    let canaries = usize::from(upgrade.rules.canary).min(upgrade.order.len());
    let is_done =
        |id: &NodeId| upgrade.nodes.get(id).is_some_and(|progress| progress.step == Step::Done);
    let first = &upgrade.order[..canaries];
    let among = match first.iter().all(is_done) {
        true => upgrade.order.as_slice(),
        false => first,
    };
    let may_go = |id: &&NodeId| {
        !away(id) && upgrade.nodes.get(id).is_some_and(|progress| progress.step == Step::Ready)
    };
    among.iter().find(may_go).copied()
}

/// Has a node of a completed upgrade begin anew that runs something else.
fn again(upgrade: &Upgrade, seen: &BTreeMap<NodeId, Sight>) -> Option<Command> {
    upgrade.nodes.iter().find_map(|(id, progress)| {
        let sight = seen.get(id)?;
        let strays = progress.step == Step::Done
            && sight.is_ready
            && sight.release != upgrade.bundle.release
            && progress.restarts < RESTARTS_MAX;
        strays.then(|| advance(upgrade, *id, progress, Step::Waiting))
    })
}
