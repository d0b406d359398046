// SPDX-License-Identifier: GPL-2.0
//! The DVK: message passing between the processes of a Distributed Container.
//!
//! This crate is the Linux side only. What the calls mean, and what nodes say to each other, is in
//! `dvk-abi` and `dvk-core`, which are mounted here as modules and tested on the host.
//!
//! # Objects
//! - [`dvs::Dvs`]: the one instance; this node's identity, its containers and peers.
//! - [`container::Container`]: one per container that spans this node; the endpoint table.
//! - [`local_port::LocalPort`]: one per endpoint bound here; the rendezvous.
//! - [`file::File`]: one per open file; the ioctls.
//! - [`peer::PeerLink`]: one per peer node; the link protocol over a transport.
//! - [`transfer::Transfer`]: one per part of a copy that is under way between two nodes.
//! - [`tables::File`]: one per table that shows the others to people.
//!
//! # Lock order
//! Outer first: `Dvs::control` (a mutex, control calls only) → the lock of the network devices
//! (attaching only) → a TIPC socket's → `PeerLink::state` → `Container::table` → `LocalPort::state`;
//! and `PeerLink::state` → those of TIPC's own links, and `PeerLink::state` → `Transfers::open` → `Transfer::state`. Registries, `Dvs::identity`,
//! `Dvs::events`, `Container::waiters`, `ContainerFile::bound` and the lock of a `GrantBook` are leaves: nothing is locked under them. No two
//! locks of one kind are ever held together. All but the first two are spin locks that keep
//! softirqs out, because frames and timers take them too; nobody sleeps or touches user memory
//! under them.

use abi::wire::frame::Versions;
use kernel::prelude::*;

#[path = "abi/lib.rs"]
mod abi;
mod carrier;
mod container;
mod control;
mod copy;
mod dvs;
mod entry;
mod file;
mod grants;
mod limits;
mod local_port;
mod memory;
mod migration;
mod peer;
mod remote_copy;
#[path = "core/lib.rs"]
mod rules;
mod serve;
mod storage;
mod sys;
mod tables;
#[cfg(CONFIG_KUNIT = "y")]
mod tests;
mod trace;
mod transfer;
mod uapi;
mod watch;

module! {
    type: Dvk,
    name: "dvk",
    authors: ["The dvs developers"],
    description: "Distributed Virtualization Kernel",
    license: "GPL",
    params: {
        newest_version: u8 {
            default: 255,
            description: "Newest version of the link protocol that this node speaks",
        },
    },
}

/// The versions of the link protocol that this node speaks.
fn versions() -> Versions {
    Versions::up_to(*module_parameters::newest_version.value())
}

struct Dvk;

impl kernel::Module for Dvk {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        dvs::init()?;
        serve::init()?;
        sys::register_net()?;
        sys::register_chardev()?;
        sys::register_tables(tables::File::ALL.iter().map(|table| table.name()));
        pr_info!("ready\n");
        Ok(Self)
    }
}
