// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the nodes agree: who leads, who votes, who is missing.

use std::sync::Arc;

use axum::extract::State;
use axum::Json;
use dvs_api::{ClusterMember, ClusterStatus};
use dvs_consensus::Status;
use dvs_state::nodes::MemberId;

use super::Api;
use crate::agreement::mirror::member_of;
use crate::api::Failure;
use crate::membership::{Liveness, Standing, View};

pub(super) async fn status(State(api): State<Arc<Api>>) -> Result<Json<ClusterStatus>, Failure> {
    let consensus = api.consensus()?;
    let (status, view) = (consensus.status(), api.access.view());
    let (identity, version) = consensus.look(|state| (state.identity().cloned(), state.version()));
    Ok(Json(report(&status, &view, identity, version)))
}

/// Whether the node is heard in the life that it is this member of.
fn is_heard(view: &View, node: u16, member: MemberId) -> bool {
    let seen = view.members.iter().find(|seen| seen.seat.id == node);
    seen.is_some_and(|seen| {
        seen.liveness == Liveness::Alive && member_of(seen.instance, seen.seat) == member
    })
}

fn report(
    status: &Status,
    view: &View,
    identity: Option<dvs_state::Identity>,
    version: u16,
) -> ClusterStatus {
    let node = match view.standing {
        Standing::Member { seat, .. } => u32::from(seat.id),
        Standing::Discovering { .. } => 0,
    };
    let mut members: Vec<_> = status
        .peers
        .iter()
        .map(|(member, peer)| ClusterMember {
            node: peer.node.into(),
            name: view
                .members
                .iter()
                .find(|seen| seen.seat.id == peer.node)
                .map(|seen| seen.name.clone())
                .unwrap_or_default(),
            member: format!("{member:016x}"),
            voter: status.voters.contains(member),
            heard: is_heard(view, peer.node, *member),
        })
        .collect();
    members.sort_by(|a, b| (a.node, &a.member).cmp(&(b.node, &b.member)));
    let heard = members.iter().filter(|member| member.voter && member.heard).count();
    let leader = status.leader.and_then(|leader| status.peers.get(&leader));
    ClusterStatus {
        name: identity.as_ref().map(|identity| identity.name.clone()).unwrap_or_default(),
        id: identity.map(|identity| format!("{:016x}", identity.id)).unwrap_or_default(),
        node,
        leader: leader.map(|peer| u32::from(peer.node)),
        term: status.term,
        majority: heard * 2 > status.voters.len(),
        members,
        applied: status.applied,
        last: status.last,
        snapshot: status.snapshot,
        version,
        trouble: status.stopped.clone(),
    }
}

/// What is missing for the nodes to agree, for people.
pub(super) fn lack(status: &Status, view: &View) -> Option<String> {
    if status.voters.is_empty() {
        return Some("this node has not been let in by a leader yet".into());
    }
    let mut silent: Vec<u16> = status
        .voters
        .iter()
        .filter_map(|member| Some((member, status.peers.get(member)?.node)))
        .filter(|(member, node)| !is_heard(view, *node, **member))
        .map(|(_, node)| node)
        .collect();
    silent.sort_unstable();
    let (voters, needed) = (status.voters.len(), status.voters.len() / 2 + 1);
    if voters - silent.len() >= needed {
        return None;
    }
    let silent: Vec<_> = silent.iter().map(|node| format!("node {node}")).collect();
    Some(format!(
        "no majority: {needed} of the {voters} voters are needed, and {} cannot be reached",
        silent.join(" and ")
    ))
}
