// SPDX-License-Identifier: MIT OR Apache-2.0
//! The whole state under random commands: replicas agree, snapshots are the state, refusals change nothing, and nothing is
//! held under a lease that has ended.

use dvs_state::containers::{Defined, Network, Publish, Workload};
use dvs_state::events::{self, Sight};
use dvs_state::kv::{Compare, Operation, Order, Selector, Subject, Transaction};
use dvs_state::leases::LeaseId;
use dvs_state::lifecycle::{self, Until};
use dvs_state::nodes::{Join, Machine, Phase, Role, Seat};
use dvs_state::{
    barriers, containers, elections, groups, images, kv, leases, links, locks, nodes, tokens,
};
use dvs_state::{Answer, Command, Entry, Outcome, Refusal, SnapshotError, State, Time, VERSION};
use proptest::prelude::*;

fn join(machine: u8, run: u64) -> Join {
    Join {
        machine: Machine([2, 0, 0, 0, 0, machine]),
        run,
        name: None,
        role: Role::Voter,
        member: Some(run),
        understands: VERSION,
        place: None,
    }
}

fn form() -> Command {
    Command::Form { name: "dvs".into(), id: 7, nodes: vec![join(0, 0), join(1, 0)] }
}

fn apply(state: &mut State, now: u64, command: &Command) -> Outcome {
    state.apply(state.applied() + 1, &Entry::new(Time(now), command).unwrap())
}

fn formed() -> State {
    let mut state = State::default();
    apply(&mut state, 0, &form()).unwrap();
    apply(&mut state, 0, &Command::Raise { version: VERSION }).unwrap();
    state
}

fn grant(state: &mut State, now: u64, ttl_ms: u64) -> LeaseId {
    let command = leases::Command::Grant { ttl_ms, owner: "test".into() };
    match apply(state, now, &Command::Leases(command)) {
        Ok(Answer::Granted(lease)) => lease,
        other => panic!("{other:?}"),
    }
}

fn seat() -> impl Strategy<Value = Seat> {
    (0u16..4, 1u32..4).prop_map(|(id, incarnation)| Seat { id, incarnation })
}

fn lease() -> impl Strategy<Value = LeaseId> {
    (1u64..12).prop_map(LeaseId)
}

fn name() -> impl Strategy<Value = String> {
    "[ab]"
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    "[kl]{1,2}".prop_map(String::into_bytes)
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        (key(), prop::option::of(lease())).prop_map(|(key, lease)| Operation::Put {
            key,
            value: b"v".to_vec(),
            lease
        }),
        key().prop_map(|key| Operation::Delete { keys: Selector::Prefix(key) }),
        key().prop_map(|key| Operation::Get { keys: Selector::Prefix(key), limit: 2 }),
    ]
}

fn kv_command() -> impl Strategy<Value = kv::Command> {
    let compare = (key(), 0u64..3).prop_map(|(key, version)| Compare {
        key,
        order: Order::Equal,
        subject: Subject::Version(version),
    });
    let branch = || prop::collection::vec(operation(), 0..3);
    prop_oneof![
        6 => (prop::collection::vec(compare, 0..2), branch(), branch()).prop_map(
            |(compare, then, otherwise)| {
                kv::Command::Transact(Transaction { compare, then, otherwise })
            }
        ),
        1 => (0u64..20).prop_map(|revision| kv::Command::Compact { revision }),
    ]
}

fn workload() -> impl Strategy<Value = Workload> {
    let network = (prop_oneof![Just(30u8), Just(16)], 0u16..3).prop_map(|(prefix, port)| Network {
        subnet: [10, 1, 0, 0].into(),
        prefix,
        rate: None,
        publish: [Publish { node: port, container: 80 }].into(),
    });
    (prop::option::of(network), "[ab]").prop_map(|(network, word)| Workload {
        command: vec![word],
        network,
        ..Workload::default()
    })
}

fn image_command() -> impl Strategy<Value = images::Command> {
    prop_oneof![
        (name(), 0u8..3).prop_map(|(name, byte)| images::Command::Name {
            name,
            digest: images::Digest([byte; 32]),
            bytes: 1
        }),
        name().prop_map(|name| images::Command::Forget { name }),
    ]
}

