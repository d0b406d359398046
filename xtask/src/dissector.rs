// SPDX-License-Identifier: MIT OR Apache-2.0
//! Captures as tshark reads them with the dissector in `docs/dissector`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{ensure, Context, Result};

/// Where the dissector is, in the checkout.
const SCRIPT: &str = "docs/dissector/dvk.lua";
/// What its filters begin with.
const PREFIX: &str = "dvk.";
/// What is asked for besides the dissector's own fields, in this order.
const COLUMNS: [&str; 4] =
    ["frame.number", "frame.protocols", "_ws.col.Info", "_ws.expert.message"];
/// Marks of mistakes of a dissector; after the columns. What the script marks as malformed itself gets none of them.
const FAILURES: [&str; 4] = [
    "_ws.lua.error",
    "_ws.malformed.dissector_bug",
    "_ws.malformed.expert",
    "_ws.malformed.reassembly",
];
/// Between the values of a field that a packet has several times; in none of them.
const BETWEEN: char = '|';
/// What tshark says when a test is run in a container.
const AS_ROOT: &str = "Running as user \"root\"";
/// Marks of frames that no node sends.
const REFUSALS: [&str; 3] = ["dvk.malformed", "dvk.unknown_kind", "dvk.unknown_version"];

/// tshark with the dissector.
#[derive(Debug)]
pub(crate) struct Dissector {
    script: PathBuf,
    /// The names of its filters.
    fields: Vec<String>,
}

/// One packet of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    /// Counted from 1.
    pub(crate) number: usize,
    /// The protocols in it, from outside to inside.
    pub(crate) protocols: String,
    /// What the list of packets says of it.
    pub(crate) info: String,
    /// What is remarkable about it, and mistakes of the dissector.
    pub(crate) remarks: String,
    /// Whether the dissector failed.
    failed: bool,
    /// The values of the dissector's fields, as tshark writes them, by the name of their filter.
    pub(crate) fields: BTreeMap<String, Vec<String>>,
}

impl Packet {
    /// The values of a field; none if it has not got it.
    pub(crate) fn values(&self, name: &str) -> &[String] {
        self.fields.get(name).map_or(&[], Vec::as_slice)
    }

    /// Whether no node sends such a frame.
    pub(crate) fn is_refused(&self) -> bool {
        REFUSALS.iter().any(|name| self.fields.contains_key(*name))
    }

    /// Whether the dissector made a mistake.
    pub(crate) fn is_failure(&self) -> bool {
        self.failed
    }
}

impl Dissector {
    /// The dissector of the checkout at `root`.
    ///
    /// # Errors
    /// When tshark cannot be run, or does not take the script.
    pub(crate) fn new(root: &Path) -> Result<Self> {
        let mut dissector = Self { script: root.join(SCRIPT), fields: Vec::new() };
        // `-G` must come first.
        let fields = dissector.run(&["-G", "fields"])?;
        let name = |line: &str| line.strip_prefix("F\t")?.split('\t').nth(1).map(str::to_owned);
        dissector.fields =
            fields.lines().filter_map(name).filter(|name| name.starts_with(PREFIX)).collect();
        dissector.fields.sort();
        ensure!(
            !dissector.fields.is_empty(),
            "asking tshark for the fields of {}: it has none; is this tshark built without Lua?",
            dissector.script.display()
        );
        Ok(dissector)
    }

    /// Reads a capture, from beginning to end and, if `twice`, once more with what was learnt.
    ///
    /// # Errors
    /// When tshark cannot be run, or complains of the capture or the script.
    pub(crate) fn read(&self, capture: &Path, twice: bool) -> Result<Vec<Packet>> {
        let path = capture.to_str().context("reading a capture: its path is not UTF-8")?;
        let between = format!("aggregator={BETWEEN}");
        let mut arguments = vec!["-r", path, "-n", "-T", "fields", "-E", &between];
        arguments.extend(["-E", "occurrence=a"]);
        let fields = self.fields.iter().map(String::as_str);
        let names = COLUMNS.into_iter().chain(FAILURES).chain(fields);
        arguments.extend(names.flat_map(|name| ["-e", name]));
        if twice {
            arguments.push("-2");
        }
        let output = self.run(&arguments)?;
        output
            .lines()
            .map(|line| {
                self.packet(line)
                    .with_context(|| format!("reading what tshark says of {path}: {line}"))
            })
            .collect()
    }

    fn packet(&self, line: &str) -> Result<Packet> {
        let columns: Vec<_> = line.split('\t').collect();
        let few = "it has too few columns";
        let (columns, rest) = columns.split_first_chunk::<{ COLUMNS.len() }>().context(few)?;
        let (failures, values) = rest.split_first_chunk::<{ FAILURES.len() }>().context(few)?;
        ensure!(
            values.len() == self.fields.len(),
            "it has {} fields, not {}",
            values.len(),
            self.fields.len()
        );
        let [number, protocols, info, remarks] = *columns;
        let fields = self.fields.iter().zip(values).filter(|(_, values)| !values.is_empty());
        let split = |values: &str| values.split(BETWEEN).map(str::to_owned).collect();
        Ok(Packet {
            number: number.parse().context("it has no number")?,
            protocols: protocols.to_owned(),
            info: info.to_owned(),
            remarks: remarks.to_owned(),
            failed: failures.iter().any(|failure| !failure.is_empty()),
            fields: fields.map(|(name, values)| (name.clone(), split(values))).collect(),
        })
    }

    /// Runs tshark with the script and gives what it writes.
    fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("tshark");
        command
            // A person's own settings and scripts, this one among them, must not change what comes out.
            .env("WIRESHARK_CONFIG_DIR", self.script.with_extension("no-settings"))
            .args(arguments)
            .arg("-X")
            .arg(format!("lua_script:{}", self.script.display()))
            .stdin(Stdio::null());
        let output = command.output().context(
            "running tshark: `cargo xtask doctor --install` installs it if it is missing",
        )?;
        let complaints = String::from_utf8_lossy(&output.stderr);
        let complaints: Vec<_> =
            complaints.lines().filter(|line| !line.starts_with(AS_ROOT)).collect();
        ensure!(
            output.status.success() && complaints.is_empty(),
            "running tshark with {}: {}: {}",
            self.script.display(),
            output.status,
            complaints.join("; ")
        );
        String::from_utf8(output.stdout).context("reading what tshark writes: it is not UTF-8")
    }
}

#[cfg(test)]
mod tests;
