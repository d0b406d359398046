// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is sent to a terminal so that it shows a screen.

use std::fmt::Write;

use crate::screen::{Line, Screen, Style};

/// Knows what a terminal shows, as far as nobody else writes to it.
#[derive(Debug, Default)]
pub struct Painter {
    shown: Option<Screen>,
}

impl Painter {
    /// What makes the terminal show a screen: the lines that differ, or all of them after [`forget`](Self::forget). Empty if there is none.
    pub fn paint(&mut self, screen: &Screen, columns: usize) -> String {
        if self.shown.as_ref() == Some(screen) {
            return String::new();
        }
        let mut text = String::from("\x1b[?25l");
        for (row, line) in screen.lines.iter().enumerate() {
            let shown = self.shown.as_ref().and_then(|shown| shown.lines.get(row));
            if shown != Some(line) {
                put(&mut text, row, line, columns);
            }
        }
        if let Some((row, column)) = screen.cursor {
            at(&mut text, row, column);
            text += "\x1b[?25h";
        }
        self.shown = Some(screen.clone());
        text
    }

    /// Somebody else may have written to the terminal, or it has another size.
    pub fn forget(&mut self) {
        self.shown = None;
    }

    /// Leaves the terminal to who was there before.
    pub fn leave(&mut self) -> &'static str {
        self.forget();
        "\x1b[0m\x1b[H\x1b[J\x1b[?25h"
    }
}

fn at(text: &mut String, row: usize, column: usize) {
    // Writing to a string cannot fail.
    let _ = write!(text, "\x1b[{};{}H", row + 1, column + 1);
}

fn put(text: &mut String, row: usize, line: &Line, columns: usize) {
    at(text, row, 0);
    *text += match line.style {
        Style::Plain => "\x1b[0m",
        Style::Bold => "\x1b[0;1m",
        Style::Reverse => "\x1b[0;7m",
    };
    *text += &line.text;
    // With the last place taken, the cursor stays there, and clearing from there would clear that place.
    if line.text.chars().count() < columns {
        *text += "\x1b[0m\x1b[K";
    } else {
        *text += "\x1b[0m";
    }
}