fn container_command() -> impl Strategy<Value = containers::Command> {
    use containers::Command as C;
    let id = 1u16..4;
    let spanned = || prop::collection::btree_set(0u16..4, 0..4);
    let endpoint = || (0u64..3, 60u64..67).prop_map(|(generation, slot)| generation << 32 | slot);
    let backups = || prop::collection::vec(0u16..4, 0..3);
    prop_oneof![
        (name(), spanned()).prop_map(|(name, nodes)| C::Create {
            name,
            nodes,
            limits: containers::Limits::default(),
            image: None
        }),
        (name(), spanned(), workload()).prop_map(|(name, nodes, workload)| C::Define {
            name,
            nodes,
            limits: containers::Limits::default(),
            workload: Box::new(workload),
        }),
        (id.clone(), 0u32..3, workload()).prop_map(|(id, revision, workload)| C::Redefine {
            id,
            revision,
            limits: containers::Limits { pids: Some(9), ..containers::Limits::default() },
            workload: Box::new(workload),
        }),
        (id.clone(), spanned()).prop_map(|(id, nodes)| C::Scale { id, nodes }),
        id.clone().prop_map(|id| C::Delete { id }),
        (id.clone(), seat(), prop_oneof![0u32..3, Just(containers::BLOCKS)])
            .prop_map(|(id, holder, blocks)| C::TakeSlots { id, holder, blocks }),
        (id.clone(), seat(), prop::collection::vec(0u16..4, 0..3))
            .prop_map(|(id, holder, blocks)| C::GiveSlots { id, holder, blocks }),
        (id.clone(), seat(), 0u16..4).prop_map(|(id, holder, block)| C::RenewSlots {
            id,
            holder,
            block
        }),
        (id.clone(), endpoint(), seat(), backups())
            .prop_map(|(id, endpoint, at, backups)| C::Register { id, endpoint, at, backups }),
        (id.clone(), endpoint()).prop_map(|(id, endpoint)| C::Unregister { id, endpoint }),
        (id.clone(), endpoint(), 0u32..3, 0u16..4)
            .prop_map(|(id, endpoint, epoch, to)| C::Relocate { id, endpoint, epoch, to }),
        (id, endpoint(), 0u32..3, backups()).prop_map(|(id, endpoint, epoch, backups)| {
            C::SetBackups { id, endpoint, epoch, backups }
        }),
    ]
}

fn node_command() -> impl Strategy<Value = nodes::Command> {
    use nodes::Command as C;
    let phase = prop_oneof![
        4 => Just(Phase::Ready),
        1 => Just(Phase::Draining),
        1 => Just(Phase::Removed),
    ];
    prop_oneof![
        (0u8..5, 0u64..4).prop_map(|(machine, run)| C::Join(join(machine, run))),
        (seat(), phase).prop_map(|(seat, phase)| C::SetPhase { seat, phase }),
        (seat(), any::<bool>()).prop_map(|(seat, up)| C::SetUp { seat, up }),
        (0u16..4, name()).prop_map(|(id, name)| C::Rename { id, name }),
    ]
}

fn service_command() -> impl Strategy<Value = Command> {
    use groups::Command as G;
    let wait = prop_oneof![Just(locks::Wait::InLine), Just(locks::Wait::Never)];
    prop_oneof![
        (400u64..3_000).prop_map(|ttl_ms| {
            Command::Leases(leases::Command::Grant { ttl_ms, owner: String::new() })
        }),
        lease().prop_map(|lease| Command::Leases(leases::Command::KeepAlive(lease))),
        lease().prop_map(|lease| Command::Leases(leases::Command::Revoke(lease))),
        (name(), lease(), 0u32..3, wait).prop_map(|(name, lease, places, wait)| {
            let label = String::new();
            Command::Locks(locks::Command::Acquire { name, lease, places, wait, label })
        }),
        (name(), lease())
            .prop_map(|(name, lease)| Command::Locks(locks::Command::Release { name, lease })),
        (name(), lease()).prop_map(|(name, lease)| {
            Command::Elections(elections::Command::Stand { name, lease, value: vec![] })
        }),
        (name(), lease()).prop_map(|(name, lease)| {
            Command::Elections(elections::Command::Resign { name, lease })
        }),
        (name(), lease(), 0u32..4, 1u64..3).prop_map(|(name, lease, parties, attempt)| {
            Command::Barriers(barriers::Command::Arrive { name, lease, parties, attempt })
        }),
        (name(), lease()).prop_map(|(group, lease)| {
            Command::Groups(G::Join { group, lease, name: "m".into() })
        }),
        (name(), lease(), 1u64..3).prop_map(|(group, lease, number)| {
            Command::Groups(G::Multicast { group, lease, number, payload: vec![1] })
        }),
        (name(), lease(), 0u64..6).prop_map(|(group, lease, up_to)| {
            Command::Groups(G::Acknowledge { group, lease, up_to })
        }),
    ]
}

