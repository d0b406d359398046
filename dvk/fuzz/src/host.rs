// SPDX-License-Identifier: MIT OR Apache-2.0
//! Targets that are fuzzed on the host: pure code, called with random input until enough calls were
//! made or one does what it must not.

use std::collections::BTreeMap;
use std::panic::{catch_unwind, AssertUnwindSafe};

use crate::rng::Rng;
use crate::{link, wire};

/// Something to fuzz.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Makes some calls; an error says what is wrong with what came of one.
    case: fn(&mut Rng, &mut Counts) -> Result<(), String>,
}

/// Every target.
pub const TARGETS: &[Target] =
    &[Target { name: "wire", case: wire::case }, Target { name: "link", case: link::case }];

/// How many calls there were, and how often each kind of result.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Calls.
    pub calls: u64,
    /// By what happened.
    pub results: BTreeMap<String, u64>,
}

impl Counts {
    /// Counts a call that had this result.
    pub fn call(&mut self, result: &str) {
        self.calls += 1;
        match self.results.get_mut(result) {
            Some(count) => *count += 1,
            None => drop(self.results.insert(result.to_owned(), 1)),
        }
    }
}

/// A case that went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its number, from which a run with the same seed can start.
    pub case: u64,
    /// What is wrong.
    pub what: String,
}

impl Target {
    /// Runs cases from number `first` on until `calls` were made, or to the first finding.
    /// `progress` is told the calls made, now and then.
    pub fn run(
        &self,
        seed: u64,
        first: u64,
        calls: u64,
        mut progress: impl FnMut(u64),
    ) -> (Counts, Option<Finding>) {
        let mut counts = Counts::default();
        let mut case = first;
        while counts.calls < calls {
            let mut rng = Rng::part(seed, case);
            let run = || (self.case)(&mut rng, &mut counts);
            let what = match catch_unwind(AssertUnwindSafe(run)) {
                Ok(Ok(())) => None,
                Ok(Err(what)) => Some(what),
                Err(panic) => Some(format!("it panicked: {}", message(panic.as_ref()))),
            };
            if let Some(what) = what {
                return (counts, Some(Finding { case, what }));
            }
            case += 1;
            if case.is_multiple_of(256) {
                progress(counts.calls);
            }
        }
        (counts, None)
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_repeated_by_its_seed() {
        for target in TARGETS {
            let run = |seed| target.run(seed, 0, 1_500, |_| {}).0.results;
            assert_eq!(run(1), run(1), "{}", target.name);
            assert_ne!(run(1), run(2), "{}", target.name);
        }
    }

    #[test]
    fn targets_reach_both_success_and_refusal() {
        for target in TARGETS {
            let (counts, finding) = target.run(5, 0, 8_000, |_| {});
            assert_eq!(finding, None, "{}", target.name);
            let refused = counts.results.keys().filter(|result| result.contains("refused"));
            let done = counts.results.keys().filter(|result| !result.contains("refused"));
            assert!(refused.count() >= 5, "{}: {:?}", target.name, counts.results);
            assert!(done.count() >= 5, "{}: {:?}", target.name, counts.results);
        }
    }

    #[test]
    fn what_goes_wrong_is_found_and_named() {
        fn case(rng: &mut Rng, counts: &mut Counts) -> Result<(), String> {
            counts.call("done");
            match rng.below(50) {
                0 => Err("a wrong answer".to_owned()),
                1 => panic!("a panic"),
                _ => Ok(()),
            }
        }
        let target = Target { name: "broken", case };
        let findings: Vec<_> =
            (0..20).filter_map(|seed| target.run(seed, 0, 1_000, |_| {}).1).collect();
        assert!(findings.iter().any(|finding| finding.what == "a wrong answer"));
        assert!(findings.iter().any(|finding| finding.what == "it panicked: a panic"));
        let finding = target.run(3, 0, 1_000, |_| {}).1.unwrap();
        let again = target.run(3, finding.case, 1, |_| {}).1.unwrap();
        assert_eq!(again, finding);
    }
}
