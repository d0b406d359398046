// SPDX-License-Identifier: MIT OR Apache-2.0
//! What failure detection costs and how fast it is, by the number of nodes: the daemon's code on a simulated network, in simulated time.

use std::env;
use std::process::{Command, Stdio};

use anyhow::{ensure, Context, Result};
use serde::{Deserialize, Serialize};

use super::plot::{self, Plot, Scale, Series};
use super::Output;
use crate::step::Session;

/// The code under test is optimised, what it stands on is not worth the wait.
const OPTIMISED: &str = "profile.dev.package.dvsd.opt-level=2";

/// Arguments of `cargo xtask bench membership`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Numbers of nodes
    #[arg(
        long,
        value_name = "N,…",
        value_delimiter = ',',
        default_values_t = [10, 30, 100, 300, 1_000],
        value_parser = clap::value_parser!(u32).range(2..=10_000)
    )]
    nodes: Vec<u32>,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// As the simulation prints them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Figures {
    nodes: u32,
    join_ms: u64,
    join_bytes_per_s: f64,
    messages_per_s: f64,
    bytes_per_s: f64,
    false_alarms: u64,
    first_ms: u64,
    first_max_ms: u64,
    all_ms: u64,
    all_max_ms: u64,
    tenth_ms: u64,
    back_ms: u64,
    apart_ms: u64,
    merge_ms: u64,
}

/// Measures, prints and draws.
pub(super) fn run(arguments: &Arguments, session: &Session) -> Result<()> {
    let mut step = session.begin("bench membership", "compiling the simulation")?;
    let cargo = |verb: &str| {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command
            .current_dir(&session.workspace.root)
            .args([verb, "--quiet", "--package", "dvsd", "--example", "membership"])
            .args(["--config", OPTIMISED])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit());
        command
    };
    let built = cargo("build").status().context("running cargo build")?;
    ensure!(built.success(), "compiling the simulation failed: {built}");
    let mut all = Vec::new();
    for nodes in &arguments.nodes {
        step.now(&format!("simulating {nodes} nodes"));
        let output = cargo("run").arg("--").arg(nodes.to_string()).output();
        let output = output.context("running the simulation")?;
        // It has said why.
        ensure!(output.status.success(), "simulating {nodes} nodes failed: {}", output.status);
        let figures: Figures =
            serde_json::from_slice(&output.stdout).context("reading what the simulation found")?;
        all.push(figures);
    }
    step.finish(&format!("{} numbers of nodes", all.len()));
    let plots = plot::save(
        &session.workspace.target.join("bench"),
        [("membership-traffic.svg", traffic(&all)), ("membership-times.svg", times(&all))],
    )?;
    super::print(arguments.output, &all, |all| table(all), &plots)
}

fn table(all: &[Figures]) -> String {
    let mut text = String::from(
        "        calm, a node           one fails: first       all  a tenth     comes\n\
         nodes  messages/s  bytes/s  false  median   max  median   max  fails     back    apart    merge     join\n",
    );
    for f in all {
        text += &format!(
            "{:>5}  {:>10.1}  {:>7.0}  {:>5}  {:>6}  {:>4}  {:>6}  {:>4}  {:>5}  {:>7}  {:>7}  {:>7}  {:>7}\n",
            f.nodes,
            f.messages_per_s,
            f.bytes_per_s,
            f.false_alarms,
            f.first_ms,
            f.first_max_ms,
            f.all_ms,
            f.all_max_ms,
            f.tenth_ms,
            f.back_ms,
            f.apart_ms,
            f.merge_ms,
            f.join_ms,
        );
    }
    text + "times are milliseconds of simulated time\n"
}

/// Messages that a node sends, by the number of nodes.
fn traffic(all: &[Figures]) -> Option<Plot> {
    let points = all.iter().map(|f| ("a node", Some((f64::from(f.nodes), f.messages_per_s))));
    let (title, x, y) = ("Messages for failure detection", "nodes", "messages/s");
    Plot::new(title, (x, Scale::Decades), (y, Scale::Linear), Series::collect(points))
}

/// How long it takes until everybody knows.
fn times(all: &[Figures]) -> Option<Plot> {
    let points = all.iter().flat_map(|f| {
        let at = |name, ms: u64| (name, Some((f64::from(f.nodes), ms as f64)));
        [
            at("one fails: first", f.first_ms),
            at("one fails: all", f.all_ms),
            at("a tenth fails", f.tenth_ms),
            at("a tenth is back", f.back_ms),
            at("halves part", f.apart_ms),
            at("halves meet", f.merge_ms),
            at("all join", f.join_ms),
        ]
    });
    let (title, x, y) = ("Until everybody knows", "nodes", "ms");
    Plot::new(title, (x, Scale::Decades), (y, Scale::Decades), Series::collect(points))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_a_row_and_a_place_in_both_plots() {
        let figures = |nodes: u32| Figures {
            nodes,
            join_ms: 340,
            join_bytes_per_s: 4_467.0,
            messages_per_s: 11.0,
            bytes_per_s: 1_583.0,
            false_alarms: 0,
            first_ms: 1_100,
            first_max_ms: 1_440,
            all_ms: 1_500,
            all_max_ms: 1_700,
            tenth_ms: 1_400,
            back_ms: 2_480,
            apart_ms: 1_860,
            merge_ms: 860,
        };
        let all = [figures(10), figures(1_000)];
        let table = table(&all);
        let row = table.lines().nth(3).unwrap();
        let cells: Vec<_> = row.split_whitespace().collect();
        assert_eq!(cells[..6], ["1000", "11.0", "1583", "0", "1100", "1440"]);
        let svg = times(&all).unwrap().svg();
        assert!(svg.contains("one fails: first") && svg.contains("all join"));
        assert!(traffic(&all).unwrap().svg().contains("messages/s"));
    }
}
