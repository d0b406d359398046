// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was written to somebody else and not flushed yet: whoever may have lost it is told again.

/// The most that is kept, as bytes that go through a connection. All of it is said again in the time that one request may take.
const BYTES_MAX: usize = 16 << 20;
/// What a change takes besides its data, about.
const BYTES_OF_A_CHANGE: usize = 64;

/// What was done to a store.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A range was written.
    Write {
        /// Where.
        position: u64,
        /// With what.
        data: Box<[u8]>,
    },
    /// A range was made zeros.
    Zero {
        /// Where.
        position: u64,
        /// How many bytes.
        bytes: u64,
    },
}

/// Changes in their order. To do all of them again over what some of them have done comes to the same.
#[derive(Debug, Default)]
pub(super) struct Unflushed {
    changes: Vec<Change>,
    bytes: usize,
}

impl Unflushed {
    /// All of them.
    pub(super) fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Whether there is room for a change that takes as long as so many bytes. Where none are kept there is for any.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.changes.is_empty() || self.bytes + BYTES_OF_A_CHANGE + bytes <= BYTES_MAX
    }

    /// Keeps what was answered, and takes as long as so many bytes. What is safe already is kept if something older is, which would
    /// otherwise come back over it.
    pub(super) fn keep(&mut self, is_safe: bool, bytes: usize, change: impl FnOnce() -> Change) {
        if is_safe && self.changes.is_empty() {
            return;
        }
        self.bytes += BYTES_OF_A_CHANGE + bytes;
        self.changes.push(change());
    }

    /// All of them are safe.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(position: u64) -> Change {
        Change::Write { position, data: vec![1; 1 << 20].into() }
    }

    #[test]
    fn what_is_safe_is_kept_behind_what_is_not() {
        let mut unflushed = Unflushed::default();
        unflushed.keep(true, 1 << 20, || write(0));
        assert_eq!(unflushed.changes(), []);
        unflushed.keep(false, 0, || Change::Zero { position: 0, bytes: 1 << 40 });
        unflushed.keep(true, 1 << 20, || write(512));
        assert_eq!(unflushed.changes(), [Change::Zero { position: 0, bytes: 1 << 40 }, write(512)]);
        unflushed.clear();
        unflushed.keep(true, 1 << 20, || write(0));
        assert_eq!(unflushed.changes(), []);
    }

    #[test]
    fn there_is_an_end_of_what_is_kept() {
        let mut unflushed = Unflushed::default();
        assert!(unflushed.has_room(1 << 30), "the first one is kept however large it is");
        let mut count = 0;
        while unflushed.has_room(1 << 20) {
            unflushed.keep(false, 1 << 20, || write(count << 20));
            count += 1;
        }
        assert_eq!(count, 15, "with what each takes besides its data");
        assert!(unflushed.has_room(512));
        let mut unflushed = Unflushed::default();
        while unflushed.has_room(0) {
            unflushed.keep(false, 0, || Change::Zero { position: 0, bytes: 512 });
        }
        assert_eq!(unflushed.changes().len(), BYTES_MAX / BYTES_OF_A_CHANGE);
    }
}
