// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keys and values.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::Json;
use dvs_api::{
    KvChange, KvChanges, KvCompare, KvDone, KvOperation, KvPair, KvRange, KvResult, KvTransaction,
    KvValue, KV_VALUE_BYTES_MAX,
};
use dvs_state::kv::{
    Change, Command as KvCommand, Compare, Operation, Order, Pair, Response, Selector, Subject,
    Transaction, TransactionAnswer,
};
use dvs_state::leases::LeaseId;
use dvs_state::{Answer, Command};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    deadline, in_space, out_of_space, parse, query, refused, strange, wait_for, Api, SPACE,
};
use crate::api::{bad, Failure};

/// Most keys of an answer.
const KEYS_MAX: usize = 10_000;
/// Most changes of an answer.
const CHANGES_MAX: usize = 1_000;
/// Bytes of values after which an answer has no more pairs or changes.
const ANSWER_BYTES: usize = 4 * 1024 * 1024;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RangeQuery {
    /// The only key.
    key: Option<String>,
    /// How all of them begin.
    prefix: Option<String>,
    /// Most keys to be had.
    limit: Option<usize>,
    /// Take what the answering node has, which may be behind, and needs no majority.
    #[serde(default)]
    stale: bool,
}

pub(super) async fn range(
    State(api): State<Arc<Api>>,
    asked: Result<Query<RangeQuery>, QueryRejection>,
) -> Result<Json<KvRange>, Failure> {
    let RangeQuery { key, prefix, limit, stale } = query(asked)?;
    let selector = match (key, prefix) {
        (Some(key), None) => Selector::Key(in_space("a key", &key)?.into_bytes()),
        (None, prefix) => {
            Selector::Prefix(format!("{SPACE}{}", prefix.unwrap_or_default()).into_bytes())
        }
        (Some(_), Some(_)) => return Err(bad("key and prefix exclude each other; give one")),
    };
    let limit = limit.unwrap_or(KEYS_MAX).min(KEYS_MAX);
    let answer = api.read(stale, |state| {
        let (mut pairs, mut count, mut bytes) = (Vec::new(), 0, 0);
        for (key, pair) in state.kv().range(&selector) {
            count += 1;
            if pairs.len() < limit && bytes < ANSWER_BYTES {
                bytes += pair.value.len();
                pairs.extend(pair_of(key, pair));
            }
        }
        KvRange { revision: state.kv().revision(), count, pairs }
    });
    Ok(Json(answer.await?))
}

/// A pair as people have it; `None` for one that is not theirs.
fn pair_of(key: &[u8], pair: &Pair) -> Option<KvPair> {
    Some(KvPair {
        key: out_of_space(std::str::from_utf8(key).ok()?)?.to_owned(),
        value: KvValue::of(pair.value.clone()),
        created: pair.created,
        modified: pair.modified,
        version: pair.version,
        lease: pair.lease.map(|lease| lease.0),
    })
}

pub(super) async fn transact(
    State(api): State<Arc<Api>>,
    body: Bytes,
) -> Result<Json<KvDone>, Failure> {
    let asked: KvTransaction = parse("transaction", &body)?;
    let mut compare = Vec::new();
    for one in &asked.compare {
        compare.extend(comparisons(one)?);
    }
    let operations =
        |all: &[KvOperation]| all.iter().map(operation).collect::<Result<Vec<_>, Failure>>();
    let transaction = Transaction {
        compare,
        then: operations(&asked.then)?,
        otherwise: operations(&asked.otherwise)?,
    };
    match api.propose(&Command::Kv(KvCommand::Transact(transaction))).await? {
        Answer::Transaction(TransactionAnswer { revision, held, responses }) => {
            let results = responses.iter().map(result).collect();
            Ok(Json(KvDone { revision, held, results }))
        }
        other => Err(strange(&other)),
    }
}

fn key_of(key: &str) -> Result<Vec<u8>, Failure> {
    in_space("a key", key).map(String::into_bytes)
}

