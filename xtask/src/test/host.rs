// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests that run on the host: everything that `cargo test` finds in the workspace.

use std::env;
use std::process::Command;

use anyhow::Result;

use crate::doctor::{self, Need};
use crate::source::Pins;
use crate::step::{Failure, Session};
use crate::test::summary::{Outcome, Verdict};

const SUITE: &str = "host";

/// Runs them all.
///
/// # Errors
/// When cargo cannot be run. Tests that fail or do not compile are outcomes, not errors.
pub(crate) fn run(session: &Session) -> Result<Vec<Outcome>> {
    let needs = [Need::Userspace, Need::Captures, Need::FileSystems, Need::BlockDevices];
    doctor::require(session, &needs, &Pins::read(session)?.tools)?;
    let mut step =
        session.begin("test host", "compiling and running the tests of the workspace")?;
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(&session.workspace.root).env("CARGO_TERM_COLOR", "never").args([
        "test",
        "--workspace",
        "--no-fail-fast",
        "--locked",
    ]);
    let mut reader = Reader::default();
    let ended = step.watch(&mut cargo, |line| {
        reader.line(line);
        Some(format!("{} tests", reader.outcomes.len()))
    });
    let mut outcomes = reader.finish();
    let failed = outcomes.iter().any(|outcome| matches!(outcome.verdict, Verdict::Failed(_)));
    match ended {
        Err(error) if error.is::<Failure>() && !failed => {
            // It did not compile, or a test program died without a word.
            outcomes.push(Outcome::of(SUITE, "cargo test", Err(format!("{error:#}"))));
        }
        Err(error) if !error.is::<Failure>() => return Err(error),
        _ => {}
    }
    step.finish(&format!("{} tests of the workspace were run", outcomes.len()));
    Ok(outcomes)
}

/// Understands what the test programs of `cargo test` print.
#[derive(Debug, Default)]
struct Reader {
    program: String,
    outcomes: Vec<Outcome>,
    /// The failed test whose output is being printed: its place in `outcomes`.
    printing: Option<usize>,
}

impl Reader {
    fn line(&mut self, line: &str) {
        if let Some(program) = line.trim_start().strip_prefix("Running ") {
            self.program = program.split(" (").next().unwrap_or(program).to_owned();
            if let Some((_, path)) = program.split_once("/deps/") {
                // The file name is the crate's with a hash; paths like `src/lib.rs` are the same in all crates.
                let name =
                    path.trim_end_matches(')').rsplit_once('-').map_or(path, |(name, _)| name);
                self.program = name.to_owned();
            }
            self.printing = None;
        } else if let Some(name) = line.trim_start().strip_prefix("Doc-tests ") {
            self.program = format!("{name} (documentation)");
            self.printing = None;
        } else if let Some((name, verdict)) = result(line) {
            let name = format!("{}: {name}", self.program);
            self.outcomes.push(Outcome { suite: SUITE.to_owned(), name, verdict });
        } else if let Some(name) =
            line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            let wanted = format!("{}: {name}", self.program);
            self.printing = self.outcomes.iter().rposition(|outcome| outcome.name == wanted);
        } else if line == "failures:" || line.starts_with("test result:") {
            self.printing = None;
        } else if let Some(Outcome { verdict: Verdict::Failed(why), .. }) =
            self.printing.and_then(|at| self.outcomes.get_mut(at))
        {
            if !line.is_empty() {
                why.push_str(line);
                why.push('\n');
            }
        }
    }

    fn finish(self) -> Vec<Outcome> {
        self.outcomes
    }
}

/// Splits `test name ... ok`.
fn result(line: &str) -> Option<(&str, Verdict)> {
    let (name, verdict) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let name = name.strip_suffix(" - should panic").unwrap_or(name);
    match verdict {
        "ok" => Some((name, Verdict::Passed)),
        "FAILED" => Some((name, Verdict::Failed(String::new()))),
        verdict if verdict.starts_with("ignored") => Some((name, Verdict::Skipped)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_words_become_outcomes() {
        let text = "   Compiling dvk-core v0.1.0\n     Running unittests src/lib.rs (target/debug/deps/dvk_core-0123abcd)\n\n\
                    running 3 tests\ntest fifo::tests::order ... ok\ntest port::tests::slow ... ignored, takes a day\n\
                    test port::tests::wrong ... FAILED\n\nfailures:\n\n---- port::tests::wrong stdout ----\n\n\
                    thread 'x' panicked\nleft: 1\n\n\nfailures:\n    port::tests::wrong\n\n\
                    test result: FAILED. 1 passed; 1 failed; 1 ignored\n\n   Doc-tests dvk_abi\n\
                    test dvk/abi/src/lib.rs - (line 3) ... ok\n";
        let mut reader = Reader::default();
        text.lines().for_each(|line| reader.line(line));
        let outcome =
            |name: &str, verdict| Outcome { suite: SUITE.into(), name: name.into(), verdict };
        assert_eq!(
            reader.finish(),
            [
                outcome("dvk_core: fifo::tests::order", Verdict::Passed),
                outcome("dvk_core: port::tests::slow", Verdict::Skipped),
                outcome(
                    "dvk_core: port::tests::wrong",
                    Verdict::Failed("thread 'x' panicked\nleft: 1\n".into())
                ),
                outcome("dvk_abi (documentation): dvk/abi/src/lib.rs - (line 3)", Verdict::Passed),
            ]
        );
    }
}
