// SPDX-License-Identifier: MIT OR Apache-2.0
//! Nodes and links that fail and come back.

use std::time::Duration;

use dvs_api::{Node, NodeState};
use dvs_qemu::links::LinkSelector;

use super::bed::{Bed, Ping, MEMBERS, NOTICE, PATIENCE};
use super::mismatch::{expect, Mismatch};

/// Long enough for round trips to be under way.
const UNDER_WAY: Duration = Duration::from_millis(700);

/// Node 2 loses power in the middle of an exchange, and gets it again.
pub(super) fn power_cut(bed: &mut Bed) -> Result<(), Mismatch> {
    let before = incarnation(bed, 0, 2)?;
    let mut others = others_exchange(bed, &[(0, 1), (1, 3), (3, 0)])?;
    let victim = bed.start_ping(1, 2, 100_000, 1)?;
    std::thread::sleep(UNDER_WAY);
    bed.act("cutting node2's power", |cluster| cluster.node(2).kill())?;
    bed.await_state(&[0, 1, 3], 2, NodeState::Down, NOTICE)?;
    victim.fail(2)?;
    still_run(&mut others)?;
    others.into_iter().try_for_each(Ping::succeed)?;
    bed.ping_all(&[0, 1, 3], 50)?;
    bed.start_ping(0, 2, 10, 0)?.fail(2)?;
    bed.act("giving node2 power", |cluster| cluster.node(2).start())?;
    await_incarnation(bed, 2, before)?;
    bed.await_all_ready("waiting for node2 to come back")?;
    bed.ping(0, 2, 2_000)?;
    bed.ping_all(&[0, 1, 2, 3], 50)
}

/// Node 3 loses power and gets it again before anybody can have noticed; its messages of then must not be taken for those of
/// now.
pub(super) fn unnoticed_restart(bed: &mut Bed) -> Result<(), Mismatch> {
    let before = incarnation(bed, 0, 3)?;
    let under_way = bed.start_ping(0, 3, 100_000, 1)?;
    std::thread::sleep(UNDER_WAY);
    bed.act("restarting node3", |cluster| {
        cluster.node(3).kill()?;
        cluster.node(3).start()
    })?;
    under_way.fail(3)?;
    await_incarnation(bed, 3, before)?;
    bed.await_all_ready("waiting for node3 to come back")?;
    bed.ping(0, 3, 1_000)?;
    bed.ping_all(&[0, 1, 2, 3], 20)
}

/// Node 1's processors stop for long enough to be taken for dead, and run on as if nothing had been.
pub(super) fn stall(bed: &mut Bed) -> Result<(), Mismatch> {
    let under_way = bed.start_ping(0, 1, 100_000, 1)?;
    std::thread::sleep(UNDER_WAY);
    bed.act("stopping node1", |cluster| cluster.node(1).pause())?;
    bed.await_state(&[0, 2, 3], 1, NodeState::Down, NOTICE)?;
    under_way.fail(1)?;
    bed.ping_all(&[0, 2, 3], 20)?;
    bed.act("letting node1 run on", |cluster| cluster.node(1).resume())?;
    bed.await_all_ready("waiting for node1 to come back")?;
    bed.ping(0, 1, 1_000)?;
    bed.ping_all(&[0, 1, 2, 3], 20)
}

/// Two nodes lose sight of each other, then one half of the cluster of the other half.
pub(super) fn partitions(bed: &mut Bed) -> Result<(), Mismatch> {
    let switch = bed.cluster().switch();
    switch.cut(LinkSelector::Pair(0, 3));
    bed.await_state(&[0], 3, NodeState::Down, NOTICE)?;
    bed.await_state(&[3], 0, NodeState::Down, NOTICE)?;
    bed.start_ping(0, 3, 10, 0)?.fail(3)?;
    bed.ping_all(&[0, 1, 2], 20)?;
    bed.ping_all(&[1, 2, 3], 20)?;
    switch.heal(LinkSelector::All);
    bed.await_all_ready("waiting for node0 and node3 to see each other again")?;
    bed.ping_all(&[0, 3], 200)?;

    switch.partition(vec![vec![0, 1], vec![2, 3]]);
    for (viewers, lost) in [([0, 1], [2, 3]), ([2, 3], [0, 1])] {
        for node in lost {
            bed.await_state(&viewers, node, NodeState::Down, NOTICE)?;
        }
        bed.ping_all(&viewers, 50)?;
    }
    switch.heal(LinkSelector::All);
    bed.await_all_ready("waiting for the halves to see each other again")?;
    bed.ping_all(&[0, 1, 2, 3], 50)
}

/// Node 1 does not hear node 2 any more, which still hears node 1: neither may wait for the other forever.
pub(super) fn deafness(bed: &mut Bed) -> Result<(), Mismatch> {
    let switch = bed.cluster().switch();
    switch.cut(LinkSelector::OneWay { from: 2, to: 1 });
    bed.await_state(&[1], 2, NodeState::Down, NOTICE)?;
    bed.start_ping(1, 2, 10, 0)?.fail(2)?;
    bed.start_ping(2, 1, 10, 0)?.fail(1)?;
    bed.ping_all(&[0, 1, 3], 20)?;
    bed.ping_all(&[0, 2, 3], 20)?;
    switch.heal(LinkSelector::All);
    bed.await_all_ready("waiting for node1 to hear node2 again")?;
    bed.ping_all(&[1, 2], 200)
}

/// Round trips that take some seconds, between nodes that nothing is done to.
fn others_exchange(bed: &Bed, pairs: &[(usize, usize)]) -> Result<Vec<Ping>, Mismatch> {
    pairs.iter().map(|(from, to)| bed.start_ping(*from, *to, 2_000, 2)).collect()
}

/// What is to show that an outage disturbs nobody must not have been over before.
fn still_run(pings: &mut [Ping]) -> Result<(), Mismatch> {
    let running = pings.iter_mut().map(Ping::runs).filter(|runs| *runs).count();
    expect(
        running == pings.len(),
        "exchanging messages between the other nodes meanwhile",
        "the exchanges last longer than the failure takes to be noticed, or end with it",
        format!("{running} of {} still run", pings.len()),
    )
}

pub(super) fn incarnation(bed: &Bed, viewer: usize, node: usize) -> Result<u32, Mismatch> {
    let step = format!("reading node{node}'s incarnation");
    let nodes = bed.seen_by(viewer).map_err(|why| Mismatch::new(&step, "a list of nodes", why))?;
    let found = nodes.iter().find(|seen| seen.id as usize == node).map(|seen| seen.incarnation);
    found.ok_or_else(|| Mismatch::new(step, "the node is in the list", "it is not"))
}

/// Waits until the other members see `node` ready, with its old id, its old machine and a higher incarnation.
pub(super) fn await_incarnation(bed: &Bed, node: usize, before: u32) -> Result<(), Mismatch> {
    let viewers: Vec<_> = (0..MEMBERS).filter(|viewer| *viewer != node).collect();
    let mac = bed.cluster().description().nodes[node].mac.clone();
    let back = |nodes: &[Node]| {
        nodes.iter().any(|seen| {
            seen.id as usize == node
                && seen.mac == mac
                && seen.state == NodeState::Ready
                && seen.incarnation > before
        })
    };
    bed.await_view(
        &format!("waiting for node{node} to boot and join"),
        &viewers,
        PATIENCE,
        &format!("node{node} ready with its old id and an incarnation above {before}"),
        back,
    )
}
