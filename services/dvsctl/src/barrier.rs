// SPDX-License-Identifier: MIT OR Apache-2.0
//! `dvsctl barrier`: nobody goes on before so many have arrived.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use dvs_api::{Barrier, BarrierDeparture, BarrierLeft, BarrierPassage, BarrierRequest};

use crate::agreed::escaped;
use crate::arguments::{BarrierCommand, BarrierWaitArguments, Output};
use crate::cluster::{Cluster, Error, ANSWER};
use crate::lease::Held;
use crate::table::Table;
use crate::{print, Failure};

/// For how long an arrival counts after its party died.
const TTL_S: u64 = 10;

pub(crate) fn run(
    cluster: &Cluster,
    output: Output,
    command: &BarrierCommand,
) -> Result<ExitCode, Failure> {
    match command {
        BarrierCommand::Wait(arguments) => wait(cluster, output, arguments),
        BarrierCommand::List => {
            let barriers: Vec<Barrier> = cluster.any("/v1/barriers")?;
            print(output, &barriers, || list(&barriers))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn wait(
    cluster: &Cluster,
    output: Output,
    arguments: &BarrierWaitArguments,
) -> Result<ExitCode, Failure> {
    let BarrierWaitArguments { name, parties, timeout_s } = arguments;
    let mut held = Held::begin(cluster, TTL_S, "dvsctl barrier wait")?;
    let (name, parties, lease) = (name.clone(), *parties, held.lease());
    let request = BarrierRequest { name, parties, lease, attempt: 0 };
    let deadline = timeout_s.map(|timeout_s| Instant::now() + Duration::from_secs(timeout_s));
    let passed = pass(&mut held, &request, deadline);
    // The lease ends by itself if it cannot be ended.
    let _ = held.end();
    let passage = passed?;
    let Some(round) = passage.round else {
        let (name, missing) = (&request.name, passage.missing.unwrap_or_default());
        let timeout_s = timeout_s.unwrap_or_default();
        return Err(Failure::Refused(format!(
            "barrier {name} did not open within {timeout_s} s: {missing} of {parties} have not arrived"
        )));
    };
    print(output, &passage, || {
        format!("barrier {} is open: round {round}, {parties} parties\n", request.name)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Arrives, and waits until the barrier opens or the time is over.
fn pass(
    held: &mut Held<'_>,
    request: &BarrierRequest,
    deadline: Option<Instant>,
) -> Result<BarrierPassage, Failure> {
    // Asking again with the same attempt is harmless.
    let mut passage: BarrierPassage =
        held.insist(|endpoint| endpoint.post_within("/v1/barriers", request, ANSWER))?;
    let (name, lease) = (escaped(&request.name), request.lease);
    loop {
        held.keep()?;
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if passage.round.is_some() {
            return Ok(passage);
        }
        if left.is_some_and(|left| left.is_zero()) {
            return leave(held, request, passage);
        }
        let left_ms = left.map_or(u64::MAX, |left| left.as_millis() as u64 + 1);
        let wait_ms = held.wait_ms().min(left_ms);
        let path = format!("/v1/barriers/passage?name={name}&lease={lease}&wait_ms={wait_ms}");
        // Without a majority nobody arrives, and somebody does later, as long as the lease lasts.
        if let Some(now) = held.cluster().in_time(&path, wait_ms)? {
            passage = now;
        }
    }
}

/// Goes away; gives back what was known unless the barrier opened before that: the others went through with this party then.
fn leave(
    held: &mut Held<'_>,
    request: &BarrierRequest,
    known: BarrierPassage,
) -> Result<BarrierPassage, Failure> {
    let (name, lease) = (request.name.clone(), request.lease);
    let path = format!("/v1/barriers/passage?name={}&lease={lease}", escaped(&name));
    let departure = BarrierDeparture { name, lease };
    let passage = held
        .insist(|endpoint| endpoint.post_within("/v1/barriers/leave", &departure, ANSWER))
        .and_then(|BarrierLeft { left }| match left {
            true => Ok(known),
            false => held.insist(|endpoint| endpoint.get(&path)),
        });
    match passage {
        // It had gone already when it asked a second time, for an answer that was lost.
        Err(Failure::Cluster(Error::Refused { status: 404, .. })) => Ok(known),
        passage => passage,
    }
}

fn list(barriers: &[Barrier]) -> String {
    let mut table = Table::new(&["BARRIER", "PARTIES", "ARRIVED", "LEASES"]);
    for Barrier { name, parties, waiting } in barriers {
        let leases: Vec<_> = waiting.iter().map(ToString::to_string).collect();
        let arrived = waiting.len().to_string();
        table.row([name.clone(), parties.to_string(), arrived, leases.join(" ")]);
    }
    table.to_string()
}
