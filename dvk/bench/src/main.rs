// SPDX-License-Identifier: MIT OR Apache-2.0
//! Measures what the command line asks for, and prints a line for each result.
#![deny(unsafe_code)]

mod mechanism;
mod net;
mod plan;
mod run;
#[allow(unsafe_code)]
mod sys;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use dvk_bench::{Line, Mechanism, Placement, Policy, Task, Unit};
use plan::Effort;
use std::collections::BTreeSet;
use std::process::ExitCode;

/// Compares the DVK with other message passing.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    /// What to measure.
    #[arg(long, value_enum, default_value_t = Clock::Wall)]
    clock: Clock,
    /// Fewer and shorter batches.
    #[arg(long)]
    quick: bool,
    /// Only these mechanisms.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Mechanism>,
    /// Measure nothing: repeat what this mechanism does, for whoever watches the processor.
    #[arg(long, value_enum)]
    repeat: Option<Mechanism>,
    /// Under which policy to repeat it.
    #[arg(long, value_enum, default_value_t = Policy::Default)]
    policy: Policy,
    /// Repeat copies of as many bytes instead of round trips.
    #[arg(long, value_name = "BYTES")]
    copy: Option<u32>,
}

/// What else the program can be.
#[derive(clap::Subcommand)]
enum Role {
    /// One of two that measure between nodes: take orders from standard input.
    Net,
}

/// Operations of a batch that is repeated.
const REPEATED: u64 = 100;

/// A clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Clock {
    /// Nanoseconds.
    Wall,
    /// Instructions; for QEMU with `-icount shift=0`.
    Instructions,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dvk-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    if let Some(Role::Net) = arguments.role {
        return net::run();
    }
    let unit = match arguments.clock {
        Clock::Wall => Unit::Nanoseconds,
        Clock::Instructions => Unit::Instructions,
    };
    // Linux takes the processor from SCHED_FIFO for 50 ms of every second. A kernel that does not need to be told has no such file.
    let _ = std::fs::write("/proc/sys/kernel/sched_rt_runtime_us", "-1");
    if let Some(mechanism) = arguments.repeat {
        let (placement, policy) = (Placement::OneCpu, arguments.policy);
        let task = arguments.copy.map_or(Task::RoundTrip, Task::Copy);
        let setup = plan::Setup { mechanism, task, placement, policy, pairs: 1 };
        let ready = || println!("{}", Line::Repeating { operations: REPEATED });
        match run::repeat(&setup, REPEATED, ready)? {}
    }
    let cpus = std::thread::available_parallelism().context("counting processors")?.get();
    let effort = Effort::of(unit, arguments.quick);
    let mut missing = BTreeSet::new();
    for setup in plan::plan(unit, cpus, &arguments.only) {
        let plan::Setup { mechanism, task, .. } = setup;
        let kind = (mechanism, task == Task::RoundTrip);
        if missing.contains(&kind) {
            continue;
        }
        match run::measure(&setup, unit, effort) {
            Ok(record) => println!("{}", Line::Record(record)),
            Err(error) => {
                println!("{}", Line::Missing { mechanism, task, why: format!("{error:#}") });
                missing.insert(kind);
            }
        }
    }
    println!("{}", Line::Done);
    Ok(())
}
