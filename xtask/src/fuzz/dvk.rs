// SPDX-License-Identifier: MIT OR Apache-2.0
//! The driver, fuzzed from user space and from the network: `dvk-fuzz` in a virtual machine.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dvk_fuzz::complaint::{complaints, is_complaint};
use dvs_config::{Power, Run};
use dvs_qemu::machine::Memory;
use dvs_qemu::{boot_once, End, Options};

use super::tally::Tally;
use crate::artefacts::{self, Artefacts};
use crate::doctor::{self, Need};
use crate::kernel::{Image, Variant};
use crate::source::{Origin, Pins};
use crate::step::{Session, Step};

/// Lockdep's tables, KASAN's shadow and quarantine, and what three processes use.
const MEMORY: Memory = Memory { mib: 1536 };
/// Processes at once.
const PROCESSES: usize = 3;
/// How long a boot, the warm-up and the looking for leaks may take, and how long a call: generous, for slow machines.
const BOOT: Duration = Duration::from_secs(900);
const CALL: Duration = Duration::from_millis(10);
/// How long after a complaint the fuzzer in the machine may take to say what it did.
const LAST_WORDS: Duration = Duration::from_secs(120);

/// Arguments of `cargo xtask fuzz dvk`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many calls at least
    #[arg(long, default_value_t = 100_000)]
    calls: u64,
    /// What the programs are made of; which of their calls come first is up to the machine and not repeated
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The kernel: debug finds most, the others are faster
    #[arg(long, value_enum, default_value_t = Variant::Debug)]
    kernel: Variant,
    /// Run only the program of this number, again and again, to narrow down what was found
    #[arg(long, value_name = "NUMBER")]
    only_worker: Option<u64>,
    /// Processes at once
    #[arg(long, default_value_t = PROCESSES)]
    processes: usize,
    /// Follow each allocation of the debug kernel, and look for objects that nobody refers to: finds single leaks, at a fraction
    /// of the speed
    #[arg(long)]
    kmemleak: bool,
}

/// What a run came to.
pub(crate) struct Ran {
    tally: Tally,
    /// What was found, one line each, and then where to read more and how to repeat it. Empty if nothing was.
    pub(crate) findings: Vec<String>,
    logs: PathBuf,
}

/// Runs it and prints the tally; says whether nothing was found.
///
/// # Errors
/// When something does not build or QEMU cannot be run.
pub(super) fn run(arguments: &Arguments, session: &Session, origin: &Origin) -> Result<bool> {
    doctor::require(session, &[Need::Qemu], &Pins::read(session)?.tools)?;
    let built = artefacts::build(session, origin, arguments.kernel, Image::Vmlinux, true)?;
    let doing = format!("booting the {} kernel", arguments.kernel.name());
    let mut step = session.begin("fuzz dvk", &doing)?;
    let ran = arguments.run_in_machine(session, &mut step, built)?;
    step.finish(&format!("{} calls were made; console: {}", ran.tally.calls(), ran.logs.display()));
    print!("{}", ran.tally.table());
    for finding in &ran.findings {
        println!("{finding}");
    }
    println!("{}", ran.tally.summary(arguments.seed, ran.findings.is_empty()));
    Ok(ran.findings.is_empty())
}

impl Arguments {
    /// A short run with the first seed.
    pub(crate) fn short(kernel: Variant, calls: u64) -> Self {
        Self { calls, seed: 1, kernel, only_worker: None, processes: PROCESSES, kmemleak: false }
    }

    /// Boots a machine from what was built, lets it make the calls, and listens.
    ///
    /// # Errors
    /// When QEMU cannot be run.
    pub(crate) fn run_in_machine(
        &self,
        session: &Session,
        step: &mut Step,
        built: Artefacts,
    ) -> Result<Ran> {
        let initramfs = built.root.test.context("packing the overlay for tests")?;
        let mut options = Options::new(built.kernel.image, initramfs);
        options.memory = MEMORY;
        options.cpus = 2;
        // Warnings are to be seen, of which lockdep's are some, but no less important lines.
        options.append = vec!["loglevel=5".into(), "oops=panic".into()];
        if self.kernel == Variant::Debug {
            options.append.push("kunit.enable=0".into());
            options.append.push(if self.kmemleak { "kmemleak=on" } else { "kmemleak=off" }.into());
        }
        options.run = Some(Run { command: self.command(), power: Power::Off, services: false });
        let logs = session.store.directory("logs")?.join("fuzz-dvk");
        fs::create_dir_all(&logs).with_context(|| format!("creating {}", logs.display()))?;
        options.logs = Some(logs.clone());

        let mut tally = Tally::default();
        let mut complained: Option<Instant> = None;
        let patience = BOOT + CALL * u32::try_from(self.calls).unwrap_or(u32::MAX);
        let outcome = boot_once(&options, patience, |line| {
            if is_complaint(line) && complained.is_none() {
                complained = Some(Instant::now());
                step.remark(&format!("the kernel complained: {line}"));
            }
            if let Some(news) = tally.line(line) {
                step.now(&news);
            }
            complained.is_none_or(|at| at.elapsed() < LAST_WORDS)
        })?;

        let complaints = complaints(&outcome.console);
        let mut findings: Vec<String> =
            tally.faults().iter().map(String::as_str).chain(complaints).map(found).collect();
        findings.extend(tally.undocumented().iter().map(|text| found(text)));
        if outcome.end != End::PoweredOff || outcome.exit_status != Some(0) && findings.is_empty() {
            findings.push(found(&format!(
                "the machine should have powered off after the program; it ended with {:?}, the program with {:?}",
                outcome.end, outcome.exit_status
            )));
        }
        if !findings.is_empty() {
            findings.push(format!(
                "what every thread did last: grep 'fuzz: last' {}/*",
                logs.display()
            ));
            findings.push(self.again(&tally));
        }
        Ok(Ran { tally, findings, logs })
    }

    /// What the machine runs.
    fn command(&self) -> Vec<String> {
        let slow = if self.kernel == Variant::Debug { 4 } else { 1 };
        let mut command = vec![
            "/usr/libexec/dvs/dvk-fuzz".to_owned(),
            format!("--calls={}", self.calls),
            format!("--seed={}", self.seed),
            format!("--processes={}", self.processes),
            format!("--slow={slow}"),
        ];
        command.extend(self.only_worker.map(|number| format!("--only-worker={number}")));
        command
    }

    /// How to make the same calls again.
    fn again(&self, tally: &Tally) -> String {
        let Self { calls, seed, kernel, .. } = self;
        let kernel = kernel.name();
        let mut text =
            format!("again: cargo xtask fuzz dvk --calls {calls} --seed {seed} --kernel {kernel}");
        match self.only_worker {
            Some(number) => text.push_str(&format!(" --only-worker {number}")),
            None => text.push_str(&format!(
                "; one program alone: add --only-worker NUMBER, of those that ran last: {}",
                tally.running()
            )),
        }
        text
    }
}

fn found(what: &str) -> String {
    format!("found: {what}")
}