fn lifecycle_command() -> impl Strategy<Value = lifecycle::Command> {
    use lifecycle::Command as C;
    let until = prop_oneof![Just(Until::Undrained), Just(Until::Back)];
    prop_oneof![
        2 => (seat(), until).prop_map(|(seat, until)| C::Drain { seat, until }),
        2 => (0u16..4).prop_map(|id| C::Undrain { id }),
        1 => seat().prop_map(|seat| C::Remove { seat }),
        2 => (0u8..5).prop_map(|n| C::Allow { machine: Machine([2, 0, 0, 0, 0, n]) }),
    ]
}

fn event_command() -> impl Strategy<Value = events::Command> {
    prop_oneof![
        (seat(), 0u64..4, 0u64..9).prop_map(|(by, term, unix_ms)| events::Command::Lead {
            by,
            term,
            unix_ms
        }),
        (seat(), name()).prop_map(|(by, text)| events::Command::Report {
            by,
            sight: Sight::LinkDown,
            about: None,
            text
        }),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        1 => Just(Command::Tick),
        1 => image_command().prop_map(Command::Images),
        1 => (0u16..5).prop_map(|version| Command::Raise { version }),
        3 => node_command().prop_map(Command::Nodes),
        1 => (name(), prop::option::of(0u64..2_000)).prop_map(|(name, ttl_ms)| {
            let hash = [ttl_ms.unwrap_or(1) as u8; 32];
            Command::Tokens(tokens::Command::Create { name, hash, ttl_ms, uses: Some(1) })
        }),
        1 => (0u8..3).prop_map(|byte| {
            Command::Tokens(tokens::Command::Use { hash: [byte; 32] })
        }),
        1 => (name(), prop::option::of(0u64..2_000), prop::option::of(1u32..3)).prop_map(
            |(name, ttl_ms, uses)| {
                let (public, description) = ([uses.unwrap_or(7) as u8 + 9; 32], String::new());
                let issue = tokens::Command::Issue { name, public, ttl_ms, uses, description };
                Command::Tokens(issue)
            }
        ),
        2 => (name(), 0u8..5).prop_map(|(name, n)| {
            let machine = Machine([2, 0, 0, 0, 0, n]);
            Command::Tokens(tokens::Command::Redeem { name, machine })
        }),
        1 => (0u16..4, 0u16..4).prop_map(|(a, b)| {
            let transport = Some(links::Transport::Tipc);
            Command::Links(links::Command::Choose { a, b, transport })
        }),
        2 => lifecycle_command().prop_map(Command::Lifecycle),
        2 => event_command().prop_map(Command::Events),
        6 => container_command().prop_map(Command::Containers),
        6 => kv_command().prop_map(Command::Kv),
        8 => service_command(),
    ]
}

