// SPDX-License-Identifier: MIT OR Apache-2.0
//! The process that goes from the node into the namespaces of a container, and ends when the first process is in them.

use std::io;
use std::os::fd::AsFd;
use std::process::Stdio;

use anyhow::{Context, Result};
use nix::sched::{unshare, CloneFlags};

use crate::cgroup::Cgroup;
use crate::ids;
use crate::image;
use crate::place::Place;
use crate::rootfs;
use crate::stage::{again, Stage};
use crate::talk::{self, Report};

/// Does it for the container `name`. Standard input is the connection to the keeper.
///
/// # Errors
/// When nobody listens; what goes wrong with the container is told to the keeper.
pub(crate) fn assemble(name: &str) -> Result<()> {
    let report = match born(name) {
        Ok(pid) => Report::Born(pid),
        Err(error) => Report::Fault(format!("{error:#}")),
    };
    say(&report)
}

/// Tells the keeper something, by standard input, which is a socket.
pub(crate) fn say(report: &Report) -> Result<()> {
    let socket = io::stdin().as_fd().try_clone_to_owned().context("telling the keeper")?;
    talk::say(&mut std::os::unix::net::UnixStream::from(socket), report)
}

fn born(name: &str) -> Result<i32> {
    let place = Place::of(name)?;
    let spec = place.spec()?;
    // First of all, so that whatever is used from here on is the container's.
    Cgroup::of(name).enter()?;
    let users = ids::namespace(spec.ids)?;
    unshare(CloneFlags::CLONE_NEWNS).context("making a mount namespace")?;
    rootfs::Stage::at(place.stage()).build(&spec, &image::root(&spec.root)?, &users)?;
    ids::enter(users)?;
    // Made after the user namespace, they belong to it, and the container's root may set them up.
    let namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWCGROUP;
    unshare(namespaces).context("making the container's namespaces")?;
    let init = again(Stage::Init)
        .stdin(Stdio::inherit())
        .spawn()
        .context("starting the container's first process")?;
    i32::try_from(init.id()).context("starting the container's first process")
}
