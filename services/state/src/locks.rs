// SPDX-License-Identifier: MIT OR Apache-2.0
//! Locks and semaphores with fencing tokens.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::leases::LeaseId;
use crate::line::{Line, Standing};
use crate::refusal::{Refusal, Thing};
use crate::tickets::Tickets;

/// Most locks that are held at once.
pub const LOCKS_MAX: usize = 65_536;
/// Most that can hold and wait for one lock.
pub const LINE_MAX: usize = 4_096;

/// What can be done with locks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Takes a lock, or gets in line for it.
    Acquire {
        /// Which one; it exists while somebody holds it.
        name: String,
        /// Under which lease. It is the lease that holds: whoever wants to be told apart takes one of its own.
        lease: LeaseId,
        /// How many can hold it at once: 1 for a mutex, more for a semaphore.
        places: u32,
        /// What happens if it is not free.
        wait: Wait,
        /// Who wants it, for people.
        label: String,
    },
    /// Gives it back, or gets out of line.
    Release {
        /// Which one.
        name: String,
        /// Under which lease.
        lease: LeaseId,
    },
}

/// What happens if something cannot be had at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wait {
    /// Get in line.
    InLine,
    /// Refuse.
    Never,
}

/// The locks that somebody holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locks {
    by_name: BTreeMap<String, Line>,
}

impl Locks {
    /// A lock that somebody holds.
    pub fn get(&self, name: &str) -> Option<&Line> {
        self.by_name.get(name)
    }

    /// All that somebody holds, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Line)> + '_ {
        self.by_name.iter().map(|(name, line)| (name.as_str(), line))
    }

    /// Where a lease stands.
    pub fn standing(&self, name: &str, lease: LeaseId) -> Option<Standing> {
        self.get(name)?.standing(lease)
    }

    pub(crate) fn acquire(
        &mut self,
        tickets: &mut Tickets,
        name: &str,
        lease: LeaseId,
        places: u32,
        wait: Wait,
        label: &str,
    ) -> Result<Standing, Refusal> {
        crate::check_name("a lock", name)?;
        crate::check_label("the label of a holder", label)?;
        if places == 0 {
            return Err(Refusal::Invalid(format!(
                "lock {name} would have no place; give it 1 or more"
            )));
        }
        let Some(line) = self.by_name.get_mut(name) else {
            if self.by_name.len() >= LOCKS_MAX {
                return Err(Refusal::limit("the number of locks", LOCKS_MAX));
            }
            let mut line = Line::new(places);
            let standing = line.enter(tickets, lease, label.as_bytes());
            self.by_name.insert(name.to_owned(), line);
            return Ok(standing);
        };
        if line.places() != places {
            return Err(Refusal::Invalid(format!(
                "lock {name} has {} places and was asked for with {places}; ask for it as those who hold it do",
                line.places()
            )));
        }
        if line.standing(lease).is_none() {
            if wait == Wait::Never && !line.has_room() {
                return Err(Refusal::Busy { what: Thing::Lock, name: name.to_owned() });
            }
            if line.len() >= LINE_MAX {
                return Err(Refusal::limit(format!("the line for lock {name}"), LINE_MAX));
            }
        }
        Ok(line.enter(tickets, lease, label.as_bytes()))
    }

    /// Says whether the lease was in line. Giving back twice is harmless.
    pub(crate) fn release(&mut self, tickets: &mut Tickets, name: &str, lease: LeaseId) -> bool {
        let Some(line) = self.by_name.get_mut(name) else { return false };
        let was_in = line.leave(tickets, lease);
        if line.is_empty() {
            self.by_name.remove(name);
        }
        was_in
    }

    pub(crate) fn end_lease(&mut self, tickets: &mut Tickets, lease: LeaseId) {
        self.by_name.retain(|_, line| {
            line.leave(tickets, lease);
            !line.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        locks: Locks,
        tickets: Tickets,
    }

    impl Bench {
        fn new() -> Self {
            Self { locks: Locks::default(), tickets: Tickets::default() }
        }

        fn acquire(&mut self, lease: u64, places: u32, wait: Wait) -> Result<Standing, Refusal> {
            self.locks.acquire(&mut self.tickets, "l", LeaseId(lease), places, wait, "")
        }
    }

    #[test]
    fn a_mutex_is_held_by_one_and_tokens_grow_from_holder_to_holder() {
        let mut bench = Bench::new();
        assert_eq!(bench.acquire(7, 1, Wait::InLine), Ok(Standing::Holding { fence: 1 }));
        assert_eq!(bench.acquire(8, 1, Wait::InLine), Ok(Standing::Waiting { ahead: 0 }));
        assert_eq!(bench.acquire(9, 1, Wait::InLine), Ok(Standing::Waiting { ahead: 1 }));
        assert!(bench.locks.release(&mut bench.tickets, "l", LeaseId(7)));
        assert_eq!(bench.acquire(8, 1, Wait::Never), Ok(Standing::Holding { fence: 2 }));
        assert_eq!(bench.acquire(9, 1, Wait::InLine), Ok(Standing::Waiting { ahead: 0 }));
    }

    #[test]
    fn tokens_go_on_when_a_lock_has_been_forgotten() {
        let mut bench = Bench::new();
        bench.acquire(7, 1, Wait::InLine).unwrap();
        bench.locks.release(&mut bench.tickets, "l", LeaseId(7));
        assert_eq!(bench.locks, Locks::default());
        assert_eq!(bench.acquire(8, 1, Wait::InLine), Ok(Standing::Holding { fence: 2 }));
    }

    #[test]
    fn who_does_not_want_to_wait_is_refused_and_is_not_in_line() {
        let mut bench = Bench::new();
        bench.acquire(7, 2, Wait::Never).unwrap();
        bench.acquire(8, 2, Wait::Never).unwrap();
        let before = bench.locks.clone();
        let busy = Refusal::Busy { what: Thing::Lock, name: "l".into() };
        assert_eq!(bench.acquire(9, 2, Wait::Never), Err(busy));
        assert_eq!(bench.locks, before);
    }

    #[test]
    fn places_cannot_be_disputed_while_somebody_holds() {
        let mut bench = Bench::new();
        bench.acquire(7, 2, Wait::InLine).unwrap();
        assert!(bench.acquire(8, 3, Wait::InLine).is_err());
        assert!(bench.acquire(8, 0, Wait::InLine).is_err());
        bench.locks.end_lease(&mut bench.tickets, LeaseId(7));
        assert!(bench.acquire(8, 3, Wait::InLine).is_ok());
    }
}
