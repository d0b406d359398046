// SPDX-License-Identifier: MIT OR Apache-2.0
//! The slower checks, made by other programs: rustfmt and cargo-deny.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{bail, ensure, Context, Result};

use super::{extension, line_of, Problem, Tree};

/// Runs them on the checkout at `root`.
///
/// # Errors
/// When a program finds something, or cannot be run. A missing cargo-deny is no error: it is said, and left out.
pub(super) fn run(root: &Path, tree: &Tree) -> Result<()> {
    let mut unformatted = 0;
    for (path, text) in tree.iter().filter(|(path, _)| extension(path) == "rs") {
        if let Some(problem) = format_problem(path, text, &rustfmt(root, path, text)?) {
            println!("{problem}");
            unformatted += 1;
        }
    }
    let denied = deny(root);
    ensure!(unformatted == 0, "{unformatted} files are not formatted");
    denied
}

/// What rustfmt would change in a file. It is given the text and not the file, because it would follow the `mod`s of the latter,
/// and those of the driver lead to files that are only there in the kernel's tree.
fn rustfmt(root: &Path, path: &str, text: &str) -> Result<String> {
    let mut rustfmt = Command::new("rustfmt");
    rustfmt.args(["--check", "--color", "never", "--edition", "2021", "--config-path"]).arg(root);
    rustfmt.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut rustfmt =
        rustfmt.spawn().context("running rustfmt; `rustup component add rustfmt` installs it")?;
    if let Some(mut stdin) = rustfmt.stdin.take() {
        // It reads everything before it writes anything, so neither end waits for the other.
        stdin.write_all(text.as_bytes()).with_context(|| format!("giving {path} to rustfmt"))?;
    }
    let output = rustfmt.wait_with_output().context("waiting for rustfmt")?;
    let said = String::from_utf8_lossy(&output.stderr);
    // Its exit status says nothing about differences when it reads a pipe, only about errors.
    ensure!(output.status.success(), "formatting {path}: rustfmt failed: {}", said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The problem that the differences found by rustfmt are.
fn format_problem(path: &str, text: &str, differences: &str) -> Option<Problem> {
    let first = differences.lines().find(|line| !line.is_empty())?;
    // "Diff in <stdin>:12:"
    let number = |part: &str| part.parse::<usize>().ok();
    let line = first.split(':').find_map(number).unwrap_or_else(|| line_of(text, 0));
    Some(Problem::new(
        path,
        line,
        "the file is not formatted",
        "differences in form hide those in content",
        format!("run `rustfmt --edition 2021 {path}`, or `cargo fmt` for all crates"),
    ))
}

fn deny(root: &Path) -> Result<()> {
    let is_there = Command::new("cargo").args(["deny", "--version"]).current_dir(root).output();
    if !is_there.is_ok_and(|output| output.status.success()) {
        eprintln!("tidy: cargo-deny is not installed, licences and duplicates of dependencies were not checked");
        eprintln!("tidy: `cargo install --locked cargo-deny` installs it");
        return Ok(());
    }
    let mut deny = Command::new("cargo");
    deny.args(["deny", "check", "licenses", "bans", "sources"]).current_dir(root);
    let status = deny.status().context("running cargo deny")?;
    if !status.success() {
        bail!("cargo deny found dependencies that deny.toml does not allow; it says above which");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// rustfmt's differences for `text` under the configuration of this checkout.
    fn differences(text: &str) -> Result<String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        rustfmt(root, "a.rs", text)
    }

    fn problem(text: &str) -> Option<String> {
        let differences = differences(text).unwrap();
        format_problem("a.rs", text, &differences).map(|problem| problem.to_string())
    }

    #[test]
    fn format_is_checked_without_following_modules() {
        assert_eq!(problem("mod gone;\n"), None);
        let found = problem("mod gone;\n\nfn f() {}\n\nfn g() {  }\n").unwrap();
        assert!(found.starts_with("a.rs:"), "{found}");
        assert!(found.contains(": the file is not formatted; "), "{found}");
    }

    #[test]
    fn what_does_not_parse_is_named() {
        let error = differences("fn {").unwrap_err().to_string();
        assert!(error.starts_with("formatting a.rs: rustfmt failed: error: this file"), "{error}");
    }
}
