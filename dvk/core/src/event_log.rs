// SPDX-License-Identifier: GPL-2.0 OR MIT
//! What happened on a node, for any number of readers that each read it in order.

use super::abi::ioctl::Event;
use super::fifo::{Array, Storage};

/// Events that are kept. A reader that falls further behind loses the oldest, and learns how many.
pub const EVENTS: usize = 1024;

/// The newest [`EVENTS`] events, numbered from 0 since the node's start.
pub struct EventLog<S: Storage> {
    /// The event of number `n` is at `n % EVENTS`, or lost.
    entries: S::Array<Option<Event>>,
    next: u64,
}

impl<S: Storage> Default for EventLog<S> {
    fn default() -> Self {
        Self { entries: S::Array::default(), next: 0 }
    }
}

impl<S: Storage> EventLog<S> {
    /// Number of the next event.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Adds an event. Without memory for it, readers find it lost.
    pub fn push(&mut self, event: Event) {
        let at = (self.next % EVENTS as u64) as usize;
        self.next += 1;
        while self.entries.as_slice().len() <= at {
            if self.entries.push(None).is_err() {
                return;
            }
        }
        if let Some(entry) = self.entries.as_mut_slice().get_mut(at) {
            *entry = Some(event);
        }
    }

    /// The event of number `cursor`, or the first one after it that is kept; `cursor` becomes the
    /// number after that. The second value is how many were lost in between. `None` if there is
    /// none yet.
    pub fn read(&self, cursor: &mut u64) -> (Option<Event>, u64) {
        let oldest = self.next.saturating_sub(EVENTS as u64);
        let mut lost = oldest.saturating_sub(*cursor);
        *cursor += lost;
        while *cursor < self.next {
            let at = (*cursor % EVENTS as u64) as usize;
            *cursor += 1;
            match self.entries.as_slice().get(at) {
                Some(Some(event)) => return (Some(*event), lost),
                _ => lost += 1,
            }
        }
        (None, lost)
    }
}
