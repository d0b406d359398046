// SPDX-License-Identifier: MIT OR Apache-2.0
//! What people decide about nodes.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::Json;
use dvs_api::{NodeDrain, NodePhase, NodeRemoval, NodeRename, NodeStanding};
use dvs_state::lifecycle::{Command as Lifecycle, Until};
use dvs_state::nodes::{Command as Nodes, NodeId, Phase};
use dvs_state::{Command, Refusal, Thing};

use super::{failed, parse, refused, Api};
use crate::agreement::departure::{Duties, Obstacle};
use crate::api::{bad, unavailable, Failure};

/// How long the vote of a node may take to go: an election and a few changes of who votes.
const PATIENCE: Duration = Duration::from_secs(20);

fn id_of(text: &str) -> Result<NodeId, Failure> {
    text.parse().map_err(|_| bad(format!("`{text}` is no node id")))
}

impl Api {
    async fn standing(&self, id: NodeId) -> Result<Json<NodeStanding>, Failure> {
        let duties = Duties::of(&self.consensus()?.status(), id);
        let standing = self.read(false, |state| {
            let removed = || state.nodes().removed().find(|(gone, _)| *gone == id);
            let node = state.nodes().get(id).or_else(|| Some(removed()?.1));
            let node = node.ok_or_else(|| Refusal::missing(Thing::Node, id))?;
            let spanned = state.containers().iter().filter(|(_, dc)| dc.nodes.contains(&id));
            Ok(NodeStanding {
                node: id.into(),
                name: node.name.clone(),
                machine: node.machine.to_string(),
                incarnation: node.incarnation,
                phase: match node.phase {
                    Phase::Joining => NodePhase::Joining,
                    Phase::Ready => NodePhase::Ready,
                    Phase::Draining => NodePhase::Draining,
                    Phase::Removed => NodePhase::Removed,
                },
                kept: state.lifecycle().is_drained(node.machine),
                barred: state.lifecycle().bar(node.machine).is_some(),
                up: node.up,
                votes: duties.votes,
                leads: duties.leads,
                containers: spanned.map(|(_, dc)| dc.name.clone()).collect(),
            })
        });
        standing.await?.map(Json).map_err(|refusal| refused(&refusal))
    }

    fn hindered(&self, obstacle: &Obstacle) -> Failure {
        match obstacle {
            Obstacle::Absent(why) => unavailable(why.clone()),
            Obstacle::Failed(error) => match self.consensus() {
                Ok(consensus) => failed(&self.access, &consensus, error),
                Err(failure) => failure,
            },
            Obstacle::Refused(refusal) => refused(refusal),
            Obstacle::Alone(why) => Failure(StatusCode::CONFLICT, why.clone()),
            Obstacle::Slow(why) => Failure(StatusCode::GATEWAY_TIMEOUT, why.clone()),
        }
    }
}

pub(super) async fn standing(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
) -> Result<Json<NodeStanding>, Failure> {
    api.standing(id_of(&id)?).await
}

/// Answers once the node neither votes nor leads.
pub(super) async fn drain(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<NodeStanding>, Failure> {
    let id = id_of(&id)?;
    let NodeDrain { force } = parse("draining of a node", &body)?;
    let vacated = api.access.vacate(id, Until::Undrained, force, PATIENCE).await;
    vacated.map_err(|obstacle| api.hindered(&obstacle))?;
    api.standing(id).await
}

pub(super) async fn undrain(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
) -> Result<Json<NodeStanding>, Failure> {
    let id = id_of(&id)?;
    api.propose(&Command::Lifecycle(Lifecycle::Undrain { id })).await?;
    api.standing(id).await
}

pub(super) async fn rename(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<NodeStanding>, Failure> {
    let id = id_of(&id)?;
    let NodeRename { name } = parse("name of a node", &body)?;
    api.propose(&Command::Nodes(Nodes::Rename { id, name })).await?;
    api.standing(id).await
}

/// Its vote goes first: a voter that nobody hears any more could not agree to that.
pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<NodeStanding>, Failure> {
    let id = id_of(&id)?;
    let NodeRemoval { force, barred } = parse("removal of a node", &body)?;
    let vacated = api.access.vacate(id, Until::Back, force, PATIENCE).await;
    vacated.map_err(|obstacle| api.hindered(&obstacle))?;
    let consensus = api.consensus()?;
    let node = consensus.look(|state| {
        let seat = state.nodes().seat(id)?;
        Ok((seat, state.nodes().get(id).map(|node| node.machine)))
    });
    let (seat, machine) = node.map_err(|refusal| refused(&refusal))?;
    api.propose(&Command::Lifecycle(Lifecycle::Remove { seat })).await?;
    if let Some(machine) = machine.filter(|_| !barred) {
        api.propose(&Command::Lifecycle(Lifecycle::Allow { machine })).await?;
    }
    api.standing(id).await
}

/// Lets the machine come back that was this node.
pub(super) async fn allow(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
) -> Result<Json<NodeStanding>, Failure> {
    let id = id_of(&id)?;
    let bar = api.read(false, |state| {
        let barred = |(machine, bar): (_, &dvs_state::lifecycle::Bar)| {
            (bar.seat.id == id).then_some(machine)
        };
        state.lifecycle().barred().find_map(barred)
    });
    let machine = bar.await?.ok_or_else(|| {
        let text = format!("no machine is kept out that was node {id}; there is nothing to allow");
        Failure(StatusCode::NOT_FOUND, text)
    })?;
    api.propose(&Command::Lifecycle(Lifecycle::Allow { machine })).await?;
    api.standing(id).await
}
