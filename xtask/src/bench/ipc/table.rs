// SPDX-License-Identifier: MIT OR Apache-2.0
//! The figures as text.

use dvk_bench::{Mechanism, Placement, Policy, Task, Unit};

use super::super::{count, ratio};
use super::figures::{Case, Figures, Measurement};

/// Width of the first column, and of the others.
const NAMES: usize = 18;
const VALUES: usize = 14;

/// All tables that there are figures for.
pub(super) fn text(figures: &Figures) -> String {
    let mut text = format!("time: {}\n", figures.accelerator);
    for table in [round_trips(figures), pairs(figures), copies(figures)] {
        text += &table;
    }
    text + &ratio::lines("M3-IPC against the best of the others", &figures.ratios)
}

fn round_trips(figures: &Figures) -> String {
    let cases = [
        ("1 CPU fifo", Placement::OneCpu, Policy::Fifo, Unit::Instructions),
        ("1 CPU default", Placement::OneCpu, Policy::Default, Unit::Instructions),
        ("1 CPU fifo", Placement::OneCpu, Policy::Fifo, Unit::Nanoseconds),
        ("1 CPU default", Placement::OneCpu, Policy::Default, Unit::Nanoseconds),
        ("2 CPUs fifo", Placement::TwoCpus, Policy::Fifo, Unit::Nanoseconds),
        ("2 CPUs default", Placement::TwoCpus, Policy::Default, Unit::Nanoseconds),
    ];
    let columns: Vec<_> = cases
        .into_iter()
        .map(|(name, placement, policy, unit)| {
            (name.to_owned(), Case::round_trip(placement, policy, unit))
        })
        .collect();
    table(figures, "64-byte round trips, one pair", &columns, cost, true)
}

fn pairs(figures: &Figures) -> String {
    let columns: Vec<_> = (1..=4).map(|n| (format!("{n} pairs"), Case::pairs(n))).collect();
    let rate = |one: &Measurement| one.per_second.map_or("-".into(), |rate| count(rate.round()));
    table(figures, "64-byte round trips per second, pairs on two CPUs", &columns, rate, false)
}

fn copies(figures: &Figures) -> String {
    let mut text = String::new();
    for (title, unit) in [
        ("copies, one CPU, default policy: instructions", Unit::Instructions),
        ("copies, one CPU, default policy: MB/s", Unit::Nanoseconds),
    ] {
        let mechanisms =
            figures.mechanisms(|case| matches!(case.task, Task::Copy(_)) && case.unit == unit);
        if mechanisms.is_empty() {
            continue;
        }
        text += &format!("\n{title}\n{:<NAMES$}", "bytes");
        text.extend(mechanisms.iter().map(|mechanism| format!("{mechanism:>18}")));
        text.push('\n');
        for size in figures.sizes() {
            text += &format!("{:<NAMES$}", count(size.into()));
            for &mechanism in &mechanisms {
                let value = match figures.find(mechanism, Case::copy(size, unit)) {
                    None => "-".to_owned(),
                    Some(one) => match one.bytes_per_second {
                        Some(bytes) => format!("{:.1}", bytes / 1e6),
                        None => count(one.cost.median.round()),
                    },
                };
                text += &format!("{value:>18}");
            }
            text.push('\n');
        }
    }
    text
}

/// A row for each mechanism, and, if `ratio`, one that says how many times the cost of M3-IPC the best of the others takes.
fn table(
    figures: &Figures,
    title: &str,
    columns: &[(String, Case)],
    value: impl Fn(&Measurement) -> String,
    ratio: bool,
) -> String {
    let columns: Vec<_> = columns
        .iter()
        .filter(|(_, case)| figures.measurements.iter().any(|one| one.case == *case))
        .collect();
    if columns.is_empty() {
        return String::new();
    }
    let mut text = format!("\n{title}\n{:<NAMES$}", "");
    text.extend(columns.iter().map(|(name, _)| format!("{name:>VALUES$}")));
    text.push('\n');
    let mut row = |name: &str, value: &dyn Fn(Case) -> Option<String>| {
        text += &format!("{name:<NAMES$}");
        for (_, case) in &columns {
            let value = value(*case).unwrap_or_else(|| "-".to_owned());
            text += &format!("{value:>VALUES$}");
        }
        text.push('\n');
    };
    for mechanism in figures.mechanisms(|case| columns.iter().any(|(_, one)| one == case)) {
        row(mechanism.name(), &|case| figures.find(mechanism, case).map(&value));
    }
    if ratio {
        row("best other / m3", &|case| {
            let m3 = figures.find(Mechanism::M3, case)?;
            Some(format!("{:.2}", figures.best(case)?.cost.median / m3.cost.median))
        });
    }
    text
}

/// Instructions, or microseconds and by how much they vary.
fn cost(one: &Measurement) -> String {
    match one.case.unit {
        Unit::Instructions => count(one.cost.median.round()),
        Unit::Nanoseconds => one.cost.microseconds(),
    }
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
        assert_eq!(row("m3"), "m3 4,000 1.6 µs ±0%");
        assert_eq!(row("sysv-queue"), "sysv-queue 6,000 -");
        assert_eq!(row("best other"), "best other / m3 1.50 50.00");
        assert_eq!(row("4,096"), "4,096 2048.0");
        assert!(row("two-cpus-default").ends_with("50.00 against pipe goal 10.00: met"));
        assert!(!text.contains("copies, one CPU, default policy: instructions"));
    }
}
