// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask bench`: figures, measured and printed. They depend on the host, so nothing is ever asserted about them.

mod boot;
mod ipc;
mod membership;
mod mol;
mod neighbours;
mod net;
mod plot;
mod profile;
mod ratio;
mod spread;
mod storage;
mod symbols;
mod web;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use serde::Serialize;

use crate::qemu::Boot;
use crate::source::Origin;
use crate::step::Session;

/// What to measure.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Bench {
    /// How long a virtual cluster takes to be ready, and how much memory and image that costs
    Boot(boot::Arguments),
    /// How fast processes talk: M3-IPC and what else Linux offers, in time and in instructions
    Ipc(ipc::Arguments),
    /// How fast processes on two nodes talk: M3-IPC over each transport, and TIPC, TCP and UDP sockets
    Net(net::Arguments),
    /// How fast failures are noticed and what that costs, by the number of nodes, in a simulation
    Membership(membership::Arguments),
    /// What MoL's disks and files cost: VDD beside NBD, local and remote, with and without replicas, and MoL-FS beside bare copies
    Storage(storage::Arguments),
    /// What MoL's web server costs: files of MoL-FS beside files of a directory, on one node and on two
    Web(web::Arguments),
    /// What a container loses to another one on its node that tries to have the node for itself
    Neighbours(neighbours::Arguments),
    /// One start of a cluster, timed by the process that called this
    #[command(hide = true)]
    BootOnce {
        /// Number of nodes
        nodes: usize,
        /// How they boot
        #[arg(value_enum)]
        boot: Boot,
    },
}

/// How the figures are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Table,
    /// For programs
    Json,
}

impl Bench {
    /// Measures and prints.
    ///
    /// # Errors
    /// When something does not build or start, or does not become ready.
    pub(crate) fn run(&self, session: &Session, origin: &Origin) -> Result<ExitCode> {
        match self {
            Bench::Boot(arguments) => boot::run(arguments, session, origin)?,
            Bench::Ipc(arguments) => ipc::run(arguments, session, origin)?,
            Bench::Net(arguments) => net::run(arguments, session, origin)?,
            Bench::Membership(arguments) => membership::run(arguments, session)?,
            Bench::Storage(arguments) => storage::run(arguments, session, origin)?,
            Bench::Web(arguments) => web::run(arguments, session, origin)?,
            Bench::Neighbours(arguments) => neighbours::run(arguments, session, origin)?,
            Bench::BootOnce { nodes, boot } => boot::once(*nodes, *boot, session, origin)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Prints figures: as JSON, or as `text` makes them for people, and where their plots are.
fn print<F: Serialize>(
    output: Output,
    figures: &F,
    text: impl FnOnce(&F) -> String,
    plots: &[String],
) -> Result<()> {
    match output {
        Output::Json => println!("{}", serde_json::to_string(figures)?),
        Output::Table => {
            print!("{}", text(figures));
            plots.iter().for_each(|path| println!("plot: {path}"));
        }
    }
    Ok(())
}

/// A whole number with its thousands apart.
fn count(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_apart() {
        assert_eq!(
            [1.0, 999.0, 1000.0, 65_536.0, 1_048_576.0].map(count),
            ["1", "999", "1,000", "65,536", "1,048,576"]
        );
    }
}
