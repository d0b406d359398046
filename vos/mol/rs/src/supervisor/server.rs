// SPDX-License-Identifier: MIT OR Apache-2.0
//! One server on one node.

use super::{Action, Supervisor, Surroundings, Time};
use crate::manifest::{Definition, Placement};
use crate::report::{Report, State};
use core::time::Duration;
use dvk_services::Lease;

/// The lead under which a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lead {
    lease: Lease,
    term: u64,
}

/// A process. There is one of a server on a node at most.
#[derive(Debug)]
enum Process {
    None,
    Starting { lead: Option<Lead>, of: Definition },
    Running { lead: Option<Lead>, of: Definition, pid: u32, since: Time },
    Stopping { lead: Option<Lead>, pid: u32, asked: Time, is_killed: bool, has_failed: bool },
}

/// Where the node stands in the election of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Candidacy {
    None,
    /// It lets the preferred node go first.
    Patient {
        until: Time,
    },
    Standing {
        lease: Lease,
        attempt: u64,
    },
    Leading(Lead),
}

#[derive(Debug)]
pub(super) struct Server {
    name: String,
    definition: Definition,
    /// Whether the manifest still has it.
    is_defined: bool,
    process: Process,
    candidacy: Candidacy,
    /// The preferred node, if that is another one and there.
    favourite: Option<u32>,
    /// The newest preference that was looked at.
    revision: u64,
    hands_over: bool,
    /// Whether the manifest prefers another node than before, which was not looked at yet.
    has_new_wish: bool,
    /// It does not run here, so that another node is to have it.
    gives_up: bool,
    has_started: bool,
    failures: u32,
    not_before: Time,
    last_exit: Option<String>,
    /// What it was when it was told last, and since when.
    state: Option<(State, Time)>,
}

impl Server {
    pub(super) fn new(name: &str, definition: &Definition, revision: u64, now: Time) -> Self {
        Self {
            name: name.to_owned(),
            definition: definition.clone(),
            is_defined: true,
            process: Process::None,
            candidacy: Candidacy::None,
            favourite: None,
            revision,
            hands_over: false,
            has_new_wish: false,
            gives_up: false,
            has_started: false,
            failures: 0,
            not_before: now,
            last_exit: None,
            state: None,
        }
    }

    /// What the manifest says of it; without anything it is to go.
    pub(super) fn define(&mut self, definition: Option<&Definition>) {
        self.is_defined = definition.is_some();
        if let Some(definition) = definition.filter(|it| **it != self.definition) {
            let wish = definition.placement.prefers();
            self.has_new_wish |= wish.is_some() && wish != self.definition.placement.prefers();
            self.gives_up = false;
            self.definition = definition.clone();
            // What failed before was something else.
            self.failures = 0;
            self.not_before = Time::ZERO;
        }
    }

    pub(super) fn won(&mut self, lease: Lease, attempt: u64, term: u64) {
        // An answer to a candidacy that was given up meanwhile is none.
        if self.candidacy == (Candidacy::Standing { lease, attempt }) {
            self.candidacy = Candidacy::Leading(Lead { lease, term });
        }
    }

    pub(super) fn started(&mut self, now: Time, pid: u32) {
        if let Process::Starting { lead, of } = &self.process {
            let (lead, of) = (*lead, of.clone());
            self.process = Process::Running { lead, of, pid, since: now };
            self.has_started = true;
        }
    }

    /// The process has ended. What it had started has the time to end that the process would have had.
    pub(super) fn leaving(&mut self, now: Time) {
        if let Process::Running { lead, pid, since, .. } = self.process {
            self.fail_after(now, since);
            self.process =
                Process::Stopping { lead, pid, asked: now, is_killed: false, has_failed: true };
        }
    }

    pub(super) fn ended(&mut self, now: Time, how: String) {
        match self.process {
            Process::None => return,
            Process::Stopping { has_failed: true, .. } => {}
            Process::Stopping { .. } => {
                self.failures = 0;
                self.not_before = now;
            }
            Process::Starting { .. } => self.fail(now),
            Process::Running { since, .. } => self.fail_after(now, since),
        }
        self.last_exit = Some(how);
        self.process = Process::None;
    }

    fn fail_after(&mut self, now: Time, since: Time) {
        if now.saturating_sub(since) >= Supervisor::GOOD {
            self.failures = 0;
        }
        self.fail(now);
    }

