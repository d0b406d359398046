// SPDX-License-Identifier: MIT OR Apache-2.0
//! When this node changes the key it sends with.
//!
//! A change has two steps. First the node *announces* the next generation to all, and the
//! others get ready to understand it; then it *switches*, once every live peer has said that it is
//! ready, or when that takes too long: somebody who does not answer must not keep an old key alive,
//! and gets ready with the next that it hears of this node.

/// Milliseconds for which a key is sent with.
pub const ROTATE_MS: u64 = 3_600_000;
/// Packets after which a key is changed before its time. The kernel stops sending at 2^32.
pub const PACKETS_MAX: u32 = 1 << 31;
/// Milliseconds that an announced key waits for those who have not said that they hold it.
pub const CONFIRM_MS: u64 = 5_000;
/// Milliseconds between a switch and the next announcement.
pub const REST_MS: u64 = 2_000;

/// What a node tells the others of its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announced {
    /// The newest generation, from 1 up.
    pub generation: u32,
    /// The node does not send with it yet, but still with the one before.
    pub pending: bool,
}

impl Announced {
    /// The generation that the node sends with; 0 for none.
    pub fn sending(self) -> u32 {
        self.generation - u32::from(self.pending)
    }

    /// As a number on the wire, which is never 0.
    pub fn to_wire(self) -> u32 {
        self.generation << 1 | u32::from(self.pending)
    }

    /// The reverse; `None` for a number that nobody sends.
    pub fn from_wire(wire: u32) -> Option<Self> {
        let announced = Self { generation: wire >> 1, pending: wire & 1 != 0 };
        (announced.generation != 0).then_some(announced)
    }
}

/// What a step depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Situation {
    /// The highest packet number that the present key has come to, on any interface.
    pub packets: u32,
    /// The announced key is in this node's own kernel.
    pub installed: bool,
    /// Every live peer says that it holds the announced key.
    pub confirmed: bool,
}

/// What happened in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new generation was announced.
    Announced,
    /// It is sent with from now on.
    Switched {
        /// Some peer has not said that it holds the key.
        hastily: bool,
    },
}

/// The keys of one run of `dvsd`, by their generations.
#[derive(Debug)]
pub struct Schedule {
    announced: Announced,
    /// When it came to be as it is.
    since_ms: u64,
    wanted: bool,
}

impl Schedule {
    /// With the first key.
    pub fn new(now_ms: u64) -> Self {
        let announced = Announced { generation: 1, pending: false };
        Self { announced, since_ms: now_ms, wanted: false }
    }

    /// What to say.
    pub fn announced(&self) -> Announced {
        self.announced
    }

    /// How long the present state has lasted.
    pub fn age_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.since_ms)
    }

    /// Asks for another key before it is time. A change that is under way is one.
    pub fn rotate(&mut self) {
        self.wanted |= !self.announced.pending;
    }

    /// Gives up all keys at once, since it is not known any more how far their packets were counted.
    pub fn abandon(&mut self, now_ms: u64) {
        let generation = self.announced.generation + 1;
        *self = Self { announced: Announced { generation, pending: false }, ..Self::new(now_ms) };
    }

    /// Lets time pass.
    pub fn step(&mut self, now_ms: u64, situation: Situation) -> Option<Change> {
        let age_ms = self.age_ms(now_ms);
        if self.announced.pending {
            let Situation { installed, confirmed, .. } = situation;
            if !installed || !(confirmed || age_ms >= CONFIRM_MS) {
                return None;
            }
            self.announced.pending = false;
            self.since_ms = now_ms;
            return Some(Change::Switched { hastily: !confirmed });
        }
        let due = self.wanted || age_ms >= ROTATE_MS || situation.packets >= PACKETS_MAX;
        if !due || age_ms < REST_MS {
            return None;
        }
        self.announced = Announced { generation: self.announced.generation + 1, pending: true };
        self.since_ms = now_ms;
        self.wanted = false;
        Some(Change::Announced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: Situation = Situation { packets: 5, installed: true, confirmed: true };

    #[test]
    fn a_key_is_changed_when_its_time_is_over() {
        let mut schedule = Schedule::new(0);
        assert_eq!(schedule.step(ROTATE_MS - 1, READY), None);
        assert_eq!(schedule.step(ROTATE_MS, READY), Some(Change::Announced));
        assert_eq!(schedule.announced(), Announced { generation: 2, pending: true });
        assert_eq!(schedule.announced().sending(), 1);
        let switched = Some(Change::Switched { hastily: false });
        assert_eq!(schedule.step(ROTATE_MS + 1, READY), switched);
        assert_eq!(schedule.announced().sending(), 2);
        assert_eq!(schedule.step(2 * ROTATE_MS, READY), None, "the hour counts from the switch");
        assert_eq!(schedule.step(2 * ROTATE_MS + 1, READY), Some(Change::Announced));
    }

    #[test]
    fn a_key_is_changed_long_before_its_packet_numbers_run_out() {
        let mut schedule = Schedule::new(0);
        let packets = |packets| Situation { packets, ..READY };
        assert_eq!(schedule.step(REST_MS, packets(PACKETS_MAX - 1)), None);
        assert_eq!(schedule.step(REST_MS, packets(PACKETS_MAX)), Some(Change::Announced));
    }

    #[test]
    fn an_announced_key_waits_for_the_others_but_not_for_ever() {
        let mut schedule = Schedule::new(0);
        schedule.rotate();
        assert_eq!(schedule.step(REST_MS - 1, READY), None);
        assert_eq!(schedule.step(REST_MS, READY), Some(Change::Announced));
        let silent = Situation { confirmed: false, ..READY };
        assert_eq!(schedule.step(REST_MS + CONFIRM_MS - 1, silent), None);
        let switched = Some(Change::Switched { hastily: true });
        assert_eq!(schedule.step(REST_MS + CONFIRM_MS, silent), switched);
    }

    #[test]
    fn no_key_is_switched_to_that_the_kernel_does_not_have() {
        let mut schedule = Schedule::new(0);
        schedule.rotate();
        schedule.step(REST_MS, READY);
        let missing = Situation { installed: false, ..READY };
        assert_eq!(schedule.step(10 * CONFIRM_MS, missing), None);
        assert_eq!(schedule.announced().sending(), 1);
    }

    #[test]
    fn a_wish_during_a_change_is_that_change() {
        let mut schedule = Schedule::new(0);
        schedule.rotate();
        schedule.step(REST_MS, READY);
        schedule.rotate();
        schedule.step(REST_MS, READY);
        assert_eq!(schedule.step(10 * REST_MS, READY), None);
        assert_eq!(schedule.announced(), Announced { generation: 2, pending: false });
    }

    #[test]
    fn abandoned_keys_never_come_back() {
        let mut schedule = Schedule::new(0);
        schedule.rotate();
        schedule.step(REST_MS, READY);
        schedule.abandon(REST_MS);
        assert_eq!(schedule.announced(), Announced { generation: 3, pending: false });
    }

    #[test]
    fn announcements_survive_the_wire() {
        for announced in [
            Announced { generation: 1, pending: false },
            Announced { generation: 9, pending: true },
            Announced { generation: u32::MAX >> 1, pending: true },
        ] {
            assert_eq!(Announced::from_wire(announced.to_wire()), Some(announced));
        }
        assert_eq!([Announced::from_wire(0), Announced::from_wire(1)], [None; 2]);
    }
}
