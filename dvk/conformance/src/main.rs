// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod blocked;
mod borrower;
mod cases;
mod check;
mod dvs;
mod lender;
mod lent;
mod puppet;
mod runner;
mod seen;
mod tap;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use std::process::ExitCode;

/// Proves that the running kernel keeps the rules of the DVK reference.
#[derive(Parser)]
struct Arguments {
    /// Name the cases and run none.
    #[arg(long)]
    list: bool,
    /// Run only the cases whose name matches.
    #[arg(long, value_name = "GLOB")]
    only: Option<glob::Pattern>,
    /// Multiply the time limit of every case, for slow machines.
    #[arg(long, value_name = "N", default_value_t = 1)]
    slow: u32,
    /// Be a part of a test instead of the whole.
    #[arg(long, hide = true)]
    role: Option<Role>,
    /// Which case to run in the role of one; what others need to know.
    #[arg(hide = true)]
    about: Vec<String>,
}

/// What this program is when it has started itself.
#[derive(Clone, Copy, ValueEnum)]
enum Role {
    /// One case.
    Case,
    /// A party that does what the lines on its standard input say.
    Puppet,
    /// A party whose standard input is its endpoint.
    Heir,
    /// A server in container 0 that lends memory; it says its endpoint.
    Lender,
    /// Copies from one lender until its node is down.
    Glutton,
    /// Says what the kernel's tables say, each after a line with its name.
    Tables,
    /// Tries copies with two lenders, whose endpoints are its arguments.
    Borrower,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let passed = match arguments.role {
        Some(Role::Case) => run_case(arguments.about.first().map(String::as_str)).map(|()| true),
        Some(Role::Puppet) => puppet::play().map(|()| true),
        Some(Role::Heir) => puppet::inherit().map(|()| true),
        Some(Role::Lender) => lender::lend(dvs::HOME).map(|()| true),
        Some(Role::Glutton) => gorge(&arguments.about).map(|()| true),
        Some(Role::Tables) => seen::say_tables().map(|()| true),
        Some(Role::Borrower) => borrow(&arguments.about).map(|()| true),
        None if arguments.list => {
            for case in cases::all() {
                println!("{}", case.id);
            }
            Ok(true)
        }
        None => runner::run(arguments.only.as_ref(), arguments.slow),
    };
    match passed {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn endpoints<const N: usize>(raw: &[String]) -> anyhow::Result<[dvk::Endpoint; N]> {
    let raw: Vec<u64> = raw.iter().map(|raw| raw.parse()).collect::<Result<_, _>>()?;
    let raw: [u64; N] = raw.try_into().map_err(|_| anyhow::anyhow!("{N} lenders are needed"))?;
    Ok(raw.map(dvk::Endpoint::from_raw))
}

fn borrow(lenders: &[String]) -> anyhow::Result<()> {
    borrower::borrow(dvs::HOME, endpoints(lenders)?)
}

fn gorge(lenders: &[String]) -> anyhow::Result<()> {
    let [lender] = endpoints(lenders)?;
    borrower::gorge(dvs::HOME, lender)
}

fn run_case(id: Option<&str>) -> anyhow::Result<()> {
    let id = id.context("which case? name one of --list")?;
    let case = cases::all().find(|case| case.id == id);
    let case = case.with_context(|| format!("no case is named {id}; --list names them"))?;
    (case.run)()
}
