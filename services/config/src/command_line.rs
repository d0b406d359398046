// SPDX-License-Identifier: MIT OR Apache-2.0
//! Configuration keys on the kernel command line.
//!
//! Parameters are split as the kernel does it (`next_arg` in `lib/cmdline.c`): at white space
//! outside of double quotes; quotes around a value or a whole parameter are dropped, quotes inside
//! stay. As in the kernel, `-` and `_` in a name are the same.

use std::borrow::Cow;
use std::ops::Range;

use toml::de::{DeTable, DeValue};
use toml::Spanned;

use crate::keys::{self, Kind};
use crate::source::{self, Problem};

/// What our parameters start with.
const PREFIX: &str = "dvs.";

/// One parameter as byte ranges of the command line.
#[derive(Debug, PartialEq, Eq)]
struct Parameter {
    name: Range<usize>,
    /// `None` when there is no `=`.
    value: Option<Range<usize>>,
    /// All of it, with quotes.
    whole: Range<usize>,
}

/// Splits a command line into its parameters.
fn parameters(text: &str) -> Vec<Parameter> {
    let bytes = text.as_bytes();
    // The kernel's isspace.
    let blank = |byte: u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let mut found = Vec::new();
    let mut at = 0;
    loop {
        while at < bytes.len() && blank(bytes[at]) {
            at += 1;
        }
        if at == bytes.len() {
            return found;
        }
        let begin = at;
        let quoted = bytes[at] == b'"';
        let mut in_quote = quoted;
        if quoted {
            at += 1;
        }
        let start = at;
        let mut equals = None;
        while at < bytes.len() && (in_quote || !blank(bytes[at])) {
            if bytes[at] == b'=' && equals.is_none() && at > start {
                equals = Some(at);
            }
            if bytes[at] == b'"' {
                in_quote = !in_quote;
            }
            at += 1;
        }
        // One quote at the end belongs to the parameter's or to the value's opening one.
        let ends_quoted = |from: usize| at > from && bytes[at - 1] == b'"';
        let end = if quoted && ends_quoted(start) { at - 1 } else { at };
        let parameter = match equals {
            None => Parameter { name: start..end, value: None, whole: begin..at },
            Some(equals) => {
                let mut value = equals + 1..end;
                if bytes.get(value.start) == Some(&b'"') && value.start < end {
                    value.start += 1;
                    if !quoted && ends_quoted(value.start) {
                        value.end = at - 1;
                    }
                }
                Parameter { name: start..equals, value: Some(value), whole: begin..at }
            }
        };
        found.push(parameter);
    }
}

/// The dotted path of a parameter that is ours.
fn path(text: &str, parameter: &Parameter) -> Option<String> {
    text[parameter.name.clone()].strip_prefix(PREFIX).map(|path| path.replace('-', "_"))
}

/// Our parameters as a table with the positions of names and values.
pub(crate) fn table(text: &str) -> Result<DeTable<'_>, Problem> {
    let mut root = DeTable::new();
    for parameter in parameters(text) {
        let Some(path) = path(text, &parameter) else { continue };
        let name = parameter.name;
        let Some(kind) = keys::kind(&path) else {
            return Err(match keys::list_around(&path).filter(|_| keys::field(&path).is_some()) {
                Some(list) => Problem {
                    span: name,
                    message: format!("`{path}` stands in a table, expected `{PREFIX}{list}={{…}}`"),
                },
                None if keys::is_section(&path) => Problem::section(name, &path),
                None => Problem::unknown_key(name, &path),
            });
        };
        let Some(span) = parameter.value else {
            let message = format!("`{path}` has no value, expected `{PREFIX}{path}=…`");
            return Err(Problem { span: name, message });
        };
        let value = value(text, span, kind)?;
        if kind == Kind::Tables {
            let expected = format!("`{PREFIX}{path}={{…}}`, or several tables in `[…]`");
            source::check_tables(&path, &value, &expected)?;
        }
        insert(&mut root, &path, name, value);
    }
    Ok(root)
}

/// Reads bare text as the key wants it.
fn value(text: &str, span: Range<usize>, kind: Kind) -> Result<Spanned<DeValue<'_>>, Problem> {
    let raw = &text[span.clone()];
    let plain = |span: Range<usize>| {
        Spanned::new(span.clone(), DeValue::String(Cow::Borrowed(&text[span])))
    };
    let array = |is_separator: fn(char) -> bool| {
        let items = split(text, span.clone(), is_separator).map(plain).collect();
        Spanned::new(span.clone(), DeValue::Array(items))
    };
    match kind {
        // Text that is no number goes on as text, so that the schema says what it expected.
        Kind::Integer => Ok(match DeValue::parse(raw) {
            Ok(number) if number.get_ref().is_integer() => Spanned::new(span, number.into_inner()),
            _ => plain(span),
        }),
        Kind::Boolean => Ok(match DeValue::parse(raw) {
            Ok(truth) if truth.get_ref().is_bool() => Spanned::new(span, truth.into_inner()),
            _ => plain(span),
        }),
        Kind::Text => Ok(plain(span)),
        Kind::List | Kind::Command if raw.starts_with('[') => toml_value(raw, span),
        Kind::Tables if raw.starts_with('[') => toml_value(raw, span),
        Kind::Tables if raw.starts_with('{') => {
            let table = toml_value(raw, span.clone())?;
            Ok(Spanned::new(span, DeValue::Array(std::iter::once(table).collect())))
        }
        // Goes on as text, so that it is said what was expected.
        Kind::Tables => Ok(plain(span)),
        Kind::List => Ok(array(|c| c == ',' || c.is_ascii_whitespace())),
        Kind::Command => Ok(array(|c| c.is_ascii_whitespace())),
    }
}

