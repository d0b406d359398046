// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads results in the Test Anything Protocol, as the conformance program speaks it (version 14), and in the kernel's dialect,
//! KTAP (Documentation/dev-tools/ktap.rst), out of what a machine says on its console.

use crate::test::summary::{Outcome, Verdict};

/// A reader that is fed lines. Lines that are no results are ignored, so it can be fed a whole console.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    suite: String,
    /// Only results after a version line count.
    started: bool,
    /// How many results the outermost plan promises, and how many came.
    planned: Option<usize>,
    seen: usize,
    /// For each open level of nesting: its indentation and whether a result in it failed.
    levels: Vec<(usize, bool)>,
    /// Diagnostics since the last result: in KTAP they come before it.
    diagnostics: Vec<String>,
    kernel_dialect: bool,
    outcomes: Vec<Outcome>,
}

impl Reader {
    /// A reader whose results belong to `suite`.
    pub(crate) fn new(suite: &str) -> Self {
        Self { suite: suite.to_owned(), ..Self::default() }
    }

    /// Takes a line.
    pub(crate) fn line(&mut self, line: &str) {
        let line = without_timestamp(line).trim_end();
        let text = line.trim_start_matches(' ');
        let indent = line.len() - text.len();
        if indent == 0 && (text.starts_with("TAP version ") || text.starts_with("KTAP version ")) {
            self.close();
            self.started = true;
            self.kernel_dialect = text.starts_with('K');
        } else if !self.started {
        } else if let Some(reason) = text.strip_prefix("Bail out!") {
            self.push("Bail out!", Verdict::Failed(reason.trim().to_owned()));
        } else if let Some(count) = text.strip_prefix("1..").and_then(|rest| rest.parse().ok()) {
            if indent == 0 {
                self.planned = Some(count);
            }
        } else if let Some((passed, name, directive)) = result(text) {
            self.result(indent, passed, name, directive);
        } else if text.starts_with("# Subtest:") {
            self.diagnostics.clear();
        } else if let Some(diagnostic) = text.strip_prefix('#') {
            self.diagnostic(diagnostic.trim());
        }
    }

    fn result(&mut self, indent: usize, passed: bool, name: &str, directive: &str) {
        // Results that are indented deeper than this one are what this one sums up.
        let mut children = false;
        let mut child_failed = false;
        while self.levels.last().is_some_and(|(level, _)| *level > indent) {
            children = true;
            child_failed |= self.levels.pop().is_some_and(|(_, failed)| failed);
        }
        match self.levels.last_mut() {
            Some((level, failed)) if *level == indent => *failed |= !passed,
            _ => self.levels.push((indent, !passed)),
        }
        self.seen += usize::from(indent == 0);
        let diagnostics = std::mem::take(&mut self.diagnostics);
        let skipped = directive.get(..4).is_some_and(|word| word.eq_ignore_ascii_case("skip"));
        if children && (passed || child_failed) {
            return;
        }
        let verdict = match (passed, skipped) {
            (_, true) => Verdict::Skipped,
            (true, false) => Verdict::Passed,
            (false, false) if self.kernel_dialect => Verdict::Failed(diagnostics.join("\n")),
            (false, false) => Verdict::Failed(String::new()),
        };
        self.push(name, verdict);
    }

    fn diagnostic(&mut self, text: &str) {
        if self.kernel_dialect {
            self.diagnostics.push(text.to_owned());
        } else if let Some(Outcome { verdict: Verdict::Failed(why), .. }) = self.outcomes.last_mut()
        {
            if !why.is_empty() {
                why.push('\n');
            }
            why.push_str(text);
        }
    }

    fn push(&mut self, name: &str, verdict: Verdict) {
        self.outcomes.push(Outcome { suite: self.suite.clone(), name: name.to_owned(), verdict });
    }

    /// Ends a block: results that were promised and did not come are failures.
    fn close(&mut self) {
        if let Some(planned) = self.planned.take() {
            if self.seen < planned {
                let why = format!("{} of {planned} results are missing", planned - self.seen);
                self.push("plan", Verdict::Failed(why));
            }
        } else if self.started {
            self.push("plan", Verdict::Failed("how many results were to come was not said".into()));
        }
        self.seen = 0;
        self.levels.clear();
        self.diagnostics.clear();
    }

