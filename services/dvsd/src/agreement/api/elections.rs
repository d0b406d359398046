// SPDX-License-Identifier: MIT OR Apache-2.0
//! Elections.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::Json;
use dvs_api::{
    Candidate, Election, ElectionLeader, ElectionRequest, ElectionResignation, ElectionResigned,
    ElectionStanding, Leader,
};
use dvs_state::elections::Command as ElectionCommand;
use dvs_state::leases::LeaseId;
use dvs_state::line::Standing;
use dvs_state::{Answer, Command, Refusal, Thing};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{deadline, in_space, out_of_space, parse, query, refused, strange, wait_for, Api};
use crate::api::Failure;

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

/// Who leads in an election of that name, which is one of the state's.
fn leader(state: &dvs_state::State, name: &str) -> Option<Leader> {
    let leader = state.elections().leader(name)?;
    Some(Leader { lease: leader.lease.0, term: leader.term, value: text(leader.value) })
}

pub(super) async fn list(State(api): State<Arc<Api>>) -> Result<Json<Vec<Election>>, Failure> {
    let elections = api.read(false, |state| {
        let all = state.elections().iter().filter_map(|(name, line)| {
            let candidates = line.waiting();
            let candidate = |one: &dvs_state::line::Waiter| Candidate {
                lease: one.lease.0,
                value: text(&one.label),
            };
            Some(Election {
                name: out_of_space(name)?.to_owned(),
                leader: leader(state, name),
                candidates: candidates.map(candidate).collect(),
            })
        });
        all.collect()
    });
    Ok(Json(elections.await?))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LeaderQuery {
    /// The election.
    name: String,
    /// A term that is known: wait until there is another leader, or none.
    not_term: Option<u64>,
    /// Milliseconds to wait for that; without a known term, for any leader.
    #[serde(default)]
    wait_ms: u64,
}

pub(super) async fn leading(
    State(api): State<Arc<Api>>,
    asked: Result<Query<LeaderQuery>, QueryRejection>,
) -> Result<Json<ElectionLeader>, Failure> {
    let LeaderQuery { name, not_term, wait_ms } = query(asked)?;
    let (name, deadline) = (in_space("an election", &name)?, deadline(wait_ms)?);
    let is_news = |leader: &Option<Leader>| leader.as_ref().map(|leader| leader.term) != not_term;
    let first = api.read(false, |state| leader(state, &name)).await?;
    if is_news(&first) {
        return Ok(Json(ElectionLeader { leader: first }));
    }
    let consensus = api.consensus()?;
    let news = wait_for(&consensus, deadline, |state| Some(leader(state, &name)).filter(is_news));
    Ok(Json(ElectionLeader { leader: news.await.unwrap_or(first) }))
}

fn standing_of(standing: Standing) -> ElectionStanding {
    match standing {
        Standing::Holding { fence } => ElectionStanding { term: Some(fence), ahead: None },
        // The leader is before those in line.
        Standing::Waiting { ahead } => {
            ElectionStanding { term: None, ahead: Some(ahead.saturating_add(1)) }
        }
    }
}

pub(super) async fn stand(
    State(api): State<Arc<Api>>,
    body: Bytes,
) -> Result<Json<ElectionStanding>, Failure> {
    let ElectionRequest { name, lease, value } = parse("candidate", &body)?;
    let command = ElectionCommand::Stand {
        name: in_space("an election", &name)?,
        lease: LeaseId(lease),
        value: value.into_bytes(),
    };
    match api.propose(&Command::Elections(command)).await? {
        Answer::Standing(standing) => Ok(Json(standing_of(standing))),
        other => Err(strange(&other)),
    }
}

pub(super) async fn resign(
    State(api): State<Arc<Api>>,
    body: Bytes,
) -> Result<Json<ElectionResigned>, Failure> {
    let ElectionResignation { name, lease } = parse("resignation", &body)?;
    let name = in_space("an election", &name)?;
    let command = ElectionCommand::Resign { name, lease: LeaseId(lease) };
    match api.propose(&Command::Elections(command)).await? {
        Answer::Changed(resigned) => Ok(Json(ElectionResigned { resigned })),
        other => Err(strange(&other)),
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StandingQuery {
    /// The election.
    name: String,
    /// The lease of the candidate.
    lease: u64,
    /// Milliseconds to wait until it leads.
    #[serde(default)]
    wait_ms: u64,
}

/// As with locks, what this node has may be behind, and a candidate that it says leads has led, and does unless its lease has ended.
pub(super) async fn standing(
    State(api): State<Arc<Api>>,
    asked: Result<Query<StandingQuery>, QueryRejection>,
) -> Result<Json<ElectionStanding>, Failure> {
    let StandingQuery { name, lease, wait_ms } = query(asked)?;
    let (name, lease) = (in_space("an election", &name)?, LeaseId(lease));
    let deadline = deadline(wait_ms)?;
    let look = |state: &dvs_state::State| state.elections().standing(&name, lease);
    let found = api.outcome(deadline, look, |it| matches!(it, Standing::Waiting { .. })).await?;
    let missing = || refused(&Refusal::missing(Thing::Lease, lease));
    found.map(|standing| Json(standing_of(standing))).ok_or_else(missing)
}
