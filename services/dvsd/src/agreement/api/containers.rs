// SPDX-License-Identifier: MIT OR Apache-2.0
//! Distributed Containers: which there are, and how far they have come on each node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::Json;
use dvs_api::{Container, ContainerChange, ContainerNodes, ContainerPlace, ContainerRequest};
use dvs_state::containers::{self, ContainerId, Workload};
use dvs_state::nodes::NodeId;
use dvs_state::{Answer, Command, Refusal, Thing};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{deadline, parse, query, refused, strange, wait_for, Api};
use crate::api::{bad, Failure};
use crate::containers::{check, definition, places};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StaleQuery {
    /// Take what the answering node has, which may be behind, and needs no majority.
    #[serde(default)]
    stale: bool,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RemovalQuery {
    /// Milliseconds to wait until nothing is left.
    #[serde(default)]
    wait_ms: u64,
}

fn told(
    state: &dvs_state::State,
    heard: &BTreeMap<NodeId, u32>,
    id: ContainerId,
    container: &containers::Container,
) -> Container {
    let defined = state.containers().defined(id);
    let (limits, workload) = definition::told(&container.limits, &defined.workload);
    Container {
        id: id.into(),
        name: container.name.clone(),
        limits,
        workload,
        revision: defined.revision,
        places: places(state, heard, id, Some(container)),
    }
}

fn of_name(
    state: &dvs_state::State,
    heard: &BTreeMap<NodeId, u32>,
    name: &str,
) -> Result<Container, Refusal> {
    let found = state.containers().of_name(name);
    let (id, container) = found.ok_or_else(|| Refusal::missing(Thing::Container, name))?;
    Ok(told(state, heard, id, container))
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    asked: Result<Query<StaleQuery>, QueryRejection>,
) -> Result<Json<Vec<Container>>, Failure> {
    let StaleQuery { stale } = query(asked)?;
    let all = api.read(stale, |state| {
        let (heard, all) = (api.access.heard(), state.containers().iter());
        all.map(|(id, container)| told(state, &heard, id, container)).collect()
    });
    Ok(Json(all.await?))
}

pub(super) async fn show(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    asked: Result<Query<StaleQuery>, QueryRejection>,
) -> Result<Json<Container>, Failure> {
    let StaleQuery { stale } = query(asked)?;
    let found = api.read(stale, |state| of_name(state, &api.access.heard(), &name)).await?;
    found.map(Json).map_err(|refusal| refused(&refusal))
}

fn node_ids(nodes: &[u32]) -> Result<BTreeSet<NodeId>, Failure> {
    let id =
        |node: &u32| NodeId::try_from(*node).map_err(|_| bad(format!("there is no node {node}")));
    nodes.iter().map(id).collect()
}

pub(super) async fn create(
    State(api): State<Arc<Api>>,
    body: Bytes,
) -> Result<(StatusCode, Json<Container>), Failure> {
    let ContainerRequest { name, nodes, limits, workload } = parse("container", &body)?;
    let understood = api.read(false, |state| definition::understood(state, &limits, &workload));
    let (limits, workload) = understood.await?.map_err(bad)?;
    // What no node could make is not agreed on.
    check(&name, &limits, &workload).map_err(bad)?;
    let nodes = node_ids(&nodes)?;
    let command = match workload == Workload::default() {
        // Nodes of the release before know that as well.
        true => containers::Command::Create { name, nodes, limits, image: None },
        false => {
            let workload = Box::new(workload);
            containers::Command::Define { name, nodes, limits, workload }
        }
    };
    match api.propose(&Command::Containers(command)).await? {
        Answer::Container(containers::Answer::Created(id)) => {
            let made = api.read(false, |state| {
                let container = state.containers().get(id)?;
                Some(told(state, &api.access.heard(), id, container))
            });
            let gone = || Failure(StatusCode::CONFLICT, "it was deleted at once".into());
            Ok((StatusCode::CREATED, Json(made.await?.ok_or_else(gone)?)))
        }
        other => Err(strange(&other)),
    }
}

/// Finds the container of a name, and has the nodes agree on something about it.
async fn changed(
    api: &Api,
    name: &str,
    command: impl FnOnce(ContainerId) -> containers::Command,
) -> Result<Container, Failure> {
    let found = api.read(false, |state| of_name(state, &api.access.heard(), name)).await?;
    let before = found.map_err(|refusal| refused(&refusal))?;
    let id = ContainerId::try_from(before.id).unwrap_or_default();
    api.propose(&Command::Containers(command(id))).await?;
    let after = api.read(false, |state| {
        let container = state.containers().get(id)?;
        Some(told(state, &api.access.heard(), id, container))
    });
    Ok(after.await?.unwrap_or(before))
}

pub(super) async fn scale(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<Container>, Failure> {
    let ContainerNodes { nodes } = parse("nodes of a container", &body)?;
    let nodes = node_ids(&nodes)?;
    changed(&api, &name, |id| containers::Command::Scale { id, nodes }).await.map(Json)
}

pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Json<Container>, Failure> {
    changed(&api, &name, |id| containers::Command::Delete { id }).await.map(Json)
}

pub(super) async fn change(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<Container>, Failure> {
    let ContainerChange { revision, limits, workload } = parse("change of a container", &body)?;
    let understood = api.read(false, |state| definition::understood(state, &limits, &workload));
    let (limits, workload) = understood.await?.map_err(bad)?;
    check(&name, &limits, &workload).map_err(bad)?;
    let workload = Box::new(workload);
    let redefine = |id| containers::Command::Redefine { id, revision, limits, workload };
    changed(&api, &name, redefine).await.map(Json)
}

/// What is left of a container that was deleted.
pub(super) async fn removal(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    asked: Result<Query<RemovalQuery>, QueryRejection>,
) -> Result<Json<Vec<ContainerPlace>>, Failure> {
    let RemovalQuery { wait_ms } = query(asked)?;
    let deadline = deadline(wait_ms)?;
    let id: ContainerId = id.parse().map_err(|_| bad(format!("`{id}` is no id of a container")))?;
    let left = |state: &dvs_state::State| {
        places(state, &api.access.heard(), id, state.containers().get(id))
    };
    // This node must have heard of the deletion.
    let first = api.read(false, left).await?;
    if first.is_empty() {
        return Ok(Json(first));
    }
    let consensus = api.consensus()?;
    let nothing = wait_for(&consensus, deadline, |state| left(state).is_empty().then_some(()));
    Ok(Json(match nothing.await {
        Some(()) => Vec::new(),
        None => consensus.look(left),
    }))
}
