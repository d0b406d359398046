// SPDX-License-Identifier: MIT OR Apache-2.0
//! User namespaces: made by a process that does nothing else, and mapped from outside of it, as the kernel demands.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::process::Stdio;

use anyhow::{ensure, Context, Result};
use dvs_exec::User;
use nix::sched::{setns, unshare, CloneFlags};
use rustix::fs::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::spec::Ids;
use crate::stage::{again, Stage};

/// Makes a user namespace in which the ids of the node are mapped to those from 0.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn namespace(ids: Ids) -> Result<OwnedFd> {
    let mut holder = again(Stage::Hold);
    let mut holder = holder
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting the process that makes a user namespace")?;
    let namespace = take(&mut holder, ids);
    // Its standard input is closed here, upon which it ends.
    drop(holder.stdin.take());
    let ended = holder.wait().context("waiting for the process that made a user namespace")?;
    let namespace = namespace?;
    ensure!(ended.success(), "making a user namespace: its process ended with {ended}");
    Ok(namespace)
}

fn take(holder: &mut std::process::Child, ids: Ids) -> Result<OwnedFd> {
    let mut byte = [0];
    let stdout = holder.stdout.as_mut().context("listening to the maker of a user namespace")?;
    stdout.read_exact(&mut byte).context("making a user namespace: its process ended early")?;
    let map = format!("0 {} {}\n", ids.first, ids.count);
    for file in ["uid_map", "gid_map"] {
        let path = format!("/proc/{}/{file}", holder.id());
        fs::write(&path, &map).with_context(|| format!("mapping ids by {path}"))?;
    }
    let path = format!("/proc/{}/ns/user", holder.id());
    Ok(File::open(&path).with_context(|| format!("opening {path}"))?.into())
}

/// What [`namespace`] starts: makes the namespace and stays until it is told to go.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn hold() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWUSER).context("making a user namespace")?;
    io::stdout().write_all(b"+").and_then(|()| io::stdout().flush()).context("saying so")?;
    io::copy(&mut io::stdin(), &mut io::sink()).context("waiting to be no longer needed")?;
    Ok(())
}

/// Goes into a user namespace, as its root. This process must have one thread.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn enter(namespace: OwnedFd) -> Result<()> {
    setns(namespace, CloneFlags::CLONE_NEWUSER).context("entering the user namespace")?;
    become_user(User::default()).context("becoming root of the container")
}

/// Becomes a user, with no other groups than that of the user.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn become_user(user: User) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    set_thread_groups(&[]).context("leaving all groups")?;
    set_thread_res_gid(gid, gid, gid).context("changing the group")?;
    set_thread_res_uid(uid, uid, uid).context("changing the user")
}
