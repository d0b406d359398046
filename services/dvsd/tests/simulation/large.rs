// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clusters of more nodes than one beacon tells of.

use dvsd::beacon::{Key, BYTES_MAX, FOUNDERS_MAX, MEMBERS_MAX};

use super::*;

#[test]
fn seventy_machines_that_boot_at_once_form_one_cluster_fail_and_come_back() {
    let weather = Weather { loss_percent: 2, duplicate_percent: 1, delay_ms: 10 };
    for (seed, expect) in [(1, 70), (2, 3)] {
        let mut segment = Segment::new(seed, 70, expect, weather);
        (0..70).for_each(|at| segment.boot(at));
        segment.settle(20_000, "boot");
        // Of one founder after the other and of those who joined them.
        let gone: Vec<usize> = (0..70).step_by(6).collect();
        gone.iter().for_each(|at| segment.halt(*at));
        segment.settle(15_000, "some fail");
        gone.iter().for_each(|at| segment.boot(*at));
        segment.settle(20_000, "they come back");
        let seats = segment.seats();
        segment.partition(&(0..20).collect::<Vec<_>>());
        segment.run(15_000);
        segment.cut.clear();
        segment.settle(30_000, "parts meet");
        assert_eq!(segment.seats(), seats);
        segment.check_incarnations_grow();
        let key = Key::new("the token of this cluster");
        let longest = segment.recorded.iter().map(|beacon| beacon.seal(&key).len()).max().unwrap();
        assert!(longest <= BYTES_MAX, "{longest}");
    }
}

#[test]
fn ids_follow_the_order_of_identities_beyond_those_who_form_the_cluster() {
    let count = FOUNDERS_MAX + 16;
    let mut segment = Segment::new(3, count, count as u16, Weather::default());
    (0..count).for_each(|at| segment.boot(at));
    segment.settle(20_000, "boot");
    assert_bootstrap_order(&segment);
}

#[test]
fn what_a_node_sends_does_not_grow_with_the_cluster() {
    let per_node = |count: usize| {
        let mut segment = Segment::new(9, count, count as u16, Weather::default());
        (0..count).for_each(|at| segment.boot(at));
        segment.settle(20_000, "boot");
        segment.run(20_000);
        segment.sent = 0;
        segment.run(20_000);
        segment.sent as f64 / count as f64 / 20.0
    };
    let (few, many) = (per_node(5), per_node(60));
    assert!(many < few * 1.2, "datagrams in a second: {few} among 5 nodes, {many} among 60");
}

#[test]
fn a_full_cluster_says_so() {
    let mut segment = Segment::new(5, 2, 1, Weather::default());
    segment.boot(0);
    segment.run(4_000);
    segment.cut.insert((0, 1));
    segment.boot(1);
    for _ in 0..20 {
        segment.run(60);
        // What a member of a full cluster would say.
        let (now_ms, mac) = (segment.now_ms, segment.machines[0].mac);
        let mut beacon = segment.machines[0].node.as_mut().unwrap().beacon(now_ms, mac);
        (beacon.members, beacon.live) = (MEMBERS_MAX as u16, MEMBERS_MAX as u16);
        beacon.peers.iter_mut().for_each(|peer| (peer.seat, peer.known) = (None, false));
        let node = segment.machines[1].node.as_mut().unwrap();
        node.receive(now_ms, path(&beacon), beacon);
        if let Standing::Discovering { detail, .. } = node.view(now_ms).standing {
            if detail.contains("has 1000 members, the most it can have") {
                return;
            }
        }
    }
    panic!("{:?}", segment.views());
}
