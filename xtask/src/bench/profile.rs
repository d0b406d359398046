// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the instructions of a guest go, by function of its kernel.
//!
//! QEMU logs the address of every instruction that it executes into a pipe, from when it is told to until it is told not to.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Command;
use std::thread::JoinHandle;

use anyhow::{ensure, Context, Result};
use dvs_qemu::qmp::Qmp;
use serde::Serialize;

use super::symbols::Symbols;

/// Where the kernel's half of the address space begins.
const KERNEL: u64 = 1 << 63;

/// A guest whose every instruction is being logged.
pub(super) struct Tracing<T> {
    control: Qmp,
    reader: JoinHandle<Result<T>>,
}

impl<T: Send + 'static> Tracing<T> {
    /// Has the QEMU that listens at `qmp` log, and `read` read the log.
    ///
    /// # Errors
    /// When QEMU does not take the commands.
    pub(super) fn start(
        qmp: &Path,
        read: impl FnOnce(Addresses) -> Result<T> + Send + 'static,
    ) -> Result<Self> {
        let pipe = qmp.with_extension("trace");
        if !pipe.exists() {
            let made = Command::new("mkfifo").arg(&pipe).status().context("running mkfifo")?;
            ensure!(made.success(), "making the pipe {}: {made}", pipe.display());
        }
        let mut control = Qmp::connect(qmp)?;
        let path = pipe.clone();
        // QEMU opens the pipe when logging begins, and then waits for who reads it.
        let reader = std::thread::spawn(move || -> Result<T> {
            let log = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
            read(Addresses::new(Box::new(BufReader::with_capacity(1 << 20, log))))
        });
        control.monitor(&format!("logfile {}", pipe.display()))?;
        // An instruction at a time, and none that follows another without being logged.
        control.monitor("singlestep on")?;
        control.monitor("log exec,nochain")?;
        Ok(Self { control, reader })
    }

    /// Has QEMU log no more, which is the end of the log.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub(super) fn stop(&mut self) -> Result<()> {
        self.control.monitor("log none")?;
        self.control.monitor("singlestep off")?;
        // QEMU 7.2 keeps a log open that it no longer writes, until there is another.
        self.control.monitor("logfile /dev/null")?;
        Ok(())
    }

    /// What was read, once that has come to its end.
    ///
    /// # Errors
    /// The reader's.
    pub(super) fn result(self) -> Result<T> {
        match self.reader.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// The addresses in QEMU's log.
pub(super) struct Addresses {
    log: Box<dyn BufRead>,
    line: Vec<u8>,
}

impl Addresses {
    /// Of a log.
    pub(super) fn new(log: Box<dyn BufRead>) -> Self {
        Self { log, line: Vec::new() }
    }
}

impl Iterator for Addresses {
    type Item = Result<u64>;

    fn next(&mut self) -> Option<Result<u64>> {
        loop {
            self.line.clear();
            match self.log.read_until(b'\n', &mut self.line) {
                Err(error) => return Some(Err(error).context("reading QEMU's log")),
                Ok(0) => return None,
                Ok(_) => {
                    if let Some(address) = executed(&self.line) {
                        return Some(Ok(address));
                    }
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

/// What was executed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Count {
    user: u64,
    /// For each symbol, the instructions in it and how often its first was executed.
    kernel: Vec<(u64, u64)>,
}

impl Count {
    /// Of nothing yet.
    pub(super) fn new(symbols: &Symbols) -> Self {
        Self { user: 0, kernel: vec![(0, 0); symbols.len()] }
    }

    /// Counts the instruction at `address`.
    pub(super) fn add(&mut self, symbols: &Symbols, address: u64) {
        match symbols.number(address).filter(|_| address >= KERNEL) {
            None => self.user += 1,
            Some(number) => {
                self.kernel[number].0 += 1;
                self.kernel[number].1 += u64::from(symbols.get(number).0 == address);
            }
        }
    }
}

/// What the functions of the kernel, and all of user space, have in an operation; most first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Shares {
    /// Operations that were watched.
    pub(super) operations: u64,
    /// Per operation, as all that follows.
    pub(super) instructions: f64,
    functions: Vec<Share>,
}

/// What one of them has.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Share {
    function: String,
    instructions: f64,
    /// How often its first instruction was executed.
    calls: f64,
}

impl Shares {
    /// From the count of so many operations.
    pub(super) fn new(count: &Count, symbols: &Symbols, operations: u64) -> Self {
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
        Self { operations, instructions, functions }
    }

    /// A row for each function that has at least one instruction in an operation, below `title`.
    pub(super) fn table(&self, title: &str) -> String {
        let head = format!(
            "{title}\n{:>12}{:>7}{:>8}{:>9}  function\n",
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
pub(super) mod tests {
    use super::*;

    /// What QEMU would log.
    pub(in crate::bench) fn log(addresses: &[u64]) -> String {
        addresses
            .iter()
            .map(|address| {
                format!("Trace 0: 0x7f1c0a [00000000/{address:016x}/00c000b0/ff000201] x\n")
            })
            .collect()
    }

    /// The addresses of such a log.
    pub(in crate::bench) fn addresses(log: String) -> Addresses {
        Addresses::new(Box::new(std::io::Cursor::new(log)))
    }

    #[test]
    fn instructions_are_counted_by_function() {
        let base = 0xffff_ffff_8100_0000;
        let symbols = Symbols::new(vec![(base, "one".into()), (base + 0x10, "other".into())]);
        let log = log(&[base, base + 4])
            + "cpu_io_recompile: rewound execution\n"
            + &log(&[base + 0x10, base + 0x14, base + 0x10, 0x40_0000]);
        let mut count = Count::new(&symbols);
        for address in addresses(log) {
            count.add(&symbols, address.unwrap());
        }
        assert_eq!(count, Count { user: 1, kernel: vec![(2, 1), (3, 2)] });
    }

    #[test]
    fn a_profile_is_per_operation_and_sorted() {
        let symbols = Symbols::new(vec![(1, "rare".to_owned()), (9, "often".to_owned())]);
        let count = Count { user: 100, kernel: vec![(5, 1), (300, 20)] };
        let shares = Shares::new(&count, &symbols, 10);
        assert_eq!(shares.instructions, 40.5);
        let names: Vec<_> = shares.functions.iter().map(|share| share.function.as_str()).collect();
        assert_eq!(names, ["often", "(user space)", "rare"]);
        assert_eq!(shares.functions[0].calls, 2.0);
        let table = shares.table("title");
        assert!(table.lines().any(|line| line.ends_with("  often")), "{table}");
        assert!(!table.contains("rare"), "less than one instruction is left out: {table}");
    }
}
