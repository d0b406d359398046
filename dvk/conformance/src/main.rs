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
    /// Multiply every time limit, for slow machines.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    slow: u32,
    /// Do between nodes as much as on one, which takes minutes.
    #[arg(long, hide = true)]
    long: bool,
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
    /// All cases that can be, with a side on another node: the number of the first container to
    /// make, this node and the other one. Who runs this passes lines of JSON on standard output to a
    /// troupe there, and what that says to standard input; other lines are the report.
    Between,
    /// One of these cases: its name, the side that is there, a container and the two nodes.
    BetweenCase,
    /// Does what it is told, with processes that it starts.
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
    blocked::be_slow(arguments.slow);
    let passed = match arguments.role {
        Some(Role::Case) => run_case(&arguments.about).map(|()| true),
        Some(Role::Between) => run_between(&arguments),
        Some(Role::BetweenCase) => run_between_case(&arguments).map(|()| true),
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

fn case(id: &str) -> anyhow::Result<&'static cases::Case> {
    cases::named(id).with_context(|| format!("no case is named {id}; --list names them"))
}

fn run_case(about: &[String]) -> anyhow::Result<()> {
    let [id] = about else { anyhow::bail!("name one case; --list names them all") };
    case(id)?.run_here()
}

fn run_between(arguments: &Arguments) -> anyhow::Result<bool> {
    let [container, here, there] =
        numbers(&arguments.about).context("a container and two nodes")?;
    let (only, slow) = (arguments.only.as_ref(), arguments.slow);
    runner::run_between(container, [here, there], only, slow, arguments.long)
}

fn run_between_case(arguments: &Arguments) -> anyhow::Result<()> {
    let [id, side, rest @ ..] = &arguments.about[..] else {
        anyhow::bail!("name a case and a side of it")
    };
    let [container, here, there] = numbers(rest).context("a container and two nodes")?;
    let named = cases::Side::named(side);
    let side = named.with_context(|| format!("no side of a case is {side}: it is near or far"))?;
    let cast = cast::Cast::between(container, [here, there], side, arguments.long)?;
    case(id)?.run_between(&cast, side)
}

fn numbers<const N: usize>(words: &[String]) -> anyhow::Result<[u32; N]> {
    let numbers: Vec<u32> = words.iter().map(|word| word.parse()).collect::<Result<_, _>>()?;
    numbers.try_into().map_err(|_| anyhow::anyhow!("{N} numbers are needed, not {}", words.len()))
}
