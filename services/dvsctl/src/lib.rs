// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod agreed;
mod arguments;
mod barrier;
mod boot;
mod cluster;
mod config;
mod console;
mod context;
mod dc;
mod election;
mod endpoint;
mod events;
mod exec;
mod fs;
mod group;
mod image;
mod lease;
mod link;
mod lock;
mod look;
mod mount;
mod net;
mod node;
mod pages;
mod pxe;
mod segment;
mod support;
mod table;
mod token;
mod top;
mod upgrade;
mod vos;
mod yaml;

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use dvs_api::{Link, Node, NodeState, PingRequest, PingResult};
use serde::Serialize;

use arguments::{
    Arguments, ClusterCommand, Command, ConfigCommand, EndpointCommand, IpcCommand, LinkCommand,
    NodeCommand, Output, PingArguments,
};
use cluster::{Cluster, Error};
use table::Table;

/// The program: does what its arguments say.
pub fn main() -> ExitCode {
    let arguments = Arguments::of_program();
    match run(&arguments) {
        Ok(code) => code,
        // Whoever reads our output has read enough, as `head` does.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Cluster(#[from] Error),
    #[error(transparent)]
    Context(#[from] dvs_client::Error),
    /// What was asked for did not come about; why is for people.
    #[error("{0}")]
    Refused(String),
    #[error("write the output: {0}")]
    Output(#[from] io::Error),
}

fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let output = arguments.output;
    let cluster = match &arguments.command {
        // They are about reaching one.
        Command::Context(command) => return context::run(arguments, command),
        Command::Completions { shell } => return pages::completions(*shell),
        Command::Man { directory } => return pages::manual(directory),
        Command::Config(ConfigCommand::Validate { file }) => return config::validate(output, file),
        // It is about the node that it runs on, which may not answer yet.
        Command::Console(console) => return console::run(console),
        _ => context::cluster(arguments)?,
    };
    match &arguments.command {
        Command::Node(NodeCommand::List) => {
            let nodes: Vec<Node> = cluster.any("/v1/nodes")?;
            print(output, &nodes, || node_list(&nodes, output == Output::Wide))?;
        }
        Command::Node(NodeCommand::Show { node }) => {
            let node: Node = cluster.any(&format!("/v1/nodes/{node}"))?;
            print(output, &node, || node_show(&node))?;
        }
        Command::Token(command) => token::run(&cluster, output, command)?,
        Command::Node(command) => node::run(&cluster, output, command)?,
        Command::Cluster(ClusterCommand::Status) => return agreed::status(&cluster, output),
        Command::Dc(command) => return dc::run(&cluster, output, command),
        Command::Vos(command) => return vos::run(&cluster, output, command),
        Command::Fs(command) => return fs::run(&cluster, output, command),
        Command::Image(command) => image::run(&cluster, output, command)?,
        Command::Upgrade(arguments) => return upgrade::run(&cluster, output, arguments),
        Command::Rollback(pace) => return upgrade::rollback(&cluster, output, *pace),
        Command::Events(arguments) => events::run(&cluster, output, arguments)?,
        Command::Kv(command) => return agreed::kv(&cluster, output, command),
        Command::Lock(command) => return lock::run(&cluster, output, command),
        Command::Lease(command) => lease::run(&cluster, output, command)?,
        Command::Election(command) => return election::run(&cluster, output, command),
        Command::Group(command) => return group::run(&cluster, output, command),
        Command::Barrier(command) => return barrier::run(&cluster, output, command),
        Command::Net(command) => return net::run(&cluster, output, command),
        Command::Link(LinkCommand::List) => link::list(&cluster, output)?,
        Command::Link(LinkCommand::Set(set)) => link::set(&cluster, output, set)?,
        Command::Endpoint(EndpointCommand::List { dc, node }) => {
            return endpoint::list(&cluster, output, dc.as_deref(), *node);
        }
        Command::Ipc(IpcCommand::Ping(ping)) => return self::ping(&cluster, output, ping),
        Command::Pxe(command) => return pxe::run(&cluster, output, command),
        Command::Logs(logs) => look::logs(&cluster, output, logs)?,
        Command::Dmesg(dmesg) => look::dmesg(&cluster, output, dmesg)?,
        Command::Top(top) => return top::run(&cluster, output, top),
        Command::Config(command) => return config::run(&cluster, output, command),
        Command::Support(support) => return support::run(&cluster, output, support),
        Command::Segment(command) => return segment::run(&cluster, output, command),
        Command::Context(_)
        | Command::Completions { .. }
        | Command::Man { .. }
        | Command::Console(_) => {}
        Command::Version => return version(&cluster, output),
    }
    Ok(ExitCode::SUCCESS)
}

fn print<T: Serialize>(
    output: Output,
    value: &T,
    text: impl FnOnce() -> String,
) -> Result<(), Failure> {
    let text = match output {
        Output::Json => serde_json::to_string(value).map_err(io::Error::from)? + "\n",
        Output::Yaml => yaml::text(&serde_json::to_value(value).map_err(io::Error::from)?),
        Output::Table | Output::Wide => text(),
    };
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(())
}

/// Prints what was had of several nodes, and on standard error what was not, which is a failure.
fn told<T: Serialize>(
    output: Output,
    had: &[T],
    errors: &[impl Display],
    text: impl FnOnce() -> String,
) -> Result<ExitCode, Failure> {
    if !had.is_empty() || errors.is_empty() {
        print(output, &had, text)?;
    }
    errors.iter().for_each(|error| eprintln!("error: {error}"));
    Ok(if errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn node_list(nodes: &[Node], wide: bool) -> String {
    let mut headings = vec!["ID", "NAME", "STATE", "VERSION", "UPTIME", "LINK", "ADDRESSES"];
    if wide {
        headings.extend(["MACHINE", "INCARNATION", "OVER", "HEARD"]);
    }
    let mut table = Table::new(&headings);
    for node in nodes {
        let mut cells = vec![
            node.id.to_string(),
            node.name.clone(),
            node.state.to_string(),
            node.version.clone().unwrap_or_default(),
            match node.state {
                NodeState::Down => String::new(),
                _ => node.uptime_s.map(duration).unwrap_or_default(),
            },
            match (&node.link, node.local) {
                (_, true) => "local".into(),
                (Some(link), _) if link.rtt_us > 0 => {
                    format!("{} {}", link.state, milliseconds(f64::from(link.rtt_us)))
                }
                (Some(link), _) => link.state.to_string(),
                (None, _) => "none".into(),
            },
            node.addresses.join(" "),
        ];
        if wide {
            let over = node.link.as_ref().and_then(|link| link.transport);
            let heard = node.last_seen_ms.filter(|_| !node.local);
            cells.extend([
                node.mac.clone(),
                node.incarnation.to_string(),
                over.map(|over| over.to_string()).unwrap_or_default(),
                heard.map(|ms| format!("{:.1} s ago", ms as f64 / 1000.0)).unwrap_or_default(),
            ]);
        }
        table.cells(cells);
    }
    table.to_string()
}

fn node_show(node: &Node) -> String {
    let mut table = Table::new(&[]);
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("id", node.id.to_string());
    row("name", node.name.clone());
    row("state", node.state.to_string());
    row("version", node.version.clone().unwrap_or_else(|| "unknown".into()));
    row("incarnation", node.incarnation.to_string());
    row("cluster", node.cluster.clone());
    row("machine", node.mac.clone());
    row("addresses", node.addresses.join(" "));
    row("uptime", node.uptime_s.map_or("unknown".into(), duration));
    row(
        "last seen",
        match node.last_seen_ms {
            _ if node.local => "it is the node that answers".into(),
            Some(ms) => format!("{:.1} s ago", ms as f64 / 1000.0),
            None => "never in this incarnation".into(),
        },
    );
    if let Some(link) = &node.link {
        let Link { state, transport, interface, address, .. } = link;
        let over = transport.iter().map(|transport| format!(" over {transport}"));
        let by = interface.iter().map(|interface| format!(", {interface}"));
        let to = address.iter().map(|address| format!(" to {address}"));
        row("link", format!("{state}{}", over.chain(by).chain(to).collect::<String>()));
        if let Some(trouble) = &link.trouble {
            row("  trouble", format!("{}: {trouble}", link.chosen));
        }
        row("  round trip", milliseconds(f64::from(link.rtt_us)));
        row("  sent", format!("{} frames, {} bytes", link.frames_sent, link.bytes_sent));
        row(
            "  received",
            format!("{} frames, {} bytes", link.frames_received, link.bytes_received),
        );
        row("  retransmitted", format!("{} frames", link.retransmissions));
        row("  received twice", format!("{} frames", link.duplicates));
        row("  rejected", format!("{} frames", link.rejected));
        row("  loss", format!("{:.2}%", 100.0 * link.loss()));
        if let Some(segment) = &link.segment {
            row("  forged", format!("{} frames", segment.forged));
            row("  replayed", format!("{} frames", segment.replayed));
            row("  other keys", format!("{} frames", segment.foreign));
        }
    }
    table.to_string()
}

fn ping(cluster: &Cluster, output: Output, ping: &PingArguments) -> Result<ExitCode, Failure> {
    let endpoint = match ping.from {
        Some(from) => cluster.node(from)?,
        None => cluster.first_member()?.clone(),
    };
    let request = PingRequest {
        to: ping.to,
        count: ping.count,
        timeout_ms: ping.timeout_ms,
        interval_ms: ping.interval_ms,
    };
    if io::stderr().is_terminal() && ping.count >= 1_000 {
        eprintln!("{} round trips to node {}…", ping.count, ping.to);
    }
    let result: PingResult = endpoint.post("/v1/ipc/ping", &request)?;
    print(output, &result, || {
        let PingResult { from, to, sent, received, duplicated, lost, reordered, rtt_us } = &result;
        let ms = |us: f64| milliseconds(us);
        format!(
            "node {from} to node {to}: {sent} sent, {received} received, {duplicated} duplicated, \
             {lost} lost, {reordered} reordered\nround trip: min {}, p50 {}, p99 {}, max {}, mean \
             {}\n",
            ms(rtt_us.min),
            ms(rtt_us.p50),
            ms(rtt_us.p99),
            ms(rtt_us.max),
            ms(rtt_us.mean)
        )
    })?;
    if result.lost > 0 {
        eprintln!("error: {} of {} round trips got no reply in time", result.lost, result.sent);
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// What `dvsctl version` says.
#[derive(Debug, Serialize)]
struct Versions {
    client: &'static str,
    nodes: Vec<NodeVersion>,
}

#[derive(Debug, Serialize)]
struct NodeVersion {
    endpoint: String,
    #[serde(flatten)]
    version: Option<dvs_api::Version>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

fn version(cluster: &Cluster, output: Output) -> Result<ExitCode, Failure> {
    let mut versions = Versions { client: env!("CARGO_PKG_VERSION"), nodes: Vec::new() };
    for endpoint in cluster.endpoints() {
        let (version, error) = match endpoint.get("/v1/version") {
            Ok(version) => (Some(version), None),
            Err(error) => (None, Some(error.to_string())),
        };
        versions.nodes.push(NodeVersion { endpoint: endpoint.url().to_owned(), version, error });
    }
    print(output, &versions, || {
        let mut table = Table::new(&["", "VERSION", "CLUSTER", "ENDPOINT"]);
        table.row(["dvsctl".into(), versions.client.into(), String::new(), String::new()]);
        for node in versions.nodes.iter().filter(|node| node.error.is_none()) {
            let Some(version) = &node.version else { continue };
            let id = version.node.map_or("no node yet".into(), |id| format!("node {id}"));
            let (version, cluster) = (version.version.clone(), version.cluster.clone());
            table.row([id, version, cluster, node.endpoint.clone()]);
        }
        table.to_string()
    })?;
    let errors: Vec<_> = versions.nodes.iter().filter_map(|node| node.error.as_ref()).collect();
    errors.iter().for_each(|error| eprintln!("error: {error}"));
    Ok(if errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Seconds as people say them, in the two largest units.
fn duration(s: u64) -> String {
    match (s / 86_400, s / 3_600 % 24, s / 60 % 60, s % 60) {
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m{s:02}s"),
        (0, h, m, _) => format!("{h}h{m:02}m"),
        (d, h, _, _) => format!("{d}d{h:02}h"),
    }
}

fn milliseconds(us: f64) -> String {
    format!("{:.3} ms", us / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units() {
        let texts = [5, 65, 3_700, 90_000].map(duration);
        assert_eq!(texts, ["5s", "1m05s", "1h01m", "1d01h"]);
    }
}
