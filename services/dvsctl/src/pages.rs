// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is made of the definition of the command line: completions of shells, and manual pages.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::arguments::Arguments;
use crate::Failure;

pub(crate) fn completions(shell: Shell) -> Result<ExitCode, Failure> {
    // What generates it cannot say that nobody reads it any more.
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "dvsctl", &mut text);
    let mut stdout = io::stdout().lock();
    stdout.write_all(&text)?;
    stdout.flush()?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn manual(directory: &Path) -> Result<ExitCode, Failure> {
    let command = Arguments::command().version(env!("CARGO_PKG_VERSION"));
    fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(command, directory))
        .map_err(|error| {
            Failure::Refused(format!("write manual pages to {}: {error}", directory.display()))
        })?;
    Ok(ExitCode::SUCCESS)
}
