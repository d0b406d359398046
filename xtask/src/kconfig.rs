// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kernel configurations: fragments, what they ask for, and whether the kernel's own tools kept it.

use std::collections::BTreeMap;
use std::fmt;

/// Options by name, without the prefix `CONFIG_`. A value is what stands after `=`; `n` for an option that is not set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options(BTreeMap<String, String>);

/// A line of a configuration that means nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    line: usize,
    text: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "line {}: `{}` is neither `CONFIG_X=value` nor `# CONFIG_X is not set` nor a comment",
            self.line, self.text
        )
    }
}

impl std::error::Error for Malformed {}

/// An option that is not as a fragment asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    /// The option, without prefix.
    pub(crate) name: String,
    /// What was asked for.
    pub(crate) wanted: String,
    /// What the final configuration says.
    pub(crate) actual: String,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "CONFIG_{}: {} was asked for, the result is {}",
            self.name, self.wanted, self.actual
        )
    }
}

impl Options {
    /// Reads a fragment or a complete `.config`.
    ///
    /// # Errors
    /// The first line that is neither an option nor a comment.
    pub(crate) fn parse(text: &str) -> Result<Self, Malformed> {
        let mut options = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim_end();
            let malformed = || Malformed { line: index + 1, text: line.to_owned() };
            if let Some(rest) = line.strip_prefix("CONFIG_") {
                let (name, value) = rest.split_once('=').ok_or_else(malformed)?;
                if name.is_empty() || value.is_empty() || !name.chars().all(is_name) {
                    return Err(malformed());
                }
                options.insert(name.to_owned(), value.to_owned());
            } else if let Some(comment) = line.strip_prefix('#') {
                let unset = comment
                    .trim_start()
                    .strip_prefix("CONFIG_")
                    .and_then(|rest| rest.strip_suffix(" is not set"));
                if let Some(name) = unset.filter(|name| name.chars().all(is_name)) {
                    options.insert(name.to_owned(), "n".to_owned());
                }
            } else if !line.is_empty() {
                return Err(malformed());
            }
        }
        Ok(Self(options))
    }

    /// Adds the options of a fragment, which win over those present.
    pub(crate) fn merge(&mut self, fragment: Self) {
        self.0.extend(fragment.0);
    }

    /// A `.config` with these options and, where they say nothing, those of `base`. These stand last: of the alternatives of a
    /// choice, such as the `HZ_…`, the kernel's tools take the last one that is set.
    pub(crate) fn over(&self, base: &Self) -> String {
        let mut rest = base.clone();
        rest.0.retain(|name, _| !self.0.contains_key(name));
        format!("{rest}{self}")
    }

    /// The value of an option; one that is not mentioned is `n`.
    fn value(&self, name: &str) -> &str {
        self.0.get(name).map_or("n", String::as_str)
    }

    /// The options that `result` does not have as they are here.
    pub(crate) fn lost_in(&self, result: &Self) -> Vec<Lost> {
        self.0
            .iter()
            .filter(|(name, wanted)| result.value(name) != wanted.as_str())
            .map(|(name, wanted)| Lost {
                name: name.clone(),
                wanted: wanted.clone(),
                actual: result.value(name).to_owned(),
            })
            .collect()
    }

    /// The options that differ from `before`, as the lines of a fragment that would bring them about.
    pub(crate) fn changes_from(&self, before: &Self) -> Vec<String> {
        let mut changed = Self::default();
        for name in self.0.keys().chain(before.0.keys()) {
            if self.value(name) != before.value(name) {
                changed.0.insert(name.clone(), self.value(name).to_owned());
            }
        }
        changed.to_string().lines().map(str::to_owned).collect()
    }
}

impl fmt::Display for Options {
    /// In the form of a `.config`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.0 {
            if value == "n" {
                writeln!(f, "# CONFIG_{name} is not set")?;
            } else {
                writeln!(f, "CONFIG_{name}={value}")?;
            }
        }
        Ok(())
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn options(text: &str) -> Options {
        Options::parse(text).unwrap()
    }

    fn any_options() -> impl Strategy<Value = Options> {
        let value = prop_oneof![
            Just("y".to_owned()),
            Just("n".to_owned()),
            "[0-9]{1,3}",
            "\"[a-z ]{0,4}\""
        ];
        prop::collection::btree_map("[A-Z0-9_]{1,4}", value, 0..8).prop_map(Options)
    }

    proptest! {
        #[test]
        fn text_and_back(options in any_options()) {
            prop_assert_eq!(Options::parse(&options.to_string()).unwrap(), options);
        }

        /// Nothing is lost exactly when merging the request into the result changes no value.
        #[test]
        fn lost_is_what_merging_would_change(wanted in any_options(), result in any_options()) {
            let mut merged = result.clone();
            merged.merge(wanted.clone());
            prop_assert_eq!(
                wanted.lost_in(&result).len(),
                merged.changes_from(&result).len()
            );
            prop_assert!(wanted.lost_in(&merged).is_empty());
        }
    }

    #[test]
    fn a_vanished_option_is_reported_with_its_value() {
        let wanted = options("CONFIG_TIPC=y\nCONFIG_HZ=1000\n# CONFIG_SLUB_TINY is not set\n");
        let result = options("CONFIG_HZ=250\nCONFIG_SLUB_TINY=y\n");
        let lost: Vec<_> = wanted.lost_in(&result).iter().map(Lost::to_string).collect();
        assert_eq!(
            lost,
            [
                "CONFIG_HZ: 1000 was asked for, the result is 250",
                "CONFIG_SLUB_TINY: n was asked for, the result is y",
                "CONFIG_TIPC: y was asked for, the result is n",
            ]
        );
    }

    #[test]
    fn an_option_that_is_not_mentioned_is_off() {
        assert!(options("# CONFIG_SLUB_TINY is not set\n").lost_in(&Options::default()).is_empty());
    }

    #[test]
    fn debris_is_an_error_with_its_line() {
        let error = Options::parse("# fine\nCONFIG_A=y\nCONFIG B=y\n").unwrap_err();
        assert!(error.to_string().starts_with("line 3: `CONFIG B=y`"), "{error}");
        assert!(Options::parse("CONFIG_A\n").is_err());
        assert!(Options::parse("CONFIG_A=\n").is_err());
    }

    #[test]
    fn requests_stand_after_what_they_overrule() {
        let base = options("CONFIG_A=y\nCONFIG_HZ_250=y\nCONFIG_SLUB_TINY=y\n");
        let wanted = options("CONFIG_HZ_1000=y\n# CONFIG_SLUB_TINY is not set\n");
        assert_eq!(
            wanted.over(&base),
            "CONFIG_A=y\nCONFIG_HZ_250=y\nCONFIG_HZ_1000=y\n# CONFIG_SLUB_TINY is not set\n"
        );
    }

    #[test]
    fn later_fragments_win() {
        let mut merged = options("CONFIG_A=y\nCONFIG_B=y\n");
        merged.merge(options("# CONFIG_A is not set\n"));
        assert_eq!(merged, options("CONFIG_B=y\n# CONFIG_A is not set\n"));
    }
}
