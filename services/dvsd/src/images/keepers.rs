// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which nodes have the archive of an image and which are to have it, as it follows from what the nodes agree on. Each node writes down what
//! it has, under names that are not those of administrators.

use std::collections::{BTreeMap, BTreeSet};

use dvs_state::images::Digest;
use dvs_state::kv::{Key, Operation, Selector};
use dvs_state::nodes::{NodeId, Seat};
use dvs_state::upgrades::Step;
use dvs_state::State;
use sha2::{Digest as _, Sha256};

/// How all these keys begin.
const SPACE: &str = "images/";
/// How many nodes keep an image that has a name, whether they need it or not: with less, it would be lost with a node.
const KEEPERS: usize = 2;

/// The nodes that are to keep an image: of those that are heard, the first in an order that is another one for each image, so that when one
/// goes, nothing changes for the others (rendezvous hashing, Thaler and Ravishankar 1996).
pub(super) fn keepers(state: &State, digest: Digest) -> Vec<NodeId> {
    let rank = |id: NodeId| {
        let mut hash = Sha256::new();
        hash.update(digest.0);
        hash.update(id.to_le_bytes());
        hash.finalize()
    };
    let up = state.nodes().iter().filter(|(_, node)| node.up).map(|(id, _)| id);
    let mut ranked: Vec<_> = up.map(|id| (rank(id), id)).collect();
    ranked.sort();
    ranked.truncate(KEEPERS);
    ranked.into_iter().map(|(_, id)| id).collect()
}

/// The images that the containers of a node are made of.
pub(super) fn used(state: &State, own: NodeId) -> BTreeSet<Digest> {
    let spanning = state.containers().iter().filter(|(_, one)| one.nodes.contains(&own));
    let images = spanning.filter_map(|(id, _)| state.containers().defined(id).workload.image);
    images.map(|image| image.digest).collect()
}

/// The bundle that a node is being upgraded with.
pub(super) fn bundles(state: &State, own: NodeId) -> BTreeSet<Digest> {
    let current = state.upgrades().current().filter(|upgrade| upgrade.is_open());
    let needed = current.filter(|upgrade| {
        let step = upgrade.nodes.get(&own).map(|progress| &progress.step);
        matches!(step, Some(Step::Fetching | Step::Ready | Step::Restarting { .. }))
    });
    needed.map(|upgrade| upgrade.bundle.digest).into_iter().collect()
}

/// The images whose archives a node is to have.
pub(super) fn wanted(state: &State, own: NodeId) -> BTreeSet<Digest> {
    let named = state.images().iter().map(|(_, image)| image.digest);
    let upgrades = state.upgrades().bundles().map(|bundle| bundle.digest);
    let kept = named.chain(upgrades).filter(|digest| keepers(state, *digest).contains(&own));
    kept.chain(used(state, own)).chain(bundles(state, own)).collect()
}

fn key(digest: Digest, node: NodeId) -> Key {
    format!("{SPACE}{digest}/{node}").into_bytes()
}

/// What is written: by which life of a node.
fn written(state: &State) -> impl Iterator<Item = (Digest, Seat)> + '_ {
    let all = state.kv().range(&Selector::Prefix(SPACE.into()));
    all.filter_map(|(key, pair)| {
        let (digest, node) = std::str::from_utf8(key).ok()?.strip_prefix(SPACE)?.split_once('/')?;
        let incarnation = std::str::from_utf8(&pair.value).ok()?.parse().ok()?;
        Some((digest.parse().ok()?, Seat { id: node.parse().ok()?, incarnation }))
    })
}

/// The nodes that have each image, of those that are up.
pub(super) fn holders(state: &State) -> BTreeMap<Digest, BTreeSet<NodeId>> {
    let mut holders: BTreeMap<Digest, BTreeSet<NodeId>> = BTreeMap::new();
    for (digest, seat) in written(state).filter(|(_, seat)| state.nodes().is_up(*seat)) {
        holders.entry(digest).or_default().insert(seat.id);
    }
    holders
}

/// Whether an archive is of use to anybody.
pub(super) fn is_known(state: &State, digest: Digest) -> bool {
    state.images().iter().any(|(_, image)| image.digest == digest)
        || state.containers().images().any(|image| image.digest == digest)
        || state.upgrades().bundles().any(|bundle| bundle.digest == digest)
}

