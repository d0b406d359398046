// SPDX-License-Identifier: MIT OR Apache-2.0
//! The control device.

use super::Case;
use crate::check::{equal, fails, refused};
use crate::dvs::{self, lease, Scratch, HOME};
use crate::puppet::{Order, Puppet};
use anyhow::{ensure, Result};
use dvk::{device_path, raw, Control, DvsInit, Endpoint, Errno, Lease, Limits, Port, Slot};
use dvk_abi::{ioctl, limits};

/// Why no case is run between nodes.
const WHY: &str = "control calls are of one node";

pub(super) const CASES: &[Case] = &[
    Case::alone("control-needs-cap-sys-admin", WHY, capability),
    Case::alone("control-calls-are-of-the-control-device", WHY, devices),
    Case::alone("dvs-init-twice-is-eexist", WHY, init_twice),
    Case::alone("dvs-init-checks-its-numbers", WHY, init_numbers),
    Case::alone("control-without-a-dvs-is-enodev", WHY, without_dvs),
    Case::alone("dvs-end-destroys-every-container", WHY, end),
    Case::alone("dc-create-makes-a-device", WHY, create),
    Case::alone("dc-create-twice-is-eexist", WHY, create_twice),
    Case::alone("unknown-container-is-enodev", WHY, unknown_container),
    Case::alone("lease-in-broken-blocks-is-einval", WHY, broken_lease),
    Case::alone("lease-of-another-node-is-ebusy", WHY, foreign_lease),
    Case::alone("lease-raises-generations-and-never-lowers", WHY, raised_lease),
];

const OTHER_NODE: u32 = 9;

fn capability() -> Result<()> {
    equal("control calls", Puppet::new()?.obey(Order::TryControl)?, 0)
}

fn devices() -> Result<()> {
    let (control, port) = (Control::open()?, dvs::bind()?);
    let mut exchange = ioctl::Exchange::default();
    let send = raw::call::<{ ioctl::SEND }, _>(&control, &mut exchange);
    refused("send on the control device", send, Errno::NotACall)?;
    let mut bind = ioctl::Bind { slot: ioctl::SLOT_ANY, flags: 0, endpoint: 0 };
    let bind = raw::call::<{ ioctl::BIND }, _>(&control, &mut bind);
    refused("bind on the control device", bind, Errno::NotACall)?;
    let end = raw::call_bare::<{ ioctl::DVS_END }>(&port);
    refused("dvs_end on a container's device", end, Errno::NotACall)?;
    let mut block = ioctl::Container { container: HOME, ..ioctl::Container::default() };
    let destroy = raw::call::<{ ioctl::DC_DESTROY }, _>(&port, &mut block);
    refused("dc_destroy on a container's device", destroy, Errno::NotACall)
}

fn init_twice() -> Result<()> {
    let init = DvsInit { cluster: 2, node: 5, incarnation: 3 };
    fails("dvs_init", Control::open()?.dvs_init(&init), Errno::Exists)?;
    equal("node", dvs::bind()?.info()?.node, dvs::NODE)
}

fn init_numbers() -> Result<()> {
    let control = Control::open()?;
    control.dvs_end()?;
    let init = DvsInit { cluster: 1, node: 0, incarnation: 0 };
    fails("incarnation 0", control.dvs_init(&init), Errno::Invalid)?;
    let init = DvsInit { cluster: 1, node: limits::NODES, incarnation: 1 };
    fails("node out of range", control.dvs_init(&init), Errno::Invalid)
}

fn without_dvs() -> Result<()> {
    let control = Control::open()?;
    control.dvs_end()?;
    let endpoint = Endpoint::from_raw(1 << 32 | 64);
    let results = [
        ("node_up", control.node_up(1, 1)),
        ("node_down", control.node_down(1)),
        ("dc_create", control.dc_create(0, "none", Limits::default())),
        ("dc_destroy", control.dc_destroy(0)),
        ("dc_add_node", control.dc_add_node(&lease(0, 64, 32))),
        ("dc_remove_node", control.dc_remove_node(0, 1)),
        ("link_detach", control.link_detach(1)),
        ("link_info", control.link_info(1).map(drop)),
        ("endpoint_set_remote", control.endpoint_set_remote(0, endpoint, 1)),
        ("dvs_end", control.dvs_end()),
    ];
    for (what, result) in results {
        fails(what, result, Errno::NoDevice)?;
    }
    dvs::ensure()
}

