// SPDX-License-Identifier: MIT OR Apache-2.0
//! `dvsctl endpoint`: between whom messages are sent.

use std::process::ExitCode;

use dvs_api::IpcEndpoint;

use crate::agreed::escaped;
use crate::arguments::Output;
use crate::cluster::Cluster;
use crate::table::Table;
use crate::{told, Failure};

/// Those of one container or all, on one node or all that are among the endpoints of the API.
pub(crate) fn list(
    cluster: &Cluster,
    output: Output,
    container: Option<&str>,
    node: Option<u32>,
) -> Result<ExitCode, Failure> {
    let query = container.map(|name| format!("?container={}", escaped(name))).unwrap_or_default();
    let path = format!("/v1/endpoints{query}");
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for endpoint in cluster.meant(node)? {
        match endpoint.get::<Vec<IpcEndpoint>>(&path) {
            Ok(endpoints) => found.extend(endpoints),
            Err(error) => errors.push(error),
        }
    }
    // A node may be reached by several ways.
    found.sort_by_key(|one| (one.container, one.node, slot(one)));
    found.dedup_by_key(|one| (one.container, one.node, slot(one)));
    told(output, &found, &errors, || table(&found, output == Output::Wide))
}

/// By number: 9 comes before 64.
fn slot(endpoint: &IpcEndpoint) -> Option<(u32, u32)> {
    let (slot, generation) = endpoint.endpoint.split_once('.')?;
    Some((slot.parse().ok()?, generation.parse().ok()?))
}

fn table(endpoints: &[IpcEndpoint], wide: bool) -> String {
    let mut headings = vec![
        "CONTAINER",
        "ENDPOINT",
        "NODE",
        "STATE",
        "WAITS FOR",
        "SENT",
        "RECEIVED",
        "SENDERS",
        "CLIENTS",
    ];
    if wide {
        headings.extend(["ROLE", "EPOCH", "NOTICES", "GRANTS"]);
    }
    let mut table = Table::new(&headings);
    for one in endpoints {
        let mut cells = vec![
            one.container_name.clone(),
            one.endpoint.clone(),
            one.node.to_string(),
            one.state.to_string(),
            one.waits_for.clone().unwrap_or_else(|| "-".into()),
            one.sent.to_string(),
            one.received.to_string(),
            one.senders.to_string(),
            one.clients.to_string(),
        ];
        if wide {
            cells.extend([
                one.role.to_string(),
                one.epoch.to_string(),
                one.notices.to_string(),
                one.grants.to_string(),
            ]);
        }
        table.cells(cells);
    }
    table.to_string()
}
