// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a node counts and measures, for Prometheus: `GET /metrics`.
//!
//! Names follow its conventions: base units (seconds, bytes), and `_total` for what only grows. A part that has
//! something to tell adds a function that writes its families, and [`render`] calls it.

mod exposition;
mod machine;
mod tables;

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::Router;
use dvs_api::{Link, LinkState, NodeState, StatusState};
use dvs_consensus::Status as ConsensusStatus;

use crate::daemon::{Handle, Snapshot};
use crate::machine::{self as proc, PROC};
use crate::openapi::Description;
use exposition::{Exposition, Kind};
use Kind::{Counter, Gauge};

pub use tables::Tables;

/// Version 0.0.4 of the format.
const CONTENT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The route.
pub fn routes(daemon: Handle) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(Arc::new(daemon))
}

/// Describes it.
pub fn describe(api: &mut Description) {
    let summary = "What the answering node counts and measures, in the text format of Prometheus";
    api.get("/metrics", summary).answers_with("text/plain");
}

async fn metrics(State(daemon): State<Arc<Handle>>) -> impl IntoResponse {
    let snapshot = Arc::clone(&daemon.snapshots.borrow());
    let consensus = daemon.agreement.consensus().ok().map(|consensus| consensus.status());
    // Files of /proc and of the DVK's tables are made as they are read, without waiting for anything.
    let tables = Tables::read();
    let text = render(&snapshot, consensus.as_ref(), &tables);
    ([(CONTENT_TYPE, CONTENT)], text)
}

/// The text of everything.
pub fn render(snapshot: &Snapshot, consensus: Option<&ConsensusStatus>, tables: &Tables) -> String {
    let mut out = Exposition::default();
    node(&mut out, snapshot);
    self::consensus(&mut out, consensus);
    let links: Vec<_> = snapshot.nodes.iter().filter_map(|node| node.link.as_ref()).collect();
    self::links(&mut out, &links);
    segment(&mut out, &snapshot.segment);
    tables.write(&mut out);
    machine::write(&mut out, &proc::usage(PROC.as_ref()), proc::own(PROC.as_ref()));
    out.into_text()
}

fn node(out: &mut Exposition, snapshot: &Snapshot) {
    let status = &snapshot.status;
    let mut family = out.family("dvs_build_info", Gauge, "Which program answers; always 1.");
    family.sample(&[("version", &status.version)], true);
    let id = status.node.map(|id| id.to_string()).unwrap_or_default();
    let name = status.name.clone().unwrap_or_default();
    let labels = [("node", id.as_str()), ("name", &name), ("cluster", &status.cluster)];
    out.family("dvs_node_info", Gauge, "Which node it is; always 1.").sample(&labels, true);
    let mut family =
        out.family("dvs_node_state", Gauge, "How far the node has come: 1 at its state.");
    for (state, name) in [
        (StatusState::Starting, "starting"),
        (StatusState::Discovering, "discovering"),
        (StatusState::Joining, "joining"),
        (StatusState::Ready, "ready"),
        (StatusState::Failed, "failed"),
    ] {
        family.sample(&[("state", name)], status.state == state);
    }
    let mut family = out.family(
        "dvs_members",
        Gauge,
        "Members of the cluster by their state, as this node sees them.",
    );
    for state in [NodeState::Ready, NodeState::Joining, NodeState::Down] {
        let count = snapshot.nodes.iter().filter(|node| node.state == state).count();
        family.sample(&[("state", &state.to_string())], count);
    }
}

fn consensus(out: &mut Exposition, status: Option<&ConsensusStatus>) {
    let help = "Whether this node takes part in what the nodes agree on.";
    out.one("dvs_consensus_member", Gauge, help, status.is_some());
    let Some(status) = status else { return };
    let help = "Whether this node knows who leads.";
    out.one("dvs_consensus_has_leader", Gauge, help, status.leader.is_some());
    let leads = status.leader == Some(status.member);
    out.one("dvs_consensus_is_leader", Gauge, "Whether this node leads.", leads);
    let votes = status.voters.contains(&status.member);
    out.one("dvs_consensus_is_voter", Gauge, "Whether this node votes.", votes);
    out.one("dvs_consensus_voters", Gauge, "Members that vote.", status.voters.len());
    out.one("dvs_consensus_learners", Gauge, "Members that learn.", status.learners.len());
    out.one("dvs_consensus_term", Gauge, "The term; it grows with every election.", status.term);
    out.one("dvs_consensus_last_index", Gauge, "The end of this node's log.", status.last);
    let help = "Up to which entry of the log this node's state has come.";
    out.one("dvs_consensus_applied_index", Gauge, help, status.applied);
    let help = "Up to which entry of the log this node has a snapshot.";
    out.one("dvs_consensus_snapshot_index", Gauge, help, status.snapshot);
    let help = "Whether this node's member has stopped because of an error.";
    out.one("dvs_consensus_stopped", Gauge, help, status.stopped.is_some());
}

