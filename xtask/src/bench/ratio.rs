// SPDX-License-Identifier: MIT OR Apache-2.0
//! How M3-IPC compares with something else.

use std::fmt::Write as _;

use serde::Serialize;

/// How many times better M3-IPC is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Ratio {
    pub(super) name: &'static str,
    /// The other's cost divided by M3-IPC's; above 1, M3-IPC is better.
    pub(super) ratio: f64,
    /// Better than what: the best of the others, if not one that was chosen.
    pub(super) against: String,
    /// What it is meant to be at least.
    pub(super) goal: f64,
}

/// A line for each, under a title; nothing if there are none.
pub(super) fn lines(title: &str, ratios: &[Ratio]) -> String {
    if ratios.is_empty() {
        return String::new();
    }
    let mut text = format!("\n{title}\n");
    for ratio in ratios {
        let (name, goal, against) = (ratio.name, ratio.goal, &ratio.against);
        let met = if ratio.ratio >= goal { "met" } else { "missed" };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{name:<42}{:>7.2}  against {against:<18}goal {goal:.2}: {met}",
            ratio.ratio
        );
    }
    text
}
