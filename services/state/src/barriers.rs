// SPDX-License-Identifier: MIT OR Apache-2.0
//! Barriers: nobody goes on before so many have arrived.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::leases::LeaseId;
use crate::refusal::{Refusal, Thing};
use crate::tickets::Tickets;

/// Most barriers at which somebody waits or has passed under a lease that lasts.
pub const BARRIERS_MAX: usize = 65_536;
/// Most parties of a barrier.
pub const PARTIES_MAX: u32 = 4_096;

/// What can be done with barriers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Arrives at a barrier. It opens when `parties` have arrived, and closes behind them.
    Arrive {
        /// Which one.
        name: String,
        /// Under which lease; if it ends before the barrier opens, its party has not arrived.
        lease: LeaseId,
        /// How many it takes.
        parties: u32,
        /// Tells this arrival from the next one of the same lease, so that asking again for an answer that was lost is not
        /// taken for another arrival. Any number that is greater than that of the arrival before.
        attempt: u64,
    },
    /// Goes away without waiting.
    Leave {
        /// Which one.
        name: String,
        /// Under which lease.
        lease: LeaseId,
    },
}

/// What has come of an arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Passage {
    /// So many are missing.
    Waiting {
        /// How many.
        missing: u32,
    },
    /// All have arrived.
    Open {
        /// The same number for all who went through together.
        round: u64,
    },
}

/// One barrier.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Barrier {
    parties: u32,
    /// Who waits, and at which attempt.
    waiting: BTreeMap<LeaseId, u64>,
    /// The last attempt by which a lease went through, and in which round.
    passed: BTreeMap<LeaseId, (u64, u64)>,
}

impl Barrier {
    /// How many it takes; 0 while nobody waits.
    pub fn parties(&self) -> u32 {
        self.parties
    }

    /// Who waits.
    pub fn waiting(&self) -> BTreeSet<LeaseId> {
        self.waiting.keys().copied().collect()
    }

    fn passage(&self, lease: LeaseId, attempt: u64) -> Option<Passage> {
        if let Some((_, round)) = self.passed.get(&lease).filter(|(passed, _)| attempt <= *passed) {
            return Some(Passage::Open { round: *round });
        }
        self.waiting.contains_key(&lease).then(|| Passage::Waiting { missing: self.missing() })
    }

    fn missing(&self) -> u32 {
        self.parties.saturating_sub(u32::try_from(self.waiting.len()).unwrap_or(u32::MAX))
    }

    fn leave(&mut self, lease: LeaseId) -> bool {
        let waited = self.waiting.remove(&lease).is_some();
        if self.waiting.is_empty() {
            self.parties = 0;
        }
        waited
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.passed.is_empty()
    }
}

/// The barriers that matter to somebody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Barriers {
    by_name: BTreeMap<String, Barrier>,
}

