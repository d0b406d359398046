// SPDX-License-Identifier: MIT OR Apache-2.0
//! When services start, and when they start again.
//!
//! A state machine without I/O or clock: it is told what happened and when, as time since boot, and
//! says which services are due.

use std::time::Duration;

/// Delay before the first restart; doubled at each further one.
const FIRST_DELAY: Duration = Duration::from_millis(250);
/// Longest delay before a restart.
const LAST_DELAY: Duration = Duration::from_secs(10);
/// A service that ran this long is in order: its next restart is as prompt as the first.
const GOOD_RUN: Duration = Duration::from_secs(60);

/// The restarts of all services, by their number in the service table.
#[derive(Debug)]
pub(crate) struct Supervisor {
    services: Vec<Service>,
    stopping: bool,
}

#[derive(Debug)]
struct Service {
    state: State,
    /// The delay before the next restart.
    delay: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be started at this time.
    Due(Duration),
    /// Handed out by [`Supervisor::take_due`]; the outcome is awaited.
    Starting,
    Running {
        pid: i32,
        since: Duration,
    },
    /// Not to be started any more.
    Stopped,
}

/// A service has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// Its number in the service table.
    pub(crate) service: usize,
    /// How long it ran.
    pub(crate) ran: Duration,
    /// After which delay it starts again; `None` while the machine stops.
    pub(crate) again_in: Option<Duration>,
}

impl Supervisor {
    /// Supervises this many services, all due at once.
    pub(crate) fn new(services: usize) -> Self {
        let service = || Service { state: State::Due(Duration::ZERO), delay: FIRST_DELAY };
        Self { services: (0..services).map(|_| service()).collect(), stopping: false }
    }

    /// The next service to start now. Its caller reports [`started`](Self::started) or
    /// [`start_failed`](Self::start_failed).
    pub(crate) fn take_due(&mut self, now: Duration) -> Option<usize> {
        let due = |service: &Service| matches!(service.state, State::Due(at) if at <= now);
        let index = self.services.iter().position(due)?;
        self.services[index].state = State::Starting;
        Some(index)
    }

    /// The service runs as this process.
    pub(crate) fn started(&mut self, service: usize, pid: i32, now: Duration) {
        self.services[service].state = State::Running { pid, since: now };
    }

    /// The service could not be started; returns the delay before the next attempt.
    pub(crate) fn start_failed(&mut self, service: usize, now: Duration) -> Option<Duration> {
        self.again(service, Duration::ZERO, now)
    }

    /// A process has ended. `None` when it was no service: an orphan that PID 1 inherited.
    pub(crate) fn ended(&mut self, pid: i32, now: Duration) -> Option<End> {
        let (service, since) =
            self.services.iter().enumerate().find_map(|(index, service)| match service.state {
                State::Running { pid: running, since } if running == pid => Some((index, since)),
                _ => None,
            })?;
        let ran = now.saturating_sub(since);
        let again_in = self.again(service, ran, now);
        Some(End { service, ran, again_in })
    }

    fn again(&mut self, service: usize, ran: Duration, now: Duration) -> Option<Duration> {
        let service = &mut self.services[service];
        if self.stopping {
            service.state = State::Stopped;
            return None;
        }
        if ran >= GOOD_RUN {
            service.delay = FIRST_DELAY;
        }
        let delay = service.delay;
        service.delay = (delay * 2).min(LAST_DELAY);
        service.state = State::Due(now + delay);
        Some(delay)
    }

    /// Starts nothing any more. Services that run keep running until they are told to end.
    pub(crate) fn stop(&mut self) {
        self.stopping = true;
        for service in &mut self.services {
            if let State::Due(_) = service.state {
                service.state = State::Stopped;
            }
        }
    }

