// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many runs, each from a seed.

use std::future::Future;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::LocalSet;

/// Runs something on a clock that goes on when nothing else does.
pub(crate) fn on_paused_clock<T>(run: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, run)
}

/// Runs `simulate` with these seeds, or with those of `DVS_SEEDS`; gives how many operations of all were acknowledged, how many were left
/// without an answer, and how many seeds there were.
pub(crate) fn seeds<F: Future<Output = (u64, u64)>>(
    usual: Range<u64>,
    simulate: impl Fn(u64) -> F + Sync,
) -> (u64, u64, u64) {
    let seeds = std::env::var("DVS_SEEDS").ok().map(|range| {
        let (first, end) = range.split_once("..").expect("DVS_SEEDS is FIRST..END");
        first.parse().unwrap()..end.parse().unwrap()
    });
    let seeds = seeds.unwrap_or(usual);
    let next = AtomicU64::new(seeds.start);
    let totals = std::thread::scope(|scope| {
        let work = || {
            let mut totals = (0, 0);
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds.end {
                    return totals;
                }
                let one = std::panic::AssertUnwindSafe(|| on_paused_clock(simulate(seed)));
                let Ok((acknowledged, unknown)) = std::panic::catch_unwind(one) else {
                    panic!("seed {seed} failed; repeat it with DVS_SEEDS={seed}..{}", seed + 1);
                };
                totals = (totals.0 + acknowledged, totals.1 + unknown);
            }
        };
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let sum = |of: fn(&(u64, u64)) -> u64| totals.iter().map(of).sum::<u64>();
    let (acknowledged, unknown) = (sum(|t| t.0), sum(|t| t.1));
    println!("{acknowledged} operations acknowledged, {unknown} without an answer");
    (acknowledged, unknown, seeds.end - seeds.start)
}
