// SPDX-License-Identifier: MIT OR Apache-2.0
//! Nodes find each other and exchange messages, on a good network and on a bad one.

use std::collections::BTreeSet;
use std::time::Duration;

use dvs_qemu::faults::{Faults, Probability};
use dvs_qemu::links::LinkSelector;
use serde_json::Value;

use super::bed::{Bed, MEMBERS};
use super::mismatch::{expect, Mismatch};

/// Four machines that differ in their addresses only become one cluster, and its list says what is promised of it.
pub(super) fn nodes_find_each_other(bed: &mut Bed) -> Result<(), Mismatch> {
    bed.await_all_ready("waiting for the cluster to form")?;
    for viewer in 0..MEMBERS {
        let ended = bed.dvsctl(viewer, &["node", "list", "-o", "json"])?;
        let step = format!("the node list that node{viewer} gives");
        let list: Value = serde_json::from_str(&ended.stdout)
            .map_err(|error| Mismatch::new(&step, "JSON", format!("{error}\n{ended}")))?;
        let nodes = list.as_array().cloned().unwrap_or_default();
        let check = |holds: bool, expected: &str| expect(holds, &step, expected, &ended);
        check(nodes.len() == MEMBERS && ended.stderr.is_empty(), "an array of four, no complaint")?;
        for (number, node) in nodes.iter().enumerate() {
            check(node["id"].as_u64() == Some(number as u64), "ids 0 to 3 in order")?;
            check(node["state"] == "ready", "each node ready")?;
            let text = |field: &str| node[field].as_str().is_some_and(|text| !text.is_empty());
            check(text("name") && text("version"), "names and versions")?;
            let addresses = node["addresses"].as_array();
            check(addresses.is_some_and(|list| !list.is_empty()), "addresses")?;
            // Machine N has id N: identities are handed out in the order of MAC addresses.
            let mac = &bed.cluster().description().nodes[number].mac;
            check(node["mac"].as_str() == Some(mac), "the machines in the order of their numbers")?;
        }
        let distinct = |field: &str| {
            let texts: BTreeSet<_> = nodes.iter().map(|node| node[field].to_string()).collect();
            texts.len() == MEMBERS
        };
        check(distinct("name") && distinct("addresses"), "no name and no address twice")?;
        let clusters: BTreeSet<_> = nodes.iter().map(|node| node["cluster"].to_string()).collect();
        check(clusters.len() == 1, "one cluster")?;
    }
    Ok(())
}

/// Messages between any two nodes, and within one, arrive once each and in order.
pub(super) fn exactly_once(bed: &mut Bed) -> Result<(), Mismatch> {
    bed.ping(0, 3, 10_000)?;
    bed.ping(0, 0, 10_000)?;
    bed.ping_all(&[0, 1, 2, 3], 50)
}

/// The same on a network that loses, delays, doubles and reorders frames; the kernel's links must have had to repair that.
pub(super) fn exactly_once_in_spite_of_faults(bed: &mut Bed) -> Result<(), Mismatch> {
    let faults = Faults {
        loss: Probability::percent(5).unwrap_or_default(),
        duplicate: Probability::percent(2).unwrap_or_default(),
        reorder: Probability::percent(2).unwrap_or_default(),
        delay: Duration::from_millis(2),
        jitter: Duration::ZERO,
    };
    let before = bed.cluster().switch().report();
    bed.cluster().switch().set_faults(LinkSelector::All, faults);
    bed.ping(0, 3, 1_000)?;
    bed.ping(2, 1, 200)?;
    bed.cluster().switch().set_faults(LinkSelector::All, Faults::default());
    let after = bed.cluster().switch().report();
    let lost = |report: &dvs_qemu::switch::Report| report.ports[0].lost + report.ports[3].lost;
    // About 2,000 frames went between these two alone.
    expect(
        lost(&after) >= lost(&before) + 20,
        "counting the frames that the switch lost",
        "at least 20 at the ports of node0 and node3",
        format!("{} before, {} after", lost(&before), lost(&after)),
    )?;
    let link = bed.seen_by(0).ok().and_then(|nodes| nodes.get(3)?.link.clone());
    expect(
        link.as_ref().is_some_and(|link| link.retransmissions > 0 && link.duplicates > 0),
        "reading the counters of node0's link to node3",
        "retransmissions and duplicates",
        format!("{link:?}"),
    )?;
    bed.await_all_ready("waiting for the cluster to be calm again")?;
    bed.ping_all(&[0, 3], 50)
}
