// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machines that a node boots over the network.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Body of `POST /v1/netboot`: the answering node boots machines from now on. The answer comes once it does, or could not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetbootRequest {
    /// The interface on which it does, and no other: a name, a pattern for names, or a MAC address.
    pub interface: String,
    /// The address and prefix length that it has there, such as `192.168.7.1/24`; the interface gets it if it does not have it.
    #[serde(default)]
    pub address: Option<String>,
    /// The addresses that machines are given, such as `192.168.7.100-192.168.7.199`; without, a DHCP server of the segment gives them.
    #[serde(default)]
    pub addresses: Option<String>,
    /// Kernel arguments of the machines besides those of the image. Whoever is on the segment can read them.
    #[serde(default)]
    pub append: Option<String>,
}

/// Answer of `GET`, `POST` and `DELETE /v1/netboot`, and of `PUT /v1/netboot/image`, whose body is a unified kernel image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetbootStatus {
    /// The node that answers, if it has an id.
    pub node: Option<u32>,
    /// What it is to do; `None` for nothing. Secrets in it are left out.
    pub wanted: Option<NetbootRequest>,
    /// What it does; `None` for nothing.
    pub serves: Option<NetbootService>,
    /// Why it does not do what it is to, for people. It tries again by itself.
    pub trouble: Option<String>,
    /// How many machines it has sent all that they boot from, since its daemon was started.
    pub booted: u64,
    /// The last ones of them, the newest first.
    pub machines: Vec<NetbootMachine>,
}

/// See [`NetbootStatus::serves`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetbootService {
    /// The name of the interface.
    pub interface: String,
    /// The node's address and prefix length there.
    pub address: String,
    /// What machines boot.
    pub image: NetbootImage,
    /// Whether machines whose BIOS has no iPXE are served, too.
    pub bios: bool,
}

/// An image that machines boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetbootImage {
    /// What it is: version, `+`, and what tells one build from another.
    pub release: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Where the node has it from, for people.
    pub origin: String,
}

/// A machine that was sent all that it boots from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetbootMachine {
    /// Its MAC address, if that is known.
    pub mac: Option<String>,
    /// Its address as it booted.
    pub address: String,
    /// The file that it got last.
    pub file: String,
    /// How many seconds ago.
    pub ago_s: u64,
}
