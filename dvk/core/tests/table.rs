// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The endpoint table against maps.

mod model;

use dvk_core::abi::errno::Errno;
use dvk_core::abi::limits::{LEASE_SLOTS, SERVER_SLOTS, SLOTS};
use dvk_core::abi::Endpoint;
use dvk_core::table::{Lease, Route, Table};
use model::{allow_allocations, endpoint, refuse_allocation_after, reproducible, TestStorage};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

const LOCAL: u16 = 1;
/// Blocks that the model leases: the last one of the table and some after the server slots.
const BLOCKS: [u32; 4] = [2, 3, 5, SLOTS / LEASE_SLOTS - 1];

/// What is kept for a port: its endpoint, to tell that the right one comes back.
type Ports = Table<Endpoint, TestStorage>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    Here,
    On(u16),
}

/// The table, said naively: newest generations, who is bound, who may bind.
#[derive(Clone, Debug, Default)]
struct Model {
    newest: BTreeMap<u32, u32>,
    bound: BTreeMap<u32, Where>,
    leases: BTreeMap<u32, (u16, u32)>,
    server_floor: Option<u32>,
    cap: usize,
}

impl Model {
    fn newest(&self, slot: u32) -> u32 {
        self.newest.get(&slot).copied().unwrap_or(0)
    }

