// SPDX-License-Identifier: MIT OR Apache-2.0
//! What runs in a container, out of which image, in which network, and what is limited besides [`Limits`](super::Limits). All of it came
//! with version 3; in a snapshot it stands apart from what there was before.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::ContainerId;
use crate::images::Digest;
use crate::refusal::Refusal;

/// Most bytes of a command, its environment and its directory together: every node holds those of every container.
pub(super) const PROCESS_BYTES_MAX: usize = 32 << 10;
/// Most ports that are published, and most devices with limits.
pub(super) const LIST_MAX: usize = 64;

/// What a container is made of. The default is the built-in root, kept open for commands that are run in it, without a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// Its image; the built-in root without.
    pub image: Option<Image>,
    /// The program and its arguments; none to keep the container open without one.
    pub command: Vec<String>,
    /// Its environment.
    pub environment: BTreeMap<String, String>,
    /// Its working directory.
    pub directory: Option<String>,
    /// The user and group ids that it runs with.
    pub user: Option<(u32, u32)>,
    /// What is done when it ends.
    pub restart: Restart,
    /// Its network; `None` for none but `lo`.
    pub network: Option<Network>,
    /// Bytes of swap space.
    pub swap_bytes: Option<u64>,
    /// Bytes of its writable layer.
    pub writable_bytes: Option<u64>,
    /// Its share of processors where containers compete.
    pub cpu_weight: Option<u32>,
    /// The processors that it may use, as in `0-2,4`.
    pub cpu_set: Option<String>,
    /// Rates of block devices.
    pub io: Vec<Io>,
}

/// Which image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The name that it was chosen by.
    pub name: String,
    /// What that name stood for then. So a name can be given to another image while containers of this one run.
    pub digest: Digest,
}

/// What is done when the command of a container ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Restart {
    /// It is started again.
    #[default]
    Always,
    /// It is started again unless it ended with success.
    OnFailure,
    /// It is left as it is.
    Never,
}

/// The network of a container, which spans its nodes and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The address of the network, in which node N has the address N + 1.
    pub subnet: Ipv4Addr,
    /// Bits that all its addresses have in common.
    pub prefix: u8,
    /// Bits per second in each direction, on each node.
    pub rate: Option<u64>,
    /// Ports of the nodes that lead to ports of the container.
    pub publish: BTreeSet<Publish>,
}

/// A TCP port of each node that leads to one of the container on the same node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Publish {
    /// The node's.
    pub node: u16,
    /// The container's.
    pub container: u16,
}

/// Rates of a block device, each a number per second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Io {
    /// Major and minor number, as in `8:0`.
    pub device: String,
    /// Bytes read.
    pub read_bytes: Option<u64>,
    /// Bytes written.
    pub write_bytes: Option<u64>,
    /// Read operations.
    pub reads: Option<u64>,
    /// Write operations.
    pub writes: Option<u64>,
}

/// A workload and how often it was changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Defined {
    /// Counts the changes; 0 at first. Who changes a container says which revision it has seen.
    pub revision: u32,
    /// What it is.
    pub workload: Workload,
}

/// Those containers that have one that is not the default.
pub(super) type Workloads = BTreeMap<ContainerId, Defined>;

impl Network {
    /// The address of a node's container, which exists if the container could be made to span that node.
    pub fn address(&self, node: u16) -> Option<Ipv4Addr> {
        let hosts = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
        let host = u32::from(node) + 1;
        // The first address is the network's, the last one everybody's.
        (host < hosts).then(|| Ipv4Addr::from(u32::from(self.subnet) + host))
    }

