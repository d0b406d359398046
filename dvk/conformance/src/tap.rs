// SPDX-License-Identifier: MIT OR Apache-2.0
//! The report: Test Anything Protocol, version 14.

use core::fmt::Write;

/// A report under way; each method gives the lines to print next.
#[derive(Debug, Default)]
pub(crate) struct Report {
    passed: usize,
    failed: usize,
}

impl Report {
    /// The head: version and plan.
    pub(crate) fn head(&self, cases: usize) -> String {
        format!("TAP version 14\n1..{cases}\n")
    }

    /// A case that passed.
    pub(crate) fn passed(&mut self, id: &str, time_ms: u128) -> String {
        self.passed += 1;
        format!("ok {} - {id} # {time_ms} ms\n", self.passed + self.failed)
    }

    /// A case that failed, and what is known about why.
    pub(crate) fn failed(&mut self, id: &str, why: &str) -> String {
        self.failed += 1;
        let mut lines = format!("not ok {} - {id}\n", self.passed + self.failed);
        for line in why.lines() {
            // Writing to a string cannot fail.
            let _ = writeln!(lines, "# {line}");
        }
        lines
    }

    /// The last line. TAP has no word for it; to its readers it is a comment.
    pub(crate) fn tail(&self) -> String {
        format!("# {} passed, {} failed\n", self.passed, self.failed)
    }

    /// Why the rest of the cases is not run.
    pub(crate) fn bail_out(&self, why: &str) -> String {
        format!("Bail out! {}\n", why.lines().next().unwrap_or_default())
    }

    /// Whether no case failed.
    pub(crate) fn is_success(&self) -> bool {
        self.failed == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_as_tap() {
        let mut report = Report::default();
        let mut text = report.head(2);
        text += &report.passed("a-rule", 12);
        assert!(report.is_success());
        text += &report.failed("another-rule", "expected EAGAIN\ngot EINVAL");
        text += &report.tail();
        assert!(!report.is_success());
        let expected = "TAP version 14\n1..2\nok 1 - a-rule # 12 ms\nnot ok 2 - another-rule\n\
                        # expected EAGAIN\n# got EINVAL\n# 1 passed, 1 failed\n";
        assert_eq!(text, expected);
        assert_eq!(report.bail_out("no DVS\nat all"), "Bail out! no DVS\n");
    }
}
