// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory of programs on some nodes is lent to a program on another, which copies.

use std::time::Duration;

use dvs_api::NodeState;
use dvs_qemu::faults::{Faults, Probability};
use dvs_qemu::links::LinkSelector;

use super::bed::{Bed, NOTICE};
use super::mismatch::{expect, Mismatch};

/// How long all copies of a borrower may take.
const LIMIT: Duration = Duration::from_secs(600);
/// Long enough for copies to be under way.
const UNDER_WAY: Duration = Duration::from_millis(700);

/// What the reference says of grants and copies holds between nodes; copies between two other nodes pass through the caller's.
pub(super) fn between_nodes(bed: &mut Bed) -> Result<(), Mismatch> {
    borrow(bed, 0, [1, 2])?;
    borrow(bed, 3, [0, 0])
}

/// So it does where frames are lost.
pub(super) fn in_spite_of_faults(bed: &mut Bed) -> Result<(), Mismatch> {
    let faults = Faults {
        loss: Probability::percent(2).unwrap_or_default(),
        duplicate: Probability::percent(1).unwrap_or_default(),
        reorder: Probability::percent(2).unwrap_or_default(),
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
    };
    bed.cluster().switch().set_faults(LinkSelector::All, faults);
    let borrowed = borrow(bed, 2, [3, 1]);
    bed.cluster().switch().set_faults(LinkSelector::All, Faults::default());
    borrowed?;
    bed.await_all_ready("waiting for the cluster to be calm again")
}

/// Runs a borrower on one node, with lenders on others.
fn borrow(bed: &Bed, node: usize, lenders: [usize; 2]) -> Result<(), Mismatch> {
    let mut endpoints = Vec::new();
    let mut running = Vec::new();
    for lender in lenders {
        let words = ["dvk-conformance", "--role", "lender"];
        let mut program = bed.start_on(lender, &words, LIMIT)?;
        endpoints.push(program.line()?);
        running.push(program);
    }
    let words = ["dvk-conformance", "--role", "borrower", &endpoints[0], &endpoints[1]];
    let ended = bed.run_on(node, &words, LIMIT)?;
    let step = format!("copies on node{node} with lenders on {lenders:?}");
    expect(ended.succeeded(), &step, "all of them right", &ended)?;
    for program in running {
        // The borrower has told them to leave.
        program.succeed()?;
    }
    Ok(())
}

/// A node that loses power ends the copies with it, and they can be made again when it is back.
pub(super) fn power_cut(bed: &mut Bed) -> Result<(), Mismatch> {
    let mut lender = bed.start_on(1, &["dvk-conformance", "--role", "lender"], LIMIT)?;
    let endpoint = lender.line()?;
    let words = ["dvk-conformance", "--role", "glutton", &endpoint];
    let mut glutton = bed.start_on(0, &words, LIMIT)?;
    let step = "copying from a node that loses power";
    let begun = glutton.line()?;
    expect(begun == "begin", step, "copies that go on", begun)?;
    std::thread::sleep(UNDER_WAY);
    bed.act("cutting node1's power", |cluster| cluster.node(1).kill())?;
    let ended = glutton.end()?;
    expect(ended.succeeded(), step, "the copy to end with EHOSTUNREACH", &ended)?;
    bed.await_state(&[0, 2, 3], 1, NodeState::Down, NOTICE)?;
    bed.act("giving node1 power", |cluster| cluster.node(1).start())?;
    bed.await_all_ready("waiting for node1 to come back")?;
    borrow(bed, 0, [1, 1])
}
