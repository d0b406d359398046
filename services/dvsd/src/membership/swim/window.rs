// SPDX-License-Identifier: MIT OR Apache-2.0
//! Takes every counter of a sender once, though messages may overtake each other.

/// How far a message may be overtaken.
const WIDTH: u64 = 64;

/// The counters that one run of a sender has used.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Window {
    /// One more than the highest.
    end: u64,
    /// Bit n: `end - 1 - n` was taken.
    taken: u64,
}

impl Window {
    pub(super) fn admits(&mut self, counter: u64) -> bool {
        if counter >= self.end {
            let ahead = counter - self.end + 1;
            self.taken = if ahead < WIDTH { self.taken << ahead } else { 0 } | 1;
            // The highest counter of all is never reached by counting.
            self.end = counter.saturating_add(1);
            return true;
        }
        let behind = self.end - 1 - counter;
        let fresh = behind < WIDTH && self.taken & (1 << behind) == 0;
        if fresh {
            self.taken |= 1 << behind;
        }
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_taken_once_in_any_order() {
        let mut window = Window::default();
        for counter in [5, 3, 70, 69, 7, 200] {
            assert!(window.admits(counter), "{counter}");
            assert!(!window.admits(counter), "{counter}");
        }
        assert!(!window.admits(5), "it is too old to say");
        assert!(window.admits(137) && !window.admits(136));
    }
}
