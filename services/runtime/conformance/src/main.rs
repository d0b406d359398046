// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod bench;
mod cases;
mod probe;
mod runner;
mod traces;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Shows that containers of this node keep the rules.
#[derive(Parser)]
struct Arguments {
    /// Run only the cases whose name matches.
    #[arg(long, value_name = "GLOB")]
    only: Option<glob::Pattern>,
    /// The id of this node.
    #[arg(long, default_value_t = 0)]
    node: u32,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What this program is when it was started by itself.
#[derive(Clone, Subcommand)]
enum Role {
    /// Tries what a container must not do, and prints what came of it.
    Probe,
    /// Uses so much memory, in MiB, and says so.
    Hog { mebibytes: usize },
    /// Uses a processor until it is ended.
    Spin,
    /// Binds an endpoint by `/dev/dvk` and says which.
    Bind,
    /// Exchanges messages with itself until it is ended, and says how often.
    Exchange,
    /// Sends so many bytes to everybody who connects.
    Serve { at: String, amount: u64 },
    /// Receives all that there is, and says how much that was and how many milliseconds it took.
    Fetch {
        from: String,
        /// Give up at the first failure.
        #[arg(long)]
        once: bool,
    },
    /// Is one of two containers on two nodes whose network is one.
    Span {
        #[arg(long)]
        serve: bool,
    },
    /// Counts what there is on the node, and after a line of input what has been left since.
    Count,
    /// Makes the container that standard input describes, and waits.
    Maker,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.role {
        None => runner::run(arguments.only.as_ref(), arguments.node),
        Some(Role::Probe) => probe::all().map(|()| true),
        Some(Role::Hog { mebibytes }) => probe::hog(mebibytes).map(|()| true),
        Some(Role::Spin) => probe::spin(),
        Some(Role::Bind) => probe::bind().map(|()| true),
        Some(Role::Exchange) => probe::exchange().map(|()| true),
        Some(Role::Serve { at, amount }) => probe::serve(&at, amount).map(|()| true),
        Some(Role::Fetch { from, once }) => probe::fetch(&from, once).map(|()| true),
        Some(Role::Span { serve }) => bench::Bench::new(arguments.node)
            .and_then(|bench| cases::network::span(&bench, serve))
            .map(|()| true),
        Some(Role::Count) => traces::compare().map(|()| true),
        Some(Role::Maker) => bench::make().map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
