// SPDX-License-Identifier: MIT OR Apache-2.0
//! Containers on a node: they run what they are told, are shut in, keep to their limits, and leave nothing behind.

use std::time::Duration;

use super::bed::Bed;
use super::mismatch::{expect, Mismatch};

/// All cases make some forty containers, on a node that may be translated.
const LIMIT: Duration = Duration::from_secs(900);

/// The networks of two containers on two nodes are one.
pub(super) fn share_a_network(bed: &mut Bed) -> Result<(), Mismatch> {
    let program = |node: usize, serves: bool| {
        let number = node.to_string();
        let mut words = vec!["dvs-runtime-conformance", "--node", &number, "span"];
        words.extend(serves.then_some("--serve"));
        bed.start_on(node, &words, LIMIT)
    };
    let (mut server, mut client) = (program(1, true)?, program(2, false)?);
    let (ours, theirs) = (server.line()?, client.line()?);
    server.say(&theirs)?;
    let step = "a server in a container on node1";
    let line = server.line()?;
    expect(line == "serves", step, "it serves", line)?;
    client.say(&ours)?;
    let fetched = client.succeed()?;
    let step = "fetching from a container on node1 in one on node2";
    expect(fetched.stdout.contains("\nfetched "), step, "a mebibyte", &fetched)?;
    server.say("enough")?;
    server.succeed()?;
    bed.note(fetched.stdout.lines().last().unwrap_or_default().to_owned());
    Ok(())
}

/// Each rule of containers has a case in a program that runs on a node.
pub(super) fn keep_the_rules(bed: &mut Bed) -> Result<(), Mismatch> {
    let node = 1;
    let number = node.to_string();
    let words = ["dvs-runtime-conformance", "--node", &number];
    let ended = bed.run_on(node, &words, LIMIT)?;
    let results = |prefix: &str| -> Vec<String> {
        let lines = ended.stdout.lines().filter(|line| line.starts_with(prefix));
        lines.map(str::to_owned).collect()
    };
    let (passed, failed) = (results("ok "), results("not ok "));
    for line in &passed {
        bed.note(line.clone());
    }
    let step = format!("the rules of containers on node{node}");
    let planned = results("1..").first().and_then(|plan| plan[3..].parse().ok());
    let whole = planned == Some(passed.len()) && failed.is_empty() && ended.succeeded();
    expect(whole, &step, "every case passes", &ended)
}
