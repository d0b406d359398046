// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is said of a member, and which of two things said holds.
//!
//! Records are merged by taking the greater one, so that all nodes end with the same whatever
//! order they hear things in, and however often.

use std::sync::Arc;

use dvs_config::Mac;

use crate::beacon::Seat;

/// Longest facts of a member, so that a record always fits a datagram with room to spare.
pub const FACTS_MAX: usize = 600;

/// What the cluster holds of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// It answers.
    Alive,
    /// It did not answer somebody and has some time to contradict.
    Suspect,
    /// It did not contradict.
    Down,
    /// It said goodbye: final for its incarnation.
    Left,
}

impl Health {
    pub(super) const ALL: [Self; 4] = [Self::Alive, Self::Suspect, Self::Down, Self::Left];

    /// Whether it is worth a probe of its turn.
    pub fn is_present(self) -> bool {
        matches!(self, Self::Alive | Self::Suspect)
    }
}

/// Something said of a member's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Whom it is about.
    pub seat: Seat,
    /// How often the member has contradicted in this incarnation.
    pub refutation: u32,
    /// What it is said to be.
    pub health: Health,
}

impl Claim {
    /// Claims about one id are ordered by this. A later incarnation counts above all; a goodbye is final
    /// within one; a contradiction beats what it contradicts; else the worse news holds.
    fn rank(&self) -> (u32, bool, u32, Health) {
        (self.seat.incarnation, self.health == Health::Left, self.refutation, self.health)
    }

    /// Whether it holds against `other`, which is about the same id.
    pub fn beats(&self, other: &Self) -> bool {
        self.rank() > other.rank()
    }
}

/// All that is said of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its health.
    pub claim: Claim,
    /// The machine.
    pub mac: Mac,
    /// Which run of its `dvsd`.
    pub instance: u64,
    /// Grows with every change of the facts; only the member itself changes them.
    pub revision: u32,
    /// What it tells of itself: addresses, name, release, keys. Their form is not this module's
    /// business. At most [`FACTS_MAX`] bytes, shared by all copies of the record.
    pub facts: Arc<[u8]>,
}

/// What a merge has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The claim.
    pub claim: bool,
    /// The facts, or machine and instance.
    pub facts: bool,
}

impl Record {
    /// Takes a claim about the incarnation that is known; one about another says nothing about
    /// the machine, and whoever has its record will tell it.
    pub fn hear(&mut self, claim: &Claim) -> bool {
        let news = claim.seat == self.claim.seat && claim.beats(&self.claim);
        if news {
            self.claim = *claim;
        }
        news
    }

    /// Takes what another record of the same id has that is greater.
    pub fn merge(&mut self, other: &Self) -> Change {
        let (ours, theirs) = (self.claim.seat.incarnation, other.claim.seat.incarnation);
        if theirs < ours {
            return Change::default();
        }
        // Two machines in one seat come from two nodes that gave it away apart. Any rule will
        // do that is the same everywhere; the roster sends the loser to join again.
        let (our_run, their_run) = ((self.mac, self.instance), (other.mac, other.instance));
        if theirs > ours || (theirs == ours && their_run < our_run) {
            *self = other.clone();
            return Change { claim: true, facts: true };
        }
        if their_run != our_run {
            return Change::default();
        }
        let facts = other.revision > self.revision;
        if facts {
            self.revision = other.revision;
            self.facts.clone_from(&other.facts);
        }
        Change { claim: self.hear(&other.claim), facts }
    }

    /// A number that differs between records that do. A suspicion passes by itself and makes no
    /// difference.
    pub(super) fn digest(&self) -> u32 {
        let Claim { seat, refutation, health } = self.claim;
        let health = if health == Health::Suspect { Health::Alive } else { health };
        let fields = [
            u64::from(seat.id) << 32 | u64::from(seat.incarnation),
            u64::from(refutation) << 32 | u64::from(self.revision),
            self.instance,
            health as u64,
        ];
        let hash = fields.iter().fold(0x9e37_79b9_7f4a_7c15, |hash: u64, field| mix(hash ^ field));
        hash as u32
    }
}

/// Spreads the bits of a number over all of it (the finaliser of splitmix64).
pub(super) fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<Record> {
        let mut all = Vec::new();
        for incarnation in 1..3 {
            for instance in 1..3u64 {
                for refutation in 0..2 {
                    for health in Health::ALL {
                        for revision in 0..2 {
                            let seat = Seat { id: 7, incarnation };
                            all.push(Record {
                                claim: Claim { seat, refutation, health },
                                mac: Mac([2, 0, 0, 0, 0, 1]),
                                instance,
                                revision,
                                facts: [incarnation as u8, instance as u8, revision as u8].into(),
                            });
                        }
                    }
                }
            }
        }
        all
    }

    fn merged(one: &Record, other: &Record) -> Record {
        let mut one = one.clone();
        one.merge(other);
        one
    }

    #[test]
    fn records_heard_in_any_order_and_twice_end_as_the_same() {
        let all = records();
        for a in &all {
            assert_eq!(&merged(a, a), a);
            for b in &all {
                let ab = merged(a, b);
                assert_eq!(ab, merged(b, a));
                assert_eq!(merged(&ab, b), ab);
                for c in all.iter().step_by(5) {
                    assert_eq!(merged(&ab, c), merged(a, &merged(b, c)));
                }
            }
        }
    }

    #[test]
    fn a_contradiction_beats_what_it_contradicts_but_no_goodbye() {
        let seat = Seat { id: 1, incarnation: 1 };
        let claim = |refutation, health| Claim { seat, refutation, health };
        assert!(claim(0, Health::Suspect).beats(&claim(0, Health::Alive)));
        assert!(claim(0, Health::Down).beats(&claim(0, Health::Suspect)));
        assert!(claim(1, Health::Alive).beats(&claim(0, Health::Down)));
        assert!(!claim(9, Health::Alive).beats(&claim(0, Health::Left)));
        let again = Seat { id: 1, incarnation: 2 };
        let again = Claim { seat: again, refutation: 0, health: Health::Alive };
        assert!(again.beats(&claim(0, Health::Left)));
    }

    #[test]
    fn digests_tell_apart_what_differs_but_for_suspicion() {
        for a in records() {
            for b in records() {
                let calm = |record: &Record| {
                    let mut record = record.clone();
                    if record.claim.health == Health::Suspect {
                        record.claim.health = Health::Alive;
                    }
                    record
                };
                assert_eq!(a.digest() == b.digest(), calm(&a) == calm(&b));
            }
        }
    }
}
