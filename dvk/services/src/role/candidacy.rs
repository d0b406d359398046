// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a candidate for a role asks, and what it may believe: no clock and no messages of its own.

use core::time::Duration;

use crate::client::Error;
use crate::question::{Answer, Lease, Line, Question, Reason};

/// How long a role is kept for a holder that is not heard of: the time of the candidate's lease.
pub const TTL: Duration = Duration::from_millis(3000);
/// How long before that a holder stops believing in it: more than clocks can drift apart in the lease's time, and time for it to be stopped.
const MARGIN: Duration = Duration::from_millis(500);
/// How often a lease is renewed.
const RENEWAL: Duration = Duration::from_millis(750);

/// How a candidate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It waits for its turn.
    Waiting,
    /// It has the role.
    Held {
        /// Greater than that of every holder before: a fencing token.
        term: u64,
        /// When it has the role no more, unless it hears something.
        until: Duration,
    },
    /// It had the role, and has lost it for good.
    Lost,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask this, and tell what came of it.
    Ask(Question),
    /// Nothing for so long.
    Pause(Duration),
    /// Nothing any more: the role is lost.
    End,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Without a lease.
    Outside,
    /// With a lease that is known to have been renewed at some time, and, it may be, in line.
    Leased { lease: Lease, renewed: Duration, stands: bool },
    /// With the role.
    Held { lease: Lease, renewed: Duration, term: u64 },
    /// Without the role, after it had it.
    Lost,
}

/// A candidate for a role. Times are those of one clock that never goes back.
#[derive(Debug)]
pub struct Candidacy {
    role: String,
    value: Vec<u8>,
    state: State,
}

impl Candidacy {
    /// One that wants this role and says `value` of itself while it has it.
    pub fn new(role: &str, value: &[u8]) -> Self {
        Self { role: role.to_owned(), value: value.to_vec(), state: State::Outside }
    }

    /// What to do now.
    pub fn next(&mut self, now: Duration) -> Step {
        if let (State::Held { .. }, Standing::Lost) = (self.state, self.standing(now)) {
            self.state = State::Lost;
        }
        let role = || self.role.clone();
        let is_due = |renewed| now.saturating_sub(renewed) >= RENEWAL;
        match self.state {
            State::Outside => {
                let ttl_ms = TTL.as_millis() as u64;
                Step::Ask(Question::Grant { ttl_ms, owner: role() })
            }
            State::Leased { lease, renewed, .. } | State::Held { lease, renewed, .. }
                if is_due(renewed) =>
            {
                Step::Ask(Question::KeepAlive { lease })
            }
            State::Leased { lease, stands: false, .. } => {
                let value = self.value.clone();
                Step::Ask(Question::Stand { name: role(), lease, value })
            }
            State::Leased { lease, renewed, stands: true } => {
                let wait_ms = (renewed + RENEWAL).saturating_sub(now).as_millis() as u64;
                Step::Ask(Question::AwaitLead { name: role(), lease, wait_ms })
            }
            State::Held { renewed, .. } => Step::Pause((renewed + RENEWAL).saturating_sub(now)),
            State::Lost => Step::End,
        }
    }

    /// Takes what came of a question that was asked at a time. Says whether it was an answer; without one it is better to wait a little
    /// before the next try.
    pub fn heard(&mut self, asked: Duration, answer: &Result<Answer, Error>) -> bool {
        match (answer, &mut self.state) {
            (Ok(Answer::Lease(lease)), State::Outside) => {
                self.state = State::Leased { lease: *lease, renewed: asked, stands: false };
            }
            (Ok(Answer::Lease(_)), State::Leased { renewed, .. } | State::Held { renewed, .. }) => {
                *renewed = asked
            }
            (Ok(Answer::Line(line)), State::Leased { lease, renewed, stands }) => match *line {
                Line::Holding { fence } => {
                    self.state = State::Held { lease: *lease, renewed: *renewed, term: fence };
                }
                Line::Waiting { .. } => *stands = true,
            },
            (Ok(_), _) => return false,
            (Err(error), state) => {
                if error.reason() == Some(Reason::Missing) {
                    *state = match state {
                        State::Held { .. } | State::Lost => State::Lost,
                        State::Outside | State::Leased { .. } => State::Outside,
                    };
                }
                return false;
            }
        }
        true
    }

    /// How it stands.
    pub fn standing(&self, now: Duration) -> Standing {
        match self.state {
            State::Outside | State::Leased { .. } => Standing::Waiting,
            State::Held { renewed, term, .. } => {
                let until = renewed + TTL - MARGIN;
                if now < until {
                    Standing::Held { term, until }
                } else {
                    Standing::Lost
                }
            }
            State::Lost => Standing::Lost,
        }
    }

    /// The lease by whose end it gives back what it has.
    pub fn lease(&self) -> Option<Lease> {
        match self.state {
            State::Leased { lease, .. } | State::Held { lease, .. } => Some(lease),
            State::Outside | State::Lost => None,
        }
    }
}

#[cfg(test)]
mod tests;