    fn here(&self) -> impl Iterator<Item = Endpoint> + '_ {
        let here = self.bound.iter().filter(|(_, at)| **at == Where::Here);
        here.map(|(slot, _)| endpoint(*slot, self.newest(*slot)))
    }

    fn next(&self, slot: u32, floor: u32) -> Option<Endpoint> {
        Some(endpoint(slot, self.newest(slot).checked_add(1)?.max(floor)))
    }

    fn bind(&mut self, endpoint: Endpoint) {
        self.newest.insert(endpoint.slot(), endpoint.generation());
        self.bound.insert(endpoint.slot(), Where::Here);
    }

    /// Every endpoint that a bind to any slot may give.
    fn bindable(&self) -> Vec<Endpoint> {
        if self.here().count() >= self.cap {
            return Vec::new();
        }
        let mine = self.leases.iter().filter(|(_, (node, _))| *node == LOCAL);
        mine.flat_map(|(block, (_, floor))| {
            (block * LEASE_SLOTS..(block + 1) * LEASE_SLOTS)
                .filter(|slot| !self.bound.contains_key(slot))
                .filter_map(|slot| self.next(slot, *floor))
        })
        .collect()
    }

    fn bind_server(&self, slot: u32) -> Result<Endpoint, Errno> {
        if slot >= SERVER_SLOTS {
            return Err(Errno::Invalid);
        }
        if self.here().count() >= self.cap {
            return Err(Errno::Limit);
        }
        let floor = self.server_floor.ok_or(Errno::Limit)?;
        if self.bound.contains_key(&slot) {
            return Err(Errno::Busy);
        }
        self.next(slot, floor).ok_or(Errno::Limit)
    }

    fn lease(&mut self, node: u16, blocks: std::ops::Range<u32>, floor: u32) -> Result<(), Errno> {
        for block in blocks.clone() {
            if self.leases.get(&block).is_some_and(|(holder, _)| *holder != node) {
                return Err(Errno::Busy);
            }
        }
        for block in blocks {
            let known = self.leases.entry(block).or_insert((node, floor));
            known.1 = known.1.max(floor);
        }
        if node == LOCAL {
            self.server_floor = Some(self.server_floor.map_or(floor, |known| known.max(floor)));
        }
        Ok(())
    }

    fn set_remote(&mut self, endpoint: Endpoint, node: u16) -> Result<(), Errno> {
        if !endpoint.is_name() || node == LOCAL {
            return Err(Errno::Invalid);
        }
        let (slot, generation) = (endpoint.slot(), endpoint.generation());
        let known = self.newest(slot);
        if generation < known {
            return Err(Errno::Stale);
        }
        match self.bound.get(&slot) {
            Some(Where::Here) => return Err(Errno::Busy),
            Some(Where::On(at)) if generation == known && *at != node => return Err(Errno::Busy),
            None if generation == known => return Err(Errno::Stale),
            _ => {}
        }
        self.newest.insert(slot, generation);
        self.bound.insert(slot, Where::On(node));
        Ok(())
    }

    fn forget_remote(&mut self, endpoint: Endpoint) -> Result<(), Errno> {
        let slot = endpoint.slot();
        let remote = matches!(self.bound.get(&slot), Some(Where::On(_)));
        if !remote || self.newest(slot) != endpoint.generation() {
            return Err(Errno::NoEndpoint);
        }
        self.bound.remove(&slot);
        Ok(())
    }

    fn remove_node(&mut self, node: u16) {
        self.leases.retain(|_, (holder, _)| *holder != node);
        self.bound.retain(|_, at| *at != Where::On(node));
        if node == LOCAL {
            self.server_floor = None;
        }
    }

    /// Where `endpoint` is; an empty slot of the table and one never heard of are the same.
    fn route(&self, endpoint: Endpoint) -> Result<Where, Errno> {
        if !endpoint.is_name() {
            return Err(Errno::Invalid);
        }
        let known = self.newest(endpoint.slot());
        if endpoint.generation() < known {
            return Err(Errno::Stale);
        }
        if endpoint.generation() == known {
            return self.bound.get(&endpoint.slot()).copied().ok_or(Errno::Stale);
        }
        match self.leases.get(&(endpoint.slot() / LEASE_SLOTS)) {
            Some((node, _)) if *node != LOCAL => Ok(Where::On(*node)),
            _ => Err(Errno::NoEndpoint),
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Lease {
        node: u16,
        first: usize,
        blocks: u32,
        generation: u32,
    },
    BindAny,
    BindServer(u32),
    /// The maker of the port has no memory.
    BindWithoutPort(Option<u32>),
    Unbind(Endpoint),
    UnbindBound(prop::sample::Index),
    SetRemote(Endpoint, u16),
    Forget(Endpoint),
    RemoveNode(u16),
    TakeLocal,
}

fn node() -> impl Strategy<Value = u16> {
    0..3u16
}

fn slot() -> impl Strategy<Value = u32> {
    prop_oneof![
        0..3u32,
        (prop::sample::select(&BLOCKS[..]), 0..3u32).prop_map(|(b, at)| b * LEASE_SLOTS + at),
    ]
}

fn some_endpoint() -> impl Strategy<Value = Endpoint> {
    let generation = prop_oneof![8 => 1..9u32, 1 => Just(u32::MAX), 1 => Just(u32::MAX - 1)];
    (slot(), generation).prop_map(|(slot, generation)| endpoint(slot, generation))
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (node(), 0..BLOCKS.len(), 0..3u32, 1..9u32).prop_map(
            |(node, first, blocks, generation)| Op::Lease { node, first, blocks, generation }
        ),
        6 => Just(Op::BindAny),
        4 => (0..4u32).prop_map(Op::BindServer),
        1 => prop::option::of(0..3u32).prop_map(Op::BindWithoutPort),
        2 => some_endpoint().prop_map(Op::Unbind),
        6 => any::<prop::sample::Index>().prop_map(Op::UnbindBound),
        5 => (some_endpoint(), node()).prop_map(|(endpoint, node)| Op::SetRemote(endpoint, node)),
        3 => some_endpoint().prop_map(Op::Forget),
        1 => node().prop_map(Op::RemoveNode),
        1 => Just(Op::TakeLocal),
    ]
}

