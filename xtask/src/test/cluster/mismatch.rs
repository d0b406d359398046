// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a failed scenario says.

use std::fmt;

/// A step of a scenario that went otherwise than it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// What was being done.
    pub(crate) step: String,
    /// What should have come of it.
    pub(crate) expected: String,
    /// What did.
    pub(crate) came: String,
}

impl Mismatch {
    pub(crate) fn new(
        step: impl Into<String>,
        expected: impl Into<String>,
        came: impl fmt::Display,
    ) -> Self {
        Self { step: step.into(), expected: expected.into(), came: came.to_string() }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "step:     {}", self.step)?;
        writeln!(f, "expected: {}", self.expected)?;
        write!(f, "came:     {}", self.came.trim_end().replace('\n', "\n          "))
    }
}

impl std::error::Error for Mismatch {}

/// Fails a step unless `holds`.
pub(super) fn expect(
    holds: bool,
    step: &str,
    expected: &str,
    came: impl fmt::Display,
) -> Result<(), Mismatch> {
    if holds {
        Ok(())
    } else {
        Err(Mismatch::new(step, expected, came))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mismatch_shows_its_three_parts_aligned() {
        let mismatch = expect(false, "list the nodes", "4 nodes", "3 nodes\nor so\n").unwrap_err();
        assert_eq!(
            mismatch.to_string(),
            "step:     list the nodes\nexpected: 4 nodes\ncame:     3 nodes\n          or so"
        );
        assert_eq!(expect(true, "", "", ""), Ok(()));
    }
}
