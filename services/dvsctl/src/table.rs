// SPDX-License-Identifier: MIT OR Apache-2.0
//! Columns of text, as wide as they need to be.

use std::fmt;

/// Rows of the same number of cells.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<Vec<String>>);

impl Table {
    /// A table with these headings; without any if there are none.
    pub(crate) fn new(headings: &[&str]) -> Self {
        let headings: Vec<_> = headings.iter().map(|heading| (*heading).to_owned()).collect();
        Self(if headings.is_empty() { Vec::new() } else { vec![headings] })
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.0.push(cells.into());
    }

    /// A row whose number of cells depends on what is asked for.
    pub(crate) fn cells(&mut self, cells: Vec<String>) {
        self.0.push(cells);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.0.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
        };
        let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        for row in &self.0 {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line += &format!("{cell:width$}  ");
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_tail() {
        let mut table = Table::new(&["ID", "NAME"]);
        table.row(["0".into(), "a long one".into()]);
        table.row(["1000".into(), String::new()]);
        assert_eq!(table.to_string(), "ID    NAME\n0     a long one\n1000\n");
    }
}