fn value_of(key: &str, value: &KvValue) -> Result<Vec<u8>, Failure> {
    let bytes = value.bytes().ok_or_else(|| {
        bad(format!("the value of {key} is not made of pairs of hexadecimal digits"))
    })?;
    match bytes.len() <= KV_VALUE_BYTES_MAX {
        true => Ok(bytes),
        false => Err(Failure(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!(
                "the value of {key} has {} bytes and may have {KV_VALUE_BYTES_MAX}; divide it",
                bytes.len()
            ),
        )),
    }
}

fn comparisons(compare: &KvCompare) -> Result<Vec<Compare>, Failure> {
    let key = key_of(&compare.key)?;
    let mut subjects = Vec::new();
    if let Some(value) = &compare.value {
        subjects.push(Subject::Value(value_of(&compare.key, value)?));
    }
    subjects.extend(compare.modified.map(Subject::Modified));
    if subjects.is_empty() {
        return Err(bad(format!(
            "the comparison of {} compares nothing; give it a value or modified",
            compare.key
        )));
    }
    let one = |subject| Compare { key: key.clone(), order: Order::Equal, subject };
    Ok(subjects.into_iter().map(one).collect())
}

fn operation(operation: &KvOperation) -> Result<Operation, Failure> {
    Ok(match operation {
        KvOperation::Get { key } => Operation::Get { keys: Selector::Key(key_of(key)?), limit: 1 },
        KvOperation::Put { key, value, lease } => Operation::Put {
            key: key_of(key)?,
            value: value_of(key, value)?,
            lease: lease.map(LeaseId),
        },
        KvOperation::Delete { key, prefix: false } => {
            Operation::Delete { keys: Selector::Key(key_of(key)?) }
        }
        KvOperation::Delete { key, prefix: true } => {
            Operation::Delete { keys: Selector::Prefix(format!("{SPACE}{key}").into_bytes()) }
        }
    })
}

fn result(response: &Response) -> KvResult {
    match response {
        Response::Got { pairs, .. } => {
            KvResult::Got(pairs.first().and_then(|(key, pair)| pair_of(key, pair)))
        }
        Response::Put => KvResult::Put,
        Response::Deleted(count) => KvResult::Deleted(*count),
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangesQuery {
    /// How their keys begin.
    #[serde(default)]
    prefix: String,
    /// The first revision. Without it only the present one is told.
    from: Option<u64>,
    /// Milliseconds to wait for a change.
    #[serde(default)]
    wait_ms: u64,
}

/// Without `from`, it begins after what has been agreed on by now.
pub(super) async fn changes(
    State(api): State<Arc<Api>>,
    asked: Result<Query<ChangesQuery>, QueryRejection>,
) -> Result<Json<KvChanges>, Failure> {
    let ChangesQuery { prefix, from, wait_ms } = query(asked)?;
    let deadline = deadline(wait_ms)?;
    let Some(from) = from else {
        let revision = api.read(false, |state| state.kv().revision()).await?;
        return Ok(Json(KvChanges { revision, changes: Vec::new() }));
    };
    let selector = Selector::Prefix(format!("{SPACE}{prefix}").into_bytes());
    let consensus = api.consensus()?;
    let found = wait_for(&consensus, deadline, |state| {
        let events = match state.kv().events(from) {
            Ok(events) => events,
            Err(refusal) => return Some(Err(refused(&refusal))),
        };
        // All changes of a revision are told at once, or none.
        let (mut changes, mut bytes, mut revision) = (Vec::new(), 0, from.saturating_sub(1));
        for event in events {
            let full = changes.len() >= CHANGES_MAX || bytes >= ANSWER_BYTES;
            if full && event.revision != revision {
                return Some(Ok(KvChanges { revision, changes }));
            }
            revision = event.revision;
            let key = std::str::from_utf8(&event.key).ok().and_then(out_of_space);
            let Some(key) = key.filter(|_| selector.contains(&event.key)) else { continue };
            let pair = match &event.change {
                Change::Put(pair) => {
                    bytes += pair.value.len();
                    pair_of(&event.key, pair)
                }
                Change::Deleted => None,
            };
            changes.push(KvChange { revision, key: key.to_owned(), pair });
        }
        (!changes.is_empty()).then_some(Ok(KvChanges { revision, changes }))
    });
    match found.await {
        Some(found) => found.map(Json),
        None => Ok(Json(KvChanges { revision: from.saturating_sub(1), changes: Vec::new() })),
    }
}
