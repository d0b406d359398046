// SPDX-License-Identifier: MIT OR Apache-2.0
//! What cases say about results. An unexpected one ends the case with what was expected instead.

use crate::wish::Failed;
use anyhow::{bail, ensure, Result};
use core::fmt::{Debug, Display};
use dvk::Errno;

/// What tells why a call failed.
pub(crate) trait Reason: Display {
    /// Why it failed, if it is one of the DVK's reasons.
    fn reason(&self) -> Option<Errno>;
}

impl Reason for dvk::Error {
    fn reason(&self) -> Option<Errno> {
        self.errno()
    }
}

impl Reason for Failed {
    fn reason(&self) -> Option<Errno> {
        self.errno()
    }
}

/// The call failed, for this reason.
pub(crate) fn fails<T: Debug>(
    what: &str,
    result: Result<T, impl Reason>,
    expected: Errno,
) -> Result<()> {
    match result {
        Err(error) if error.reason() == Some(expected) => Ok(()),
        Err(error) => bail!("{what}: expected {expected}, got: {error}"),
        Ok(value) => bail!("{what}: expected {expected}, but it succeeded with {value:?}"),
    }
}

/// The raw call failed, for this reason.
pub(crate) fn refused(
    what: &str,
    result: Result<(), rustix::io::Errno>,
    expected: Errno,
) -> Result<()> {
    match result {
        Err(error) if error.raw_os_error() == i32::from(expected.raw()) => Ok(()),
        Err(error) => bail!("{what}: expected {expected}, got: {error}"),
        Ok(()) => bail!("{what}: expected {expected}, but it succeeded"),
    }
}

/// The two are equal.
pub(crate) fn equal<T: PartialEq + Debug>(what: &str, got: T, expected: T) -> Result<()> {
    ensure!(got == expected, "{what}: expected {expected:?}, got {got:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_expected_error_passes() {
        let missing = || dvk::Control::open_at("/nonexistent").map(drop);
        assert!(fails("open", missing(), Errno::Stale).is_err());
        assert!(fails("open", Ok::<(), dvk::Error>(()), Errno::Stale).is_err());
        let refuse = |errno| refused("call", Err(errno), Errno::Stale);
        assert!(refuse(rustix::io::Errno::STALE).is_ok());
        assert!(refuse(rustix::io::Errno::INVAL).is_err());
        assert!(refused("call", Ok(()), Errno::Stale).is_err());
        assert!(equal("n", 1, 2).is_err() && equal("n", 1, 1).is_ok());
    }
}