    fn fail(&mut self, now: Time) {
        let doubled = 1_u32.checked_shl(self.failures.min(16)).unwrap_or(u32::MAX);
        let pause: Duration = Supervisor::PAUSE_MIN.saturating_mul(doubled);
        self.not_before = now + pause.min(Supervisor::PAUSE_MAX);
        self.failures += 1;
        self.gives_up = pause >= Supervisor::PAUSE_MAX;
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.process, Process::Running { .. })
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.process, Process::None)
            && !matches!(self.candidacy, Candidacy::Standing { .. } | Candidacy::Leading(_))
    }

    /// Nothing is left of it, and nobody wants it.
    pub(super) fn is_over(&self) -> bool {
        !self.is_defined && self.is_idle()
    }

    pub(super) fn settle(
        &mut self,
        now: Time,
        around: &mut Surroundings,
        actions: &mut Vec<Action>,
    ) {
        let is_wanted = self.is_wanted(around);
        self.stand(now, is_wanted, around, actions);
        self.run(now, is_wanted, around, actions);
        // A process that is gone may have been all that the lead was kept for.
        self.resign(now, is_wanted, around, actions);
    }

    fn is_wanted(&self, around: &Surroundings) -> bool {
        self.is_defined
            && !around.is_ending
            && !around.view.stopped.contains(&self.name)
            && self.definition.placement.allows(around.node)
    }

    /// The preferred node, if it is another one, may have the server and is there.
    fn look_for_favourite(&self, around: &Surroundings) -> Option<u32> {
        let Placement::Once { prefer, .. } = &self.definition.placement else { return None };
        let wished = around.view.preferences.get(&self.name).map(|(node, _)| *node);
        wished.or(*prefer).filter(|node| {
            *node != around.node
                && around.view.alive.contains(node)
                && self.definition.placement.allows(*node)
        })
    }

    fn stand(
        &mut self,
        now: Time,
        is_wanted: bool,
        around: &mut Surroundings,
        actions: &mut Vec<Action>,
    ) {
        // With the lease all that was held under it has ended.
        let lease = around.held.map(|held| held.lease);
        match self.candidacy {
            Candidacy::Standing { lease: of, .. } | Candidacy::Leading(Lead { lease: of, .. })
                if Some(of) != lease =>
            {
                self.candidacy = Candidacy::None;
                self.hands_over = false;
                self.gives_up = false;
            }
            _ => {}
        }
        let favourite = self.look_for_favourite(around);
        let revision = around.view.preferences.get(&self.name).map_or(0, |it| it.1);
        let is_new = revision > self.revision || core::mem::take(&mut self.has_new_wish);
        self.revision = self.revision.max(revision);
        let gives_way = favourite.is_some() && (is_new || favourite != self.favourite);
        self.favourite = favourite;
        match self.candidacy {
            Candidacy::Leading(_) if is_new => self.hands_over = favourite.is_some(),
            Candidacy::Leading(_) => self.hands_over &= favourite.is_some(),
            // In line, it would come before the preferred one.
            Candidacy::Standing { lease, .. } if gives_way => {
                actions.push(Action::Resign { server: self.name.clone(), lease });
                self.candidacy = Candidacy::Patient { until: now + Supervisor::PATIENCE };
            }
            Candidacy::Patient { .. } if gives_way => {
                self.candidacy = Candidacy::Patient { until: now + Supervisor::PATIENCE };
            }
            _ => {}
        }
        self.resign(now, is_wanted, around, actions);
        let Some(lease) = lease.filter(|_| is_wanted && self.definition.placement.is_once()) else {
            return;
        };
        if self.candidacy == Candidacy::None && favourite.is_some() {
            self.candidacy = Candidacy::Patient { until: now + Supervisor::PATIENCE };
        }
        let is_due = match self.candidacy {
            Candidacy::None => true,
            // Who has given up lets any other go first.
            Candidacy::Patient { until } => now >= until || favourite.is_none() && !self.gives_up,
            Candidacy::Standing { .. } | Candidacy::Leading(_) => false,
        };
        if is_due {
            around.attempts += 1;
            let attempt = around.attempts;
            self.gives_up = false;
            self.candidacy = Candidacy::Standing { lease, attempt };
            actions.push(Action::Stand { server: self.name.clone(), lease, attempt });
        }
    }

    /// Gives up what is not wanted any more: the lead only when there is no process that needs it.
    fn resign(
        &mut self,
        now: Time,
        is_wanted: bool,
        around: &Surroundings,
        actions: &mut Vec<Action>,
    ) {
        let is_candidate = is_wanted && self.definition.placement.is_once();
        let gives_up = self.gives_up && self.may_be_elsewhere(around);
        let lease = match self.candidacy {
            Candidacy::Patient { .. } if !is_candidate => {
                self.candidacy = Candidacy::None;
                return;
            }
            Candidacy::Standing { lease, .. } if !is_candidate => lease,
            Candidacy::Leading(lead)
                if (!is_candidate || self.hands_over || gives_up) && !self.needs_lead() =>
            {
                lead.lease
            }
            _ => return,
        };
        if around.held.is_some_and(|held| held.lease == lease) {
            actions.push(Action::Resign { server: self.name.clone(), lease });
        }
        let until = now + Supervisor::PATIENCE;
        let waits = is_candidate && (self.hands_over || gives_up);
        self.candidacy = if waits { Candidacy::Patient { until } } else { Candidacy::None };
        self.hands_over = false;
    }

    /// Whether another node is there that may have it.
    fn may_be_elsewhere(&self, around: &Surroundings) -> bool {
        let is_other = |node: &u32| *node != around.node && self.definition.placement.allows(*node);
        around.view.alive.iter().any(is_other)
    }

    /// Whether there is a process that may be only one in the container.
    fn needs_lead(&self) -> bool {
        !matches!(self.process, Process::None) && self.is_alone()
    }

    /// Whether there may be one of it at a time. One that was so stays it until its process is gone, if it is in the manifest no more.
    fn is_alone(&self) -> bool {
        self.definition.placement.is_once()
    }

    /// The lead under which it may run now.
    fn lead(&self, now: Time, around: &Surroundings) -> Option<Lead> {
        let Candidacy::Leading(lead) = self.candidacy else { return None };
        let lasts = |renewed| now < renewed + Supervisor::TERM_AFTER;
        let held = around.held.filter(|held| held.lease == lead.lease && lasts(held.renewed));
        held.map(|_| lead)
    }

    /// When a process has to be gone at the latest that runs under a lead.
    fn deadline(&self, lead: Option<Lead>, around: &Surroundings) -> Option<Time> {
        let lead = lead.filter(|_| self.is_alone())?;
        match around.held {
            Some(held) if held.lease == lead.lease => Some(held.renewed + Supervisor::KILL_AFTER),
            _ => Some(Time::ZERO),
        }
    }

    fn run(
        &mut self,
        now: Time,
        is_wanted: bool,
        around: &Surroundings,
        actions: &mut Vec<Action>,
    ) {
        let lead = self.lead(now, around);
        let is_alone = self.is_alone();
        let may = is_wanted && (!is_alone || lead.is_some() && !self.hands_over);
        if let Process::Running { lead: under, of, pid, .. } = &self.process {
            let is_same = of.command == self.definition.command
                && of.environment == self.definition.environment;
            if !(may && is_same && (!is_alone || *under == lead)) {
                actions.push(Action::Terminate(self.name.clone()));
                self.process = Process::Stopping {
                    lead: *under,
                    pid: *pid,
                    asked: now,
                    is_killed: false,
                    has_failed: false,
                };
            }
        }
        if let Process::Stopping { lead: under, asked, is_killed: false, .. } = self.process {
            let deadline = self.deadline(under, around);
            let patience = asked + Supervisor::GRACE;
            if now >= deadline.map_or(patience, |deadline| deadline.min(patience)) {
                actions.push(Action::Kill(self.name.clone()));
                if let Process::Stopping { is_killed, .. } = &mut self.process {
                    *is_killed = true;
                }
            }
        }
        let is_free = matches!(self.process, Process::None);
        if is_free && may && now >= self.not_before && self.waits_for(around).is_none() {
            let under = lead.filter(|_| is_alone);
            actions.push(Action::Start {
                server: self.name.clone(),
                command: self.definition.command_on(around.node),
                environment: self.definition.environment.clone(),
                term: under.map(|lead| lead.term),
            });
            self.gives_up = false;
            self.process = Process::Starting { lead: under, of: self.definition.clone() };
        }
    }

    /// A server that has to run first.
    fn waits_for(&self, around: &Surroundings) -> Option<&str> {
        let runs =
            |name: &String| around.running.contains(name) || around.view.running.contains(name);
        let missing = self.definition.after.iter().find(|name| !runs(name));
        missing.filter(|_| !self.has_started).map(String::as_str)
    }

    /// What it tells, if it has to do with this node.
    pub(super) fn report(&mut self, now: Time, around: &Surroundings) -> Option<Report> {
        let is_wanted = self.is_wanted(around);
        let is_alone = self.is_alone();
        let mut detail = None;
        let (state, pid, lead) = match &self.process {
            Process::Starting { lead, .. } => (State::Starting, None, *lead),
            Process::Running { pid, lead, .. } => (State::Running, Some(*pid), *lead),
            Process::Stopping { pid, lead, .. } => (State::Stopping, Some(*pid), *lead),
            Process::None if !is_wanted => {
                if !around.view.stopped.contains(&self.name)
                    || !self.definition.placement.allows(around.node)
                {
                    return None;
                }
                (State::Stopped, None, None)
            }
            Process::None if is_alone && around.held.is_none() => {
                detail = Some("the nodes do not agree".to_owned());
                (State::Waiting, None, None)
            }
            Process::None if is_alone && !matches!(self.candidacy, Candidacy::Leading(_)) => {
                (State::Standby, None, None)
            }
            Process::None if now < self.not_before => (State::BackingOff, None, None),
            Process::None => {
                detail = self.waits_for(around).map(|name| format!("it starts after {name}"));
                (State::Waiting, None, None)
            }
        };
        let since = match self.state {
            Some((before, since)) if before == state => since,
            _ => now,
        };
        self.state = Some((state, since));
        Some(Report {
            server: self.name.clone(),
            once: is_alone,
            state,
            pid,
            term: lead.map(|lead| lead.term),
            since_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            failures: self.failures,
            last_exit: self.last_exit.clone(),
            detail,
        })
    }
}
