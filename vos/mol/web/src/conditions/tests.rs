// SPDX-License-Identifier: MIT OR Apache-2.0

use super::*;
use hyper::header::HeaderValue;
use proptest::prelude::*;

/// 1994-11-06 08:49:37, of which the RFC writes.
const THEN: u64 = 784_111_777;
const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

const VERSION: Version = Version { inode: 7, bytes: 100, modified: Duration::from_secs(THEN) };

fn at(seconds_later: u64) -> Validators {
    Validators::new(&VERSION, Duration::from_secs(THEN + seconds_later))
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let name: HeaderName = name.parse().unwrap();
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn judged(pairs: &[(&str, &str)]) -> Verdict {
    judge(&headers(pairs), true, &at(100), 100)
}

const WHOLE: Verdict = Verdict::Send(Selection::Whole);
const PART: Verdict = Verdict::Send(Selection::Part { first: 0, last: 9 });

#[test]
fn a_version_has_a_tag_and_a_date() {
    let validators = at(100);
    assert_eq!(validators.tag(), format!("\"7-64-{THEN:x}.0\""));
    assert_eq!(validators.modified(), DATE);
    let other = |version| Validators::new(&version, Duration::from_secs(THEN + 100)).tag();
    let nanos = VERSION.modified + Duration::from_nanos(1);
    for version in [
        Version { inode: 8, ..VERSION },
        Version { bytes: 101, ..VERSION },
        Version { modified: nanos, ..VERSION },
    ] {
        assert_ne!(other(version), validators.tag(), "{version:?}");
    }
}

#[test]
fn what_may_change_again_has_a_weak_tag() {
    assert!(at(0).tag().starts_with("W/\"") && at(1).tag().starts_with("W/\""));
    assert!(at(2).tag().starts_with('"'));
    // One from the future is not said to be, and is never settled.
    let early = Validators::new(&VERSION, Duration::from_secs(THEN - 1));
    assert_eq!((early.modified(), early.tag().starts_with("W/")), (BEFORE.to_owned(), true));
    let never = Version { modified: Duration::MAX, ..VERSION };
    assert!(Validators::new(&never, Duration::MAX).modified().contains("9999"));
}

#[test]
fn what_the_client_has_is_not_sent() {
    let tag = at(100).tag();
    let weak = format!("W/{tag}");
    let listed = format!("\"a,b\" , {weak},\"c\"");
    for value in [tag.as_str(), &weak, &listed, "*", " * "] {
        assert_eq!(judged(&[("if-none-match", value)]), Verdict::NotModified, "{value}");
    }
    for value in ["\"a\"", "", "a", "\"a", "\"\""] {
        assert_eq!(judged(&[("if-none-match", value)]), WHOLE, "{value}");
    }
    let two = [("if-none-match", "\"a\""), ("if-none-match", tag.as_str())];
    assert_eq!(judged(&two), Verdict::NotModified);
    for (date, expected) in
        [(DATE, Verdict::NotModified), (AFTER, Verdict::NotModified), (BEFORE, WHOLE), ("x", WHOLE)]
    {
        assert_eq!(judged(&[("if-modified-since", date)]), expected, "{date}");
    }
    // A tag is better than a date, which is not looked at then.
    assert_eq!(judged(&[("if-none-match", "\"a\""), ("if-modified-since", DATE)]), WHOLE);
}

#[test]
fn what_the_client_does_not_mean_is_not_sent() {
    let tag = at(100).tag();
    let weak = format!("W/{tag}");
    assert_eq!(judged(&[("if-match", &tag)]), WHOLE);
    assert_eq!(judged(&[("if-match", "*")]), WHOLE);
    for value in ["\"a\"", &weak, "", "a"] {
        assert_eq!(judged(&[("if-match", value)]), Verdict::Failed, "{value}");
    }
    let unsettled = at(0).tag();
    let judged_early = judge(&headers(&[("if-match", &unsettled)]), true, &at(0), 100);
    assert_eq!(judged_early, Verdict::Failed, "a weak tag is no good for a strong comparison");
    for (date, expected) in [(DATE, WHOLE), (AFTER, WHOLE), (BEFORE, Verdict::Failed), ("x", WHOLE)]
    {
        assert_eq!(judged(&[("if-unmodified-since", date)]), expected, "{date}");
    }
    assert_eq!(judged(&[("if-match", &tag), ("if-unmodified-since", BEFORE)]), WHOLE);
}

#[test]
fn conditions_are_judged_in_the_order_of_the_rfc() {
    let tag = at(100).tag();
    let (failed, range) = (("if-match", "\"a\""), ("range", "bytes=0-9"));
    let (none, if_range) = (("if-none-match", tag.as_str()), ("if-range", tag.as_str()));
    assert_eq!(judged(&[range, if_range, none, failed]), Verdict::Failed);
    assert_eq!(judged(&[range, if_range, none]), Verdict::NotModified);
    assert_eq!(judged(&[range, if_range]), PART);
}

#[test]
fn a_range_is_of_the_version_that_is_meant() {
    let range = ("range", "bytes=0-9");
    let tag = at(100).tag();
    let (weak, two) = (format!("W/{tag}"), format!("{tag}, {tag}"));
    assert_eq!(judged(&[range]), PART);
    for value in [tag.as_str(), DATE] {
        assert_eq!(judged(&[range, ("if-range", value)]), PART, "{value}");
        // It could have been changed again.
        let early = judge(&headers(&[range, ("if-range", value)]), true, &at(1), 100);
        assert_eq!(early, WHOLE, "{value}");
    }
    for value in [&weak, &two, "\"a\"", "*", "", AFTER, BEFORE] {
        assert_eq!(judged(&[range, ("if-range", value)]), WHOLE, "{value}");
    }
    let gone = [("range", "bytes=100-"), ("if-range", tag.as_str())];
    assert_eq!(judged(&gone), Verdict::Send(Selection::Unsatisfiable));
    let head = judge(&headers(&[range]), false, &at(100), 100);
    assert_eq!(head, WHOLE, "ranges are for GET");
}

proptest! {
    #[test]
    fn whatever_a_client_says_a_part_is_in_the_file(
        names in prop::collection::vec(0..6_usize, 0..6),
        values in prop::collection::vec("[\"W/,* a-c0-9=btyes]{0,20}", 6),
    ) {
        let all =
            ["if-match", "if-none-match", "if-range", "range", "if-modified-since", "if-unmodified-since"];
        let pairs: Vec<_> = names.iter().map(|at| (all[*at], values[*at].as_str())).collect();
        if let Verdict::Send(Selection::Part { first, last }) = judged(&pairs) {
            prop_assert!(first <= last && last < 100);
        }
    }
}
