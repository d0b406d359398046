// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keys as terminals send them: bytes, of which several may be one key.

/// A key that means something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A printable character.
    Character(char),
    /// Enter.
    Enter,
    /// Escape, or control-C.
    Escape,
    /// Takes back the last character.
    Backspace,
    /// Takes back all characters: control-U.
    Clear,
    /// To the line above.
    Up,
    /// To the line below, as the tabulator does.
    Down,
    /// To what was chosen before it.
    Left,
    /// To what is chosen after it.
    Right,
    /// Shows everything anew: control-L.
    Redraw,
}

const ESCAPE: u8 = 0x1b;
/// The longest sequence that is waited for.
const SEQUENCE_MAX: usize = 16;

/// Makes keys of bytes.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    /// The beginning of a sequence.
    begun: Vec<u8>,
}

impl Keys {
    /// The keys that are complete with these bytes.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Key> {
        bytes.iter().filter_map(|byte| self.next(*byte)).collect()
    }

    /// Whether an escape may be a key or the beginning of a longer sequence, of which the rest comes at once.
    pub fn is_open(&self) -> bool {
        !self.begun.is_empty()
    }

    /// The key that it was, since nothing more has come.
    pub fn settle(&mut self) -> Option<Key> {
        let begun = std::mem::take(&mut self.begun);
        (begun == [ESCAPE]).then_some(Key::Escape)
    }

    fn next(&mut self, byte: u8) -> Option<Key> {
        if self.begun.is_empty() {
            return match byte {
                ESCAPE => {
                    self.begun.push(byte);
                    None
                }
                b'\r' | b'\n' => Some(Key::Enter),
                b'\t' => Some(Key::Down),
                0x08 | 0x7f => Some(Key::Backspace),
                0x03 => Some(Key::Escape),
                0x0c => Some(Key::Redraw),
                0x15 => Some(Key::Clear),
                b' '..=b'~' => Some(Key::Character(char::from(byte))),
                // Control characters, and letters that no name or token has.
                _ => None,
            };
        }
        if byte == ESCAPE {
            // Whatever had begun has no end.
            let key = self.settle();
            self.begun.push(byte);
            return key;
        }
        self.begun.push(byte);
        match &self.begun[1..] {
            // An arrow, of a terminal that is in either mode.
            [b'[' | b'O', b'A'] => self.ended(Some(Key::Up)),
            [b'[' | b'O', b'B'] => self.ended(Some(Key::Down)),
            [b'[' | b'O', b'C'] => self.ended(Some(Key::Right)),
            [b'[' | b'O', b'D'] => self.ended(Some(Key::Left)),
            [b'[', b'Z'] => self.ended(Some(Key::Up)),
            [b'[', b'3', b'~'] => self.ended(Some(Key::Backspace)),
            [b'[' | b'O'] | [b'[', b'['] => None,
            [b'[', .., last]
                if !(0x40..=0x7e).contains(last) && self.begun.len() < SEQUENCE_MAX =>
            {
                None
            }
            // A key that means nothing here.
            _ => self.ended(None),
        }
    }

    fn ended(&mut self, key: Option<Key>) -> Option<Key> {
        self.begun.clear();
        key
    }
}
