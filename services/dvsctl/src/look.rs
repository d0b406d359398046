// SPDX-License-Identifier: MIT OR Apache-2.0
//! What services and kernels say: `dvsctl logs` and `dvsctl dmesg`.

use dvs_api::{KernelLog, KernelRecord, Log};

use crate::arguments::{DmesgArguments, LogsArguments, Output};
use crate::cluster::{Cluster, Endpoint, Error};
use crate::{print, Failure};

/// How long a node is asked to wait for something to be said.
const WAIT_MS: u64 = 20_000;

/// The node that is asked: one and the same for all that follows.
fn endpoint(cluster: &Cluster, node: Option<u32>) -> Result<Endpoint, Error> {
    match node {
        Some(node) => cluster.node(node),
        None => cluster
            .first(|endpoint| endpoint.get::<dvs_api::Version>("/v1/version").map(|_| endpoint))
            .cloned(),
    }
}

pub(crate) fn logs(
    cluster: &Cluster,
    output: Output,
    arguments: &LogsArguments,
) -> Result<(), Failure> {
    let LogsArguments { service, node, lines, follow } = arguments;
    let endpoint = endpoint(cluster, *node)?;
    let mut log: Log = endpoint.get(&format!("/v1/logs/{service}?lines={lines}"))?;
    let text = |lines: &[String]| lines.iter().fold(String::new(), |text, line| text + line + "\n");
    if !follow {
        return print(output, &log, || text(&log.lines));
    }
    loop {
        for line in &log.lines {
            print(output, line, || format!("{line}\n"))?;
        }
        let path = format!("/v1/logs/{service}?after={}&wait_ms={WAIT_MS}", log.next);
        log = endpoint.get_within(&path, WAIT_MS)?;
    }
}

pub(crate) fn dmesg(
    cluster: &Cluster,
    output: Output,
    arguments: &DmesgArguments,
) -> Result<(), Failure> {
    let DmesgArguments { node, lines, level, follow } = arguments;
    let endpoint = endpoint(cluster, *node)?;
    let mut log: KernelLog = endpoint.get("/v1/kernel/log")?;
    log.records.retain(|record| record.level <= *level);
    let all = log.records.len();
    log.records.drain(..all - lines.unwrap_or(all).min(all));
    if !follow {
        return print(output, &log, || log.records.iter().map(line).collect());
    }
    loop {
        for record in log.records.iter().filter(|record| record.level <= *level) {
            print(output, record, || line(record))?;
        }
        // A kernel that has said nothing yet begins with number 0.
        let after = log.last.map(|last| format!("&after={last}")).unwrap_or_default();
        let path = format!("/v1/kernel/log?wait_ms={WAIT_MS}{after}");
        log = endpoint.get_within(&path, WAIT_MS)?;
    }
}

/// As `dmesg` of a machine has it.
fn line(record: &KernelRecord) -> String {
    let (s, us) = (record.time_us / 1_000_000, record.time_us % 1_000_000);
    format!("[{s:5}.{us:06}] {}\n", record.text)
}
