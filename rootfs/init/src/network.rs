// SPDX-License-Identifier: MIT OR Apache-2.0
//! Makes the bonds and VLANs of the configuration, and brings the interfaces up that it chooses.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use dvs_config::{InterfaceKind, Network};

use crate::fault::Fault;
use crate::interfaces::{choose, Choice, Interface};
use crate::netlink::Netlink;
use crate::settings::write_sysctl;
use crate::stacked::{self, PlannedBond};

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
    let mut missing = make_stacked(&mut netlink, network, end, faults)?;
    let mut choice = loop {
        let choice = choose(&list(&mut netlink)?, network);
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
    missing.append(&mut choice.missing);
    choice.missing = missing;
    Ok(choice)
}

fn list(netlink: &mut Netlink) -> Result<Vec<Interface>, Fault> {
    netlink.ethernet_interfaces().map_err(Fault::when("list the network interfaces"))
}

/// Makes bonds of adapters, for which it waits until `end`, and then VLANs; returns what they lack.
fn make_stacked(
    netlink: &mut Netlink,
    network: &Network,
    end: Instant,
    faults: &mut Vec<Fault>,
) -> Result<Vec<String>, Fault> {
    // The kernel makes a bond of nothing as it starts. VLANs go first, since they go with what is below them.
    for kind in [InterfaceKind::Vlan, InterfaceKind::Bond] {
        for Interface { name, index, .. } in list(netlink)?.iter().filter(|it| it.kind == kind) {
            let attempt = Fault::when(format!("remove {name}, which is there before it is made"));
            faults.extend(netlink.remove(*index).map_err(attempt).err());
        }
    }
    let plan = loop {
        let plan = stacked::plan(&list(netlink)?, network);
        if plan.missing.is_empty() || Instant::now() >= end {
            break plan;
        }
        thread::sleep(RETRY);
    };
    for planned in &plan.bonds {
        let failed = make_bond(netlink, planned, faults).err();
        faults.extend(failed);
    }
    let interfaces = list(netlink)?;
    for vlan in &network.vlan {
        // One whose parent is not there lacks it, or the bond that could not be made.
        let Some(parent) = stacked::parent(&interfaces, &vlan.parent) else { continue };
        bring_up(netlink, parent, faults);
        let name = vlan.interface_name();
        let attempt = Fault::when(format!("make {name}, number {} of {}", vlan.id, parent.name));
        faults.extend(netlink.make_vlan(&name, parent.index, vlan.id).map_err(attempt).err());
    }
    Ok(plan.missing)
}

/// Makes a bond; members that it does not take are only a fault each.
fn make_bond(
    netlink: &mut Netlink,
    planned: &PlannedBond,
    faults: &mut Vec<Fault>,
) -> Result<(), Fault> {
    let PlannedBond { bond, members, primary } = planned;
    let primary = primary.as_ref().map(|primary| primary.index);
    let attempt = Fault::when(format!("make the bond {}, of mode {}", bond.name, bond.mode));
    netlink.make_bond(bond, primary).map_err(attempt)?;
    let made = list(netlink)?.into_iter().find(|it| it.name == bond.name.as_str());
    let made = made.ok_or(io::ErrorKind::NotFound);
    let made = made.map_err(Fault::when(format!("find the bond {}", bond.name)))?;
    for Interface { name, index, .. } in members {
        let attempt = Fault::when(format!("put {name} into the bond {}", bond.name));
        faults.extend(netlink.put_into(*index, made.index).map_err(attempt).err());
    }
    bring_up(netlink, &made, faults);
    Ok(())
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
