// SPDX-License-Identifier: MIT OR Apache-2.0
//! The API of a node: a program of `dvsd`'s makes the requests, since what is asked is `dvsd`.

use std::env;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::step::Session;

/// Arguments of the program.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many requests
    #[arg(long, default_value_t = 10_000)]
    calls: u64,
    /// What they are made of
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The first case, to repeat what was found
    #[arg(long, value_name = "CASE", default_value_t = 0)]
    from: u64,
}

/// Builds it, runs it, and exits as it does.
///
/// # Errors
/// When it does not build or cannot be run. What is found is no error.
pub(super) fn run(arguments: &Arguments, session: &Session) -> Result<ExitCode> {
    let cargo = || {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(&session.workspace.root);
        cargo
    };
    let target = ["--locked", "--package", "dvsd", "--example", "fuzz-api"];
    let mut step = session.begin("fuzz", "compiling the daemon")?;
    step.run(cargo().env("CARGO_TERM_COLOR", "never").arg("build").args(target))?;
    step.finish("the daemon is compiled");
    let Arguments { calls, seed, from } = arguments;
    let numbers = [calls, seed, from].map(ToString::to_string);
    let status = cargo()
        .args(["run", "--quiet"])
        .args(target)
        .arg("--")
        .args(numbers)
        .status()
        .context("running the fuzzer of the API")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
