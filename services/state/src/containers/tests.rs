// SPDX-License-Identifier: MIT OR Apache-2.0
//! The rules of containers one by one.

use super::*;
use crate::nodes::{Join, Machine, Role};

fn nodes(count: u8) -> Nodes {
    let mut nodes = Nodes::default();
    for n in 0..count {
        rejoin(&mut nodes, n, 1);
    }
    nodes
}

fn rejoin(nodes: &mut Nodes, n: u8, run: u64) -> Seat {
    let machine = Machine([2, 0, 0, 0, 0, n]);
    let role = Role::Voter;
    let join = Join { machine, run, name: None, role, member: None, understands: 1, place: None };
    nodes.join(&join, 1).unwrap().0
}

fn create(name: &str, nodes: &[NodeId]) -> Command {
    let nodes = nodes.iter().copied().collect();
    Command::Create { name: name.into(), nodes, limits: Limits::default(), image: None }
}

fn seat(id: NodeId) -> Seat {
    Seat { id, incarnation: 1 }
}

#[test]
fn ids_of_deleted_containers_come_back_last() {
    let nodes = nodes(1);
    let mut containers = Containers::default();
    assert_eq!(containers.apply(&nodes, &create("a", &[0])), Ok(Answer::Created(1)));
    containers.apply(&nodes, &Command::Delete { id: 1 }).unwrap();
    assert_eq!(containers.apply(&nodes, &create("a", &[0])), Ok(Answer::Created(2)));
    containers.next_id = ContainerId::MAX;
    assert_eq!(containers.apply(&nodes, &create("b", &[0])), Ok(Answer::Created(u16::MAX)));
    assert_eq!(containers.apply(&nodes, &create("c", &[0])), Ok(Answer::Created(1)));
    assert_eq!(containers.apply(&nodes, &create("d", &[0])), Ok(Answer::Created(3)));
}

#[test]
fn what_makes_no_sense_is_refused_and_leaves_no_trace() {
    let mut nodes = nodes(2);
    nodes.set_phase(seat(1), Phase::Draining).unwrap();
    let mut containers = Containers::default();
    containers.apply(&nodes, &create("a", &[0])).unwrap();
    let before = containers.clone();
    let nothing = Limits { pids: Some(0), ..Limits::default() };
    let take = |id, holder| Command::TakeSlots { id, holder, blocks: 1 };
    for command in [
        create("a", &[0]),
        create("", &[0]),
        create(&"x".repeat(NAME_BYTES + 1), &[0]),
        create("b", &[]),
        create("b", &[1]),
        create("b", &[2]),
        Command::SetLimits { id: 1, limits: nothing },
        Command::Scale { id: 1, nodes: BTreeSet::new() },
        Command::Scale { id: 1, nodes: [0, 1].into() },
        Command::Delete { id: 2 },
        take(2, seat(0)),
        take(1, seat(1)),
        take(1, Seat { id: 0, incarnation: 2 }),
    ] {
        assert!(containers.apply(&nodes, &command).is_err(), "{command:?}");
        assert_eq!(containers, before, "{command:?}");
    }
}

#[test]
fn a_node_that_comes_back_gets_generations_beyond_those_of_its_earlier_life() {
    let mut nodes = nodes(2);
    let mut containers = Containers::default();
    containers.apply(&nodes, &create("a", &[0, 1])).unwrap();
    let take = |holder| Command::TakeSlots { id: 1, holder, blocks: 1 };
    assert_eq!(containers.apply(&nodes, &take(seat(0))), Ok(Answer::Blocks(vec![0])));
    let slots = |containers: &Containers| containers.get(1).unwrap().slots.clone();
    let old = slots(&containers);
    let back = rejoin(&mut nodes, 0, 2);
    containers.node_down(&nodes, 0);
    assert_eq!(slots(&containers).lease(0), None);
    assert_eq!(containers.apply(&nodes, &take(back)), Ok(Answer::Blocks(vec![0])));
    let new = slots(&containers);
    let last = old.lease(0).unwrap().last_generation();
    assert!(new.lease(0).unwrap().first_generation() > last);
    assert!(new.servers(0).unwrap().first_generation() > last);
}

#[test]
fn a_node_that_leaves_a_container_leaves_nothing_there() {
    let nodes = nodes(3);
    let mut containers = Containers::default();
    containers.apply(&nodes, &create("a", &[0, 1])).unwrap();
    let take = Command::TakeSlots { id: 1, holder: seat(0), blocks: 1 };
    containers.apply(&nodes, &take).unwrap();
    let endpoint = 9 << 32 | 3;
    let register = |backups| Command::Register { id: 1, endpoint, at: seat(0), backups };
    assert!(containers.apply(&nodes, &register(vec![2])).is_err(), "node 2 is not in it");
    containers.apply(&nodes, &register(vec![1])).unwrap();
    containers.apply(&nodes, &Command::Scale { id: 1, nodes: [1, 2].into() }).unwrap();
    let container = containers.get(1).unwrap();
    assert_eq!((container.slots.leases().count(), container.slots.servers(0)), (0, None));
    let location = container.endpoints.get(endpoint).unwrap();
    assert_eq!((location.node, location.epoch), (1, 1));
}

#[test]
fn what_a_dead_node_held_goes_to_who_waits_for_it() {
    let nodes = nodes(2);
    let mut containers = Containers::default();
    containers.apply(&nodes, &create("a", &[0, 1])).unwrap();
    let take = |id, blocks| Command::TakeSlots { id: 1, holder: seat(id), blocks };
    containers.apply(&nodes, &take(0, BLOCKS)).unwrap();
    assert_eq!(containers.apply(&nodes, &take(1, 2)), Ok(Answer::Blocks(vec![])));
    containers.node_down(&nodes, 0);
    let slots = &containers.get(1).unwrap().slots;
    assert_eq!((slots.held(0), slots.held(1), slots.wanted().count()), (0, 2, 0));
}
