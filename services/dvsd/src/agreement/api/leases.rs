// SPDX-License-Identifier: MIT OR Apache-2.0
//! Leases, with which locks, candidates and keys end.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::Json;
use dvs_api::{Lease, LeaseInfo, LeaseRequest};
use dvs_state::leases::{Command as LeaseCommand, LeaseId};
use dvs_state::{Answer, Command};

use super::{parse, strange, Api};
use crate::api::{bad, Failure};

pub(super) async fn list(State(api): State<Arc<Api>>) -> Result<Json<Vec<LeaseInfo>>, Failure> {
    let leases = api.read(false, |state| {
        let told = |(id, lease): (LeaseId, &dvs_state::leases::Lease)| LeaseInfo {
            lease: id.0,
            ttl_ms: lease.ttl_ms,
            left_ms: lease.expires.0.saturating_sub(state.now().0),
            owner: lease.owner.clone(),
        };
        state.leases().iter().map(told).collect()
    });
    Ok(Json(leases.await?))
}

pub(super) async fn grant(
    State(api): State<Arc<Api>>,
    body: Bytes,
) -> Result<Json<Lease>, Failure> {
    let LeaseRequest { ttl_ms, owner } = parse("lease", &body)?;
    let command = Command::Leases(LeaseCommand::Grant { ttl_ms, owner });
    match api.propose(&command).await? {
        Answer::Granted(LeaseId(lease)) => Ok(Json(Lease { lease, ttl_ms })),
        other => Err(strange(&other)),
    }
}

fn lease_id(text: &str) -> Result<LeaseId, Failure> {
    text.parse().map(LeaseId).map_err(|_| bad(format!("`{text}` is no id of a lease")))
}

pub(super) async fn keep_alive(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
) -> Result<Json<Lease>, Failure> {
    let id = lease_id(&id)?;
    match api.propose(&Command::Leases(LeaseCommand::KeepAlive(id))).await? {
        Answer::KeptAlive(ttl_ms) => Ok(Json(Lease { lease: id.0, ttl_ms })),
        other => Err(strange(&other)),
    }
}

pub(super) async fn revoke(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
) -> Result<Json<Lease>, Failure> {
    let id = lease_id(&id)?;
    api.propose(&Command::Leases(LeaseCommand::Revoke(id))).await?;
    Ok(Json(Lease { lease: id.0, ttl_ms: 0 }))
}
