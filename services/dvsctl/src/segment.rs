// SPDX-License-Identifier: MIT OR Apache-2.0
//! `dvsctl segment`: how nodes protect their traffic with each other.

use std::process::ExitCode;

use dvs_api::{Segment, Version};
use serde::Serialize;

use crate::arguments::{Output, SegmentCommand};
use crate::cluster::{Cluster, Endpoint, Error};
use crate::table::Table;
use crate::{duration, told, Failure};

/// What one node says.
#[derive(Debug, Serialize)]
struct NodeSegment {
    node: Option<u32>,
    endpoint: String,
    #[serde(flatten)]
    segment: Segment,
}

/// What a node is asked or told.
type Ask = fn(&Endpoint) -> Result<Segment, Error>;

pub(crate) fn run(
    cluster: &Cluster,
    output: Output,
    command: &SegmentCommand,
) -> Result<ExitCode, Failure> {
    let (node, ask): (_, Ask) = match command {
        SegmentCommand::Show { node } => (node, |endpoint| endpoint.get("/v1/segment")),
        SegmentCommand::Rotate { node } => {
            (node, |endpoint| endpoint.post("/v1/segment/rotate", &()))
        }
    };
    let mut segments = Vec::new();
    let mut errors = Vec::new();
    for endpoint in cluster.meant(*node)? {
        let answer = endpoint
            .get::<Version>("/v1/version")
            .and_then(|version| Ok((version.node, ask(&endpoint)?)));
        match answer {
            Ok((node, segment)) => {
                segments.push(NodeSegment { node, endpoint: endpoint.url().to_owned(), segment });
            }
            Err(error) => errors.push(error),
        }
    }
    told(output, &segments, &errors, || table(&segments))
}

fn table(segments: &[NodeSegment]) -> String {
    let mut table = Table::new(&[
        "NODE", "DEVICE", "CIPHER", "KEY", "SINCE", "SENT", "ACCEPTED", "FORGED", "REPLAYED",
        "FOREIGN",
    ]);
    for NodeSegment { node, segment, .. } in segments {
        let node = node.map_or("-".into(), |id| id.to_string());
        if !segment.encrypted {
            let nothing = || String::new();
            table.row([
                node,
                "none".into(),
                "insecure".into(),
                nothing(),
                nothing(),
                nothing(),
                nothing(),
                nothing(),
                nothing(),
                nothing(),
            ]);
            continue;
        }
        for interface in &segment.interfaces {
            table.row([
                node.clone(),
                interface.device.clone().unwrap_or_else(|| format!("none on {}", interface.name)),
                segment.cipher.clone().unwrap_or_default(),
                match segment.next {
                    Some(next) => format!("{}, next {next}", segment.key),
                    None => segment.key.to_string(),
                },
                duration(segment.age_s),
                interface.sent.to_string(),
                interface.accepted.to_string(),
                interface.forged.to_string(),
                interface.replayed.to_string(),
                interface.foreign.to_string(),
            ]);
        }
    }
    table.to_string()
}
