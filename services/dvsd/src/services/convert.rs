// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the state has in the words of `dvk-services`, and the other way round.

use dvk_services::{
    Answer, Change, Compare, Delivered, Delivery, Leader, Lease, Line, Operation, Pair, Passage,
    Range, Reason, Response, Subject, Transacted, Transaction, ANSWER_BYTES, GETS_MAX,
    VALUE_BYTES_MAX,
};
use dvs_consensus::ProposeError;
use dvs_state::barriers::Passage as StatePassage;
use dvs_state::groups::{Content, Delivery as StateDelivery};
use dvs_state::kv::{self, Order, Selector};
use dvs_state::leases::LeaseId;
use dvs_state::line::Standing;
use dvs_state::{Refusal, State};

use super::space::Space;
use crate::agreement::asking::Trouble;

/// What is left of an answer for what it says, beside what tells where things begin.
const ROOM: usize = ANSWER_BYTES - 4 * 1024;
/// What an element of a list needs besides its bytes, at most.
const ELEMENT: usize = 64;

impl Space {
    /// Why something was not done.
    pub(super) fn refused(&self, refusal: &Refusal) -> Answer {
        let reason = match refusal {
            Refusal::Missing { .. } => Reason::Missing,
            Refusal::Exists { .. } | Refusal::Busy { .. } => Reason::Busy,
            Refusal::Malformed | Refusal::Invalid(_) => Reason::Invalid,
            Refusal::Stale { .. } => Reason::Stale,
            Refusal::Limit { .. } => Reason::Limit,
            Refusal::Compacted { .. } => Reason::Compacted,
            // The leader sees to both by itself.
            Refusal::NotFormed | Refusal::TooNew { .. } => Reason::Leaderless,
        };
        Answer::Refused(dvk_services::Refusal { reason, text: self.told(&refusal.to_string()) })
    }

    /// Why there is no answer.
    pub(super) fn troubled(&self, trouble: Trouble) -> Answer {
        let (reason, text) = match trouble {
            Trouble::Refused(refusal) => return self.refused(&refusal),
            Trouble::Absent(why) => (Reason::Leaderless, why),
            Trouble::Failed(error) => {
                let reason = match error {
                    ProposeError::NoLeader { .. } | ProposeError::Stopped(_) => Reason::Leaderless,
                    ProposeError::Unknown => Reason::Unknown,
                    ProposeError::TooLarge { .. } => Reason::Limit,
                    ProposeError::Refused(_) => Reason::Invalid,
                };
                (reason, error.to_string())
            }
        };
        Answer::Refused(dvk_services::Refusal { reason, text })
    }

    /// A key and what it has.
    fn pair(&self, key: &[u8], pair: &kv::Pair) -> Option<Pair> {
        Some(Pair {
            key: self.own_key(key)?.to_vec(),
            value: pair.value.clone(),
            created: pair.created,
            modified: pair.modified,
            version: pair.version,
            lease: pair.lease.map(|lease| Lease(lease.0)),
        })
    }

    /// As many of some keys as an answer holds.
    pub(super) fn range(&self, state: &State, keys: &Selector, limit: usize) -> Range {
        let mut range = Range { revision: state.kv().revision(), ..Range::default() };
        let mut bytes = 0;
        for (key, pair) in state.kv().range(keys) {
            range.count += 1;
            bytes += key.len() + pair.value.len() + ELEMENT;
            if range.pairs.len() < limit && bytes <= ROOM {
                range.pairs.extend(self.pair(key, pair));
            }
        }
        range
    }

    /// What a transaction does to the state, once it is known whose the leases in it are.
    pub(super) fn transaction(&self, asked: Transaction) -> Result<kv::Transaction, Refusal> {
        if asked.gets() > GETS_MAX {
            return Err(Refusal::limit("keys that a transaction reads", GETS_MAX));
        }
        let compare = asked.compare.into_iter().map(|Compare { key, subject }| kv::Compare {
            key: self.key(&key),
            order: Order::Equal,
            subject: match subject {
                Subject::Value(value) => kv::Subject::Value(value),
                Subject::Modified(revision) => kv::Subject::Modified(revision),
            },
        });
        let all = |all: Vec<Operation>| -> Result<Vec<_>, Refusal> {
            all.into_iter().map(|one| self.operation(one)).collect()
        };
        Ok(kv::Transaction {
            compare: compare.collect(),
            then: all(asked.then)?,
            otherwise: all(asked.otherwise)?,
        })
    }

