// SPDX-License-Identifier: MIT OR Apache-2.0
//! Makes this node part of a TIPC network of the cluster's nodes, so that the kernel can carry links
//! over it.
//!
//! That is three things: the id of the network, the identity of the node in it, and *bearers*, the
//! interfaces over which it finds the others. The first two cannot be changed before the next boot.

mod messages;

use std::io;

use dvs_config::Mac;

use crate::genl::{Attributes, Family};
use messages::{
    Net, NodeInfo, BEARER_DISABLE, BEARER_ENABLE, BEARER_GET, NET_GET, NET_SET, NODE_GET,
};

/// The family of TIPC's commands.
const FAMILY: &str = "TIPCv2";
/// TIPC takes no greater network ids.
const NETWORK_ID_MAX: u64 = 9_999;
/// TIPC takes no more bearers.
const BEARERS_MAX: usize = 3;
/// Milliseconds between two looks at the nodes that are found.
const LOOK_MS: u64 = 1_000;

/// What this node's part of the network is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Tells networks on one segment apart.
    pub id: u32,
    /// The identity of this node.
    pub node: [u8; 16],
    /// Names of the interfaces that lead to the other nodes.
    pub interfaces: Vec<String>,
}

impl Network {
    /// The network of a cluster. Two clusters on one segment may, once in ten thousand, get the same
    /// id: their nodes then find each other, which costs some frames; the links above know their
    /// cluster.
    pub fn of(cluster: u64, machine: Mac, interfaces: &[String]) -> Self {
        let mut node = *b"dvs node  ......";
        node[10..].copy_from_slice(&machine.0);
        Self {
            id: 1 + (cluster % NETWORK_ID_MAX) as u32,
            node,
            interfaces: interfaces.iter().take(BEARERS_MAX).cloned().collect(),
        }
    }

    fn bearers(&self) -> Vec<String> {
        self.interfaces.iter().map(|interface| format!("eth:{interface}")).collect()
    }
}

/// Gives this node a TIPC network and takes it away; tests put their own in its place.
pub trait Bearers: Send {
    /// Makes this node part of a network. Does nothing where it is already.
    ///
    /// # Errors
    /// For people: what failed and why.
    fn enable(&mut self, network: &Network) -> Result<(), String>;

    /// Leaves the network, if there is one.
    fn disable(&mut self);

    /// Keeps a network that was enabled over the interfaces that it is to be over now, if that is
    /// known, and tells the log which nodes are found. To be called again and again.
    fn look(&mut self, now_ms: u64, network: Option<&Network>);
}

/// The kernel's TIPC.
#[derive(Debug, Default)]
pub struct Tipc {
    enabled: Option<Network>,
    /// What failed at the last look, for people; empty if nothing did.
    trouble: String,
    /// How many other nodes were found at the last look, and when the next one is due.
    found: usize,
    look_ms: u64,
}

impl Bearers for Tipc {
    fn enable(&mut self, network: &Network) -> Result<(), String> {
        if self.enabled.as_ref() == Some(network) {
            return Ok(());
        }
        let mut kernel = Kernel::open()?;
        kernel.join(network)?;
        kernel.run_over(&network.bearers())?;
        self.told(network);
        Ok(())
    }

    fn disable(&mut self) {
        self.enabled = None;
        // Where there is no TIPC there is nothing to leave.
        let Ok(mut kernel) = Kernel::open() else { return };
        // An earlier run of dvsd may have left bearers, too.
        if let Err(error) = kernel.run_over(&[]) {
            println!("warning: {error}");
        }
    }

    fn look(&mut self, now_ms: u64, network: Option<&Network>) {
        let Some(enabled) = &self.enabled else { return };
        if now_ms < self.look_ms {
            return;
        }
        self.look_ms = now_ms + LOOK_MS;
        // Interfaces come and go, and take bearers with them.
        let network = network.unwrap_or(enabled).clone();
        let looked = Kernel::open().and_then(|mut kernel| {
            kernel.run_over(&network.bearers())?;
            kernel.nodes_up()
        });
        let trouble = match looked {
            Ok(found) => {
                self.told(&network);
                self.count(found);
                String::new()
            }
            Err(error) => error,
        };
        if self.trouble != trouble && !trouble.is_empty() {
            println!("error: {trouble}");
        }
        self.trouble = trouble;
    }
}

impl Tipc {
    fn told(&mut self, network: &Network) {
        if self.enabled.as_ref() != Some(network) {
            println!("TIPC runs over {}, network {}", network.interfaces.join(", "), network.id);
            self.enabled = Some(network.clone());
        }
    }

    fn count(&mut self, found: usize) {
        if found != self.found {
            let plural = if found == 1 { "" } else { "s" };
            println!("TIPC reaches {found} other node{plural}");
            self.found = found;
        }
    }
}

