// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the instructions of an operation go.
//!
//! QEMU logs the address of every instruction that it executes, from when the guest says that it repeats the same batch over
//! and over. In the log, a batch begins where the kernel's `getpgid` does, and ends at `getsid`; what is between is counted.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use dvk_bench::{Line, Mechanism, Policy};
use dvs_config::{Power, Run};
use dvs_qemu::accel::Accelerator;
use dvs_qemu::boot_once_watched;
use dvs_qemu::qmp::Qmp;
use serde::Serialize;

use super::symbols::Symbols;
use super::{machine, Arguments, Clock, PROGRAM};
use crate::artefacts::Artefacts;
use crate::step::{Session, Step};

const BEGIN: &str = "__x64_sys_getpgid";
const END: &str = "__x64_sys_getsid";
/// Where the kernel's half of the address space begins.
const KERNEL: u64 = 1 << 63;
/// How long the machine may take to boot and to be seen for a batch.
const PATIENCE: Duration = Duration::from_secs(600);

/// A profile of one operation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Profile {
    mechanism: Mechanism,
    policy: Policy,
    /// Bytes copied by an operation; a round trip if `None`.
    copy: Option<u32>,
    /// Operations that were watched.
    operations: u64,
    /// Per operation, as all that follows.
    instructions: f64,
    functions: Vec<Share>,
}

/// What a function of the kernel, or all of user space, has in an operation.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Share {
    function: String,
    instructions: f64,
    /// How often its first instruction was executed.
    calls: f64,
}

/// Boots a machine and watches it.
pub(super) fn take(
    arguments: &Arguments,
    mechanism: Mechanism,
    session: &Session,
    step: &mut Step,
    built: &Artefacts,
) -> Result<Profile> {
    let kernel = &built.kernel.image;
    let elf = std::fs::read(kernel).with_context(|| format!("reading {}", kernel.display()))?;
    let symbols = Symbols::read(&elf)
        .with_context(|| format!("reading the symbols of {}", kernel.display()))?;
    let (policy, copy) = (arguments.policy, arguments.copy);
    let mut options = machine(built, Clock::Instructions, Accelerator::Counting)?;
    let mut command = vec![PROGRAM.to_owned(), format!("--repeat={mechanism}")];
    command.push(format!("--policy={}", format!("{policy:?}").to_lowercase()));
    command.extend(copy.map(|bytes| format!("--copy={bytes}")));
    options.run = Some(Run { command, power: Power::Off, services: false });
    let logs = session.store.directory("logs")?.join("bench-ipc-profile");
    options.logs = Some(logs.clone());
    step.now(&format!("booting to profile {mechanism}"));
    let mut counted = None;
    boot_once_watched(&options, PATIENCE, |text, qmp| {
        let Some(Ok(Line::Repeating { operations })) = Line::parse(text) else { return true };
        step.now(&format!("watching {operations} operations of {mechanism}"));
        counted = Some((operations, watch(qmp, &symbols)));
        false
    })?;
    let console = logs.join("console.log");
    let (operations, count) = counted.with_context(|| {
        format!("profiling {mechanism}: the program did not begin; console: {}", console.display())
    })?;
    Ok(Profile::new(&count?, &symbols, operations, (mechanism, policy, copy)))
}

