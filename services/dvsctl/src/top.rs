// SPDX-License-Identifier: MIT OR Apache-2.0
//! `dvsctl top`: what nodes and links are doing.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::thread;

use dvs_api::{Node, Usage};
use serde::Serialize;

use crate::arguments::{Output, TopArguments};
use crate::cluster::{Cluster, Endpoint, Error};
use crate::table::Table;
use crate::{duration, milliseconds, print, Failure};

/// What one node does.
#[derive(Clone, Debug, Serialize)]
struct Doing {
    node: Option<u32>,
    name: String,
    endpoint: String,
    /// How much of all its processors was at work since the last look, of 100; `None` at the first one.
    cpu_percent: Option<f64>,
    usage: Usage,
    /// Links to other nodes.
    links: Vec<dvs_api::Link>,
}

/// What all nodes do, and which could not be asked.
#[derive(Debug, Serialize)]
struct Sight {
    nodes: Vec<Doing>,
    errors: Vec<String>,
}

pub(crate) fn run(
    cluster: &Cluster,
    output: Output,
    arguments: &TopArguments,
) -> Result<ExitCode, Failure> {
    let people = matches!(output, Output::Table | Output::Wide);
    if people && !arguments.once && !io::stdout().is_terminal() {
        let text = "stdout is no terminal; use --once, or -o json for one value after the other";
        return Err(Failure::Refused(text.into()));
    }
    let mut before = look(cluster, None);
    loop {
        thread::sleep(arguments.interval);
        let now = look(cluster, Some(&before));
        print(output, &now, || match arguments.once {
            true => table(&now),
            // From the upper left corner, with the rest of each line and of the screen cleared: without flicker.
            false => format!("\x1b[H{}\x1b[J", table(&now).replace('\n', "\x1b[K\n")),
        })?;
        if arguments.once {
            now.errors.iter().for_each(|error| eprintln!("error: {error}"));
            return Ok(if now.errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        before = now;
    }
}

/// Asks all nodes at once: one that does not answer must not hold up the others.
fn look(cluster: &Cluster, before: Option<&Sight>) -> Sight {
    let answers: Vec<_> = thread::scope(|scope| {
        let ask = |endpoint| scope.spawn(move || doing(endpoint, before));
        let asked: Vec<_> = cluster.endpoints().iter().map(ask).collect();
        asked.into_iter().map(|asked| asked.join()).collect()
    });
    let mut sight = Sight { nodes: Vec::new(), errors: Vec::new() };
    for answer in answers {
        match answer {
            Ok(Ok(doing)) => sight.nodes.push(doing),
            Ok(Err(error)) => sight.errors.push(error.to_string()),
            Err(_) => sight.errors.push("asking a node failed in a way that it should not".into()),
        }
    }
    sight.nodes.sort_by_key(|doing| doing.node);
    sight
}

fn doing(endpoint: &Endpoint, before: Option<&Sight>) -> Result<Doing, Error> {
    let usage: Usage = endpoint.get("/v1/usage")?;
    let version: dvs_api::Version = endpoint.get("/v1/version")?;
    // A node that is in no cluster has no links.
    let nodes: Vec<Node> = match version.node {
        Some(_) => endpoint.get("/v1/nodes")?,
        None => Vec::new(),
    };
    let url = endpoint.url();
    let earlier = before.and_then(|sight| sight.nodes.iter().find(|doing| doing.endpoint == url));
    let cpu_percent = earlier.and_then(|earlier| busy(&earlier.usage, &usage));
    Ok(Doing {
        node: version.node,
        name: version.name.unwrap_or_default(),
        endpoint: url.to_owned(),
        cpu_percent,
        usage,
        links: nodes.into_iter().filter_map(|node| node.link).collect(),
    })
}

/// How much of the time between two looks processors were at work, of 100.
fn busy(before: &Usage, now: &Usage) -> Option<f64> {
    let busy = now.cpu_busy_s - before.cpu_busy_s;
    let all = busy + now.cpu_idle_s - before.cpu_idle_s;
    // A machine that was restarted counts anew.
    (all > 0.0 && busy >= 0.0).then(|| (100.0 * busy / all).clamp(0.0, 100.0))
}

fn table(sight: &Sight) -> String {
    let mut nodes =
        Table::new(&["NODE", "NAME", "CPUS", "CPU", "MEMORY", "FREE", "LOAD", "THREADS", "UP"]);
    for doing in &sight.nodes {
        let usage = &doing.usage;
        nodes.row([
            doing.node.map_or("-".into(), |node| node.to_string()),
            doing.name.clone(),
            usage.cpus.to_string(),
            doing.cpu_percent.map_or("-".into(), |percent| format!("{percent:.0}%")),
            bytes(usage.memory_total_bytes),
            bytes(usage.memory_available_bytes),
            format!("{:.2}", usage.load[0]),
            usage.threads.to_string(),
            duration(usage.uptime_s as u64),
        ]);
    }
    let mut links = Table::new(&["LINK", "STATE", "OVER", "RTT", "OUT", "IN", "SENT AGAIN"]);
    for doing in &sight.nodes {
        let Some(own) = doing.node else { continue };
        // Each link once: by its lower end if that was asked.
        let lower = |id: u32| sight.nodes.iter().any(|other| other.node == Some(id)) && id < own;
        for link in doing.links.iter().filter(|link| !lower(link.node)) {
            links.row([
                format!("{own}-{}", link.node),
                link.state.to_string(),
                link.transport.map_or("-".into(), |transport| transport.to_string()),
                milliseconds(f64::from(link.rtt_us)),
                format!("{}/s", bytes(link.send_bytes_per_s)),
                format!("{}/s", bytes(link.receive_bytes_per_s)),
                format!("{:.2}%", 100.0 * link.loss()),
            ]);
        }
    }
    let errors: String =
        sight.errors.iter().map(|error| format!("not reached: {error}\n")).collect();
    format!("{nodes}\n{links}{errors}")
}

/// Bytes in the largest unit that leaves at least three digits or all of them.
fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut value = count;
    while value >= 10_240 && unit + 1 < units.len() {
        value >>= 10;
        unit += 1;
    }
    format!("{value} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_told_of_the_time_in_between() {
        let at = |cpu_busy_s, cpu_idle_s| Usage { cpu_busy_s, cpu_idle_s, ..Usage::default() };
        assert_eq!(busy(&at(1.0, 9.0), &at(2.0, 12.0)), Some(25.0));
        assert_eq!(busy(&at(1.0, 9.0), &at(1.0, 9.0)), None);
        assert_eq!(busy(&at(5.0, 9.0), &at(1.0, 90.0)), None);
        assert_eq!(
            [bytes(0), bytes(10_239), bytes(10_240), bytes(128 << 20)],
            ["0 B", "10239 B", "10 KiB", "128 MiB"]
        );
    }
}