/// Leases under which something is held.
fn holders(state: &State) -> Vec<LeaseId> {
    let kv = state.kv().range(&Selector::Prefix(vec![])).filter_map(|(_, pair)| pair.lease);
    let lines = state.locks().iter().chain(state.elections().iter());
    let lines = lines.flat_map(|(_, line)| {
        line.holders().map(|(lease, _)| lease).chain(line.waiting().map(|waiter| waiter.lease))
    });
    let barriers = state.barriers().iter().flat_map(|(_, barrier)| barrier.waiting());
    let groups = state
        .groups()
        .iter()
        .flat_map(|(_, group)| group.members().map(|(lease, _)| lease).collect::<Vec<_>>());
    kv.chain(lines).chain(barriers).chain(groups).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_commands_keep_the_rules(
        steps in prop::collection::vec((0u64..600, command()), 1..120),
    ) {
        let (mut state, mut now) = (formed(), 0);
        let mut replica = state.clone();
        for (passed, command) in steps {
            now += passed;
            let entry = Entry::new(Time(now), &command).unwrap();
            let index = state.applied() + 1;
            let mut waited = state.clone();
            waited.apply(index, &Entry::new(Time(now), &Command::Tick).unwrap()).unwrap();
            let outcome = state.apply(index, &entry);
            if outcome.is_err() {
                prop_assert_eq!(&state, &waited, "a refused {:?}", command);
            }
            // A replica that begins anew from a snapshot before every command goes the same way.
            replica = State::from_bytes(&replica.to_bytes().unwrap()).unwrap();
            prop_assert_eq!(replica.apply(index, &entry), outcome);
            prop_assert_eq!(replica.to_bytes().unwrap(), state.to_bytes().unwrap());
            for lease in holders(&state) {
                prop_assert!(state.leases().get(lease).is_some(), "{} is held on", lease);
            }
            for (machine, bar) in state.lifecycle().barred() {
                prop_assert!(state.nodes().of_machine(machine).is_none(), "{:?} is back", bar);
            }
            for (id, node) in state.nodes().iter().filter(|(_, node)| node.phase == Phase::Ready) {
                prop_assert!(!state.lifecycle().is_drained(node.machine), "{} is {:?}", id, node);
            }
            prop_assert!(state.deadline().is_none_or(|deadline| deadline > state.now()));
            for (_, container) in state.containers().iter() {
                for (_, lease) in container.slots.leases() {
                    prop_assert!(state.nodes().is_up(lease.holder), "{:?} holds on", lease);
                    prop_assert!(container.nodes.contains(&lease.holder.id));
                }
                for (_, location) in container.endpoints.iter() {
                    let of = state.nodes().get(location.node);
                    prop_assert!(of.is_some_and(|node| node.up));
                    prop_assert!(container.nodes.contains(&location.node));
                }
            }
        }
    }
}

#[test]
fn nothing_can_be_done_before_the_cluster_is_formed_and_it_is_formed_once() {
    let mut state = State::default();
    let put = Command::Kv(kv::Command::Compact { revision: 0 });
    assert_eq!(apply(&mut state, 0, &put), Err(Refusal::NotFormed));
    assert_eq!(apply(&mut state, 0, &form()), Ok(Answer::Changed(true)));
    assert_eq!(apply(&mut state, 0, &form()), Ok(Answer::Changed(false)));
    let other = Command::Form { name: "dvs".into(), id: 8, nodes: vec![join(0, 0)] };
    assert!(matches!(apply(&mut state, 0, &other), Err(Refusal::Invalid(_))));
    assert_eq!((state.identity().unwrap().id, state.nodes().iter().count()), (7, 2));
}

#[test]
fn a_command_of_a_later_version_is_refused_and_not_misread() {
    let mut state = formed();
    // What a later release would write: its bytes happen to be those of a command of today.
    let body = postcard::to_allocvec(&Command::Raise { version: 1 }).unwrap();
    let later = VERSION + 1;
    let entry = |needs: u16, body: &[u8]| -> Entry {
        let bytes = postcard::to_allocvec(&(needs, Time(0), body)).unwrap();
        postcard::from_bytes(&bytes).unwrap()
    };
    let refused = state.apply(2, &entry(later, &body));
    assert_eq!(refused, Err(Refusal::TooNew { needed: later, agreed: VERSION }));
    assert_eq!(state.apply(3, &entry(1, &body)), Ok(Answer::Changed(false)));
    let longer = [&body[..], &[0]].concat();
    for bytes in [&longer[..], &[], &[200], &body[..1]] {
        assert_eq!(state.apply(4, &entry(1, bytes)), Err(Refusal::Malformed), "{bytes:?}");
    }
}

#[test]
fn a_version_is_raised_only_when_every_node_understands_it() {
    let mut state = formed();
    let later = VERSION + 1;
    let raise = Command::Raise { version: later };
    assert!(matches!(apply(&mut state, 0, &raise), Err(Refusal::TooNew { .. })));
    for machine in [0, 1] {
        let newer = Join { understands: later, ..join(machine, 1) };
        apply(&mut state, 0, &Command::Nodes(nodes::Command::Join(newer))).unwrap();
    }
    assert_eq!(apply(&mut state, 0, &raise), Ok(Answer::Changed(true)));
    let older = Command::Nodes(nodes::Command::Join(join(2, 1)));
    assert!(matches!(apply(&mut state, 0, &older), Err(Refusal::TooNew { .. })));
    // This release does not know that version, and says so instead of guessing.
    let bytes = state.to_bytes().unwrap();
    assert_eq!(State::from_bytes(&bytes), Err(SnapshotError::TooNew { version: later }));
}

