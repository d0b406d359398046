// SPDX-License-Identifier: MIT OR Apache-2.0
//! The cases: one per rule of `docs/dvk-reference.md`, with the rule's name.

mod bind;
mod c_library;
mod control;
mod copy;
mod death;
mod errors;
mod events;
mod exchange;
mod grant;
mod isolation;
mod migration;
mod notify;
mod observability;
mod poll;
mod privileges;
mod proxy;
mod remote;
mod stress;
mod timeout;
mod waiting;

use core::time::Duration;

/// Proves one rule. Runs in a process of its own.
pub(crate) struct Case {
    /// The rule's name.
    pub(crate) id: &'static str,
    /// How long it may take.
    pub(crate) limit: Duration,
    /// Fails with what the kernel did instead.
    pub(crate) run: fn() -> anyhow::Result<()>,
}

impl Case {
    const fn new(id: &'static str, run: fn() -> anyhow::Result<()>) -> Self {
        Self { id, limit: Duration::from_secs(10), run }
    }

    const fn long(id: &'static str, run: fn() -> anyhow::Result<()>) -> Self {
        Self { limit: Duration::from_secs(120), ..Self::new(id, run) }
    }
}

/// Every case, in the order of the reference.
pub(crate) fn all() -> impl Iterator<Item = &'static Case> {
    [
        bind::CASES,
        exchange::CASES,
        notify::CASES,
        grant::CASES,
        copy::CASES,
        timeout::CASES,
        errors::CASES,
        waiting::CASES,
        privileges::CASES,
        death::CASES,
        poll::CASES,
        isolation::CASES,
        control::CASES,
        events::CASES,
        observability::CASES,
        remote::CASES,
        migration::CASES,
        proxy::CASES,
        stress::CASES,
        c_library::CASES,
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests {
    const REFERENCE: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/dvk-reference.md"));

    /// The rules of a reference: list items that begin with a name in backquotes and a colon.
    fn rules(reference: &str) -> Vec<&str> {
        reference
            .lines()
            .filter_map(|line| line.strip_prefix("- `")?.split_once("`: "))
            .map(|(id, _)| id)
            .collect()
    }

    #[test]
    fn rules_are_found() {
        assert_eq!(rules("# Head\n- `a-rule`: text\n  `more`: text\n- other\n"), ["a-rule"]);
    }

    #[test]
    fn the_reference_has_a_case_for_every_rule_in_its_order() {
        let cases: Vec<&str> = super::all().map(|case| case.id).collect();
        let rules = rules(REFERENCE);
        for rule in &rules {
            assert!(cases.contains(rule), "no case proves the rule {rule}");
        }
        for case in &cases {
            assert!(rules.contains(case), "the case {case} proves no rule of the reference");
        }
        assert_eq!(cases, rules, "a name occurs twice, or the orders differ");
    }
}
