// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The rendezvous between nodes: random programs, schedules and faults in a simulated DVS.
//!
//! What is checked all along and at the end: every message that its sender knows received was
//! received once, and none whose call failed; a request is answered once at most and by its server;
//! the order of each sender and of each queue; filters; notification bits; that a forged or late
//! step has no effect; and that whoever waits at the end has somebody alive to wait for.

mod model;
mod simulation;

use dvk_core::port::Mode;
use model::reproducible;
use proptest::prelude::*;
use simulation::{Call, Event, Simulation, NODES};

fn patience() -> impl Strategy<Value = Option<u8>> {
    prop_oneof![3 => Just(None), 2 => (0..12u8).prop_map(Some)]
}

fn call() -> impl Strategy<Value = Call> {
    let mode = prop_oneof![Just(Mode::Send), Just(Mode::Request)];
    prop_oneof![
        6 => (any::<u8>(), mode, patience(), prop::bool::weighted(0.15)).prop_map(
            |(to, mode, patience, abandon)| Call::Send { to, mode, patience, abandon }
        ),
        6 => (prop::option::weighted(0.3, any::<u8>()), prop::bool::weighted(0.25), patience())
            .prop_map(|(from, requests_only, patience)| {
                Call::Receive { from, requests_only, patience }
            }),
        4 => (any::<u8>(), prop::bool::weighted(0.2))
            .prop_map(|(to, anybody)| Call::Reply { to, anybody }),
        2 => (any::<u8>(), 0..8u32).prop_map(|(to, bit)| Call::Notify { to, bits: 1 << bit }),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let forge = (any::<u8>(), any::<u8>(), prop::bool::weighted(0.2), 0..9u32, any::<u8>());
    prop_oneof![
        60 => any::<u16>().prop_map(Event::Run),
        1 => any::<u8>().prop_map(Event::Kill),
        1 => (0..NODES, 0..NODES).prop_map(|(a, b)| Event::Part(a, b)),
        1 => (0..3u32).prop_map(Event::RefuseMemory),
        6 => forge.prop_map(|(at, from, elsewhere, call, kind)| {
            Event::Forge { at, from, elsewhere, call, kind }
        }),
    ]
}

proptest! {
    #![proptest_config(reproducible(800))]

    #[test]
    fn nothing_is_lost_doubled_or_left_waiting_for_nobody(
        programs in prop::collection::vec(prop::collection::vec(call(), 0..24), 2..7),
        events in prop::collection::vec(event(), 0..400),
    ) {
        let mut simulation = Simulation::new(programs);
        for event in &events {
            simulation.happen(event);
        }
        simulation.finish();
    }
}
