// SPDX-License-Identifier: MIT OR Apache-2.0
//! A text that is typed.

use crate::keys::Key;

/// The longest text.
const LENGTH_MAX: usize = 256;

/// A text, and how it is shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Field {
    text: String,
    /// Whether nobody is to read it from the screen.
    masked: bool,
}

impl std::fmt::Debug for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Field").field(&self.shown()).finish()
    }
}

impl Field {
    /// One that has a text already.
    pub(crate) fn of(text: String) -> Self {
        Self { text, masked: false }
    }

    /// One for a secret.
    pub(crate) fn masked() -> Self {
        Self { text: String::new(), masked: true }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Changes the text by a key; whether the key is one that does.
    pub(crate) fn press(&mut self, key: Key) -> bool {
        match key {
            Key::Character(c) if self.text.len() < LENGTH_MAX => self.text.push(c),
            Key::Character(_) => {}
            Key::Backspace => drop(self.text.pop()),
            Key::Clear => self.text.clear(),
            _ => return false,
        }
        true
    }

    /// What the screen shows of it.
    pub(crate) fn shown(&self) -> String {
        match self.masked {
            true => "*".repeat(self.text.len()),
            false => self.text.clone(),
        }
    }
}
