// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod election;
pub mod group;

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

pub use election::{Candidates, Election, ElectionInput, ElectionOutput};

/// An operation as its client saw it. Times are places in one order of all events.
#[derive(Clone, Debug)]
pub struct Operation<I, O> {
    /// When it was asked for.
    pub invoked: u64,
    /// When the answer came, and the answer. Without, it may take effect at any time later, or never.
    pub returned: Option<(u64, O)>,
    /// What was asked for.
    pub input: I,
}

/// What the thing would do.
pub trait Model {
    /// What it is in.
    type State: Clone + Eq + Hash;
    /// What it can be asked.
    type Input: Debug;
    /// What it answers.
    type Output: Debug;
    /// What it begins with.
    fn begin() -> Self::State;
    /// What it is in after an operation; `None` if it could not have given that answer. Without an answer any is right.
    fn step(
        state: &Self::State,
        input: &Self::Input,
        output: Option<&Self::Output>,
    ) -> Option<Self::State>;
}

/// Whether there is an order of the operations that agrees with their times and with the model.
pub fn is_linearizable<M: Model>(history: &[Operation<M::Input, M::Output>]) -> bool {
    let mut taken = vec![false; history.len()];
    let mut seen = HashSet::new();
    // Places where the search can go on: what was taken there, and the state before.
    let mut path: Vec<(usize, M::State)> = Vec::new();
    let mut state = M::begin();
    let mut next = 0;
    loop {
        let left = || history.iter().zip(&taken).filter(|(_, taken)| !**taken).map(|(op, _)| op);
        let first_return = left().filter_map(|op| op.returned.as_ref().map(|(at, _)| *at)).min();
        let Some(first_return) = first_return else { return true };
        let found = (next..history.len()).find_map(|at| {
            let op = &history[at];
            if taken[at] || op.invoked > first_return {
                return None;
            }
            let after = M::step(&state, &op.input, op.returned.as_ref().map(|(_, out)| out))?;
            taken[at] = true;
            let new = seen.insert((taken.clone(), after.clone()));
            if !new {
                taken[at] = false;
            }
            new.then_some((at, after))
        });
        if let Some((at, after)) = found {
            path.push((at, std::mem::replace(&mut state, after)));
            next = 0;
        } else {
            let Some((at, before)) = path.pop() else { return false };
            taken[at] = false;
            state = before;
            next = at + 1;
        }
    }
}

/// One key of a store.
#[derive(Debug)]
pub struct Register;

/// What a key can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyInput {
    /// Its value.
    Get,
    /// To have a value.
    Put(u64),
    /// To have the second value if it has the first.
    Swap(u64, u64),
    /// To be no more.
    Delete,
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyOutput {
    /// It has that value.
    Value(Option<u64>),
    /// It was done.
    Done,
    /// Whether it was done.
    Swapped(bool),
}

impl Register {
    /// A history without the unanswered writes of values that nobody has seen. Each value is to be written once at most. Such a write may
    /// never have been made, so that nothing changes about whether there is an order, but each of them would double what is to be tried.
    pub fn without_unseen(
        history: Vec<Operation<KeyInput, KeyOutput>>,
    ) -> Vec<Operation<KeyInput, KeyOutput>> {
        let seen: HashSet<u64> = history
            .iter()
            .filter_map(|operation| match (&operation.input, &operation.returned) {
                (KeyInput::Swap(old, _), _) => Some(*old),
                (_, Some((_, KeyOutput::Value(value)))) => *value,
                _ => None,
            })
            .collect();
        let is_needed = |operation: &Operation<KeyInput, KeyOutput>| match operation.input {
            KeyInput::Put(value) => operation.returned.is_some() || seen.contains(&value),
            _ => true,
        };
        history.into_iter().filter(is_needed).collect()
    }
}

impl Model for Register {
    type State = Option<u64>;
    type Input = KeyInput;
    type Output = KeyOutput;

    fn begin() -> Self::State {
        None
    }

    fn step(
        state: &Option<u64>,
        input: &KeyInput,
        output: Option<&KeyOutput>,
    ) -> Option<Option<u64>> {
        let (after, right) = match input {
            KeyInput::Get => (*state, KeyOutput::Value(*state)),
            KeyInput::Put(value) => (Some(*value), KeyOutput::Done),
            KeyInput::Delete => (None, KeyOutput::Done),
            KeyInput::Swap(old, new) => {
                let fits = *state == Some(*old);
                (if fits { Some(*new) } else { *state }, KeyOutput::Swapped(fits))
            }
        };
        output.is_none_or(|output| *output == right).then_some(after)
    }
}

