// SPDX-License-Identifier: MIT OR Apache-2.0
//! The figures as text.

use dvk_bench::{Carrier, Work, PAIRS_MAX};

use super::super::{count, ratio};
use super::figures::{Figures, Measurement};

/// Width of the first column, and of the others.
const NAMES: usize = 16;
const VALUES: usize = 16;

/// All tables that there are figures for.
pub(super) fn text(figures: &Figures) -> String {
    let mut text = format!("time: {}\n", figures.accelerator);
    for (carrier, why) in &figures.missing {
        text += &format!("{carrier} was not measured: {why}\n");
    }
    text += &round_trips(figures);
    for (title, work) in [
        ("blocks from the server to the client", Work::Fetch as fn(u32) -> Work),
        ("blocks from the client to the server", Work::Store),
    ] {
        text += &blocks(figures, &format!("{title}, MB/s"), work, &|one| {
            one.bytes_per_second.map(|bytes| format!("{:.3}", bytes / 1e6))
        });
        text += &blocks(figures, &format!("{title}, instructions per block"), work, &|one| {
            one.executed().map(|executed| count(executed.round()))
        });
    }
    text + &ratio::lines("M3-IPC against sockets", &figures.ratios)
}

fn round_trips(figures: &Figures) -> String {
    let carriers = figures.carriers(|work| work == Work::RoundTrip);
    if carriers.is_empty() {
        return String::new();
    }
    let pairs = (1..=PAIRS_MAX).map(|pairs| format!("{pairs} pairs/s"));
    let columns = ["a round trip", "instructions"].map(str::to_owned).into_iter().chain(pairs);
    let mut text = format!("\n64-byte round trips between two nodes\n{:<NAMES$}", "");
    text.extend(columns.map(|column| format!("{column:>VALUES$}")));
    text.push('\n');
    for carrier in carriers {
        let find = |pairs| figures.find(carrier, Work::RoundTrip, pairs);
        let rates = (1..=PAIRS_MAX).map(|pairs| value(find(pairs), |one| count(one.per_second)));
        let cells = [value(find(1), cost), value(find(1), instructions)].into_iter().chain(rates);
        text += &row(carrier.name(), cells);
    }
    text
}

fn blocks(
    figures: &Figures,
    title: &str,
    work: fn(u32) -> Work,
    show: &dyn Fn(&Measurement) -> Option<String>,
) -> String {
    let sizes: Vec<u32> = (0..u32::BITS).map(|bits| 1 << bits).collect();
    let carriers = figures.carriers(|one| sizes.iter().any(|size| work(*size) == one));
    let cell = |carrier: &Carrier, size: u32| show(figures.find(*carrier, work(size), 1)?);
    let mut text = String::new();
    for size in sizes {
        let cells: Vec<_> = carriers.iter().map(|carrier| cell(carrier, size)).collect();
        if cells.iter().all(Option::is_none) {
            continue;
        }
        if text.is_empty() {
            text = format!("\n{title}\n");
            text += &row("bytes", carriers.iter().map(|carrier| carrier.name().to_owned()));
        }
        let cells = cells.into_iter().map(|cell| cell.unwrap_or_else(|| "-".to_owned()));
        text += &row(&count(size.into()), cells);
    }
    text
}

fn row(name: &str, cells: impl Iterator<Item = String>) -> String {
    let mut row = format!("{name:<NAMES$}");
    row.extend(cells.map(|cell| format!("{cell:>VALUES$}")));
    row + "\n"
}

fn value(one: Option<&Measurement>, show: impl Fn(&Measurement) -> String) -> String {
    one.map_or_else(|| "-".to_owned(), show)
}

/// Microseconds and by how much they vary.
fn cost(one: &Measurement) -> String {
    one.cost.microseconds()
}

/// Of both nodes.
fn instructions(one: &Measurement) -> String {
    one.executed().map_or_else(|| "-".to_owned(), |executed| count(executed.round()))
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::figures;
    use super::*;

    #[test]
    fn what_was_measured_is_in_the_tables() {
        let text = text(&figures());
        let row = |start: &str| {
            let line = text.lines().find(|line| line.starts_with(start)).unwrap();
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(row("m3-ethernet "), "m3-ethernet 100.0 µs ±8% 25,000 10,000 20,000 - -");
        assert_eq!(row("m3-quic"), "m3-quic was not measured: no such proxy");
        assert_eq!(row("65,536"), "65,536 100.000 200.000");
        assert_eq!(row("1 "), "1 1.000");
        assert!(row("round-trip-tipc").ends_with("2.00 against tipc-rdm goal 1.80: met"));
        assert!(row("round-trip-tcp").ends_with("3.00 against tcp goal 4.00: missed"));
    }
}
