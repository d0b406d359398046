// SPDX-License-Identifier: MIT OR Apache-2.0
//! The status file, which PID 1 watches.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dvs_api::Status;

/// Writes the status file whenever the status has changed.
#[derive(Debug)]
pub struct StatusFile {
    path: PathBuf,
    written: Option<Status>,
}

impl StatusFile {
    /// The status file in `directory`.
    pub fn new(directory: &Path) -> Self {
        Self { path: directory.join("status.json"), written: None }
    }

    /// Makes the file say `status`. Whoever reads it sees the old text or the new one, whole.
    ///
    /// # Errors
    /// For people: why it cannot be written.
    pub fn write(&mut self, status: &Status) -> Result<(), String> {
        if self.written.as_ref() == Some(status) {
            return Ok(());
        }
        let temporary = self.path.with_extension("json.new");
        let replace = || -> io::Result<()> {
            fs::write(&temporary, serde_json::to_vec(status)?)?;
            fs::rename(&temporary, &self.path)
        };
        replace().map_err(|error| format!("write {}: {error}", self.path.display()))?;
        self.written = Some(status.clone());
        Ok(())
    }
}
