// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the program is told when it measures between nodes, and what it answers: a line of JSON each, on standard input and output.

use core::fmt;
use serde::{Deserialize, Serialize};

/// A way for two processes on two nodes to exchange messages or bytes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Carrier {
    /// The DVK, over raw Ethernet.
    M3Ethernet,
    /// The DVK, over TIPC.
    M3Tipc,
    /// The DVK, over TCP by proxies.
    M3Tcp,
    /// The DVK, over UDP by proxies.
    M3Udp,
    /// The DVK, over QUIC by proxies.
    M3Quic,
    /// A TIPC connection that keeps message boundaries.
    TipcSeqpacket,
    /// TIPC datagrams, which TIPC delivers reliably.
    TipcRdm,
    /// A TIPC connection that is a stream.
    TipcStream,
    /// A TCP connection.
    Tcp,
    /// UDP datagrams.
    Udp,
}

impl Carrier {
    /// Its name as it is printed and given on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::M3Ethernet => "m3-ethernet",
            Self::M3Tipc => "m3-tipc",
            Self::M3Tcp => "m3-tcp",
            Self::M3Udp => "m3-udp",
            Self::M3Quic => "m3-quic",
            Self::TipcSeqpacket => "tipc-seqpacket",
            Self::TipcRdm => "tipc-rdm",
            Self::TipcStream => "tipc-stream",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// Whether it is the DVK, over whatever.
    pub fn is_m3(self) -> bool {
        self.transport().is_some()
    }

    /// For the DVK, what carries the link, as `dvsctl link set` names it.
    pub fn transport(self) -> Option<&'static str> {
        self.name().strip_prefix("m3-")
    }

    /// Whether it can do this.
    pub fn can(self, work: Work) -> bool {
        match (self, work) {
            (_, Work::RoundTrip) => self != Self::TipcStream,
            // What comes in pieces that may be lost needs a protocol above it.
            (Self::Udp | Self::TipcRdm, _) => false,
            // A message is a block, and none is longer.
            (Self::TipcSeqpacket, Work::Fetch(bytes) | Work::Store(bytes)) => bytes <= 1 << 16,
            _ => true,
        }
    }
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What one operation between two nodes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// 64 bytes there and 64 bytes back.
    RoundTrip,
    /// This many bytes from the server to the client.
    Fetch(u32),
    /// This many bytes from the client to the server.
    Store(u32),
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RoundTrip => f.write_str("round trips"),
            Self::Fetch(bytes) => write!(f, "fetching blocks of {bytes} bytes"),
            Self::Store(bytes) => write!(f, "storing blocks of {bytes} bytes"),
        }
    }
}

/// What one of the two programs is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Make the container, which spans these nodes.
    Join {
        /// All nodes.
        nodes: u32,
    },
    /// Be the server of everything that can be served; answered by [`Answer::Serving`].
    Serve,
    /// Be the client of the server with these endpoints, at this link-local address.
    Use(Server),
    /// Do so many operations; answered by [`Answer::Took`].
    Measure {
        /// How.
        carrier: Carrier,
        /// What.
        work: Work,
        /// How many clients at a time, each with a server of its own: at most [`PAIRS_MAX`].
        pairs: u32,
        /// How often, each of them.
        operations: u64,
    },
}

/// Most pairs of client and server at a time.
pub const PAIRS_MAX: u32 = 4;

/// Where the server is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Its IPv6 address, link-local.
    pub address: std::net::Ipv6Addr,
    /// The endpoints that answer messages, one for each pair.
    pub answers: Vec<u64>,
    /// The endpoint that has lent memory.
    pub lends: u64,
    /// The grant of that memory.
    pub grant: u64,
}

/// What the program answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It is done.
    Done,
    /// It could not be done.
    Failed(String),
    /// The server serves, but for what it could not serve, and why.
    Serving(Server, Vec<(Carrier, String)>),
    /// All operations together took so many nanoseconds.
    Took(u64),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn orders_and_answers_are_lines() {
        let server =
            Server { address: "fe80::1".parse().unwrap(), answers: vec![1], lends: 2, grant: 3 };
        let measure = Order::Measure {
            carrier: Carrier::M3Quic,
            work: Work::Fetch(4),
            pairs: 1,
            operations: 5,
        };
        for order in [Order::Join { nodes: 2 }, Order::Serve, Order::Use(server), measure] {
            let line = serde_json::to_string(&order).unwrap();
            assert_eq!(line.lines().count(), 1);
            assert_eq!(serde_json::from_str::<Order>(&line).unwrap(), order);
        }
        let answer = Answer::Failed("no\nlink".into());
        let line = serde_json::to_string(&answer).unwrap();
        assert_eq!(line, r#"{"failed":"no\nlink"}"#);
    }

    #[test]
    fn carriers_are_named_the_same_everywhere() {
        for carrier in Carrier::value_variants() {
            let json = serde_json::to_string(carrier).unwrap();
            assert_eq!(json.trim_matches('"'), carrier.name());
            assert_eq!(carrier.to_possible_value().unwrap().get_name(), carrier.name());
            let m3 = [
                Carrier::M3Ethernet,
                Carrier::M3Tipc,
                Carrier::M3Tcp,
                Carrier::M3Udp,
                Carrier::M3Quic,
            ];
            assert_eq!(carrier.is_m3(), m3.contains(carrier));
        }
    }
}
