// SPDX-License-Identifier: MIT OR Apache-2.0

use super::*;
use crate::question::Refusal;
use proptest::prelude::*;

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn refused(reason: Reason) -> Result<Answer, Error> {
    Err(Error::Refused(Refusal { reason, text: String::new() }))
}

/// What the services do with the lease and the line of a role, by their own clock.
#[derive(Default)]
struct Services {
    granted: u64,
    term: u64,
    /// Until when each lease lasts.
    leases: Vec<(Lease, Duration)>,
    line: Vec<(Lease, u64)>,
}

impl Services {
    fn answer(&mut self, now: Duration, question: &Question) -> Result<Answer, Error> {
        self.leases.retain(|(_, until)| now < *until);
        self.line.retain(|(lease, _)| self.leases.iter().any(|(held, _)| held == lease));
        let line = match question {
            Question::Grant { ttl_ms, .. } => {
                self.granted += 1;
                let lease = Lease(self.granted);
                self.leases.push((lease, now + at(*ttl_ms)));
                return Ok(Answer::Lease(lease));
            }
            Question::KeepAlive { lease } => {
                let Some(held) = self.leases.iter_mut().find(|(held, _)| held == lease) else {
                    return refused(Reason::Missing);
                };
                held.1 = now + TTL;
                return Ok(Answer::Lease(*lease));
            }
            Question::Stand { lease, .. } => {
                if !self.leases.iter().any(|(held, _)| held == lease) {
                    return refused(Reason::Missing);
                }
                if !self.line.iter().any(|(held, _)| held == lease) {
                    self.term += 1;
                    self.line.push((*lease, self.term));
                }
                lease
            }
            Question::AwaitLead { lease, .. } => lease,
            other => panic!("a candidate asks {other:?}"),
        };
        match self.line.iter().position(|(held, _)| held == line) {
            None => refused(Reason::Missing),
            Some(0) => Ok(Answer::Line(Line::Holding { fence: self.line[0].1 })),
            Some(ahead) => Ok(Answer::Line(Line::Waiting { ahead: ahead as u32 })),
        }
    }
}

/// A program that stands for the role, and the exchange that it waits for.
struct Program {
    candidacy: Candidacy,
    /// When the question was asked, when it gets there, and when the answer is back.
    under_way: Option<(Duration, Duration, Duration, Question)>,
    answer: Option<Result<Answer, Error>>,
    idle_until: Duration,
    runs: bool,
}

impl Program {
    fn new() -> Self {
        Self {
            candidacy: Candidacy::new("files", &[1]),
            under_way: None,
            answer: None,
            idle_until: Duration::ZERO,
            runs: true,
        }
    }

    /// Goes on to a time; `fate` says how long question and answer take, and whether the answer is lost.
    fn go_on(&mut self, now: Duration, services: &mut Services, fate: (u16, u16, bool)) {
        if let Some((asked, there, back, question)) = &self.under_way {
            if now >= *there && self.answer.is_none() {
                self.answer = Some(services.answer(now, question));
            }
            if now < *back {
                return;
            }
            let mut answer = self.answer.take().unwrap_or_else(|| refused(Reason::Leaderless));
            if fate.2 {
                answer = refused(Reason::Unknown);
            }
            if !self.candidacy.heard(*asked, &answer) {
                self.idle_until = now + at(100);
            }
            self.under_way = None;
        }
        if !self.runs || now < self.idle_until {
            return;
        }
        match self.candidacy.next(now) {
            Step::Ask(question) => {
                let there = now + at(u64::from(fate.0));
                self.under_way = Some((now, there, there + at(u64::from(fate.1)), question));
            }
            Step::Pause(time) => self.idle_until = now + time,
            Step::End => {
                // It is started again.
                *self = Self::new();
                self.idle_until = now + at(1000);
            }
        }
    }

    fn holds(&self, now: Duration) -> bool {
        matches!(self.candidacy.standing(now), Standing::Held { .. })
    }
}

