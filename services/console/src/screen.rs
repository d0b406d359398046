// SPDX-License-Identifier: MIT OR Apache-2.0
//! A screen as lines of text.

/// How large a terminal is, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: usize,
    /// Characters of a line.
    pub columns: usize,
}

impl Size {
    /// That of a terminal that does not say: the smallest that terminals have.
    pub const LEAST: Self = Self { rows: 24, columns: 80 };
    /// Nobody has a larger one.
    const MOST: usize = 500;

    /// As a terminal says it, which may be nothing or nonsense.
    pub fn of(rows: usize, columns: usize) -> Self {
        match (rows, columns) {
            (0, _) | (_, 0) => Self::LEAST,
            _ => Self { rows: rows.min(Self::MOST), columns: columns.min(Self::MOST) },
        }
    }
}

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// As text does.
    #[default]
    Plain,
    /// To be seen first.
    Bold,
    /// The one that is chosen.
    Reverse,
}

/// A line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// Its characters, each of which takes one place.
    pub text: String,
    /// How it looks.
    pub style: Style,
}

impl Line {
    /// One like any other.
    pub(crate) fn plain(text: impl AsRef<str>) -> Self {
        Self { text: clean(text.as_ref()), style: Style::Plain }
    }

    pub(crate) fn styled(text: impl AsRef<str>, style: Style) -> Self {
        Self { style, ..Self::plain(text) }
    }
}

/// What a terminal is to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Screen {
    /// As many lines as the terminal has, none longer than the terminal is wide.
    pub lines: Vec<Line>,
    /// Where the next character that is typed will be: line and place in it, from 0.
    pub cursor: Option<(usize, usize)>,
}

/// What is on a screen besides its frame.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body {
    pub(crate) lines: Vec<Line>,
    /// Where in them the cursor is.
    pub(crate) cursor: Option<(usize, usize)>,
}

impl Body {
    pub(crate) fn push(&mut self, line: Line) {
        self.lines.push(line);
    }

    pub(crate) fn gap(&mut self) {
        self.lines.push(Line::default());
    }

    /// Text in as many lines as it takes, with a margin.
    pub(crate) fn say(&mut self, text: &str, size: Size) {
        for line in wrapped(text, size.columns.saturating_sub(4)) {
            self.push(Line::plain(format!("  {line}")));
        }
    }
}

/// The lines that a frame takes: two above, two below.
const FRAME: usize = 4;

/// How many lines a body may have.
pub(crate) fn room(size: Size) -> usize {
    size.rows.saturating_sub(FRAME)
}

/// A body in its frame. What does not fit is left out, the frame as well where there is hardly any room; the cursor's line never is.
pub(crate) fn framed(head: [&str; 2], mut body: Body, foot: &str, size: Size) -> Screen {
    let room = room(size);
    if body.lines.len() > room {
        let at = body.cursor.map_or(0, |(row, _)| row);
        let skipped = (at + 1).saturating_sub(room);
        body.lines.drain(..skipped);
        let moved = |(row, column): (usize, usize)| Some((row.checked_sub(skipped)?, column));
        body.cursor = body.cursor.and_then(moved);
        body.lines.truncate(room);
    }
    body.lines.resize(room, Line::default());
    let rule = Line::plain("-".repeat(size.columns));
    let [left, right] = head.map(clean);
    let width = size.columns.saturating_sub(right.chars().count() + 2);
    let title = format!(" {left:width$.width$}{right} ");
    let mut lines = vec![Line { text: title, style: Style::Bold }, rule.clone()];
    lines.append(&mut body.lines);
    lines.extend([rule, Line::plain(format!(" {foot}"))]);
    lines.truncate(size.rows);
    for line in &mut lines {
        line.text = line.text.chars().take(size.columns).collect();
    }
    let cursor = body.cursor.map(|(row, column)| (row + 2, column));
    let cursor = cursor.filter(|(row, column)| *row < size.rows && *column < size.columns);
    Screen { lines, cursor }
}

/// Characters that any terminal shows in one place each; a dot stands for any other one.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '.' }).collect()
}

/// Text in lines of at most so many characters, broken at blanks where there are some.
pub(crate) fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(1);
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut rest: Vec<char> = clean(paragraph).chars().collect();
        while rest.len() > columns {
            let blank = rest[..=columns].iter().rposition(|c| *c == ' ').filter(|at| *at > 0);
            let line: String = rest.drain(..blank.unwrap_or(columns)).collect();
            lines.push(line.trim_end().to_owned());
            let blanks = rest.iter().take_while(|c| **c == ' ').count();
            rest.drain(..blanks);
        }
        lines.push(rest.into_iter().collect());
    }
    lines
}
