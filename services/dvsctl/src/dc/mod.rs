// SPDX-License-Identifier: MIT OR Apache-2.0
//! Distributed Containers.

mod definition;
mod logs;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use dvs_api::{
    Container, ContainerChange, ContainerImage, ContainerLimits, ContainerNodes, ContainerPhase,
    ContainerPlace, ContainerRequest, ContainerUse, ContainerWorkload, Node, RestartPolicy,
};
use serde::Serialize;

use crate::agreed::escaped;
use crate::arguments::{
    CreateArguments, DcCommand, DcSetArguments, DefinitionArguments, NodeSet, Output,
    ScaleArguments, WaitArguments,
};
use crate::cluster::{Cluster, Error};
use crate::exec;
use crate::table::Table;
use crate::{print, Failure};

/// How often it is looked how far a container has come.
const LOOK: Duration = Duration::from_millis(200);
/// How long a node is asked to wait until nothing is left of a container.
const WAIT_MS: u64 = 2_000;

pub(crate) fn run(
    cluster: &Cluster,
    output: Output,
    command: &DcCommand,
) -> Result<ExitCode, Failure> {
    match command {
        DcCommand::Create(create) => self::create(cluster, output, create)?,
        DcCommand::List => {
            let all: Vec<Container> = cluster.any("/v1/containers")?;
            print(output, &all, || list(&all))?;
        }
        DcCommand::Show { name } => {
            let container = find(cluster, name)?;
            print(output, &container, || show(&container))?;
        }
        DcCommand::Set(set) => self::set(cluster, output, set)?,
        DcCommand::Logs(logs) => logs::run(cluster, output, logs)?,
        DcCommand::Scale(scale) => self::scale(cluster, output, scale)?,
        DcCommand::Exec(exec) => {
            let container = find(cluster, &exec.name)?;
            let node = match exec.node {
                Some(node) => node,
                None => first_running(&container)?,
            };
            return exec::run(&cluster.node(node)?, exec);
        }
        DcCommand::Top { name } => top(cluster, output, name)?,
        DcCommand::Delete { name, wait } => delete(cluster, output, name, *wait)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn path(name: &str) -> String {
    // A slash would be part of the path.
    format!("/v1/containers/{}", escaped(name).replace('/', "%2F"))
}

pub(crate) fn find(cluster: &Cluster, name: &str) -> Result<Container, Error> {
    cluster.any(&path(name))
}

pub(crate) fn ids(cluster: &Cluster, nodes: &NodeSet) -> Result<Vec<u32>, Failure> {
    match nodes {
        NodeSet::Ids(ids) => Ok(ids.iter().copied().collect()),
        NodeSet::All => {
            let nodes: Vec<Node> = cluster.any("/v1/nodes")?;
            Ok(nodes.iter().map(|node| node.id).collect())
        }
    }
}

fn create(cluster: &Cluster, output: Output, create: &CreateArguments) -> Result<(), Failure> {
    let CreateArguments { name, nodes, definition, wait } = create;
    let before = (ContainerLimits::default(), ContainerWorkload::default());
    let made = make(cluster, name, nodes, definition::with(before, definition, &[]))?;
    conclude(cluster, output, made, *wait)
}

fn make(
    cluster: &Cluster,
    name: &str,
    nodes: &NodeSet,
    (limits, mut workload): (ContainerLimits, ContainerWorkload),
) -> Result<Container, Failure> {
    let nodes = ids(cluster, nodes)?;
    definition::imported(cluster, &mut workload)?;
    let request = ContainerRequest { name: name.to_owned(), nodes, limits, workload };
    Ok(cluster.agreeing()?.post("/v1/containers", &request)?)
}

/// Makes a container with an image and a command, unless others are given, and waits until it runs.
pub(crate) fn begin(
    cluster: &Cluster,
    name: &str,
    nodes: &NodeSet,
    definition: &DefinitionArguments,
    (image, command): (String, Vec<String>),
    wait: WaitArguments,
) -> Result<(), Failure> {
    let image = Some(ContainerImage { name: image, digest: None });
    let workload = ContainerWorkload { image, command, ..ContainerWorkload::default() };
    let defined = definition::with((ContainerLimits::default(), workload), definition, &[]);
    let made = make(cluster, name, nodes, defined)?;
    settle(cluster, made, wait).map(drop)
}

fn set(cluster: &Cluster, output: Output, set: &DcSetArguments) -> Result<(), Failure> {
    let DcSetArguments { name, definition, unset, wait } = set;
    let Container { limits, workload, revision, .. } = find(cluster, name)?;
    let (limits, mut workload) = definition::with((limits, workload), definition, unset);
    definition::imported(cluster, &mut workload)?;
    let change = ContainerChange { revision, limits, workload };
    let changed: Container = cluster.agreeing()?.put(&path(name), &change)?;
    conclude(cluster, output, changed, *wait)
}

fn scale(cluster: &Cluster, output: Output, scale: &ScaleArguments) -> Result<(), Failure> {
    let nodes = ContainerNodes { nodes: ids(cluster, &scale.nodes)? };
    let path = format!("{}/nodes", path(&scale.name));
    let scaled: Container = cluster.agreeing()?.put(&path, &nodes)?;
    conclude(cluster, output, scaled, scale.wait)
}

/// Waits until a container is everywhere as it is to be, and tells how it goes.
fn settle(
    cluster: &Cluster,
    mut container: Container,
    wait: WaitArguments,
) -> Result<Container, Failure> {
    let began = Instant::now();
    let mut told = String::new();
    // A node that tries again says nothing of why it has to.
    let mut failed: BTreeMap<u32, String> = BTreeMap::new();
    while !wait.no_wait && !container.places.iter().all(|it| is_settled(&container, it)) {
        let now = progress(&container.places);
        if now != told {
            eprintln!("{}: {now}", container.name);
            told = now;
        }
        let failing = container.places.iter().filter(|it| it.phase == ContainerPhase::Failed);
        failed.extend(failing.map(|place| (place.node, place.detail.clone())));
        if began.elapsed() >= Duration::from_secs(wait.timeout_s) {
            let trying = container
                .places
                .iter()
                .filter(|it| it.phase != ContainerPhase::Failed && !is_settled(&container, it));
            let before = trying.filter_map(|place| {
                let why = failed.get(&place.node)?;
                Some(format!(", node {} failed before ({why})", place.node))
            });
            let before: String = before.collect();
            return Err(Failure::Refused(format!(
                "container {} is not as it is to be after {} s: {told}{before}; the nodes go on trying, see `dvsctl dc show {}`",
                container.name, wait.timeout_s, container.name
            )));
        }
        sleep(LOOK);
        container = find(cluster, &container.name)?;
    }
    for place in container.places.iter().filter(|place| place.phase == ContainerPhase::Unknown) {
        eprintln!("warning: node {} is down; it gets the container when it is back", place.node);
    }
    Ok(container)
}

/// Waits until a container is everywhere as it is to be, and prints it.
fn conclude(
    cluster: &Cluster,
    output: Output,
    container: Container,
    wait: WaitArguments,
) -> Result<(), Failure> {
    let began = Instant::now();
    let container = settle(cluster, container, wait)?;
    print(output, &container, || {
        let nodes = container.places.iter().filter(|place| place.spanned);
        let nodes: Vec<_> = nodes.map(|place| place.node.to_string()).collect();
        let has_ended = |place: &ContainerPlace| place.phase == ContainerPhase::Ended;
        let what = match wait.no_wait {
            true => "is to run",
            false if container.places.iter().any(has_ended) => "has run",
            false => "runs",
        };
        let took = if wait.no_wait {
            String::new()
        } else {
            format!(" after {:.1} s", began.elapsed().as_secs_f64())
        };
        format!("container {} {what} on nodes {}{took}\n", container.name, nodes.join(", "))
    })
}

/// Nothing more can be waited for there.
fn is_settled(container: &Container, place: &ContainerPlace) -> bool {
    // Nodes of the release before say nothing of revisions, and know of no changes.
    let is_current = place.revision.unwrap_or(0) == container.revision;
    match place.phase {
        ContainerPhase::Running | ContainerPhase::Ended => place.spanned && is_current,
        ContainerPhase::Unknown => true,
        _ => false,
    }
}

/// On one line.
fn progress(places: &[ContainerPlace]) -> String {
    let of = |place: &ContainerPlace| {
        let detail = match place.detail.as_str() {
            "" => String::new(),
            detail => format!(" ({detail})"),
        };
        format!("node {} {}{detail}", place.node, place.phase)
    };
    places.iter().map(of).collect::<Vec<_>>().join(", ")
}

fn first_running(container: &Container) -> Result<u32, Failure> {
    let mut running =
        container.places.iter().filter(|place| place.phase == ContainerPhase::Running);
    running.next().map(|place| place.node).ok_or_else(|| {
        let now = progress(&container.places);
        Failure::Refused(format!("container {} runs on no node: {now}", container.name))
    })
}

fn delete(
    cluster: &Cluster,
    output: Output,
    name: &str,
    wait: WaitArguments,
) -> Result<(), Failure> {
    let deleted: Container = cluster.agreeing()?.delete(&path(name))?;
    if wait.no_wait {
        return print(output, &deleted, || format!("container {name} is being removed\n"));
    }
    let deadline = Instant::now() + Duration::from_secs(wait.timeout_s);
    let mut told = String::new();
    loop {
        let path = format!("/v1/removals/{}?wait_ms={WAIT_MS}", deleted.id);
        let left: Vec<ContainerPlace> = cluster.any_within(&path, WAIT_MS)?;
        if left.is_empty() {
            break;
        }
        let now = progress(&left);
        if now != told {
            eprintln!("{name}: {now}");
            told = now;
        }
        if Instant::now() >= deadline {
            return Err(Failure::Refused(format!(
                "container {name} was deleted, but after {} s it is not gone yet: {told}; the nodes go on removing it",
                wait.timeout_s
            )));
        }
    }
    print(output, &deleted, || format!("container {name} is gone\n"))
}

fn list(all: &[Container]) -> String {
    let mut table = Table::new(&["NAME", "ID", "RUNS ON", "NOT ON", "MEMORY", "CPUS", "PIDS"]);
    for container in all {
        let nodes = |runs: bool| {
            let is = |place: &&ContainerPlace| (place.phase == ContainerPhase::Running) == runs;
            let nodes = container.places.iter().filter(is).map(|place| place.node.to_string());
            nodes.collect::<Vec<_>>().join(",")
        };
        let Limits { memory, cpus, pids } = Limits::of(&container.limits);
        table.row([
            container.name.clone(),
            container.id.to_string(),
            nodes(true),
            nodes(false),
            memory,
            cpus,
            pids,
        ]);
    }
    table.to_string()
}

/// Limits in words.
struct Limits {
    memory: String,
    cpus: String,
    pids: String,
}

impl Limits {
    fn of(limits: &ContainerLimits) -> Self {
        let usual = || "default".to_owned();
        Self {
            memory: limits.memory_bytes.map_or_else(usual, amount),
            cpus: limits.cpu_milli.map_or_else(|| "all".to_owned(), processors),
            pids: limits.pids.map_or_else(usual, |pids| pids.to_string()),
        }
    }
}

fn processors(milli: u32) -> String {
    format!("{}", f64::from(milli) / 1000.0)
}

/// Bytes as people say them.
pub(crate) fn amount(bytes: u64) -> String {
    match bytes {
        0..=9_999 => format!("{bytes} B"),
        10_000..=10_239_999 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

fn show(container: &Container) -> String {
    let Limits { memory, cpus, pids } = Limits::of(&container.limits);
    let mut facts = Table::new(&[]);
    let mut row = |name: &str, value: String| facts.row([name.to_owned(), value]);
    row("name", container.name.clone());
    row("id", container.id.to_string());
    row("memory", memory);
    row("processors", cpus);
    row("processes", pids);
    let endpoints = container.limits.endpoints;
    row("endpoints", endpoints.map_or("no limit".into(), |endpoints| endpoints.to_string()));
    for (name, value) in details(container) {
        facts.row([name.to_owned(), value]);
    }
    let mut places = Table::new(&["NODE", "STATE", "ADDRESS", "DETAIL"]);
    for place in &container.places {
        places.row([
            place.node.to_string(),
            place.phase.to_string(),
            place.address.clone().unwrap_or_else(|| "-".to_owned()),
            place.detail.clone(),
        ]);
    }
    format!("{facts}\n{places}")
}

/// What is not as in every container.
fn details(container: &Container) -> Vec<(&'static str, String)> {
    let ContainerLimits { swap_bytes, writable_bytes, cpu_weight, cpu_set, io, .. } =
        &container.limits;
    let workload = &container.workload;
    let mut details = Vec::new();
    let mut add = |name, value: Option<String>| details.extend(value.map(|value| (name, value)));
    add("swap", swap_bytes.map(amount));
    add("writable", writable_bytes.map(amount));
    add("cpu weight", cpu_weight.map(|weight| weight.to_string()));
    add("cpu set", cpu_set.clone());
    for io in io {
        let rates = [
            ("read", io.read_bytes.map(amount)),
            ("write", io.write_bytes.map(amount)),
            ("reads", io.reads.map(|it| it.to_string())),
            ("writes", io.writes.map(|it| it.to_string())),
        ];
        let rates =
            rates.into_iter().filter_map(|(name, rate)| Some(format!("{name} {}/s", rate?)));
        add("io", Some(format!("{}: {}", io.device, rates.collect::<Vec<_>>().join(", "))));
    }
    add("image", workload.image.as_ref().map(|image| image.name.clone()));
    let command = workload.command.join(" ");
    add("command", Some(command).filter(|it| !it.is_empty()));
    let environment = workload.environment.iter().map(|(name, value)| format!("{name}={value}"));
    add("environment", Some(environment.collect::<Vec<_>>().join(" ")).filter(|it| !it.is_empty()));
    add("directory", workload.directory.clone());
    add("user", workload.user.map(|user| format!("{}:{}", user.uid, user.gid)));
    let restart = match workload.restart {
        RestartPolicy::Always => None,
        RestartPolicy::OnFailure => Some("on failure".to_owned()),
        RestartPolicy::Never => Some("never".to_owned()),
    };
    add("restart", restart);
    if let Some(network) = &workload.network {
        add("network", Some(network.subnet.clone()));
        add("net rate", network.rate_bits.map(|rate| format!("{rate} bits/s")));
        let ports = network.publish.iter().map(|it| format!("{}:{}", it.node, it.container));
        add("published", Some(ports.collect::<Vec<_>>().join(", ")).filter(|it| !it.is_empty()));
    }
    details
}

/// What `dvsctl dc top` says.
#[derive(Debug, Serialize)]
struct Used {
    nodes: Vec<ContainerUse>,
    total: ContainerUse,
    /// Why nothing is known of a node, by id.
    missing: Vec<Missing>,
}

#[derive(Debug, Serialize)]
struct Missing {
    node: u32,
    why: String,
}

fn top(cluster: &Cluster, output: Output, name: &str) -> Result<(), Failure> {
    let container = find(cluster, name)?;
    let mut used = Used { nodes: Vec::new(), total: ContainerUse::default(), missing: Vec::new() };
    for place in container.places.iter().filter(|place| place.spanned) {
        let asked = cluster.node(place.node);
        let answer =
            asked.and_then(|node| node.get::<ContainerUse>(&format!("{}/use", path(name))));
        match answer {
            Ok(answer) => used.nodes.push(answer),
            Err(error) => used.missing.push(Missing { node: place.node, why: error.to_string() }),
        }
    }
    for node in &used.nodes {
        let total = &mut used.total;
        total.cpu_us += node.cpu_us;
        total.throttled_us += node.throttled_us;
        total.memory += node.memory;
        total.memory_peak += node.memory_peak;
        total.processes += node.processes;
        total.out_of_memory += node.out_of_memory;
        total.processes_refused += node.processes_refused;
    }
    print(output, &used, || {
        let heads = ["NODE", "CPU TIME", "WAITED", "MEMORY", "AT MOST", "PROCESSES", "OOM KILLS"];
        let mut table = Table::new(&heads);
        let seconds = |us: u64| format!("{:.2} s", us as f64 / 1e6);
        let mut row = |node: String, it: &ContainerUse| {
            table.row([
                node,
                seconds(it.cpu_us),
                seconds(it.throttled_us),
                amount(it.memory),
                amount(it.memory_peak),
                it.processes.to_string(),
                it.out_of_memory.to_string(),
            ]);
        };
        used.nodes.iter().for_each(|it| row(it.node.to_string(), it));
        row("total".to_owned(), &used.total);
        table.to_string()
    })?;
    match used.missing.first() {
        None => Ok(()),
        Some(Missing { node, why }) => {
            Err(Failure::Refused(format!("what container {name} uses on node {node}: {why}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(node: u32, spanned: bool, phase: ContainerPhase) -> ContainerPlace {
        let (address, revision) = (None, Some(0));
        ContainerPlace { node, spanned, phase, detail: String::new(), address, revision }
    }

    #[test]
    fn a_container_is_settled_where_it_runs_and_is_to() {
        let mut container = Container {
            id: 1,
            name: "web".into(),
            limits: ContainerLimits::default(),
            workload: ContainerWorkload::default(),
            revision: 0,
            places: Vec::new(),
        };
        let settled = |container: &Container, spanned, phase| {
            is_settled(container, &place(0, spanned, phase))
        };
        assert!(settled(&container, true, ContainerPhase::Running));
        assert!(settled(&container, true, ContainerPhase::Unknown), "nobody can wait for that");
        assert!(!settled(&container, false, ContainerPhase::Running), "it has yet to leave");
        assert!(!settled(&container, true, ContainerPhase::Failed));
        container.revision = 1;
        assert!(!settled(&container, true, ContainerPhase::Running), "it is what it was before");
    }

    #[test]
    fn tables_say_where_containers_are() {
        let container = Container {
            id: 1,
            name: "web".into(),
            limits: ContainerLimits {
                memory_bytes: Some(64 << 20),
                cpu_milli: Some(1500),
                ..ContainerLimits::default()
            },
            workload: ContainerWorkload::default(),
            revision: 0,
            places: vec![
                place(0, true, ContainerPhase::Running),
                place(2, true, ContainerPhase::Failed),
            ],
        };
        let text = list(std::slice::from_ref(&container));
        let row: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row, ["web", "1", "0", "2", "64", "MiB", "1.5", "default"]);
        assert_eq!(first_running(&container).unwrap(), 0);
        let nowhere =
            Container { places: vec![place(2, true, ContainerPhase::Failed)], ..container };
        assert!(first_running(&nowhere).unwrap_err().to_string().contains("node 2 failed"));
        assert_eq!(path("a/b"), "/v1/containers/a%2Fb");
    }
}
