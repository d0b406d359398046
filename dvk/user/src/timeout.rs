// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long a call may wait.

use core::fmt;
use core::time::Duration;

/// How long a call may wait. The kernel counts in nanoseconds, and a call never ends before its
/// time. MINIX 3 has no timeouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Timeout {
    /// Until it is over.
    Forever,
    /// Not at all: a call that would wait is `EAGAIN` instead.
    NoWait,
    /// This long, then `ETIMEDOUT`. Zero is [`NoWait`](Self::NoWait); what is beyond 292 years is
    /// cut to them.
    After(Duration),
}

impl Timeout {
    /// The value as [`Exchange::timeout_ns`](dvk_abi::ioctl::Exchange::timeout_ns) has it: in
    /// nanoseconds, negative for ever.
    pub fn as_ns(self) -> i64 {
        match self {
            Self::Forever => -1,
            Self::NoWait => 0,
            Self::After(duration) => i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX),
        }
    }

    /// The timeout of this many milliseconds.
    pub const fn from_millis(ms: u64) -> Self {
        Self::After(Duration::from_millis(ms))
    }
}

impl From<Duration> for Timeout {
    fn from(duration: Duration) -> Self {
        Self::After(duration)
    }
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forever => f.write_str("forever"),
            Self::NoWait => f.write_str("without waiting"),
            Self::After(duration) => write!(f, "within {duration:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_the_abi() {
        assert_eq!(Timeout::Forever.as_ns(), -1);
        assert_eq!(Timeout::NoWait.as_ns(), 0);
        assert_eq!(Timeout::After(Duration::ZERO).as_ns(), 0);
        assert_eq!(Timeout::from_millis(3).as_ns(), 3_000_000);
        assert_eq!(Timeout::After(Duration::from_nanos(1)).as_ns(), 1);
        assert_eq!(Timeout::After(Duration::MAX).as_ns(), i64::MAX);
    }
}