/// Checks that `table` says what `model` says of every endpoint that could tell them apart.
fn compare(table: &Ports, model: &Model) -> Result<(), TestCaseError> {
    prop_assert_eq!(table.bound() as usize, model.here().count());
    let mut here = BTreeSet::new();
    table.for_each_local(|port| {
        here.insert(*port);
    });
    prop_assert_eq!(&here, &model.here().collect::<BTreeSet<_>>());
    let slots =
        model.newest.keys().copied().chain(BLOCKS.map(|block| block * LEASE_SLOTS)).chain([0]);
    for slot in slots {
        let known = model.newest(slot);
        for generation in [known.saturating_sub(1), known, known.saturating_add(1), u32::MAX] {
            let Some(generation) = NonZeroU32::new(generation) else { continue };
            let asked = Endpoint::new(slot, generation);
            let found = table.route(asked);
            if let Ok(Route::Local(port)) = &found {
                prop_assert_eq!(**port, asked);
            }
            let found = found.map(|route| match route {
                Route::Local(_) => Where::Here,
                Route::Remote(node) => Where::On(node),
            });
            let expected = model.route(asked);
            prop_assert_eq!(found, expected, "{}", asked);
            for node in 0..3 {
                // A later generation of a server slot may be new to us, but not somebody else's.
                let holder = NonZeroU32::new(known)
                    .and_then(|newest| model.route(Endpoint::new(slot, newest)).ok());
                let may_speak = expected == Ok(Where::On(node))
                    || (expected == Err(Errno::NoEndpoint)
                        && slot < SERVER_SLOTS
                        && holder.is_none_or(|holder| holder == Where::On(node)));
                prop_assert_eq!(table.may_speak(asked, node), may_speak, "{} on {}", asked, node);
            }
        }
    }
    Ok(())
}

/// Carries out `op` on both and checks that the results are the same; `given` holds every endpoint
/// value that was ever bound here.
fn run(
    op: &Op,
    table: &mut Ports,
    model: &mut Model,
    given: &mut BTreeSet<Endpoint>,
) -> Result<(), TestCaseError> {
    let before = model.clone();
    let out_of_memory;
    match op {
        Op::Lease { node, first, blocks, generation } => {
            let first = BLOCKS[*first];
            let lease = Lease {
                node: *node,
                first_slot: first * LEASE_SLOTS,
                slots: blocks * LEASE_SLOTS,
                first_generation: NonZeroU32::new(*generation).expect("not 0"),
            };
            let found = table.lease(lease);
            out_of_memory = found == Err(Errno::NoMemory);
            if !out_of_memory {
                let expected = if first + blocks > SLOTS / LEASE_SLOTS {
                    Err(Errno::Invalid)
                } else {
                    model.lease(*node, first..first + blocks, *generation)
                };
                prop_assert_eq!(found, expected);
            }
        }
        Op::BindAny => {
            let found = table.bind_any(Ok);
            out_of_memory = false;
            match found {
                Ok(bound) => {
                    prop_assert!(model.bindable().contains(&bound), "{} not to be had", bound);
                    prop_assert!(given.insert(bound), "{} came back", bound);
                    model.bind(bound);
                }
                Err(error) => {
                    prop_assert_eq!(error, Errno::Limit);
                    prop_assert_eq!(model.bindable(), []);
                }
            }
        }
        Op::BindServer(slot) => {
            // Slot 3 stands for the first one that is no server's.
            let slot = if *slot == 3 { SERVER_SLOTS } else { *slot };
            let found = table.bind_server(slot, Ok);
            out_of_memory = found == Err(Errno::NoMemory);
            if !out_of_memory {
                prop_assert_eq!(found, model.bind_server(slot));
            }
            if let Ok(bound) = found {
                prop_assert!(given.insert(bound), "{} came back", bound);
                model.bind(bound);
            }
        }
        Op::BindWithoutPort(server) => {
            let found = match server {
                Some(slot) => table.bind_server(*slot, |_| Err(Errno::NoMemory)),
                None => table.bind_any(|_| Err(Errno::NoMemory)),
            };
            out_of_memory = false;
            prop_assert!(found.is_err());
        }
        Op::Unbind(_) | Op::UnbindBound(_) => {
            let here: Vec<Endpoint> = model.here().collect();
            let target = match op {
                Op::Unbind(target) => *target,
                Op::UnbindBound(index) if !here.is_empty() => *index.get(&here),
                _ => return Ok(()),
            };
            out_of_memory = false;
            let expected = here.contains(&target).then_some(target);
            prop_assert_eq!(table.unbind(target, |_| true), expected);
            if expected.is_some() {
                model.bound.remove(&target.slot());
            }
        }
        Op::SetRemote(target, node) => {
            let found = table.set_remote(*target, *node, false);
            out_of_memory = found == Err(Errno::NoMemory);
            if !out_of_memory {
                prop_assert_eq!(found.map(drop), model.set_remote(*target, *node));
            }
            // A value known as remote was bound there: this node never gives it.
            given.extend(found.is_ok().then_some(*target));
        }
        Op::Forget(target) => {
            out_of_memory = false;
            prop_assert_eq!(table.forget_remote(*target), model.forget_remote(*target));
        }
        Op::RemoveNode(node) => {
            out_of_memory = false;
            table.remove_node(*node);
            model.remove_node(*node);
        }
        Op::TakeLocal => {
            out_of_memory = false;
            let taken = table.take_local();
            prop_assert_eq!(taken.is_some(), model.here().next().is_some());
            if let Some(taken) = taken {
                prop_assert!(model.here().any(|here| here == taken));
                model.bound.remove(&taken.slot());
            }
        }
    }
    let refusal_was_pending = allow_allocations();
    if out_of_memory {
        prop_assert!(!refusal_was_pending, "out of memory for no reason");
        *model = before;
    }
    Ok(())
}

