// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which numbered datagrams were there before (the bitmap of RFC 6479).

/// Bits of a word.
const WORD: u64 = 64;
/// Words: a power of two, one of which is being filled.
const WORDS: u64 = 128;
/// Datagrams by which one may be late. The link has fewer frames under way than this, so that only what was long given up is.
pub(crate) const SPAN: u64 = (WORDS - 1) * WORD;

/// The numbers that came, as far as they are not forgotten.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    /// A bit for each number, in a ring of words.
    seen: [u64; WORDS as usize],
    /// One more than the highest number that came.
    next: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self { seen: [0; WORDS as usize], next: 0 }
    }
}

impl Window {
    /// Whether a number may be new: it did not come, or it is not known any more whether it did.
    pub(crate) fn admits(&self, number: u64) -> bool {
        if number >= self.next {
            return true;
        }
        self.next - number <= SPAN && self.seen[word(number)] & bit(number) == 0
    }

    /// Notes a number, and returns whether it is new. What is too old to be known is not.
    pub(crate) fn accept(&mut self, number: u64) -> bool {
        if !self.admits(number) {
            return false;
        }
        if number >= self.next {
            // The words between that of the last number and that of this one begin anew; all do at most once.
            let (last, now) = (self.next.saturating_sub(1) / WORD, number / WORD);
            for skipped in (last + 1..=now).take(WORDS as usize) {
                self.seen[(skipped % WORDS) as usize] = 0;
            }
            if now - last >= WORDS {
                self.seen = [0; WORDS as usize];
            }
            self.next = number + 1;
        }
        self.seen[word(number)] |= bit(number);
        true
    }
}

fn word(number: u64) -> usize {
    (number / WORD % WORDS) as usize
}

fn bit(number: u64) -> u64 {
    1 << (number % WORD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Remembers everything.
    #[derive(Default)]
    struct Model {
        seen: BTreeSet<u64>,
    }

    impl Model {
        fn accept(&mut self, number: u64) -> bool {
            let next = self.seen.last().map_or(0, |highest| highest + 1);
            let late = number < next && next - number > SPAN;
            !late && self.seen.insert(number)
        }
    }

    proptest! {
        #[test]
        fn a_number_is_accepted_once(
            steps in prop::collection::vec(
                prop_oneof![
                    8 => -70i64..70,
                    2 => -(SPAN as i64) - 70..SPAN as i64 + 70,
                    1 => -100_000i64..100_000,
                ],
                1..400,
            ),
        ) {
            let (mut window, mut model, mut at) = (Window::default(), Model::default(), 0u64);
            for step in steps {
                at = at.saturating_add_signed(step);
                let admitted = window.admits(at);
                let expected = model.accept(at);
                prop_assert_eq!(admitted, expected, "{}", at);
                prop_assert_eq!(window.accept(at), expected, "{}", at);
            }
        }
    }

    #[test]
    fn the_ends_of_the_numbers_are_no_exception() {
        let mut window = Window::default();
        assert!(window.accept(0) && !window.accept(0));
        assert!(window.accept(SPAN - 1) && !window.accept(0) && window.accept(1));
        assert!(window.accept(SPAN + 1) && !window.accept(1) && window.accept(2));
        // Noise gives the last number to nobody, so that there is always a next one.
        let last = u64::MAX - 1;
        assert!(window.accept(last) && !window.accept(last) && window.accept(last - SPAN + 1));
        assert!(!window.accept(last - SPAN));
    }
}
