// SPDX-License-Identifier: MIT OR Apache-2.0
//! Virtual operating systems: what is asked of the program in their containers that runs their servers.

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use dvs_api::{Container, ContainerPhase};
use serde::{Deserialize, Serialize};

use crate::arguments::{Output, RunArguments, VosCommand, VosPlace, WaitArguments};
use crate::cluster::Cluster;
use crate::table::Table;
use crate::{dc, duration, exec, print, Failure};

/// A server on a node, as the program tells.
#[derive(Debug, Serialize, Deserialize)]
struct Server {
    server: String,
    node: Option<u32>,
    state: String,
    pid: Option<u32>,
    since_ms: u64,
    failures: u32,
    last_exit: Option<String>,
    detail: Option<String>,
    /// What else it tells.
    #[serde(flatten)]
    more: serde_json::Map<String, serde_json::Value>,
}

/// What `dvsctl vos run` says.
#[derive(Debug, Serialize)]
struct Started<'a> {
    dc: &'a str,
    url: Option<&'a str>,
}

pub(crate) fn run(
    cluster: &Cluster,
    output: Output,
    command: &VosCommand,
) -> Result<ExitCode, Failure> {
    match command {
        VosCommand::Run(run) => start(cluster, output, run),
        VosCommand::Load { place, manifest, wait } => {
            let text = read(manifest)?;
            load(cluster, place, text, *wait)
        }
        VosCommand::Show { place } => show(cluster, output, place),
        VosCommand::Move { place, name, to, timeout_s } => {
            let (to, timeout) = (to.to_string(), timeout_s.to_string());
            let words = ["move", "--to", &to, "--timeout", &timeout, "--", name];
            passed(ask(cluster, place, &words, Vec::new())?)
        }
        VosCommand::Url { place } => passed(ask(cluster, place, &["url"], Vec::new())?),
    }
}

fn read(manifest: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(manifest)
        .map_err(|error| Failure::Refused(format!("read {}: {error}", manifest.display())))
}

fn start(cluster: &Cluster, output: Output, run: &RunArguments) -> Result<ExitCode, Failure> {
    let RunArguments { name, place, nodes, manifest, definition, timeout_s } = run;
    let text = read(manifest)?;
    let wait = WaitArguments { no_wait: false, timeout_s: *timeout_s };
    let (image, command) = (name.clone(), vec![place.rs.clone(), "run".to_owned()]);
    dc::begin(cluster, &place.dc, nodes, definition, (image, command), wait)?;
    let loaded = load(cluster, place, text, wait)?;
    if loaded != ExitCode::SUCCESS {
        return Ok(loaded);
    }
    // A manifest need not name one.
    let named = ask(cluster, place, &["url"], Vec::new())?;
    let url = String::from_utf8_lossy(&named.stdout).trim().to_owned();
    let url = (named.status == 0 && !url.is_empty()).then_some(url.as_str());
    print(output, &Started { dc: &place.dc, url }, || match url {
        Some(url) => format!("{url}\n"),
        None => format!("all servers in {} run\n", place.dc),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn load(
    cluster: &Cluster,
    place: &VosPlace,
    text: Vec<u8>,
    wait: WaitArguments,
) -> Result<ExitCode, Failure> {
    if wait.no_wait {
        return passed(ask(cluster, place, &["load", "-"], text)?);
    }
    let container = dc::find(cluster, &place.dc)?;
    let nodes: Vec<_> = running(&container).iter().map(u32::to_string).collect();
    let (nodes, timeout) = (nodes.join(","), wait.timeout_s.to_string());
    let words = ["load", "-", "--wait", "--on", &nodes, "--timeout", &timeout];
    passed(ask(cluster, place, &words, text)?)
}

fn show(cluster: &Cluster, output: Output, place: &VosPlace) -> Result<ExitCode, Failure> {
    let told = ask(cluster, place, &["show", "-o", "json"], Vec::new())?;
    if told.status != 0 {
        return passed(told);
    }
    let servers: Vec<Server> = serde_json::from_slice(&told.stdout).map_err(|error| {
        let rs = &place.rs;
        Failure::Refused(format!("{rs} in {} says what makes no sense: {error}", place.dc))
    })?;
    print(output, &servers, || {
        let mut table =
            Table::new(&["SERVER", "NODE", "STATE", "PID", "FOR", "FAILURES", "DETAIL"]);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now_ms = now.unwrap_or_default().as_millis() as u64;
        let number = |number: Option<u32>| number.map_or("-".to_owned(), |it| it.to_string());
        for server in &servers {
            let ended = server.last_exit.clone().filter(|_| server.failures > 0);
            let since = match server.since_ms {
                0 => "-".to_owned(),
                since => duration(now_ms.saturating_sub(since) / 1000),
            };
            table.row([
                server.server.clone(),
                number(server.node),
                server.state.replace('-', " "),
                number(server.pid),
                since,
                server.failures.to_string(),
                server.detail.clone().or(ended).unwrap_or_default(),
            ]);
        }
        table.to_string()
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Passes on what the program says, and its exit status.
fn passed(told: exec::Told) -> Result<ExitCode, Failure> {
    use std::io::Write;
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&told.stdout)?;
    stdout.flush()?;
    Ok(ExitCode::from(told.status))
}

/// The nodes on which a container runs.
pub(crate) fn running(container: &Container) -> Vec<u32> {
    let places = container.places.iter();
    places.filter(|it| it.phase == ContainerPhase::Running).map(|it| it.node).collect()
}

/// Runs the program on the first node of the container that can. Everything that it is asked can be asked again.
fn ask(
    cluster: &Cluster,
    place: &VosPlace,
    words: &[&str],
    input: Vec<u8>,
) -> Result<exec::Told, Failure> {
    let container = dc::find(cluster, &place.dc)?;
    let command: Vec<String> = std::iter::once(place.rs.as_str())
        .chain(words.iter().copied())
        .map(str::to_owned)
        .collect();
    let mut failed = None;
    for node in running(&container) {
        let asked = cluster.node(node).map_err(Failure::from).and_then(|endpoint| {
            exec::ask(&endpoint, &place.dc, &command, &input, &mut io::stderr())
        });
        match asked {
            Ok(told) => return Ok(told),
            Err(error) => drop(failed.get_or_insert(error)),
        }
    }
    Err(failed.unwrap_or_else(|| {
        Failure::Refused(format!(
            "container {dc} runs on no node; see `dvsctl dc show {dc}`",
            dc = place.dc
        ))
    }))
}
