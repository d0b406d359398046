// SPDX-License-Identifier: MIT OR Apache-2.0
//! What network a container has, as its description says.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use anyhow::{ensure, Result};
use serde::{Deserialize, Serialize};

/// What the container calls its end.
pub(crate) const INSIDE: &str = "eth0";

/// The longest name from which the names of links are made: the kernel takes 15 bytes, and two are ours.
const NAME_MAX: usize = 13;

/// The least that IPv6 allows (RFC 8200, section 5).
const MTU_MIN: u32 = 1280;
const MTU_MAX: u32 = 65_535;

/// Less than this, in bits per second, does not carry a packet in a time that anybody waits.
const RATE_MIN: u64 = 8_000;

/// VXLAN's identifiers have 24 bits (RFC 7348, section 5).
const ID_MAX: u32 = (1 << 24) - 1;

/// The most peers; each is told of each frame for everybody.
const PEERS_MAX: usize = 4096;

/// A pair of links, one end of which is `eth0` in the container. The node's end is `v-NAME`; with an [`Overlay`] it is in the bridge `b-NAME`
/// with the VXLAN link `x-NAME`. Without one, whoever asked for the container attaches the node's end to what it likes. The node itself takes
/// no part in this network: it has no address on these links and answers nothing that comes by them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Names the links on the node; up to 13 of a to z, 0 to 9 and -, and no other container's.
    pub name: String,
    /// The container's addresses.
    pub addresses: Vec<Address>,
    /// Where packets to elsewhere go; one of each family at most.
    #[serde(default)]
    pub gateways: Vec<IpAddr>,
    /// The longest packet in bytes; what the way allows if it is not given.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// Bits per second that the container can send, and that it can be sent; no limit if it is not given.
    #[serde(default)]
    pub rate: Option<u64>,
    /// How the network spans nodes.
    #[serde(default)]
    pub overlay: Option<Overlay>,
}

/// Ethernet over UDP to the other nodes of the same Distributed Container (VXLAN, RFC 7348), by unicast to each. Nothing in it is encrypted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overlay {
    /// Which network it is; 24 bits.
    pub id: u32,
    /// The interface of the node by which the peers are reached.
    pub interface: String,
    /// The node's own address on it.
    pub local: IpAddr,
    /// The addresses of the other nodes.
    pub peers: Vec<IpAddr>,
}

/// An address and the length of its network's prefix, as in `10.1.0.2/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    /// The address.
    pub address: IpAddr,
    /// Bits that it has in common with all others of its network.
    pub prefix: u8,
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            let (address, prefix): (IpAddr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
            let most = if address.is_ipv4() { 32 } else { 128 };
            (prefix <= most).then_some(Self { address, prefix })
        };
        parse().ok_or_else(|| {
            format!("{text:?} is no address with a prefix; write it as in 10.1.0.2/16")
        })
    }
}

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

impl Network {
    pub(crate) fn check(&self) -> Result<()> {
        crate::spec::check_name("the links of the network", &self.name)?;
        ensure!(
            self.name.len() <= NAME_MAX,
            "naming the links of the network {:?}: the kernel has room for {NAME_MAX} bytes",
            self.name
        );
        for address in &self.addresses {
            let plain = !address.address.is_unspecified() && !address.address.is_multicast();
            ensure!(plain, "giving the container the address {address}: nobody can have that");
        }
        for family in [IpAddr::is_ipv4, IpAddr::is_ipv6] {
            let gateways: Vec<_> = self.gateways.iter().filter(|gateway| family(gateway)).collect();
            ensure!(
                gateways.len() <= 1,
                "routing by {gateways:?}: there can be one gateway of each family"
            );
            if let Some(gateway) = gateways.first() {
                ensure!(
                    self.addresses.iter().any(|own| family(&own.address)),
                    "routing by {gateway}: the container has no address of that family"
                );
            }
        }
        if let Some(mtu) = self.mtu {
            ensure!(
                (MTU_MIN..=MTU_MAX).contains(&mtu),
                "limiting packets to {mtu} bytes: give a number from {MTU_MIN} to {MTU_MAX}"
            );
        }
        if let Some(rate) = self.rate {
            ensure!(
                rate >= RATE_MIN,
                "limiting the network to {rate} bits per second: the least is {RATE_MIN}"
            );
        }
        self.overlay.as_ref().map_or(Ok(()), Overlay::check)
    }

