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
pub(crate) mod stress;
mod timeout;
mod waiting;

use crate::cast::Cast;
use core::time::Duration;

/// Proves one rule. Runs in a process of its own.
pub(crate) struct Case {
    /// The rule's name.
    pub(crate) id: &'static str,
    /// How long it may take.
    pub(crate) limit: Duration,
    /// Fails with what the kernel did instead.
    pub(crate) run: Run,
}

/// How a case is run, and where those can be that take part.
#[derive(Clone, Copy)]
pub(crate) enum Run {
    /// On one node, for this reason.
    Alone(&'static str, fn() -> anyhow::Result<()>),
    /// Also with its far side on another node.
    Toward(fn(&Cast) -> anyhow::Result<()>),
    /// Also with either side on another node.
    Both(fn(&Cast) -> anyhow::Result<()>),
}

impl Case {
    const fn of(id: &'static str, run: Run) -> Self {
        Self { id, limit: Duration::from_secs(10), run }
    }

    const fn alone(id: &'static str, why: &'static str, run: fn() -> anyhow::Result<()>) -> Self {
        Self::of(id, Run::Alone(why, run))
    }

    const fn toward(id: &'static str, run: fn(&Cast) -> anyhow::Result<()>) -> Self {
        Self::of(id, Run::Toward(run))
    }

    const fn both(id: &'static str, run: fn(&Cast) -> anyhow::Result<()>) -> Self {
        Self::of(id, Run::Both(run))
    }

    const fn long(self) -> Self {
        Self { limit: Duration::from_secs(120), ..self }
    }

    /// Runs it on one node.
    pub(crate) fn run_here(&self) -> anyhow::Result<()> {
        match self.run {
            Run::Alone(_, run) => run(),
            Run::Toward(run) | Run::Both(run) => run(&Cast::here()),
        }
    }

    /// Runs it with one side on another node.
    pub(crate) fn run_between(&self, cast: Cast, swapped: bool) -> anyhow::Result<()> {
        match self.run {
            Run::Both(run) => run(&cast),
            Run::Toward(run) if !swapped => run(&cast),
            Run::Toward(_) => anyhow::bail!("{}: its near side is always this node", self.id),
            Run::Alone(why, _) => anyhow::bail!("{}: local only: {why}", self.id),
        }?;
        cast.dismiss()
    }

    /// Where it can be run, in a word and perhaps a reason.
    pub(crate) fn places(&self) -> String {
        match self.run {
            Run::Alone(why, _) => format!("local only: {why}"),
            Run::Toward(_) => "between nodes: toward".to_owned(),
            Run::Both(_) => "between nodes: both ways".to_owned(),
        }
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