impl Barriers {
    /// All of them by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Barrier)> + '_ {
        self.by_name.iter().map(|(name, barrier)| (name.as_str(), barrier))
    }

    /// What has come of an arrival; `None` if the barrier does not know of it.
    pub fn passage(&self, name: &str, lease: LeaseId, attempt: u64) -> Option<Passage> {
        self.by_name.get(name)?.passage(lease, attempt)
    }

    pub(crate) fn arrive(
        &mut self,
        tickets: &mut Tickets,
        name: &str,
        lease: LeaseId,
        parties: u32,
        attempt: u64,
    ) -> Result<Passage, Refusal> {
        crate::check_name("a barrier", name)?;
        if !(1..=PARTIES_MAX).contains(&parties) {
            return Err(Refusal::Invalid(format!(
                "barrier {name} cannot have {parties} parties; give it 1 to {PARTIES_MAX}"
            )));
        }
        if !self.by_name.contains_key(name) && self.by_name.len() >= BARRIERS_MAX {
            return Err(Refusal::limit("the number of barriers", BARRIERS_MAX));
        }
        if let Some(passage) = self.passage(name, lease, attempt) {
            return Ok(passage);
        }
        let disputed = |barrier: &Barrier| barrier.parties != 0 && barrier.parties != parties;
        if let Some(barrier) = self.by_name.get(name).filter(|barrier| disputed(barrier)) {
            return Err(Refusal::Invalid(format!(
                "barrier {name} is for {} parties and not {parties}; arrive as those who wait did",
                barrier.parties
            )));
        }
        let barrier = self.by_name.entry(name.to_owned()).or_default();
        barrier.parties = parties;
        barrier.waiting.insert(lease, attempt);
        if barrier.missing() > 0 {
            return Ok(Passage::Waiting { missing: barrier.missing() });
        }
        let round = tickets.draw();
        barrier.parties = 0;
        for (lease, attempt) in std::mem::take(&mut barrier.waiting) {
            barrier.passed.insert(lease, (attempt, round));
        }
        Ok(Passage::Open { round })
    }

    pub(crate) fn leave(&mut self, name: &str, lease: LeaseId) -> Result<bool, Refusal> {
        let barrier =
            self.by_name.get_mut(name).ok_or_else(|| Refusal::missing(Thing::Barrier, name))?;
        let waited = barrier.leave(lease);
        if barrier.is_empty() {
            self.by_name.remove(name);
        }
        Ok(waited)
    }

    pub(crate) fn end_lease(&mut self, lease: LeaseId) {
        self.by_name.retain(|_, barrier| {
            barrier.leave(lease);
            barrier.passed.remove(&lease);
            !barrier.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench(Barriers, Tickets);

    impl Bench {
        fn arrive(&mut self, lease: u64, parties: u32, attempt: u64) -> Passage {
            self.0.arrive(&mut self.1, "b", LeaseId(lease), parties, attempt).unwrap()
        }
    }

    fn bench() -> Bench {
        Bench(Barriers::default(), Tickets::default())
    }

    #[test]
    fn a_barrier_opens_for_the_last_and_closes_behind_it() {
        let mut bench = bench();
        assert_eq!(bench.arrive(1, 2, 1), Passage::Waiting { missing: 1 });
        assert_eq!(bench.arrive(2, 2, 1), Passage::Open { round: 1 });
        assert_eq!(bench.0.passage("b", LeaseId(1), 1), Some(Passage::Open { round: 1 }));
        assert_eq!(bench.arrive(1, 2, 2), Passage::Waiting { missing: 1 });
        assert_eq!(bench.arrive(3, 2, 1), Passage::Open { round: 2 });
    }

    #[test]
    fn asking_again_is_not_arriving_again() {
        let mut bench = bench();
        bench.arrive(1, 2, 1);
        assert_eq!(bench.arrive(1, 2, 1), Passage::Waiting { missing: 1 });
        bench.arrive(2, 2, 1);
        assert_eq!(bench.arrive(2, 2, 1), Passage::Open { round: 1 });
        assert!(bench.0.by_name["b"].waiting().is_empty());
    }

    #[test]
    fn whose_lease_ends_has_not_arrived() {
        let mut bench = bench();
        bench.arrive(1, 2, 1);
        bench.0.end_lease(LeaseId(1));
        assert_eq!(bench.0, Barriers::default());
        assert_eq!(bench.arrive(2, 2, 1), Passage::Waiting { missing: 1 });
        assert_eq!(bench.0.leave("b", LeaseId(2)), Ok(true));
        assert!(bench.0.leave("b", LeaseId(2)).is_err());
    }

    #[test]
    fn parties_cannot_be_disputed_while_somebody_waits() {
        let mut bench = bench();
        bench.arrive(1, 3, 1);
        assert!(bench.0.arrive(&mut bench.1, "b", LeaseId(2), 2, 1).is_err());
        assert!(bench.0.arrive(&mut bench.1, "b", LeaseId(2), 0, 1).is_err());
        assert_eq!(bench.0.by_name["b"].waiting().len(), 1);
    }
}