#[test]
fn damaged_snapshots_are_refused() {
    let bytes = formed().to_bytes().unwrap();
    assert_eq!(State::from_bytes(&bytes).unwrap(), formed());
    for end in 0..bytes.len() {
        assert_eq!(State::from_bytes(&bytes[..end]), Err(SnapshotError::Malformed), "{end}");
    }
    assert_eq!(State::from_bytes(&[&bytes[..], &[0]].concat()), Err(SnapshotError::Malformed));
}

#[test]
fn time_never_goes_back() {
    let mut state = formed();
    let lease = grant(&mut state, 5_000, 1_000);
    apply(&mut state, 100, &Command::Tick).unwrap();
    assert_eq!(state.now(), Time(5_000));
    assert_eq!(state.deadline(), Some(Time(6_000)));
    apply(&mut state, 6_000, &Command::Tick).unwrap();
    assert_eq!(state.leases().get(lease), None);
}

#[test]
fn what_is_held_ends_with_its_lease_whatever_the_next_command_is() {
    let mut state = formed();
    let [dies, lives] = [grant(&mut state, 0, 1_000), grant(&mut state, 0, 10_000)];
    for lease in [dies, lives] {
        let acquire = locks::Command::Acquire {
            name: "l".into(),
            lease,
            places: 1,
            wait: locks::Wait::InLine,
            label: String::new(),
        };
        apply(&mut state, 0, &Command::Locks(acquire)).unwrap();
        let stand = elections::Command::Stand { name: "e".into(), lease, value: b"here".to_vec() };
        apply(&mut state, 0, &Command::Elections(stand)).unwrap();
    }
    assert_eq!(state.elections().leader("e").unwrap().lease, dies);
    // Even a command that is refused lets time pass.
    let nonsense = Command::Links(links::Command::Choose { a: 0, b: 0, transport: None });
    assert!(apply(&mut state, 1_000, &nonsense).is_err());
    assert_eq!(state.elections().leader("e").unwrap().lease, lives);
    let holders: Vec<_> = state.locks().get("l").unwrap().holders().map(|(id, _)| id).collect();
    assert_eq!(holders, [lives]);
}

#[test]
fn a_removed_node_leaves_no_trace_but_its_incarnations() {
    let mut state = formed();
    let node = Seat { id: 1, incarnation: 1 };
    let commands = [
        Command::Links(links::Command::Choose {
            a: 0,
            b: 1,
            transport: Some(links::Transport::Tcp),
        }),
        Command::Containers(containers::Command::Create {
            name: "c".into(),
            nodes: [0, 1].into(),
            limits: containers::Limits::default(),
            image: None,
        }),
        Command::Containers(containers::Command::TakeSlots { id: 1, holder: node, blocks: 1 }),
        Command::Nodes(nodes::Command::SetPhase { seat: node, phase: Phase::Removed }),
    ];
    for command in commands {
        apply(&mut state, 0, &command).unwrap();
    }
    let container = state.containers().get(1).unwrap();
    assert_eq!(container.nodes, [0].into());
    assert_eq!(container.slots.leases().count(), 0);
    assert_eq!(state.links().iter().count(), 0);
    let back = apply(&mut state, 0, &Command::Nodes(nodes::Command::Join(join(1, 9))));
    assert_eq!(back, Ok(Answer::Seated(Seat { id: 1, incarnation: 2 })));
}

#[test]
fn a_snapshot_of_the_first_version_is_as_releases_of_it_read_it_and_has_no_events() {
    let mut state = State::default();
    apply(&mut state, 0, &form()).unwrap();
    let lead = Command::Events(events::Command::Lead {
        by: Seat { id: 0, incarnation: 1 },
        term: 1,
        unix_ms: 5,
    });
    let refused = apply(&mut state, 0, &lead);
    assert_eq!(refused, Err(Refusal::TooNew { needed: 2, agreed: 1 }));
    let first = state.to_bytes().unwrap();
    assert_eq!(state.events().last(), 0);
    assert_eq!(State::from_bytes(&first).unwrap(), state);
    apply(&mut state, 0, &Command::Raise { version: VERSION }).unwrap();
    apply(&mut state, 0, &lead).unwrap();
    let kinds: Vec<_> = state.events().after(0).map(|(_, event)| event.what.kind()).collect();
    assert_eq!(
        kinds,
        ["log-begun", "node-joined", "node-joined", "version-raised", "leader-elected"]
    );
    let second = state.to_bytes().unwrap();
    assert_eq!(State::from_bytes(&second).unwrap(), state);
    // It begins with the state of the first version, of which the version and the place in the log differ.
    assert_eq!(first[2..], second[2..first.len()]);
}

