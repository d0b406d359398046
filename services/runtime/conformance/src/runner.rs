// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs cases one after the other and reports in the Test Anything Protocol, version 14.

use std::io::{stdout, Write};
use std::time::Instant;

use anyhow::{bail, Result};

use crate::bench::Bench;
use crate::cases::CASES;
use crate::traces::Traces;

/// Runs the cases that match `only`, all without it, and says whether all passed.
pub(crate) fn run(only: Option<&glob::Pattern>, node: u32) -> Result<bool> {
    let chosen: Vec<_> =
        CASES.iter().filter(|(name, _)| only.is_none_or(|only| only.matches(name))).collect();
    if chosen.is_empty() {
        bail!("running cases: none matches");
    }
    say(&format!("TAP version 14\n1..{}\n", chosen.len()))?;
    let bench = Bench::new(node)?;
    let mut failed = 0;
    for (number, (name, case)) in chosen.iter().enumerate() {
        let number = number + 1;
        let begin = Instant::now();
        let before = Traces::taken()?;
        let result = case(&bench).and_then(|()| {
            // Whatever a case is about, nothing of its containers may be left.
            bench.sweep()?;
            before.equal(&Traces::taken()?)
        });
        let time_ms = begin.elapsed().as_millis();
        match result {
            Ok(()) => say(&format!("ok {number} - {name} # {time_ms} ms\n"))?,
            Err(error) => {
                failed += 1;
                say(&format!("not ok {number} - {name}\n"))?;
                for line in format!("{error:#}").lines() {
                    say(&format!("# {line}\n"))?;
                }
                // So that the next one begins without it.
                let _ = bench.sweep();
            }
        }
    }
    Ok(failed == 0)
}

fn say(text: &str) -> Result<()> {
    let mut stdout = stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}
