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
use crate::check::equal;
use crate::wish;
use core::time::Duration;
use dvk::{Endpoint, Message, Timeout};

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

/// One of the two in a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Near,
    Far,
}

impl Side {
    /// Its name, for people and command lines.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Near => "near",
            Self::Far => "far",
        }
    }

    /// The one that is named so.
    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Near, Self::Far].into_iter().find(|side| side.name() == name)
    }
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
    pub(crate) fn run_between(&self, cast: &Cast, side: Side) -> anyhow::Result<()> {
        match self.run {
            Run::Both(run) => run(cast),
            Run::Toward(run) if side == Side::Far => run(cast),
            Run::Toward(_) => anyhow::bail!("{}: its near side is always this node", self.id),
            Run::Alone(why, _) => anyhow::bail!("{}: local only: {why}", self.id),
        }
    }

    /// The sides that can be on another node, while the other one is on this.
    pub(crate) fn sides_there(&self) -> &'static [Side] {
        match self.run {
            Run::Alone(..) => &[],
            Run::Toward(_) => &[Side::Far],
            Run::Both(_) => &[Side::Far, Side::Near],
        }
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

/// The cases whose names match, all without a pattern.
pub(crate) fn chosen(only: Option<&glob::Pattern>) -> Vec<&'static Case> {
    match only {
        Some(only) if only.as_str() == FAILS.id => vec![&FAILS],
        _ => all().filter(|case| only.is_none_or(|only| only.matches(case.id))).collect(),
    }
}

/// The case of this name.
pub(crate) fn named(id: &str) -> Option<&'static Case> {
    all().chain([&FAILS]).find(|case| case.id == id)
}

/// Proves of the program that what goes wrong on either side is reported: it must fail. It is run only
/// if it is named, and is no rule.
static FAILS: Case = Case::both("this-case-fails", fails);

/// Claims that the first of two messages is the second one.
fn fails(cast: &Cast) -> anyhow::Result<()> {
    let (near, far) = (cast.near()?, cast.far()?);
    let waiting = far.begin(wish::receive(Endpoint::ANY, Timeout::Forever))?;
    near.send(far.endpoint(), &Message::new(1), Timeout::Forever)?;
    let received = waiting.join("the first message")??;
    equal("the kind of the first message", received.message.kind, 2)
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
