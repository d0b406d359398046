// SPDX-License-Identifier: MIT OR Apache-2.0
//! The clock of a leader, which gives commands their time.

use dvs_state::Time;

/// Counts agreed time on from the state that a leader began with, by its own monotonic clock.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock {
    term: u64,
    /// Agreed time, and this node's when that was.
    origin: (Time, u64),
}

impl Clock {
    /// The time of a command that is proposed in `term`, at `monotonic_ms` by this node's clock, while the state has come to
    /// `applied`.
    ///
    /// In a new term it counts on from the state. Should the state come later still, since it had not applied everything that
    /// an earlier leader proposed, it counts on from there; so time does not stand still until the clock has caught up.
    pub(crate) fn stamp(&mut self, term: u64, applied: Time, monotonic_ms: u64) -> Time {
        let (begun, at_ms) = self.origin;
        let counted = begun.after(monotonic_ms.saturating_sub(at_ms));
        if term == self.term && counted >= applied {
            return counted;
        }
        *self = Self { term, origin: (applied, monotonic_ms) };
        applied
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_counts_on_from_the_state_it_began_with() {
        let mut clock = Clock::default();
        assert_eq!(clock.stamp(1, Time(5_000), 100), Time(5_000));
        assert_eq!(clock.stamp(1, Time(5_000), 350), Time(5_250));
        // It was deposed, and another counted less far, or further.
        assert_eq!(clock.stamp(3, Time(5_100), 900), Time(5_100));
        assert_eq!(clock.stamp(4, Time(7_000), 1_000), Time(7_000));
    }

    #[test]
    fn what_an_earlier_leader_proposed_and_is_applied_late_moves_the_clock() {
        let mut clock = Clock::default();
        clock.stamp(2, Time(10), 0);
        assert_eq!(clock.stamp(2, Time(90_000), 50), Time(90_000));
        assert_eq!(clock.stamp(2, Time(90_000), 60), Time(90_010));
    }
}
