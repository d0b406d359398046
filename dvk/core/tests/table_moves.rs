// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Who may speak for an endpoint that moved, or whose backup was promoted, and where it is, as one
//! node's table says. That moves lose nothing is shown by the simulation.

mod model;

use dvk_core::abi::errno::Errno;
use dvk_core::abi::Endpoint;
use dvk_core::table::{Change, Elsewhere, Lease, Route, Settled, Table};
use model::TestStorage;
use std::num::NonZeroU32;

/// The name of a port tells whose it is.
type Ports = Table<&'static str, TestStorage>;

const LOCAL: u16 = 1;
const SERVER: u32 = 9;

fn endpoint(generation: u32) -> Endpoint {
    Endpoint::new(SERVER, NonZeroU32::new(generation).unwrap())
}

fn table() -> Ports {
    let mut table = Ports::new(LOCAL, 0);
    let first_generation = NonZeroU32::MIN;
    table.lease(Lease { node: LOCAL, first_slot: 64, slots: 32, first_generation }).unwrap();
    table
}

/// A table that knows the server on node 2.
fn remote() -> (Ports, Endpoint) {
    let mut table = table();
    table.set_remote(endpoint(5), 2, false).unwrap();
    (table, endpoint(5))
}

fn speakers(table: &Ports, endpoint: Endpoint) -> Vec<u16> {
    (0..5).filter(|node| table.may_speak(endpoint, *node)).collect()
}

#[test]
fn only_the_old_node_speaks_until_the_commit_and_only_the_new_one_after_it() {
    let (mut table, server) = remote();
    assert_eq!(speakers(&table, server), [2]);
    table.start_passing(server, (2, 3), 1).unwrap();
    assert_eq!(speakers(&table, server), [2]);
    assert_eq!(table.route(server), Err(Errno::Moved));
    table.commit(server, 1, |_| true).unwrap();
    assert_eq!(speakers(&table, server), [3]);
    assert_eq!(table.route(server), Ok(Route::Remote(3)));
    assert_eq!(table.start_passing(server, (2, 4), 2), Err(Errno::Invalid), "it is not there");
    assert_eq!(table.start_passing(server, (3, 4), 1), Err(Errno::Stale));
    assert_eq!(table.roll_back(server, 1), Err(Errno::Stale));
    assert_eq!(speakers(&table, server), [3]);
}

#[test]
fn nobody_else_speaks_for_an_endpoint_that_moves_here() {
    let (mut table, server) = remote();
    table.start_arriving(server, 2, 1, || Ok("new")).unwrap();
    assert_eq!(speakers(&table, server), [2]);
    assert_eq!(table.receiver(server), Ok(&"new"));
    assert_eq!(table.commit(server, 1, |_| false), Err(Errno::NotConnected));
    let settled = table.commit(server, 1, |_| true).unwrap();
    assert_eq!(settled, Settled { from: Some(2), to: LOCAL, change: Change::Arrived("new") });
    assert!(speakers(&table, server).is_empty());
    assert_eq!((table.route(server), table.bound()), (Ok(Route::Local(&"new")), 1));
}

#[test]
fn what_comes_for_an_endpoint_that_moved_away_goes_back_with_its_epoch() {
    let mut table = table();
    let server = table.bind_server(SERVER, |_| Ok("old")).unwrap();
    table.start_leaving(server, 3, 7, |_| Ok(())).unwrap();
    assert_eq!(table.receiver(server), Ok(&"old"));
    assert_eq!(table.commit(server, 7, |_| false).unwrap().change, Change::Departed("old"));
    assert_eq!(table.receiver(server), Err(Elsewhere::Moved { epoch: 7 }));
    assert_eq!((speakers(&table, server), table.bound()), (vec![3], 0));
    // The file that had it is closed: that is nothing to whoever has it now.
    assert_eq!(table.unbind(server, |port| *port == "old"), None);
    assert_eq!(table.route(server), Ok(Route::Remote(3)));
    table.start_arriving(server, 3, 8, || Ok("back")).unwrap();
    table.commit(server, 8, |_| true).unwrap();
    assert_eq!(table.unbind(server, |port| *port == "old"), None);
    assert_eq!(table.route(server), Ok(Route::Local(&"back")));
}

#[test]
fn steps_come_back_only_from_where_the_endpoint_is_or_may_have_been() {
    let (mut table, server) = remote();
    let returners = |table: &Ports| -> Vec<u16> {
        (0..5).filter(|node| table.may_return(server, *node)).collect()
    };
    assert_eq!(returners(&table), [2]);
    table.start_passing(server, (2, 3), 1).unwrap();
    table.commit(server, 1, |_| true).unwrap();
    assert!(returners(&table).contains(&2), "what was sent before");
}