    /// The processes of the services that run.
    pub(crate) fn pids(&self) -> impl Iterator<Item = i32> + '_ {
        self.services.iter().filter_map(|service| match service.state {
            State::Running { pid, .. } => Some(pid),
            _ => None,
        })
    }

    /// When [`take_due`](Self::take_due) next has something to say.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let due = |service: &Service| match service.state {
            State::Due(at) => Some(at),
            _ => None,
        };
        self.services.iter().filter_map(due).min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::{End, Supervisor, FIRST_DELAY, GOOD_RUN, LAST_DELAY};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_crashing_service_is_restarted_ever_more_slowly() {
        let mut supervisor = Supervisor::new(1);
        let mut now = Duration::ZERO;
        let mut delays = Vec::new();
        for pid in 2..10 {
            assert_eq!(supervisor.take_due(now), Some(0));
            supervisor.started(0, pid, now);
            assert_eq!((supervisor.take_due(now), supervisor.deadline()), (None, None));
            now += SECOND;
            let end = supervisor.ended(pid, now).unwrap();
            assert_eq!((end.service, end.ran), (0, SECOND));
            delays.push(end.again_in.unwrap().as_millis());
            assert_eq!(supervisor.deadline(), Some(now + end.again_in.unwrap()));
            assert_eq!(supervisor.take_due(now), None);
            now = supervisor.deadline().unwrap();
        }
        assert_eq!(delays, [250, 500, 1000, 2000, 4000, 8000, 10000, 10000]);
    }

    #[test]
    fn a_good_run_forgives() {
        let mut supervisor = Supervisor::new(1);
        for _ in 0..5 {
            let now = supervisor.deadline().unwrap();
            assert_eq!(supervisor.take_due(now), Some(0));
            supervisor.start_failed(0, now);
        }
        let now = supervisor.deadline().unwrap();
        supervisor.take_due(now);
        supervisor.started(0, 7, now);
        let end = supervisor.ended(7, now + GOOD_RUN).unwrap();
        assert_eq!(end.again_in, Some(FIRST_DELAY));
    }

    #[test]
    fn orphans_are_nobodys_end() {
        let mut supervisor = Supervisor::new(1);
        supervisor.take_due(Duration::ZERO);
        supervisor.started(0, 7, Duration::ZERO);
        assert_eq!(supervisor.ended(8, SECOND), None);
        assert_eq!(supervisor.pids().collect::<Vec<_>>(), [7]);
    }

    #[test]
    fn nothing_starts_after_stop() {
        let mut supervisor = Supervisor::new(2);
        supervisor.take_due(Duration::ZERO);
        supervisor.started(0, 7, Duration::ZERO);
        supervisor.stop();
        assert_eq!(supervisor.take_due(SECOND), None);
        let end = End { service: 0, ran: SECOND, again_in: None };
        assert_eq!(supervisor.ended(7, SECOND), Some(end));
        assert_eq!((supervisor.pids().count(), supervisor.deadline()), (0, None));
    }

    proptest! {
        /// Whatever the services do, each is either running or due within the longest delay.
        #[test]
        fn no_service_is_forgotten(events in proptest::collection::vec((0..3_u8, 0..90_000_u64), 1..200)) {
            let mut supervisor = Supervisor::new(3);
            let mut now = Duration::ZERO;
            let mut next_pid = 2;
            for (event, millis) in events {
                now += Duration::from_millis(millis);
                match event {
                    0 => {
                        let pid = supervisor.pids().next();
                        if let Some(pid) = pid {
                            prop_assert!(supervisor.ended(pid, now).unwrap().again_in.is_some());
                        }
                    }
                    1 => if let Some(service) = supervisor.take_due(now) {
                        prop_assert!(supervisor.start_failed(service, now).unwrap() <= LAST_DELAY);
                    },
                    _ => while let Some(service) = supervisor.take_due(now) {
                        supervisor.started(service, next_pid, now);
                        next_pid += 1;
                    },
                }
                if supervisor.pids().count() < 3 {
                    prop_assert!(supervisor.deadline().unwrap() <= now + LAST_DELAY);
                }
                prop_assert!(supervisor.pids().count() <= 3);
            }
        }
    }
}
