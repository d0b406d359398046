// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask bench`: figures, measured and printed. They depend on the host, so nothing is ever asserted about them.

mod boot;
mod ipc;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Subcommand, ValueEnum};

use crate::source::Origin;
use crate::step::Session;

/// What to measure.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Bench {
    /// How long a virtual cluster takes to be ready, and how much memory and image that costs
    Boot(boot::Arguments),
    /// How fast processes talk: M3-IPC and what else Linux offers, in time and in instructions
    Ipc(ipc::Arguments),
    /// One start of a cluster, timed by the process that called this
    #[command(hide = true)]
    BootOnce {
        /// Number of nodes
        nodes: usize,
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
            Bench::BootOnce { nodes } => boot::once(*nodes, session, origin)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
