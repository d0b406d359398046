// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests that run in a virtual machine: the driver's unit tests, where the kernel has them, then the conformance program in user
//! space, and on the debug kernel some thousand random hostile calls.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use dvk_fuzz::complaint::complaints;
use dvs_config::{Power, Run};
use dvs_qemu::machine::Memory;
use dvs_qemu::{boot_once, End, Options};

use crate::artefacts;
use crate::doctor::{self, Need};
use crate::fuzz::dvk::Arguments;
use crate::kernel::{Image, Variant};
use crate::source::{Origin, Pins};
use crate::step::{Session, Step};
use crate::test::summary::Outcome;
use crate::test::tap::Reader;

/// What the tests need, several times over; the debug kernel's shadow memory included.
const MEMORY: Memory = Memory { mib: 512 };

/// How long a boot with unit tests may take, and how long all conformance cases together.
const BOOT: Duration = Duration::from_secs(120);
const CONFORMANCE: Duration = Duration::from_secs(600);

/// Random calls on the debug kernel: enough to reach every kind of call, and few enough to take less than a minute.
const RANDOM_CALLS: u64 = 5_000;

/// The kernel says this when its own tests are over and it starts PID 1.
const BOOTED: &str = "Run /init as init process";

/// The name of the conformance suite on a kernel.
pub(super) fn suite(variant: Variant) -> &'static str {
    match variant {
        Variant::Node => "conformance",
        Variant::Bench => "conformance-bench",
        Variant::Debug => "conformance-debug",
    }
}

/// Runs them on the kernel `variant`: unit tests if it has any, then the conformance cases, of which `only` selects.
///
/// # Errors
/// When something does not build or QEMU cannot be run. Failing tests are outcomes, not errors.
pub(super) fn run(
    session: &Session,
    origin: &Origin,
    variant: Variant,
    only: Option<&str>,
) -> Result<Vec<Outcome>> {
    doctor::require(session, &[Need::Qemu], &Pins::read(session)?.tools)?;
    let built = artefacts::build(session, origin, variant, Image::Vmlinux, true)?;
    let initramfs = built.root.test.clone().context("packing the overlay for tests")?;
    let mut options = Options::new(built.kernel.image.clone(), initramfs);
    options.memory = MEMORY;
    options.cpus = 2;

    let kernel = format!("the {} kernel", variant.name());
    let mut step = session.begin("test kernel", &format!("testing {kernel}"))?;
    let mut outcomes = Vec::new();
    if variant.has_unit_tests() {
        step.now(&format!("running the driver's unit tests on {kernel}"));
        outcomes.extend(units(session, &mut step, options.clone())?);
        // So that the conformance program finds no tests of the kernel's own before its report.
        options.append = vec!["kunit.enable=0".into()];
    }
    step.now(&format!("running the conformance program on {kernel}"));
    let slow = if variant == Variant::Debug { 8 } else { 2 };
    let mut command = vec!["/usr/libexec/dvs/dvk-conformance".to_owned(), format!("--slow={slow}")];
    command.extend(only.map(|only| format!("--only={only}")));
    options.run = Some(Run { command, power: Power::Off, services: false });
    outcomes.extend(conformance(session, &mut step, suite(variant), options)?);
    if variant == Variant::Debug && only.is_none() {
        step.now(&format!("making random calls on {kernel}"));
        let ran =
            Arguments::short(variant, RANDOM_CALLS).run_in_machine(session, &mut step, built)?;
        let result = if ran.findings.is_empty() { Ok(()) } else { Err(ran.findings.join("\n")) };
        outcomes.push(Outcome::of("fuzz", "random calls do no harm", result));
    }
    step.finish(&format!("{} tests were run on {kernel}", outcomes.len()));
    Ok(outcomes)
}

/// The tests in the kernel itself, which it runs before PID 1.
fn units(session: &Session, step: &mut Step, mut options: Options) -> Result<Vec<Outcome>> {
    let mut reader = Reader::new("kunit");
    let log = logs(session, "kunit")?;
    options.append = vec!["ignore_loglevel".into(), "kunit.filter_glob=*dvk*".into()];
    options.logs = Some(log.clone());
    let outcome = boot_once(&options, BOOT, |line| {
        reader.line(line);
        !line.contains(BOOTED)
    })?;
    let mut outcomes = reader.finish();
    let booted = match outcome.end {
        End::GivenUp => Ok(()),
        end => Err(format!("the kernel did not start PID 1: {end:?}; console: {}", log.display())),
    };
    outcomes.push(Outcome::of("kunit", "boot", booted));
    outcomes.push(clean(step, "kunit", &outcome.console));
    Ok(outcomes)
}

/// The machine of `options` runs the conformance program.
fn conformance(
    session: &Session,
    step: &mut Step,
    suite: &'static str,
    mut options: Options,
) -> Result<Vec<Outcome>> {
    let mut reader = Reader::new(suite);
    let log = logs(session, suite)?;
    options.logs = Some(log.clone());
    let outcome = boot_once(&options, CONFORMANCE, |line| {
        reader.line(line);
        true
    })?;
    let mut outcomes = reader.finish();
    let ended = match (outcome.end, outcome.exit_status) {
        (End::PoweredOff, Some(_)) => Ok(()),
        (end, status) => Err(format!(
            "the machine should have powered off after the program; it ended with {end:?}, the program with {status:?}; console: {}",
            log.display()
        )),
    };
    outcomes.push(Outcome::of(suite, "orderly end", ended));
    outcomes.push(clean(step, suite, &outcome.console));
    Ok(outcomes)
}

/// Where the console of one of the machines goes.
fn logs(session: &Session, name: &str) -> Result<PathBuf> {
    let path = session.store.directory("logs")?.join(name);
    fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
    Ok(path)
}

/// The kernel must not have complained.
fn clean(step: &mut Step, suite: &str, console: &str) -> Outcome {
    let complaints = complaints(console);
    if !complaints.is_empty() {
        step.remark(&format!("the kernel complained: {}", complaints[0]));
    }
    let result = if complaints.is_empty() { Ok(()) } else { Err(complaints.join("\n")) };
    Outcome::of(suite, "the kernel does not complain", result)
}
