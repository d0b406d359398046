// SPDX-License-Identifier: MIT OR Apache-2.0
//! The gateway as a program. Everything it does is in the library.
#![forbid(unsafe_code)]

use clap::Parser;
use mol_fs::run::Servers;
use mol_fuse::run;
use std::path::PathBuf;
use std::process::ExitCode;

/// Mounts a file system of a MoL file server in Linux, until it is unmounted or this is told to end
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The device of the container
    #[arg(long, default_value = "/dev/dvk", value_name = "FILE")]
    dvk: PathBuf,
    /// The server: a slot, in which it is found on its own node only, or the group that it serves for
    #[arg(long, value_name = "SLOT|GROUP")]
    server: Servers,
    /// Which of its mounts; the first, if it is not said
    #[arg(long, default_value = "")]
    label: String,
    /// Change nothing
    #[arg(long, conflicts_with = "stdio")]
    read_only: bool,
    /// Mount nothing, but answer what a Linux elsewhere asks on standard input, as FUSE has it
    #[arg(long, conflicts_with = "at")]
    stdio: bool,
    /// The directory to mount it on
    #[arg(required_unless_present = "stdio")]
    at: Option<PathBuf>,
}

fn main() -> ExitCode {
    let Arguments { dvk, server, label, read_only, stdio: _, at } = Arguments::parse();
    let ended = match at {
        Some(at) => run::mount(&dvk, &server, &label, &at, read_only),
        None => run::answer(&dvk, &server, &label),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mol-fuse: {error}");
            ExitCode::FAILURE
        }
    }
}
