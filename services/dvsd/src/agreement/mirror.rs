// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the leader has to say about the nodes, so that the agreed state has them as the membership does.
//!
//! The membership gives places and sees who is there, in about two seconds and without agreeing on
//! anything. What others build on, such as who votes and which endpoints are lost, is agreed on, and
//! only the leader proposes it, so that of two views one counts.

use dvs_config::Mac;
use dvs_state::nodes::{self, Join, Machine, MemberId, Phase, Role};
use dvs_state::{events, Command, State, Time, VERSION};

use crate::beacon;
use crate::membership::{Liveness, MemberView, Removal, Removals, Standing, View};

/// The version of the state that a node understands. Beacons say nothing about that: whoever speaks this version of them is
/// of a release that understands this version of the state.
const UNDERSTOOD: u16 = VERSION;
/// How far the clock by which events are stamped may be off before that is put right, in milliseconds.
const CLOCK_MS: u64 = 2_000;

/// Who a node is in the consensus: another one whenever its daemon starts or its place changes, since
/// it has forgotten then how it voted. Every node can tell for every other one.
pub(super) fn member_of(instance: u64, seat: beacon::Seat) -> MemberId {
    // Instances are random, so no two of them meet; the seat only tells lives of one apart.
    instance ^ (u64::from(seat.incarnation) << 16 | u64::from(seat.id))
}

fn machine(mac: Mac) -> Machine {
    Machine(mac.0)
}

pub(crate) fn seat(seat: beacon::Seat) -> nodes::Seat {
    nodes::Seat { id: seat.id, incarnation: seat.incarnation }
}

fn join(member: &MemberView, state: &State) -> Join {
    // The name that people gave it later counts for more than the one that it brings.
    let free = !state.nodes().has_name(member.seat.id, &member.name)
        && !state.lifecycle().is_named(machine(member.mac));
    Join {
        machine: machine(member.mac),
        run: member.instance,
        // Two machines that are called the same are both nodes, one of them by its id.
        name: free.then(|| member.name.clone()),
        role: Role::Voter,
        member: Some(member_of(member.instance, member.seat)),
        understands: UNDERSTOOD,
        place: Some(seat(member.seat)),
    }
}

/// The next thing to propose so that the state has the nodes as `view` does; `None` if it does.
/// `name` is the cluster's.
pub(super) fn next(name: &str, view: &View, state: &State) -> Option<Command> {
    let Standing::Member { cluster, .. } = view.standing else { return None };
    if state.identity().is_none() {
        let mut nodes: Vec<Join> = view.members.iter().map(|member| join(member, state)).collect();
        for at in 1..nodes.len() {
            if nodes[..at].iter().any(|other| other.name == nodes[at].name) {
                nodes[at].name = None;
            }
        }
        return Some(Command::Form { name: name.to_owned(), id: cluster, nodes });
    }
    let understood = state.nodes().understood().unwrap_or(0).min(VERSION);
    if understood > state.version() {
        return Some(Command::Raise { version: understood });
    }
    view.members.iter().find_map(|member| about(member, state)).map(Command::Nodes)
}

/// Who is no node any more, and so must not be in the roster.
pub(super) fn removals(state: &State) -> Removals {
    let gone = state.nodes().removed().filter(|(_, node)| {
        // One that was given another place is a node still.
        state.nodes().of_machine(node.machine).is_none()
    });
    let removal = |(id, node): (u16, &nodes::Node)| {
        let seat = beacon::Seat { id, incarnation: node.incarnation };
        let barred = state.lifecycle().bar(node.machine).is_some();
        (Mac(node.machine.0), Removal { seat, barred })
    };
    gone.map(removal).collect()
}

/// What a leader has to say of itself: that it leads, and what its clock shows. `now` is the agreed time.
pub(super) fn lead(
    view: &View,
    state: &State,
    term: u64,
    now: Time,
    unix_ms: u64,
) -> Option<Command> {
    let Standing::Member { seat: own, .. } = view.standing else { return None };
    let by = seat(own);
    let events = state.events();
    let told = events.led() == Some((by.id, term))
        && events.unix_ms(now).is_some_and(|shown| shown.abs_diff(unix_ms) <= CLOCK_MS);
    let able = state.version() >= 2 && state.nodes().is_present(by);
    (able && !told).then_some(Command::Events(events::Command::Lead { by, term, unix_ms }))
}

fn about(member: &MemberView, state: &State) -> Option<nodes::Command> {
    let place = seat(member.seat);
    let node = state.nodes().get(place.id);
    let known = node.filter(|node| {
        (node.machine, node.run, node.incarnation)
            == (machine(member.mac), member.instance, place.incarnation)
    });
    let Some(known) = known else {
        // A view may be behind what another leader has seen.
        let older = node.is_some_and(|node| {
            node.machine == machine(member.mac) && node.incarnation >= place.incarnation
        });
        let gone = state.nodes().removed().any(|(id, node)| {
            let same = (id, node.machine) == (place.id, machine(member.mac));
            same && node.incarnation >= place.incarnation
        });
        let barred = state.lifecycle().bar(machine(member.mac)).is_some();
        return (!older && !gone && !barred).then(|| nodes::Command::Join(join(member, state)));
    };
    let up = match member.liveness {
        Liveness::Alive => true,
        Liveness::Down => false,
        Liveness::Expected => known.up,
    };
    if up != known.up {
        return Some(nodes::Command::SetUp { seat: place, up });
    }
    let ready = member.ready && up && known.phase == Phase::Joining;
    ready.then_some(nodes::Command::SetPhase { seat: place, phase: Phase::Ready })
}