proptest! {
    #![proptest_config(reproducible(300))]

    #[test]
    fn says_what_maps_say(
        cap in prop_oneof![Just(0u32), 1..5u32],
        ops in prop::collection::vec((op(), prop::option::weighted(0.3, 0..6u32)), 0..60),
    ) {
        let mut table = Ports::new(LOCAL, cap);
        let cap = if cap == 0 { usize::MAX } else { cap as usize };
        let (mut model, mut given) = (Model { cap, ..Model::default() }, BTreeSet::new());
        for (op, refuse_after) in ops {
            if let Some(successes) = refuse_after {
                refuse_allocation_after(successes);
            }
            let result = run(&op, &mut table, &mut model, &mut given);
            allow_allocations();
            result?;
            compare(&table, &model)?;
        }
        let count = model.here().count();
        prop_assert_eq!(std::iter::from_fn(|| table.take_local()).count(), count);
        prop_assert_eq!(table.bound(), 0);
    }
}

fn lease(node: u16, first_slot: u32, slots: u32, generation: u32) -> Lease {
    Lease { node, first_slot, slots, first_generation: NonZeroU32::new(generation).expect("not 0") }
}

#[test]
fn leases_are_whole_blocks_above_the_server_slots() {
    let mut table = Ports::new(LOCAL, 0);
    for (first, slots) in [
        (0, 32),
        (SERVER_SLOTS - LEASE_SLOTS, 2 * LEASE_SLOTS),
        (65, 32),
        (64, 31),
        (SLOTS, 32),
        (SLOTS - 32, 64),
        (u32::MAX - 31, 32),
        (u32::MAX, 1),
    ] {
        assert_eq!(table.lease(lease(LOCAL, first, slots, 1)), Err(Errno::Invalid), "{first}");
    }
    assert_eq!(table.bind_server(0, Ok), Err(Errno::Limit), "no lease yet");
    assert_eq!(table.lease(lease(LOCAL, 0, 0, 7)), Ok(()), "for server slots only");
    assert_eq!(table.bind_any(Ok), Err(Errno::Limit));
    assert_eq!(table.bind_server(0, Ok), Ok(endpoint(0, 7)));
}

#[test]
fn a_rebind_bumps_the_generation_and_the_old_value_is_stale() {
    let mut table = Ports::new(LOCAL, 0);
    table.lease(lease(LOCAL, 64, 32, 10)).unwrap();
    let first = table.bind_any(Ok).unwrap();
    assert_eq!(first, endpoint(64, 10));
    assert_eq!(table.unbind(first, |_| true), Some(first));
    assert_eq!(table.route(first), Err(Errno::Stale));
    assert_eq!(table.bind_any(Ok), Ok(endpoint(64, 11)));
    assert_eq!(table.route(first), Err(Errno::Stale));
    assert_eq!(table.unbind(first, |_| true), None, "its successor stays");
}

