// SPDX-License-Identifier: MIT OR Apache-2.0
//! Code that the kernel shares with the host, fuzzed on the host.

use std::time::Instant;

use anyhow::{Context, Result};
use dvk_fuzz::host::TARGETS;

use crate::step::Session;

/// Arguments of a target on the host.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many calls at least
    #[arg(long, default_value_t = 1_000_000)]
    calls: u64,
    /// What the input is made of
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The first case, to repeat what was found
    #[arg(long, value_name = "CASE", default_value_t = 0)]
    from: u64,
}

/// Fuzzes the target `name` and prints what happened; says whether nothing was found.
///
/// # Errors
/// When there is no such target.
pub(super) fn run(name: &str, arguments: &Arguments, session: &Session) -> Result<bool> {
    let target = TARGETS.iter().find(|target| target.name == name);
    let target = target.with_context(|| format!("there is no target {name}"))?;
    let mut step = session.begin("fuzz", &format!("fuzzing {name}"))?;
    let started = Instant::now();
    let mut told = started;
    let Arguments { calls, seed, from } = *arguments;
    let (counts, finding) = target.run(seed, from, calls, |made| {
        if told.elapsed().as_secs() >= 5 {
            told = Instant::now();
            step.now(&format!("fuzzing {name}: {made} calls"));
        }
    });
    let seconds = started.elapsed().as_secs_f64();
    step.finish(&format!("{} calls were made", counts.calls));
    for (result, count) in &counts.results {
        println!("{result:<44} {count:>9}");
    }
    if let Some(finding) = &finding {
        println!("found: {}", finding.what);
        println!("again: cargo xtask fuzz {name} --seed {seed} --from {} --calls 1", finding.case);
    }
    println!(
        "fuzz {name}, seed {seed}: {} calls in {seconds:.0} s, {} kinds of results: {}",
        counts.calls,
        counts.results.len(),
        if finding.is_none() { "nothing found" } else { "1 finding" }
    );
    Ok(finding.is_none())
}
