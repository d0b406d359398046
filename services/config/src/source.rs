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
                let is_list = |path: &&str| {
                    let path = without_numbers(path);
                    keys::kind(&path).or(keys::field(&path)) == Some(Kind::List)
                };
                let span = path
                    .as_deref()
                    .filter(is_list)
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
                let message = describe(Some(&path), &message);
                Err(match span_of(&merged, &path) {
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
        if let Some(kind) = keys::kind(&path) {
            if kind == Kind::Tables {
                problems.extend(check_tables(&path, value, &format!("`[[{path}]]`")).err());
            }
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

/// Refuses what is no list of tables, for which there are better words than serde's, and unknown keys in them.
pub(crate) fn check_tables(
    path: &str,
    value: &Spanned<DeValue<'_>>,
    expected: &str,
) -> Result<(), Problem> {
    let no_table = |span| Problem { span, message: format!("`{path}`: expected {expected}") };
    let items = value.get_ref().as_array().ok_or_else(|| no_table(value.span()))?;
    for item in items {
        let table = item.get_ref().as_table().ok_or_else(|| no_table(item.span()))?;
        let unknown = table.keys().filter(|key| keys::field(&join(path, key.get_ref())).is_none());
        if let Some(key) = unknown.min_by_key(|key| key.span().start) {
            return Err(Problem::unknown_key(key.span(), &join(path, key.get_ref())));
        }
    }
    Ok(())
}

/// Moves a value and all in it to positions further on.
pub(crate) fn shift(value: Spanned<DeValue<'_>>, by: usize) -> Spanned<DeValue<'_>> {
    let moved = |span: Range<usize>| span.start + by..span.end + by;
    let span = moved(value.span());
    let inner = match value.into_inner() {
        DeValue::Array(items) => {
            DeValue::Array(items.into_iter().map(|item| shift(item, by)).collect())
        }
        DeValue::Table(table) => {
            let entries = table.into_iter().map(|(key, value)| {
                (Spanned::new(moved(key.span()), key.into_inner()), shift(value, by))
            });
            DeValue::Table(entries.collect())
        }
        plain => plain,
    };
    Spanned::new(span, inner)
}

/// Puts the keys of `from`, whose positions count from `base`, over those of `into`.
fn merge<'a>(into: &mut DeTable<'a>, from: DeTable<'a>, base: usize) {
    let moved = |span: Range<usize>| span.start + base..span.end + base;
    for (key, value) in from {
        let key = Spanned::new(moved(key.span()), key.into_inner());
        let value_span = value.span();
        let value = match value.into_inner() {
            DeValue::Table(table) => {
                let mut merged = DeTable::new();
                let mut merged_span = moved(value_span);
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
            plain => shift(Spanned::new(value_span, plain), base),
        };
        // Inserting over an equal key would keep the old key and its position.
        into.remove(key.get_ref().as_ref());
        into.insert(key, value);
    }
}

/// The path of the innermost key or value that holds the position, with the numbers of tables that stand in lists.
fn path_at(table: &DeTable<'_>, at: &Range<usize>) -> Option<String> {
    let holds = |span: Range<usize>| span.start <= at.start && at.end <= span.end;
    table.iter().find_map(|(key, value)| {
        let inner = match value.get_ref() {
            DeValue::Table(table) => path_at(table, at),
            DeValue::Array(items) => items.iter().enumerate().find_map(|(number, item)| {
                let inner = path_at(item.get_ref().as_table()?, at);
                let number = number.to_string();
                match inner {
                    Some(inner) => Some(join(&number, &inner)),
                    None => holds(item.span()).then_some(number),
                }
            }),
            _ => None,
        };
        match inner {
            Some(inner) => Some(join(key.get_ref(), &inner)),
            None if holds(key.span()) || holds(value.span()) => Some(key.get_ref().to_string()),
            None => None,
        }
    })
}

/// A path as people write it, without the numbers of items.
fn without_numbers(path: &str) -> String {
    let is_key = |part: &&str| !part.bytes().all(|byte| byte.is_ascii_digit());
    path.split('.').filter(is_key).collect::<Vec<_>>().join(".")
}

/// The value of a key, or of an item that its number leads to.
fn value_at<'t, 'a>(table: &'t DeTable<'a>, path: &str) -> Option<&'t Spanned<DeValue<'a>>> {
    let mut parts = path.split('.');
    let first = table.get(parts.next()?)?;
    parts.try_fold(first, |value, part| match value.get_ref() {
        DeValue::Table(table) => table.get(part),
        DeValue::Array(items) => items.get(part.parse::<usize>().ok()?),
        _ => None,
    })
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
        Some(path) => format!("`{}`: {message}", without_numbers(path)),
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
