// SPDX-License-Identifier: MIT OR Apache-2.0
//! Barriers.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::Json;
use dvs_api::{Barrier, BarrierDeparture, BarrierLeft, BarrierPassage, BarrierRequest};
use dvs_state::barriers::{Command as BarrierCommand, Passage};
use dvs_state::leases::LeaseId;
use dvs_state::{Answer, Command, Refusal, Thing};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{deadline, in_space, out_of_space, parse, query, refused, strange, Api};
use crate::api::Failure;

pub(super) async fn list(State(api): State<Arc<Api>>) -> Result<Json<Vec<Barrier>>, Failure> {
    let barriers = api.read(false, |state| {
        let waited_at = state.barriers().iter().filter(|(_, barrier)| barrier.parties() > 0);
        let all = waited_at.filter_map(|(name, barrier)| {
            Some(Barrier {
                name: out_of_space(name)?.to_owned(),
                parties: barrier.parties(),
                waiting: barrier.waiting().into_iter().map(|lease| lease.0).collect(),
            })
        });
        all.collect()
    });
    Ok(Json(barriers.await?))
}

fn told(passage: Passage) -> BarrierPassage {
    match passage {
        Passage::Open { round } => BarrierPassage { round: Some(round), missing: None },
        Passage::Waiting { missing } => BarrierPassage { round: None, missing: Some(missing) },
    }
}

pub(super) async fn arrive(
    State(api): State<Arc<Api>>,
    body: Bytes,
) -> Result<Json<BarrierPassage>, Failure> {
    let BarrierRequest { name, lease, parties, attempt } = parse("arrival at a barrier", &body)?;
    let name = in_space("a barrier", &name)?;
    let command = BarrierCommand::Arrive { name, lease: LeaseId(lease), parties, attempt };
    match api.propose(&Command::Barriers(command)).await? {
        Answer::Passage(passage) => Ok(Json(told(passage))),
        other => Err(strange(&other)),
    }
}

pub(super) async fn leave(
    State(api): State<Arc<Api>>,
    body: Bytes,
) -> Result<Json<BarrierLeft>, Failure> {
    let BarrierDeparture { name, lease } = parse("departure from a barrier", &body)?;
    let name = in_space("a barrier", &name)?;
    let command = BarrierCommand::Leave { name, lease: LeaseId(lease) };
    match api.propose(&Command::Barriers(command)).await? {
        Answer::Changed(left) => Ok(Json(BarrierLeft { left })),
        other => Err(strange(&other)),
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PassageQuery {
    /// The barrier.
    name: String,
    /// The lease under which somebody arrived.
    lease: u64,
    /// At which attempt.
    #[serde(default)]
    attempt: u64,
    /// Milliseconds to wait until it opens.
    #[serde(default)]
    wait_ms: u64,
}

pub(super) async fn passage(
    State(api): State<Arc<Api>>,
    asked: Result<Query<PassageQuery>, QueryRejection>,
) -> Result<Json<BarrierPassage>, Failure> {
    let PassageQuery { name, lease, attempt, wait_ms } = query(asked)?;
    let (name, lease) = (in_space("a barrier", &name)?, LeaseId(lease));
    let deadline = deadline(wait_ms)?;
    let look = |state: &dvs_state::State| state.barriers().passage(&name, lease, attempt);
    let found = api.outcome(deadline, look, |it| matches!(it, Passage::Waiting { .. })).await?;
    let missing = || refused(&Refusal::missing(Thing::Lease, lease));
    found.map(|passage| Json(told(passage))).ok_or_else(missing)
}
