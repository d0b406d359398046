// SPDX-License-Identifier: MIT OR Apache-2.0
//! Steps of the pipeline: one progress line each on standard error, everything that their commands say in a log file, and
//! failures that name the step, the command, the reason and the log.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::store::Store;
use crate::workspace::Workspace;

/// How many of the last lines of a failed command are shown.
const TAIL: usize = 15;

/// What every step needs: where things are, the cache, and how to talk.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// The checkout and its directories.
    pub(crate) workspace: Workspace,
    /// The cache.
    pub(crate) store: Store,
    /// Show the commands' own output as well.
    pub(crate) verbose: bool,
    /// Standard error is a terminal: lines may be redrawn, and questions asked.
    pub(crate) terminal: bool,
}

impl Session {
    /// A session for this checkout.
    ///
    /// # Errors
    /// When the workspace or the cache cannot be located.
    pub(crate) fn new(verbose: bool) -> Result<Self> {
        let workspace = Workspace::locate()?;
        let store = Store::new(&workspace.cache);
        Ok(Self { workspace, store, verbose, terminal: io::stderr().is_terminal() })
    }

    /// Starts a step. `name` also names its log file; `doing` says what happens, for the progress line.
    ///
    /// # Errors
    /// When the log file cannot be created.
    pub(crate) fn begin(&self, name: &'static str, doing: &str) -> Result<Step> {
        let log_path =
            self.store.directory("logs")?.join(format!("{}.log", name.replace(' ', "-")));
        let log = File::create(&log_path)
            .with_context(|| format!("creating the log file {}", log_path.display()))?;
        let bar = (self.terminal && !self.verbose).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            if let Ok(style) =
                ProgressStyle::with_template("{spinner} {prefix:<16} {msg}  {elapsed}")
            {
                bar.set_style(style);
            }
            bar.set_prefix(name);
            bar.set_message(doing.to_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        if bar.is_none() {
            eprintln!("  {name:<16} {doing} …");
        }
        Ok(Step {
            name,
            doing: doing.to_owned(),
            log,
            log_path,
            bar,
            verbose: self.verbose,
            started: Instant::now(),
            finished: false,
        })
    }

    /// A line outside of any step.
    pub(crate) fn notice(&self, name: &str, what: &str) {
        eprintln!("  {name:<16} {what}");
    }

    /// A line for a step that found its result in the cache.
    pub(crate) fn cached(&self, name: &str, what: &str) {
        eprintln!("  {name:<16} {what} (cached)");
    }
}

/// A step under way. Dropping it without [`Step::finish`] says that it failed.
#[derive(Debug)]
pub(crate) struct Step {
    name: &'static str,
    doing: String,
    log: File,
    log_path: PathBuf,
    bar: Option<ProgressBar>,
    verbose: bool,
    started: Instant,
    finished: bool,
}

impl Step {
    /// Says what is being done now.
    pub(crate) fn now(&mut self, doing: &str) {
        self.doing = doing.to_owned();
        match &self.bar {
            Some(bar) => bar.set_message(doing.to_owned()),
            None => eprintln!("  {:<16} {doing} …", self.name),
        }
    }

    /// Says something that should stay on the screen.
    pub(crate) fn remark(&self, text: &str) {
        let line = format!("  {:<16} {text}", self.name);
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    /// Seconds since the step began.
    pub(crate) fn elapsed(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Ends the step with a line that says what there is now.
    pub(crate) fn finish(mut self, what: &str) {
        self.finished = true;
        self.end(what);
    }

    fn end(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        eprintln!("  {:<16} {what} ({:.1} s)", self.name, self.elapsed());
    }

    /// Runs a command to its end, its output going to the log.
    ///
    /// # Errors
    /// [`Failure`] when it cannot be started or does not exit with 0.
    pub(crate) fn run(&mut self, command: &mut Command) -> Result<()> {
        self.watch(command, |_| None)
    }

    /// Like [`Step::run`]; `progress` sees each line of output and may answer with a note for the progress line.
    ///
    /// # Errors
    /// As [`Step::run`].
    pub(crate) fn watch(
        &mut self,
        command: &mut Command,
        mut progress: impl FnMut(&str) -> Option<String>,
    ) -> Result<()> {
        let line = command_line(command);
        self.log(&format!("$ {line}"))?;
        let fail = |step: &Self, reason: String, tail: VecDeque<String>| {
            anyhow::Error::new(Failure {
                step: step.name,
                command: line.clone(),
                reason,
                tail: tail.into(),
                log: step.log_path.clone(),
            })
        };
        let (reader, writer) = io::pipe().context("creating a pipe")?;
        let spawned = command
            .stdin(Stdio::null())
            .stdout(writer.try_clone().context("duplicating a pipe")?)
            .stderr(writer)
            .spawn();
        // The command holds the writing ends; without this, reading would never end.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => {
                return Err(fail(self, format!("cannot start: {error}"), VecDeque::new()))
            }
        };
        let mut tail = VecDeque::with_capacity(TAIL + 1);
        let mut reader = BufReader::new(reader);
        let mut bytes = Vec::new();
        let mut trouble = None;
        while reader.read_until(b'\n', &mut bytes).context("reading the output of a command")? != 0
        {
            let text = String::from_utf8_lossy(&bytes);
            let text = text.trim_end();
            // A full disk must not stop the reading, or the command would wait for ever.
            if let Err(error) = self.log(text) {
                trouble.get_or_insert(error);
            }
            if self.verbose {
                eprintln!("{text}");
            }
            if let (Some(note), Some(bar)) = (progress(text), &self.bar) {
                bar.set_message(format!("{}: {note}", self.doing));
            }
            if tail.len() == TAIL {
                tail.pop_front();
            }
            tail.push_back(text.to_owned());
            bytes.clear();
        }
        let status = child.wait().context("waiting for a command")?;
        if !status.success() {
            return Err(fail(self, status.to_string(), tail));
        }
        trouble.map_or(Ok(()), Err)
    }

