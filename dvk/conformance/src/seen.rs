// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the kernel shows to people: its tables, and its tracepoints.

use anyhow::{ensure, Context, Result};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Where the tables are.
pub(crate) const FOLDER: &str = "/sys/kernel/debug/dvk";
/// Their names.
pub(crate) const TABLES: [&str; 5] = ["dvs", "nodes", "links", "containers", "endpoints"];

/// Says what every table says, after a line with its name.
pub(crate) fn say_tables() -> Result<()> {
    let mut out = std::io::stdout().lock();
    for name in TABLES {
        writeln!(out, "{name}:")?;
        std::io::copy(&mut Table::open(name)?, &mut out)?;
    }
    Ok(())
}

/// What was read of a table.
pub(crate) struct Table {
    name: String,
    columns: Vec<String>,
    /// The fields of each row.
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    /// Opens a table.
    pub(crate) fn open(name: &str) -> Result<File> {
        let path = Path::new(FOLDER).join(name);
        File::open(&path).with_context(|| format!("open {}", path.display()))
    }

    /// Reads a table.
    pub(crate) fn read(name: &str) -> Result<Self> {
        Self::parse(name, &std::io::read_to_string(Self::open(name)?)?)
    }

    /// Takes a table apart. Every row must have as many fields as the head.
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self> {
        ensure!(text.ends_with('\n'), "{name}: the last line has no end");
        let mut lines = text.lines().map(|line| line.split_whitespace().map(str::to_owned));
        let columns: Vec<String> =
            lines.next().with_context(|| format!("{name}: no head"))?.collect();
        let rows: Vec<Vec<String>> = lines.map(Iterator::collect).collect();
        for row in &rows {
            ensure!(row.len() == columns.len(), "{name}: {row:?} does not fit {columns:?}");
        }
        Ok(Self { name: name.to_owned(), columns, rows })
    }

    /// The rows that have this number in this column.
    pub(crate) fn of(self, column: &str, number: u32) -> Self {
        let (at, number) = (self.column(column), number.to_string());
        let rows = self.rows.into_iter().filter(|row| row[at] == number).collect();
        Self { rows, ..self }
    }

    /// Some fields of a row.
    pub(crate) fn pick<const N: usize>(&self, row: usize, columns: [&str; N]) -> [&str; N] {
        columns.map(|column| self.rows[row][self.column(column)].as_str())
    }

    fn column(&self, name: &str) -> usize {
        let at = self.columns.iter().position(|column| column == name);
        at.unwrap_or_else(|| panic!("table {} has no column {name}", self.name))
    }
}

/// Listens to all tracepoints of the DVK, with a buffer of its own.
pub(crate) struct Listener {
    folder: PathBuf,
}

impl Listener {
    /// One that hears what happens from here on.
    pub(crate) fn new() -> Result<Self> {
        let listener = Self { folder: "/sys/kernel/tracing/instances/dvk-conformance".into() };
        // One that a killed case left behind.
        let _ = std::fs::remove_dir(&listener.folder);
        std::fs::create_dir(&listener.folder)
            .with_context(|| format!("make {}", listener.folder.display()))?;
        listener.enable("1")?;
        Ok(listener)
    }

    /// Stops listening; what was heard stays.
    pub(crate) fn stop(&self) -> Result<()> {
        self.enable("0")
    }

    /// What was heard: name and fields of each event, in order.
    pub(crate) fn lines(&self) -> Result<Vec<String>> {
        let text = std::fs::read_to_string(self.folder.join("trace")).context("read the trace")?;
        Ok(text.lines().filter_map(event).map(str::to_owned).collect())
    }

    fn enable(&self, yes: &str) -> Result<()> {
        let path = self.folder.join("events/dvk/enable");
        std::fs::write(&path, yes).with_context(|| format!("write {yes} to {}", path.display()))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // The next one tries again.
        let _ = std::fs::remove_dir(&self.folder);
    }
}

/// Name and fields of the event of a line of a trace: what comes after task, CPU, flags and time.
fn event(line: &str) -> Option<&str> {
    if line.starts_with('#') {
        return None;
    }
    line.split_once(": ").map(|(_, event)| event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_taken_apart() {
        let table = Table::parse("t", " node state\n    0 self\n   12   up\n").unwrap();
        let table = table.of("node", 12);
        assert_eq!(table.rows.len(), 1);
        assert_eq!(table.pick(0, ["state", "node"]), ["up", "12"]);
        assert!(Table::parse("t", "node state\n0\n").is_err());
        assert!(Table::parse("t", "node state\n0 up").is_err());
        assert!(Table::parse("t", "").is_err());
    }

    #[test]
    fn events_are_found_in_a_trace() {
        let line = "  dvk-conformance-71 [001] b..2.  3.140000: dvk_notify: container=0 bits=0x5";
        assert_eq!(event(line), Some("dvk_notify: container=0 bits=0x5"));
        assert_eq!(event("# tracer: nop"), None);
        assert_eq!(event(""), None);
    }
}
