// SPDX-License-Identifier: MIT OR Apache-2.0
//! The figures as text.

use mol_bench::Work;

use super::super::{count, ratio};
use super::figures::{Figures, Measurement, Shape};
use super::Way;

/// Width of the first column, and of the others.
const NAMES: usize = 16;
const VALUES: usize = 13;

/// What was measured, shape by shape, beside what the papers say, and how it compares.
pub(in super::super) fn text(figures: &Figures) -> String {
    let mut text = format!("time: {}\n", figures.accelerator);
    for (way, why) in &figures.missing {
        text += &format!("{way} was not measured: {why}\n");
    }
    let mut shapes: Vec<_> = figures.measurements.iter().map(|one| one.shape).collect();
    shapes.sort_unstable_by_key(|shape| (shape.block, shape.depth, shape.bytes));
    shapes.dedup();
    for shape in shapes {
        text += &of_shape(figures, shape);
    }
    text + &ratio::lines("MoL against others", &figures.ratios)
}

fn of_shape(figures: &Figures, shape: Shape) -> String {
    let Shape { bytes, block, depth } = shape;
    let (bytes, block) = (count(bytes as f64), count(block.into()));
    let mut text = format!("\n{bytes} bytes, {block} a request, {depth} at once; MB/s\n");
    let heads = ["read", "", "papers", "write", "", "papers"];
    text += &row("", heads.map(str::to_owned));
    let mut ways: Vec<Way> = figures.measurements.iter().map(|one| one.way).collect();
    ways.sort_unstable();
    ways.dedup();
    for way in ways {
        let [read, write] = [Work::Read, Work::Write].map(|work| figures.find(way, work, shape));
        if read.is_some() || write.is_some() {
            let [a, b, c] = cells(read);
            let [d, e, f] = cells(write);
            text += &row(way.name(), [a, b, c, d, e, f]);
        }
    }
    text
}

/// Megabytes in a second, by how much they vary, and what the papers say.
fn cells(one: Option<&Measurement>) -> [String; 3] {
    let rate = |bytes: Option<f64>| {
        bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{:.2}", bytes / 1e6))
    };
    let spread = one.map(|one| format!("±{:.0}%", 100.0 * one.cost.relative()));
    let paper = one.and_then(|one| one.paper_bytes_per_second);
    [rate(one.map(|one| one.bytes_per_second)), spread.unwrap_or_default(), rate(paper)]
}

fn row(name: &str, cells: [String; 6]) -> String {
    let mut row = format!("{name:<NAMES$}");
    row.extend(cells.map(|cell| format!("{cell:>VALUES$}")));
    row.trim_end().to_owned() + "\n"
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::figures;
    use super::*;

    #[test]
    fn what_was_measured_is_in_the_table() {
        let text = text(&figures());
        let row = |start: &str| {
            let line = text.lines().find(|line| line.starts_with(start)).unwrap();
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(row("1,048,576 bytes"), "1,048,576 bytes, 65,536 a request, 1 at once; MB/s");
        assert_eq!(row("vdd-local"), "vdd-local 524.29 ±38% 378.00 131.07 ±0% 308.00");
        assert_eq!(row("nbd-local"), "nbd-local 174.76 ±0% 158.00 - -");
        assert_eq!(row("nbd-remote"), "nbd-remote was not measured: no such program");
        assert!(row("local-read").ends_with("3.00 against nbd-local goal 2.50: met"));
    }
}
