// SPDX-License-Identifier: MIT OR Apache-2.0
//! The recent output of a console, readable by any number of readers at their own pace.
//!
//! Readers remember a position and ask for what follows it. Who is too slow loses the oldest bytes and is told how
//! many; the writer never waits for anybody.

use std::collections::VecDeque;

/// A byte stream of which the last part is kept.
#[derive(Debug)]
pub struct Transcript {
    bytes: VecDeque<u8>,
    /// Position of the first byte kept, counted from the beginning of the stream.
    start: u64,
    capacity: usize,
}

/// What [`Transcript::read`] found.
#[derive(Debug, PartialEq, Eq)]
pub struct Passage {
    /// Bytes that were asked for and are no longer kept.
    pub lost: u64,
    /// What follows them.
    pub bytes: Vec<u8>,
    /// The position after the last byte: where to read on.
    pub end: u64,
}

impl Transcript {
    /// An empty transcript that keeps the last `capacity` bytes.
    pub fn new(capacity: usize) -> Self {
        Transcript { bytes: VecDeque::new(), start: 0, capacity }
    }

    /// Adds to the end.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        let excess = self.bytes.len().saturating_sub(self.capacity);
        self.bytes.drain(..excess);
        self.start += excess as u64;
    }

    /// The position after the last byte.
    pub fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// At most `limit` bytes from position `from` on.
    pub fn read(&self, from: u64, limit: usize) -> Passage {
        let from = from.min(self.end());
        let begin = from.max(self.start);
        let skip = (begin - self.start) as usize;
        let bytes: Vec<u8> = self.bytes.iter().skip(skip).take(limit).copied().collect();
        Passage { lost: begin - from, end: begin + bytes.len() as u64, bytes }
    }

    /// Position just after the first occurrence of `text` at or after `from`.
    pub fn find(&self, text: &str, from: u64) -> Option<u64> {
        let passage = self.read(from, usize::MAX);
        let begin = passage.end - passage.bytes.len() as u64;
        if text.is_empty() {
            return Some(begin);
        }
        let at = passage.bytes.windows(text.len()).position(|window| window == text.as_bytes())?;
        Some(begin + (at + text.len()) as u64)
    }

    /// The last `count` lines as text, without escape sequences that could disturb a terminal.
    pub fn last_lines(&self, count: usize) -> Vec<String> {
        let text = plain(&self.read(0, usize::MAX).bytes);
        let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|l| !l.is_empty()).collect();
        lines[lines.len().saturating_sub(count)..].iter().map(|&line| line.to_owned()).collect()
    }
}

/// Console output as text: escape sequences and control characters other than newline and tab are left out.
///
/// The firmware of a virtual machine moves the cursor and clears the screen; lines that are shown with a prefix among
/// those of other machines must not.
pub fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.peek() {
                // Control sequence: parameters, then one final byte (ECMA-48, 5.4).
                Some('[') => {
                    chars.next();
                    for c in chars.by_ref() {
                        if ('\u{40}'..='\u{7e}').contains(&c) {
                            break;
                        }
                    }
                }
                Some(_) => {
                    chars.next();
                }
                None => {}
            },
            '\n' | '\t' => out.push(c),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_reader_gets_every_byte_or_is_told(
            pushes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..30),
            capacity in 1usize..100,
            every in 1usize..6,
        ) {
            let whole = pushes.concat();
            let mut transcript = Transcript::new(capacity);
            let (mut position, mut seen) = (0, 0u64);
            for (n, push) in pushes.iter().enumerate() {
                transcript.push(push);
                if n % every == 0 {
                    let passage = transcript.read(position, 17);
                    seen += passage.lost;
                    let begin = seen as usize;
                    prop_assert_eq!(&whole[begin..begin + passage.bytes.len()], &passage.bytes[..]);
                    seen += passage.bytes.len() as u64;
                    position = passage.end;
                    prop_assert_eq!(position, seen);
                }
            }
            prop_assert!(transcript.bytes.len() <= capacity);
            prop_assert_eq!(transcript.end(), whole.len() as u64);
        }

        #[test]
        fn plain_text_has_no_controls(noise in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(plain(&noise).chars().all(|c| !c.is_control() || c == '\n' || c == '\t'));
        }
    }

    #[test]
    fn text_is_found_after_a_position() {
        let mut transcript = Transcript::new(100);
        transcript.push(b"ready\nre");
        transcript.push(b"ady\n");
        assert_eq!(transcript.find("ready", 0), Some(5));
        assert_eq!(transcript.find("ready", 5), Some(11));
        assert_eq!(transcript.find("ready", 11), None);
    }

    #[test]
    fn last_lines_are_clean() {
        let mut transcript = Transcript::new(100);
        transcript.push(b"\x1bc\x1b[2JSeaBIOS\r\nBooting\r\n\r\nlast");
        assert_eq!(transcript.last_lines(2), ["Booting", "last"]);
        assert_eq!(transcript.last_lines(9), ["SeaBIOS", "Booting", "last"]);
    }
}
