// SPDX-License-Identifier: MIT OR Apache-2.0
//! What clients saw, and whether a device could have shown it.
//!
//! Every write has a value of its own, so each block is a register for which it can be decided fast
//! whether a history is linearizable (Gibbons and Korach, Testing Shared Memories, 1997): each value has a *zone* from the
//! first end of an operation with it to the last beginning of one. It runs forward if that end comes first; then the
//! register has the value all the while. No two forward zones may overlap, and no backward zone may lie in a forward one.

use std::collections::BTreeMap;

/// Moments, each only once.
pub(crate) type Moment = u64;

#[derive(Clone, Copy, Debug)]
struct Write {
    begin: Moment,
    /// If it was answered.
    end: Option<Moment>,
}

#[derive(Clone, Copy, Debug)]
struct Read {
    value: u64,
    begin: Moment,
    end: Moment,
}

#[derive(Default)]
struct Block {
    writes: BTreeMap<u64, Write>,
    reads: Vec<Read>,
}

/// What was asked and answered. A block that was never written has the value 0.
#[derive(Default)]
pub(crate) struct History {
    blocks: BTreeMap<u64, Block>,
    /// Flushes that were answered.
    flushes: Vec<(Moment, Moment)>,
    /// When all lost power.
    blackouts: Vec<Moment>,
}

impl History {
    pub(crate) fn write_begins(&mut self, block: u64, value: u64, begin: Moment) {
        self.blocks.entry(block).or_default().writes.insert(value, Write { begin, end: None });
    }

    pub(crate) fn write_ends(&mut self, block: u64, value: u64, end: Moment) {
        let writes = self.blocks.get_mut(&block).map(|block| &mut block.writes);
        writes.and_then(|writes| writes.get_mut(&value)).expect("it began").end = Some(end);
    }

    pub(crate) fn read(&mut self, block: u64, value: u64, begin: Moment, end: Moment) {
        self.blocks.entry(block).or_default().reads.push(Read { value, begin, end });
    }

    pub(crate) fn flushed(&mut self, begin: Moment, end: Moment) {
        self.flushes.push((begin, end));
    }

    pub(crate) fn blacked_out(&mut self, at: Moment) {
        self.blackouts.push(at);
    }

    pub(crate) fn answered_writes(&self) -> usize {
        self.blocks
            .values()
            .map(|block| block.writes.values().filter(|write| write.end.is_some()).count())
            .sum()
    }

    pub(crate) fn reads(&self) -> usize {
        self.blocks.values().map(|block| block.reads.len()).sum()
    }

    pub(crate) fn flushes(&self) -> usize {
        self.flushes.len()
    }

    /// What a device that loses nothing cannot have shown.
    pub(crate) fn contradiction(&self) -> Option<String> {
        self.blocks.iter().find_map(|(number, block)| {
            block.contradiction().map(|text| format!("block {number}: {text}"))
        })
    }

    /// What a device that keeps what was flushed, and perhaps nothing more, cannot have shown.
    pub(crate) fn lost_flush(&self) -> Option<String> {
        self.blocks.iter().find_map(|(number, block)| {
            block
                .lost_flush(&self.flushes, &self.blackouts)
                .map(|text| format!("block {number}: {text}"))
        })
    }
}

impl Block {
    fn all_writes(&self) -> BTreeMap<u64, Write> {
        let mut writes = self.writes.clone();
        writes.insert(0, Write { begin: 0, end: Some(0) });
        writes
    }

