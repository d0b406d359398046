// SPDX-License-Identifier: MIT OR Apache-2.0
//! Nodes that say that they are going, and nodes that were removed.

use dvsd::membership::{Removal, Removals};

use super::*;

/// What the nodes agree on about a machine.
fn removal(segment: &Segment, at: usize, barred: bool) -> Removals {
    let seat = *segment.machines[at].past.last().unwrap();
    let mac = segment.machines[at].mac;
    [(mac, Removal { seat, barred })].into_iter().collect()
}

/// Each machine but the removed one learns of it, one after the other.
fn tell(segment: &mut Segment, gone: usize, removals: &Removals) {
    for at in (0..segment.machines.len()).filter(|at| *at != gone) {
        let now_ms = segment.now_ms;
        if let Some(node) = &mut segment.machines[at].node {
            node.remove(now_ms, removals.clone());
        }
        segment.run(300);
    }
}

fn detail(segment: &Segment, at: usize) -> Option<String> {
    match segment.machines[at].node.as_ref().unwrap().view(segment.now_ms).standing {
        Standing::Discovering { detail, .. } => Some(detail),
        Standing::Member { .. } => None,
    }
}

/// Those that are left are whole: the removed machine is in no roster.
fn settle_without(segment: &mut Segment, gone: usize) {
    let out = |segment: &Segment| {
        let mac = segment.machines[gone].mac;
        let others = segment.views().into_iter().filter(|(at, _)| *at != gone);
        let mut members = others.map(|(_, view)| view.members);
        members.all(|all| !all.is_empty() && all.iter().all(|member| member.mac != mac))
    };
    let start = segment.now_ms;
    while !out(segment) || detail(segment, gone).is_none_or(|text| !text.contains("was removed")) {
        assert!(segment.now_ms - start < 20_000, "{:?}", segment.views());
        segment.run(100);
    }
}

#[test]
fn who_says_goodbye_is_down_at_once_and_comes_back() {
    for seed in 0..8 {
        let mut segment = Segment::new(seed, 4, 4, Weather { loss_percent: 5, ..weather(0) });
        (0..4).for_each(|at| segment.boot(at));
        segment.settle(20_000, "four");
        let now_ms = segment.now_ms;
        segment.machines[2].node.as_mut().unwrap().leave(now_ms);
        segment.run(700);
        let mac = segment.machines[2].mac;
        for (at, view) in segment.views().into_iter().filter(|(at, _)| *at != 2) {
            let gone = view.members.iter().find(|member| member.mac == mac).unwrap();
            assert_eq!(gone.liveness, Liveness::Down, "seed {seed}, as machine {at} sees it");
            let left =
                |event: &Event| matches!(event, Event::NodeLeft { mac: left, .. } if *left == mac);
            assert_eq!(segment.events[&at].iter().filter(|event| left(event)).count(), 1);
        }
        segment.halt(2);
        segment.boot(2);
        segment.settle(20_000, "after the restart");
        segment.check_incarnations_grow();
    }
}

#[test]
fn who_was_removed_is_told_and_stays_out_until_it_may_come_back() {
    for seed in 0..24 {
        let mut segment = Segment::new(seed, 4, 4, weather(seed));
        (0..4).for_each(|at| segment.boot(at));
        segment.settle(40_000, "four");
        let gone = seed as usize % 4;
        let place = *segment.machines[gone].past.last().unwrap();
        let barred = removal(&segment, gone, true);
        tell(&mut segment, gone, &barred);
        settle_without(&mut segment, gone);
        // Neither waiting nor a restart gets it in, nor does it found a cluster of its own.
        segment.run(10_000);
        segment.halt(gone);
        segment.run(3_000);
        segment.boot(gone);
        settle_without(&mut segment, gone);
        segment.run(5_000);
        settle_without(&mut segment, gone);
        assert_eq!(segment.machines[gone].past.last(), Some(&place), "seed {seed}");
        // It may come back.
        let allowed = removal(&segment, gone, false);
        tell(&mut segment, gone, &allowed);
        segment.settle(40_000, &format!("seed {seed}, back"));
        let back = *segment.machines[gone].past.last().unwrap();
        assert_eq!((back.id, back.incarnation), (place.id, place.incarnation + 1), "seed {seed}");
    }
}

#[test]
fn who_was_removed_and_may_come_back_does_so_in_another_life() {
    let mut segment = Segment::new(5, 3, 3, Weather::default());
    (0..3).for_each(|at| segment.boot(at));
    segment.settle(20_000, "three");
    let before = *segment.machines[0].past.last().unwrap();
    let removed = removal(&segment, 0, false);
    tell(&mut segment, 0, &removed);
    segment.settle(20_000, "back");
    let after = *segment.machines[0].past.last().unwrap();
    assert_eq!((after.id, after.incarnation), (before.id, before.incarnation + 1));
    let told = |event: &Event| matches!(event, Event::Removed { .. });
    assert!(segment.events[&0].iter().any(told));
}

#[test]
fn a_new_machine_does_not_get_the_id_of_a_removed_one() {
    let mut segment = Segment::new(3, 4, 3, Weather::default());
    (0..3).for_each(|at| segment.boot(at));
    segment.settle(20_000, "three");
    let id = segment.machines[1].past.last().unwrap().id;
    let barred = removal(&segment, 1, true);
    tell(&mut segment, 1, &barred);
    settle_without(&mut segment, 1);
    segment.boot(3);
    segment.run(6_000);
    let new = *segment.machines[3].past.last().unwrap();
    assert!(new.id != id && new.id == 3, "{new:?}");
}
