// SPDX-License-Identifier: MIT OR Apache-2.0
//! Locks, and commands that run under one.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

use dvs_api::{
    Lease, LeaseRequest, Lock, LockHolder, LockRelease, LockReleased, LockRequest, LockStanding,
};
use serde::Serialize;

use crate::agreed::escaped;
use crate::arguments::{AcquireArguments, LockCommand, Output};
use crate::cluster::{Cluster, Error};
use crate::table::Table;
use crate::{print, Failure};

/// How often a command is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Longest that a node is asked to wait for a lock.
const WAIT_MS_MAX: u64 = 10_000;

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

/// A lease, kept alive from here.
struct Held<'a> {
    cluster: &'a Cluster,
    lease: u64,
    ttl: Duration,
    /// It lasts at least for its whole time from here on: when its last renewal was asked for.
    renewed: Instant,
}

impl Held<'_> {
    /// Renews the lease if a third of its time is over. An error is that it has been lost.
    fn keep(&mut self) -> Result<(), Failure> {
        if self.renewed.elapsed() < self.ttl / 3 {
            return Ok(());
        }
        let asked = Instant::now();
        let path = format!("/v1/leases/{}", self.lease);
        match self.cluster.first(|endpoint| endpoint.post::<Lease>(&path, &())) {
            Ok(_) => {
                self.renewed = asked;
                Ok(())
            }
            // It has ended; and so has what was held under it.
            Err(error @ Error::Refused { status: 404, .. }) => Err(error.into()),
            Err(error) if self.renewed.elapsed() >= self.ttl => Err(error.into()),
            Err(_) => Ok(()),
        }
    }

    fn end(&self) -> Result<(), Error> {
        let path = format!("/v1/leases/{}", self.lease);
        match self.cluster.first(|endpoint| endpoint.delete::<Lease>(&path)) {
            Ok(_) | Err(Error::Refused { status: 404, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
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
    let ttl = Duration::from_secs(*ttl_s);
    let request = LeaseRequest { ttl_ms: ttl_s * 1_000, owner: label.clone() };
    let asked = Instant::now();
    // One that is granted and not heard of ends by itself.
    let Lease { lease, ttl_ms } =
        cluster.first(|endpoint| endpoint.post("/v1/leases", &request))?;
    let mut held = Held { cluster, lease, ttl, renewed: asked };
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
        print(output, &Acquired { name, lease, fence, ttl_ms }, || {
            format!(
                "lock {name} is held for {ttl_s} s under lease {lease}, fencing token {fence}\n"
            )
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let started = Command::new(&command[0])
        .args(&command[1..])
        .env("DVS_LOCK", name)
        .env("DVS_LOCK_FENCE", fence.to_string())
        .env("DVS_LOCK_LEASE", lease.to_string())
        .spawn();
    let ended = match started {
        Ok(child) => watch_over(child, &mut held, name),
        Err(error) => {
            let program = command[0].to_string_lossy();
            Err(Failure::Refused(format!("run {program} under lock {name}: {error}")))
        }
    };
    if let Err(error) = held.end() {
        eprintln!("warning: give lock {name} back: {error}; it ends within {ttl_s} s by itself");
    }
    let status = ended?;
    // As shells say it.
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    Ok(ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

/// Waits until the lock is held; gives back its fencing token.
fn stand_in_line(held: &mut Held<'_>, request: &LockRequest) -> Result<u64, Failure> {
    // Asking again from the same lease is harmless.
    let mut standing: LockStanding =
        held.cluster.first(|endpoint| endpoint.post("/v1/locks", request))?;
    let wait_ms = (held.ttl.as_millis() as u64 / 3).clamp(300, WAIT_MS_MAX);
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
        match held.cluster.any_within(&path, wait_ms) {
            Ok(now) => standing = now,
            // Without a majority the line stands still, and goes on later, as long as the lease lasts.
            Err(Error::Unreachable(_) | Error::Refused { status: 503, .. }) => sleep(LOOK),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Keeps the lease alive until the command ends; ends the command if the lease is lost.
fn watch_over(mut child: Child, held: &mut Held<'_>, name: &str) -> Result<ExitStatus, Failure> {
    let failed = |error: std::io::Error| Failure::Refused(format!("wait for the command: {error}"));
    loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            return Ok(status);
        }
        if let Err(error) = held.keep() {
            // It may have ended at this moment.
            let _ = child.kill();
            let _ = child.wait();
            let text = format!("lock {name} was lost, so the command was killed: {error}");
            return Err(Failure::Refused(text));
        }
        sleep(LOOK);
    }
}