/// What is to be written down so that it says what this node has.
pub(super) fn news(state: &State, own: Seat, had: &BTreeSet<Digest>) -> Vec<Operation> {
    let told: BTreeMap<Digest, Seat> =
        written(state).filter(|(_, seat)| seat.id == own.id).collect();
    let new = had.iter().filter(|digest| told.get(digest) != Some(&own));
    let puts = new.map(|digest| Operation::Put {
        key: key(*digest, own.id),
        value: own.incarnation.to_string().into_bytes(),
        lease: None,
    });
    let gone = told.keys().filter(|digest| !had.contains(digest));
    let deletes =
        gone.map(|digest| Operation::Delete { keys: Selector::Key(key(*digest, own.id)) });
    puts.chain(deletes).collect()
}

#[cfg(test)]
mod tests {
    use dvs_state::containers::{self, Image, Limits, Workload};
    use dvs_state::nodes::{self, Join, Machine, Role};
    use dvs_state::{images, kv, Command, Entry, Time, VERSION};

    use super::*;

    fn agree(state: &mut State, command: &Command) {
        let entry = Entry::new(Time(0), command).unwrap();
        state.apply(state.applied() + 1, &entry).unwrap();
    }

    fn state(nodes: u8) -> State {
        let mut state = State::default();
        let join = |n| Join {
            machine: Machine([2, 0, 0, 0, 0, n]),
            run: 1,
            name: None,
            role: Role::Voter,
            member: Some(1),
            understands: VERSION,
            place: None,
        };
        let joins = (0..nodes).map(join).collect();
        agree(&mut state, &Command::Form { name: "dvs".into(), id: 7, nodes: joins });
        agree(&mut state, &Command::Raise { version: VERSION });
        for id in 0..nodes.into() {
            let up = nodes::Command::SetUp { seat: Seat { id, incarnation: 1 }, up: true };
            agree(&mut state, &Command::Nodes(up));
        }
        state
    }

    fn digest(byte: u8) -> Digest {
        Digest([byte; 32])
    }

    #[test]
    fn each_image_is_kept_by_two_nodes_and_only_what_they_had_moves_when_one_goes() {
        let mut state = state(8);
        let before: Vec<_> = (0..64).map(|byte| keepers(&state, digest(byte))).collect();
        assert!(before.iter().all(|keepers| keepers.len() == KEEPERS));
        let share = before.iter().flatten().filter(|id| **id == 3).count();
        assert!((6..=28).contains(&share), "{share} of 128");
        let down = nodes::Command::SetUp { seat: Seat { id: 3, incarnation: 1 }, up: false };
        agree(&mut state, &Command::Nodes(down));
        for (byte, before) in (0..64).zip(&before) {
            let after = keepers(&state, digest(byte));
            assert!(!after.contains(&3));
            assert!(before.iter().filter(|id| **id != 3).all(|id| after.contains(id)));
        }
    }

    #[test]
    fn a_node_has_what_it_keeps_and_what_its_containers_are_made_of() {
        let mut state = state(4);
        let name = images::Command::Name { name: "a".into(), digest: digest(1), bytes: 1 };
        agree(&mut state, &Command::Images(name));
        let workload = Workload {
            image: Some(Image { name: "b".into(), digest: digest(2) }),
            ..Workload::default()
        };
        let define = containers::Command::Define {
            name: "c".into(),
            nodes: [0, 1].into(),
            limits: Limits::default(),
            workload: Box::new(workload),
        };
        agree(&mut state, &Command::Containers(define));
        assert_eq!(used(&state, 0), [digest(2)].into());
        assert_eq!(used(&state, 2), BTreeSet::new());
        let kept = (0..4).filter(|id| wanted(&state, *id).contains(&digest(1))).count();
        assert_eq!(kept, KEEPERS);
        assert!(is_known(&state, digest(1)) && is_known(&state, digest(2)));
        assert!(!is_known(&state, digest(3)));
    }

    #[test]
    fn what_is_written_is_of_this_life_and_goes_with_what_it_is_about() {
        let mut state = state(2);
        let tell = |state: &mut State, seat, had: &[u8]| {
            let had = had.iter().map(|byte| digest(*byte)).collect();
            let then = news(state, seat, &had);
            let count = then.len();
            let transaction = kv::Transaction { then, ..kv::Transaction::default() };
            agree(state, &Command::Kv(kv::Command::Transact(transaction)));
            count
        };
        let seat = Seat { id: 1, incarnation: 1 };
        assert_eq!(tell(&mut state, seat, &[1, 2]), 2);
        assert_eq!(tell(&mut state, seat, &[1, 2]), 0, "that was said");
        assert_eq!(holders(&state)[&digest(1)], [1].into());
        assert_eq!(tell(&mut state, seat, &[2]), 1);
        assert!(!holders(&state).contains_key(&digest(1)));
        let down = nodes::Command::SetUp { seat, up: false };
        agree(&mut state, &Command::Nodes(down));
        assert!(holders(&state).is_empty());
    }
}
