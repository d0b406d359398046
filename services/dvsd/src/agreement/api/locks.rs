// SPDX-License-Identifier: MIT OR Apache-2.0
//! Locks.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::Json;
use dvs_api::{Lock, LockHolder, LockRelease, LockReleased, LockRequest, LockStanding};
use dvs_state::leases::LeaseId;
use dvs_state::line::{Line, Standing};
use dvs_state::locks::{Command as LockCommand, Wait};
use dvs_state::{Answer, Command, Refusal, Thing};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{deadline, in_space, out_of_space, parse, query, refused, strange, Api};
use crate::api::Failure;

fn told(name: &str, line: &Line) -> Option<Lock> {
    let label = |label: &[u8]| String::from_utf8_lossy(label).into_owned();
    let holders = line.holders().map(|(lease, holder)| LockHolder {
        lease: lease.0,
        fence: Some(holder.fence),
        label: label(&holder.label),
    });
    let waiting = line.waiting().map(|waiter| LockHolder {
        lease: waiter.lease.0,
        fence: None,
        label: label(&waiter.label),
    });
    Some(Lock {
        name: out_of_space(name)?.to_owned(),
        places: line.places(),
        holders: holders.collect(),
        waiting: waiting.collect(),
    })
}

pub(super) async fn list(State(api): State<Arc<Api>>) -> Result<Json<Vec<Lock>>, Failure> {
    let locks = api.read(false, |state| {
        state.locks().iter().filter_map(|(name, line)| told(name, line)).collect()
    });
    Ok(Json(locks.await?))
}

fn standing_of(standing: Standing) -> LockStanding {
    match standing {
        Standing::Holding { fence } => LockStanding { fence: Some(fence), ahead: None },
        Standing::Waiting { ahead } => LockStanding { fence: None, ahead: Some(ahead) },
    }
}

pub(super) async fn acquire(
    State(api): State<Arc<Api>>,
    body: Bytes,
) -> Result<Json<LockStanding>, Failure> {
    let LockRequest { name, lease, places, wait, label } = parse("lock", &body)?;
    let command = LockCommand::Acquire {
        name: in_space("a lock", &name)?,
        lease: LeaseId(lease),
        places,
        wait: if wait { Wait::InLine } else { Wait::Never },
        label,
    };
    match api.propose(&Command::Locks(command)).await? {
        Answer::Standing(standing) => Ok(Json(standing_of(standing))),
        other => Err(strange(&other)),
    }
}

pub(super) async fn release(
    State(api): State<Arc<Api>>,
    body: Bytes,
) -> Result<Json<LockReleased>, Failure> {
    let LockRelease { name, lease } = parse("release of a lock", &body)?;
    let name = in_space("a lock", &name)?;
    let command = LockCommand::Release { name, lease: LeaseId(lease) };
    match api.propose(&Command::Locks(command)).await? {
        Answer::Changed(released) => Ok(Json(LockReleased { released })),
        other => Err(strange(&other)),
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StandingQuery {
    /// The lock.
    name: String,
    /// The lease.
    lease: u64,
    /// Milliseconds to wait until it is held.
    #[serde(default)]
    wait_ms: u64,
}

/// What this node has may be behind, but a lock that it says is held was held by that lease, and has been lost only if
/// the lease has ended, which its holder has to mind anyway.
pub(super) async fn standing(
    State(api): State<Arc<Api>>,
    asked: Result<Query<StandingQuery>, QueryRejection>,
) -> Result<Json<LockStanding>, Failure> {
    let StandingQuery { name, lease, wait_ms } = query(asked)?;
    let (name, lease, deadline) = (in_space("a lock", &name)?, LeaseId(lease), deadline(wait_ms)?);
    let look = |state: &dvs_state::State| state.locks().standing(&name, lease);
    let found = api.outcome(deadline, look, |it| matches!(it, Standing::Waiting { .. })).await?;
    let missing = || refused(&Refusal::missing(Thing::Lease, lease));
    found.map(|standing| Json(standing_of(standing))).ok_or_else(missing)
}
