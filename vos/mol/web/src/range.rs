// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which bytes of a file are asked for (RFC 9110, section 14).

/// What a `Range` comes to for a file of a certain length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All of it: nothing else was asked for, or what a server may pass over, such as several ranges.
    Whole,
    /// The bytes from `first` to `last`, both of which it has.
    Part {
        /// The first byte.
        first: u64,
        /// The last one.
        last: u64,
    },
    /// It has none of the bytes.
    Unsatisfiable,
}

impl Selection {
    /// What this value of the header asks for of a file of `length` bytes.
    ///
    /// A value that has no sense is passed over, as the RFC wants it for units that are not known. So are several ranges: a server may, and
    /// clients that ask for many small ones are rather up to no good.
    pub fn parse(value: &[u8], length: u64) -> Self {
        Self::of_one(value, length).unwrap_or(Self::Whole)
    }

    fn of_one(value: &[u8], length: u64) -> Option<Self> {
        let value = core::str::from_utf8(value).ok()?;
        let (unit, set) = value.split_once('=')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (first, last) = set.trim_matches([' ', '\t']).split_once('-')?;
        if first.is_empty() {
            let count = number(last)?;
            return Some(match (count, length) {
                (0, _) | (_, 0) => Self::Unsatisfiable,
                _ => Self::Part { first: length.saturating_sub(count), last: length - 1 },
            });
        }
        let first = number(first)?;
        let last = if last.is_empty() { u64::MAX } else { number(last)? };
        if last < first {
            return None;
        }
        match first < length {
            true => Some(Self::Part { first, last: last.min(length - 1) }),
            false => Some(Self::Unsatisfiable),
        }
    }
}

/// Digits and nothing else. What is more than any file has is as good as the most that a number can be.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::Selection::{self, *};
    use proptest::prelude::*;

    fn of(value: &str, length: u64) -> Selection {
        Selection::parse(value.as_bytes(), length)
    }

    #[test]
    fn the_examples_of_the_rfc() {
        let part = |first, last| Part { first, last };
        assert_eq!(of("bytes=0-499", 10_000), part(0, 499));
        assert_eq!(of("bytes=500-999", 10_000), part(500, 999));
        assert_eq!(of("bytes=-500", 10_000), part(9500, 9999));
        assert_eq!(of("bytes=9500-", 10_000), part(9500, 9999));
        assert_eq!(of("BYTES= 0-0 ", 10_000), part(0, 0), "a unit has no case");
        assert_eq!(of("bytes=-10001", 10_000), part(0, 9999), "all, if there are not so many");
        assert_eq!(of("bytes=9999-99999999999999999999999", 10_000), part(9999, 9999));
    }

    #[test]
    fn what_a_file_does_not_have_is_not_satisfiable() {
        for (value, length) in [
            ("bytes=10000-", 10_000),
            ("bytes=10000-10001", 10_000),
            ("bytes=-0", 10_000),
            ("bytes=0-", 0),
            ("bytes=-1", 0),
            ("bytes=99999999999999999999999-", 10_000),
        ] {
            assert_eq!(of(value, length), Unsatisfiable, "{value}");
        }
    }

    #[test]
    fn what_has_no_sense_is_passed_over() {
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=2-1",
            "bytes=a-",
            "bytes=+1-2",
            "bytes=1-2x",
            "bytes=0-0,2-2",
            "bytes=0-0,",
            "lines=1-2",
            "bytes=1 - 2",
            "bytes=--1",
            "bytes 1-2",
        ] {
            assert_eq!(of(value, 10), Whole, "{value}");
        }
        assert_eq!(Selection::parse(b"bytes=\xff-", 10), Whole);
    }

    proptest! {
        #[test]
        fn a_part_is_what_the_file_has_of_it(first in 0..30_u64, count in 0..30_u64, length in 0..30_u64) {
            let last = first + count;
            let had: Vec<_> = (first..=last).filter(|at| *at < length).collect();
            let expected = match (had.first(), had.last()) {
                (Some(first), Some(last)) => Part { first: *first, last: *last },
                _ => Unsatisfiable,
            };
            prop_assert_eq!(of(&format!("bytes={first}-{last}"), length), expected);
        }

        #[test]
        fn nothing_is_asked_for_that_is_not_there(value in "bytes=[0-9,-]{0,30}", length: u64) {
            if let Part { first, last } = of(&value, length) {
                prop_assert!(first <= last && last < length);
            }
        }
    }
}
