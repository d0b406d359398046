// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a node sees of the network: questions that it asks others on behalf of an administrator.
//!
//! A target is an IP address, with `%` and the name of an interface if it is link-local, or a name, which the node looks up.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest that a node waits for one answer, in milliseconds.
pub const PROBE_TIMEOUT_MS_MAX: u64 = 30_000;
/// Most bytes of an echo request's payload.
pub const ECHO_BYTES_MAX: u16 = 8_192;

/// Which version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum IpVersion {
    /// IPv4.
    #[serde(rename = "ipv4")]
    V4,
    /// IPv6.
    #[serde(rename = "ipv6")]
    V6,
}

/// Body of `POST /v1/net/echo`: one ICMP echo request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EchoRequest {
    /// To whom.
    pub target: String,
    /// Which of the target's addresses is meant, if it has several.
    pub ip: Option<IpVersion>,
    /// Over how many routers it may go.
    #[serde(default = "hops")]
    pub hops: u8,
    /// Bytes of its payload.
    #[serde(default = "bytes")]
    pub bytes: u16,
    /// Its number.
    #[serde(default)]
    pub sequence: u16,
    /// How long an answer is waited for, in milliseconds.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
}

fn hops() -> u8 {
    64
}

fn bytes() -> u16 {
    56
}

fn timeout_ms() -> u64 {
    2_000
}

/// Answer of `POST /v1/net/echo`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Echo {
    /// To which address it was sent.
    pub address: IpAddr,
    /// Its number.
    pub sequence: u16,
    /// Bytes of its payload.
    pub bytes: u16,
    /// Whose answer came, if one did.
    pub from: Option<IpAddr>,
    /// How long that took, in microseconds.
    pub rtt_us: Option<u64>,
    /// What came of it.
    pub outcome: EchoOutcome,
}

/// What came of an echo request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EchoOutcome {
    /// The target answered.
    Reply,
    /// A router says that it may not go over more of them.
    Expired,
    /// Somebody says why it cannot get there.
    Unreachable(String),
    /// Nobody answered in time.
    TimedOut,
}

/// Body of `POST /v1/net/tcp`: one TCP connection, closed as soon as it is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpRequest {
    /// To whom.
    pub target: String,
    /// To which port.
    pub port: u16,
    /// Which of the target's addresses is meant, if it has several.
    pub ip: Option<IpVersion>,
    /// How long an answer is waited for, in milliseconds.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
}

/// Answer of `POST /v1/net/tcp`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TcpConnection {
    /// To which address.
    pub address: SocketAddr,
    /// From which address of the node, if it was connected.
    pub from: Option<SocketAddr>,
    /// How long the answer took, in microseconds.
    pub rtt_us: Option<u64>,
    /// What came of it.
    pub outcome: TcpOutcome,
}

/// What came of a TCP connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TcpOutcome {
    /// It was made.
    Connected,
    /// Nobody listens there.
    Refused,
    /// Something else is in the way.
    Failed(String),
    /// Nobody answered in time.
    TimedOut,
}

/// Body of `POST /v1/net/dns`: one question of the domain name system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DnsRequest {
    /// The name that is asked for; for [`DnsType::Ptr`], an address will do.
    pub name: String,
    /// What of it.
    #[serde(default)]
    pub kind: DnsType,
    /// Who is asked: an address, perhaps with a port. Otherwise the node's own servers are.
    pub server: Option<String>,
    /// How long an answer is waited for, in milliseconds.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
}

/// What of a name is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum DnsType {
    /// IPv4 addresses.
    #[default]
    A,
    /// IPv6 addresses.
    Aaaa,
    /// The name for which it is another one.
    Cname,
    /// Who takes its mail.
    Mx,
    /// Its name servers.
    Ns,
    /// The name of an address.
    Ptr,
    /// Who is responsible for its zone.
    Soa,
    /// Where a service is.
    Srv,
    /// Texts.
    Txt,
}

impl fmt::Display for DnsType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_uppercase())
    }
}

/// Answer of `POST /v1/net/dns`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DnsAnswer {
    /// Who answered.
    pub server: SocketAddr,
    /// How long it took, in microseconds.
    pub rtt_us: u64,
    /// How the server says it went, as RFC 1035 and its successors call it: `NOERROR`, `NXDOMAIN`, `SERVFAIL` and so on.
    pub code: String,
    /// Whether it was asked again by TCP, since the answer was too large.
    pub tcp: bool,
    /// What it says.
    pub records: Vec<DnsRecord>,
}

/// One record of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DnsRecord {
    /// Of which name.
    pub name: String,
    /// For how long it holds, in seconds.
    pub ttl_s: u32,
    /// Its type.
    pub kind: String,
    /// What it says, as zone files have it.
    pub data: String,
}