fn end() -> Result<()> {
    let port = dvs::bind()?;
    let waiting =
        crate::blocked::blocked(move || port.receive(Endpoint::ANY, dvk::Timeout::Forever))?;
    let control = Control::open()?;
    control.dvs_end()?;
    fails("receive", waiting.join("receive to end")?, Errno::OwnerDead)?;
    dvs::ensure()?;
    dvs::bind()?;
    Ok(())
}

fn create() -> Result<()> {
    let scratch = Scratch::new(0)?;
    let path = device_path(scratch.id);
    ensure!(path.exists(), "{} is not there", path.display());
    equal("container", dvk::Device::open(scratch.id)?.container(), scratch.id)
}

fn create_twice() -> Result<()> {
    let scratch = Scratch::new(1)?;
    scratch.lease(64, 32)?;
    let _port = scratch.bind()?;
    let again = Control::open()?.dc_create(scratch.id, "again", Limits::default());
    fails("dc_create", again, Errno::Exists)?;
    // Nothing of the second call is in effect.
    fails("bind 2 of 1", scratch.bind(), Errno::Limit)
}

fn unknown_container() -> Result<()> {
    let (control, none) = (Control::open()?, 4_711);
    let endpoint = Endpoint::from_raw(1 << 32 | 64);
    fails("dc_destroy", control.dc_destroy(none), Errno::NoDevice)?;
    fails("dc_add_node", control.dc_add_node(&lease(none, 64, 32)), Errno::NoDevice)?;
    fails("dc_remove_node", control.dc_remove_node(none, 0), Errno::NoDevice)?;
    let set = control.endpoint_set_remote(none, endpoint, OTHER_NODE);
    fails("endpoint_set_remote", set, Errno::NoDevice)
}

fn broken_lease() -> Result<()> {
    let (control, scratch) = (Control::open()?, Scratch::new(0)?);
    let id = scratch.id;
    let wrong = [
        ("server slots", lease(id, 32, 32)),
        ("an odd first slot", lease(id, 65, 32)),
        ("an odd number of slots", lease(id, 64, 33)),
        ("slots beyond the last", lease(id, limits::SLOTS - 32, 64)),
        ("slots beyond 2^32", lease(id, u32::MAX - 31, 64)),
        ("generation 0", Lease { first_generation: 0, ..lease(id, 64, 32) }),
        ("a node out of range", Lease { node: limits::NODES, ..lease(id, 64, 32) }),
        ("a reserved field", Lease { reserved: 1, ..lease(id, 64, 32) }),
    ];
    for (what, lease) in wrong {
        fails(what, control.dc_add_node(&lease), Errno::Invalid)?;
    }
    fails("bind", scratch.bind(), Errno::Limit)
}

fn foreign_lease() -> Result<()> {
    let (control, scratch) = (Control::open()?, Scratch::new(0)?);
    control.dc_add_node(&Lease { node: OTHER_NODE, ..lease(scratch.id, 96, 32) })?;
    fails("dc_add_node", scratch.lease(64, 64), Errno::Busy)?;
    // Nor is the part of it in effect that is free.
    fails("bind", scratch.bind(), Errno::Limit)?;
    control.dc_remove_node(scratch.id, OTHER_NODE)?;
    scratch.lease(64, 64)?;
    scratch.bind()?;
    Ok(())
}

fn raised_lease() -> Result<()> {
    let (control, scratch) = (Control::open()?, Scratch::new(0)?);
    let bound = |first_generation| -> Result<u32> {
        control.dc_add_node(&Lease { first_generation, ..lease(scratch.id, 64, 32) })?;
        Ok(Port::bind(scratch.id, Slot::Server(3))?.endpoint().generation())
    };
    equal("first generation", bound(1_000)?, 1_000)?;
    equal("generation after a lease from 2000", bound(2_000)?, 2_000)?;
    equal("generation after a lease from 5", bound(5)?, 2_001)
}
