// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether a node works with an image that it tries: a decision, given what the node says of itself as time passes.

use std::time::Duration;

/// For how long a node must work on end: it has not just begun to fail.
const STEADY: Duration = Duration::from_secs(5);

/// What is to be done with the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Look again later.
    Wait,
    /// It works.
    Confirm,
    /// It had its time and does not; why.
    GiveUp(String),
}

/// Watches a node that tries an image.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    limit: Duration,
    works_since: Option<Duration>,
}

impl Gate {
    /// One that gives the node until `limit`.
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, works_since: None }
    }

    /// Judges by what is missing at `now`, which is nothing for a node that works. A node that works is given the time to show it.
    pub(super) fn look(&mut self, now: Duration, missing: Option<&str>) -> Verdict {
        match (missing, self.works_since) {
            (Some(missing), _) => {
                self.works_since = None;
                if now < self.limit {
                    return Verdict::Wait;
                }
                Verdict::GiveUp(format!(
                    "after {} s the node was not what it should be: {missing}",
                    self.limit.as_secs()
                ))
            }
            (None, Some(since)) if now >= since + STEADY => Verdict::Confirm,
            (None, since) => {
                self.works_since = since.or(Some(now));
                Verdict::Wait
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_node_that_works_for_a_while_confirms_its_image() {
        let mut gate = Gate::new(s(60));
        assert_eq!(gate.look(s(10), Some("joining")), Verdict::Wait);
        assert_eq!(gate.look(s(20), None), Verdict::Wait);
        assert_eq!(gate.look(s(24), None), Verdict::Wait);
        assert_eq!(gate.look(s(25), None), Verdict::Confirm);
    }

    #[test]
    fn what_works_only_for_a_moment_does_not_count() {
        let mut gate = Gate::new(s(60));
        assert_eq!(gate.look(s(20), None), Verdict::Wait);
        assert_eq!(gate.look(s(23), Some("no leader")), Verdict::Wait);
        assert_eq!(gate.look(s(26), None), Verdict::Wait);
        assert_eq!(gate.look(s(30), None), Verdict::Wait);
        assert_eq!(gate.look(s(31), None), Verdict::Confirm);
    }

    #[test]
    fn an_image_is_given_up_when_its_time_is_over() {
        let mut gate = Gate::new(s(60));
        assert_eq!(gate.look(s(59), Some("joining")), Verdict::Wait);
        let Verdict::GiveUp(why) = gate.look(s(60), Some("joining, 1 of 2 nodes seen")) else {
            panic!()
        };
        assert_eq!(
            why,
            "after 60 s the node was not what it should be: joining, 1 of 2 nodes seen"
        );
        // One that has just begun to work gets the time to show it.
        let mut gate = Gate::new(s(60));
        assert_eq!(gate.look(s(59), None), Verdict::Wait);
        assert_eq!(gate.look(s(63), None), Verdict::Wait);
        assert_eq!(gate.look(s(64), None), Verdict::Confirm);
    }
}
