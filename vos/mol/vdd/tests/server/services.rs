// SPDX-License-Identifier: MIT OR Apache-2.0
//! The services of a container, as far as disk servers use them: keys and leases, in the memory of a test.

use dvk_services::{
    read_question, write_answer, Answer, Error, Lease, Operation, Pair, Question, Range, Reason,
    Refusal, Subject, Transacted, Way,
};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

#[derive(Default)]
struct State {
    revision: u64,
    keys: BTreeMap<Vec<u8>, Pair>,
    /// When each ends, in milliseconds.
    leases: BTreeMap<u64, (u64, u64)>,
    next_lease: u64,
    now_ms: u64,
    /// How many of the next transactions are done without anybody's being told.
    unknown: u32,
    /// How many of the next transactions with conditions find that somebody else was faster.
    late: u32,
}

/// Everybody who has a clone asks the same services.
#[derive(Clone, Default)]
pub(crate) struct Services(Rc<RefCell<State>>);

impl Services {
    pub(crate) fn advance(&self, ms: u64) {
        let state = &mut *self.0.borrow_mut();
        state.now_ms += ms;
        let now = state.now_ms;
        state.leases.retain(|_, (end, _)| *end > now);
        let leases = &state.leases;
        let ended = |pair: &Pair| pair.lease.is_some_and(|lease| !leases.contains_key(&lease.0));
        let before = state.keys.len();
        state.keys.retain(|_, pair| !ended(pair));
        state.revision += (before - state.keys.len()) as u64;
    }

    pub(crate) fn keep_quiet_of(&self, transactions: u32) {
        self.0.borrow_mut().unknown = transactions;
    }

    pub(crate) fn be_late_for(&self, transactions: u32) {
        self.0.borrow_mut().late = transactions;
    }

    pub(crate) fn revision(&self) -> u64 {
        self.0.borrow().revision
    }
}

fn refused(reason: Reason) -> Answer {
    Answer::Refused(Refusal { reason, text: format!("{reason:?}") })
}

impl State {
    fn answer(&mut self, question: Question) -> Answer {
        match question {
            Question::Read { key, exact: false, .. } => {
                let pairs = self.keys.iter().filter(|(name, _)| name.starts_with(&key));
                let pairs: Vec<_> = pairs.map(|(_, pair)| pair.clone()).collect();
                let count = pairs.len() as u64;
                Answer::Range(Range { revision: self.revision, count, pairs })
            }
            Question::Grant { ttl_ms, .. } => {
                self.next_lease += 1;
                self.leases.insert(self.next_lease, (self.now_ms + ttl_ms, ttl_ms));
                Answer::Lease(Lease(self.next_lease))
            }
            Question::KeepAlive { lease } => match self.leases.get_mut(&lease.0) {
                Some((end, ttl_ms)) => {
                    *end = self.now_ms + *ttl_ms;
                    Answer::Lease(lease)
                }
                None => refused(Reason::Missing),
            },
            Question::Transact(transaction) => {
                let modified = |key| self.keys.get(key).map_or(0, |pair: &Pair| pair.modified);
                let held = transaction.compare.iter().all(|compare| match &compare.subject {
                    Subject::Modified(revision) => modified(&compare.key) == *revision,
                    Subject::Value(_) => panic!("nobody compares values"),
                });
                let is_late = self.late > 0 && !transaction.compare.is_empty();
                self.late -= u32::from(is_late);
                let held = held && !is_late;
                let operations = if held { transaction.then } else { transaction.otherwise };
                let lost = |it: &Operation| matches!(it, Operation::Put { lease: Some(lease), .. } if !self.leases.contains_key(&lease.0));
                if operations.iter().any(lost) {
                    return refused(Reason::Missing);
                }
                self.revision += u64::from(!operations.is_empty());
                operations.into_iter().for_each(|operation| self.operate(operation));
                if self.unknown > 0 {
                    self.unknown -= 1;
                    return refused(Reason::Unknown);
                }
                let responses = Vec::new();
                Answer::Transacted(Transacted { revision: self.revision, held, responses })
            }
            other => panic!("nobody asks for {other:?}"),
        }
    }

    fn operate(&mut self, operation: Operation) {
        let revision = self.revision;
        match operation {
            Operation::Put { key, value, lease } => {
                let old = self.keys.get(&key);
                let created = old.map_or(revision, |pair| pair.created);
                let version = old.map_or(1, |pair| pair.version + 1);
                let pair =
                    Pair { key: key.clone(), value, created, modified: revision, version, lease };
                self.keys.insert(key, pair);
            }
            Operation::Delete { key, prefix: false } => drop(self.keys.remove(&key)),
            other => panic!("nobody does {other:?}"),
        }
    }
}

impl Way for Services {
    fn exchange(&self, memory: &mut [u8], question: u32) -> Result<u32, Error> {
        let question = read_question(&memory[..question as usize])?;
        let answer = write_answer(&self.0.borrow_mut().answer(question))?;
        memory[..answer.len()].copy_from_slice(&answer);
        Ok(answer.len() as u32)
    }
}
