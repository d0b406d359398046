// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the nodes of a cluster really send, as the dissector shows it.

use std::collections::BTreeSet;

use dvs_api::Node;

use super::command_line::{run, xtask, PATIENCE};
use super::mismatch::{expect, Mismatch};
use super::SEED;
use crate::dissector::{Dissector, Packet};
use crate::source::Origin;
use crate::step::Session;
use crate::store;

/// Round trips; each is a request and a reply.
const COUNT: usize = 300;

/// Two nodes on a bad network: every frame is understood, nothing in it is malformed, the messages are all in it, and as much was
/// sent again and came twice as the kernel says.
pub(super) fn are_dissected(session: &Session, origin: &Origin) -> Result<(), Mismatch> {
    let step = "capturing what two nodes send each other";
    let failed = |error| Mismatch::new(step, "it can be done", format!("{error:#}"));
    let logs = session.store.directory("logs").map_err(failed)?;
    let directory = logs.join("captures");
    store::remove(&directory).map_err(failed)?;
    let script =
        format!("dvsctl ipc ping --from 0 --to 1 --count {COUNT} >&2 && dvsctl node list -o json");
    let (seed, pcap) = (SEED.to_string(), directory.display().to_string());
    let mut arguments = vec!["qemu", "--nodes", "2", "--insecure", "--loss", "5%"];
    arguments.extend(["--duplicate", "2%"]);
    arguments.extend(["--seed", &seed, "--pcap", &pcap, "--exec", &script]);
    let ended = run(xtask(session, origin, &arguments), step, PATIENCE)?;
    expect(ended.succeeded(), step, "exit status 0", &ended)?;
    let nodes: Vec<Node> = serde_json::from_str(&ended.stdout)
        .map_err(|error| Mismatch::new(step, "the nodes as JSON", format!("{error}: {ended}")))?;
    let dissector = Dissector::new(&session.workspace.root).map_err(failed)?;
    let mut captures = Vec::new();
    for number in ["0", "1"] {
        let path = directory.join(format!("node{number}.pcap"));
        let packets = dissector.read(&path, false).map_err(failed)?;
        let step = format!("reading {}", path.display());
        all_are_understood(&packets, &step)?;
        all_messages_are_in(&packets, &step)?;
        captures.push(packets);
    }
    // The list is node 0's, and so are its counters. What is captured of a node is what it sent, before the switch could lose
    // it, and what it was given. The capture went on after the list was made.
    let link = nodes.get(1).and_then(|node| node.link.clone());
    let again = count(&captures[0], "0", "dvk.retransmission");
    let twice =
        count(&captures[0], "1", "dvk.retransmission") + count(&captures[0], "1", "dvk.duplicate");
    let holds = |counter: u64, found: u64| counter > 0 && found >= counter;
    expect(
        link.as_ref().is_some_and(|link| {
            holds(link.retransmissions, again) && holds(link.duplicates, twice)
        }),
        "comparing node0's capture with the counters of its link",
        "some frames were sent again and some came twice, and at least as many are marked",
        format!("{again} marked as sent again, {twice} as come twice; {link:?}"),
    )
}

/// The packets from a node that have a field.
fn count(packets: &[Packet], source: &str, name: &str) -> u64 {
    let is_one = |packet: &&Packet| is_from(packet, source) && packet.fields.contains_key(name);
    packets.iter().filter(is_one).count() as u64
}

fn is_from(packet: &Packet, node: &str) -> bool {
    packet.values("dvk.src.node").iter().any(|source| source == node)
}

/// The dissector makes no mistake, and no frame is marked as one that no node sends.
fn all_are_understood(packets: &[Packet], step: &str) -> Result<(), Mismatch> {
    let strange = |packet: &&Packet| {
        // Nothing follows if neither tshark nor the dissector knows what the frame is.
        packet.is_failure() || packet.is_refused() || packet.protocols.ends_with("ethertype")
    };
    let found = packets.iter().find(strange);
    let came = found.map_or_else(String::new, |packet| {
        format!("packet {}: {}; {}", packet.number, packet.info, packet.remarks)
    });
    expect(found.is_none(), step, "every frame is understood and none is malformed", came)
}

/// All that a link does from its beginning is there, and each round trip is once.
fn all_messages_are_in(packets: &[Packet], step: &str) -> Result<(), Mismatch> {
    let kinds: BTreeSet<_> = packets.iter().flat_map(|packet| packet.values("dvk.kind")).collect();
    for (kind, name) in [("1", "hello"), ("2", "hello-ack"), ("3", "data"), ("4", "ack")] {
        let there = kinds.iter().any(|found| *found == kind);
        expect(there, step, &format!("frames of kind {kind}, {name}"), format!("{kinds:?}"))?;
    }
    let repeats = ["dvk.retransmission", "dvk.duplicate"];
    let is_first = |packet: &&Packet| repeats.iter().all(|name| !packet.fields.contains_key(*name));
    for (kind, name, source) in [("2", "requests", "0"), ("4", "replies", "1")] {
        let mut calls = Vec::new();
        for packet in packets.iter().filter(|packet| is_from(packet, source)).filter(is_first) {
            let field = |name: &str| packet.values(&format!("dvk.record.{name}")).to_vec();
            let ends = field("from").into_iter().zip(field("to")).zip(field("call"));
            let records = field("kind").into_iter().zip(ends);
            calls.extend(records.filter(|(found, _)| found == kind));
        }
        let distinct: BTreeSet<_> = calls.iter().collect();
        expect(
            distinct.len() >= COUNT && distinct.len() == calls.len(),
            step,
            &format!("at least {COUNT} {name} of node {source}, each of another call"),
            format!("{} of {} calls", calls.len(), distinct.len()),
        )?;
    }
    Ok(())
}
