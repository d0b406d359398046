// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod guest;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};

use guest::board::{Board, PROCESSES_MAX};
use guest::{partner, supervisor, worker};

/// Makes hostile calls of the DVK on this machine, which is to be a guest of its own.
#[derive(Parser)]
struct Arguments {
    /// How many calls at least.
    #[arg(long, default_value_t = 10_000)]
    calls: u64,
    /// What the programs are made of.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Processes at once.
    #[arg(long, default_value_t = 3, value_parser = processes)]
    processes: usize,
    /// Multiply all patience, for slow machines.
    #[arg(long, default_value_t = 1)]
    slow: u32,
    /// Run only the program of this number, again and again.
    #[arg(long, value_name = "NUMBER")]
    only_worker: Option<u64>,
    /// Be a part of a run instead of the whole.
    #[arg(long, hide = true)]
    role: Option<Role>,
    #[arg(long, hide = true, default_value_t = 0)]
    number: u64,
    #[arg(long, hide = true, default_value_t = 0)]
    place: usize,
    #[arg(long, hide = true)]
    board: Option<PathBuf>,
    #[arg(long, hide = true)]
    shared: Option<PathBuf>,
}

/// What this program is when it has started itself.
#[derive(Clone, Copy, ValueEnum)]
enum Role {
    /// One process that makes calls.
    Worker,
    /// A peer node.
    Partner,
    /// What a process becomes that executes something else.
    Nothing,
}

fn processes(text: &str) -> Result<usize, String> {
    let number = text.parse().map_err(|error| format!("{error}"))?;
    if (1..=PROCESSES_MAX).contains(&number) {
        Ok(number)
    } else {
        Err(format!("1 to {PROCESSES_MAX} processes"))
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("dvk-fuzz: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<bool> {
    let board = || arguments.board.as_deref().context("which board?");
    match arguments.role {
        Some(Role::Worker) => {
            let (number, place) = (arguments.number, arguments.place);
            let Arguments { seed, slow, .. } = arguments;
            let errand = worker::Errand { seed, number, place, slow };
            let shared = arguments.shared.as_deref().context("which shared memory?")?;
            worker::run(errand, board()?, shared).map(|()| true)
        }
        Some(Role::Partner) => {
            let node = u16::try_from(arguments.number).context("which node?")?;
            partner::run(Board::open(board()?)?, node, arguments.seed, arguments.slow)
                .map(|()| true)
        }
        Some(Role::Nothing) => Ok(true),
        None => supervisor::run(supervisor::Plan {
            calls: arguments.calls,
            seed: arguments.seed,
            processes: arguments.processes,
            slow: arguments.slow,
            only: arguments.only_worker,
        }),
    }
}
