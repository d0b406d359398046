// SPDX-License-Identifier: MIT OR Apache-2.0
//! The order in which the machine goes down.
//!
//! Services are asked to end and, after a grace period, made to; then the same happens to every
//! other process; then file systems are written and the machine stops. A state machine without I/O.

use std::time::Duration;

/// How long services may take to end.
const SERVICE_GRACE: Duration = Duration::from_secs(10);
/// How long processes that are no services may take.
const PROCESS_GRACE: Duration = Duration::from_secs(2);
/// How long killed processes may take to vanish: one in an uninterruptible wait never does.
const KILL_GRACE: Duration = Duration::from_secs(2);

/// What the machine does in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Start again.
    Reboot,
    /// Stop and stay on.
    Halt,
    /// Switch off.
    PowerOff,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Ask the services to end.
    TerminateServices,
    /// Make the services end.
    KillServices,
    /// Ask every other process to end.
    TerminateRest,
    /// Make every other process end.
    KillRest,
    /// Write file systems, unmount, and do what the goal says.
    Finish(Goal),
}

/// Whose end is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alive {
    /// A service runs.
    pub(crate) services: bool,
    /// Any process at all runs.
    pub(crate) any: bool,
}

/// A shutdown under way.
#[derive(Debug)]
pub(crate) struct Shutdown {
    goal: Goal,
    phase: Phase,
    /// When the phase ends, whoever still lives.
    deadline: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Begun,
    ServicesAsked,
    ServicesKilled,
    RestAsked,
    RestKilled,
    Finished,
}

impl Shutdown {
    pub(crate) fn new(goal: Goal) -> Self {
        Self { goal, phase: Phase::Begun, deadline: Duration::ZERO }
    }

    /// What to do now, if anything. Called until `None` whenever something ended or the
    /// [`deadline`](Self::deadline) has come; gives each step at most once, and `Finish` last.
    pub(crate) fn next(&mut self, now: Duration, alive: Alive) -> Option<Step> {
        let expired = now >= self.deadline;
        let rest = if alive.any {
            (Phase::RestAsked, PROCESS_GRACE, Step::TerminateRest)
        } else {
            (Phase::Finished, Duration::ZERO, Step::Finish(self.goal))
        };
        let (phase, grace, step) = match self.phase {
            Phase::Begun if alive.services => {
                (Phase::ServicesAsked, SERVICE_GRACE, Step::TerminateServices)
            }
            Phase::ServicesAsked if alive.services && expired => {
                (Phase::ServicesKilled, KILL_GRACE, Step::KillServices)
            }
            Phase::ServicesAsked | Phase::ServicesKilled if alive.services && !expired => {
                return None;
            }
            Phase::Begun | Phase::ServicesAsked | Phase::ServicesKilled => rest,
            Phase::RestAsked | Phase::RestKilled if alive.any && !expired => return None,
            Phase::RestAsked if alive.any => (Phase::RestKilled, KILL_GRACE, Step::KillRest),
            Phase::RestAsked | Phase::RestKilled => {
                (Phase::Finished, Duration::ZERO, Step::Finish(self.goal))
            }
            Phase::Finished => return None,
        };
        self.phase = phase;
        self.deadline = now + grace;
        Some(step)
    }

    /// When [`next`](Self::next) has something to say even if nothing ends.
    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::{Alive, Goal, Shutdown, Step};

    const ALL: Alive = Alive { services: true, any: true };
    const REST: Alive = Alive { services: false, any: true };
    const NONE: Alive = Alive { services: false, any: false };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn willing_processes_are_never_killed() {
        let mut shutdown = Shutdown::new(Goal::PowerOff);
        assert_eq!(shutdown.next(at(5), ALL), Some(Step::TerminateServices));
        assert_eq!(shutdown.next(at(6), ALL), None);
        assert_eq!(shutdown.next(at(7), REST), Some(Step::TerminateRest));
        assert_eq!(shutdown.next(at(7), NONE), Some(Step::Finish(Goal::PowerOff)));
        assert_eq!(shutdown.next(at(8), NONE), None);
    }

    #[test]
    fn unwilling_processes_are_killed_in_time() {
        let mut shutdown = Shutdown::new(Goal::Reboot);
        let mut steps = Vec::new();
        let mut now = at(0);
        while steps.last() != Some(&(now, Step::Finish(Goal::Reboot))) {
            match shutdown.next(now, ALL) {
                Some(step) => steps.push((now, step)),
                None => now = shutdown.deadline(),
            }
        }
        assert_eq!(
            steps,
            [
                (at(0), Step::TerminateServices),
                (at(10), Step::KillServices),
                (at(12), Step::TerminateRest),
                (at(14), Step::KillRest),
                (at(16), Step::Finish(Goal::Reboot)),
            ]
        );
    }

    #[test]
    fn with_nobody_there_it_ends_at_once() {
        let mut shutdown = Shutdown::new(Goal::Halt);
        assert_eq!(shutdown.next(at(1), NONE), Some(Step::Finish(Goal::Halt)));
    }

    proptest! {
        #[test]
        fn it_always_ends_and_in_order(
            lives in proptest::collection::vec((any::<bool>(), any::<bool>(), 0..3000_u64), 0..50),
        ) {
            let mut shutdown = Shutdown::new(Goal::PowerOff);
            let mut now = Duration::ZERO;
            let mut steps = Vec::new();
            for (services, others, millis) in lives {
                now += Duration::from_millis(millis);
                steps.extend(shutdown.next(now, Alive { services, any: services || others }));
            }
            for _ in 0..16 {
                now = now.max(shutdown.deadline());
                steps.extend(shutdown.next(now, ALL));
            }
            let rank = |step: &Step| match step {
                Step::TerminateServices => 0,
                Step::KillServices => 1,
                Step::TerminateRest => 2,
                Step::KillRest => 3,
                Step::Finish(_) => 4,
            };
            prop_assert!(steps.windows(2).all(|pair| rank(&pair[0]) < rank(&pair[1])));
            prop_assert_eq!(steps.last(), Some(&Step::Finish(Goal::PowerOff)));
            prop_assert!(shutdown.next(now, NONE).is_none());
        }
    }
}
