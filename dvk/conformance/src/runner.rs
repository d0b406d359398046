// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs cases, each in a process of its own with a time limit, and reports.

use crate::cases::{self, Case};
use crate::{dvs, tap};
use anyhow::{bail, Context, Result};
use rustix::process::{kill_process_group, Pid, Signal};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a killed case may take to be gone. One that is not is stuck in the kernel.
const DEATH_LIMIT: Duration = Duration::from_secs(10);

/// Runs the cases that match `only`, all without it. Returns whether all passed.
pub(crate) fn run(only: Option<&glob::Pattern>, slow: u32) -> Result<bool> {
    let chosen: Vec<&Case> =
        cases::all().filter(|case| only.is_none_or(|only| only.matches(case.id))).collect();
    if chosen.is_empty() {
        bail!("no case matches; --list names them");
    }
    let mut report = tap::Report::default();
    print(&report.head(chosen.len()))?;
    for case in chosen {
        // A case may have taken the DVS apart; the next one shall not suffer for it.
        if let Err(error) = dvs::ensure() {
            print(&report.bail_out(&format!("no DVS for {}: {error:#}", case.id)))?;
            return Ok(false);
        }
        let begin = Instant::now();
        let lines = match run_one(case, case.limit * slow)? {
            Verdict::Passed => report.passed(case.id, begin.elapsed().as_millis()),
            Verdict::Failed(why) => report.failed(case.id, &why),
            Verdict::Stuck => {
                print(
                    &report.failed(case.id, "the time limit is over, and SIGKILL has no effect"),
                )?;
                print(&report.bail_out("a case is stuck in the kernel"))?;
                return Ok(false);
            }
        };
        print(&lines)?;
    }
    print(&report.tail())?;
    Ok(report.is_success())
}

enum Verdict {
    Passed,
    Failed(String),
    Stuck,
}

fn run_one(case: &Case, limit: Duration) -> Result<Verdict> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--role", "case", case.id])
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("start a case in a process of its own")?;
    let status = wait(&mut child, limit)?;
    // The case's own children share its group, and its standard error: they must be gone before
    // that can be read to its end.
    if let Some(group) = Pid::from_raw(child.id().cast_signed()) {
        match kill_process_group(group, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error).context("kill what a case left behind"),
        }
    }
    if status.is_none() && wait(&mut child, DEATH_LIMIT)?.is_none() {
        return Ok(Verdict::Stuck);
    }
    let mut why = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut why)?;
    }
    Ok(match status {
        Some(status) if status.success() => Verdict::Passed,
        Some(status) => Verdict::Failed(format!("{why}({status})")),
        None => Verdict::Failed(format!("{why}not over after {} s", limit.as_secs())),
    })
}

fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if begin.elapsed() >= limit {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn print(lines: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(lines.as_bytes())?;
    stdout.flush().context("report")
}
