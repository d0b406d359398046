// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is wrong with a configuration, and where.

use std::fmt;
use std::ops::Range;

use crate::Source;

/// Widest excerpt in characters: a serial console's line, less the gutter.
const EXCERPT_WIDTH: usize = 72;

/// The configuration cannot be used.
///
/// Displays as one line that stands for itself ([`summary`](Self::summary)) and, when the place is
/// known, the offending line with carets under what it is about:
///
/// ```text
/// QEMU fw_cfg file opt/dvs/config, line 2, column 1: there is no key `cluster.tokn`; did you mean `cluster.token`?
///   |
/// 2 | tokn = ***
///   | ^^^^
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    source: Option<Source>,
    message: String,
    place: Option<Box<Place>>,
}

/// Where in a source's text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    line: usize,
    column: usize,
    excerpt: String,
    /// First marked character of the excerpt, from 0.
    mark_start: usize,
    /// How many are marked, at least 1.
    mark_len: usize,
}

impl ConfigError {
    /// An error that is about no place in particular.
    pub(crate) fn nowhere(message: String) -> Self {
        Self { source: None, message, place: None }
    }

    /// An error about `span` of a source's text. The excerpt comes from `region` of it, with the
    /// characters in `secrets` masked.
    pub(crate) fn at(
        source: &Source,
        text: &str,
        region: Range<usize>,
        span: Range<usize>,
        secrets: &[Range<usize>],
        message: String,
    ) -> Self {
        let before = &text[..span.start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = text[line_start..span.start].chars().count() + 1;
        let line = before.matches('\n').count() + 1;

        let shown: Vec<(usize, char)> = text[region.clone()]
            .char_indices()
            .map(|(offset, c)| (region.start + offset, c))
            .map(|(at, c)| match c {
                _ if secrets.iter().any(|secret| secret.contains(&at)) => (at, '*'),
                '\t' => (at, ' '),
                c if c.is_control() => (at, '·'),
                c => (at, c),
            })
            .collect();
        let first = shown.iter().take_while(|(at, _)| *at < span.start).count();
        let marked = shown[first..].iter().take_while(|(at, _)| *at < span.end).count();

        // A long line is cut to a window around the mark.
        let skip = if shown.len() > EXCERPT_WIDTH {
            first.saturating_sub(EXCERPT_WIDTH / 3).min(shown.len() - EXCERPT_WIDTH)
        } else {
            0
        };
        let end = shown.len().min(skip + EXCERPT_WIDTH);
        let mut excerpt: String = shown[skip..end].iter().map(|(_, c)| c).collect();
        let mut mark_start = first - skip;
        let mark_len = marked.min(end - first).max(1);
        if skip > 0 {
            excerpt.insert(0, '…');
            mark_start += 1;
        }
        if end < shown.len() {
            excerpt.push('…');
        }
        Self {
            source: Some(source.clone()),
            message,
            place: Some(Box::new(Place { line, column, excerpt, mark_start, mark_len })),
        }
    }

    /// Which source the error is in; `None` when it is in none alone.
    pub fn origin(&self) -> Option<&Source> {
        self.source.as_ref()
    }

    /// Line of the source, from 1.
    pub fn line(&self) -> Option<usize> {
        self.place.as_ref().map(|place| place.line)
    }

    /// Column in characters, from 1.
    pub fn column(&self) -> Option<usize> {
        self.place.as_ref().map(|place| place.column)
    }

    /// Source, line, column and message in one line, without the excerpt.
    pub fn summary(&self) -> String {
        let mut text = String::new();
        if let Some(source) = &self.source {
            text += &source.to_string();
            match &self.place {
                // The command line is one line.
                Some(place) if *source == Source::CommandLine => {
                    text += &format!(", column {}", place.column);
                }
                Some(place) => text += &format!(", line {}, column {}", place.line, place.column),
                None => (),
            }
            text += ": ";
        }
        text + &self.message
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary())?;
        let Some(place) = &self.place else { return Ok(()) };
        let number = place.line.to_string();
        let gutter = " ".repeat(number.len());
        let indent = " ".repeat(place.mark_start);
        let carets = "^".repeat(place.mark_len);
        write!(f, "\n{gutter} |\n{number} | {}\n{gutter} | {indent}{carets}", place.excerpt)
    }
}

impl std::error::Error for ConfigError {}
