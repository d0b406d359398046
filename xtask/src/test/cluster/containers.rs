// SPDX-License-Identifier: MIT OR Apache-2.0
//! Containers on a node: they run what they are told, are shut in, keep to their limits, and leave nothing behind.

use std::time::Duration;

use super::bed::Bed;
use super::mismatch::{expect, Mismatch};

/// All cases make some forty containers, on a node that may be translated.
const LIMIT: Duration = Duration::from_secs(900);

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