    fn contradiction(&self) -> Option<String> {
        let writes = self.all_writes();
        // By value: the first end, and the last beginning.
        let mut zones: BTreeMap<u64, (Moment, Moment)> = BTreeMap::new();
        for (&value, write) in &writes {
            if let Some(end) = write.end {
                zones.insert(value, (end, write.begin));
            }
        }
        for read in &self.reads {
            let Some(write) = writes.get(&read.value) else {
                return Some(format!("{read:?} of a value that nobody wrote"));
            };
            if read.end < write.begin {
                return Some(format!("{read:?} of what was written later: {write:?}"));
            }
            let zone = zones.entry(read.value).or_insert((Moment::MAX, write.begin));
            *zone = (zone.0.min(read.end), zone.1.max(read.begin));
        }
        let describe = |value: u64| {
            let reads: Vec<_> = self.reads.iter().filter(|read| read.value == value).collect();
            format!("value {value} with {:?} and reads {reads:?}", writes[&value])
        };
        let (mut forward, mut backward) = (Vec::new(), Vec::new());
        for (&value, &(first_end, last_begin)) in &zones {
            match first_end < last_begin {
                true => forward.push((first_end, last_begin, value)),
                false => backward.push((last_begin, first_end, value)),
            }
        }
        forward.sort_unstable();
        for pair in forward.windows(2) {
            if pair[1].0 < pair[0].1 {
                return Some(format!("{} overlaps {}", describe(pair[0].2), describe(pair[1].2)));
            }
        }
        for &(from, to, value) in &backward {
            // Forward zones do not overlap, so the last that begins before is the only one it can lie in.
            let before = forward.partition_point(|zone| zone.0 < from);
            if let Some(&(_, end, other)) = before.checked_sub(1).map(|index| &forward[index]) {
                if to < end {
                    return Some(format!("{} lies in {}", describe(value), describe(other)));
                }
            }
        }
        None
    }

    fn lost_flush(&self, flushes: &[(Moment, Moment)], blackouts: &[Moment]) -> Option<String> {
        let writes = self.all_writes();
        for read in &self.reads {
            let Some(seen) = writes.get(&read.value) else {
                return Some(format!("{read:?} of a value that nobody wrote"));
            };
            let Some(seen_end) = seen.end else { continue };
            for (value, write) in &writes {
                let is_safe = |&(begin, end): &(Moment, Moment)| {
                    let Some(answered) = write.end else { return false };
                    // The answer may have been on its way while the lights went out.
                    let was_dark = blackouts.iter().any(|at| (write.begin..end).contains(at));
                    answered < begin && end < read.begin && !was_dark
                };
                if seen_end < write.begin && flushes.iter().any(is_safe) {
                    return Some(format!(
                        "{read:?} though {value} was written later and flushed: {write:?}"
                    ));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Operations on one block: value, begin, end; whether it is a write.
    fn history(operations: &[(bool, u64, Moment, Moment)]) -> History {
        let mut history = History::default();
        for &(is_write, value, begin, end) in operations {
            match is_write {
                true => {
                    history.write_begins(7, value, begin);
                    if end != 0 {
                        history.write_ends(7, value, end);
                    }
                }
                false => history.read(7, value, begin, end),
            }
        }
        history
    }

    #[test]
    fn histories_of_one_block_are_told_apart() {
        const W: bool = true;
        const R: bool = false;
        let possible: [&[_]; 5] = [
            &[(R, 0, 1, 2), (W, 1, 3, 4), (R, 1, 5, 6)],
            &[(W, 1, 1, 9), (R, 0, 2, 3), (R, 1, 4, 5), (R, 1, 10, 11)],
            &[(W, 1, 1, 0), (R, 0, 20, 21), (R, 1, 22, 23)],
            &[(W, 1, 1, 10), (W, 2, 2, 11), (R, 2, 12, 13)],
            &[(W, 1, 1, 10), (W, 2, 2, 11), (R, 1, 12, 13)],
        ];
        for operations in possible {
            assert_eq!(history(operations).contradiction(), None, "{operations:?}");
        }
        let impossible: [&[_]; 6] = [
            &[(W, 1, 1, 2), (R, 0, 3, 4)],
            &[(W, 1, 1, 0), (R, 1, 3, 4), (R, 0, 5, 6)],
            &[(W, 1, 1, 10), (W, 2, 2, 11), (R, 1, 12, 13), (R, 2, 14, 15), (R, 1, 16, 17)],
            &[(R, 1, 1, 2), (W, 1, 3, 4)],
            &[(R, 5, 1, 2)],
            &[(W, 1, 1, 2), (W, 2, 3, 4), (R, 1, 5, 6)],
        ];
        for operations in impossible {
            assert!(history(operations).contradiction().is_some(), "{operations:?}");
        }
    }

    #[test]
    fn only_what_was_flushed_has_to_last() {
        let mut history = history(&[(true, 1, 1, 2), (true, 2, 3, 4), (true, 3, 5, 0)]);
        history.read(7, 1, 20, 21);
        assert_eq!(history.lost_flush(), None);
        history.flushed(6, 7);
        assert!(history.lost_flush().is_some());
        history.blacked_out(5);
        assert_eq!(history.lost_flush(), None, "it was lost before the flush began");
    }
}
