// SPDX-License-Identifier: MIT OR Apache-2.0
//! The cluster that scenarios are tried on, as its user sees it: through `dvsctl`, the switch and the power buttons.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Result;
use dvs_api::{Node, NodeState, PingResult};
use dvs_qemu::access;
use dvs_qemu::faults::Faults;
use dvs_qemu::links::LinkSelector;
use dvs_qemu::{Cluster, Options, Power};

use super::mismatch::{expect, Mismatch};
use super::program::{self, Ended, Running};

/// How many of the machines form the cluster; they have the lowest numbers, which are their ids as well.
pub(super) const MEMBERS: usize = 4;
/// The members and those who don't belong, which are off but for one scenario.
const STRANGERS: usize = MEMBERS + super::strangers::COUNT;
/// These, and the machines that are let in, which are off but for another one.
pub(super) const MACHINES: usize = STRANGERS + super::admissions::COUNT;
/// The first of them.
pub(super) const APPLICANTS: usize = STRANGERS;

/// After this something hangs: a boot of all, or a membership that doesn't settle, on a busy host that translates.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);
/// The same for a node that must be noticed to be silent. Nodes notice after two seconds.
pub(super) const NOTICE: Duration = Duration::from_secs(15);
/// The same for one command that only asks.
const ANSWER: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(200);
/// How many console lines of each node a failure shows.
const LINES_SHOWN: usize = 8;

/// A running cluster and the program to ask it with.
pub(super) struct Bed {
    cluster: Cluster,
    dvsctl: PathBuf,
    logs: PathBuf,
    seed: u64,
    long: bool,
    notes: Vec<String>,
}

impl Bed {
    /// Starts all members; the strangers stay off.
    ///
    /// # Errors
    /// When a QEMU cannot be started.
    pub(super) fn start(options: Options, dvsctl: PathBuf, long: bool) -> Result<Self> {
        let seed = options.seed;
        let logs = options.logs.clone().unwrap_or_default();
        let cluster = Cluster::start(options)?;
        for stranger in MEMBERS..MACHINES {
            cluster.node(stranger).kill()?;
        }
        Ok(Self { cluster, dvsctl, logs, seed, long, notes: Vec::new() })
    }

    pub(super) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Whether scenarios may take their time.
    pub(super) fn is_long(&self) -> bool {
        self.long
    }

    /// Tells people something about a scenario that passes.
    pub(super) fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// What was noted.
    pub(super) fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// Where everything that the nodes said is kept.
    pub(super) fn logs(&self) -> &Path {
        &self.logs
    }

    pub(super) fn console_log(&self, node: usize) -> PathBuf {
        self.cluster.description().nodes[node].log.clone()
    }

    /// Runs `dvsctl` with the API of `node` as its only endpoint, unless it is given others.
    pub(super) fn dvsctl(&self, node: usize, arguments: &[&str]) -> Result<Ended, Mismatch> {
        let step = format!("dvsctl {} on node{node}", arguments.join(" "));
        let running = self.start_dvsctl(node, arguments, ANSWER)?;
        running.end().map_err(|error| Mismatch::new(step, "it can be run", error))
    }

    /// Runs `dvsctl` with a program of the image as its input.
    pub(super) fn feed_dvsctl(
        &self,
        node: usize,
        arguments: &[&str],
        input: &str,
        limit: Duration,
    ) -> Result<Ended, Mismatch> {
        let step = format!("dvsctl {} on node{node}, fed with {input}", arguments.join(" "));
        let failed = |error| Mismatch::new(&step, "it can be run", error);
        let input = File::open(self.program(input)).map_err(failed)?;
        let running = program::start_with(&mut self.command(node, arguments), input.into(), limit);
        running.and_then(Running::end).map_err(failed)
    }

    /// The same for a command that takes its time.
    pub(super) fn start_dvsctl(
        &self,
        node: usize,
        arguments: &[&str],
        limit: Duration,
    ) -> Result<Running, Mismatch> {
        program::start(&mut self.command(node, arguments), limit)
            .map_err(|error| Mismatch::new("starting dvsctl", "it can be started", error))
    }

    /// The same with something to read.
    pub(super) fn start_dvsctl_with(
        &self,
        node: usize,
        arguments: &[&str],
        input: Stdio,
        limit: Duration,
    ) -> Result<Running, Mismatch> {
        program::start_with(&mut self.command(node, arguments), input, limit)
            .map_err(|error| Mismatch::new("starting dvsctl", "it can be started", error))
    }

