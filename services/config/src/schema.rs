// SPDX-License-Identifier: MIT OR Apache-2.0
//! The sections and keys of the machine configuration.

use std::fmt;
use std::net::Ipv4Addr;

use serde::de::{Deserializer, Error as _, Unexpected, Visitor};
use serde::{Deserialize, Serialize};

use crate::{
    AddressRange, Bond, InterfaceAddress, InterfaceSelector, JoinToken, KernelArguments, Name,
    Token, Vlan,
};

/// The machine configuration of one node. Every key has a default but those of optional sections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `[cluster]`: which cluster this machine belongs to.
    pub cluster: Cluster,
    /// `[node]`: what this machine is called.
    pub node: Node,
    /// `[network]`: which interface serves which purpose.
    pub network: Network,
    /// `[api]`: where `dvsd` answers `dvsctl`.
    pub api: Api,
    /// `[console]`: what its own screen and keyboard are for.
    #[serde(skip_serializing_if = "Console::is_default")]
    pub console: Console,
    /// `[netboot]`: which machines this one boots over the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netboot: Option<Netboot>,
    /// `[run]`: one command instead of the services, or beside them; for test images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
}

/// `[cluster]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cluster {
    /// Name of the cluster; nodes of differently named clusters on one segment ignore each other.
    pub name: Name,
    /// The secret that authenticates discovery. Without it the node stays alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// What the cluster has given out for machines to join with, instead of its token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join_token: Option<JoinToken>,
    /// How many nodes must have found each other before they form the cluster:
    /// 1 to [`dvk_abi`'s limit](dvk_abi::limits::NODES).
    #[serde(deserialize_with = "bootstrap_expect")]
    pub bootstrap_expect: u32,
    /// Whether messages between nodes may be read and forged by whoever is on the network between
    /// them. All nodes of a cluster must agree.
    pub insecure: bool,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            name: Name::dvs(),
            token: None,
            join_token: None,
            bootstrap_expect: 1,
            insecure: false,
        }
    }
}

/// `[node]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Node {
    /// Name of the node; when absent, `node` and the id that the cluster hands out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
}

/// `[network]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// The interfaces that carry cluster traffic; when empty, every network adapter and bond but
    /// the management one and the members of bonds.
    pub cluster: Vec<InterfaceSelector>,
    /// `[network.management]`: the interface on which the API listens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub management: Option<Management>,
    /// `[[network.bond]]`: several network adapters as one interface each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bond: Vec<Bond>,
    /// `[[network.vlan]]`: tagged frames of an interface as an interface each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vlan: Vec<Vlan>,
}

/// `[network.management]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Management {
    /// The interface; the first one that matches.
    pub interface: InterfaceSelector,
    /// Its static IPv4 address and prefix length.
    pub address: InterfaceAddress,
    /// Where the default route leads, within the network of `address`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Ipv4Addr>,
}

/// `[api]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    /// TCP port of the API on the management address (on 127.0.0.1 when there is none); not 0.
    #[serde(deserialize_with = "port")]
    pub port: u16,
}

impl Default for Api {
    fn default() -> Self {
        Self { port: 7700 }
    }
}

/// `[console]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Console {
    /// Whether keys do more than show the state: who has the keyboard may restart the machine then, install and configure it.
    pub menu: bool,
}

impl Console {
    /// Whether it need not be written down, so that releases before this one can read what is.
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Console {
    fn default() -> Self {
        Self { menu: true }
    }
}

/// `[netboot]`: a boot server (DHCP and TFTP) for machines on one interface, which has the image that this machine runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Netboot {
    /// The interface on which machines are booted, and no other; the first one that matches.
    pub interface: InterfaceSelector,
    /// The IPv4 address and prefix length from which it serves there, and which the interface gets if it does not have it; without,
    /// the address that it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<InterfaceAddress>,
    /// Addresses that machines are given as they boot; without, a DHCP server beside this one does so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<AddressRange>,
    /// Kernel arguments that the machines get besides those of the image. Whoever is on the segment can read them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub append: Option<KernelArguments>,
}