#[cfg(test)]
mod tests {
    use dvs_state::{Entry, Time};

    use super::*;
    use crate::beacon::{Choice, Seat};

    fn member(id: u16, incarnation: u32, instance: u64) -> MemberView {
        MemberView {
            seat: Seat { id, incarnation },
            mac: Mac([2, 0, 0, 0, 0, id as u8]),
            instance,
            local: id == 0,
            liveness: Liveness::Alive,
            ready: false,
            said: None,
            name: format!("node{id}"),
            choice: Choice::default(),
        }
    }

    fn view(members: Vec<MemberView>) -> View {
        let seat = Seat { id: 0, incarnation: 1 };
        View { standing: Standing::Member { cluster: 9, seat }, members, whole: true }
    }

    /// Does what is to be done until nothing is, and says what that was.
    fn settle(state: &mut State, view: &View) -> Vec<Command> {
        let mut done = Vec::new();
        while let Some(command) = next("lab", view, state) {
            let entry = Entry::new(Time(0), &command).unwrap();
            let outcome = state.apply(done.len() as u64 + 1, &entry);
            assert!(outcome.is_ok(), "{command:?}: {outcome:?}");
            done.push(command);
            assert!(done.len() < 20, "it does not come to an end: {done:?}");
        }
        done
    }

    #[test]
    fn the_state_is_formed_of_all_members_and_follows_them() {
        let mut state = State::default();
        let mut seen = view(vec![member(0, 1, 10), member(1, 1, 11), member(2, 1, 12)]);
        assert!(matches!(
            &settle(&mut state, &seen)[..],
            [Command::Form { id: 9, .. }, Command::Raise { version: VERSION }]
        ));
        let one = state.nodes().get(1).unwrap();
        let as_seated = member_of(11, Seat { id: 1, incarnation: 1 });
        assert_eq!((one.run, one.member, one.up), (11, Some(as_seated), true));

        seen.members[1].liveness = Liveness::Down;
        seen.members[2].ready = true;
        assert_eq!(settle(&mut state, &seen).len(), 2);
        assert!(!state.nodes().get(1).unwrap().up);
        assert_eq!(state.nodes().get(2).unwrap().phase, Phase::Ready);

        // It restarts: another life, and another member.
        seen.members[1] = member(1, 2, 21);
        seen.members[1].liveness = Liveness::Expected;
        seen.members.push(member(3, 1, 13));
        assert_eq!(settle(&mut state, &seen).len(), 2);
        let one = state.nodes().get(1).unwrap();
        assert_eq!((one.incarnation, one.up), (2, true));
        assert_ne!(one.member, Some(as_seated));
        assert_eq!(state.nodes().iter().count(), 4);
    }

    #[test]
    fn a_leader_says_once_that_it_leads_and_again_when_its_clock_was_set() {
        let mut state = State::default();
        let seen = view(vec![member(0, 1, 10), member(1, 1, 11)]);
        assert_eq!(lead(&seen, &state, 1, Time(0), 5_000), None, "there is nothing to say it in");
        settle(&mut state, &seen);
        let mut say = |term, now, unix_ms| {
            let command = lead(&seen, &state, term, Time(now), unix_ms)?;
            let entry = Entry::new(Time(now), &command).unwrap();
            state.apply(state.applied() + 1, &entry).unwrap();
            Some(())
        };
        assert_eq!(say(1, 100, 5_000), Some(()));
        assert_eq!(say(1, 10_100, 15_000 + CLOCK_MS), None);
        assert_eq!(say(1, 10_100, 15_001 + CLOCK_MS), Some(()));
        assert_eq!(say(1, 10_100, 1), Some(()));
        assert_eq!(say(2, 10_200, 101), Some(()));
        let leads =
            state.events().after(0).filter(|(_, event)| event.what.kind() == "leader-elected");
        assert_eq!(leads.count(), 2);
    }

    #[test]
    fn an_old_view_changes_nothing_back() {
        let mut state = State::default();
        settle(&mut state, &view(vec![member(0, 1, 10), member(1, 3, 33)]));
        let before = state.clone();
        settle(&mut state, &view(vec![member(0, 1, 10), member(1, 2, 22)]));
        assert_eq!(state, before);
    }

    #[test]
    fn two_machines_of_one_name_are_both_nodes() {
        let mut state = State::default();
        let mut seen = view(vec![member(0, 1, 10), member(1, 1, 11)]);
        seen.members.iter_mut().for_each(|member| member.name = "east".into());
        settle(&mut state, &seen);
        let mut late = member(2, 1, 12);
        late.name = "east".into();
        seen.members.push(late);
        settle(&mut state, &seen);
        let names: Vec<_> = state.nodes().iter().map(|(_, node)| node.name.clone()).collect();
        assert_eq!(names, ["east", "node1", "node2"]);
    }

    #[test]
    fn a_place_that_two_machines_were_given_is_that_of_the_roster() {
        let mut state = State::default();
        settle(&mut state, &view(vec![member(0, 1, 10), member(1, 1, 11)]));
        let mut other = member(1, 1, 15);
        other.mac = Mac([1; 6]);
        let mut loser = member(1, 1, 11);
        loser.seat = Seat { id: 2, incarnation: 1 };
        settle(&mut state, &view(vec![member(0, 1, 10), other, loser]));
        assert_eq!(state.nodes().get(1).unwrap().machine, Machine([1; 6]));
        assert_eq!(state.nodes().get(2).unwrap().run, 11);
        assert_eq!(state.nodes().iter().count(), 3);
    }
}
