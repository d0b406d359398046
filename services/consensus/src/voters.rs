// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who should vote: a pure function of who is there.
//!
//! At most seven vote, and preferably an odd number of them: a fourth voter makes a majority of three necessary and lets no
//! more of them fail than three do. Two nodes both vote, so that both have all that was agreed; losing each other, neither can agree on
//! anything until they meet again. One node votes alone. Whoever does not vote learns, and takes the place of a voter that
//! leaves or stays away.

use std::collections::{BTreeMap, BTreeSet};

use dvs_state::nodes::MemberId;

/// Most voters.
pub const VOTERS_MAX: usize = 7;

/// What is known of a member that a node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// It may vote.
    pub may_vote: bool,
    /// It is there, or has not been away for long.
    pub is_there: bool,
    /// It has nearly all of the log, so its vote would help at once.
    pub is_current: bool,
}

/// What should be changed next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Lets a member of a new node learn.
    Admit(MemberId),
    /// Lets these vote and nobody else; whoever voted and is not among them learns.
    Elect(BTreeSet<MemberId>),
    /// Lets members go that no node has any more.
    Dismiss(BTreeSet<MemberId>),
}

/// How many of `count` members should vote.
pub fn quota(count: usize) -> usize {
    match count.min(VOTERS_MAX) {
        few @ 0..=2 => few,
        many => many - (1 - many % 2),
    }
}

/// The next step from `voters` and `learners` towards who should vote among `members`, which are all that nodes have; `None`
/// when nothing should change, or nothing can since no majority of the voters is there.
pub fn next_step(
    voters: &BTreeSet<MemberId>,
    learners: &BTreeSet<MemberId>,
    members: &BTreeMap<MemberId, Standing>,
) -> Option<Step> {
    let there = |id: &MemberId| members.get(id).is_some_and(|member| member.is_there);
    if voters.iter().filter(|id| there(id)).count() <= voters.len() / 2 {
        return None;
    }
    let known = |id: &MemberId| voters.contains(id) || learners.contains(id);
    if let Some(new) = members.keys().find(|id| !known(id)) {
        return Some(Step::Admit(*new));
    }
    let wanted = best(voters, members);
    if wanted != *voters {
        return Some(Step::Elect(wanted));
    }
    let gone: BTreeSet<_> =
        learners.iter().filter(|id| !members.contains_key(id)).copied().collect();
    (!gone.is_empty()).then_some(Step::Dismiss(gone))
}

