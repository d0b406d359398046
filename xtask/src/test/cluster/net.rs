// SPDX-License-Identifier: MIT OR Apache-2.0
//! What nodes see of the network, as an administrator has them look.

use super::bed::Bed;
use super::dc::dvsctl;
use super::mismatch::{expect, Mismatch};
use super::program::Ended;

/// Nodes look at the network: at each other, at themselves, and at what is not there.
pub(super) fn look_at_the_network(bed: &mut Bed) -> Result<(), Mismatch> {
    let step = "having a node look at the network";
    let net = |words: &[&str]| -> Result<Ended, Mismatch> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        dvsctl(bed, 1, &[&["net".to_owned()], &words[..]].concat())
    };
    let nodes = bed.seen_by(1).map_err(|why| Mismatch::new(step, "the nodes", why))?;
    let local = nodes.iter().find(|node| node.id == 2).and_then(|node| {
        node.addresses.iter().find(|it| it.starts_with("fe80:")).map(|it| it.to_owned())
    });
    for own in ["127.0.0.1", "::1"] {
        let ended = net(&["ping", own, "--node", "1", "--count", "2", "--interval", "0.1"])?;
        let came = ended.succeeded() && ended.stdout.contains("2 sent, 2 received, 0 % lost");
        expect(came, step, "two echoes", ended)?;
    }
    if let Some(local) = local {
        let target = format!("{}%sec-eth0", local.split('%').next().unwrap_or_default());
        let ended = net(&["ping", &target, "--count", "2", "--interval", "0.1"])?;
        expect(ended.succeeded(), step, "node2 echoes", ended)?;
        let ended = net(&["trace", &target])?;
        let reached = ended.succeeded() && ended.stdout.lines().count() == 1;
        expect(reached, step, "node2 is one step away", ended)?;
    }
    let ended = net(&["tcp", "10.0.2.15", "7700"])?;
    expect(ended.stdout.contains("accepts connections"), step, "the API's port is open", ended)?;
    let ended = net(&["tcp", "::1", "9"])?;
    let refused = ended.status == Some(1) && ended.stdout.contains("refuses connections");
    expect(refused, step, "nobody listens, and exit status 1", ended)?;
    let ended = net(&["dns", "node2.example", "--server", "127.0.0.1", "--timeout", "1"])?;
    let told = ended.is_one_clear_error() && ended.stderr.contains("127.0.0.1:53");
    expect(told, step, "one error that names the server", ended)
}