/// Reads what stands at `span` as TOML.
fn toml_value(raw: &str, span: Range<usize>) -> Result<Spanned<DeValue<'_>>, Problem> {
    let value = DeValue::parse(raw).map_err(|error| {
        let within = error.span().unwrap_or(0..raw.len());
        Problem {
            span: span.start + within.start..span.start + within.end,
            message: error.message().to_owned(),
        }
    })?;
    let value = source::shift(value, span.start);
    Ok(Spanned::new(span, value.into_inner()))
}

/// The non-empty pieces between separators.
fn split(
    text: &str,
    span: Range<usize>,
    is_separator: fn(char) -> bool,
) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut at = span.start;
    text[span]
        .split(is_separator)
        .map(move |piece| {
            let start = at;
            // Separators are ASCII.
            at += piece.len() + 1;
            start..start + piece.len()
        })
        .filter(|piece| !piece.is_empty())
}

/// Puts a value at a path, over an earlier one.
fn insert<'a>(
    table: &mut DeTable<'a>,
    path: &str,
    name: Range<usize>,
    value: Spanned<DeValue<'a>>,
) {
    let key = |key: &str| Spanned::new(name.clone(), Cow::Owned(key.to_owned()));
    match path.split_once('.') {
        None => {
            table.remove(path);
            table.insert(key(path), value);
        }
        Some((first, rest)) => {
            let section = table
                .entry(key(first))
                .or_insert_with(|| Spanned::new(name.clone(), DeValue::Table(DeTable::new())));
            if let DeValue::Table(section) = section.get_mut() {
                insert(section, rest, name, value);
            }
        }
    }
}

/// The whole parameter around a position, or nothing at it.
pub(crate) fn parameter_at(text: &str, at: usize) -> Range<usize> {
    parameters(text)
        .into_iter()
        .map(|parameter| parameter.whole)
        .find(|whole| whole.start <= at && at <= whole.end)
        .unwrap_or(at..at)
}

/// Where secrets stand, those under a misspelt key included.
pub(crate) fn secrets(text: &str) -> Vec<Range<usize>> {
    parameters(text)
        .into_iter()
        .filter(|parameter| path(text, parameter).is_some_and(|path| keys::is_secret(&path)))
        .filter_map(|parameter| parameter.value)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::parameters;

    fn split(text: &str) -> Vec<(&str, Option<&str>)> {
        parameters(text).into_iter().map(|p| (&text[p.name], p.value.map(|v| &text[v]))).collect()
    }

    #[test]
    fn parameters_are_split_as_the_kernel_does() {
        assert_eq!(split(" quiet  a=b\n"), [("quiet", None), ("a", Some("b"))]);
        assert_eq!(split(r#"a="b c" d"#), [("a", Some("b c")), ("d", None)]);
        assert_eq!(split(r#""a=b c" d"#), [("a", Some("b c")), ("d", None)]);
        assert_eq!(split(r#"a=b"c d"e"#), [("a", Some(r#"b"c d"e"#))]);
        assert_eq!(split(r#"a="b c"#), [("a", Some("b c"))]);
        assert_eq!(split("a= b"), [("a", Some("")), ("b", None)]);
        assert_eq!(split("a=b=c"), [("a", Some("b=c"))]);
        assert_eq!(split("=a"), [("=a", None)]);
        assert_eq!(split(r#"a="#), [("a", Some(""))]);
        assert_eq!(split(r#"a=""#), [("a", Some(""))]);
        assert_eq!(split(r#"a="""#), [("a", Some(""))]);
        assert_eq!(split(r#"""#), [("", None)]);
    }

    /// A transcription of the kernel's `next_arg` on an owned, NUL-terminated buffer.
    fn kernel(text: &str) -> Vec<(String, Option<String>)> {
        let until_nul = |bytes: &[u8]| {
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            String::from_utf8(bytes[..end].to_vec()).unwrap()
        };
        let mut found = Vec::new();
        let mut rest = text.trim_start().as_bytes().to_vec();
        rest.push(0);
        while rest[0] != 0 {
            let mut args = rest.clone();
            let (mut i, mut equals, mut in_quote, mut quoted) = (0, 0, false, false);
            if args[0] == b'"' {
                args.remove(0);
                in_quote = true;
                quoted = true;
            }
            while args[i] != 0 {
                if args[i].is_ascii_whitespace() && !in_quote {
                    break;
                }
                if equals == 0 && args[i] == b'=' {
                    equals = i;
                }
                if args[i] == b'"' {
                    in_quote = !in_quote;
                }
                i += 1;
            }
            let mut next = i;
            if args[i] != 0 {
                next += 1;
            }
            let remaining = args[next..].to_vec();
            if args[i] != 0 {
                args[i] = 0;
            }
            let mut value = None;
            if equals != 0 {
                args[equals] = 0;
                value = Some(equals + 1);
                if args[equals + 1] == b'"' {
                    value = Some(equals + 2);
                    if args[i - 1] == b'"' {
                        args[i - 1] = 0;
                    }
                }
            }
            if quoted && i > 0 && args[i - 1] == b'"' {
                args[i - 1] = 0;
            }
            found.push((until_nul(&args), value.map(|at| until_nul(&args[at.min(i)..]))));
            let skip = remaining.iter().take_while(|b| b.is_ascii_whitespace()).count();
            rest = remaining[skip..].to_vec();
        }
        found
    }

    proptest! {
        #[test]
        fn parameters_agree_with_the_kernel(text in "[ab=\" ]{0,24}") {
            let ours: Vec<_> = split(&text)
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.map(str::to_owned)))
                .collect();
            prop_assert_eq!(ours, kernel(&text));
        }
    }
}