/// Who should vote. Voters stay as long as nothing is better: a change costs, and somebody who comes back can go on at once.
fn best(voters: &BTreeSet<MemberId>, members: &BTreeMap<MemberId, Standing>) -> BTreeSet<MemberId> {
    let able = |id: &MemberId| {
        members.get(id).is_some_and(|member| {
            let current = member.is_current || voters.contains(id);
            member.may_vote && member.is_there && current
        })
    };
    let stay = voters.iter().filter(|id| able(id));
    let come = members.keys().filter(|id| able(id) && !voters.contains(id));
    let able: Vec<MemberId> = stay.chain(come).copied().collect();
    if able.is_empty() {
        return voters.clone();
    }
    let chosen: BTreeSet<MemberId> = able.iter().copied().take(quota(able.len())).collect();
    // How many more may fail; whether their number is one to aim at; how many have everything.
    let worth = |set: &BTreeSet<MemberId>| {
        let there = set.iter().filter(|id| able.contains(id)).count();
        let majority = set.len() / 2 + 1;
        let aim = set.len() == quota(set.len());
        (there as i64 - majority as i64, aim, there)
    };
    // Somebody who cannot come back, or must not vote, is no voter to wait for.
    let may = |id: &MemberId| members.get(id).is_some_and(|member| member.may_vote);
    match voters.iter().all(may) && worth(&chosen) <= worth(voters) {
        true => voters.clone(),
        false => chosen,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: Standing = Standing { may_vote: true, is_there: true, is_current: true };
    const AWAY: Standing = Standing { is_there: false, ..GOOD };

    fn set(ids: &[MemberId]) -> BTreeSet<MemberId> {
        ids.iter().copied().collect()
    }

    fn step(
        voters: &[MemberId],
        learners: &[MemberId],
        members: &[(MemberId, Standing)],
    ) -> Option<Step> {
        next_step(&set(voters), &set(learners), &members.iter().copied().collect())
    }

    fn elect(ids: &[MemberId]) -> Option<Step> {
        Some(Step::Elect(set(ids)))
    }

    #[test]
    fn quotas_are_odd_above_two_and_at_most_seven() {
        let quotas: Vec<_> = (0..=9).map(quota).collect();
        assert_eq!(quotas, [0, 1, 2, 3, 3, 5, 5, 7, 7, 7]);
    }

    #[test]
    fn a_cluster_grows_to_two_then_three_and_not_to_four() {
        assert_eq!(step(&[1], &[], &[(1, GOOD), (2, GOOD)]), Some(Step::Admit(2)));
        assert_eq!(step(&[1], &[2], &[(1, GOOD), (2, GOOD)]), elect(&[1, 2]));
        let three = [(1, GOOD), (2, GOOD), (3, GOOD)];
        assert_eq!(step(&[1, 2], &[3], &three), elect(&[1, 2, 3]));
        let four = [(1, GOOD), (2, GOOD), (3, GOOD), (4, GOOD)];
        assert_eq!(step(&[1, 2, 3], &[4], &four), None);
        assert_eq!(step(&[1, 2, 3, 4], &[], &four), elect(&[1, 2, 3]));
    }

    #[test]
    fn a_learner_votes_only_once_it_has_the_log() {
        let behind = Standing { is_current: false, ..GOOD };
        assert_eq!(step(&[1], &[2], &[(1, GOOD), (2, behind)]), None);
    }

    #[test]
    fn who_is_away_is_replaced_if_there_is_somebody() {
        let members = [(1, GOOD), (2, GOOD), (3, AWAY), (4, GOOD)];
        assert_eq!(step(&[1, 2, 3], &[4], &members), elect(&[1, 2, 4]));
        // And not if there is nobody: two voters let no more fail than three of whom one is away, which may come back.
        assert_eq!(step(&[1, 2, 3], &[], &members[..3]), None);
        // Of five, two are away: three who are there let one more fail.
        let members = [(1, GOOD), (2, AWAY), (3, GOOD), (4, AWAY), (5, GOOD)];
        assert_eq!(step(&[1, 2, 3, 4, 5], &[], &members), elect(&[1, 3, 5]));
    }

    #[test]
    fn who_cannot_come_back_is_let_go() {
        let members = [(1, GOOD), (2, GOOD)];
        assert_eq!(step(&[1, 2, 3], &[], &members), elect(&[1, 2]));
        assert_eq!(step(&[1, 2], &[3], &members), Some(Step::Dismiss(set(&[3]))));
        // A diskless node that restarts is a new member, which takes the place of the one it was.
        let members = [(1, GOOD), (2, GOOD), (9, GOOD)];
        assert_eq!(step(&[1, 2, 3], &[], &members), Some(Step::Admit(9)));
        assert_eq!(step(&[1, 2, 3], &[9], &members), elect(&[1, 2, 9]));
    }

    #[test]
    fn who_must_not_vote_stops_to() {
        let learner = Standing { may_vote: false, ..GOOD };
        let members = [(1, GOOD), (2, learner), (3, GOOD)];
        assert_eq!(step(&[1, 2, 3], &[], &members), elect(&[1, 3]));
        assert_eq!(step(&[1, 3], &[2], &members), None);
    }

    #[test]
    fn nothing_is_tried_without_a_majority() {
        let members = [(1, GOOD), (2, AWAY), (3, AWAY), (4, GOOD), (5, GOOD)];
        assert_eq!(step(&[1, 2, 3], &[4, 5], &members), None);
        assert_eq!(step(&[1, 2], &[], &[(1, GOOD), (2, AWAY)]), None);
    }

    fn standing() -> impl Strategy<Value = Standing> {
        (prop::bool::weighted(0.8), prop::bool::weighted(0.8), prop::bool::weighted(0.8)).prop_map(
            |(may_vote, is_there, is_current)| Standing { may_vote, is_there, is_current },
        )
    }

    proptest! {
        /// From anywhere the steps come to an end, never with fewer who may fail than before, nor ever through a set of voters
        /// whose majority is away.
        #[test]
        fn steps_come_to_an_end_and_never_make_it_worse(
            members in prop::collection::btree_map(0u64..12, standing(), 1..12),
            voters in prop::collection::btree_set(0u64..12, 1..8),
        ) {
            let (mut voters, mut learners) = (voters, BTreeSet::new());
            let there = |id: &MemberId| members.get(id).is_some_and(|member| member.is_there);
            let spare = |set: &BTreeSet<MemberId>| {
                set.iter().filter(|id| there(id)).count() as i64 - (set.len() / 2 + 1) as i64
            };
            for _ in 0..40 {
                let Some(step) = next_step(&voters, &learners, &members) else {
                    prop_assert!(voters.len() <= VOTERS_MAX);
                    return Ok(());
                };
                match step {
                    Step::Admit(id) => prop_assert!(learners.insert(id)),
                    Step::Dismiss(ids) => learners.retain(|id| !ids.contains(id)),
                    Step::Elect(ids) => {
                        prop_assert!(spare(&ids) >= 0);
                        let lost = voters.iter().all(|id| members.get(id).is_some_and(|m| m.may_vote));
                        prop_assert!(!lost || spare(&ids) >= spare(&voters));
                        prop_assert!(ids.iter().all(|id| learners.contains(id) || voters.contains(id)));
                        learners.extend(voters.difference(&ids));
                        learners.retain(|id| !ids.contains(id));
                        voters = ids;
                    }
                }
            }
            prop_assert!(false, "the steps do not end: {:?}, {:?}", voters, learners);
        }
    }
}