    /// The node's end of the pair.
    pub(crate) fn pair(&self) -> String {
        format!("v-{}", self.name)
    }

    /// The bridge of an overlay.
    pub(crate) fn bridge(&self) -> String {
        format!("b-{}", self.name)
    }

    /// The VXLAN link of an overlay.
    pub(crate) fn tunnel(&self) -> String {
        format!("x-{}", self.name)
    }
}

impl Overlay {
    fn check(&self) -> Result<()> {
        ensure!(
            self.id <= ID_MAX,
            "spanning nodes by VXLAN {}: its numbers end at {ID_MAX}",
            self.id
        );
        let name = self.interface.as_bytes();
        ensure!(
            (1..=15).contains(&name.len())
                && !name
                    .iter()
                    .any(|byte| *byte == b'/' || byte.is_ascii_whitespace() || *byte == 0)
                && self.interface != "."
                && self.interface != "..",
            "spanning nodes by the interface {:?}: that cannot be a name of one",
            self.interface
        );
        ensure!(
            self.peers.len() <= PEERS_MAX,
            "spanning nodes by VXLAN {}: {} peers are more than {PEERS_MAX}",
            self.id,
            self.peers.len()
        );
        for peer in &self.peers {
            ensure!(
                peer.is_ipv4() == self.local.is_ipv4()
                    && !peer.is_multicast()
                    && !peer.is_unspecified()
                    && *peer != self.local,
                "spanning nodes from {} to {peer}: give the address of another node, of the same family",
                self.local
            );
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn network() -> Network {
        Network {
            name: "web".to_owned(),
            addresses: vec!["10.1.0.2/16".parse().unwrap(), "fd00::2/64".parse().unwrap()],
            gateways: vec!["10.1.0.1".parse().unwrap()],
            mtu: Some(1400),
            rate: Some(1_000_000),
            overlay: Some(Overlay {
                id: 7,
                interface: "eth0".to_owned(),
                local: "fe80::1".parse().unwrap(),
                peers: vec!["fe80::2".parse().unwrap()],
            }),
        }
    }

    #[test]
    fn it_is_written_as_it_is_read() {
        let text = serde_json::to_string(&network()).unwrap();
        assert!(text.contains("\"10.1.0.2/16\""), "{text}");
        assert_eq!(serde_json::from_str::<Network>(&text).unwrap(), network());
        network().check().unwrap();
    }

    #[test]
    fn addresses_are_strict() {
        for text in ["10.1.0.2", "10.1.0.2/33", "10.1.0/8", "fd00::1/129", "/8", "10.1.0.2/x", ""] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refused = |change: fn(&mut Network)| {
            let mut network = network();
            change(&mut network);
            network.check().is_err()
        };
        assert!(refused(|network| network.name = "a".repeat(14)));
        assert!(refused(|network| network.name = "../x".to_owned()));
        assert!(refused(|network| network.mtu = Some(500)));
        assert!(refused(|network| network.rate = Some(0)));
        assert!(refused(|network| network.addresses = vec!["0.0.0.0/0".parse().unwrap()]));
        assert!(refused(|network| network.gateways.push("10.1.0.9".parse().unwrap())));
        assert!(refused(|network| network.addresses.remove(0).address = [0, 0, 0, 0].into()));
        let overlay = |change: fn(&mut Overlay)| {
            let mut network = network();
            change(network.overlay.as_mut().unwrap());
            network.check().is_err()
        };
        assert!(overlay(|overlay| overlay.id = 1 << 24));
        assert!(overlay(|overlay| overlay.interface = "../eth0".to_owned()));
        assert!(overlay(|overlay| overlay.peers.push("10.0.0.1".parse().unwrap())));
        assert!(overlay(|overlay| overlay.peers.push("fe80::1".parse().unwrap())));
        assert!(!overlay(|_| ()));
    }
}
