// SPDX-License-Identifier: MIT OR Apache-2.0
//! Failure detection on a simulated network: the daemon's code, with time, network and entropy that follow
//! from a seed. `DVS_SEEDS=0..2000` tries other seeds than usual.

#[expect(unreachable_pub, reason = "a test and the figures share it")]
mod segment;

use std::ops::Range;

use dvsd::membership::swim::record::Health;
use dvsd::membership::swim::{Standing, Tuning};
use segment::{Segment, Weather};

fn seeds(usual: Range<u64>) -> Range<u64> {
    let Ok(text) = std::env::var("DVS_SEEDS") else { return usual };
    let parsed =
        text.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    parsed.unwrap_or_else(|| panic!("DVS_SEEDS is {text}, not like 0..2000"))
}

fn weather(seed: u64) -> Weather {
    match seed % 4 {
        0 => Weather { delay_ms: 2, ..Weather::default() },
        1 => Weather { loss_percent: 5, duplicate_percent: 1, delay_ms: 10 },
        2 => Weather { loss_percent: 10, duplicate_percent: 10, delay_ms: 60 },
        _ => Weather { loss_percent: 20, duplicate_percent: 25, delay_ms: 30 },
    }
}

/// Each with every other seed.
const TUNINGS: [Tuning; 2] = [Tuning::BARE_METAL, Tuning::VIRTUAL];

fn booted(seed: u64, count: usize, weather: Weather) -> Segment {
    let tuning = TUNINGS[seed as usize / 4 % 2];
    booted_with(seed, count, weather, tuning)
}

fn booted_with(seed: u64, count: usize, weather: Weather, tuning: Tuning) -> Segment {
    let mut segment = Segment::new(seed, count, weather, tuning, 100);
    segment.boot(0, None);
    for at in 1..count {
        let entry = segment.random.below(at as u64) as usize;
        segment.boot(at, Some(entry));
    }
    segment.settle(30_000, &format!("seed {seed}: boot"));
    segment.events.clear();
    segment
}

#[test]
fn whatever_happens_to_five_nodes_they_agree_once_it_is_over() {
    for seed in seeds(0..300) {
        let mut segment = booted(seed, 5, weather(seed));
        for _ in 0..12 {
            let at = segment.random.below(5) as usize;
            let other = (at + 1 + segment.random.below(4) as usize) % 5;
            let live = |segment: &Segment, at: usize| segment.machines[at].node.is_some();
            match segment.random.below(7) {
                0 | 1 if live(&segment, at) => segment.halt(at),
                0 | 1 => segment.boot(at, Some(other).filter(|other| live(&segment, *other))),
                2 => _ = segment.cut.insert((at, other)),
                3 => segment.part = (0..5).map(|_| segment.random.below(2) as u8).collect(),
                4 => {
                    segment.cut.clear();
                    segment.part = vec![0; 5];
                }
                5 => segment.machines[at].stalled_until_ms = segment.now_ms + 3_000,
                _ => {
                    if let Some(node) = &mut segment.machines[at].node {
                        node.tell(&[seed as u8; 50]);
                    }
                }
            }
            let pause = segment.random.below(4_000);
            segment.run(pause);
        }
        segment.cut.clear();
        segment.part = vec![0; 5];
        for at in 0..5 {
            if segment.machines[at].node.is_none() {
                let entry = (0..5).find(|at| segment.machines[*at].node.is_some());
                segment.boot(at, entry);
            }
        }
        meet_strangers(&mut segment);
        segment.settle(60_000, &format!("seed {seed}"));
    }
}

/// Discovery is by beacons: those who never met anybody in common hear of each other by these.
fn meet_strangers(segment: &mut Segment) {
    let own: Vec<_> =
        segment.machines.iter().map(|m| m.node.as_ref().unwrap().own().clone()).collect();
    let now_ms = segment.now_ms;
    for machine in &mut segment.machines {
        let node = machine.node.as_mut().unwrap();
        own.iter().for_each(|record| node.meet(now_ms, record.clone()));
    }
}

#[test]
fn a_dead_node_is_noticed_in_time_and_nobody_else_is_taken_for_dead() {
    for seed in seeds(0..60) {
        let weather = Weather { loss_percent: 2, duplicate_percent: 1, delay_ms: 10 };
        let mut segment = booted(seed, 5, weather);
        segment.run(60_000);
        assert_eq!(segment.downs().next(), None, "seed {seed}");
        segment.halt(2);
        segment.settle(5_000, &format!("seed {seed}: death"));
        assert!(segment.downs().all(|(_, _, whom)| whom == 2), "seed {seed}");
    }
}

#[test]
fn a_node_that_stands_still_for_a_second_is_not_taken_for_dead_and_takes_nobody_for_dead() {
    for seed in seeds(0..60) {
        let mut segment = booted_with(seed, 5, weather(0), Tuning::VIRTUAL);
        for at in 0..5 {
            segment.machines[at].stalled_until_ms = segment.now_ms + 1_000;
            let pause = 2_500 + segment.random.below(1_000);
            segment.run(pause);
        }
        assert_eq!(segment.downs().next(), None, "seed {seed}");
    }
}

#[test]
fn where_frames_pass_one_way_only_both_ends_see_the_other_unreachable_and_nobody_else_does() {
    for seed in seeds(0..60) {
        let mut segment = booted(seed, 4, weather(seed % 2));
        segment.cut.insert((2, 1));
        segment.settle(6_000, &format!("seed {seed}: cut"));
        assert!(segment.downs().all(|(_, by, whom)| [(1, 2), (2, 1)].contains(&(by, whom))));
        segment.run(10_000);
        for (at, other) in [(1, 2), (2, 1)] {
            let node = segment.machines[at].node.as_ref().unwrap();
            assert_eq!(node.standing(other), Some(Standing::Unreachable), "seed {seed}");
        }
        segment.cut.clear();
        segment.settle(6_000, &format!("seed {seed}: healed"));
    }
}

