// SPDX-License-Identifier: MIT OR Apache-2.0
//! Makes this node part of a TIPC network of the cluster's nodes, so that the kernel can carry links
//! over it.
//!
//! That is three things: the id of the network, the identity of the node in it, and *bearers*, the
//! interfaces over which it finds the others. The first two cannot be changed before the next boot.

mod messages;

use std::io;

use dvs_config::Mac;

use crate::genl::{Attributes, Family, Request};
use messages::{
    Net, NodeInfo, BEARER_DISABLE, BEARER_ENABLE, BEARER_GET, NET_GET, NET_SET, NODE_GET,
};

/// The family of TIPC's commands.
const FAMILY: &str = "TIPCv2";
/// Of which version they are.
const VERSION: u8 = 1;
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

    /// Tells the log which nodes are found. To be called again and again.
    fn look(&mut self, now_ms: u64);
}

/// The kernel's TIPC.
#[derive(Debug, Default)]
pub struct Tipc {
    enabled: Option<Network>,
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
        let before = kernel.bearers()?;
        for bearer in network.bearers() {
            if !before.contains(&bearer) {
                kernel.enable(&bearer)?;
            }
        }
        println!("TIPC runs over {}, network {}", network.interfaces.join(", "), network.id);
        self.enabled = Some(network.clone());
        Ok(())
    }

    fn disable(&mut self) {
        let Some(network) = self.enabled.take() else { return };
        let left = Kernel::open().and_then(|mut kernel| {
            network.bearers().iter().try_for_each(|bearer| kernel.disable(bearer))
        });
        if let Err(error) = left {
            println!("warning: {error}");
        }
    }

    fn look(&mut self, now_ms: u64) {
        if self.enabled.is_none() || now_ms < self.look_ms {
            return;
        }
        self.look_ms = now_ms + LOOK_MS;
        // What cannot be read now is read later.
        let Ok(found) = Kernel::open().and_then(|mut kernel| kernel.nodes_up()) else { return };
        if found != self.found {
            let plural = if found == 1 { "" } else { "s" };
            println!("TIPC reaches {found} other node{plural}");
            self.found = found;
        }
    }
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

    fn ask(
        &mut self,
        what: &str,
        command: u8,
        dump: bool,
        attributes: &Attributes,
    ) -> Result<Vec<Vec<u8>>, String> {
        let request = Request { command, version: VERSION, dump, attributes };
        self.0.ask(&request).map_err(|error| format!("{what}: {error}"))
    }

    /// Sets id and identity, which are set once and for all.
    fn join(&mut self, network: &Network) -> Result<(), String> {
        let wanted = Net { id: network.id, node: network.node };
        let answers =
            self.ask("read the network of TIPC", NET_GET, true, &Attributes::default())?;
        match answers.iter().find_map(|answer| Net::decode(answer)) {
            Some(net) if net == wanted => Ok(()),
            Some(net) if net.node != [0; 16] => Err(format!(
                "TIPC belongs to network {} on this node, and network {} is wanted; restart the node",
                net.id, network.id
            )),
            _ => {
                let what = format!("join network {} of TIPC", network.id);
                self.ask(&what, NET_SET, false, &wanted.encode()).map(drop)
            }
        }
    }

    fn bearers(&mut self) -> Result<Vec<String>, String> {
        let what = "list the bearers of TIPC";
        let answers = self.ask(what, BEARER_GET, true, &Attributes::default())?;
        Ok(answers.iter().filter_map(|answer| messages::bearer(answer)).collect())
    }

    /// How many other nodes are up.
    fn nodes_up(&mut self) -> Result<usize, String> {
        let what = "list the nodes of TIPC";
        let answers = self.ask(what, NODE_GET, true, &Attributes::default())?;
        let nodes = answers.iter().filter_map(|answer| NodeInfo::decode(answer));
        Ok(nodes.filter(|node| node.up).count())
    }

    fn enable(&mut self, bearer: &str) -> Result<(), String> {
        let attributes = messages::of_bearer(bearer);
        self.ask(&format!("enable the bearer {bearer} of TIPC"), BEARER_ENABLE, false, &attributes)
            .map(drop)
    }

    fn disable(&mut self, bearer: &str) -> Result<(), String> {
        let attributes = messages::of_bearer(bearer);
        self.ask(
            &format!("disable the bearer {bearer} of TIPC"),
            BEARER_DISABLE,
            false,
            &attributes,
        )
        .map(drop)
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
}
