// SPDX-License-Identifier: MIT OR Apache-2.0
//! The DVK's own figures, from the tables that it shows people.

use std::fs;

use super::exposition::{Exposition, Kind};
use Kind::{Counter, Gauge};

/// Where the kernel shows them.
const FOLDER: &str = "/sys/kernel/debug/dvk";

/// The texts of the tables; empty where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// `dvs`.
    pub dvs: String,
    /// `containers`.
    pub containers: String,
}

impl Tables {
    /// As they are now.
    pub fn read() -> Self {
        let text = |name| fs::read_to_string(format!("{FOLDER}/{name}")).unwrap_or_default();
        Self { dvs: text("dvs"), containers: text("containers") }
    }

    pub(super) fn write(&self, out: &mut Exposition) {
        let dvs = Table::of(&self.dvs);
        if let Some(row) = dvs.rows.first() {
            for (name, kind, help, column) in [
                ("dvk_containers", Gauge, "Containers that span this node.", "containers"),
                ("dvk_peers", Gauge, "Nodes that were up since this one joined.", "peers"),
                (
                    "dvk_malformed_frames_total",
                    Counter,
                    "Frames of the DVK's ethertype that were none of the protocol.",
                    "malformed",
                ),
                (
                    "dvk_stranger_frames_total",
                    Counter,
                    "Frames from a node id that was never up.",
                    "strangers",
                ),
            ] {
                if let Some(value) = dvs.number(row, column) {
                    out.one(name, kind, help, value);
                }
            }
        }
        let containers = Table::of(&self.containers);
        if containers.rows.is_empty() {
            return;
        }
        for (name, help, column) in [
            ("dvk_container_endpoints", "Endpoints that are bound on this node.", "endpoints"),
            ("dvk_container_max_endpoints", "How many may be.", "max_endpoints"),
            ("dvk_container_grants", "Grants that have not ended.", "grants"),
            ("dvk_container_max_grants", "How many there may be.", "max_grants"),
            ("dvk_container_copy_bytes", "Bytes of copies that are under way.", "bytes"),
            ("dvk_container_max_copy_bytes", "How many may be; none for no limit.", "max_bytes"),
        ] {
            let mut family = out.family(name, Gauge, help);
            for row in &containers.rows {
                let word = |column| containers.word(row, column).unwrap_or_default();
                let labels = [("container", word("container")), ("name", word("name"))];
                if let Some(value) = containers.number(row, column) {
                    family.sample(&labels, value);
                }
            }
        }
    }
}

/// A table by the names of its columns, since a later kernel may have more of them.
struct Table<'a> {
    head: Vec<&'a str>,
    rows: Vec<Vec<&'a str>>,
}

impl<'a> Table<'a> {
    fn of(text: &'a str) -> Self {
        let mut lines = text.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
        Self { head: lines.next().unwrap_or_default(), rows: lines.collect() }
    }

    fn word(&self, row: &[&'a str], column: &str) -> Option<&'a str> {
        let index = self.head.iter().position(|head| *head == column)?;
        row.get(index).copied()
    }

    fn number(&self, row: &[&'a str], column: &str) -> Option<u64> {
        self.word(row, column)?.parse().ok()
    }
}
