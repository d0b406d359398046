// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where configuration comes from, and how the sources become one.
//!
//! Each source is parsed with the positions of its keys and values, checked for unknown keys, and
//! merged into one table key by key. Positions of the second source start where those of the first
//! end, and so on, so that one position names a source and a place in it; serde then reports
//! errors of the merged table by position.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use serde::Deserialize;
use toml::de::{DeTable, DeValue};
use toml::Spanned;

use crate::error::ConfigError;
use crate::keys::Kind;
use crate::{command_line, keys, Config, InterfaceSelector};

/// Where a text comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The file `opt/dvs/config` that QEMU hands to its guest: TOML.
    FwCfg,
    /// A file: TOML.
    File(PathBuf),
    /// The file [`VOLUME_FILE`](Self::VOLUME_FILE) of the FAT volume on this block device: TOML.
    Volume(PathBuf),
    /// The kernel command line: `dvs.cluster.name=lab quiet …`. Parameters that do not start with
    /// `dvs.` are somebody else's.
    CommandLine,
}

impl Source {
    /// Path of the fw_cfg file as QEMU's `-fw_cfg name=…` takes it.
    pub const FW_CFG_NAME: &'static str = "opt/dvs/config";
    /// What a configuration is called in the root of a volume.
    pub const VOLUME_FILE: &'static str = "dvs.toml";
    /// What the next one is called there until it has taken that one's place. It counts where there is no other.
    pub const NEXT_FILE: &'static str = "dvs-next.toml";
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FwCfg => write!(f, "QEMU fw_cfg file {}", Self::FW_CFG_NAME),
            Self::File(path) => path.display().fmt(f),
            Self::Volume(device) => {
                write!(f, "{} on the volume {}", Self::VOLUME_FILE, device.display())
            }
            Self::CommandLine => f.write_str("kernel command line"),
        }
    }
}

/// What is wrong at a position of one source's text.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) span: Range<usize>,
    pub(crate) message: String,
}

impl Problem {
    /// There is no such key.
    pub(crate) fn unknown_key(span: Range<usize>, path: &str) -> Self {
        let mut message = format!("there is no key `{path}`");
        if let Some(nearest) = keys::nearest(path) {
            message += &format!("; did you mean `{nearest}`?");
        }
        Self { span, message }
    }

    /// A section stands where a key should.
    pub(crate) fn section(span: Range<usize>, path: &str) -> Self {
        Self { span, message: format!("`{path}` is a section, expected one of the keys below it") }
    }
}

impl Config {
    /// Reads and merges sources, a later one winning over an earlier one key by key, over the
    /// defaults.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first thing wrong: a syntax error, an unknown key, a value of the
    /// wrong type or out of range, a key missing from a section, or keys that contradict each
    /// other. A value that a later source replaces is not checked.
    pub fn from_sources(sources: &[(Source, String)]) -> Result<Self, ConfigError> {
        let mut merged = DeTable::new();
        let mut base = 0;
        for (index, (source, text)) in sources.iter().enumerate() {
            let parsed = match source {
                Source::CommandLine => command_line::table(text),
                Source::FwCfg | Source::File(_) | Source::Volume(_) => parse_toml(text),
            };
            let table = parsed.map_err(|Problem { span, message }| {
                locate(&sources[..=index], base + span.start..base + span.end, message)
            })?;
            merge(&mut merged, table, base);
            base += text.len() + 1;
        }
        let root = Spanned::new(0..0, merged.clone());
        let config = match Self::deserialize(toml::de::Deserializer::from(root)) {
            Ok(config) => config,
            Err(error) => {
                let span = error.span().unwrap_or(0..0);
                let path = path_at(&merged, &span);
                let message = describe(path.as_deref(), error.message());
                let span = path
                    .as_deref()
                    .filter(|path| keys::kind(path) == Some(Kind::List))
                    .and_then(|path| bad_item(&merged, path))
                    .unwrap_or(span);
                return Err(match path {
                    Some(_) => locate(sources, span, message),
                    None => ConfigError::nowhere(message),
                });
            }
        };
        match config.contradiction() {
            None => Ok(config),
            Some((path, message)) => {
                let message = describe(Some(path), &message);
                Err(match span_of(&merged, path) {
                    Some(span) => locate(sources, span, message),
                    None => ConfigError::nowhere(message),
                })
            }
        }
    }
}

/// Parses TOML and refuses unknown keys.
fn parse_toml(text: &str) -> Result<DeTable<'_>, Problem> {
    let table = DeTable::parse(text).map_err(|error| Problem {
        span: error.span().unwrap_or(0..0),
        message: error.message().to_owned(),
    })?;
    let table = table.into_inner();
    let mut problems = Vec::new();
    find_unknown("", &table, &mut problems);
    match problems.into_iter().min_by_key(|problem| problem.span.start) {
        Some(first) => Err(first),
        None => Ok(table),
    }
}

fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() {
        key.to_owned()
    } else {
        format!("{prefix}.{key}")
    }
}

fn find_unknown(prefix: &str, table: &DeTable<'_>, problems: &mut Vec<Problem>) {
    for (key, value) in table {
        let path = join(prefix, key.get_ref());
        if keys::kind(&path).is_some() {
            continue;
        }
        match value.get_ref() {
            DeValue::Table(table) if keys::is_section(&path) => {
                find_unknown(&path, table, problems);
            }
            _ if keys::is_section(&path) => problems.push(Problem::section(key.span(), &path)),
            _ => problems.push(Problem::unknown_key(key.span(), &path)),
        }
    }
}

