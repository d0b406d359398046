// SPDX-License-Identifier: MIT OR Apache-2.0
//! What has happened.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::Json;
use dvs_api::{Event, Events};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{deadline, query, wait_for, Api};
use crate::api::Failure;

/// Most events of an answer.
const EVENTS_MAX: usize = 1_000;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    /// The number of the last event that is known.
    #[serde(default)]
    after: u64,
    /// Milliseconds to wait for one.
    #[serde(default)]
    wait_ms: u64,
    /// Most events to be had.
    limit: Option<usize>,
}

/// It tells what this node has, so it works without a majority too: then one wants to know what happened.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    asked: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Json<Events>, Failure> {
    let EventsQuery { after, wait_ms, limit } = query(asked)?;
    let deadline = deadline(wait_ms)?;
    let limit = limit.unwrap_or(EVENTS_MAX).min(EVENTS_MAX);
    let consensus = api.consensus()?;
    let found = wait_for(&consensus, deadline, |state| {
        let events: Vec<_> = state.events().after(after).take(limit).map(event).collect();
        (!events.is_empty()).then_some(events)
    });
    let events = found.await.unwrap_or_default();
    // A node that has not come so far yet is asked on from the same place.
    let last = events.last().map_or(after, |event| event.number);
    let missed = events.first().map_or(0, |event| event.number - after - 1);
    Ok(Json(Events { events, last, missed, now_ms: consensus.now().0 }))
}

fn event((number, event): (u64, &dvs_state::events::Event)) -> Event {
    Event {
        number,
        at_ms: event.at.0,
        unix_ms: event.unix_ms,
        kind: event.what.kind().to_owned(),
        nodes: event.what.nodes().into_iter().map(u32::from).collect(),
        text: event.what.to_string(),
    }
}
