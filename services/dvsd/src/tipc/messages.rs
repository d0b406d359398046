// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is said to TIPC and by it: `linux/tipc_netlink.h`.

use crate::genl::{attribute, number_u32, text, Attributes};

/// Stop using a bearer.
pub(super) const BEARER_DISABLE: u8 = 2;
/// Use a bearer.
pub(super) const BEARER_ENABLE: u8 = 3;
/// List the bearers.
pub(super) const BEARER_GET: u8 = 4;
/// List the nodes.
pub(super) const NODE_GET: u8 = 13;
/// Read the network.
pub(super) const NET_GET: u8 = 14;
/// Set the network.
pub(super) const NET_SET: u8 = 15;

const NEST_BEARER: u16 = 1;
const NEST_NODE: u16 = 6;
const NEST_NET: u16 = 7;

const BEARER_NAME: u16 = 1;

const NODE_ADDRESS: u16 = 1;
const NODE_UP: u16 = 2;

const NET_ID: u16 = 1;
const NET_NODE_0: u16 = 3;
const NET_NODE_1: u16 = 4;

/// The attributes that name a bearer.
pub(super) fn of_bearer(name: &str) -> Attributes {
    Attributes::default()
        .with_nest(NEST_BEARER, &Attributes::default().with_text(BEARER_NAME, name))
}

/// The name of the bearer in an answer.
pub(super) fn bearer(answer: &[u8]) -> Option<String> {
    text(attribute(attribute(answer, NEST_BEARER)?, BEARER_NAME)?).map(str::to_owned)
}

/// The network of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Net {
    /// Its id.
    pub(super) id: u32,
    /// Identity of the node; all 0 while it has none.
    pub(super) node: [u8; 16],
}

impl Net {
    pub(super) fn encode(&self) -> Attributes {
        let (first, second) = self.node.split_at(8);
        let inner = Attributes::default()
            .with(NET_ID, &self.id.to_ne_bytes())
            .with(NET_NODE_0, first)
            .with(NET_NODE_1, second);
        Attributes::default().with_nest(NEST_NET, &inner)
    }

    pub(super) fn decode(answer: &[u8]) -> Option<Self> {
        let inner = attribute(answer, NEST_NET)?;
        let half = |kind| attribute(inner, kind).filter(|value| value.len() == 8);
        let node = [half(NET_NODE_0)?, half(NET_NODE_1)?].concat();
        let id = attribute(inner, NET_ID).and_then(number_u32)?;
        Some(Self { id, node: node.try_into().ok()? })
    }
}

/// Another node that TIPC knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodeInfo {
    /// Whether it can be reached.
    pub(super) up: bool,
}

impl NodeInfo {
    pub(super) fn decode(answer: &[u8]) -> Option<Self> {
        let inner = attribute(answer, NEST_NODE)?;
        attribute(inner, NODE_ADDRESS)?;
        Some(Self { up: attribute(inner, NODE_UP).is_some() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_read_as_it_was_written() {
        let net = Net { id: 4_711, node: *b"0123456789abcdef" };
        assert_eq!(Net::decode(net.encode().as_bytes()), Some(net));
        let nothing = Attributes::default().with_nest(NEST_NET, &Attributes::default());
        assert_eq!(Net::decode(nothing.as_bytes()), None);
        assert_eq!(Net::decode(&[]), None);
    }

    #[test]
    fn bearers_and_nodes_are_read_from_answers() {
        assert_eq!(bearer(of_bearer("eth:eth0").as_bytes()), Some("eth:eth0".into()));
        let node = |inner: Attributes| {
            NodeInfo::decode(Attributes::default().with_nest(NEST_NODE, &inner).as_bytes())
        };
        let down = Attributes::default().with(NODE_ADDRESS, &7u32.to_ne_bytes());
        assert_eq!(node(down.clone()), Some(NodeInfo { up: false }));
        assert_eq!(node(down.with(NODE_UP, &[])), Some(NodeInfo { up: true }));
        assert_eq!(node(Attributes::default()), None);
        assert_eq!(bearer(&[]), None);
    }
}
