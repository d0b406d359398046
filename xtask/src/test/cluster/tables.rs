// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the kernels of the nodes show of themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use dvk_abi::wire::frame::Versions;

use super::bed::{Bed, MEMBERS};
use super::mismatch::{expect, Mismatch};
use super::BEHIND;

const LIMIT: Duration = Duration::from_secs(60);

/// Each table by its name: for each row, its fields by their columns.
type Tables = BTreeMap<String, Vec<BTreeMap<String, String>>>;

/// Every node knows itself, the others, its links and who is bound on it.
pub(super) fn tell_of_the_cluster(bed: &mut Bed) -> Result<(), Mismatch> {
    bed.ping_all(&[0, 1, 2, 3], 20)?;
    let words = ["dvk-conformance", "--role", "lender"];
    let mut lender = bed.start_on(1, &words, LIMIT)?;
    let endpoint = lender.line()?;
    for node in 0..MEMBERS {
        let ended = bed.run_on(node, &["dvk-conformance", "--role", "tables"], LIMIT)?;
        let step = format!("reading the tables of node{node}");
        let check = |holds: bool, expected: &str| expect(holds, &step, expected, &ended);
        check(ended.succeeded(), "all of them")?;
        let tables = parse(&ended.stdout);
        let rows = |name: &str| tables.get(name).cloned().unwrap_or_default();
        let has = |row: &BTreeMap<String, String>, column: &str, value: &str| {
            row.get(column).is_some_and(|field| field == value)
        };
        let id = node.to_string();
        check(
            matches!(&rows("dvs")[..], [row] if has(row, "node", &id)),
            "the node's id in `dvs`",
        )?;
        let nodes = rows("nodes");
        check(nodes.len() == MEMBERS, "four nodes")?;
        for (number, row) in nodes.iter().enumerate() {
            let state = if number == node { "self" } else { "up" };
            let right = has(row, "node", &number.to_string()) && has(row, "state", state);
            check(right, "the nodes in order, all of them up")?;
        }
        let links = rows("links");
        check(links.len() == MEMBERS - 1, "a link to each other node")?;
        for row in &links {
            let number = row.get("node").and_then(|node| node.parse::<usize>().ok());
            let newest = Versions::SUPPORTED.max;
            let is_behind = node == BEHIND || number == Some(BEHIND);
            let version = if is_behind { newest - 1 } else { newest };
            let spoken = has(row, "wire", &version.to_string());
            check(spoken, "the newest version of the protocol that both ends of a link speak")?;
            let peer = number.and_then(|peer| bed.cluster().description().nodes.get(peer));
            let right = peer.is_some_and(|peer| has(row, "address", &peer.mac));
            check(right, "the address of the peer's machine")?;
            check(
                has(row, "state", "up") && has(row, "transport", "ethernet"),
                "links that are up",
            )?;
            for column in ["frames_sent", "frames_received", "bytes_sent", "bytes_received"] {
                let count = row.get(column).and_then(|count| count.parse::<u64>().ok());
                check(count.is_some_and(|count| count > 0), column)?;
            }
        }
        let bound = rows("endpoints").iter().any(|row| {
            let number = |column: &str| row.get(column)?.parse::<u64>().ok();
            let raw = number("generation").zip(number("slot"));
            raw.is_some_and(|(generation, slot)| (generation << 32 | slot).to_string() == endpoint)
                && has(row, "state", "receive")
                && has(row, "waits_for", "any")
        });
        check(bound == (node == 1), "the lender, waiting, among the endpoints of its node only")?;
    }
    Ok(())
}

fn parse(text: &str) -> Tables {
    let mut tables = Tables::new();
    let (mut name, mut head) = (String::new(), None);
    for line in text.lines() {
        if let Some(begun) = line.strip_suffix(':') {
            (name, head) = (begun.to_owned(), None);
            tables.insert(name.clone(), Vec::new());
            continue;
        }
        let fields: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        match &head {
            None => head = Some(fields),
            Some(head) => {
                let row = head.iter().cloned().zip(fields).collect();
                tables.entry(name.clone()).or_default().push(row);
            }
        }
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_told_apart() {
        let tables = parse("dvs:\nnode\n   7\nlinks:\nnode state\n   1    up\n   2  down\n");
        assert_eq!(tables["dvs"][0]["node"], "7");
        assert_eq!(tables["links"].len(), 2);
        assert_eq!(tables["links"][1]["state"], "down");
    }
}
