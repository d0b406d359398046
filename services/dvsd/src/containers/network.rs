// SPDX-License-Identifier: MIT OR Apache-2.0
//! The network of a container on this node: its address, and how its packets get to the other nodes.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use dvs_runtime::{Address, Network, Overlay};
use dvs_state::containers::{self, ContainerId};
use dvs_state::nodes::NodeId;

use super::steps::name_of;

/// An interface of this node by which it reaches others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Underlay {
    /// Index of the cluster interface.
    pub index: u32,
    /// The link that is used: the interface itself, or the one over it that encrypts.
    pub link: String,
    /// This node's link-local address on it.
    pub address: Ipv6Addr,
}

/// By which interface other nodes are heard, and where they are on it.
pub(super) type Neighbours = BTreeMap<NodeId, (u32, Ipv6Addr)>;

/// The network of a container that spans `nodes`, at node `own` among them. `before` is the link that it goes over now: it is kept as long
/// as it exists, since another one takes another container.
///
/// # Errors
/// For people: why there cannot be one yet.
pub(super) fn network(
    id: ContainerId,
    wanted: &containers::Network,
    own: NodeId,
    nodes: &[NodeId],
    underlays: &[Underlay],
    neighbours: &Neighbours,
    before: Option<&str>,
) -> Result<Network, String> {
    let address = wanted.address(own).ok_or("its network has no address for this node")?;
    let others = || nodes.iter().filter(|node| **node != own);
    let heard = |underlay: &Underlay| {
        let at = |node: &NodeId| {
            let (index, address) = neighbours.get(node)?;
            (*index == underlay.index).then_some(*address)
        };
        others().filter_map(at).collect::<Vec<_>>()
    };
    let kept = underlays.iter().find(|underlay| Some(underlay.link.as_str()) == before);
    // The one by which most of them are reached; of several, the first.
    let best = || underlays.iter().rev().max_by_key(|underlay| heard(underlay).len());
    let overlay = match kept.or_else(best) {
        None if others().next().is_none() => None,
        None => return Err("waiting for an interface that leads to the other nodes".to_owned()),
        Some(underlay) => Some(Overlay {
            id: id.into(),
            interface: underlay.link.clone(),
            local: underlay.address.into(),
            peers: heard(underlay).into_iter().map(Into::into).collect(),
        }),
    };
    Ok(Network {
        name: name_of(id),
        addresses: vec![Address { address: address.into(), prefix: wanted.prefix }],
        gateways: Vec::new(),
        mtu: None,
        rate: wanted.rate,
        overlay,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn at(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n)
    }

    fn underlay(index: u32) -> Underlay {
        Underlay { index, link: format!("sec-eth{index}"), address: at(99) }
    }

    fn made(
        nodes: &[NodeId],
        underlays: &[Underlay],
        neighbours: &[(NodeId, u32)],
        before: Option<&str>,
    ) -> Result<Network, String> {
        let wanted = containers::Network {
            subnet: [10, 1, 0, 0].into(),
            prefix: 16,
            rate: Some(8_000_000),
            publish: BTreeSet::new(),
        };
        let neighbours =
            neighbours.iter().map(|(node, index)| (*node, (*index, at(*node)))).collect();
        network(7, &wanted, 1, nodes, underlays, &neighbours, before)
    }

    #[test]
    fn a_container_reaches_those_of_its_nodes_that_are_heard() {
        let network = made(&[0, 1, 2, 3], &[underlay(0)], &[(0, 0), (3, 0), (9, 0)], None).unwrap();
        assert_eq!(network.addresses[0].to_string(), "10.1.0.2/16");
        assert_eq!(network.rate, Some(8_000_000));
        let overlay = network.overlay.unwrap();
        assert_eq!((overlay.id, overlay.interface.as_str()), (7, "sec-eth0"));
        assert_eq!(overlay.peers, [at(0), at(3)]);
    }

    #[test]
    fn it_goes_where_most_of_them_are_and_stays_there() {
        let underlays = [underlay(0), underlay(1)];
        let link = |neighbours: &[_], before| {
            made(&[0, 1, 2, 3], &underlays, neighbours, before).unwrap().overlay.unwrap().interface
        };
        assert_eq!(link(&[(0, 0), (2, 1), (3, 1)], None), "sec-eth1");
        assert_eq!(link(&[(0, 0), (2, 1)], None), "sec-eth0");
        assert_eq!(link(&[(0, 0), (2, 0)], Some("sec-eth1")), "sec-eth1");
        assert_eq!(link(&[(0, 0), (2, 0)], Some("gone")), "sec-eth0");
    }

    #[test]
    fn one_that_is_alone_needs_nothing_to_others_until_there_are_some() {
        assert_eq!(made(&[1], &[], &[], None).unwrap().overlay, None);
        assert!(made(&[1, 2], &[], &[], None).is_err());
        assert!(made(&[1, 2], &[underlay(0)], &[], None)
            .unwrap()
            .overlay
            .unwrap()
            .peers
            .is_empty());
        // So that it need not be made anew when it spans more.
        assert!(made(&[1], &[underlay(0)], &[], None).unwrap().overlay.is_some());
    }
}
