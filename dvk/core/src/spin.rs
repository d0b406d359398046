// SPDX-License-Identifier: GPL-2.0 OR MIT
//! How long a thread spins for a partner on another CPU before it sleeps.
//!
//! Sleeping and being woken across CPUs costs tens of times what a round trip between two spinning
//! threads does; spinning for a partner that is busy costs the CPU. So patience follows experience,
//! as in KVM's halt polling: it doubles while partners answer in time and halves when they do not.
//! A thread that slept learns how long it would have had to spin, if that is not too long. So two
//! threads that both sleep, and wait for nothing but each other's waking up, find out of it.

/// The longest that is ever spun, in nanoseconds: about what it costs that two threads sleep and
/// wake each other.
pub const LONGEST_NS: u32 = 100_000;
/// Where patience begins.
const FIRST_NS: u32 = 10_000;
/// Below this, spinning is not worth beginning.
const LEAST_NS: u32 = 1_000;

/// The patience of one endpoint's thread, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience(u32);

impl Patience {
    /// That of a thread without experience.
    pub const INITIAL: Self = Self(FIRST_NS);

    /// A patience that was kept as a number.
    pub const fn from_ns(ns: u32) -> Self {
        Self(ns)
    }

    /// How long to spin now; 0 for not at all.
    pub const fn ns(self) -> u32 {
        self.0
    }

    /// After having spun: whether the partner answered in time.
    pub const fn after_spin(self, answered: bool) -> Self {
        let next = if answered { self.0 * 2 } else { self.0 / 2 };
        Self(if next > LONGEST_NS {
            LONGEST_NS
        } else if next < LEAST_NS {
            0
        } else {
            next
        })
    }

    /// After having slept, perhaps after having spun in vain: the call ended after `waited_ns` of
    /// both.
    pub const fn after_sleep(self, waited_ns: u64) -> Self {
        if waited_ns > LONGEST_NS as u64 {
            return self;
        }
        let waited_ns = waited_ns as u32;
        let wanted = if waited_ns < FIRST_NS { FIRST_NS } else { waited_ns };
        if self.0 < wanted {
            Self(wanted)
        } else {
            self
        }
    }
}