/// `[run]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Absolute path of the program and its arguments.
    #[serde(deserialize_with = "command")]
    pub command: Vec<String>,
    /// What happens to the machine when the command ends.
    #[serde(default)]
    pub power: Power,
    /// Whether the services run beside the command.
    #[serde(default)]
    pub services: bool,
}

/// What becomes of the machine after a `[run]` command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Power {
    /// Power off.
    #[default]
    Off,
    /// Reboot.
    Reboot,
}

impl Config {
    /// The configuration as TOML that [`from_sources`](Self::from_sources) reads back unchanged.
    ///
    /// The text holds the cluster token: a file made of it must not be readable by everybody.
    #[expect(clippy::missing_panics_doc, reason = "every value of the schema has a TOML form")]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("every value of the schema has a TOML form")
    }

    /// Says what is wrong between keys that are each in order: the key to point at, and the text.
    pub(crate) fn contradiction(&self) -> Option<(String, String)> {
        if self.cluster.join_token.is_some() && self.cluster.token.is_some() {
            return Some((
                "cluster.join_token".into(),
                "a machine joins with either of the two; leave out `cluster.token` or this".into(),
            ));
        }
        if self.cluster.bootstrap_expect > 1 && self.cluster.join_token.is_some() {
            return Some((
                "cluster.bootstrap_expect".into(),
                "a machine with a join token joins a cluster and forms none; leave this out, or set \
                 `cluster.token` instead of `cluster.join_token`"
                    .into(),
            ));
        }
        if self.cluster.bootstrap_expect > 1 && self.cluster.token.is_none() {
            return Some((
                "cluster.bootstrap_expect".into(),
                format!(
                    "waiting for {} nodes needs a cluster token that they share; set `cluster.token`",
                    self.cluster.bootstrap_expect
                ),
            ));
        }
        if let Some(Management { address, gateway: Some(gateway), .. }) = &self.network.management {
            if !address.network_contains(*gateway) {
                return Some((
                    "network.management.gateway".into(),
                    format!("{gateway} is outside of the network of {address}"),
                ));
            }
            if *gateway == address.address() {
                return Some((
                    "network.management.gateway".into(),
                    format!("{gateway} is the node's own address"),
                ));
            }
        }
        if let Some(Netboot { address: Some(own), addresses: Some(addresses), .. }) = &self.netboot
        {
            if let Err(why) = addresses.check_beside(*own) {
                return Some(("netboot.addresses".into(), why));
            }
        }
        self.network.contradiction(self.netboot.as_ref())
    }
}

/// Reads an integer, and calls it so when something else stands there.
pub(crate) struct WholeNumber;

impl Visitor<'_> for WholeNumber {
    type Value = i64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<i64, E> {
        Ok(value)
    }
}

fn bootstrap_expect<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let value = deserializer.deserialize_i64(WholeNumber)?;
    u32::try_from(value).ok().filter(|n| (1..=dvk_abi::limits::NODES).contains(n)).ok_or_else(
        || {
            D::Error::custom(format_args!(
                "{value} is out of range, expected a number of nodes from 1 to {}",
                dvk_abi::limits::NODES
            ))
        },
    )
}

fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let value = deserializer.deserialize_i64(WholeNumber)?;
    u16::try_from(value).ok().filter(|port| *port != 0).ok_or_else(|| {
        D::Error::custom(format_args!(
            "{value} is out of range, expected a TCP port from 1 to 65535"
        ))
    })
}

fn command<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let command = Vec::<String>::deserialize(deserializer)?;
    let Some(program) = command.first() else {
        return Err(D::Error::custom("the command is empty, expected a program and its arguments"));
    };
    if !program.starts_with('/') {
        return Err(D::Error::invalid_value(
            Unexpected::Str(program),
            &"an absolute path of a program",
        ));
    }
    if command.iter().any(|argument| argument.contains('\0')) {
        return Err(D::Error::custom("an argument holds a NUL, which no program can be given"));
    }
    Ok(command)
}
