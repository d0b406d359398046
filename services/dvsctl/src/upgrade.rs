// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands about upgrades of nodes.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use dvs_api::{RollbackRequest, Upgrade, UpgradePhase, Upgrades};

use crate::arguments::{NodeSet, Output, PaceArguments, UpgradeArguments, UpgradeCommand};
use crate::cluster::Cluster;
use crate::dc::ids;
use crate::image::sending;
use crate::table::Table;
use crate::{duration, print, Failure};

/// How often it is looked how far an upgrade has come.
const LOOK: Duration = Duration::from_millis(500);
/// How long nobody may answer.
const SILENCE: Duration = Duration::from_secs(60);
const PATH: &str = "/v1/upgrade";

pub(crate) fn run(
    cluster: &Cluster,
    output: Output,
    upgrade: &UpgradeArguments,
) -> Result<ExitCode, Failure> {
    let asked = |what: &str| -> Result<Upgrades, Failure> {
        Ok(cluster.agreeing()?.post(&format!("{PATH}/{what}"), &())?)
    };
    match (&upgrade.command, &upgrade.bundle) {
        (None, Some(bundle)) => {
            let begun = start(cluster, upgrade, bundle)?;
            follow(cluster, output, begun, upgrade.pace.no_wait)
        }
        (Some(UpgradeCommand::Resume { no_wait }), _) => {
            follow(cluster, output, asked("resume")?, *no_wait)
        }
        (Some(UpgradeCommand::Pause), _) => status(output, &asked("pause")?),
        (Some(UpgradeCommand::Cancel), _) => status(output, &asked("cancel")?),
        (Some(UpgradeCommand::Status), _) | (None, None) => status(output, &cluster.any(PATH)?),
    }
}

/// Goes back to what the nodes ran before the last upgrade.
pub(crate) fn rollback(
    cluster: &Cluster,
    output: Output,
    pace: PaceArguments,
) -> Result<ExitCode, Failure> {
    let PaceArguments { canary, max_unavailable, patience, no_wait } = pace;
    let rules = RollbackRequest { canary, max_unavailable, patience_s: patience };
    let begun = cluster.agreeing()?.post(&format!("{PATH}/rollback"), &rules)?;
    follow(cluster, output, begun, no_wait)
}

fn start(cluster: &Cluster, asked: &UpgradeArguments, bundle: &Path) -> Result<Upgrades, Failure> {
    let failed =
        |error: io::Error| Failure::Refused(format!("upgrade to {}: {error}", bundle.display()));
    let file = File::open(bundle).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    let PaceArguments { canary, max_unavailable, patience, .. } = asked.pace;
    let mut path = format!(
        "{PATH}?canary={canary}&max_unavailable={max_unavailable}&patience_s={patience}&allow_downgrade={}",
        asked.allow_downgrade
    );
    if let NodeSet::Ids(_) = asked.nodes {
        let ids: Vec<_> = ids(cluster, &asked.nodes)?.iter().map(u32::to_string).collect();
        path += &format!("&nodes={}", ids.join(","));
    }
    let endpoint = cluster.agreeing()?;
    let name = bundle.file_name().unwrap_or_default().to_string_lossy();
    let (bar, body) = sending(file, bytes, &name);
    let sent = endpoint.put_stream(&path, bytes, body);
    bar.finish_and_clear();
    Ok(sent?)
}

/// Says what happens, until it is over.
fn follow(
    cluster: &Cluster,
    output: Output,
    begun: Upgrades,
    no_wait: bool,
) -> Result<ExitCode, Failure> {
    let id = begun.current.as_ref().map(|current| current.id);
    let (mut seen, mut told) = (begun, Vec::new());
    let mut heard = Instant::now();
    let wants_progress = io::stderr().is_terminal() || output == Output::Table;
    loop {
        let Some(current) = seen.current.as_ref().filter(|current| Some(current.id) == id) else {
            return Err(Failure::Refused("another upgrade has followed this one".into()));
        };
        let now: Vec<_> = current.nodes.iter().map(|node| (node.node, line(node))).collect();
        for (node, line) in now.iter().filter(|now| wants_progress && !told.contains(*now)) {
            eprintln!("node {node}: {line}");
        }
        told = now;
        if no_wait || current.phase != UpgradePhase::Running {
            return status(output, &seen);
        }
        sleep(LOOK);
        // The node that answers may be the one that restarts.
        match cluster.any::<Upgrades>(PATH) {
            Ok(upgrades) => (seen, heard) = (upgrades, Instant::now()),
            Err(error) if heard.elapsed() >= SILENCE => return Err(error.into()),
            Err(_) => {}
        }
    }
}