#[test]
fn a_promoted_backup_is_the_endpoint_and_the_old_node_says_nothing_more() {
    let (mut table, server) = remote();
    assert_eq!(table.bind_backup(SERVER, |_| Ok("backup")), Ok(server));
    assert_eq!(table.bind_backup(SERVER, |_| Ok("second")), Err(Errno::Busy));
    assert_eq!(table.route(server), Ok(Route::Remote(2)));
    assert_eq!(table.receiver(server), Ok(&"backup"), "others may know before");
    assert_eq!(table.promote(server, LOCAL, 0), Err(Errno::Invalid));
    let settled = table.promote(server, LOCAL, 4).unwrap();
    assert_eq!(settled, Settled { from: Some(2), to: LOCAL, change: Change::Arrived("backup") });
    assert!(speakers(&table, server).is_empty());
    assert_eq!(table.promote(server, LOCAL, 4).unwrap().change, Change::Repeated);
    assert_eq!(table.promote(server, 3, 4), Err(Errno::Stale));
    assert_eq!(table.promote(server, 3, 3), Err(Errno::Stale));
    assert_eq!(table.set_remote(server, 2, false), Err(Errno::Busy), "what the old one says");
}

#[test]
fn a_primary_that_hears_of_a_promotion_departs() {
    let mut table = table();
    let server = table.bind_server(SERVER, |_| Ok("primary")).unwrap();
    let settled = table.promote(server, 3, 1).unwrap();
    assert_eq!(settled, Settled { from: Some(LOCAL), to: 3, change: Change::Departed("primary") });
    assert_eq!((speakers(&table, server), table.bound()), (vec![3], 0));
    assert_eq!(table.promote(server, LOCAL, 2), Err(Errno::NotConnected));
    assert_eq!(table.route(server), Ok(Route::Remote(3)), "nothing has changed");
}

#[test]
fn a_bystander_believes_the_new_one_from_the_promotion_on() {
    let (mut table, server) = remote();
    assert_eq!(table.promote(server, 3, 1).unwrap().change, Change::Passed);
    assert_eq!(speakers(&table, server), [3]);
    assert_eq!(table.promote(server, 2, 1), Err(Errno::Stale));
    assert_eq!(table.set_remote(server, 2, false), Err(Errno::Busy));
    assert_eq!(speakers(&table, server), [3]);
}

#[test]
fn each_replica_speaks_and_another_is_left_when_one_is_gone() {
    let mut table = table();
    table.set_remote(endpoint(5), 2, true).unwrap();
    let server = table.bind_replica(SERVER, |_| Ok("mine")).unwrap();
    assert_eq!(server, endpoint(5));
    table.set_remote(server, 3, true).unwrap();
    assert_eq!(speakers(&table, server), [0, 2, 3, 4]);
    assert_eq!(table.route(server), Ok(Route::Local(&"mine")));
    assert_eq!(table.start_leaving(server, 3, 1, |_| Ok(())), Err(Errno::Invalid));
    assert_eq!(table.unbind(server, |_| true), Some("mine"));
    assert_eq!(table.route(server), Ok(Route::Remote(3)));
    let plain = Endpoint::new(10, NonZeroU32::MIN);
    table.set_remote(plain, 2, false).unwrap();
    assert_eq!(table.bind_replica(10, |_| Ok("none")), Err(Errno::Busy));
}

#[test]
fn what_held_for_an_earlier_endpoint_of_the_slot_does_not_hold_for_the_next() {
    let mut table = table();
    table.set_remote(endpoint(5), 2, true).unwrap();
    table.promote(endpoint(6), 3, 1).unwrap();
    assert_eq!(speakers(&table, endpoint(6)), [3]);
    let (mut table, _) = remote();
    table.bind_backup(SERVER, |_| Ok("backup")).unwrap();
    assert_eq!(table.promote(endpoint(6), 3, 1), Err(Errno::Busy));
    assert_eq!(table.start_passing(endpoint(6), (3, 4), 1), Err(Errno::Busy));
    assert_eq!(table.set_remote(endpoint(6), 3, false), Ok(Some("backup")));
    table.start_passing(endpoint(6), (3, 4), 1).unwrap();
    assert_eq!(table.receiver(endpoint(6)), Err(Elsewhere::Moved { epoch: 1 }));
}