/// One lock for which nobody waits.
#[derive(Debug)]
pub struct Lock;

/// What a lock can be asked, by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockInput {
    /// To be held.
    Acquire(u64),
    /// To be free.
    Release(u64),
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockOutput {
    /// It is held, with this token.
    Held(u64),
    /// Somebody else holds it.
    Busy,
    /// Whether it was held.
    Released(bool),
}

impl Model for Lock {
    /// Who holds it and with which token, if that is known; and the last token that is known.
    type State = (Option<(u64, Option<u64>)>, u64);
    type Input = LockInput;
    type Output = LockOutput;

    fn begin() -> Self::State {
        (None, 0)
    }

    fn step(
        (holder, last): &Self::State,
        input: &LockInput,
        output: Option<&LockOutput>,
    ) -> Option<Self::State> {
        match (input, output) {
            (LockInput::Acquire(who), Some(LockOutput::Held(token))) => match holder {
                None => (*token > *last).then_some((Some((*who, Some(*token))), *token)),
                Some((held_by, Some(known))) => {
                    (held_by == who && known == token).then_some((*holder, *last))
                }
                Some((held_by, None)) => (held_by == who && *token > *last)
                    .then_some((Some((*who, Some(*token))), *token)),
            },
            (LockInput::Acquire(who), Some(LockOutput::Busy)) => {
                holder.is_some_and(|(held_by, _)| held_by != *who).then_some((*holder, *last))
            }
            (LockInput::Acquire(who), None) => Some((holder.or(Some((*who, None))), *last)),
            (LockInput::Release(who), output) => {
                let held = holder.is_some_and(|(held_by, _)| held_by == *who);
                let right = output.is_none_or(|output| *output == LockOutput::Released(held));
                right.then_some((if held { None } else { *holder }, *last))
            }
            (LockInput::Acquire(_), Some(LockOutput::Released(_))) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes that nobody has heard of again and nobody has seen: with all of them, there are too many orders to be tried.
    #[test]
    fn unanswered_writes_that_nobody_has_seen_are_not_tried() {
        let put = |value, invoked, returned: Option<u64>| Operation {
            invoked,
            returned: returned.map(|at| (at, KeyOutput::Done)),
            input: KeyInput::Put(value),
        };
        let get = |value, invoked, at| Operation {
            invoked,
            returned: Some((at, KeyOutput::Value(Some(value)))),
            input: KeyInput::Get,
        };
        let history = |last| {
            let mut history: Vec<_> = (0..60).map(|value| put(value, value, None)).collect();
            history.extend([put(100, 70, Some(71)), get(7, 72, 73), get(100, 74, 75)]);
            history.push(get(last, 76, 77));
            Register::without_unseen(history)
        };
        // One of them was made late, and was seen; but nothing made the value before it come back.
        assert_eq!(history(100).len(), 5);
        assert!(!is_linearizable::<Register>(&history(100)));
        // An answered write and a swap need what they are about.
        let swap = Operation { invoked: 3, returned: None, input: KeyInput::Swap(1, 2) };
        let all = vec![put(1, 1, None), put(2, 2, Some(4)), put(3, 2, None), swap];
        assert_eq!(Register::without_unseen(all).len(), 3);
    }

    /// Whether there is an order does not depend on it: all histories of three writes and two reads are tried, with each write answered or not.
    #[test]
    fn leaving_unseen_writes_out_changes_no_verdict() {
        let (mut right, mut wrong) = (0, 0);
        for answered in 0..8u32 {
            for read in [1u64, 2, 3].into_iter().flat_map(|a| [1u64, 2, 3].map(|b| [a, b])) {
                for late in 0..3u64 {
                    let mut history: Vec<_> = (1..=3u64)
                        .map(|value| Operation {
                            invoked: value * 10,
                            returned: (answered >> (value - 1) & 1 == 1)
                                .then_some((value * 10 + 5 + 10 * late, KeyOutput::Done)),
                            input: KeyInput::Put(value),
                        })
                        .collect();
                    history.extend(read.iter().zip([22u64, 52]).map(|(value, invoked)| {
                        Operation {
                            invoked,
                            returned: Some((invoked + 9, KeyOutput::Value(Some(*value)))),
                            input: KeyInput::Get,
                        }
                    }));
                    let verdict = is_linearizable::<Register>(&history);
                    assert_eq!(
                        is_linearizable::<Register>(&Register::without_unseen(history)),
                        verdict
                    );
                    *if verdict { &mut right } else { &mut wrong } += 1;
                }
            }
        }
        assert!(right > 20 && wrong > 20, "{right} right, {wrong} wrong");
    }

    fn op<I, O>(invoked: u64, input: I, returned: u64, output: O) -> Operation<I, O> {
        Operation { invoked, returned: Some((returned, output)), input }
    }

    fn lost<I, O>(invoked: u64, input: I) -> Operation<I, O> {
        Operation { invoked, returned: None, input }
    }

    fn got(value: u64) -> KeyOutput {
        KeyOutput::Value(Some(value))
    }

    use KeyInput::{Get, Put, Swap};
    use KeyOutput::{Done, Swapped};

    #[test]
    fn histories_that_have_an_order_are_accepted() {
        let good: [&[Operation<KeyInput, KeyOutput>]; 5] = [
            &[],
            &[op(1, Put(1), 2, Done), op(3, Get, 4, got(1))],
            // Two that overlap, and a read that sees them the other way round than they were asked for.
            &[op(1, Put(1), 6, Done), op(2, Put(2), 5, Done), op(7, Get, 8, got(1))],
            // One whose answer was lost takes effect late.
            &[lost(1, Put(1)), op(2, Get, 3, KeyOutput::Value(None)), op(4, Get, 5, got(1))],
            &[lost(1, Put(1)), op(2, Swap(1, 2), 9, Swapped(true)), op(3, Get, 4, got(1))],
        ];
        for history in good {
            assert!(is_linearizable::<Register>(history), "{history:?}");
        }
    }

    #[test]
    fn histories_without_an_order_are_rejected() {
        let bad: [&[Operation<KeyInput, KeyOutput>]; 6] = [
            // A write that was acknowledged is lost.
            &[op(1, Put(1), 2, Done), op(3, Get, 4, KeyOutput::Value(None))],
            // A read of what nobody wrote.
            &[op(1, Get, 2, got(1))],
            // A read of the past.
            &[op(1, Put(1), 2, Done), op(3, Put(2), 4, Done), op(5, Get, 6, got(1))],
            // Reads that go back, while the write goes on.
            &[op(1, Put(1), 9, Done), op(2, Get, 3, got(1)), op(4, Get, 5, KeyOutput::Value(None))],
            // Of two swaps of the same value one must fail.
            &[
                op(1, Put(1), 2, Done),
                op(3, Swap(1, 2), 8, Swapped(true)),
                op(4, Swap(1, 3), 7, Swapped(true)),
            ],
            // What was lost takes effect once only.
            &[
                lost(1, Put(1)),
                op(2, Get, 3, got(1)),
                op(4, Put(2), 5, Done),
                op(6, Get, 7, got(2)),
                op(8, Get, 9, got(1)),
            ],
        ];
        for history in bad {
            assert!(!is_linearizable::<Register>(history), "{history:?}");
        }
    }

    #[test]
    fn two_holders_or_a_token_that_comes_back_are_rejected() {
        use LockInput::{Acquire, Release};
        use LockOutput::{Busy, Held, Released};
        let first = op(1, Acquire(1), 2, Held(5));
        let good: [&[Operation<LockInput, LockOutput>]; 3] = [
            &[first.clone(), op(3, Acquire(2), 4, Busy), op(5, Acquire(1), 6, Held(5))],
            &[first.clone(), lost(3, Release(1)), op(4, Acquire(2), 5, Held(6))],
            &[
                lost(1, Acquire(1)),
                op(2, Acquire(2), 3, Busy),
                op(4, Release(1), 5, Released(true)),
            ],
        ];
        for history in good {
            assert!(is_linearizable::<Lock>(history), "{history:?}");
        }
        let released = op(3, Release(1), 4, Released(true));
        let bad: [&[Operation<LockInput, LockOutput>]; 4] = [
            &[first.clone(), op(3, Acquire(2), 4, Held(6))],
            &[first.clone(), released.clone(), op(5, Acquire(2), 6, Held(5))],
            &[first.clone(), released, op(5, Acquire(2), 6, Busy)],
            &[first, op(3, Release(1), 4, Released(false))],
        ];
        for history in bad {
            assert!(!is_linearizable::<Lock>(history), "{history:?}");
        }
    }
}