/// Prints it. An upgrade that is paused because nodes failed is a failure.
fn status(output: Output, upgrades: &Upgrades) -> Result<ExitCode, Failure> {
    print(output, upgrades, || text(upgrades))?;
    let paused = upgrades.current.as_ref().filter(|one| one.phase == UpgradePhase::Paused);
    if let Some(why) = paused.and_then(|paused| paused.why.as_ref()) {
        eprintln!("error: the upgrade is paused: {why}; `dvsctl upgrade resume` goes on, `dvsctl upgrade cancel` ends it");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn line(node: &dvs_api::UpgradeNode) -> String {
    match &node.cause {
        Some(cause) => format!("{}: {cause}", node.step),
        None => node.step.clone(),
    }
}

fn text(upgrades: &Upgrades) -> String {
    let Some(current) = &upgrades.current else {
        return "no upgrade was ever begun\n".into();
    };
    let mut text =
        format!("upgrade {} to {} is {}\n\n", current.id, current.release, current.phase);
    let mut table = Table::new(&["NODE", "STEP", "FOR", "RESTARTS", "CAUSE"]);
    for node in &current.nodes {
        table.row([
            node.node.to_string(),
            node.step.clone(),
            duration(node.for_ms / 1000),
            node.restarts.to_string(),
            node.cause.clone().unwrap_or_default(),
        ]);
    }
    text += &table.to_string();
    if !upgrades.past.is_empty() {
        let mut table = Table::new(&["UPGRADE", "TO", "WAS", "FAILED"]);
        for past in &upgrades.past {
            table.row([
                past.id.to_string(),
                past.release.clone(),
                past.phase.to_string(),
                failures(past),
            ]);
        }
        text += &format!("\n{table}");
    }
    text
}

fn failures(upgrade: &Upgrade) -> String {
    let failed = upgrade.nodes.iter().filter_map(|node| {
        let cause = node.cause.as_ref()?;
        Some(format!("node {}: {cause}", node.node))
    });
    failed.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use dvs_api::UpgradeNode;

    #[test]
    fn the_status_says_where_each_node_is_and_why() {
        let node = |node, step: &str, cause: Option<&str>| UpgradeNode {
            node,
            step: step.into(),
            cause: cause.map(Into::into),
            for_ms: 65_000,
            restarts: 1,
        };
        let upgrade = |id, phase, nodes| Upgrade {
            id,
            release: "0.2.0+ab".into(),
            digest: "00".repeat(32),
            bytes: 1,
            phase,
            why: None,
            nodes,
            started_ms: 0,
            started_unix_ms: None,
            changed_ms: 0,
        };
        let nodes = vec![node(0, "done", None), node(1, "failed", Some("it is gone"))];
        let past =
            vec![upgrade(1, UpgradePhase::Cancelled, vec![node(2, "failed", Some("no room"))])];
        let current = Some(upgrade(2, UpgradePhase::Paused, nodes));
        let all = Upgrades { current, past, before: None };
        let text = text(&all);
        assert!(text.starts_with("upgrade 2 to 0.2.0+ab is paused\n\n"), "{text}");
        let rows: Vec<Vec<_>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[3], ["0", "done", "1m05s", "1"]);
        assert_eq!(rows[4], ["1", "failed", "1m05s", "1", "it", "is", "gone"]);
        assert_eq!(rows[7], ["1", "0.2.0+ab", "cancelled", "node", "2:", "no", "room"]);
        let none = Upgrades { current: None, past: Vec::new(), before: None };
        assert_eq!(super::text(&none), "no upgrade was ever begun\n");
    }
}
