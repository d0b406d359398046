// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether a file is sent, by what the client has of it (RFC 9110, section 13).

use crate::range::Selection;
use core::fmt;
use core::time::Duration;
use hyper::header::{self, HeaderMap, HeaderName};
use std::time::SystemTime;

/// How long after a change of a file it may be changed again without its time telling: MoL's file systems have times in
/// seconds.
const UNSETTLED: Duration = Duration::from_secs(2);

/// By what one version of a file is told from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// The number of its inode.
    pub inode: u64,
    /// How many bytes it has.
    pub bytes: u64,
    /// When its content was changed last, since 1970.
    pub modified: Duration,
}

/// What is said of a version to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validators {
    tag: Tag,
    /// When it was changed last, in whole seconds; never later than now.
    modified: SystemTime,
}

/// An entity tag.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tag {
    is_weak: bool,
    opaque: String,
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\"{}\"", if self.is_weak { "W/" } else { "" }, self.opaque)
    }
}

impl Validators {
    /// Those of a version that was seen at a time since 1970.
    ///
    /// The tag is weak while the file could be changed again within the resolution of its time, as Apache does it.
    pub fn new(version: &Version, now: Duration) -> Self {
        let Version { inode, bytes, modified } = version;
        let is_weak = now < modified.saturating_add(UNSETTLED);
        let opaque =
            format!("{inode:x}-{bytes:x}-{:x}.{:x}", modified.as_secs(), modified.subsec_nanos());
        let seconds = Duration::from_secs(modified.min(&now).as_secs());
        // No date of HTTP has more than four digits in its year.
        let last = Duration::from_secs(253_402_300_799);
        Self { tag: Tag { is_weak, opaque }, modified: SystemTime::UNIX_EPOCH + seconds.min(last) }
    }

    /// The value of `ETag`.
    pub fn tag(&self) -> String {
        self.tag.to_string()
    }

    /// The value of `Last-Modified`.
    pub fn modified(&self) -> String {
        httpdate::fmt_http_date(self.modified)
    }

    /// Whether one of the tags in a list is this one. Two are only compared by a strong comparison if neither is weak.
    fn is_among(&self, list: &TagList, is_strong: bool) -> bool {
        let is_this = |tag: &Tag| {
            tag.opaque == self.tag.opaque && !(is_strong && (tag.is_weak || self.tag.is_weak))
        };
        match list {
            TagList::Any => true,
            TagList::Tags(tags) => tags.iter().any(is_this),
        }
    }
}

/// What is done with a request for a file that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is sent, or a part of it.
    Send(Selection),
    /// The client has it: 304.
    NotModified,
    /// It is not the one that the client means: 412.
    Failed,
}

/// Judges the conditions of a request in the order of RFC 9110, section 13.2.2.
pub fn judge(headers: &HeaderMap, is_get: bool, validators: &Validators, bytes: u64) -> Verdict {
    let list = |name| TagList::of(headers, name);
    let date = |name| date(headers, name);
    match list(header::IF_MATCH) {
        Some(tags) if !validators.is_among(&tags, true) => return Verdict::Failed,
        None if date(header::IF_UNMODIFIED_SINCE)
            .is_some_and(|date| validators.modified > date) =>
        {
            return Verdict::Failed;
        }
        _ => {}
    }
    match list(header::IF_NONE_MATCH) {
        Some(tags) if validators.is_among(&tags, false) => return Verdict::NotModified,
        None if date(header::IF_MODIFIED_SINCE).is_some_and(|date| validators.modified <= date) => {
            return Verdict::NotModified;
        }
        _ => {}
    }
    // Ranges are defined for GET only.
    let range = headers.get(header::RANGE).filter(|_| is_get && is_meant(headers, validators));
    Verdict::Send(range.map_or(Selection::Whole, |range| Selection::parse(range.as_bytes(), bytes)))
}

/// Whether a range, if there is one, is of this version.
fn is_meant(headers: &HeaderMap, validators: &Validators) -> bool {
    let Some(value) = headers.get(header::IF_RANGE) else { return true };
    // A date is the time itself, and as strong as the tag.
    match date(headers, header::IF_RANGE) {
        Some(date) => date == validators.modified && !validators.tag.is_weak,
        None => {
            let mut tags = Vec::new();
            let is_list = parse_tags(value.as_bytes(), &mut tags).is_some();
            is_list && tags.len() == 1 && validators.is_among(&TagList::Tags(tags), true)
        }
    }
}

/// A date; one that is none is passed over, as the RFC wants it.
fn date(headers: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?.trim()).ok()
}

enum TagList {
    Any,
    Tags(Vec<Tag>),
}

impl TagList {
    /// All that a request has of this header. Behind what has no sense, nothing is read.
    fn of(headers: &HeaderMap, name: HeaderName) -> Option<Self> {
        let mut tags = Vec::new();
        let mut is_there = false;
        for value in headers.get_all(name) {
            is_there = true;
            if value.as_bytes().trim_ascii() == b"*" {
                return Some(Self::Any);
            }
            if parse_tags(value.as_bytes(), &mut tags).is_none() {
                break;
            }
        }
        is_there.then_some(Self::Tags(tags))
    }
}

/// Takes tags from a list; `None` at what is none.
fn parse_tags(list: &[u8], tags: &mut Vec<Tag>) -> Option<()> {
    let mut rest = list;
    loop {
        let skipped = rest.iter().position(|byte| !b" \t,".contains(byte));
        let Some(skipped) = skipped else { return Some(()) };
        rest = &rest[skipped..];
        let strong = rest.strip_prefix(b"W/");
        let (is_weak, quoted) = (strong.is_some(), strong.unwrap_or(rest).strip_prefix(b"\"")?);
        let end = quoted.iter().position(|byte| *byte == b'"')?;
        // A tag that is not text is none of ours, whatever it is read as.
        let opaque = String::from_utf8_lossy(&quoted[..end]).into_owned();
        tags.push(Tag { is_weak, opaque });
        rest = &quoted[end + 1..];
        let next = rest.iter().position(|byte| !b" \t".contains(byte));
        if next.is_some_and(|next| rest[next] != b',') {
            return None;
        }
    }
}

#[cfg(test)]
mod tests;
