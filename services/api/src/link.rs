// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links between nodes, and what carries them.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An element of `GET /v1/links`: a link of the answering node's as that node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Link {
    /// The node at the other end.
    pub node: u32,
    /// How far the two kernels have come.
    pub state: LinkState,
    /// What carries the link at this end; `None` while nothing does.
    pub transport: Option<Transport>,
    /// What is chosen to carry it. It differs from `transport` while the change is under way, or
    /// when it fails.
    pub chosen: Transport,
    /// Which choice for this link that is: 0 for the default, and more with every choice.
    pub revision: u32,
    /// Why the chosen transport does not carry the link, for people; `None` if it does, or is
    /// about to.
    pub trouble: Option<String>,
    /// Local interface it runs over; `None` for a transport that chooses by itself.
    pub interface: Option<String>,
    /// Address at the other end: a MAC address, or an IP address and port.
    pub address: Option<String>,
    /// Smoothed round-trip time in microseconds; 0 while unknown.
    pub rtt_us: u32,
    /// Bytes sent per second, measured over the last two.
    pub send_bytes_per_s: u64,
    /// Bytes of accepted frames per second, measured over the last two.
    pub receive_bytes_per_s: u64,
    /// Frames sent, retransmissions included.
    pub frames_sent: u64,
    /// Frames accepted.
    pub frames_received: u64,
    /// Bytes sent, headers included.
    pub bytes_sent: u64,
    /// Bytes of accepted frames.
    pub bytes_received: u64,
    /// Frames sent again because no acknowledgement came.
    pub retransmissions: u64,
    /// Frames that came a second time.
    pub duplicates: u64,
    /// Frames dropped: malformed, of another cluster or of an earlier incarnation.
    pub rejected: u64,
    /// What encryption found of frames from the other end; `None` if this node does not encrypt.
    #[serde(default)]
    pub segment: Option<crate::LinkSegment>,
}

impl Link {
    /// Which part of the frames sent had to be sent again, from 0 to 1.
    pub fn loss(&self) -> f64 {
        self.retransmissions as f64 / self.frames_sent.max(1) as f64
    }
}

/// See [`Link::state`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    /// No transport, or the node is down.
    Down,
    /// The two ends have not greeted each other yet.
    Connecting,
    /// Messages flow.
    Up,
}

impl fmt::Display for LinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Down => "down",
            Self::Connecting => "connecting",
            Self::Up => "up",
        })
    }
}

/// What carries the frames of a link.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Raw Ethernet frames, by the kernel. Needs a segment that both nodes are on.
    #[default]
    Ethernet,
    /// TIPC, by the kernel.
    Tipc,
    /// TCP, by a proxy on each node.
    Tcp,
    /// UDP, by a proxy on each node.
    Udp,
    /// QUIC, by a proxy on each node.
    Quic,
}

impl Transport {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Ethernet, Self::Tipc, Self::Tcp, Self::Udp, Self::Quic];

    /// Its name, as the API has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ethernet => "ethernet",
            Self::Tipc => "tipc",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Quic => "quic",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Transport {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|transport| transport.as_str() == text).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|transport| transport.as_str()).collect();
            format!("`{text}` is no transport; there are: {}", names.join(", "))
        })
    }
}

/// Body of `PUT /v1/links/{node}`: what is to carry the link between the answering node and that
/// one. Both ends change to it while messages flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TransportRequest {
    /// The transport.
    pub transport: Transport,
}

/// Answer of `PUT /v1/links/{node}`: the choice that holds now. The two ends have yet to follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LinkChoice {
    /// The node that answers.
    pub from: u32,
    /// The node at the other end.
    pub to: u32,
    /// What is to carry the link.
    pub transport: Transport,
    /// Which choice for this link it is: see [`Link::revision`].
    pub revision: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transports_have_one_name_everywhere() {
        for transport in Transport::ALL {
            let json = serde_json::to_string(&transport).unwrap();
            assert_eq!(json, format!("\"{transport}\""));
            assert_eq!(transport.as_str().parse(), Ok(transport));
        }
        let error = "pigeon".parse::<Transport>().unwrap_err();
        assert!(error.ends_with("there are: ethernet, tipc, tcp, udp, quic"), "{error}");
    }
}