#[test]
fn halves_that_lose_each_other_are_down_to_each_other_and_come_back() {
    for seed in seeds(0..60) {
        let mut segment = booted(seed, 6, weather(seed % 3));
        segment.part = vec![0, 0, 0, 1, 1, 1];
        segment.settle(10_000, &format!("seed {seed}: apart"));
        segment.part = vec![0; 6];
        segment.settle(20_000, &format!("seed {seed}: together"));
    }
}

#[test]
fn who_says_goodbye_has_left_and_is_not_down() {
    for seed in seeds(0..60) {
        let mut segment = booted(seed, 5, weather(seed % 2));
        segment.machines[3].node.as_mut().unwrap().leave();
        segment.run(1_000);
        segment.halt(3);
        segment.settle(6_000, &format!("seed {seed}"));
        assert_eq!(segment.downs().next(), None, "seed {seed}");
        let node = segment.machines[0].node.as_ref().unwrap();
        assert_eq!(node.standing(3), Some(Standing::Left), "seed {seed}");
        segment.boot(3, Some(0));
        segment.settle(10_000, &format!("seed {seed}: again"));
    }
}

#[test]
fn what_was_agreed_to_be_removed_is_heard_of_no_more_until_it_is_new() {
    let mut segment = booted(1, 4, weather(0));
    segment.halt(3);
    segment.settle(5_000, "down");
    let seat = segment.machines[0].node.as_ref().unwrap().others().last().unwrap().claim.seat;
    for at in 0..2 {
        segment.machines[at].node.as_mut().unwrap().forget(seat);
    }
    // Node 2 has not heard of it yet, and goes on telling.
    segment.run(20_000);
    for at in 0..2 {
        assert_eq!(segment.machines[at].node.as_ref().unwrap().standing(3), None);
    }
    segment.boot(3, Some(0));
    segment.settle(10_000, "new");
}

#[test]
fn who_slept_through_a_contradiction_gives_the_suspect_its_time_again() {
    for seed in seeds(0..20) {
        let mut segment = booted(seed, 4, weather(0));
        let mut asleep = segment.machines[0].node.take();
        let node = asleep.as_mut().unwrap();
        let mut suspect = node.others().find(|r| r.claim.seat.id == 2).unwrap().clone();
        suspect.claim.health = Health::Suspect;
        node.meet(segment.now_ms, suspect);
        // Whatever is sent to it meanwhile is lost.
        segment.run(10_000);
        segment.events.clear();
        segment.machines[0].node = asleep;
        segment.settle(6_000, &format!("seed {seed}: awake"));
        let wrong = segment.downs().find(|(_, by, whom)| (*by, *whom) == (0, 2));
        assert_eq!(wrong, None, "seed {seed}");
    }
}

#[test]
fn more_nodes_than_one_datagram_holds_join_fail_and_come_back() {
    let weather = Weather { loss_percent: 2, duplicate_percent: 1, delay_ms: 10 };
    let mut segment = booted(1, 80, weather);
    (0..80).step_by(10).for_each(|at| segment.halt(at));
    segment.settle(10_000, "a tenth fails");
    (0..80).step_by(10).for_each(|at| segment.boot(at, Some(at + 1)));
    segment.settle(30_000, "they come back");
}

#[test]
fn what_one_member_tells_another_one_aside_arrives_there_and_nowhere_else() {
    for seed in seeds(0..60) {
        let mut segment = booted(seed, 5, weather(seed));
        let told =
            |from: usize, to: usize, round: u8| [1 + from as u8, to as u8, round, 0, 0, 0, 0, 9];
        for round in 0..3 {
            for from in 0..5 {
                for to in (0..5).filter(|to| *to != from) {
                    let node = segment.machines[from].node.as_mut().unwrap();
                    node.tell_aside(to as u16, told(from, to, round));
                }
            }
            let pause = segment.random.below(1_500);
            segment.run(pause);
        }
        // Who restarts has forgotten all, and is told again.
        segment.halt(3);
        segment.run(500);
        segment.boot(3, Some(0));
        segment.settle(30_000, &format!("seed {seed}"));
        segment.run(6_000);
        for to in 0..5 {
            let node = segment.machines[to].node.as_ref().unwrap();
            for from in (0..5).filter(|from| *from != to && *from != 3) {
                assert_eq!(node.aside(from as u16), told(from, to, 2), "seed {seed}: {from}, {to}");
            }
            assert!(
                to == 3 || node.aside(3) == [0; 8],
                "seed {seed}: its later run has told nothing"
            );
        }
    }
}

#[test]
fn who_hears_a_beacon_of_one_it_holds_to_be_down_has_it_contradict_at_once() {
    let mut segment = booted(2, 5, weather(0));
    segment.part = vec![0, 0, 0, 0, 1];
    segment.settle(10_000, "apart");
    segment.part = vec![0; 5];
    let record = segment.machines[4].node.as_ref().unwrap().own().clone();
    let now_ms = segment.now_ms;
    segment.machines[0].node.as_mut().unwrap().overhear(now_ms, record);
    segment.run(100);
    let node = segment.machines[0].node.as_ref().unwrap();
    assert_eq!(node.standing(4), Some(Standing::Alive));
}
