// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs cases, each in a process of its own with a time limit, and reports.

use crate::cases::{self, Case, Side};
use crate::{dvs, messenger, tap};
use anyhow::{bail, Context, Result};
use rustix::process::{kill_process_group, Pid, Signal};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a killed case may take to be gone. One that is not is stuck in the kernel.
const DEATH_LIMIT: Duration = Duration::from_secs(10);

/// A case in one of the places where it can be run.
struct Turn {
    /// What the report calls it.
    name: String,
    /// What the program is told to run it.
    words: Vec<String>,
    limit: Duration,
}

/// Runs the cases that match `only` on this node, all without it. Returns whether all passed.
pub(crate) fn run(only: Option<&glob::Pattern>, slow: u32) -> Result<bool> {
    let turn = |case: &Case| Turn {
        name: case.id.to_owned(),
        words: vec!["--role".into(), "case".into(), format!("--slow={slow}"), case.id.into()],
        limit: case.limit * slow,
    };
    let turns: Vec<Turn> = cases::chosen(only).into_iter().map(turn).collect();
    // A case may have taken the DVS apart; the next one shall not suffer for it.
    take_turns(&turns, false, || dvs::ensure().context("make the DVS"))
}

/// Runs the cases that match `only` with either of their sides on another node, where a troupe takes
/// orders: they go out on standard output, between the lines of the report, and what comes of them
/// comes in on standard input. Returns whether all passed.
///
/// Each case has a container of its own, so that nothing late of another gets there; `first` is the
/// number of the first one. They do the same as on one node if it may be `is_long`, else less.
pub(crate) fn run_between(
    first: u32,
    nodes: [u32; 2],
    only: Option<&glob::Pattern>,
    slow: u32,
    is_long: bool,
) -> Result<bool> {
    let sides = cases::chosen(only)
        .into_iter()
        .flat_map(|case| case.sides_there().iter().map(move |side| (case, *side)));
    let turn = |((case, side), container): ((&Case, Side), u32)| Turn {
        name: format!("{} ({} side there)", case.id, side.name()),
        words: ["--role", "between-case", case.id, side.name()]
            .map(str::to_owned)
            .into_iter()
            .chain([container, nodes[0], nodes[1]].map(|number| number.to_string()))
            .chain([format!("--slow={slow}")])
            .chain(is_long.then(|| "--long".to_owned()))
            .collect(),
        limit: case.limit * slow,
    };
    let turns: Vec<Turn> = sides.zip(first..).map(turn).collect();
    let mut containers = first..;
    let mut used = None;
    let passed = take_turns(&turns, true, || {
        used.into_iter().try_for_each(clear)?;
        used = containers.next();
        Ok(())
    })?;
    used.into_iter().try_for_each(clear)?;
    Ok(passed)
}

/// Leaves nothing of a case on either node: no process there, and no container.
fn clear(container: u32) -> Result<()> {
    dvs::destroy(container).context("destroy the container of a case")?;
    messenger::clear_there(container).context("clear the other node")
}

/// Runs one after the other, and reports. Each is in a process of its own, which has this one's
/// standard input and output if it `speaks`; before it, all must be `ready`.
fn take_turns(turns: &[Turn], speaks: bool, mut ready: impl FnMut() -> Result<()>) -> Result<bool> {
    if turns.is_empty() {
        bail!("no case matches; --list names them");
    }
    let mut report = tap::Report::default();
    print(&report.head(turns.len()))?;
    for turn in turns {
        if let Err(error) = ready() {
            print(&report.bail_out(&format!("not ready for {}: {error:#}", turn.name)))?;
            return Ok(false);
        }
        let begin = Instant::now();
        let lines = match run_one(turn, speaks)? {
            Verdict::Passed => report.passed(&turn.name, begin.elapsed().as_millis()),
            Verdict::Failed(why) => report.failed(&turn.name, &why),
            Verdict::Stuck => {
                print(
                    &report.failed(&turn.name, "the time limit is over, and SIGKILL has no effect"),
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

fn run_one(turn: &Turn, speaks: bool) -> Result<Verdict> {
    let stream = || if speaks { Stdio::inherit() } else { Stdio::null() };
    let mut child = Command::new(std::env::current_exe()?)
        .args(&turn.words)
        .process_group(0)
        .stdin(stream())
        .stdout(stream())
        .stderr(Stdio::piped())
        .spawn()
        .context("start a case in a process of its own")?;
    let status = wait(&mut child, turn.limit)?;
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
        None => Verdict::Failed(format!("{why}not over after {} s", turn.limit.as_secs())),
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
