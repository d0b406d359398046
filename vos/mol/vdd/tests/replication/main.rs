// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole devices simulated: replicas that are killed, cut off, stopped and started again at any point while clients
//! write and read. Nothing that was answered or read is ever taken back, and in the end all replicas are equal.
//!
//! `MOL_VDD_SEEDS=10000` plays that many runs of each kind, and `MOL_VDD_SEED=7` one, and tells
//! what happens.

mod chance;
mod disk;
mod history;
mod rules;
mod world;

use world::{Counts, Plan, World};

fn seeds() -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    match (number("MOL_VDD_SEED"), number("MOL_VDD_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => 0..count.unwrap_or(50),
    }
}

/// Plays runs and adds up what they had, so that a test can say that it tested something.
fn play(plan: Plan) -> Counts {
    let mut sum = Counts::default();
    for seed in seeds() {
        let plan = Plan { seed, tells: std::env::var_os("MOL_VDD_SEED").is_some(), ..plan };
        match World::new(plan).play() {
            Ok(counts) => {
                assert_eq!(counts.repairs, 0, "{plan:?}: blocks were taken to differ");
                sum.add(counts);
            }
            Err(text) => panic!("{plan:?}: {text}"),
        }
    }
    println!("{sum}");
    sum
}

const PLAN: Plan =
    Plan { seed: 0, replicas: 2, lasts: true, faults_ms: 8000, blackouts: false, tells: false };

#[test]
fn a_primary_and_a_backup_on_disks_lose_nothing() {
    let counts = play(PLAN);
    assert!(counts.answered_writes > 0 && counts.reads > 0 && counts.part_fills > 0, "{counts}");
}

#[test]
fn a_primary_and_two_backups_on_disks_lose_nothing() {
    let counts = play(Plan { replicas: 3, ..PLAN });
    assert!(counts.answered_writes > 0 && counts.reads > 0 && counts.part_fills > 0, "{counts}");
}

#[test]
fn a_primary_and_two_backups_in_memory_lose_nothing() {
    let counts = play(Plan { replicas: 3, lasts: false, ..PLAN });
    assert!(counts.answered_writes > 0 && counts.reads > 0, "{counts}");
}

#[test]
fn a_scrub_finds_blocks_that_differ_and_mends_them() {
    let counts = World::new(Plan { replicas: 3, ..PLAN }).play_scrub().unwrap();
    // The two blocks of one region are one repair.
    assert_eq!(counts.repairs, 2, "{counts}");
}

#[test]
fn what_was_flushed_survives_the_loss_of_all_power() {
    let counts = play(Plan { replicas: 3, blackouts: true, ..PLAN });
    assert!(counts.flushes > 0 && counts.blackouts > 0, "{counts}");
}
