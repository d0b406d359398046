// SPDX-License-Identifier: MIT OR Apache-2.0
//! What people see of a virtual cluster. All of it goes to standard error: standard output belongs to `--exec`'s command.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

use dvs_qemu::readiness::Progress;
use dvs_qemu::run_directory::Description;
use dvs_qemu::switch::PortCounters;
use dvs_qemu::transcript::{plain, Transcript};
use dvs_qemu::Status;

/// A table of `rows` under `heads`, columns two blanks apart.
pub(super) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(String::len);
        cells.chain([heads[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (cell, width) in cells.zip(&widths) {
            line += &format!("{cell:<width$}  ");
        }
        line.trim_end().to_owned() + "\n"
    };
    let mut text = line(&mut heads.iter().copied());
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str));
    }
    text
}

/// Where to find each node.
pub(super) fn nodes(cluster: &Description) -> String {
    let row = |(n, node): (usize, &dvs_qemu::run_directory::NodeDescription)| {
        vec![format!("node{n}"), node.mac.clone(), node.api.clone(), node.log.display().to_string()]
    };
    let rows: Vec<_> = cluster.nodes.iter().enumerate().map(row).collect();
    table(&["NODE", "ADDRESS", "API", "CONSOLE LOG"], &rows)
}

/// How each node, or only `node`, is doing.
pub(super) fn status(status: &Status, node: Option<usize>) -> String {
    let mut rows = Vec::new();
    for (n, state) in status.nodes.iter().enumerate().filter(|(n, _)| node.is_none_or(|o| o == *n))
    {
        let about = &status.cluster.nodes[n];
        let ports = status.switch.ports.iter().skip(n).step_by(status.nodes.len());
        let port = ports.fold(PortCounters::default(), |sum, &port| sum + port);
        rows.push(vec![
            format!("node{n}"),
            state.power.as_str().to_owned(),
            about.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            cables(&state.carrier),
            port.sent.to_string(),
            port.delivered.to_string(),
            port.lost.to_string(),
            about.api.clone(),
            about.log.display().to_string(),
        ]);
    }
    let heads = ["NODE", "POWER", "PID", "CABLE", "SENT", "RECEIVED", "LOST", "API", "CONSOLE LOG"];
    let mut text = table(&heads, &rows);
    let named = |from: usize, to: usize| node.is_none_or(|node| node == from || node == to);
    for &(from, to) in status.switch.cut.iter().filter(|(from, to)| named(*from, *to)) {
        text += &format!("link {from}>{to}: cut\n");
    }
    for (from, to, faults) in status.switch.faults.iter().filter(|(from, to, _)| named(*from, *to))
    {
        text += &format!("link {from}>{to}: {faults}\n");
    }
    text
}

/// Whether a node's cables are plugged in, by segment.
fn cables(carrier: &[bool]) -> String {
    let words: Vec<_> = carrier.iter().map(|&up| if up { "up" } else { "down" }).collect();
    words.join(",")
}

/// How to reach the cluster from elsewhere.
pub(super) fn hints(cluster: &Description, run: &Path, tools: &Path) -> String {
    let (name, tools) = (&cluster.name, tools.display());
    let folder = dvs_qemu::access::folder(run);
    format!(
        "from another terminal:\n  \
         export DVSCTL_CONFIG={}\n  \
         {tools}/dvsctl node list\n  \
         cargo xtask qemu status --name {name}\n",
        folder.display()
    )
}

/// One line that is redrawn on a terminal, and written anew where it can't be.
#[derive(Debug)]
pub(super) struct ProgressLine {
    terminal: bool,
    shown: String,
}

impl ProgressLine {
    pub(super) fn new() -> Self {
        ProgressLine { terminal: io::stderr().is_terminal(), shown: String::new() }
    }

    /// Shows how far the nodes have come, if that has changed.
    pub(super) fn show(&mut self, all: &[Progress]) {
        let state = |(n, node): (usize, &Progress)| format!("node{n} {}", node.describe(all.len()));
        let line = all.iter().enumerate().map(state).collect::<Vec<_>>().join(" · ");
        if line == self.shown {
            return;
        }
        if self.terminal {
            eprint!("\r\x1b[K{line}");
            let _ = io::stderr().flush();
        } else {
            eprintln!("{line}");
        }
        self.shown = line;
    }

    /// Makes way for other lines.
    pub(super) fn clear(&mut self) {
        if self.terminal && !self.shown.is_empty() {
            eprint!("\r\x1b[K");
        }
        self.shown.clear();
    }
}

/// The last `count` lines of a console log.
pub(crate) fn last_lines(log: &Path, count: usize) -> Vec<String> {
    match fs::read(log) {
        Ok(bytes) => {
            let mut end = Transcript::new(64 << 10);
            end.push(&bytes);
            end.last_lines(count)
        }
        Err(error) => vec![format!("(reading {}: {error})", log.display())],
    }
}

/// Puts the pieces of one node's console together to prefixed lines.
#[derive(Debug)]
pub(super) struct PrefixedLines {
    prefix: String,
    pending: Vec<u8>,
}

impl PrefixedLines {
    pub(super) fn new(node: usize) -> Self {
        PrefixedLines { prefix: format!("n{node}| "), pending: Vec::new() }
    }

    /// The lines completed by `bytes`.
    pub(super) fn add(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let whole = self.pending.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let lines: Vec<u8> = self.pending.drain(..whole).collect();
        let prefixed = plain(&lines);
        prefixed.lines().map(|line| format!("{}{}\n", self.prefix, line.trim_end())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned() {
        let rows = [vec!["node0".to_owned(), "up".to_owned()], vec!["x".to_owned(), String::new()]];
        assert_eq!(table(&["NODE", "CABLE"], &rows), "NODE   CABLE\nnode0  up\nx\n");
    }

    #[test]
    fn lines_are_prefixed_once_they_are_complete() {
        let mut lines = PrefixedLines::new(2);
        assert_eq!(lines.add(b"one\r\ntw"), "n2| one\n");
        assert_eq!(lines.add(b"o\x1b[0m"), "");
        assert_eq!(lines.add(b"\nthree\n"), "n2| two\nn2| three\n");
    }
}
