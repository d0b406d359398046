// SPDX-License-Identifier: MIT OR Apache-2.0
//! The member that lets machines in, or not.

use std::collections::BTreeMap;

use dvs_config::{Mac, Token};

use super::seal::{About, PublicKey, Question};
use super::wire::{Content, Datagram, Reason};

/// Milliseconds between two answers to one machine; it asks again.
const ANSWER_MS: u64 = 400;
/// Machines that are told apart; of more, those that come last get no answer for a moment.
const MACHINES_MAX: usize = 256;

/// What is agreed on about a token, and the machine that shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// What members know of the token.
    pub public: PublicKey,
    /// Why the machine cannot join with it, if so.
    pub against: Option<Reason>,
}

/// What to do with a datagram.
#[derive(Debug)]
pub enum Verdict {
    /// Nothing.
    Ignore,
    /// Send this: it says why not.
    Refuse(Vec<u8>),
    /// Have the nodes agree that the machine joins, then send the answer.
    Admit(Admission),
}

/// A machine that has proved that it has a valid token.
#[derive(Debug)]
pub struct Admission {
    /// The machine.
    pub machine: Mac,
    /// The token's id.
    pub id: String,
    cluster: String,
    question: Question,
}

impl Admission {
    /// The answer that only this machine can open; `None` if it cannot be made.
    pub fn answer(self, token: &Token) -> Option<Vec<u8>> {
        let message = self.question.answer(token.secret().as_bytes())?;
        let content = Content::Admit(&message);
        let datagram =
            Datagram { cluster: &self.cluster, machine: self.machine, id: &self.id, content };
        Some(datagram.to_bytes())
    }

    /// The answer if the nodes do not agree.
    pub fn refusal(&self, reason: Reason) -> Vec<u8> {
        let content = Content::Refuse(reason);
        Datagram { cluster: &self.cluster, machine: self.machine, id: &self.id, content }.to_bytes()
    }
}

/// When machines were answered. Datagrams cost nothing to send and an answer does.
#[derive(Debug, Default)]
struct Answered(BTreeMap<Mac, u64>);

impl Answered {
    /// Whether a machine is answered now.
    fn admits(&mut self, now_ms: u64, machine: Mac) -> bool {
        let Self(answered) = self;
        let fresh = |at: u64| now_ms.saturating_sub(at) < ANSWER_MS;
        if answered.get(&machine).is_some_and(|at| fresh(*at)) {
            return false;
        }
        if answered.len() >= MACHINES_MAX {
            answered.retain(|_, at| fresh(*at));
        }
        if answered.len() >= MACHINES_MAX {
            return false;
        }
        answered.insert(machine, now_ms);
        true
    }
}

/// Takes what applicants send.
#[derive(Debug, Default)]
pub struct Desk {
    /// Those that have proved that they know the token.
    proven: Answered,
    /// Those that have not, and may be made up: whatever they send, they are in nobody else's way.
    strange: Answered,
}

