// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The log of events, against a list of all of them.

mod model;

use dvk_core::abi::ioctl::Event;
use dvk_core::event_log::{EventLog, EVENTS};
use model::{refuse_allocation_after, TestStorage};
use proptest::prelude::*;

fn event(number: u64) -> Event {
    Event { time_ns: number, ..Event::default() }
}

proptest! {
    #[test]
    fn readers_see_every_event_in_order_or_learn_how_many_they_lost(
        steps in prop::collection::vec((0..3_usize, 0..1500_u64), 1..60),
        refused_after in 0..100_u32,
    ) {
        refuse_allocation_after(refused_after);
        let mut log = EventLog::<TestStorage>::default();
        let mut cursors = [0_u64; 2];
        let mut pushed = 0;
        for (what, count) in steps {
            if what == 2 {
                for _ in 0..count {
                    log.push(event(pushed));
                    pushed += 1;
                }
                prop_assert_eq!(log.next(), pushed);
                continue;
            }
            let cursor = &mut cursors[what];
            let mut behind = pushed - *cursor;
            for _ in 0..count {
                let before = *cursor;
                let (read, lost) = log.read(cursor);
                prop_assert_eq!(*cursor, before + lost + u64::from(read.is_some()));
                if let Some(read) = read {
                    prop_assert_eq!(read.time_ns, before + lost);
                }
                // One allocation was refused, so at most one event is lost but for age.
                prop_assert!(lost <= behind.saturating_sub(EVENTS as u64) + 1);
                behind -= lost + u64::from(read.is_some());
                if read.is_none() {
                    prop_assert_eq!(*cursor, pushed);
                    break;
                }
            }
        }
    }
}
