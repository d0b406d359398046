// SPDX-License-Identifier: MIT OR Apache-2.0
//! Brings the interfaces up that the configuration chooses.

use std::thread;
use std::time::{Duration, Instant};

use dvs_config::Network;

use crate::fault::Fault;
use crate::interfaces::{choose, Choice, Interface};
use crate::netlink::Netlink;
use crate::settings::write_sysctl;

/// `lo` is the first interface of every network namespace.
const LOOPBACK: u32 = 1;
/// Some drivers find their cards a while after PID 1 starts.
const PATIENCE: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(50);

/// Chooses interfaces and sets them up; returns the choice and what failed.
pub(crate) fn set_up(network: &Network) -> (Choice, Vec<Fault>) {
    let mut faults = Vec::new();
    match try_set_up(network, &mut faults) {
        Ok(choice) => (choice, faults),
        Err(fault) => {
            faults.push(fault);
            (Choice::default(), faults)
        }
    }
}

fn try_set_up(network: &Network, faults: &mut Vec<Fault>) -> Result<Choice, Fault> {
    let mut netlink = Netlink::open().map_err(Fault::when("open a netlink socket"))?;
    faults.extend(netlink.set_up(LOOPBACK).map_err(Fault::when("bring lo up")).err());

    let end = Instant::now() + PATIENCE;
    let choice = loop {
        let interfaces =
            netlink.ethernet_interfaces().map_err(Fault::when("list the network interfaces"))?;
        let choice = choose(&interfaces, network);
        if choice.missing.is_empty() || Instant::now() >= end {
            break choice;
        }
        thread::sleep(RETRY);
    };
    for interface in &choice.cluster {
        bring_up(&mut netlink, interface, faults);
    }
    if let (Some(interface), Some(management)) = (&choice.management, &network.management) {
        let Interface { name, index, .. } = interface;
        bring_up(&mut netlink, interface, faults);
        let address = management.address;
        let attempt = Fault::when(format!("give {name} the address {address}"));
        faults.extend(netlink.add_address(*index, address).map_err(attempt).err());
        if let Some(gateway) = management.gateway {
            let attempt = Fault::when(format!("route over {gateway} on {name}"));
            faults.extend(netlink.add_default_route(*index, gateway).map_err(attempt).err());
        }
    }
    Ok(choice)
}

fn bring_up(netlink: &mut Netlink, interface: &Interface, faults: &mut Vec<Fault>) {
    let Interface { name, index, .. } = interface;
    // What `default` says is only for interfaces that appear later.
    for setting in ["accept_dad", "accept_ra"] {
        faults.extend(write_sysctl(&format!("net/ipv6/conf/{name}/{setting}"), "0").err());
    }
    let attempt = Fault::when(format!("bring {name} up"));
    faults.extend(netlink.set_up(*index).map_err(attempt).err());
}