proptest! {
    #[test]
    fn no_two_believe_that_they_have_a_role_and_somebody_comes_to_have_it(
        fates in proptest::collection::vec(
            (prop_oneof![9 => 0_u16..300, 1 => 0_u16..6000], prop_oneof![9 => 0_u16..300, 1 => 0_u16..6000], prop::bool::weighted(0.1)),
            400,
        ),
        stops in proptest::collection::vec((0_usize..3, 1_u64..6000), 4),
    ) {
        let mut services = Services::default();
        let mut programs = [Program::new(), Program::new(), Program::new()];
        let mut terms = Vec::new();
        let mut seen = 0;
        let mut step = |now: Duration, programs: &mut [Program; 3], fates: Option<&[(u16, u16, bool)]>| {
            for (index, program) in programs.iter_mut().enumerate() {
                seen += 1;
                let fate = fates.map_or((5, 5, false), |fates| fates[(seen * 7 + index) % fates.len()]);
                program.go_on(now, &mut services, fate);
            }
            let holders = programs.iter().filter(|program| program.holds(now)).count();
            prop_assert!(holders <= 1, "{holders} at {now:?}");
            for program in programs.iter() {
                if let Standing::Held { term, .. } = program.candidacy.standing(now) {
                    if terms.last() != Some(&term) {
                        prop_assert!(terms.last().is_none_or(|last| *last < term), "{terms:?}, {term}");
                        terms.push(term);
                    }
                }
            }
            Ok(())
        };
        let mut now = 0;
        for (victim, time) in &stops {
            for _ in 0..time / 50 {
                step(at(now), &mut programs, Some(&fates))?;
                now += 50;
            }
            // One is stopped for as long, as a virtual machine may be, and goes on where it was.
            programs[*victim].runs = !programs[*victim].runs;
        }
        for program in &mut programs {
            program.runs = true;
        }
        for _ in 0..400 {
            step(at(now), &mut programs, None)?;
            now += 50;
        }
        prop_assert!(programs.iter().any(|program| program.holds(at(now))));
    }
}

#[test]
fn a_role_ends_in_time_for_its_holder_and_never_comes_back() {
    let mut candidacy = Candidacy::new("files", &[]);
    assert_eq!(
        candidacy.next(at(0)),
        Step::Ask(Question::Grant { ttl_ms: 3000, owner: "files".into() })
    );
    assert!(candidacy.heard(at(0), &Ok(Answer::Lease(Lease(1)))));
    assert!(matches!(candidacy.next(at(10)), Step::Ask(Question::Stand { .. })));
    assert!(candidacy.heard(at(10), &Ok(Answer::Line(Line::Holding { fence: 7 }))));
    // What counts is when the lease was asked for, not when it was answered.
    let held = Standing::Held { term: 7, until: at(2500) };
    assert_eq!(candidacy.standing(at(2499)), held);
    assert_eq!(candidacy.standing(at(2500)), Standing::Lost);
    assert!(matches!(candidacy.next(at(800)), Step::Ask(Question::KeepAlive { .. })));
    // Nobody knows whether that was done: nothing is gained by it.
    assert!(!candidacy.heard(at(800), &refused(Reason::Unknown)));
    assert_eq!(candidacy.standing(at(2499)), held);
    assert_eq!(candidacy.next(at(2500)), Step::End);
    candidacy.heard(at(2500), &Ok(Answer::Lease(Lease(1))));
    assert_eq!(candidacy.standing(at(0)), Standing::Lost);
}

#[test]
fn one_in_line_begins_anew_when_its_lease_has_ended_and_a_holder_does_not() {
    let mut candidacy = Candidacy::new("files", &[]);
    candidacy.heard(at(0), &Ok(Answer::Lease(Lease(1))));
    candidacy.heard(at(0), &Ok(Answer::Line(Line::Waiting { ahead: 1 })));
    let wait = Question::AwaitLead { name: "files".into(), lease: Lease(1), wait_ms: 700 };
    assert_eq!(candidacy.next(at(50)), Step::Ask(wait));
    assert!(!candidacy.heard(at(50), &refused(Reason::Missing)));
    assert!(matches!(candidacy.next(at(60)), Step::Ask(Question::Grant { .. })));
    candidacy.heard(at(60), &Ok(Answer::Lease(Lease(2))));
    candidacy.heard(at(60), &Ok(Answer::Line(Line::Holding { fence: 1 })));
    assert_eq!(candidacy.lease(), Some(Lease(2)));
    candidacy.heard(at(60), &refused(Reason::Missing));
    assert_eq!(candidacy.standing(at(60)), Standing::Lost);
    assert_eq!((candidacy.next(at(60)), candidacy.lease()), (Step::End, None));
}