    fn log(&mut self, line: &str) -> Result<()> {
        writeln!(self.log, "{line}")
            .with_context(|| format!("writing the log file {}", self.log_path.display()))
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.finished {
            self.end("failed");
        }
    }
}

/// A command of a step failed.
#[derive(Debug)]
pub(crate) struct Failure {
    step: &'static str,
    command: String,
    reason: String,
    tail: Vec<String>,
    log: PathBuf,
}

impl Failure {
    fn disk_is_full(&self) -> bool {
        self.tail.iter().any(|line| line.contains("No space left on device"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "step `{}` failed", self.step)?;
        writeln!(f, "  command: {}", self.command)?;
        if self.disk_is_full() {
            writeln!(f, "  reason:  no space left on device")?;
            writeln!(f, "  log:     {}", self.log.display())?;
            return write!(f, "  to do:   {}", DISK_FULL);
        }
        writeln!(f, "  reason:  {}", self.reason)?;
        for line in &self.tail {
            writeln!(f, "    | {line}")?;
        }
        writeln!(f, "  log:     {}", self.log.display())?;
        write!(
            f,
            "  to do:   read the log, correct what it complains of, and run the same command again"
        )
    }
}

impl std::error::Error for Failure {}

const DISK_FULL: &str = "free some space (`cargo xtask clean` removes what can be rebuilt) and run the same command again; \
                         nothing half-built is kept";

/// What to print about an error that ends the program.
pub(crate) fn report(error: &anyhow::Error) -> String {
    let full = error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::StorageFull)
    });
    if full {
        format!("error: {error:#}\n  to do:   {DISK_FULL}")
    } else {
        format!("error: {error:#}")
    }
}

/// A command as one could type it, with the variables that it sets.
fn command_line(command: &Command) -> String {
    let variables = command
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}={}", name.display(), quoted(value?))));
    let words = std::iter::once(command.get_program()).chain(command.get_args()).map(quoted);
    let line = variables.chain(words).collect::<Vec<_>>().join(" ");
    match command.get_current_dir() {
        Some(directory) => format!("cd {} && {line}", quoted(directory.as_os_str())),
        None => line,
    }
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+/.,:@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The output of a command that only answers a question.
///
/// # Errors
/// When it cannot be started or does not exit with 0; its own words are part of the error.
pub(crate) fn answer(command: &mut Command) -> Result<String> {
    let line = command_line(command);
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("running `{line}`"))?;
    anyhow::ensure!(
        output.status.success(),
        "running `{line}`: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The first executable file called `program` in the directories of `path`.
pub(crate) fn find_program(program: &str, path: &OsStr) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    std::env::split_paths(path).map(|directory| directory.join(program)).find(|candidate| {
        fs::metadata(candidate)
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(directory: &tempfile::TempDir) -> Session {
        let root = directory.path().to_path_buf();
        Session {
            store: Store::new(&root),
            workspace: Workspace { root: root.clone(), target: root.clone(), cache: root },
            verbose: false,
            terminal: false,
        }
    }

    #[test]
    fn a_failure_names_step_command_reason_and_log() {
        let directory = tempfile::tempdir().unwrap();
        let mut step = session(&directory).begin("kernel source", "unpacking").unwrap();
        let error = step
            .run(Command::new("sh").args(["-c", "echo out; echo 'went wrong' >&2; exit 3"]))
            .unwrap_err();
        let text = report(&error);
        let log = directory.path().join("logs/kernel-source.log");
        for expected in [
            "step `kernel source` failed",
            "command: sh -c 'echo out; echo",
            "exit status: 3",
            "    | out\n    | went wrong\n",
            &log.display().to_string(),
        ] {
            assert!(text.contains(expected), "{expected:?} is not in {text}");
        }
        assert!(fs::read_to_string(log).unwrap().ends_with("\nout\nwent wrong\n"));
    }

    #[test]
    fn only_the_last_lines_are_shown() {
        let directory = tempfile::tempdir().unwrap();
        let mut step = session(&directory).begin("kernel", "compiling").unwrap();
        let error = step.run(Command::new("sh").args(["-c", "seq 1 40; exit 1"])).unwrap_err();
        let failure = error.downcast_ref::<Failure>().unwrap();
        assert_eq!(failure.tail.len(), TAIL);
        assert_eq!(failure.tail.last().map(String::as_str), Some("40"));
    }

    #[test]
    fn a_full_disk_is_one_clear_error() {
        let directory = tempfile::tempdir().unwrap();
        let mut step = session(&directory).begin("kernel", "compiling").unwrap();
        let script = "echo 'fatal error: error in backend: IO failure on output stream: No space left on device'; exit 1";
        let text = report(&step.run(Command::new("sh").args(["-c", script])).unwrap_err());
        assert!(text.contains("reason:  no space left on device"), "{text}");
        assert!(!text.contains("    | "), "{text}");

        let io =
            anyhow::Error::new(io::Error::from(io::ErrorKind::StorageFull)).context("writing x");
        assert!(report(&io).contains("free some space"));
    }

    #[test]
    fn a_program_that_is_missing_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let mut step = session(&directory).begin("kernel", "compiling").unwrap();
        let text = report(&step.run(&mut Command::new("no-such-program")).unwrap_err());
        assert!(text.contains("no-such-program") && text.contains("cannot start"), "{text}");
    }
}