    /// Where a program of the image is on the host.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        // They are built side by side.
        self.dvsctl.with_file_name(name)
    }

    fn command(&self, node: usize, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.dvsctl);
        access::reach(&mut command, self.cluster.run(), Some(node));
        command.args(arguments);
        command
    }

    /// The cluster as `viewer` sees it, or why that is not known.
    pub(super) fn seen_by(&self, viewer: usize) -> Result<Vec<Node>, String> {
        let ended = self
            .dvsctl(viewer, &["node", "list", "-o", "json"])
            .map_err(|mismatch| mismatch.to_string())?;
        if !ended.succeeded() {
            return Err(ended.to_string());
        }
        serde_json::from_str(&ended.stdout).map_err(|error| format!("{error}: {}", ended.stdout))
    }

    /// Waits until each of `viewers` sees nodes of which `wanted` holds.
    pub(super) fn await_view(
        &self,
        step: &str,
        viewers: &[usize],
        limit: Duration,
        expected: &str,
        wanted: impl Fn(&[Node]) -> bool,
    ) -> Result<(), Mismatch> {
        let deadline = Instant::now() + limit;
        for viewer in viewers {
            loop {
                let overdue = Instant::now() >= deadline;
                let came = match self.seen_by(*viewer) {
                    Ok(nodes) if wanted(&nodes) => break,
                    Ok(nodes) => summary(&nodes),
                    Err(why) => why,
                };
                if overdue {
                    let expected = format!("within {} s: {expected}", limit.as_secs());
                    return Err(Mismatch::new(step, expected, format!("node{viewer} sees {came}")));
                }
                std::thread::sleep(POLL);
            }
        }
        Ok(())
    }

    /// Waits until all members see all members ready, and nobody else.
    pub(super) fn await_all_ready(&self, step: &str) -> Result<(), Mismatch> {
        let all: Vec<_> = (0..MEMBERS).collect();
        let wanted = |nodes: &[Node]| {
            nodes.len() == MEMBERS && nodes.iter().all(|node| node.state == NodeState::Ready)
        };
        self.await_view(step, &all, PATIENCE, "all four nodes ready", wanted)
    }

    /// Waits until each of `viewers` sees `node` in `state`.
    pub(super) fn await_state(
        &self,
        viewers: &[usize],
        node: usize,
        state: NodeState,
        limit: Duration,
    ) -> Result<(), Mismatch> {
        let step = format!("waiting until node{node} is {state} to nodes {viewers:?}");
        let expected = format!("node{node} {state}");
        self.await_view(&step, viewers, limit, &expected, |nodes| {
            nodes.iter().any(|seen| seen.id as usize == node && seen.state == state)
        })
    }

    /// Starts round trips between two nodes that take a while.
    pub(super) fn start_ping(
        &self,
        from: usize,
        to: usize,
        count: u64,
        interval_ms: u64,
    ) -> Result<Ping, Mismatch> {
        let [from_text, to_text] = [from, to].map(|node| node.to_string());
        let [count_text, interval] = [count, interval_ms].map(|number| number.to_string());
        let arguments = [
            "ipc",
            "ping",
            "--from",
            &from_text,
            "--to",
            &to_text,
            "--count",
            &count_text,
            "--interval",
            &interval,
            "-o",
            "json",
        ];
        let step = format!("{count} round trips from node{from} to node{to}");
        let running = self.start_dvsctl(from, &arguments, PATIENCE)?;
        Ok(Ping { running, step, count })
    }

    /// Round trips between two nodes, each exactly once.
    pub(super) fn ping(&self, from: usize, to: usize, count: u64) -> Result<(), Mismatch> {
        self.start_ping(from, to, count, 0)?.succeed()
    }

    /// A few round trips between all of `nodes`, themselves included.
    pub(super) fn ping_all(&self, nodes: &[usize], count: u64) -> Result<(), Mismatch> {
        let pairs = nodes.iter().flat_map(|from| nodes.iter().map(move |to| (*from, *to)));
        pairs.into_iter().try_for_each(|(from, to)| self.ping(from, to, count))
    }

    /// Power, cables and links; a failure is QEMU's and not the nodes'.
    pub(super) fn act(
        &self,
        step: &str,
        action: impl FnOnce(&Cluster) -> dvs_qemu::Result<()>,
    ) -> Result<(), Mismatch> {
        action(&self.cluster).map_err(|error| Mismatch::new(step, "it can be done", error))
    }

    /// Gives the cluster power, whole links and time.
    pub(super) fn recover(&self) -> Result<(), Mismatch> {
        self.cluster.switch().heal(LinkSelector::All);
        self.cluster.switch().set_faults(LinkSelector::All, Faults::default());
        let step = "putting the cluster in order";
        let failed = |error| Mismatch::new(step, "it can be done", error);
        let status = self.cluster.status().map_err(failed)?;
        for (number, node) in status.nodes.iter().enumerate() {
            let handle = self.cluster.node(number);
            match node.power {
                _ if number >= MEMBERS => handle.kill(),
                Power::Off => handle.start(),
                Power::Paused => handle.resume(),
                Power::Running => Ok(()),
            }
            .map_err(failed)?;
        }
        self.await_all_ready(step)
    }

    /// A failure with what the nodes said last and where the rest is. Keeps the logs of their services as well,
    /// and the tables of their kernels.
    pub(super) fn report(&self, mismatch: &Mismatch) -> String {
        let mut text = format!("{mismatch}\nseed:     {}\n", self.seed);
        let status = self.cluster.status();
        for node in 0..MACHINES {
            let power = status.as_ref().ok().map(|status| status.nodes[node].power);
            if power != Some(Power::Running) {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "node{node}: {}", power.map_or("unknown", Power::as_str));
                continue;
            }
            for line in self.cluster.console(node).last_lines(LINES_SHOWN) {
                let _ = writeln!(text, "n{node}| {line}");
            }
            if let Ok(log) = self.dvsctl(node, &["logs", "dvsd", "-n", "10000"]) {
                let _ = fs::write(self.logs.join(format!("node{node}-dvsd.log")), log.stdout);
            }
            let words = ["dvk-conformance", "--role", "tables"];
            if let Ok(tables) = self.run_on(node, &words, ANSWER) {
                let _ = fs::write(self.logs.join(format!("node{node}-tables.txt")), tables.stdout);
            }
        }
        let _ = writeln!(text, "logs:     {}", self.logs.display());
        text
    }
}

