// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod agreed;
mod barriers;
mod boot;
mod config;
mod containers;
mod elections;
mod endpoints;
mod events;
mod groups;
mod link;
mod look;
mod net;
mod netboot;
mod node;
mod token;
mod upgrades;
mod usage;

/// In a header of this name, a request says by its id which node is to answer it; the node that is asked passes it on.
pub const RELAY_NODE: &str = "dvs-node";

pub use agreed::{
    ClusterMember, ClusterStatus, KvBytes, KvChange, KvChanges, KvCompare, KvDone, KvOperation,
    KvPair, KvRange, KvResult, KvTransaction, KvValue, Lease, LeaseInfo, LeaseRequest, Lock,
    LockHolder, LockRelease, LockReleased, LockRequest, LockStanding, KV_VALUE_BYTES_MAX,
    WAIT_MS_MAX,
};
pub use barriers::{Barrier, BarrierDeparture, BarrierLeft, BarrierPassage, BarrierRequest};
pub use boot::{
    BootDisk, BootImage, BootImageState, BootStatus, DiskFound, DiskListed, InstallRequest,
    Installed, WipeRequest, Wiped,
};
pub use config::{
    ConfigChange, ConfigChanged, ConfigConfirmed, ConfigMode, MachineConfig, TRIAL_S_MAX,
};
pub use containers::{
    Container, ContainerChange, ContainerImage, ContainerIo, ContainerLimits, ContainerNetwork,
    ContainerNodes, ContainerPhase, ContainerPlace, ContainerRequest, ContainerUse, ContainerUser,
    ContainerWorkload, Image, PublishedPort, RestartPolicy, EXEC_PROTOCOL, LOG_POSITION,
};
pub use elections::{
    Candidate, Election, ElectionLeader, ElectionRequest, ElectionResignation, ElectionResigned,
    ElectionStanding, Leader,
};
pub use endpoints::{IpcEndpoint, IpcRole, IpcState};
pub use events::{Event, Events};
pub use groups::{
    Group, GroupAcknowledged, GroupAcknowledgement, GroupContent, GroupDelivery, GroupJoin,
    GroupLeave, GroupLeft, GroupMember, GroupMessage, GroupPosition,
};
pub use link::{Link, LinkChoice, LinkState, Transport, TransportRequest};
pub use look::{KernelLog, KernelRecord, KernelTables, Log, Logs, LOG_LINES_MAX};
pub use net::{
    DnsAnswer, DnsRecord, DnsRequest, DnsType, Echo, EchoOutcome, EchoRequest, IpVersion,
    TcpConnection, TcpOutcome, TcpRequest, ECHO_BYTES_MAX, PROBE_TIMEOUT_MS_MAX,
};
pub use netboot::{NetbootImage, NetbootMachine, NetbootRequest, NetbootService, NetbootStatus};
pub use node::{
    NodeDrain, NodePhase, NodeRemoval, NodeRename, NodeStanding, PowerAction, PowerAnswer,
    PowerRequest,
};
pub use token::{JoinTokenInfo, TokenCreated, TokenRequest, TokenRevoked};
pub use upgrades::{RollbackRequest, Upgrade, UpgradeNode, UpgradePhase, Upgrades};
pub use usage::Usage;

/// The port of the API where the machine configuration names no other.
pub const PORT: u16 = 7700;
/// Most round trips one ping may ask for.
pub const PING_COUNT_MAX: u64 = 10_000_000;

/// `GET /v1/version`: which program answers, and for which node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Version {
    /// Version of `dvsd`.
    pub version: String,
    /// This node's id; `None` while it is in no cluster.
    pub node: Option<u32>,
    /// This node's name; `None` while it has none.
    pub name: Option<String>,
    /// Name of the cluster the node belongs to or looks for.
    pub cluster: String,
}

/// What state this node is in, as `/run/dvs/status.json` and `GET /v1/status` say it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// This node's id; `None` while it is in no cluster.
    pub node: Option<u32>,
    /// This node's name; `None` while it has none.
    pub name: Option<String>,
    /// Name of the cluster.
    pub cluster: String,
    /// How far the node has come.
    pub state: StatusState,
    /// Why it is in that state, for people; may be empty.
    pub detail: String,
    /// Members of the cluster, this node and those that are down included.
    pub members: u32,
    /// Members that are ready.
    pub ready: u32,
    /// This node's own addresses; link-local ones as `fe80::1%eth0`.
    pub addresses: Vec<String>,
    /// Version of `dvsd`.
    pub version: String,
}

/// See [`Status::state`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StatusState {
    /// `dvsd` has just been started.
    Starting,
    /// It looks for others.
    Discovering,
    /// It is a member; its kernel tables or links are not complete yet.
    Joining,
    /// It is a member like any other.
    Ready,
    /// Something it cannot do without is missing.
    Failed,
}

/// How another node is seen by the one that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// A member like any other.
    Ready,
    /// A member whose kernel tables or links are not complete yet.
    Joining,
    /// A ready member on which nothing new is placed.
    Draining,
    /// Nothing has been heard of it for about two seconds.
    Down,
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ready => "ready",
            Self::Joining => "joining",
            Self::Draining => "draining",
            Self::Down => "down",
        })
    }
}

