// SPDX-License-Identifier: GPL-2.0 OR MIT
//! An endpoint that moves between nodes under load: random programs, schedules and faults in a
//! simulated DVS.
//!
//! What is checked all along and at the end: each message of a client is received once if its call
//! succeeded and not at all if it failed for want of time, in the order of its calls, wherever
//! the server was; a request is answered once; no notification is lost or invented; nobody speaks
//! for the endpoint from where it no longer is, or is not yet; every call ends.

mod model;
mod moving;

use model::reproducible;
use moving::{Event, Order, World, NODES};
use proptest::prelude::*;

fn patience() -> impl Strategy<Value = Option<u8>> {
    prop_oneof![3 => Just(None), 2 => (0..40u8).prop_map(Some)]
}

fn order() -> impl Strategy<Value = Order> {
    prop_oneof![
        4 => patience().prop_map(Order::Send),
        8 => patience().prop_map(Order::Request),
        3 => Just(Order::Notify),
        1 => (0..20u8).prop_map(Order::Receive),
        1 => (0..20u8).prop_map(Order::Watch),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        160 => any::<u16>().prop_map(Event::Run),
        4 => (0..NODES).prop_map(Event::Move),
        1 => (0..NODES).prop_map(Event::Undo),
        1 => any::<u8>().prop_map(Event::Kill),
    ]
}

fn programs() -> impl Strategy<Value = Vec<Vec<Order>>> {
    prop::collection::vec(prop::collection::vec(order(), 1..16), 1..8)
}

proptest! {
    #![proptest_config(reproducible(1_500))]

    #[test]
    fn a_moving_server_loses_doubles_and_reorders_nothing(
        programs in programs(),
        events in prop::collection::vec(event(), 0..700),
    ) {
        let mut world = World::new(programs);
        events.iter().for_each(|event| world.happen(event));
        world.finish();
    }

    #[test]
    fn nor_does_it_when_links_break(
        programs in programs(),
        events in prop::collection::vec(
            prop_oneof![
                40 => event(),
                1 => (0..NODES, 0..NODES).prop_map(|(a, b)| Event::Part(a, b)),
            ],
            0..700,
        ),
    ) {
        let mut world = World::new(programs);
        events.iter().for_each(|event| world.happen(event));
        world.finish();
    }
}
