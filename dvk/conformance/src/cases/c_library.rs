// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs in C, which reach the kernel by `libdvk.a`.

use super::Case;
use crate::dvs;
use anyhow::{ensure, Context, Result};
use std::process::Command;

/// Why no case is run between nodes.
const WHY: &str = "the header and the library are tried, over the same calls";

pub(super) const CASES: &[Case] =
    &[Case::alone("c-program-exchanges-messages", WHY, c_program_exchanges_messages)];

/// A server and a client: `dvk/user/c/examples/pair.c`, beside this program.
fn c_program_exchanges_messages() -> Result<()> {
    let program = std::env::current_exe()?.with_file_name("dvk-c-pair");
    let output = Command::new(&program)
        .arg(dvs::HOME.to_string())
        .output()
        .with_context(|| format!("start {}", program.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the C program: {said}({})", output.status);
    Ok(())
}
