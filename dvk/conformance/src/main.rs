// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod blocked;
mod borrower;
mod cases;
mod cast;
mod check;
mod crew;
mod dvs;
mod lender;
mod lent;
mod memory;
mod messenger;
mod order;
mod player;
mod puppet;
mod runner;
mod seen;
mod tap;
mod troupe;
mod wish;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use std::process::ExitCode;

/// Proves that the running kernel keeps the rules of the DVK reference.
#[derive(Parser)]
struct Arguments {
    /// Name the cases, each with where its peers can be, and run none.
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
    /// One case, with one side in a process on another node that speaks on standard input and
    /// output: its name, a container to make, the two nodes, and `near` or `far`, the side that is
    /// there.
    Between,
    /// The process there, and those that it starts.
    Troupe,
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
        Some(Role::Between) => run_between(&arguments.about).map(|()| true),
        Some(Role::Troupe) => player::play().map(|()| true),
        Some(Role::Puppet) => puppet::play().map(|()| true),
        Some(Role::Heir) => puppet::inherit().map(|()| true),
        Some(Role::Lender) => lender::lend(dvs::HOME).map(|()| true),
        Some(Role::Glutton) => gorge(&arguments.about).map(|()| true),
        Some(Role::Tables) => seen::say_tables().map(|()| true),
        Some(Role::Borrower) => borrow(&arguments.about).map(|()| true),
        None if arguments.list => {
            for case in cases::all() {
                println!("{}  # {}", case.id, case.places());
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

fn case(id: Option<&str>) -> anyhow::Result<&'static cases::Case> {
    let id = id.context("which case? name one of --list")?;
    let case = cases::all().find(|case| case.id == id);
    case.with_context(|| format!("no case is named {id}; --list names them"))
}

fn run_case(id: Option<&str>) -> anyhow::Result<()> {
    case(id)?.run_here()
}

fn run_between(about: &[String]) -> anyhow::Result<()> {
    let [id, container, here, there, side] = about else {
        anyhow::bail!("name a case, a container, two nodes and the side that is on the second one");
    };
    let swapped = match side.as_str() {
        "far" => false,
        "near" => true,
        other => anyhow::bail!("no side of a case is {other}: it is near or far"),
    };
    let case = case(Some(id))?;
    let cast = cast::Cast::between(container.parse()?, [here.parse()?, there.parse()?], swapped)?;
    case.run_between(cast, swapped)
}
