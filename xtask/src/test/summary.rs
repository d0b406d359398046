// SPDX-License-Identifier: MIT OR Apache-2.0
//! Results of tests, whatever ran them, and the lines that end a test run.

use std::fmt::Write as _;

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As it should.
    Passed,
    /// Otherwise, and what is known about it.
    Failed(String),
    /// It was not run; it counts neither way.
    Skipped,
}

/// The result of one test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// What the test belongs to, such as `host` or `conformance`.
    pub(crate) suite: String,
    /// Its name there.
    pub(crate) name: String,
    /// How it ended.
    pub(crate) verdict: Verdict,
}

impl Outcome {
    /// The outcome of a test that is a single yes or no.
    pub(crate) fn of(suite: &str, name: &str, result: Result<(), String>) -> Self {
        let verdict = result.map_or_else(Verdict::Failed, |()| Verdict::Passed);
        Self { suite: suite.to_owned(), name: name.to_owned(), verdict }
    }
}

/// The results of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Summary {
    outcomes: Vec<Outcome>,
}

impl Summary {
    /// Adds results.
    pub(crate) fn extend(&mut self, outcomes: impl IntoIterator<Item = Outcome>) {
        self.outcomes.extend(outcomes);
    }

    fn count(&self, wanted: impl Fn(&Verdict) -> bool) -> usize {
        self.outcomes.iter().filter(|outcome| wanted(&outcome.verdict)).count()
    }

    fn failed(&self) -> usize {
        self.count(|verdict| matches!(verdict, Verdict::Failed(_)))
    }

    /// Whether something was tested and all of it passed.
    pub(crate) fn is_success(&self) -> bool {
        self.failed() == 0 && self.count(|verdict| *verdict == Verdict::Passed) > 0
    }

    /// Counts in the form that ends a run.
    pub(crate) fn counts(&self) -> String {
        let passed = self.count(|verdict| *verdict == Verdict::Passed);
        format!("{passed} passed, {} failed", self.failed())
    }

    /// What to print at the end: each failure with what is known about it, and, alone on the last line, the counts.
    pub(crate) fn report(&self) -> String {
        let mut text = String::new();
        for outcome in &self.outcomes {
            if let Verdict::Failed(why) = &outcome.verdict {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "failed: {}: {}", outcome.suite, outcome.name);
                for line in why.lines() {
                    let _ = writeln!(text, "    {line}");
                }
            }
        }
        let skipped = self.count(|verdict| *verdict == Verdict::Skipped);
        if skipped > 0 {
            let _ = writeln!(text, "{skipped} skipped");
        }
        let _ = writeln!(text, "{}", self.counts());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_stand_alone_on_the_last_line() {
        let mut summary = Summary::default();
        summary.extend([
            Outcome::of("host", "a", Ok(())),
            Outcome::of("host", "b", Err("left: 1\nright: 2".into())),
            Outcome { suite: "kernel".into(), name: "c".into(), verdict: Verdict::Skipped },
        ]);
        assert_eq!(
            summary.report(),
            "failed: host: b\n    left: 1\n    right: 2\n1 skipped\n1 passed, 1 failed\n"
        );
        assert!(!summary.is_success());
    }

    #[test]
    fn nothing_tested_is_no_success() {
        assert!(!Summary::default().is_success());
        assert_eq!(Summary::default().report(), "0 passed, 0 failed\n");
        let mut summary = Summary::default();
        summary.extend([Outcome::of("host", "a", Ok(()))]);
        assert!(summary.is_success());
    }
}