/// Which bearers to disable and which to enable, so that those that there are become those wanted.
fn changes<'a>(there: &'a [String], wanted: &'a [String]) -> (Vec<&'a str>, Vec<&'a str>) {
    let not_in = |of: &'a [String], other: &[String]| {
        of.iter().filter(|it| !other.contains(it)).map(String::as_str).collect()
    };
    (not_in(there, wanted), not_in(wanted, there))
}

/// TIPC as its netlink family has it.
struct Kernel(Family);

impl Kernel {
    fn open() -> Result<Self, String> {
        Family::open(FAMILY).map(Self).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                "the kernel has no TIPC; boot the kernel of a DVS image".to_owned()
            }
            _ => format!("ask the kernel for TIPC: {error}"),
        })
    }

    fn list(&mut self, what: &str, command: u8) -> Result<Vec<Attributes>, String> {
        self.0.list(command).map_err(|error| format!("{what}: {error}"))
    }

    fn tell(&mut self, what: &str, command: u8, attributes: Attributes) -> Result<(), String> {
        self.0.tell(command, attributes).map_err(|error| format!("{what}: {error}"))
    }

    /// Sets id and identity, which are set once and for all.
    fn join(&mut self, network: &Network) -> Result<(), String> {
        let wanted = Net { id: network.id, node: network.node };
        let answers = self.list("read the network of TIPC", NET_GET)?;
        match answers.iter().find_map(|answer| Net::decode(answer.as_bytes())) {
            Some(net) if net == wanted => Ok(()),
            Some(net) if net.node != [0; 16] => Err(format!(
                "TIPC belongs to network {} on this node, and network {} is wanted; restart the node",
                net.id, network.id
            )),
            _ => {
                let what = format!("join network {} of TIPC", network.id);
                self.tell(&what, NET_SET, wanted.encode())
            }
        }
    }

    fn bearers(&mut self) -> Result<Vec<String>, String> {
        let answers = self.list("list the bearers of TIPC", BEARER_GET)?;
        Ok(answers.iter().filter_map(|answer| messages::bearer(answer.as_bytes())).collect())
    }

    /// Has TIPC use these bearers and no others: one that does not encrypt would do so beside one
    /// that does.
    fn run_over(&mut self, wanted: &[String]) -> Result<(), String> {
        let there = self.bearers()?;
        let (disable, enable) = changes(&there, wanted);
        disable.into_iter().try_for_each(|bearer| self.disable(bearer))?;
        enable.into_iter().try_for_each(|bearer| self.enable(bearer))
    }

    /// How many other nodes are up.
    fn nodes_up(&mut self) -> Result<usize, String> {
        let answers = self.list("list the nodes of TIPC", NODE_GET)?;
        let nodes = answers.iter().filter_map(|answer| NodeInfo::decode(answer.as_bytes()));
        Ok(nodes.filter(|node| node.up).count())
    }

    fn enable(&mut self, bearer: &str) -> Result<(), String> {
        let what = format!("enable the bearer {bearer} of TIPC");
        self.tell(&what, BEARER_ENABLE, messages::of_bearer(bearer))
    }

    fn disable(&mut self, bearer: &str) -> Result<(), String> {
        let what = format!("disable the bearer {bearer} of TIPC");
        self.tell(&what, BEARER_DISABLE, messages::of_bearer(bearer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_a_cluster_meet_in_one_network_with_different_identities() {
        let names = ["eth0", "eth1", "eth2", "eth3"].map(str::to_owned);
        let network = |cluster, n| Network::of(cluster, Mac([2, 0, 0, 0, 0, n]), &names);
        let (one, other) = (network(0xdead_beef_0000_0001, 1), network(0xdead_beef_0000_0001, 2));
        assert_eq!(one.id, other.id);
        assert_ne!(one.node, other.node);
        assert_eq!(one.bearers(), ["eth:eth0", "eth:eth1", "eth:eth2"]);
        for cluster in [0, 9_998, 9_999, u64::MAX] {
            assert!((1..=9_999).contains(&network(cluster, 1).id));
        }
    }

    #[test]
    fn a_bearer_that_is_not_wanted_any_more_goes() {
        let names =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let (there, wanted) =
            (names(&["eth:eth0", "eth:sec-eth1"]), names(&["eth:sec-eth0", "eth:sec-eth1"]));
        assert_eq!(changes(&there, &wanted), (vec!["eth:eth0"], vec!["eth:sec-eth0"]));
        assert_eq!(changes(&wanted, &wanted), (vec![], vec![]));
        assert_eq!(changes(&there, &[]).0, ["eth:eth0", "eth:sec-eth1"]);
    }
}