#[test]
fn a_snapshot_of_the_second_version_has_no_workloads() {
    let mut state = State::default();
    apply(&mut state, 0, &form()).unwrap();
    apply(&mut state, 0, &Command::Raise { version: 2 }).unwrap();
    let define = Command::Containers(containers::Command::Define {
        name: "c".into(),
        nodes: [0].into(),
        limits: containers::Limits::default(),
        workload: Box::new(Workload { command: vec!["true".into()], ..Workload::default() }),
    });
    let name =
        images::Command::Name { name: "i".into(), digest: images::Digest([1; 32]), bytes: 1 };
    let name = Command::Images(name);
    for later in [&define, &name] {
        let refused = apply(&mut state, 0, later);
        assert_eq!(refused, Err(Refusal::TooNew { needed: 3, agreed: 2 }));
    }
    let second = state.to_bytes().unwrap();
    assert_eq!(State::from_bytes(&second).unwrap(), state);
    apply(&mut state, 0, &Command::Raise { version: 3 }).unwrap();
    apply(&mut state, 0, &define).unwrap();
    apply(&mut state, 0, &name).unwrap();
    let back = State::from_bytes(&state.to_bytes().unwrap()).unwrap();
    assert_eq!(back, state);
    assert_eq!(back.containers().defined(1).workload.command, ["true"]);
    assert!(back.images().get("i").is_some());
}

#[test]
fn whoever_has_not_seen_the_last_change_of_a_container_changes_nothing() {
    let mut state = formed();
    let define = |name: &str, workload| {
        Command::Containers(containers::Command::Define {
            name: name.into(),
            nodes: [0, 1].into(),
            limits: containers::Limits::default(),
            workload: Box::new(workload),
        })
    };
    let network = |prefix, port| Workload {
        network: Some(Network {
            subnet: [10, 1, 0, 0].into(),
            prefix,
            rate: None,
            publish: [Publish { node: port, container: 80 }].into(),
        }),
        ..Workload::default()
    };
    apply(&mut state, 0, &define("a", network(16, 80))).unwrap();
    assert!(apply(&mut state, 0, &define("b", network(16, 80))).is_err(), "the port is taken");
    apply(&mut state, 0, &define("b", network(16, 81))).unwrap();
    let redefine = |revision, workload| {
        Command::Containers(containers::Command::Redefine {
            id: 1,
            revision,
            limits: containers::Limits::default(),
            workload: Box::new(workload),
        })
    };
    assert!(apply(&mut state, 0, &redefine(0, network(16, 81))).is_err());
    let small = network(30, 80);
    assert!(apply(&mut state, 0, &redefine(1, small.clone())).is_err(), "there was no change yet");
    apply(&mut state, 0, &redefine(0, small.clone())).unwrap();
    assert_eq!(state.containers().defined(1), Defined { revision: 1, workload: small.clone() });
    assert!(apply(&mut state, 0, &redefine(0, small)).is_err(), "that was for the one before");
    let scale = |nodes: &[u16]| {
        let nodes = nodes.iter().copied().collect();
        Command::Containers(containers::Command::Scale { id: 1, nodes })
    };
    for machine in 2..4 {
        apply(&mut state, 0, &Command::Nodes(nodes::Command::Join(join(machine, 0)))).unwrap();
    }
    assert!(apply(&mut state, 0, &scale(&[0, 2])).is_err(), "the network has two addresses");
    apply(&mut state, 0, &scale(&[0])).unwrap();
    apply(&mut state, 0, &Command::Containers(containers::Command::Delete { id: 1 })).unwrap();
    assert_eq!(state.containers().defined(1), Defined::default());
    apply(&mut state, 0, &define("c", network(16, 80))).unwrap();
}

