// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two nodes, with a program on each that does as it is told, and what carries the link between them.

use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use dvk_abi::ioctl;
use dvk_bench::{Answer, Carrier, Order, Work};
use dvs_qemu::machine::{cluster_link_local, cluster_mac};
use dvs_qemu::{Cluster, Options};

use crate::test::cluster::guest::Guest;

/// A boot, on a busy host.
const READY: Duration = Duration::from_secs(120);
/// How long all measurements together may take; several times what they need.
const LIMIT: Duration = Duration::from_secs(3600);
/// How long a link may take to be carried by something else.
const ATTACHED: Duration = Duration::from_secs(20);
const PORT: u16 = 7100;

/// The client's node is 0, the server's 1.
pub(super) struct Pair {
    programs: [Guest; 2],
    /// What the server could not serve.
    missing: Vec<(Carrier, String)>,
    /// Those that carry the link now. They end when it is taken from them.
    proxies: Vec<Guest>,
    /// Dropped last: the programs run on it.
    cluster: Cluster,
}

impl Pair {
    /// Starts two nodes and the programs.
    pub(super) fn start(options: Options) -> Result<Self> {
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
        Ok(Self { programs: [near?, far?], missing, proxies: Vec::new(), cluster })
    }

    /// What the server cannot serve, and why.
    pub(super) fn missing(&self) -> &[(Carrier, String)] {
        &self.missing
    }

    /// Has the link carried by what `carrier` needs.
    ///
    /// # Errors
    /// When it cannot be; the link may then be carried by nothing.
    pub(super) fn attach(&mut self, carrier: Carrier) -> Result<()> {
        let before = std::mem::take(&mut self.proxies);
        let transport = match carrier {
            Carrier::M3Ethernet => {
                for (node, peer) in [(0, 1), (1, 0)] {
                    let order = Order::Ethernet { node: peer as u32, address: cluster_mac(peer).0 };
                    told(&mut self.programs[node], &order)?;
                }
                ioctl::TRANSPORT_ETHERNET
            }
            Carrier::M3Tipc => {
                for (node, peer) in [(0, 1), (1, 0)] {
                    told(&mut self.programs[node], &Order::Tipc { node: peer })?;
                }
                ioctl::TRANSPORT_TIPC
            }
            Carrier::M3Tcp => self.start_proxies("tcp", ioctl::TRANSPORT_TCP)?,
            Carrier::M3Udp => self.start_proxies("udp", ioctl::TRANSPORT_UDP)?,
            Carrier::M3Quic => self.start_proxies("quic", ioctl::TRANSPORT_QUIC)?,
            _ => return Ok(()),
        };
        for (node, peer) in [(0, 1), (1, 0)] {
            let link = told(&mut self.programs[node], &Order::Link { node: peer })?;
            ensure!(link == Answer::Link(transport), "node{node} says of its link: {link:?}");
        }
        // They have nothing to carry any more. Killed earlier, they would have taken with them what was on its way.
        drop(before);
        // The first message waits until the ends have found each other again.
        self.measure(carrier, Work::RoundTrip, 1, 3).map(drop)
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

    /// How many instructions each node has executed so far.
    pub(super) fn executed(&self) -> Result<[u64; 2]> {
        Ok([self.cluster.executed(0)?, self.cluster.executed(1)?])
    }

    /// Starts a proxy on each node; what they speak is a word of their command line.
    fn start_proxies(&mut self, protocol: &str, transport: u32) -> Result<u32> {
        let addresses = [0, 1].map(|node| format!("[{}%eth0]:{PORT}", cluster_link_local(node)));
        for node in [1, 0] {
            let peer = (1 - node).to_string();
            let mut words = vec!["dvs-proxy", "--node", &peer, protocol];
            match (protocol, node) {
                ("udp", _) => {
                    words.extend(["--local", &addresses[node], "--peer", &addresses[1 - node]]);
                }
                (_, 1) => words.extend(["--listen", &addresses[1]]),
                _ => words.extend(["--connect", &addresses[1]]),
            }
            self.proxies.push(Guest::start(&self.cluster, node, &words, LIMIT)?);
        }
        // The one that listens carries the link when the other one has connected.
        for proxy in &mut self.proxies {
            proxy.line_within(ATTACHED)?;
        }
        Ok(transport)
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
