// SPDX-License-Identifier: MIT OR Apache-2.0
//! Groups.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::Json;
use dvs_api::{
    Group, GroupAcknowledged, GroupAcknowledgement, GroupContent, GroupDelivery, GroupJoin,
    GroupLeave, GroupLeft, GroupMember, GroupMessage, GroupPosition, KvValue,
};
use dvs_state::groups::{Command as GroupCommand, Content, Delivery};
use dvs_state::leases::LeaseId;
use dvs_state::{Answer, Command, Refusal, Thing};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{deadline, in_space, out_of_space, parse, query, refused, strange, wait_for, Api};
use crate::api::{bad, Failure};

/// Bytes of messages in one answer, beyond the first.
const ANSWER_BYTES: usize = 256 << 10;

fn member(lease: LeaseId, name: &str) -> GroupMember {
    GroupMember { lease: lease.0, name: name.to_owned() }
}

pub(super) async fn list(State(api): State<Arc<Api>>) -> Result<Json<Vec<Group>>, Failure> {
    let groups = api.read(false, |state| {
        let all = state.groups().iter().filter_map(|(name, group)| {
            let members = group.members().map(|(lease, one)| member(lease, &one.name));
            let name = out_of_space(name)?.to_owned();
            Some(Group { name, last: group.last(), members: members.collect() })
        });
        all.collect()
    });
    Ok(Json(groups.await?))
}

async fn positioned(api: &Api, command: GroupCommand) -> Result<Json<GroupPosition>, Failure> {
    match api.propose(&Command::Groups(command)).await? {
        Answer::Position(position) => Ok(Json(GroupPosition { position })),
        other => Err(strange(&other)),
    }
}

pub(super) async fn join(
    State(api): State<Arc<Api>>,
    body: Bytes,
) -> Result<Json<GroupPosition>, Failure> {
    let GroupJoin { group, lease, name } = parse("member of a group", &body)?;
    let group = in_space("a group", &group)?;
    positioned(&api, GroupCommand::Join { group, lease: LeaseId(lease), name }).await
}

pub(super) async fn leave(
    State(api): State<Arc<Api>>,
    body: Bytes,
) -> Result<Json<GroupLeft>, Failure> {
    let GroupLeave { group, lease } = parse("leaving a group", &body)?;
    let group = in_space("a group", &group)?;
    let command = GroupCommand::Leave { group, lease: LeaseId(lease) };
    match api.propose(&Command::Groups(command)).await? {
        Answer::Changed(left) => Ok(Json(GroupLeft { left })),
        other => Err(strange(&other)),
    }
}

pub(super) async fn send(
    State(api): State<Arc<Api>>,
    body: Bytes,
) -> Result<Json<GroupPosition>, Failure> {
    let GroupMessage { group, lease, number, payload } = parse("message to a group", &body)?;
    let group = in_space("a group", &group)?;
    let payload = payload.bytes().ok_or_else(|| {
        bad("message to a group: payload.hex: expected two hexadecimal digits for each byte")
    })?;
    let lease = LeaseId(lease);
    positioned(&api, GroupCommand::Multicast { group, lease, number, payload }).await
}

pub(super) async fn acknowledge(
    State(api): State<Arc<Api>>,
    body: Bytes,
) -> Result<Json<GroupAcknowledged>, Failure> {
    let GroupAcknowledgement { group, lease, up_to } = parse("acknowledgement", &body)?;
    let group = in_space("a group", &group)?;
    let command = GroupCommand::Acknowledge { group, lease: LeaseId(lease), up_to };
    match api.propose(&Command::Groups(command)).await? {
        Answer::Done => Ok(Json(GroupAcknowledged { up_to })),
        other => Err(strange(&other)),
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DeliveriesQuery {
    /// The group.
    group: String,
    /// The member's lease.
    lease: u64,
    /// The position from which on.
    from: u64,
    /// Milliseconds to wait until there is something.
    #[serde(default)]
    wait_ms: u64,
}

/// What this node has may be behind; it is the same as everywhere as far as it goes.
pub(super) async fn deliveries(
    State(api): State<Arc<Api>>,
    asked: Result<Query<DeliveriesQuery>, QueryRejection>,
) -> Result<Json<Vec<GroupDelivery>>, Failure> {
    let DeliveriesQuery { group, lease, from, wait_ms } = query(asked)?;
    let (group, lease) = (in_space("a group", &group)?, LeaseId(lease));
    let deadline = deadline(wait_ms)?;
    let look = |state: &dvs_state::State| {
        let found = state.groups().get(&group);
        let found = found.ok_or_else(|| Refusal::missing(Thing::Group, &group))?;
        Ok(some_of(found.deliveries(lease, from)?))
    };
    // This node must have come to where the member joined.
    let first = api.read(false, look).await?.map_err(|refusal| refused(&refusal))?;
    if !first.is_empty() {
        return Ok(Json(first));
    }
    let consensus = api.consensus()?;
    let news = wait_for(&consensus, deadline, |state| match look(state) {
        Ok(nothing) if nothing.is_empty() => None,
        news => Some(news),
    });
    match news.await {
        Some(news) => news.map(Json).map_err(|refusal: Refusal| refused(&refusal)),
        None => Ok(Json(Vec::new())),
    }
}

/// The first of them that an answer holds.
fn some_of<'a>(deliveries: impl Iterator<Item = &'a Delivery>) -> Vec<GroupDelivery> {
    let (mut some, mut bytes) = (Vec::new(), 0);
    for Delivery { position, content } in deliveries {
        let content = match content {
            Content::View { number, members } => {
                bytes += members.len() * 64;
                let members = members.iter().map(|(lease, name)| member(*lease, name)).collect();
                GroupContent::View { number: *number, members }
            }
            Content::Message { sender, number, payload } => {
                bytes += payload.len();
                let payload = KvValue::of(payload.clone());
                GroupContent::Message { sender: sender.0, number: *number, payload }
            }
        };
        some.push(GroupDelivery { position: *position, content });
        if bytes >= ANSWER_BYTES {
            break;
        }
    }
    some
}
