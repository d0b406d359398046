// SPDX-License-Identifier: MIT OR Apache-2.0
//! How fast processes talk to each other: the program `dvk-bench` in two machines, one after the other, and what follows from its
//! figures.

mod figures;
mod profile;
mod table;

use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use dvk_bench::{Line, Mechanism, Policy, Record, Unit};
use dvs_config::{Power, Run};
use dvs_qemu::accel::{Accelerator, Choice};
use dvs_qemu::machine::{Memory, QEMU};
use dvs_qemu::{boot_once, End, Options};

use super::{plot, Output};
use crate::artefacts::{self, Artefacts};
use crate::doctor::{self, Need};
use crate::kernel::{Image, Variant};
use crate::qemu::accelerator;
use crate::source::{Origin, Pins};
use crate::step::{Session, Step};
use figures::{Figures, Missing};

const PROGRAM: &str = "/usr/libexec/dvs/dvk-bench";
const MEMORY: Memory = Memory { mib: 256 };
/// How long a machine may take; more than ten times what it needs on a quiet host.
const PATIENCE: Duration = Duration::from_secs(1800);

/// Arguments of `cargo xtask bench ipc`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Fewer and shorter repetitions: figures to look at, not to quote
    #[arg(long)]
    quick: bool,
    /// Only these mechanisms
    #[arg(long, value_enum, value_delimiter = ',', value_name = "MECHANISM,…")]
    only: Vec<Mechanism>,
    /// Only what is counted in this; both without it
    #[arg(long, value_enum)]
    clock: Option<Clock>,
    /// Measure nothing, but say where the instructions of this mechanism go, by function of the kernel
    #[arg(long, value_enum, value_name = "MECHANISM", conflicts_with_all = ["quick", "only", "clock"])]
    profile: Option<Mechanism>,
    /// Under which policy to profile it
    #[arg(long, value_enum, default_value_t = Policy::Default, requires = "profile")]
    policy: Policy,
    /// Profile copies of as many bytes instead of round trips
    #[arg(long, value_name = "BYTES", requires = "profile")]
    copy: Option<u32>,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// A clock of the guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Clock {
    /// Time as it passes, on two processors
    Wall,
    /// Executed instructions, on one processor; the same figures every time
    Instructions,
}

impl Clock {
    /// Its name, as `dvk-bench` and the logs have it.
    fn name(self) -> &'static str {
        match self {
            Self::Wall => "wall",
            Self::Instructions => "instructions",
        }
    }

    fn unit(self) -> Unit {
        match self {
            Self::Wall => Unit::Nanoseconds,
            Self::Instructions => Unit::Instructions,
        }
    }
}

/// Measures, prints and draws. Whether something is fast is not asked.
pub(super) fn run(arguments: &Arguments, session: &Session, origin: &Origin) -> Result<()> {
    doctor::require(session, &[Need::Qemu], &Pins::read(session)?.tools)?;
    let built = artefacts::build(session, origin, Variant::Bench, Image::Vmlinux, true)?;
    let mut step = session.begin("bench ipc", "starting")?;
    if let Some(mechanism) = arguments.profile {
        let profile = profile::take(arguments, mechanism, session, &mut step, &built)?;
        step.finish(&format!("a profile of {mechanism}"));
        match arguments.output {
            Output::Json => println!("{}", serde_json::to_string(&profile)?),
            Output::Table => print!("{}", profile.table()),
        }
        return Ok(());
    }
    let clocks = match arguments.clock {
        Some(clock) => vec![clock],
        None => vec![Clock::Wall, Clock::Instructions],
    };
    let (mut records, mut missing) = (Vec::new(), Vec::new());
    let host = accelerator(Choice::Auto, QEMU, &session.workspace.cache, &built.kernel.image);
    for clock in clocks {
        let lines = measure(arguments, session, &mut step, &built, clock, host)?;
        for line in lines {
            match line {
                Line::Record(record) => records.push(record),
                Line::Missing { mechanism, task, why } => {
                    step.remark(&format!("{mechanism} was not measured ({task:?}): {why}"));
                    missing.push(Missing { mechanism, task, unit: clock.unit(), why });
                }
                Line::Repeating { .. } | Line::Done => {}
            }
        }
    }
    step.finish(&format!("{} measurements", records.len()));
    let figures = Figures::new(host, &records, missing);
    let plots = plot::save(
        &session.workspace.target.join("bench"),
        [
            ("ipc-message-rate.svg", figures.message_rates()),
            ("ipc-copy-throughput.svg", figures.copy_throughput()),
        ],
    )?;
    super::print(arguments.output, &figures, table::text, &plots)
}

/// Boots a machine with that clock and returns what `dvk-bench` says there.
fn measure(
    arguments: &Arguments,
    session: &Session,
    step: &mut Step,
    built: &Artefacts,
    clock: Clock,
    host: Accelerator,
) -> Result<Vec<Line>> {
    let mut options = machine(built, clock, host)?;
    let mut command = program(clock, &arguments.only);
    command.extend(arguments.quick.then(|| "--quick".to_owned()));
    options.run = Some(Run { command, power: Power::Off, services: false });
    let log = session.store.directory("logs")?.join(format!("bench-ipc-{}", clock.name()));
    options.logs = Some(log.clone());
    step.now(&format!("booting to measure {}", clock.name()));
    let mut lines = Vec::new();
    let mut damaged = None;
    let outcome = boot_once(&options, PATIENCE, |text| {
        match Line::parse(text) {
            Some(Ok(line)) => {
                if let Line::Record(record) = &line {
                    step.now(&doing(record));
                }
                lines.push(line);
            }
            Some(Err(_)) if text.contains('{') => damaged = Some(text.to_owned()),
            // A complaint of the program's, which the log keeps.
            Some(Err(_)) | None => {}
        }
        true
    })?;
    let log = log.join("console.log");
    if let Some(line) = damaged {
        bail!("reading a figure: the line is damaged: {line}; console: {}", log.display());
    }
    ensure!(
        outcome.end == End::PoweredOff
            && outcome.exit_status == Some(0)
            && lines.last() == Some(&Line::Done),
        "measuring {}: the machine ended with {:?}, the program with {:?}; console: {}",
        clock.name(),
        outcome.end,
        outcome.exit_status,
        log.display()
    );
    Ok(lines)
}

/// A machine with that clock, which has nothing to do yet.
fn machine(built: &Artefacts, clock: Clock, host: Accelerator) -> Result<Options> {
    let root = built.root.test.as_ref().context("packing the overlay for tests")?;
    let mut options = Options::new(&built.kernel.image, root);
    options.memory = MEMORY;
    (options.cpus, options.accelerator) = match clock {
        Clock::Wall => (2, host),
        Clock::Instructions => (1, Accelerator::Counting),
    };
    Ok(options)
}

/// The command line of `dvk-bench`.
fn program(clock: Clock, only: &[Mechanism]) -> Vec<String> {
    let mut command = vec![PROGRAM.to_owned(), format!("--clock={}", clock.name())];
    if !only.is_empty() {
        let names: Vec<_> = only.iter().map(|mechanism| mechanism.name()).collect();
        command.push(format!("--only={}", names.join(",")));
    }
    command
}

/// What was measured last, for the progress line.
fn doing(record: &Record) -> String {
    format!(
        "measured {} {:?}, {:?}, {:?}, {} pairs",
        record.mechanism, record.task, record.placement, record.policy, record.pairs
    )
}
