// SPDX-License-Identifier: MIT OR Apache-2.0
//! The text format of Prometheus, version 0.0.4.

use std::fmt::Write;

/// What the numbers of a family are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only grows, until what counts begins anew. Its name ends in `_total`.
    Counter,
}

/// The text, family after family. All samples of one are given at once, as the format wants them together.
#[derive(Debug, Default)]
pub(super) struct Exposition(String);

/// Names of labels, and values.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

/// The samples of a family.
#[derive(Debug)]
pub(super) struct Family<'a> {
    text: &'a mut String,
    name: &'a str,
}

impl Exposition {
    /// Begins a family. `help` is a sentence without a line break.
    pub(super) fn family<'a>(&'a mut self, name: &'a str, kind: Kind, help: &str) -> Family<'a> {
        let kind = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        let text = &mut self.0;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP {name} {}", help.replace('\\', r"\\").replace('\n', r"\n"));
        let _ = writeln!(text, "# TYPE {name} {kind}");
        Family { text, name }
    }

    /// A family of one number without labels.
    pub(super) fn one(&mut self, name: &str, kind: Kind, help: &str, value: impl Into<Number>) {
        self.family(name, kind, help).sample(&[], value);
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }
}

impl Family<'_> {
    pub(super) fn sample(&mut self, labels: Labels<'_>, value: impl Into<Number>) {
        self.text.push_str(self.name);
        for (index, (name, value)) in labels.iter().enumerate() {
            let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            let begin = if index == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{begin}{name}=\"{value}\"");
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = match value.into() {
            Number::Whole(number) => writeln!(self.text, " {number}"),
            Number::Real(number) => writeln!(self.text, " {number}"),
        };
    }
}

/// A value. Whole numbers are written as they are, however large.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    Whole(u64),
    Real(f64),
}

impl From<u64> for Number {
    fn from(number: u64) -> Self {
        Self::Whole(number)
    }
}

impl From<u32> for Number {
    fn from(number: u32) -> Self {
        Self::Whole(number.into())
    }
}

impl From<usize> for Number {
    fn from(number: usize) -> Self {
        Self::Whole(number as u64)
    }
}

impl From<bool> for Number {
    fn from(truth: bool) -> Self {
        Self::Whole(truth.into())
    }
}

impl From<f64> for Number {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_numbers_kept_whole() {
        let mut exposition = Exposition::default();
        let mut family = exposition.family("a_total", Kind::Counter, "One\\two\nthree.");
        family.sample(&[("x", "q\"\\\n"), ("y", "")], u64::MAX);
        family.sample(&[], 0.5);
        assert_eq!(
            exposition.into_text(),
            "# HELP a_total One\\\\two\\nthree.\n# TYPE a_total counter\n\
             a_total{x=\"q\\\"\\\\\\n\",y=\"\"} 18446744073709551615\na_total 0.5\n"
        );
    }
}