#[test]
fn what_is_decided_is_recorded_once_and_what_is_refused_or_repeated_is_not() {
    let mut state = formed();
    let from = state.events().last();
    let seat = Seat { id: 1, incarnation: 1 };
    let up = |up| Command::Nodes(nodes::Command::SetUp { seat, up });
    let phase = |phase| Command::Nodes(nodes::Command::SetPhase { seat, phase });
    let create = |name: &str| {
        Command::Containers(containers::Command::Create {
            name: name.into(),
            nodes: [0, 1].into(),
            limits: containers::Limits::default(),
            image: None,
        })
    };
    let token = |name: &str, byte, ttl_ms| {
        let (name, hash) = (name.to_owned(), [byte; 32]);
        Command::Tokens(tokens::Command::Create { name, hash, ttl_ms, uses: None })
    };
    let scale = containers::Command::Scale { id: 1, nodes: [0].into() };
    let rename = |name: &str| Command::Nodes(nodes::Command::Rename { id: 1, name: name.into() });
    let steps = [
        (up(true), true),
        (up(false), true),
        (up(false), true),
        (up(true), true),
        (phase(Phase::Ready), true),
        (phase(Phase::Ready), true),
        (phase(Phase::Draining), true),
        (phase(Phase::Ready), true),
        (rename("node0"), false),
        (rename("east"), true),
        (rename("east"), true),
        (create("c"), true),
        (create("c"), false),
        (Command::Containers(scale), true),
        (Command::Containers(containers::Command::Delete { id: 1 }), true),
        (Command::Containers(containers::Command::Delete { id: 1 }), false),
        (token("a", 1, Some(50)), true),
        (token("b", 2, None), true),
        (Command::Tokens(tokens::Command::Use { hash: [2; 32] }), true),
        (Command::Tokens(tokens::Command::Use { hash: [3; 32] }), false),
        (Command::Tokens(tokens::Command::Revoke { name: "b".into() }), true),
        (phase(Phase::Removed), true),
        (Command::Nodes(nodes::Command::Join(join(1, 9))), true),
        (Command::Nodes(nodes::Command::Join(join(1, 9))), true),
    ];
    for (command, held) in steps {
        assert_eq!(apply(&mut state, 10, &command).is_ok(), held, "{command:?}");
    }
    apply(&mut state, 60, &Command::Tick).unwrap();
    let found: Vec<_> = state.events().after(from).collect();
    let kinds: Vec<_> = found.iter().map(|(_, event)| event.what.kind()).collect();
    assert_eq!(
        kinds,
        [
            "node-down",
            "node-up",
            "node-ready",
            "node-draining",
            "node-ready",
            "node-renamed",
            "container-created",
            "container-scaled",
            "container-deleted",
            "token-created",
            "token-created",
            "token-used",
            "token-revoked",
            "node-removed",
            "node-joined",
            "token-expired",
        ]
    );
    let texts: Vec<_> = found.iter().map(|(_, event)| event.what.to_string()).collect();
    assert_eq!(texts[5], "node 1 is named east and no longer node1");
    assert_eq!(texts[7], "container 1, c, spans nodes 0");
    assert_eq!(texts[14], "machine 02:00:00:00:00:01 is node 1 in incarnation 2, named east");
}

#[test]
fn a_drained_node_stays_empty_when_it_restarts_and_one_that_is_restarted_does_not() {
    let mut state = formed();
    let phase = |state: &State| state.nodes().get(1).unwrap().phase;
    let drain = |incarnation, until| {
        let seat = Seat { id: 1, incarnation };
        Command::Lifecycle(lifecycle::Command::Drain { seat, until })
    };
    let back = |run| Command::Nodes(nodes::Command::Join(join(1, run)));
    let place = Command::Containers(containers::Command::Create {
        name: "c".into(),
        nodes: [1].into(),
        limits: containers::Limits::default(),
        image: None,
    });
    apply(&mut state, 0, &drain(1, Until::Back)).unwrap();
    assert_eq!(phase(&state), Phase::Draining);
    assert!(apply(&mut state, 0, &place).unwrap_err().to_string().contains("is draining"));
    apply(&mut state, 0, &back(2)).unwrap();
    assert_eq!(phase(&state), Phase::Joining);
    assert!(apply(&mut state, 0, &drain(1, Until::Undrained)).is_err(), "an earlier life");
    apply(&mut state, 0, &drain(2, Until::Undrained)).unwrap();
    apply(&mut state, 0, &back(3)).unwrap();
    assert_eq!(phase(&state), Phase::Draining);
    apply(&mut state, 0, &Command::Lifecycle(lifecycle::Command::Undrain { id: 1 })).unwrap();
    assert_eq!(phase(&state), Phase::Ready);
    apply(&mut state, 0, &place).unwrap();
    apply(&mut state, 0, &back(4)).unwrap();
    assert_eq!(phase(&state), Phase::Joining);
}