/// What is told of each link: its name, what it is, its explanation, and how it is read.
type LinkFamily<T> = (&'static str, Kind, &'static str, fn(&Link) -> T);

const LINK_GAUGES: [LinkFamily<f64>; 4] = [
    ("dvs_link_up", Gauge, "Whether messages flow to the peer.", |link| {
        f64::from(u8::from(link.state == LinkState::Up))
    }),
    ("dvs_link_rtt_seconds", Gauge, "Smoothed round-trip time; 0 while unknown.", |link| {
        f64::from(link.rtt_us) / 1e6
    }),
    ("dvs_link_trouble", Gauge, "Whether the chosen transport does not carry the link.", |link| {
        f64::from(u8::from(link.trouble.is_some()))
    }),
    ("dvs_link_choice_revision", Gauge, "How often a transport was chosen for the link.", |link| {
        f64::from(link.revision)
    }),
];

const LINK_COUNTERS: [LinkFamily<u64>; 7] = [
    ("dvs_link_sent_frames_total", Counter, "Frames sent, again or not.", |link| link.frames_sent),
    ("dvs_link_received_frames_total", Counter, "Frames accepted.", |link| link.frames_received),
    ("dvs_link_sent_bytes_total", Counter, "Bytes sent, headers included.", |link| link.bytes_sent),
    ("dvs_link_received_bytes_total", Counter, "Bytes of accepted frames.", |link| {
        link.bytes_received
    }),
    (
        "dvs_link_retransmitted_frames_total",
        Counter,
        "Frames sent again because no acknowledgement came.",
        |link| link.retransmissions,
    ),
    ("dvs_link_duplicate_frames_total", Counter, "Frames that came a second time.", |link| {
        link.duplicates
    }),
    (
        "dvs_link_rejected_frames_total",
        Counter,
        "Frames dropped: malformed, of another cluster or of an earlier incarnation.",
        |link| link.rejected,
    ),
];

fn links(out: &mut Exposition, links: &[&Link]) {
    if links.is_empty() {
        return;
    }
    let mut family =
        out.family("dvs_link_info", Gauge, "What carries the link to the peer; always 1.");
    for link in links {
        let transport = link.transport.map(|transport| transport.as_str()).unwrap_or("none");
        let labels = [
            ("peer", link.node.to_string()),
            ("transport", transport.to_owned()),
            ("chosen", link.chosen.to_string()),
            ("interface", link.interface.clone().unwrap_or_default()),
        ];
        family.sample(&labels.each_ref().map(|(name, value)| (*name, value.as_str())), true);
    }
    for (name, kind, help, read) in LINK_GAUGES {
        let mut family = out.family(name, kind, help);
        links
            .iter()
            .for_each(|link| family.sample(&[("peer", &link.node.to_string())], read(link)));
    }
    for (name, kind, help, read) in LINK_COUNTERS {
        let mut family = out.family(name, kind, help);
        links
            .iter()
            .for_each(|link| family.sample(&[("peer", &link.node.to_string())], read(link)));
    }
}

fn segment(out: &mut Exposition, segment: &dvs_api::Segment) {
    let help = "Whether traffic on the segment is encrypted.";
    out.one("dvs_segment_encrypted", Gauge, help, segment.encrypted);
    if !segment.encrypted {
        return;
    }
    let help = "How many keys this run of the node has come to.";
    out.one("dvs_segment_key_generation", Gauge, help, segment.key);
    out.one(
        "dvs_segment_key_age_seconds",
        Gauge,
        "For how long it sends with this one.",
        segment.age_s,
    );
    let help = "Whether something of it does not work.";
    out.one("dvs_segment_trouble", Gauge, help, segment.trouble.is_some());
    type Read = fn(&dvs_api::SegmentInterface) -> u64;
    let families: [(&str, &str, Read); 5] = [
        ("dvs_segment_sent_frames_total", "Frames sent.", |it| it.sent),
        ("dvs_segment_accepted_frames_total", "Frames that were what they claim to be.", |it| {
            it.accepted
        }),
        (
            "dvs_segment_forged_frames_total",
            "Frames dropped: forged, or damaged on the way.",
            |it| it.forged,
        ),
        ("dvs_segment_replayed_frames_total", "Frames dropped: recorded and sent again.", |it| {
            it.replayed
        }),
        (
            "dvs_segment_foreign_frames_total",
            "Frames dropped: under a key that is not held.",
            |it| it.foreign,
        ),
    ];
    for (name, help, read) in families {
        let mut family = out.family(name, Counter, help);
        for interface in &segment.interfaces {
            family.sample(&[("interface", &interface.name)], read(interface));
        }
    }
}
