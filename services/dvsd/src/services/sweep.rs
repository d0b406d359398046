// SPDX-License-Identifier: MIT OR Apache-2.0
//! What containers have left behind that are no more: keys, and leases with what is held under them.

use dvs_consensus::Consensus;
use dvs_state::containers::ContainerId;
use dvs_state::kv::{self, Operation, Selector, Transaction};
use dvs_state::leases;
use dvs_state::{Command, State};

use super::space::{Space, SPACES};

/// If this node leads, removes what is left of containers that are no more. What cannot be removed now is found again.
pub(super) async fn sweep(consensus: &Consensus) {
    while consensus.is_leader() {
        let Some(command) = consensus.look(next) else { return };
        if !matches!(consensus.propose(&command).await, Ok(Ok(_))) {
            return;
        }
    }
}

/// The next thing to remove.
fn next(state: &State) -> Option<Command> {
    let is_gone = |id: &ContainerId| state.containers().get(*id).is_none();
    let lease = state
        .leases()
        .iter()
        .find(|(_, it)| owner(it.owner.as_bytes()).is_some_and(|id| is_gone(&id)));
    if let Some((lease, _)) = lease {
        return Some(Command::Leases(leases::Command::Revoke(lease)));
    }
    let all = Selector::Prefix(SPACES.into());
    let gone = state.kv().range(&all).find_map(|(key, _)| owner(key).filter(is_gone))?;
    let keys = Selector::Prefix(Space::of(gone).key(&[]));
    let transaction = Transaction::of(vec![Operation::Delete { keys }]);
    Some(Command::Kv(kv::Command::Transact(transaction)))
}

/// Which container something belongs to, by how its name begins.
fn owner(name: &[u8]) -> Option<ContainerId> {
    let rest = name.strip_prefix(SPACES.as_bytes())?;
    let id = rest.split(|byte| *byte == b'/').next()?;
    std::str::from_utf8(id).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use dvs_state::containers::{self, Limits};
    use dvs_state::nodes::{Join, Machine, Role};
    use dvs_state::{Entry, Time, VERSION};

    use super::*;

    fn agree(state: &mut State, command: &Command) {
        let entry = Entry::new(Time(0), command).unwrap();
        state.apply(state.applied() + 1, &entry).unwrap();
    }

    fn put(state: &mut State, key: &[u8]) {
        let (key, value) = (key.to_vec(), b"x".to_vec());
        let put = Operation::Put { key, value, lease: None };
        agree(state, &Command::Kv(kv::Command::Transact(Transaction::of(vec![put]))));
    }

    #[test]
    fn what_a_container_left_behind_is_removed_and_nothing_else() {
        let mut state = State::default();
        let node = Join {
            machine: Machine([2, 0, 0, 0, 0, 0]),
            run: 1,
            name: None,
            role: Role::Voter,
            member: Some(1),
            understands: VERSION,
            place: None,
        };
        agree(&mut state, &Command::Form { name: "dvs".into(), id: 7, nodes: vec![node] });
        agree(&mut state, &Command::Raise { version: VERSION });
        let create = |name: &str| {
            Command::Containers(containers::Command::Create {
                name: name.into(),
                nodes: BTreeSet::from([0]),
                limits: Limits::default(),
                image: None,
            })
        };
        agree(&mut state, &create("red"));
        agree(&mut state, &create("blue"));
        for key in [&b"dc/1/a"[..], b"dc/1/\xff", b"dc/2/a", b"cluster/dc/1/a", b"containers/1/0"] {
            put(&mut state, key);
        }
        for owner in ["dc/1/worker", "dc/2/worker", "dvsctl"] {
            let grant = leases::Command::Grant { ttl_ms: 60_000, owner: owner.into() };
            agree(&mut state, &Command::Leases(grant));
        }
        assert_eq!(next(&state), None);
        agree(&mut state, &Command::Containers(containers::Command::Delete { id: 1 }));
        let mut done = 0;
        while let Some(command) = next(&state) {
            agree(&mut state, &command);
            done += 1;
            assert!(done < 10, "it does not come to an end: {command:?}");
        }
        let keys: Vec<_> = state.kv().range(&Selector::Prefix(Vec::new())).map(|it| it.0).collect();
        assert_eq!(keys, [&b"cluster/dc/1/a"[..], b"containers/1/0", b"dc/2/a"]);
        let owners: Vec<_> = state.leases().iter().map(|(_, it)| it.owner.as_str()).collect();
        assert_eq!(owners, ["dc/2/worker", "dvsctl"]);
    }
}