/// Puts the keys of `from`, whose positions count from `base`, over those of `into`.
fn merge<'a>(into: &mut DeTable<'a>, from: DeTable<'a>, base: usize) {
    let shift = |span: Range<usize>| span.start + base..span.end + base;
    for (key, value) in from {
        let key = Spanned::new(shift(key.span()), key.into_inner());
        let span = shift(value.span());
        let value = match value.into_inner() {
            DeValue::Table(table) => {
                let mut merged = DeTable::new();
                let mut merged_span = span;
                if let Some(existing) = into.remove(key.get_ref().as_ref()) {
                    let existing_span = existing.span();
                    if let DeValue::Table(existing) = existing.into_inner() {
                        merged = existing;
                        merged_span = existing_span;
                    }
                }
                merge(&mut merged, table, base);
                Spanned::new(merged_span, DeValue::Table(merged))
            }
            DeValue::Array(mut array) => {
                for item in array.iter_mut() {
                    let span = shift(item.span());
                    let inner = std::mem::replace(item.get_mut(), DeValue::Boolean(false));
                    *item = Spanned::new(span, inner);
                }
                Spanned::new(span, DeValue::Array(array))
            }
            plain => Spanned::new(span, plain),
        };
        // Inserting over an equal key would keep the old key and its position.
        into.remove(key.get_ref().as_ref());
        into.insert(key, value);
    }
}

/// The path of the innermost key or value that holds the position.
fn path_at(table: &DeTable<'_>, at: &Range<usize>) -> Option<String> {
    let holds = |span: Range<usize>| span.start <= at.start && at.end <= span.end;
    table.iter().find_map(|(key, value)| {
        let inner = value.get_ref().as_table().and_then(|table| path_at(table, at));
        match inner {
            Some(inner) => Some(join(key.get_ref(), &inner)),
            None if holds(key.span()) || holds(value.span()) => Some(key.get_ref().to_string()),
            None => None,
        }
    })
}

/// The value of a key.
fn value_at<'t, 'a>(table: &'t DeTable<'a>, path: &str) -> Option<&'t Spanned<DeValue<'a>>> {
    match path.split_once('.') {
        None => table.get(path),
        Some((first, rest)) => value_at(table.get(first)?.get_ref().as_table()?, rest),
    }
}

/// The position of a key's value.
fn span_of(table: &DeTable<'_>, path: &str) -> Option<Range<usize>> {
    value_at(table, path).map(Spanned::span)
}

/// The position of the first item of a list that is no interface selector: serde's errors about an
/// item's content come without the item's position.
fn bad_item(table: &DeTable<'_>, path: &str) -> Option<Range<usize>> {
    value_at(table, path)?.get_ref().as_array()?.iter().find_map(|item| {
        let selector: Result<InterfaceSelector, _> = item.get_ref().as_str()?.parse();
        selector.is_err().then(|| item.span())
    })
}

fn describe(path: Option<&str>, message: &str) -> String {
    match path {
        // serde repeats the value of a wrong type.
        Some(path) if keys::SECRETS.contains(&path) && message.starts_with("invalid type") => {
            format!("`{path}`: expected a text in quotes")
        }
        Some(path) => format!("`{path}`: {message}"),
        None => message.to_owned(),
    }
}

/// Turns a position among the sources into source, line and column.
fn locate(sources: &[(Source, String)], at: Range<usize>, message: String) -> ConfigError {
    let mut base = 0;
    for (source, text) in sources {
        if at.start <= base + text.len() {
            let start = floor_char_boundary(text, at.start - base);
            let end = floor_char_boundary(text, at.end.saturating_sub(base).max(start));
            let (region, secrets) = match source {
                Source::CommandLine => {
                    (command_line::parameter_at(text, start), command_line::secrets(text))
                }
                Source::FwCfg | Source::File(_) | Source::Volume(_) => {
                    (line_at(text, start), secrets(text))
                }
            };
            return ConfigError::at(source, text, region, start..end, &secrets, message);
        }
        base += text.len() + 1;
    }
    ConfigError::nowhere(message)
}

fn floor_char_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

fn line_at(text: &str, at: usize) -> Range<usize> {
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let end = text[at..].find('\n').map_or(text.len(), |newline| at + newline);
    start..end
}

/// Where secrets stand in a TOML text, which may be malformed elsewhere; those under a misspelt key included.
fn secrets(text: &str) -> Vec<Range<usize>> {
    let (table, _) = DeTable::parse_recoverable(text);
    let mut found = Vec::new();
    collect_secrets(table.get_ref(), "", &mut found);
    found
}

fn collect_secrets(table: &DeTable<'_>, prefix: &str, found: &mut Vec<Range<usize>>) {
    for (key, value) in table {
        let path = format!("{prefix}{}", key.get_ref());
        match value.get_ref() {
            DeValue::Table(inner) => collect_secrets(inner, &format!("{path}."), found),
            _ if keys::is_secret(&path) => found.push(value.span()),
            _ => {}
        }
    }
}