    /// All results. If there was no report at all, that is a failure.
    pub(crate) fn finish(mut self) -> Vec<Outcome> {
        self.close();
        if !self.started {
            self.push("report", Verdict::Failed("no results were reported".into()));
        }
        self.outcomes
    }
}

/// A line of the kernel's log without `[    1.234567] ` in front.
fn without_timestamp(line: &str) -> &str {
    let Some((stamp, rest)) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) else {
        return line;
    };
    let is_time =
        !stamp.is_empty() && stamp.chars().all(|c| c.is_ascii_digit() || c == '.' || c == ' ');
    if is_time {
        rest.strip_prefix(' ').unwrap_or(rest)
    } else {
        line
    }
}

/// Splits `ok 3 - name # directive`.
fn result(text: &str) -> Option<(bool, &str, &str)> {
    let (passed, rest) = match text.strip_prefix("not ok") {
        Some(rest) => (false, rest),
        None => (true, text.strip_prefix("ok")?),
    };
    let rest = rest.strip_prefix(' ')?;
    let (number, name) = rest.split_once(' ').unwrap_or((rest, ""));
    number.parse::<u32>().ok()?;
    let (name, directive) = name.split_once('#').unwrap_or((name, ""));
    let name = name.trim();
    Some((passed, name.strip_prefix("- ").unwrap_or(name), directive.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, Verdict)> {
        let mut reader = Reader::new("test");
        text.lines().for_each(|line| reader.line(line));
        reader.finish().into_iter().map(|outcome| (outcome.name, outcome.verdict)).collect()
    }

    fn passed(name: &str) -> (String, Verdict) {
        (name.to_owned(), Verdict::Passed)
    }

    fn failed(name: &str, why: &str) -> (String, Verdict) {
        (name.to_owned(), Verdict::Failed(why.to_owned()))
    }

    #[test]
    fn a_report_on_a_console() {
        let text = "[    0.1] Linux version\nok 9 before any report\nTAP version 14\n1..3\nok 1 - bind # 12 ms\n\
                    [    2.5] some driver said something\nnot ok 2 - send\n# expected 3\n# got 4\nok 3 - poll # SKIP too slow\n\
                    dvs: run: exit status 1\n";
        assert_eq!(
            read(text),
            [
                passed("bind"),
                failed("send", "expected 3\ngot 4"),
                ("poll".into(), Verdict::Skipped)
            ]
        );
    }

    #[test]
    fn the_kernels_nested_results_count_at_the_leaves() {
        let text = "[    0.9] KTAP version 1\n[    0.9] 1..2\n[    0.9]     KTAP version 1\n[    0.9]     # Subtest: dvk\n\
                    [    0.9]     1..2\n[    0.9]     ok 1 slots\n[    0.9]     # list: ASSERTION FAILED at dvk_main.rs:7\n\
                    [    0.9]     not ok 2 list\n[    0.9] # dvk: pass:1 fail:1 skip:0 total:2\n[    0.9] not ok 1 dvk\n\
                    [    0.9]     ok 1 frame\n[    0.9] ok 2 dvk_net\n";
        assert_eq!(
            read(text),
            [
                passed("slots"),
                failed("list", "list: ASSERTION FAILED at dvk_main.rs:7"),
                passed("frame")
            ]
        );
    }

    #[test]
    fn a_suite_that_fails_although_its_tests_passed_is_a_failure() {
        let text = "KTAP version 1\n1..1\n    ok 1 a\n# dvk: init failed\nnot ok 1 dvk\n";
        assert_eq!(read(text), [passed("a"), failed("dvk", "dvk: init failed")]);
    }

    #[test]
    fn silence_and_broken_promises_are_failures() {
        assert_eq!(read("Linux\n"), [failed("report", "no results were reported")]);
        assert_eq!(
            read("TAP version 14\n1..4\nok 1 - a\n"),
            [passed("a"), failed("plan", "3 of 4 results are missing")]
        );
        assert_eq!(
            read("TAP version 14\n1..1\nBail out! no /dev/dvk\n"),
            [failed("Bail out!", "no /dev/dvk"), failed("plan", "1 of 1 results are missing")]
        );
    }

    #[test]
    fn a_kernel_without_tests_of_ours_reports_none() {
        assert_eq!(read("KTAP version 1\n1..0\n"), []);
    }
}
