// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two nodes with a container, servers on them, and a program on each that moves bytes as it is told.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure, Context, Result};
use dvs_api::Container;
use dvs_qemu::access;
use dvs_qemu::{Cluster, Options};
use mol_bench::{Answer, Order, Place, Transfer, Work};

use crate::test::cluster::guest::Guest;

/// A boot, on a busy host.
const READY: Duration = Duration::from_secs(120);
/// How long all measurements together may take; several times what they need.
const LIMIT: Duration = Duration::from_secs(4 * 3600);
/// How long a server may take until it serves, on a busy host.
const PATIENCE: Duration = Duration::from_secs(240);
const POLL: Duration = Duration::from_millis(300);
/// What the container is called.
const CONTAINER: &str = "bench";

/// What runs on the nodes.
pub(in super::super) struct Nodes {
    movers: [Guest; 2],
    /// Each with what it is.
    servers: Vec<(String, Guest)>,
    /// The device of the container, on both nodes.
    dvk: String,
    /// Dropped last: the programs run on it.
    cluster: Cluster,
}

impl Nodes {
    /// Starts them. `dvsctl` is that of the host.
    pub(super) fn start(options: Options, dvsctl: PathBuf) -> Result<Self> {
        let cluster = Cluster::start(options)?;
        cluster.wait_ready(READY)?;
        let made = access::reach(&mut Command::new(dvsctl), cluster.run(), None)
            .args(["-o", "json", "dc", "create", CONTAINER, "--nodes", "0,1"])
            .output()
            .context("running dvsctl")?;
        let said = String::from_utf8_lossy(&made.stderr);
        ensure!(made.status.success(), "dvsctl dc create: {}", said.trim_end());
        let container: Container =
            serde_json::from_slice(&made.stdout).context("reading what dvsctl dc create says")?;
        let dvk = format!("/dev/dvk-dc{}", container.id);
        let mover = |node| -> Result<Guest> {
            let mut mover = Guest::start(&cluster, node, &["mol-bench"], LIMIT)?;
            told(&mut mover, &Order::Join(PathBuf::from(&dvk)))?;
            Ok(mover)
        };
        Ok(Self { movers: [mover(0)?, mover(1)?], servers: Vec::new(), dvk, cluster })
    }

    /// Starts a server, which runs as long as the nodes do. `{dvk}` in its arguments stands for the device of the container.
    pub(in super::super) fn serve(&mut self, node: usize, command: &str) -> Result<()> {
        let command = command.replace("{dvk}", &self.dvk);
        let words: Vec<&str> = command.split_whitespace().collect();
        let server = Guest::start(&self.cluster, node, &words, LIMIT)?;
        self.servers.push((format!("{command} on node{node}"), server));
        Ok(())
    }

    /// Whether a server was started whose command has this text.
    pub(in super::super) fn serves(&self, text: &str) -> bool {
        self.servers.iter().any(|(command, _)| command.contains(text))
    }

    /// Runs a program to its end, which must be a success; returns what it says. `{dvk}` is as for servers.
    pub(in super::super) fn run(&self, node: usize, command: &str) -> Result<String> {
        let command = command.replace("{dvk}", &self.dvk);
        // What is said in quotes may be empty.
        let words: Vec<&str> =
            command.split_whitespace().map(|word| word.trim_matches('\'')).collect();
        Ok(Guest::start(&self.cluster, node, &words, PATIENCE)?.succeed()?.stdout)
    }

    /// Tries something until it succeeds.
    pub(in super::super) fn insist<T>(
        &mut self,
        mut attempt: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match attempt(self) {
                Err(error) if Instant::now() >= deadline => {
                    return Err(error.context(self.complaints()));
                }
                Err(_) => std::thread::sleep(POLL),
                done => return done,
            }
        }
    }

    /// What the servers have said: why something has failed is there.
    fn complaints(&mut self) -> String {
        let mut text = String::from("what the servers say:");
        for (what, server) in &mut self.servers {
            // None of them writes to standard output, so that this only takes what has come on standard error.
            if let Err(said) = server.line_within(Duration::ZERO) {
                text += &format!("\n{what}: {}", said.came);
            }
        }
        text
    }

    /// Waits until the replicas of a group's device are in step.
    pub(in super::super) fn await_in_step(&mut self, group: &str, count: usize) -> Result<()> {
        let show = format!("mol-vdd --dvk {{dvk}} show --group {group}");
        self.insist(|nodes| {
            let shown = nodes.run(0, &show)?;
            let there = shown.matches(": in step").count();
            ensure!(there == count, "waiting for {count} replicas to be in step: {shown}");
            Ok(())
        })
    }

    fn ask(&mut self, node: usize, order: &Order) -> Result<Answer> {
        told(&mut self.movers[node], order).map_err(|error| error.context(self.complaints()))
    }

    /// The endpoint that has a slot on a node, when it has.
    pub(in super::super) fn find(&mut self, node: usize, slot: u32) -> Result<mol_bench::Server> {
        match self.ask(node, &Order::Find(slot))? {
            Answer::At(endpoint) => Ok(mol_bench::Server::At(endpoint)),
            other => Err(no_answer(&other)),
        }
    }

    /// Has the program on a node lend memory.
    pub(in super::super) fn lend(&mut self, node: usize, bytes: u64) -> Result<Place> {
        match self.ask(node, &Order::Lend(bytes))? {
            Answer::Lent { endpoint, grant } => Ok(Place::Lent { endpoint, grant }),
            other => Err(no_answer(&other)),
        }
    }

    /// The link-local address of a node on the cluster's network.
    pub(in super::super) fn address(&mut self, node: usize) -> Result<std::net::Ipv6Addr> {
        match self.ask(node, &Order::Address)? {
            Answer::Address(address) => Ok(address),
            other => Err(no_answer(&other)),
        }
    }

    /// Has the program on a node move bytes; how many nanoseconds that took.
    pub(in super::super) fn transfer(
        &mut self,
        node: usize,
        place: &Place,
        transfer: Transfer,
    ) -> Result<u64> {
        match self.ask(node, &Order::Move(place.clone(), transfer))? {
            Answer::Took(nanoseconds) => Ok(nanoseconds),
            other => Err(no_answer(&other)),
        }
    }

    /// Has the program on a node write a whole file in large pieces.
    pub(in super::super) fn fill(
        &mut self,
        node: usize,
        place: &Place,
        bytes: u64,
        seed: u64,
    ) -> Result<()> {
        let transfer = Transfer { work: Work::Write, bytes, block: 1 << 20, depth: 1, seed };
        self.insist(|nodes| nodes.transfer(node, place, transfer).map(drop))
    }
}

fn no_answer(answer: &Answer) -> anyhow::Error {
    anyhow!("the program on the node says {answer:?}")
}

/// Gives a program an order, and returns its answer.
fn told(program: &mut Guest, order: &Order) -> Result<Answer> {
    program.say(&serde_json::to_string(order)?)?;
    let line = program.line()?;
    match serde_json::from_str(&line).with_context(|| format!("no answer: {line}"))? {
        Answer::Failed(why) => bail!(why),
        answer => Ok(answer),
    }
}