impl Desk {
    /// Takes a datagram that came to a node of `cluster`. `known` says what is agreed on about a token and a machine.
    pub fn hear(
        &mut self,
        now_ms: u64,
        cluster: &str,
        bytes: &[u8],
        known: impl FnOnce(&str, Mac) -> Option<Known>,
    ) -> Verdict {
        let Some(Datagram { cluster: theirs, machine, id, content: Content::Ask(message) }) =
            Datagram::read(bytes)
        else {
            return Verdict::Ignore;
        };
        if theirs != cluster {
            return Verdict::Ignore;
        }
        let refuse = |reason| {
            let content = Content::Refuse(reason);
            Verdict::Refuse(Datagram { cluster, machine, id, content }.to_bytes())
        };
        // To look at a question takes a few hashes: the keys are exchanged by the answer.
        let proved = known(id, machine).and_then(|known| {
            let question = Question::read(&known.public, About { cluster, machine, id }, message)?;
            Some((question, known.against))
        });
        let Some((question, against)) = proved else {
            // Whoever guesses ids learns nothing, not even which there are.
            return match self.strange.admits(now_ms, machine) {
                true => refuse(Reason::Unknown),
                false => Verdict::Ignore,
            };
        };
        if !self.proven.admits(now_ms, machine) {
            return Verdict::Ignore;
        }
        match against {
            Some(reason) => refuse(reason),
            None => Verdict::Admit(Admission {
                machine,
                id: id.to_owned(),
                cluster: cluster.to_owned(),
                question,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{public_key, Applicant, Heard};
    use super::*;

    const MACHINE: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn applicant(secret: char) -> Applicant {
        let token = format!("ab12.{}", secret.to_string().repeat(32)).parse().unwrap();
        Applicant::new("lab", MACHINE, token)
    }

    fn known(against: Option<Reason>) -> impl Fn(&str, Mac) -> Option<Known> {
        let token = format!("ab12.{}", "a".repeat(32)).parse().unwrap();
        let public = public_key(&token);
        move |id, machine| (id == "ab12" && machine == MACHINE).then_some(Known { public, against })
    }

    fn secret() -> Token {
        "the token of this cluster".parse().unwrap()
    }

    #[test]
    fn who_has_a_valid_token_gets_that_of_the_cluster() {
        let (mut applicant, mut desk) = (applicant('a'), Desk::default());
        assert!(applicant.detail().starts_with("asking cluster lab to be let in"));
        let asked = applicant.step(0).unwrap().unwrap();
        assert_eq!(applicant.step(100), Ok(None));
        assert_eq!(applicant.step(500).unwrap().unwrap(), asked, "it repeats itself");
        let Verdict::Admit(admission) = desk.hear(0, "lab", &asked, known(None)) else {
            panic!("it is not let in");
        };
        assert_eq!((admission.machine, admission.id.as_str()), (MACHINE, "ab12"));
        let answer = admission.answer(&secret()).unwrap();
        assert_eq!(applicant.hear(&asked), Heard::Nothing, "its own question");
        assert_eq!(applicant.hear(&answer[..answer.len() - 1]), Heard::Nothing);
        assert_eq!(applicant.hear(&answer), Heard::Admitted(secret()));
    }

    #[test]
    fn a_question_is_made_anew_and_answers_to_the_one_before_are_void() {
        let (mut applicant, mut desk) = (applicant('a'), Desk::default());
        let first = applicant.step(0).unwrap().unwrap();
        let second = applicant.step(QUESTION_LATER_MS).unwrap().unwrap();
        assert_ne!(first, second);
        let mut answer =
            |question: &[u8], now_ms| match desk.hear(now_ms, "lab", question, known(None)) {
                Verdict::Admit(admission) => admission.answer(&secret()).unwrap(),
                other => panic!("{other:?}"),
            };
        assert_eq!(applicant.hear(&answer(&first, 0)), Heard::Nothing);
        assert_eq!(applicant.hear(&answer(&second, 1_000)), Heard::Admitted(secret()));
    }

    const QUESTION_LATER_MS: u64 = 20_000;

    #[test]
    fn who_has_none_is_told_why() {
        let mut applicant = applicant('a');
        let asked = applicant.step(0).unwrap().unwrap();
        let mut refused =
            |known: &dyn Fn(&str, Mac) -> Option<Known>, says: &str| match Desk::default()
                .hear(0, "lab", &asked, known)
            {
                Verdict::Refuse(answer) => {
                    assert!(matches!(applicant.hear(&answer), Heard::Refused(_)));
                    assert!(applicant.detail().contains(says), "{}", applicant.detail());
                }
                other => panic!("{other:?}"),
            };
        refused(&|_, _| None, "has run out, was revoked, or is none");
        refused(&known(Some(Reason::UsedUp)), "as many machines as may");
        refused(&known(Some(Reason::Removed)), "was removed after");
        applicant.step(6_000).unwrap();
        assert!(applicant.detail().starts_with("asking"), "{}", applicant.detail());
        // Another secret under the same id.
        let forged = self::applicant('b').step(0).unwrap().unwrap();
        let verdict = Desk::default().hear(0, "lab", &forged, known(Some(Reason::UsedUp)));
        let Verdict::Refuse(answer) = verdict else { panic!("{verdict:?}") };
        assert_eq!(applicant.hear(&answer), Heard::Refused(Reason::Unknown));
    }

    #[test]
    fn what_is_none_of_its_business_is_ignored_and_floods_are_not_answered() {
        let asked = applicant('a').step(0).unwrap().unwrap();
        let mut desk = Desk::default();
        for (cluster, bytes) in [("bal", &asked[..]), ("lab", b"dvsJ"), ("lab", &asked[..19])] {
            let verdict = desk.hear(0, cluster, bytes, |_, _| panic!("it is looked up"));
            assert!(matches!(verdict, Verdict::Ignore), "{verdict:?}");
        }
        let mut answers = 0;
        for n in 0..10_000_u64 {
            let mut forged = asked.clone();
            forged[9..15].copy_from_slice(&n.to_le_bytes()[..6]);
            if !matches!(desk.hear(n / 100, "lab", &forged, |_, _| None), Verdict::Ignore) {
                answers += 1;
            }
        }
        assert_eq!(answers, MACHINES_MAX);
        assert!(desk.strange.0.len() <= MACHINES_MAX);
        // Neither they nor somebody without the token who takes its name are in the way of a machine that has it.
        let forged = self::applicant('b').step(0).unwrap().unwrap();
        assert!(matches!(desk.hear(99, "lab", &forged, known(None)), Verdict::Ignore));
        let verdict = desk.hear(99, "lab", &asked, known(None));
        assert!(matches!(verdict, Verdict::Admit(_)), "{verdict:?}");
        let again = desk.hear(199, "lab", &asked, known(None));
        assert!(matches!(again, Verdict::Ignore), "{again:?}");
    }
}
