// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Two threads on two CPUs that spin for each other as [`Patience`] says.

use dvk_core::spin::{Patience, LONGEST_NS};
use proptest::prelude::*;

/// One thread of a pair.
#[derive(Clone, Copy)]
struct Side {
    patience: Patience,
}

/// What a machine and its programs are like, in nanoseconds.
#[derive(Clone, Copy)]
struct World {
    /// From a wake-up until the thread runs.
    wake: u64,
    /// What each side does before it answers.
    work: u64,
}

impl Side {
    fn new(patience: u32) -> Self {
        Self { patience: Patience::from_ns(patience) }
    }

    /// Waits for an answer that comes after `answer`; returns after how long the thread goes on.
    fn wait(&mut self, answer: u64, world: World) -> u64 {
        let spun = u64::from(self.patience.ns());
        if answer <= spun {
            self.patience = self.patience.after_spin(true);
            return answer;
        }
        if spun > 0 {
            self.patience = self.patience.after_spin(false);
        }
        let waited = answer + world.wake;
        self.patience = self.patience.after_sleep(waited);
        waited
    }
}

/// How long each round trip takes between a client and a server.
fn round_trips(mut client: Side, mut server: Side, world: World, count: usize) -> Vec<u64> {
    // How long the server waits for the request after its last reply.
    let mut idle = world.work;
    (0..count)
        .map(|_| {
            let since = server.wait(idle, world);
            let answer = since - idle + world.work;
            let trip = client.wait(answer, world);
            idle = trip - answer + world.work;
            trip
        })
        .collect()
}

proptest! {
    #[test]
    fn threads_that_answer_fast_end_up_spinning(
        wake in 1_000..u64::from(LONGEST_NS) * 2 / 5,
        work in 100u64..2_000,
        first in 0..=LONGEST_NS,
        second in 0..=LONGEST_NS,
    ) {
        let world = World { wake, work };
        let trips = round_trips(Side::new(first), Side::new(second), world, 20);
        prop_assert_eq!(trips.last(), Some(&work), "{:?}", trips);
    }

    #[test]
    fn nobody_spins_for_long_for_a_partner_that_is_slow(
        wake in 1_000u64..60_000,
        work in u64::from(LONGEST_NS) + 1..10_000_000,
        first in 0..=LONGEST_NS,
    ) {
        let mut side = Side::new(first);
        let world = World { wake, work };
        let mut spun = 0;
        for _ in 0..50 {
            spun += u64::from(side.patience.ns());
            side.wait(work, world);
        }
        prop_assert!(side.patience.ns() == 0 && spun <= 2 * u64::from(LONGEST_NS), "{spun} ns");
    }

    #[test]
    fn patience_stays_within_its_bounds(
        first in 0..=LONGEST_NS,
        waits in prop::collection::vec((any::<bool>(), 0u64..1_000_000), 0..50),
    ) {
        let mut patience = Patience::from_ns(first);
        for (answered, waited) in waits {
            patience = patience.after_spin(answered);
            if !answered {
                patience = patience.after_sleep(waited);
            }
            prop_assert!(patience.ns() <= LONGEST_NS);
        }
    }
}