    fn operation(&self, operation: Operation) -> Result<kv::Operation, Refusal> {
        Ok(match operation {
            Operation::Get { key } => {
                kv::Operation::Get { keys: Selector::Key(self.key(&key)), limit: 1 }
            }
            Operation::Put { key, .. } if key.is_empty() => {
                return Err(Refusal::Invalid("a key cannot be empty; give it a byte".into()));
            }
            Operation::Put { value, .. } if value.len() > VALUE_BYTES_MAX => {
                return Err(Refusal::limit("bytes of a value", VALUE_BYTES_MAX));
            }
            Operation::Put { key, value, lease } => kv::Operation::Put {
                key: self.key(&key),
                value,
                lease: lease.map(|lease| LeaseId(lease.0)),
            },
            Operation::Delete { key, prefix: false } => {
                kv::Operation::Delete { keys: Selector::Key(self.key(&key)) }
            }
            Operation::Delete { key, prefix: true } => {
                kv::Operation::Delete { keys: Selector::Prefix(self.key(&key)) }
            }
        })
    }

    pub(super) fn transacted(&self, answer: &kv::TransactionAnswer) -> Answer {
        let response = |response: &kv::Response| match response {
            kv::Response::Got { pairs, .. } => {
                Response::Got(pairs.first().and_then(|(key, pair)| self.pair(key, pair)))
            }
            kv::Response::Put => Response::Put,
            kv::Response::Deleted(count) => Response::Deleted(*count),
        };
        Answer::Transacted(Transacted {
            revision: answer.revision,
            held: answer.held,
            responses: answer.responses.iter().map(response).collect(),
        })
    }

    /// Changes of keys that begin like this, from a revision on; `None` while there are none. All of a revision are told at once, or none.
    pub(super) fn changes(
        &self,
        state: &State,
        prefix: &[u8],
        from: u64,
    ) -> Option<Result<Answer, Refusal>> {
        let events = match state.kv().events(from) {
            Ok(events) => events,
            Err(refusal) => return Some(Err(refusal)),
        };
        let (mut changes, mut bytes, mut revision) = (Vec::new(), 0, from.saturating_sub(1));
        for event in events {
            if bytes > ROOM / 2 && event.revision != revision {
                break;
            }
            revision = event.revision;
            let Some(key) = self.own_key(&event.key).filter(|key| key.starts_with(prefix)) else {
                continue;
            };
            let pair = match &event.change {
                kv::Change::Put(pair) => self.pair(&event.key, pair),
                kv::Change::Deleted => None,
            };
            bytes += 2 * key.len() + pair.as_ref().map_or(0, |pair| pair.value.len()) + ELEMENT;
            changes.push(Change { revision, key: key.to_vec(), pair });
        }
        (!changes.is_empty()).then_some(Ok(Answer::Changes(revision, changes)))
    }
}

pub(super) fn line(standing: Standing) -> Answer {
    Answer::Line(match standing {
        Standing::Holding { fence } => Line::Holding { fence },
        Standing::Waiting { ahead } => Line::Waiting { ahead },
    })
}

pub(super) fn passage(passage: StatePassage) -> Answer {
    Answer::Passage(match passage {
        StatePassage::Waiting { missing } => Passage::Waiting { missing },
        StatePassage::Open { round } => Passage::Open { round },
    })
}

/// Who leads in an election of the state's.
pub(super) fn leader(state: &State, name: &str) -> Option<Leader> {
    let leader = state.elections().leader(name)?;
    Some(Leader { lease: Lease(leader.lease.0), term: leader.term, value: leader.value.to_vec() })
}

/// As many deliveries as an answer holds; one always fits.
pub(super) fn deliveries<'a>(all: impl Iterator<Item = &'a StateDelivery>) -> Vec<Delivery> {
    let (mut some, mut bytes) = (Vec::new(), 0);
    for StateDelivery { position, content } in all {
        let content = match content {
            Content::View { number, members } => {
                bytes += members.iter().map(|(_, name)| name.len() + ELEMENT).sum::<usize>();
                let members = members.iter().map(|(lease, name)| (Lease(lease.0), name.clone()));
                Delivered::View { number: *number, members: members.collect() }
            }
            Content::Message { sender, number, payload } => {
                bytes += payload.len() + ELEMENT;
                let (sender, payload) = (Lease(sender.0), payload.clone());
                Delivered::Message { sender, number: *number, payload }
            }
        };
        if bytes > ROOM && !some.is_empty() {
            break;
        }
        some.push(Delivery { position: *position, content });
    }
    some
}