#[test]
fn a_slot_that_used_up_its_generations_is_retired() {
    let mut table = Ports::new(LOCAL, 0);
    table.lease(lease(LOCAL, 64, 32, u32::MAX)).unwrap();
    for slot in 64..96 {
        let bound = table.bind_any(Ok).unwrap();
        assert_eq!(bound, endpoint(slot, u32::MAX));
        table.unbind(bound, |_| true);
    }
    assert_eq!(table.bind_any(Ok), Err(Errno::Limit));
    let server = table.bind_server(3, Ok).unwrap();
    table.unbind(server, |_| true);
    assert_eq!(table.bind_server(3, Ok), Err(Errno::Limit));
    assert_eq!(table.bound(), 0);
}

#[test]
fn a_renewed_lease_raises_generations_and_an_older_one_does_not_lower_them() {
    let mut table = Ports::new(LOCAL, 0);
    table.lease(lease(LOCAL, 64, 32, 100)).unwrap();
    let kept = table.bind_any(Ok).unwrap();
    table.lease(lease(LOCAL, 64, 32, 200)).unwrap();
    assert_eq!(table.route(kept), Ok(Route::Local(&kept)), "who is bound stays");
    assert_eq!(table.bind_any(Ok), Ok(endpoint(65, 200)));
    table.lease(lease(LOCAL, 64, 32, 50)).unwrap();
    assert_eq!(table.bind_any(Ok), Ok(endpoint(66, 200)));
    assert_eq!(table.bind_server(1, Ok), Ok(endpoint(1, 200)));
    assert_eq!(table.lease(lease(2, 64, 32, 300)), Err(Errno::Busy));
}

#[test]
fn a_node_that_comes_back_with_a_higher_generation_reuses_no_value() {
    let mut table = Ports::new(LOCAL, 0);
    table.lease(lease(LOCAL, 64, 32, 100)).unwrap();
    let old = table.bind_any(Ok).unwrap();
    table.unbind(old, |_| true);
    table.remove_node(LOCAL);
    assert_eq!(table.bind_any(Ok), Err(Errno::Limit));
    assert_eq!(table.bind_server(0, Ok), Err(Errno::Limit));
    table.lease(lease(LOCAL, 64, 32, 100)).unwrap();
    assert_eq!(table.bind_any(Ok), Ok(endpoint(64, 101)), "even with the same one");
}

#[test]
fn a_leased_slot_routes_to_its_holder_before_anybody_was_heard() {
    let mut table = Ports::new(LOCAL, 0);
    let there = endpoint(64, 5);
    assert_eq!(table.route(there), Err(Errno::NoEndpoint));
    table.lease(lease(2, 64, 32, 5)).unwrap();
    assert_eq!(table.route(there), Ok(Route::Remote(2)));
    assert!(table.may_speak(there, 2) && !table.may_speak(there, 0));
    assert_eq!(table.bind_any(Ok), Err(Errno::Limit), "not ours");
    table.set_remote(there, 0, false).unwrap();
    assert_eq!(table.route(there), Ok(Route::Remote(0)), "migrated");
    table.remove_node(0);
    assert_eq!(table.route(there), Err(Errno::Stale));
    assert_eq!(table.route(endpoint(64, 6)), Ok(Route::Remote(2)));
    for reserved in [Endpoint::ANY, Endpoint::NONE, Endpoint::SELF, endpoint(SLOTS, 1)] {
        assert_eq!(table.route(reserved), Err(Errno::Invalid));
        assert_eq!(table.set_remote(reserved, 2, false), Err(Errno::Invalid));
    }
}

#[test]
fn a_full_table_can_be_emptied() {
    let mut table = Ports::new(LOCAL, 0);
    table.lease(lease(LOCAL, SERVER_SLOTS, SLOTS - SERVER_SLOTS, 1)).unwrap();
    for slot in 0..SERVER_SLOTS {
        table.bind_server(slot, Ok).unwrap();
    }
    let mut seen = BTreeSet::new();
    while let Ok(bound) = table.bind_any(Ok) {
        assert!(seen.insert(bound));
    }
    assert_eq!((seen.len() as u32, table.bound()), (SLOTS - SERVER_SLOTS, SLOTS));
    assert_eq!(std::iter::from_fn(|| table.take_local()).count() as u32, SLOTS);
}
