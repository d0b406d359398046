// SPDX-License-Identifier: MIT OR Apache-2.0
//! Leases: kept alive while something is held under them, and as people see them.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

use dvs_api::{Lease, LeaseInfo, LeaseRequest};

use crate::arguments::{LeaseCommand, Output};
use crate::cluster::{Cluster, Endpoint, Error, ANSWER, RETRY};
use crate::table::Table;
use crate::{duration, print, Failure};

/// How often a command is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Longest that a node is asked to wait for something.
const WAIT_MS_MAX: u64 = 10_000;
/// How long nodes are asked that answer and cannot agree on a lease. Choosing another leader takes a few seconds.
const LEADERLESS: Duration = Duration::from_secs(20);

pub(crate) fn run(
    cluster: &Cluster,
    output: Output,
    command: &LeaseCommand,
) -> Result<(), Failure> {
    match command {
        LeaseCommand::List => {
            let leases: Vec<LeaseInfo> = cluster.any("/v1/leases")?;
            print(output, &leases, || list(&leases))
        }
        LeaseCommand::Revoke { lease } => {
            let path = format!("/v1/leases/{lease}");
            let ended: Lease = cluster.first(|endpoint| endpoint.delete(&path))?;
            print(output, &ended, || format!("lease {lease} has ended\n"))
        }
    }
}

fn list(leases: &[LeaseInfo]) -> String {
    let mut table = Table::new(&["LEASE", "TTL", "LEFT", "OWNER"]);
    for LeaseInfo { lease, ttl_ms, left_ms, owner } in leases {
        let [ttl, left] = [ttl_ms, left_ms].map(|ms| duration(ms / 1_000));
        table.row([lease.to_string(), ttl, left, owner.clone()]);
    }
    table.to_string()
}

/// A lease, kept alive from here.
pub(crate) struct Held<'a> {
    cluster: &'a Cluster,
    lease: u64,
    ttl: Duration,
    /// It lasts at least for its whole time from here on: when its last renewal was asked for.
    renewed: Instant,
}

impl<'a> Held<'a> {
    /// Begins one, and waits for a leader if there is none. One that is granted and not heard of ends by itself.
    pub(crate) fn begin(cluster: &'a Cluster, ttl_s: u64, owner: &str) -> Result<Self, Error> {
        let request = LeaseRequest { ttl_ms: ttl_s * 1_000, owner: owner.to_owned() };
        let deadline = Instant::now() + LEADERLESS;
        loop {
            let renewed = Instant::now();
            let begun =
                cluster.first(|endpoint| endpoint.post_within("/v1/leases", &request, ANSWER));
            match begun {
                Ok(Lease { lease, .. }) => {
                    return Ok(Self { cluster, lease, ttl: Duration::from_secs(ttl_s), renewed });
                }
                // Where nobody answers at all, waiting does not help.
                Err(Error::Refused { status: 503 | 504, .. }) if Instant::now() < deadline => {
                    sleep(RETRY);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Has something done under the lease that is harmless to be done twice: as often as it takes, as long as the lease lasts.
    pub(crate) fn insist<T>(
        &mut self,
        ask: impl Fn(&Endpoint) -> Result<T, Error>,
    ) -> Result<T, Failure> {
        loop {
            match self.cluster.first(&ask) {
                Err(error) if error.is_open() => {
                    self.keep()?;
                    sleep(RETRY);
                }
                other => return Ok(other?),
            }
        }
    }

    pub(crate) fn cluster(&self) -> &'a Cluster {
        self.cluster
    }

    pub(crate) fn lease(&self) -> u64 {
        self.lease
    }

    /// How long a node may be asked to wait, so that the lease is renewed in time.
    pub(crate) fn wait_ms(&self) -> u64 {
        (self.ttl.as_millis() as u64 / 3).clamp(300, WAIT_MS_MAX)
    }

    /// Renews the lease if a third of its time is over. An error is that it has been lost.
    pub(crate) fn keep(&mut self) -> Result<(), Failure> {
        if self.renewed.elapsed() < self.ttl / 3 {
            return Ok(());
        }
        let asked = Instant::now();
        let path = format!("/v1/leases/{}", self.lease);
        // A node that stalls must neither let the lease end unnoticed nor keep another one from being asked.
        let left = self.ttl.saturating_sub(self.renewed.elapsed());
        let limit = (left / self.cluster.endpoints().len().max(1) as u32).clamp(LOOK, ANSWER);
        match self.cluster.first(|endpoint| endpoint.post_within::<Lease>(&path, &(), limit)) {
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

    pub(crate) fn end(&self) -> Result<(), Error> {
        let path = format!("/v1/leases/{}", self.lease);
        match self.cluster.first(|endpoint| endpoint.delete::<Lease>(&path)) {
            Ok(_) | Err(Error::Refused { status: 404, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Runs a command for as long as the lease lasts, and ends the lease with it; the exit status is the command's. `what` is what is
    /// held under the lease, `variables` are added to the command's environment, and the lease's id under the name `own`.
    pub(crate) fn run(
        mut self,
        what: &str,
        command: &[OsString],
        variables: &[(&str, String)],
        own: &str,
    ) -> Result<ExitCode, Failure> {
        let started = Command::new(&command[0])
            .args(&command[1..])
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .env(own, self.lease.to_string())
            .spawn();
        let ended = match started {
            Ok(child) => self.watch_over(child, what),
            Err(error) => {
                let program = command[0].to_string_lossy();
                Err(Failure::Refused(format!("run {program} under {what}: {error}")))
            }
        };
        if let Err(error) = self.end() {
            let ttl_s = self.ttl.as_secs();
            eprintln!("warning: give {what} back: {error}; it ends within {ttl_s} s by itself");
        }
        let status = ended?;
        // As shells say it.
        let code = status.code().or(status.signal().map(|signal| 128 + signal));
        Ok(ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
    }

    /// Keeps the lease alive until the command ends; ends the command if the lease is lost.
    fn watch_over(&mut self, mut child: Child, what: &str) -> Result<ExitStatus, Failure> {
        let failed =
            |error: std::io::Error| Failure::Refused(format!("wait for the command: {error}"));
        loop {
            if let Some(status) = child.try_wait().map_err(failed)? {
                return Ok(status);
            }
            if let Err(error) = self.keep() {
                // It may have ended at this moment.
                let _ = child.kill();
                let _ = child.wait();
                let text = format!("{what} was lost, so the command was killed: {error}");
                return Err(Failure::Refused(text));
            }
            sleep(LOOK);
        }
    }
}
