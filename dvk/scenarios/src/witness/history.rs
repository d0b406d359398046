// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is written down, on its way to the host.

use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Result;

/// How long a line may be kept. A node that loses power takes with it what was kept.
const KEPT: Duration = Duration::from_millis(50);

/// Lines that were not written yet.
#[derive(Default)]
pub(super) struct History(Mutex<String>);

impl History {
    /// Adds a line.
    pub(super) fn note(&self, line: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push_str(line);
        lines.push('\n');
    }

    /// Adds a line that somebody waits for.
    pub(super) fn answer(&self, line: &str) -> Result<()> {
        self.note(line);
        self.flush()
    }

    /// Writes lines as they come, for as long as the program lives.
    pub(super) fn flush_for_ever(&self) {
        while self.flush().is_ok() {
            thread::sleep(KEPT);
        }
    }

    fn flush(&self) -> Result<()> {
        // The lock is held meanwhile, so that lines keep their order.
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = std::io::stdout().lock();
        out.write_all(lines.as_bytes())?;
        lines.clear();
        Ok(out.flush()?)
    }
}
