// SPDX-License-Identifier: MIT OR Apache-2.0
//! Locks, and commands that run under one.

use std::process::ExitCode;

use dvs_api::{Lock, LockHolder, LockRelease, LockReleased, LockRequest, LockStanding};
use serde::Serialize;

use crate::agreed::escaped;
use crate::arguments::{AcquireArguments, LockCommand, Output};
use crate::cluster::{Cluster, ANSWER};
use crate::lease::Held;
use crate::table::Table;
use crate::{print, Failure};

pub(crate) fn run(
    cluster: &Cluster,
    output: Output,
    command: &LockCommand,
) -> Result<ExitCode, Failure> {
    match command {
        LockCommand::Acquire(acquire) => self::acquire(cluster, output, acquire),
        LockCommand::Release { name, lease } => {
            let release = LockRelease { name: name.clone(), lease: *lease };
            // Giving it back twice is harmless.
            let answer: LockReleased =
                cluster.first(|endpoint| endpoint.post("/v1/locks/release", &release))?;
            if !answer.released {
                return Err(Failure::Refused(format!(
                    "lock {name} is not held under lease {lease}; see `dvsctl lock list`"
                )));
            }
            print(output, &answer, || format!("lock {name} was given back\n"))?;
            Ok(ExitCode::SUCCESS)
        }
        LockCommand::List => {
            let locks: Vec<Lock> = cluster.any("/v1/locks")?;
            print(output, &locks, || list(&locks))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn list(locks: &[Lock]) -> String {
    let mut table = Table::new(&["LOCK", "STATE", "FENCE", "LEASE", "WHO"]);
    for lock in locks {
        let holders = lock.holders.iter().map(|holder| ("held", holder));
        let waiting = lock.waiting.iter().map(|waiter| ("waiting", waiter));
        for (state, LockHolder { lease, fence, label }) in holders.chain(waiting) {
            let fence = fence.map(|fence| fence.to_string()).unwrap_or_default();
            table.row([lock.name.clone(), state.into(), fence, lease.to_string(), label.clone()]);
        }
    }
    table.to_string()
}

/// What `dvsctl lock acquire` says.
#[derive(Debug, Serialize)]
struct Acquired<'a> {
    name: &'a str,
    lease: u64,
    fence: u64,
    ttl_ms: u64,
}

fn acquire(
    cluster: &Cluster,
    output: Output,
    acquire: &AcquireArguments,
) -> Result<ExitCode, Failure> {
    let AcquireArguments { name, ttl_s, no_wait, places, label, command } = acquire;
    let label = label.clone().unwrap_or_else(|| match command.first() {
        Some(program) => program.to_string_lossy().into_owned(),
        None => "dvsctl".into(),
    });
    let mut held = Held::begin(cluster, *ttl_s, &label)?;
    let lease = held.lease();
    let request = LockRequest { name: name.clone(), lease, places: *places, wait: !no_wait, label };
    let fence = match stand_in_line(&mut held, &request) {
        Ok(fence) => fence,
        Err(error) => {
            // The lease ends by itself if it cannot be ended.
            let _ = held.end();
            return Err(error);
        }
    };
    if command.is_empty() {
        let ttl_ms = ttl_s * 1_000;
        print(output, &Acquired { name, lease, fence, ttl_ms }, || {
            format!(
                "lock {name} is held for {ttl_s} s under lease {lease}, fencing token {fence}\n"
            )
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let variables = [("DVS_LOCK", name.clone()), ("DVS_LOCK_FENCE", fence.to_string())];
    held.run(&format!("lock {name}"), command, &variables, "DVS_LOCK_LEASE")
}

/// Waits until the lock is held; gives back its fencing token.
fn stand_in_line(held: &mut Held<'_>, request: &LockRequest) -> Result<u64, Failure> {
    // Asking again from the same lease is harmless.
    let mut standing: LockStanding =
        held.insist(|endpoint| endpoint.post_within("/v1/locks", request, ANSWER))?;
    let wait_ms = held.wait_ms();
    let path = format!(
        "/v1/locks/standing?name={}&lease={}&wait_ms={wait_ms}",
        escaped(&request.name),
        request.lease
    );
    loop {
        held.keep()?;
        if let Some(fence) = standing.fence {
            return Ok(fence);
        }
        // Without a majority the line stands still, and goes on later, as long as the lease lasts.
        if let Some(now) = held.cluster().in_time(&path, wait_ms)? {
            standing = now;
        }
    }
}