/// An element of `GET /v1/nodes`, and the answer of `GET /v1/nodes/{id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Node {
    /// The node's id.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Its state as the answering node sees it.
    pub state: NodeState,
    /// Version of its `dvsd`; `None` while nothing has been heard of this run of it.
    pub version: Option<String>,
    /// Its addresses; the scope of a link-local one is an interface of the answering node.
    pub addresses: Vec<String>,
    /// Which run of the node this is; grows with every restart.
    pub incarnation: u32,
    /// The machine's identity: the lowest MAC address of its cluster interfaces.
    pub mac: String,
    /// Id of the cluster, 16 hexadecimal digits.
    pub cluster: String,
    /// Whether this is the node that answers.
    pub local: bool,
    /// Seconds since its `dvsd` started; `None` while nothing has been heard of this run of it.
    pub uptime_s: Option<u64>,
    /// Milliseconds since it was last heard; 0 for the node that answers.
    pub last_seen_ms: Option<u64>,
    /// The answering node's link to it; `None` for itself, and where there is no link.
    pub link: Option<Link>,
}

/// See [`Link::segment`]: frames that came from the other end, or claimed to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LinkSegment {
    /// Frames that were what they claim to be.
    pub accepted: u64,
    /// Frames dropped because they were forged, or damaged on the way.
    pub forged: u64,
    /// Frames dropped because they had been recorded and were sent again.
    pub replayed: u64,
    /// Frames dropped because they were under a key that this node does not hold.
    pub foreign: u64,
}

/// `GET /v1/segment`, and the answer of `POST /v1/segment/rotate`: how the answering node protects its
/// traffic with the others on the segment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Segment {
    /// Whether frames are encrypted. If not, all that follows is empty.
    pub encrypted: bool,
    /// By which cipher suite of MACsec.
    pub cipher: Option<String>,
    /// How many keys this run of the node has come to; the last of them is sent with.
    pub key: u32,
    /// The key that is announced to the others and will be sent with next.
    pub next: Option<u32>,
    /// Seconds since that came to be so.
    pub age_s: u64,
    /// What does not work, for people.
    pub trouble: Option<String>,
    /// The cluster interfaces.
    pub interfaces: Vec<SegmentInterface>,
}

/// A cluster interface, and what came in by it since `dvsd` started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SegmentInterface {
    /// Its name.
    pub name: String,
    /// The device that encrypts on it; `None` while there is none.
    pub device: Option<String>,
    /// Frames sent by that device.
    pub sent: u64,
    /// Frames that were what they claim to be.
    pub accepted: u64,
    /// Frames dropped because they were forged, or damaged on the way.
    pub forged: u64,
    /// Frames dropped because they had been recorded and were sent again.
    pub replayed: u64,
    /// Frames dropped because this node holds no key for them.
    pub foreign: u64,
}

/// Body of `POST /v1/ipc/ping`: M3-IPC round trips from the answering node to `to`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PingRequest {
    /// The node whose echo server is asked; may be the answering node itself.
    pub to: u32,
    /// How many round trips, 1 to [`PING_COUNT_MAX`].
    #[serde(default = "ping_count")]
    pub count: u64,
    /// Milliseconds after which a round trip counts as lost, 1 to 60,000.
    #[serde(default = "ping_timeout_ms")]
    pub timeout_ms: u64,
    /// Milliseconds to wait between two round trips, at most 60,000.
    #[serde(default)]
    pub interval_ms: u64,
}

fn ping_count() -> u64 {
    10
}

fn ping_timeout_ms() -> u64 {
    5_000
}

/// Answer of `POST /v1/ipc/ping`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PingResult {
    /// The node that sent.
    pub from: u32,
    /// The node that echoed.
    pub to: u32,
    /// Requests sent.
    pub sent: u64,
    /// Replies that came in time.
    pub received: u64,
    /// Requests that the echo server got more than once.
    pub duplicated: u64,
    /// Requests without a reply in time.
    pub lost: u64,
    /// Messages, either way, that arrived after a later one.
    pub reordered: u64,
    /// Round-trip times of the replies that came.
    pub rtt_us: RttUs,
}

/// Round-trip times in microseconds; all 0 if no reply came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RttUs {
    /// The shortest.
    pub min: f64,
    /// Half of all were at most this long.
    pub p50: f64,
    /// 99 of 100 were at most this long.
    pub p99: f64,
    /// The longest.
    pub max: f64,
    /// The arithmetic mean.
    pub mean: f64,
}

/// Body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Error {
    /// What went wrong and what to do, for people.
    pub error: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_request_needs_only_its_target_and_refuses_what_it_does_not_know() {
        let request: PingRequest = serde_json::from_str(r#"{"to":3}"#).unwrap();
        assert_eq!(request, PingRequest { to: 3, count: 10, timeout_ms: 5_000, interval_ms: 0 });
        let error = serde_json::from_str::<PingRequest>(r#"{"to":3,"cuont":5}"#).unwrap_err();
        assert!(error.to_string().contains("unknown field `cuont`"), "{error}");
    }

    #[test]
    fn the_status_file_has_the_form_that_init_reads() {
        let status = Status {
            node: Some(0),
            name: Some("node0".into()),
            cluster: "dvs".into(),
            state: StatusState::Ready,
            detail: String::new(),
            members: 4,
            ready: 4,
            addresses: vec!["fe80::1%eth0".into()],
            version: "0.1.0".into(),
        };
        assert_eq!(
            serde_json::to_string(&status).unwrap(),
            r#"{"node":0,"name":"node0","cluster":"dvs","state":"ready","detail":"","members":4,"ready":4,"addresses":["fe80::1%eth0"],"version":"0.1.0"}"#
        );
    }
}
