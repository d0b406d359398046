// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ends the processes of a program, as a crash would.

use anyhow::{ensure, Result};
use rustix::process::{kill_process, Pid, Signal};

use crate::say;

/// Kills all processes of a program, of which there must be one, and tells how many there were.
pub(crate) fn run(program: &str) -> Result<()> {
    let mut killed = 0;
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else { continue };
        // It may have ended since it was listed.
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if name.trim_end() == program {
            kill_process(pid, Signal::KILL)?;
            killed += 1;
        }
    }
    ensure!(killed > 0, "no process of {program} runs");
    say(&killed.to_string())
}
