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

use super::desired::Desired;
use super::steps::{how_it_ended, rests, Step};

/// How all these keys begin.
const SPACE: &str = "containers/";

/// What a node says of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Report {
    phase: ContainerPhase,
    detail: String,
    /// Of which revision it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revision: Option<u32>,
}

/// What is written: it is of no worth any more once the node has another incarnation.
#[derive(Serialize, Deserialize)]
struct Written {
    incarnation: u32,
    #[serde(flatten)]
    report: Report,
}

impl Report {
    /// What is to be said of a container with which nothing is to be done now. `lack` is what is missing to make it, `trouble` why the last
    /// try failed, `unreached` why it is not reached from outside.
    pub(super) fn of(
        wanted: Option<&Desired>,
        found: Option<&Status>,
        lack: Option<&str>,
        trouble: Option<&str>,
        unreached: Option<&str>,
    ) -> Self {
        use ContainerPhase::{Creating, Ended, Failed, Pending, Running, Stopping};
        let rests = wanted.is_some_and(|wanted| rests(wanted, found));
        let phase = match (wanted, found.map(|status| status.phase)) {
            (Some(_), Some(Phase::Running)) => Running,
            (Some(_), Some(Phase::Stopped)) if rests => Ended,
            _ if trouble.is_some() => Failed,
            (None, _) => Stopping,
            (Some(_), Some(Phase::Creating | Phase::Created | Phase::Stopped)) => Creating,
            (Some(_), None) => Pending,
        };
        let detail = match phase {
            Failed => trouble.unwrap_or_default().to_owned(),
            Pending => lack.unwrap_or_default().to_owned(),
            Running => unreached.unwrap_or_default().to_owned(),
            Ended => found.map(how_it_ended).unwrap_or_default(),
            _ => String::new(),
        };
        Self { phase, detail, revision: None }
    }

    /// The same, of a container of this revision.
    pub(super) fn at(self, revision: Option<u32>) -> Self {
        Self { revision, ..self }
    }

    /// What is to be said while a step is taken.
    pub(super) fn during(step: &Step) -> Self {
        let phase = match step {
            Step::Nothing | Step::Create(_) | Step::Update(_) | Step::Start => {
                ContainerPhase::Creating
            }
            Step::Delete => ContainerPhase::Stopping,
        };
        Self { phase, detail: String::new(), revision: None }
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
///
/// `heard` has the incarnations in which the answering node hears the others. A node that came back is heard before the nodes have agreed
/// on that, and what it wrote in the life before is of no worth from then on.
pub(crate) fn places(
    state: &State,
    heard: &BTreeMap<NodeId, u32>,
    id: ContainerId,
    container: Option<&Container>,
) -> Vec<ContainerPlace> {
    let is_past = |node: NodeId, incarnation| heard.get(&node).is_some_and(|it| *it > incarnation);
    let network = state.containers().defined(id).workload.network;
    let address = |node| network.as_ref().and_then(|it| it.address(node)).map(|it| it.to_string());
    let mut places = BTreeMap::new();
    for node in container.into_iter().flat_map(|container| &container.nodes) {
        let known = state.nodes().get(*node);
        let is_back = known.is_some_and(|known| is_past(*node, known.incarnation));
        let (phase, detail) = match known {
            _ if is_back => (ContainerPhase::Pending, "the node has just come back"),
            Some(known) if known.up => (ContainerPhase::Pending, ""),
            _ => (ContainerPhase::Unknown, "the node is down"),
        };
        let place = ContainerPlace {
            node: (*node).into(),
            spanned: true,
            phase,
            detail: detail.to_owned(),
            address: address(*node),
            revision: None,
        };
        places.insert(*node, place);
    }
    for (_, node, value) in written(state).filter(|(one, _, _)| *one == id) {
        let Ok(Written { incarnation, report }) = serde_json::from_slice(value) else { continue };
        if !state.nodes().is_up(Seat { id: node, incarnation }) || is_past(node, incarnation) {
            continue;
        }
        let spanned = places.contains_key(&node);
        let Report { phase, detail, revision } = report;
        let address = address(node).filter(|_| spanned);
        let place = ContainerPlace { node: node.into(), spanned, phase, detail, address, revision };
        places.insert(node, place);
    }
    places.into_values().collect()
}

#[cfg(test)]
mod tests {
    use dvs_state::containers::{self, Limits};
    use dvs_state::nodes::{Join, Machine, Role};
    use dvs_state::{kv, Command, Entry, Time, VERSION};

    use super::*;

    fn agree(state: &mut State, command: &Command) {
        let entry = Entry::new(Time(0), command).unwrap();
        state.apply(state.applied() + 1, &entry).unwrap();
    }

    /// Node 0 in one of its lives.
    fn join(run: u64) -> Join {
        Join {
            machine: Machine([2, 0, 0, 0, 0, 0]),
            run,
            name: None,
            role: Role::Voter,
            member: Some(run),
            understands: VERSION,
            place: None,
        }
    }

    fn tell(state: &mut State, id: ContainerId, own: Seat, phase: ContainerPhase) {
        let reports =
            BTreeMap::from([(id, Report { phase, detail: String::new(), revision: None })]);
        let then = puts(state, own, &reports);
        let transaction = kv::Transaction { then, ..kv::Transaction::default() };
        agree(state, &Command::Kv(kv::Command::Transact(transaction)));
    }

    #[test]
    fn what_a_node_wrote_in_an_earlier_life_does_not_count() {
        use ContainerPhase::{Pending, Running};
        let mut state = State::default();
        agree(&mut state, &Command::Form { name: "dvs".into(), id: 7, nodes: vec![join(1)] });
        agree(&mut state, &Command::Raise { version: VERSION });
        let create = containers::Command::Create {
            name: "web".into(),
            nodes: [0].into(),
            limits: Limits::default(),
            image: None,
        };
        agree(&mut state, &Command::Containers(create));
        let (id, _) = state.containers().of_name("web").unwrap();
        let seen = |state: &State, heard: u32| {
            let container = state.containers().get(id);
            let places = places(state, &BTreeMap::from([(0, heard)]), id, container);
            assert_eq!(places.len(), 1);
            places[0].phase
        };
        tell(&mut state, id, Seat { id: 0, incarnation: 1 }, Running);
        assert_eq!(seen(&state, 1), Running);
        // Its daemon was killed and is heard again before anybody has taken it for down.
        assert_eq!(seen(&state, 2), Pending);
        agree(&mut state, &Command::Nodes(dvs_state::nodes::Command::Join(join(2))));
        assert_eq!(seen(&state, 2), Pending);
        // Whoever asks a node that has not heard of it yet is told what was agreed on.
        assert_eq!(seen(&state, 1), Pending);
        tell(&mut state, id, Seat { id: 0, incarnation: 2 }, Running);
        assert_eq!(seen(&state, 2), Running);
        assert_eq!(seen(&state, 1), Running);
    }
}