#[test]
fn a_machine_that_was_removed_is_kept_out_until_it_is_allowed() {
    let mut state = formed();
    let seat = Seat { id: 1, incarnation: 1 };
    let machine = Machine([2, 0, 0, 0, 0, 1]);
    apply(&mut state, 7, &Command::Lifecycle(lifecycle::Command::Remove { seat })).unwrap();
    assert_eq!(state.nodes().removed().map(|(id, _)| id).collect::<Vec<_>>(), [1]);
    let bar = state.lifecycle().bar(machine).unwrap();
    assert_eq!((bar.seat, bar.name.as_str(), bar.since), (seat, "node1", Time(7)));
    let back = Command::Nodes(nodes::Command::Join(join(1, 2)));
    let refused = apply(&mut state, 8, &back).unwrap_err().to_string();
    assert!(refused.contains("was node 1, node1, and was removed"), "{refused}");
    let allow = Command::Lifecycle(lifecycle::Command::Allow { machine });
    assert_eq!(apply(&mut state, 9, &allow), Ok(Answer::Changed(true)));
    assert_eq!(apply(&mut state, 9, &allow), Ok(Answer::Changed(false)));
    let seat = Seat { id: 1, incarnation: 2 };
    assert_eq!(apply(&mut state, 9, &back), Ok(Answer::Seated(seat)));
}

#[test]
fn as_many_machines_join_with_a_token_as_may_and_each_of_them_again() {
    let mut state = formed();
    let issue = |name: &str, byte, uses| {
        let (name, description) = (name.to_owned(), "for rack 3".to_owned());
        let public = [byte; 32];
        Command::Tokens(tokens::Command::Issue {
            name,
            public,
            ttl_ms: Some(100),
            uses,
            description,
        })
    };
    let machine = |n| Machine([2, 0, 0, 0, 0, n]);
    let redeem = |name: &str, n| {
        let (name, machine) = (name.to_owned(), machine(n));
        Command::Tokens(tokens::Command::Redeem { name, machine })
    };
    apply(&mut state, 0, &issue("t", 1, Some(2))).unwrap();
    for n in [5, 6, 5, 6] {
        apply(&mut state, 1, &redeem("t", n)).unwrap();
    }
    let refused = apply(&mut state, 1, &redeem("t", 7)).unwrap_err().to_string();
    assert!(refused.contains("join token t is used up"), "{refused}");
    assert_eq!(state.token_notes()["t"].machines, [machine(5), machine(6)].into());
    assert_eq!(state.tokens().get("t").unwrap().uses_left, Some(0));
    assert!(apply(&mut state, 1, &redeem("u", 5)).is_err());
    // Whoever was removed needs a token that was made after that.
    let seat = Seat { id: 1, incarnation: 1 };
    apply(&mut state, 2, &issue("before", 2, None)).unwrap();
    apply(&mut state, 3, &Command::Lifecycle(lifecycle::Command::Remove { seat })).unwrap();
    let refused = apply(&mut state, 4, &redeem("before", 1)).unwrap_err().to_string();
    assert!(refused.contains("was removed after join token before was created"), "{refused}");
    apply(&mut state, 5, &issue("after", 3, None)).unwrap();
    apply(&mut state, 5, &redeem("after", 1)).unwrap();
    assert_eq!(state.lifecycle().bar(machine(1)), None);
    let uses = state.events().after(0).filter(|(_, event)| event.what.kind() == "token-used");
    assert_eq!(uses.count(), 3);
    // It is over for those as well that have joined.
    apply(&mut state, 100, &Command::Tick).unwrap();
    assert!(apply(&mut state, 100, &redeem("t", 5)).is_err());
    assert!(!state.token_notes().contains_key("t"));
}
