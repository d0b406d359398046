// SPDX-License-Identifier: MIT OR Apache-2.0
//! One election, in which candidates lead in the order in which they stood.

use crate::Model;

/// One election, for which nobody stands at first.
#[derive(Debug)]
pub struct Election;

/// What an election can be asked, by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ElectionInput {
    /// To stand.
    Stand(u64),
    /// To lead or stand no more.
    Resign(u64),
    /// Who leads.
    Observe,
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ElectionOutput {
    /// The candidate leads, in this term.
    Leads(u64),
    /// It stands, after the leader and so many others.
    Waits(u32),
    /// Whether it led or stood.
    Resigned(bool),
    /// Who leads, and in which term.
    Leader(Option<(u64, u64)>),
}

/// What an election is in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Candidates {
    /// The leader first, then in the order in which they will lead.
    line: Vec<u64>,
    /// The leader's term, once it is known.
    term: Option<u64>,
    /// The last term that is known.
    last: u64,
}

impl Candidates {
    /// The same with that term of the leader; `None` if it cannot be that one.
    fn in_term(&self, term: u64) -> Option<Self> {
        let right = self.term.map_or(term > self.last, |known| known == term);
        right.then(|| Self { term: Some(term), last: term, ..self.clone() })
    }

    fn with(&self, who: u64) -> (Self, usize) {
        let mut after = self.clone();
        let at = self.line.iter().position(|one| *one == who).unwrap_or_else(|| {
            after.line.push(who);
            after.line.len() - 1
        });
        (after, at)
    }

    fn without(&self, who: u64) -> (Self, bool) {
        let mut after = self.clone();
        let Some(at) = self.line.iter().position(|one| *one == who) else { return (after, false) };
        after.line.remove(at);
        if at == 0 {
            after.term = None;
        }
        (after, true)
    }
}

impl Model for Election {
    type State = Candidates;
    type Input = ElectionInput;
    type Output = ElectionOutput;

    fn begin() -> Candidates {
        Candidates::default()
    }

    fn step(
        state: &Candidates,
        input: &ElectionInput,
        output: Option<&ElectionOutput>,
    ) -> Option<Candidates> {
        use ElectionOutput::{Leader, Leads, Resigned, Waits};
        match (input, output) {
            (ElectionInput::Stand(who), output) => {
                let (after, at) = state.with(*who);
                match output {
                    None => Some(after),
                    Some(Leads(term)) if at == 0 => after.in_term(*term),
                    Some(Waits(ahead)) => (at == *ahead as usize + 1).then_some(after),
                    Some(_) => None,
                }
            }
            (ElectionInput::Resign(who), output) => {
                let (after, stood) = state.without(*who);
                output.is_none_or(|output| *output == Resigned(stood)).then_some(after)
            }
            (ElectionInput::Observe, None) => Some(state.clone()),
            (ElectionInput::Observe, Some(Leader(leader))) => match (state.line.first(), leader) {
                (None, None) => Some(state.clone()),
                (Some(first), Some((who, term))) if first == who => state.in_term(*term),
                _ => None,
            },
            (ElectionInput::Observe, Some(_)) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{is_linearizable, Operation};

    type Op = Operation<ElectionInput, ElectionOutput>;

    fn op(invoked: u64, input: ElectionInput, returned: u64, output: ElectionOutput) -> Op {
        Operation { invoked, returned: Some((returned, output)), input }
    }

    fn lost(invoked: u64, input: ElectionInput) -> Op {
        Operation { invoked, returned: None, input }
    }

    use ElectionInput::{Observe, Resign, Stand};
    use ElectionOutput::{Leader, Leads, Resigned, Waits};

    #[test]
    fn one_leads_at_a_time_in_the_order_of_standing() {
        let first = op(1, Stand(1), 2, Leads(5));
        let second = op(3, Stand(2), 4, Waits(0));
        let good: [&[Op]; 4] = [
            &[first.clone(), second.clone(), op(5, Observe, 6, Leader(Some((1, 5))))],
            &[
                first.clone(),
                second.clone(),
                op(5, Resign(1), 6, Resigned(true)),
                op(7, Observe, 8, Leader(Some((2, 9)))),
                op(9, Stand(2), 10, Leads(9)),
            ],
            // Whose resignation was lost may have resigned.
            &[first.clone(), lost(3, Resign(1)), op(4, Stand(2), 5, Leads(6))],
            &[lost(1, Stand(1)), op(2, Stand(2), 3, Waits(0)), op(4, Stand(3), 5, Waits(1))],
        ];
        for history in good {
            assert!(is_linearizable::<Election>(history), "{history:?}");
        }
        let bad: [&[Op]; 6] = [
            &[first.clone(), op(3, Stand(2), 4, Leads(6))],
            &[first.clone(), op(3, Observe, 4, Leader(None))],
            &[first.clone(), op(3, Observe, 4, Leader(Some((1, 6))))],
            &[first.clone(), second.clone(), op(5, Stand(3), 6, Waits(0))],
            // A term that comes back.
            &[first.clone(), op(3, Resign(1), 4, Resigned(true)), op(5, Stand(2), 6, Leads(5))],
            &[first, second, op(5, Resign(2), 6, Resigned(false))],
        ];
        for history in bad {
            assert!(!is_linearizable::<Election>(history), "{history:?}");
        }
    }
}
