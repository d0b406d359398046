// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program as its users start it, and what it may print.

use std::process::{Command, Output, Stdio};

/// The program with these words, to be started.
pub(crate) fn program(endpoints: &[String], words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dvsctl"));
    command.args(words).stdin(Stdio::null());
    // Nothing of who runs the test.
    command.env("DVSCTL_CONFIG", "/nowhere").env_remove("DVSCTL_CONTEXT");
    command.env("DVSCTL_ENDPOINTS", endpoints.join(","));
    command
}

#[allow(dead_code, reason = "not every test needs it")]
/// What a command that succeeded printed; it had nothing to complain of.
pub(crate) fn stdout(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && error.is_empty(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The error on stderr of a failed command, which printed nothing else.
pub(crate) fn failure(output: &Output, code: i32) -> String {
    assert_eq!((output.status.code(), output.stdout.len()), (Some(code), 0), "{output:?}");
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(text.starts_with("error: "), "{text}");
    text
}
