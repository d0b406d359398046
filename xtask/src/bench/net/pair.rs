// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two nodes, with a program on each that does as it is told, and what carries the link between them.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use dvk_bench::{Answer, Carrier, Order, Work};
use dvs_qemu::access;
use dvs_qemu::{Cluster, Options};

use crate::test::cluster::guest::Guest;

/// A boot, on a busy host.
const READY: Duration = Duration::from_secs(120);
/// How long all measurements together may take; several times what they need.
const LIMIT: Duration = Duration::from_secs(3600);
/// How long a node may take to stop a process.
const HOLDING: Duration = Duration::from_secs(60);
/// How long a link may take to be carried by something else, in seconds.
const PATIENCE_S: &str = "60";

/// The client's node is 0, the server's 1.
pub(super) struct Pair {
    programs: [Guest; 2],
    /// What the server could not serve.
    missing: Vec<(Carrier, String)>,
    dvsctl: PathBuf,
    /// Dropped last: the programs run on it.
    cluster: Cluster,
}

impl Pair {
    /// Starts two nodes and the programs. `dvsctl` is that of the host.
    pub(super) fn start(options: Options, dvsctl: PathBuf) -> Result<Self> {
        let cluster = Cluster::start(options)?;
        cluster.wait_ready(READY)?;
        let mut programs = [0, 1].map(|node| program(&cluster, node));
        let [near, far] = &mut programs;
        let (near, far) = (near.as_mut(), far.as_mut());
        let (Ok(near), Ok(far)) = (near, far) else {
            let [near, far] = programs;
            near?;
            far?;
            bail!("starting dvk-bench on the nodes");
        };
        for program in [&mut *near, &mut *far] {
            told(program, &Order::Join { nodes: 2 })?;
        }
        let Answer::Serving(server, missing) = told(far, &Order::Serve)? else {
            bail!("starting the server: it does not say where it is");
        };
        told(near, &Order::Use(server))?;
        let [near, far] = programs;
        let pair = Self { programs: [near?, far?], missing, dvsctl, cluster };
        // From then on the nodes have a TIPC network, for sockets as well.
        pair.choose("tipc")?;
        pair.choose("ethernet")?;
        Ok(pair)
    }

    /// What the server cannot serve, and why.
    pub(super) fn missing(&self) -> &[(Carrier, String)] {
        &self.missing
    }

    /// Has the link carried by what `carrier` needs.
    ///
    /// # Errors
    /// When it cannot be.
    pub(super) fn attach(&mut self, carrier: Carrier) -> Result<()> {
        let Some(transport) = carrier.transport() else { return Ok(()) };
        self.choose(transport)?;
        // What is set up with the first messages is not to be measured.
        self.measure(carrier, Work::RoundTrip, 1, 3).map(drop)
    }

    /// Has the link carried by a transport, by its name.
    fn choose(&self, transport: &str) -> Result<()> {
        let ended = access::reach(&mut Command::new(&self.dvsctl), self.cluster.run(), None)
            .args(["link", "set", "0", "1", "--transport", transport, "--timeout", PATIENCE_S])
            .output()
            .context("running dvsctl")?;
        let said = String::from_utf8_lossy(&ended.stderr);
        ensure!(ended.status.success(), "dvsctl link set: {}", said.trim_end());
        Ok(())
    }

    /// How many nanoseconds so many operations of each pair take.
    pub(super) fn measure(
        &mut self,
        carrier: Carrier,
        work: Work,
        pairs: u32,
        operations: u64,
    ) -> Result<u64> {
        let order = Order::Measure { carrier, work, pairs, operations };
        match told(&mut self.programs[0], &order)? {
            Answer::Took(nanoseconds) => Ok(nanoseconds),
            other => bail!("{work} by {carrier}: the program says {other:?}"),
        }
    }

    /// Holds the daemons of both nodes for good, so that none takes the other node for down however slow that is, and so that nothing is
    /// executed but what is asked for. The link stays as it is, and can only be used.
    ///
    /// # Errors
    /// When they cannot be held.
    pub(super) fn hold_daemons(&self) -> Result<()> {
        for node in [0, 1] {
            let words = ["busybox", "killall", "-STOP", "dvsd"];
            Guest::start(&self.cluster, node, &words, HOLDING)?.succeed()?;
        }
        Ok(())
    }

    /// Where the QEMU of a node takes commands.
    pub(super) fn qmp(&self, node: usize) -> PathBuf {
        self.cluster.qmp(node)
    }

    /// How many instructions each node has executed so far.
    pub(super) fn executed(&self) -> Result<[u64; 2]> {
        Ok([self.cluster.executed(0)?, self.cluster.executed(1)?])
    }
}

fn program(cluster: &Cluster, node: usize) -> Result<Guest> {
    Ok(Guest::start(cluster, node, &["dvk-bench", "net"], LIMIT)?)
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