/// Nodes in a few words.
fn summary(nodes: &[Node]) -> String {
    let each = nodes.iter().map(|node| format!("{} {}", node.name, node.state));
    each.collect::<Vec<_>>().join(", ")
}

/// Round trips under way.
pub(super) struct Ping {
    running: Running,
    step: String,
    count: u64,
}

impl Ping {
    /// Whether they are not over yet.
    pub(super) fn runs(&mut self) -> bool {
        self.running.runs()
    }

    fn end(self) -> Result<(String, u64, Ended), Mismatch> {
        let Self { running, step, count } = self;
        let failed = |error| Mismatch::new(step.clone(), "it can be run", error);
        let ended = running.end().map_err(failed)?;
        Ok((step, count, ended))
    }

    /// Waits for their end: each must have come and gone exactly once.
    pub(super) fn succeed(self) -> Result<(), Mismatch> {
        let (step, count, ended) = self.end()?;
        let expected =
            format!("exit status 0, {count} sent and received, 0 duplicated, lost and reordered");
        let result: Option<PingResult> =
            serde_json::from_str(&ended.stdout).ok().filter(|_| ended.succeeded());
        let exact = result.is_some_and(|result| {
            (result.sent, result.received) == (count, count)
                && (result.duplicated, result.lost, result.reordered) == (0, 0, 0)
        });
        expect(exact, &step, &expected, ended)
    }

    /// Waits for their end, which must be an error that names node `to`, or replies that are said to be missing; and nothing
    /// may have come twice.
    pub(super) fn fail(self, to: usize) -> Result<(), Mismatch> {
        let (step, _, ended) = self.end()?;
        let expected = format!("one clear error that names node {to}, exit status not 0");
        let named = ended.is_one_clear_error() && ended.stderr.contains(&format!("node {to}"));
        let lost = serde_json::from_str(&ended.stdout).is_ok_and(|result: PingResult| {
            !ended.succeeded() && result.lost > 0 && result.duplicated == 0 && result.reordered == 0
        });
        expect(!ended.overdue && (named || lost), &step, &expected, ended)
    }
}