/// Has QEMU log into a pipe, and counts a batch.
fn watch(qmp: &Path, symbols: &Symbols) -> Result<Count> {
    let pipe = qmp.with_extension("trace");
    let made = Command::new("mkfifo").arg(&pipe).status().context("running mkfifo")?;
    ensure!(made.success(), "making the pipe {}: {made}", pipe.display());
    let mut control = Qmp::connect(qmp)?;
    std::thread::scope(|scope| {
        // QEMU opens the pipe when logging begins, and then waits for who reads it.
        let reader = scope.spawn(|| -> Result<Count> {
            let log = File::open(&pipe).with_context(|| format!("opening {}", pipe.display()))?;
            Count::read(BufReader::with_capacity(1 << 20, log), symbols)
        });
        control.monitor(&format!("logfile {}", pipe.display()))?;
        // An instruction at a time, and none that follows another without being logged.
        control.monitor("singlestep on")?;
        control.monitor("log exec,nochain")?;
        match reader.join() {
            Ok(count) => count,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// What was executed in a batch.
#[derive(Clone, Debug, Default, PartialEq)]
struct Count {
    user: u64,
    /// For each symbol, the instructions in it and how often its first was executed.
    kernel: Vec<(u64, u64)>,
}

impl Count {
    /// Reads QEMU's log until the end of the first whole batch.
    fn read(mut log: impl BufRead, symbols: &Symbols) -> Result<Self> {
        let mark = |name| {
            symbols.address(name).with_context(|| format!("the kernel has no symbol {name}"))
        };
        let (begin, end) = (mark(BEGIN)?, mark(END)?);
        let mut count = Self { user: 0, kernel: vec![(0, 0); symbols.len()] };
        let mut counting = false;
        let mut line = Vec::new();
        loop {
            line.clear();
            log.read_until(b'\n', &mut line).context("reading QEMU's log")?;
            ensure!(!line.is_empty(), "QEMU's log ends before a whole batch was seen");
            let Some(address) = executed(&line) else { continue };
            if address == begin {
                counting = true;
            } else if address == end && counting {
                return Ok(count);
            }
            if !counting {
                continue;
            }
            match symbols.number(address).filter(|_| address >= KERNEL) {
                None => count.user += 1,
                Some(number) => {
                    count.kernel[number].0 += 1;
                    count.kernel[number].1 += u64::from(symbols.get(number).0 == address);
                }
            }
        }
    }
}

/// The address in a line such as `Trace 0: 0x7f1c [0000000000000000/ffffffff81000000/00c000b0/ff000201] _text`: the second in
/// the brackets.
fn executed(line: &[u8]) -> Option<u64> {
    let line = std::str::from_utf8(line).ok()?.strip_prefix("Trace ")?;
    let (_, addresses) = line.split_once('[')?;
    u64::from_str_radix(addresses.split('/').nth(1)?, 16).ok()
}

impl Profile {
    fn new(
        count: &Count,
        symbols: &Symbols,
        operations: u64,
        (mechanism, policy, copy): (Mechanism, Policy, Option<u32>),
    ) -> Self {
        let each = |number: u64| number as f64 / operations as f64;
        let of = |(number, &(instructions, calls)): (usize, &(u64, u64))| Share {
            // Without the hashes that tell versions of a crate apart.
            function: format!("{:#}", rustc_demangle::demangle(symbols.get(number).1)),
            instructions: each(instructions),
            calls: each(calls),
        };
        let mut functions: Vec<_> = count.kernel.iter().enumerate().map(of).collect();
        let user = "(user space)".to_owned();
        functions.push(Share { function: user, instructions: each(count.user), calls: 0.0 });
        functions.retain(|share| share.instructions > 0.0);
        functions.sort_by(|a, b| b.instructions.total_cmp(&a.instructions));
        let instructions = functions.iter().map(|share| share.instructions).sum();
        Self { mechanism, policy, copy, operations, instructions, functions }
    }

    /// A row for each function that has at least one instruction in an operation.
    pub(super) fn table(&self) -> String {
        let Self { mechanism, policy, operations, instructions, .. } = self;
        let what = match self.copy {
            None => "round trip".to_owned(),
            Some(bytes) => format!("copy of {bytes} bytes"),
        };
        let head = format!(
            "{mechanism}, {policy:?} policy, one CPU: {instructions:.0} instructions per {what}, over {operations}\n\
             {:>12}{:>7}{:>8}{:>9}  function\n",
            "instructions", "%", "sum %", "calls"
        );
        let mut sum = 0.0;
        let rows = self.functions.iter().filter(|share| share.instructions >= 1.0);
        rows.fold(head, |text, share| {
            let percent = 100.0 * share.instructions / self.instructions;
            sum += percent;
            let Share { function, instructions, calls } = share;
            text + &format!(
                "{instructions:>12.1}{percent:>7.1}{sum:>8.1}{calls:>9.2}  {function}\n"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(addresses: &[u64]) -> String {
        addresses
            .iter()
            .map(|address| {
                format!("Trace 0: 0x7f1c0a [00000000/{address:016x}/00c000b0/ff000201] x\n")
            })
            .collect()
    }

    #[test]
    fn a_batch_is_counted_from_mark_to_mark() {
        let base = 0xffff_ffff_8100_0000;
        let named = |offset, name: &str| (base + offset, name.to_owned());
        let symbols =
            Symbols::new(vec![named(0x00, BEGIN), named(0x10, END), named(0x20, "schedule")]);
        let schedule = [base + 0x20, base + 0x24, base + 0x20, base + 0x28];
        let log = log(&[base + 0x20, base + 0x10, base, base + 4])
            + "cpu_io_recompile: rewound execution\n"
            + &log(&schedule)
            + &log(&[0x40_0000, base + 0x10, base]);
        let count = Count::read(log.as_bytes(), &symbols).unwrap();
        assert_eq!((count.user, count.kernel), (1, vec![(2, 1), (0, 0), (4, 2)]));
        let half = Count::read(&log.as_bytes()[..200], &symbols).unwrap_err();
        assert_eq!(half.to_string(), "QEMU's log ends before a whole batch was seen");
    }

    #[test]
    fn a_profile_is_per_operation_and_sorted() {
        let symbols = Symbols::new(vec![(1, "rare".to_owned()), (9, "often".to_owned())]);
        let count = Count { user: 100, kernel: vec![(5, 1), (300, 20)] };
        let what = (Mechanism::M3, Policy::Fifo, None);
        let profile = Profile::new(&count, &symbols, 10, what);
        assert_eq!(profile.instructions, 40.5);
        let names: Vec<_> = profile.functions.iter().map(|share| share.function.as_str()).collect();
        assert_eq!(names, ["often", "(user space)", "rare"]);
        assert_eq!(profile.functions[0].calls, 2.0);
        let table = profile.table();
        assert!(table.lines().any(|line| line.ends_with("  often")), "{table}");
        assert!(!table.contains("rare"), "less than one instruction is left out: {table}");
    }
}