    fn check(&self) -> Result<(), Refusal> {
        let Self { subnet, prefix, publish, .. } = self;
        if !(8..=30).contains(prefix) {
            return Err(Refusal::Invalid(format!(
                "a network with a prefix of {prefix} bits cannot be; choose from 8 to 30, such as 10.1.0.0/16"
            )));
        }
        if u32::from(*subnet) & (u32::MAX >> prefix) != 0 {
            let base = Ipv4Addr::from(u32::from(*subnet) & !(u32::MAX >> prefix));
            return Err(Refusal::Invalid(format!(
                "{subnet}/{prefix} is an address in the network {base}/{prefix}; name the network"
            )));
        }
        if subnet.is_multicast() || subnet.is_loopback() || subnet.octets()[0] == 0 {
            return Err(Refusal::Invalid(format!(
                "no machine can have an address in {subnet}/{prefix}; choose a private network, such as 10.1.0.0/16"
            )));
        }
        if publish.len() > LIST_MAX {
            return Err(Refusal::limit("published ports of a container", LIST_MAX as u64));
        }
        let mut taken = BTreeSet::new();
        for Publish { node, container } in publish {
            if *node == 0 || *container == 0 {
                return Err(Refusal::Invalid(
                    "port 0 cannot be published; ports begin at 1".into(),
                ));
            }
            if !taken.insert(node) {
                return Err(Refusal::Invalid(format!(
                    "port {node} of the nodes cannot lead to two ports of a container; choose another one"
                )));
            }
        }
        Ok(())
    }
}

impl Workload {
    /// Checks what every node can: what else cannot be, the API refuses before it is agreed on.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        let environment = self.environment.iter().map(|(name, value)| name.len() + value.len());
        let bytes = self.command.iter().map(String::len).sum::<usize>()
            + environment.sum::<usize>()
            + self.directory.as_ref().map_or(0, String::len);
        if bytes > PROCESS_BYTES_MAX {
            return Err(Refusal::limit(
                "bytes of a container's command and environment",
                PROCESS_BYTES_MAX as u64,
            ));
        }
        if self.io.len() > LIST_MAX {
            return Err(Refusal::limit("devices with limits of a container", LIST_MAX as u64));
        }
        self.network.as_ref().map_or(Ok(()), Network::check)
    }

    /// Whether all these nodes can have an address.
    pub(super) fn check_nodes(&self, nodes: &BTreeSet<u16>) -> Result<(), Refusal> {
        let Some(network) = &self.network else { return Ok(()) };
        match nodes.iter().find(|node| network.address(**node).is_none()) {
            None => Ok(()),
            Some(node) => Err(Refusal::Invalid(format!(
                "the network {}/{} has no address for node {node}; choose a larger one",
                network.subnet, network.prefix
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(subnet: [u8; 4], prefix: u8) -> Network {
        Network { subnet: subnet.into(), prefix, rate: None, publish: BTreeSet::new() }
    }

    #[test]
    fn nodes_have_addresses_while_there_are_some() {
        let small = network([10, 1, 0, 0], 30);
        assert_eq!(small.address(0), Some([10, 1, 0, 1].into()));
        assert_eq!(small.address(1), Some([10, 1, 0, 2].into()));
        assert_eq!(small.address(2), None, "that is everybody's");
        assert_eq!(network([10, 1, 0, 0], 16).address(300), Some([10, 1, 1, 45].into()));
        assert_eq!(network([10, 1, 0, 0], 8).address(u16::MAX), Some([10, 2, 0, 0].into()));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        assert!(network([10, 1, 0, 0], 16).check().is_ok());
        for (subnet, prefix) in [
            ([10, 1, 0, 1], 16),
            ([10, 1, 0, 0], 8),
            ([10, 1, 0, 0], 31),
            ([0, 0, 0, 0], 8),
            ([127, 0, 0, 0], 8),
            ([224, 0, 0, 0], 16),
        ] {
            assert!(network(subnet, prefix).check().is_err(), "{subnet:?}/{prefix}");
        }
        let publish = |ports: &[(u16, u16)]| {
            let publish = ports
                .iter()
                .map(|(node, container)| Publish { node: *node, container: *container });
            Network { publish: publish.collect(), ..network([10, 1, 0, 0], 16) }.check()
        };
        assert!(publish(&[(8080, 80), (8081, 80)]).is_ok());
        assert!(publish(&[(8080, 80), (8080, 81)]).is_err());
        assert!(publish(&[(0, 80)]).is_err());
        assert!(publish(&[(80, 0)]).is_err());
    }

    #[test]
    fn what_every_node_has_to_hold_is_bounded() {
        let long = Workload { command: vec!["x".repeat(PROCESS_BYTES_MAX)], ..Workload::default() };
        assert!(long.check().is_ok());
        let longer = Workload { directory: Some("/".into()), ..long };
        assert!(longer.check().is_err());
    }
}
