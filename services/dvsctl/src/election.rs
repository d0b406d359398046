// SPDX-License-Identifier: MIT OR Apache-2.0
//! `dvsctl election`: of those who stand, one leads.

use std::process::ExitCode;

use dvs_api::{Election, ElectionLeader, ElectionRequest, ElectionStanding, Leader};

use crate::agreed::escaped;
use crate::arguments::{CampaignArguments, ElectionCommand, Output};
use crate::cluster::{Cluster, ANSWER};
use crate::lease::Held;
use crate::table::Table;
use crate::{print, Failure};

/// How long a node is asked to wait for another leader.
const WAIT_MS: u64 = 20_000;

pub(crate) fn run(
    cluster: &Cluster,
    output: Output,
    command: &ElectionCommand,
) -> Result<ExitCode, Failure> {
    match command {
        ElectionCommand::Campaign(arguments) => campaign(cluster, arguments),
        ElectionCommand::List => {
            let elections: Vec<Election> = cluster.any("/v1/elections")?;
            print(output, &elections, || list(&elections))?;
            Ok(ExitCode::SUCCESS)
        }
        ElectionCommand::Observe { name, follow } => observe(cluster, output, name, *follow),
    }
}

/// Waits until it leads, and runs the command for as long as it does.
fn campaign(cluster: &Cluster, arguments: &CampaignArguments) -> Result<ExitCode, Failure> {
    let CampaignArguments { name, ttl_s, value, command } = arguments;
    let program = command.first().map(|program| program.to_string_lossy().into_owned());
    let mut held = Held::begin(cluster, *ttl_s, &program.unwrap_or_default())?;
    let value = value.clone().unwrap_or_default();
    let request = ElectionRequest { name: name.clone(), lease: held.lease(), value };
    let term = match await_lead(&mut held, &request) {
        Ok(term) => term,
        Err(error) => {
            // The lease ends by itself if it cannot be ended.
            let _ = held.end();
            return Err(error);
        }
    };
    let variables = [("DVS_ELECTION", name.clone()), ("DVS_ELECTION_TERM", term.to_string())];
    held.run(&format!("the lead of election {name}"), command, &variables, "DVS_ELECTION_LEASE")
}

/// Waits until the lease leads; gives back its term.
fn await_lead(held: &mut Held<'_>, request: &ElectionRequest) -> Result<u64, Failure> {
    // Asking again from the same lease is harmless.
    let mut standing: ElectionStanding =
        held.insist(|endpoint| endpoint.post_within("/v1/elections", request, ANSWER))?;
    let wait_ms = held.wait_ms();
    let (name, lease) = (escaped(&request.name), request.lease);
    let path = format!("/v1/elections/standing?name={name}&lease={lease}&wait_ms={wait_ms}");
    loop {
        held.keep()?;
        if let Some(term) = standing.term {
            return Ok(term);
        }
        // Without a majority nobody is elected, and somebody is later, as long as the lease lasts.
        if let Some(now) = held.cluster().in_time(&path, wait_ms)? {
            standing = now;
        }
    }
}

fn observe(
    cluster: &Cluster,
    output: Output,
    name: &str,
    follow: bool,
) -> Result<ExitCode, Failure> {
    let escaped = escaped(name);
    let mut seen: ElectionLeader = cluster.any(&format!("/v1/elections/leader?name={escaped}"))?;
    loop {
        print(output, &seen, || told(name, seen.leader.as_ref()))?;
        if !follow {
            return Ok(if seen.leader.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        let term = seen.leader.as_ref().map(|leader| leader.term);
        let not_term = term.map(|term| format!("&not_term={term}")).unwrap_or_default();
        let path = format!("/v1/elections/leader?name={escaped}{not_term}&wait_ms={WAIT_MS}");
        seen = loop {
            let now: Option<ElectionLeader> = cluster.in_time(&path, WAIT_MS)?;
            let news = |now: &ElectionLeader| now.leader.as_ref().map(|it| it.term) != term;
            if let Some(now) = now.filter(news) {
                break now;
            }
        };
    }
}

fn told(name: &str, leader: Option<&Leader>) -> String {
    match leader {
        None => format!("nobody leads {name}\n"),
        Some(Leader { lease, term, value }) if value.is_empty() => {
            format!("lease {lease} leads {name} in term {term}\n")
        }
        Some(Leader { lease, term, value }) => {
            format!("{value} (lease {lease}) leads {name} in term {term}\n")
        }
    }
}

fn list(elections: &[Election]) -> String {
    let mut table = Table::new(&["ELECTION", "STATE", "TERM", "LEASE", "VALUE"]);
    for Election { name, leader, candidates } in elections {
        if let Some(Leader { lease, term, value }) = leader {
            let (term, lease) = (term.to_string(), lease.to_string());
            table.row([name.clone(), "leads".into(), term, lease, value.clone()]);
        }
        for one in candidates {
            let lease = one.lease.to_string();
            table.row([name.clone(), "stands".into(), String::new(), lease, one.value.clone()]);
        }
    }
    table.to_string()
}
