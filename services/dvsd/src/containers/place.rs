// SPDX-License-Identifier: MIT OR Apache-2.0
//! How far a container has come on each node: each node writes it into the keys and values that the nodes agree on, under names that are not
//! those of administrators.

use std::collections::BTreeMap;

use dvs_api::{ContainerPhase, ContainerPlace};
use dvs_runtime::{Phase, Status};
use dvs_state::containers::{Container, ContainerId};
use dvs_state::kv::{Key, Operation, Selector};
use dvs_state::nodes::{NodeId, Seat};
use dvs_state::State;
use serde::{Deserialize, Serialize};

use super::steps::Step;

/// How all these keys begin.
const SPACE: &str = "containers/";

/// What a node says of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Report {
    phase: ContainerPhase,
    detail: String,
}

/// What is written: it is of no worth any more once the node has another incarnation.
#[derive(Serialize, Deserialize)]
struct Written {
    incarnation: u32,
    #[serde(flatten)]
    report: Report,
}

impl Report {
    /// What is to be said of a container with which nothing is to be done now. `trouble` is why the last try failed.
    pub(super) fn of(
        is_wanted: bool,
        found: Option<&Status>,
        is_ready: bool,
        trouble: Option<&str>,
    ) -> Self {
        use ContainerPhase::{Creating, Failed, Pending, Running, Stopping};
        let phase = match (is_wanted, found.map(|status| status.phase)) {
            (true, Some(Phase::Running)) => Running,
            _ if trouble.is_some() => Failed,
            (false, _) => Stopping,
            (true, Some(Phase::Creating | Phase::Created | Phase::Stopped)) => Creating,
            (true, None) => Pending,
        };
        let waits = phase == Pending && !is_ready;
        let detail = match trouble.filter(|_| phase == Failed) {
            Some(why) => why.to_owned(),
            None if waits => "waiting for slots".to_owned(),
            None => String::new(),
        };
        Self { phase, detail }
    }

    /// What is to be said while a step is taken.
    pub(super) fn during(step: &Step) -> Self {
        let phase = match step {
            Step::Nothing | Step::Create(_) | Step::Start => ContainerPhase::Creating,
            Step::Delete => ContainerPhase::Stopping,
        };
        Self { phase, detail: String::new() }
    }

    fn to_value(&self, own: Seat) -> Vec<u8> {
        let written = Written { incarnation: own.incarnation, report: self.clone() };
        // It has nothing that JSON has no word for.
        serde_json::to_vec(&written).unwrap_or_default()
    }
}

fn key(id: ContainerId, node: NodeId) -> Key {
    format!("{SPACE}{id}/{node}").into_bytes()
}

/// What is written, by container and node.
fn written(state: &State) -> impl Iterator<Item = (ContainerId, NodeId, &[u8])> {
    let all = state.kv().range(&Selector::Prefix(SPACE.into()));
    all.filter_map(|(key, pair)| {
        let (id, node) = std::str::from_utf8(key).ok()?.strip_prefix(SPACE)?.split_once('/')?;
        Some((id.parse().ok()?, node.parse().ok()?, pair.value.as_slice()))
    })
}

fn written_by(state: &State, own: Seat) -> BTreeMap<ContainerId, &[u8]> {
    let own = written(state).filter(|(_, node, _)| *node == own.id);
    own.map(|(id, _, value)| (id, value)).collect()
}

/// Whether this node has written something of any container.
pub(super) fn is_told(state: &State, own: Seat) -> bool {
    written(state).any(|(_, node, _)| node == own.id)
}

/// Writes those reports that are not written yet.
pub(super) fn puts(
    state: &State,
    own: Seat,
    reports: &BTreeMap<ContainerId, Report>,
) -> Vec<Operation> {
    let known = written_by(state, own);
    let values = reports.iter().map(|(id, report)| (id, report.to_value(own)));
    let news = values.filter(|(id, value)| known.get(id) != Some(&value.as_slice()));
    news.map(|(id, value)| Operation::Put { key: key(*id, own.id), value, lease: None }).collect()
}

/// Removes what this node has written of containers that it has no more.
pub(super) fn removals(
    state: &State,
    own: Seat,
    reports: &BTreeMap<ContainerId, Report>,
) -> Vec<Operation> {
    let over = written_by(state, own).into_keys().filter(|id| !reports.contains_key(id));
    over.map(|id| Operation::Delete { keys: Selector::Key(key(id, own.id)) }).collect()
}

/// How far a container has come on each node: those that it spans, and those that have not left it yet. A node that is down leaves
/// nothing of a container when it comes back, so it counts only if the container spans it.
pub(crate) fn places(
    state: &State,
    id: ContainerId,
    container: Option<&Container>,
) -> Vec<ContainerPlace> {
    let mut places = BTreeMap::new();
    for node in container.into_iter().flat_map(|container| &container.nodes) {
        let is_up = state.nodes().get(*node).is_some_and(|node| node.up);
        let phase = if is_up { ContainerPhase::Pending } else { ContainerPhase::Unknown };
        let detail = if is_up { "" } else { "the node is down" };
        let place = ContainerPlace {
            node: (*node).into(),
            spanned: true,
            phase,
            detail: detail.to_owned(),
        };
        places.insert(*node, place);
    }
    for (_, node, value) in written(state).filter(|(one, _, _)| *one == id) {
        let Ok(Written { incarnation, report }) = serde_json::from_slice(value) else { continue };
        if !state.nodes().is_up(Seat { id: node, incarnation }) {
            continue;
        }
        let spanned = places.contains_key(&node);
        let Report { phase, detail } = report;
        places.insert(node, ContainerPlace { node: node.into(), spanned, phase, detail });
    }
    places.into_values().collect()
}
