// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can be done with the containers of a node.

use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{pidfd_send_signal, Signal};
use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::fault::{refuse, Kind};
use crate::image;
use crate::keeper;
use crate::links;
use crate::output::Log;
use crate::place::{End, Phase, Place};
use crate::spec::Spec;
use crate::stats::Stats;

/// After this, a process that was killed hangs in the kernel.
const PATIENCE: Duration = Duration::from_secs(30);

/// A container as others see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// The DVK's number of the Distributed Container.
    pub dvk: u32,
    /// How far it has come.
    pub phase: Phase,
    /// The PID of its first process on the node, as long as there is one.
    pub pid: Option<i32>,
    /// How it ended, if it did and that is known: nobody wrote it down if its keeper was killed.
    pub end: Option<End>,
}

/// Makes a container and leaves it shut: its command is not started.
///
/// # Errors
/// When there is one of this name, or it cannot be made; then nothing is left of it.
pub(crate) fn create(mut spec: Spec) -> Result<()> {
    spec.check()?;
    crate::rootfs::dvk(spec.dvk)?;
    image::complete(&mut spec)?;
    let (place, cgroup) = (Place::of(&spec.name)?, Cgroup::of(&spec.name));
    {
        let _lock = Place::lock()?;
        place.create(&spec)?;
        if let Err(error) = cgroup.create(&spec.limits) {
            cgroup.remove().and_then(|()| place.remove()).context("undoing what was begun")?;
            return Err(error);
        }
    }
    let made = keeper::start(&spec.name);
    if made.is_err() {
        // The reason why is what people need to know; that something is left shows in the list.
        let _ = sweep(&place, &cgroup);
    }
    made
}

/// Starts the command of a container.
///
/// # Errors
/// When there is none of this name, it was started before, or its command cannot be started.
pub(crate) fn start(name: &str) -> Result<()> {
    let place = Place::of(name)?;
    match status(name)?.phase {
        Phase::Stopped => refuse(
            Kind::State,
            format!("starting the container {name}: it has ended; delete it and create it anew"),
        ),
        Phase::Running => {
            refuse(Kind::State, format!("starting the container {name}: it was started before"))
        }
        _ => keeper::ask_to_start(&place).with_context(|| format!("starting the container {name}")),
    }
}

/// What became of a container so far.
///
/// # Errors
/// When there is none of this name.
pub(crate) fn status(name: &str) -> Result<Status> {
    let place = Place::of(name)?;
    let (spec, record) = (place.spec()?, place.record()?);
    let alive = record.keeper.open()?.is_some();
    // A keeper that is gone without a word takes the container with it.
    let phase = if alive { record.phase } else { Phase::Stopped };
    let pid = record.init.filter(|_| phase != Phase::Stopped).map(|life| life.pid);
    Ok(Status { name: name.to_owned(), dvk: spec.dvk, phase, pid, end: record.end })
}

/// All containers.
///
/// # Errors
/// When they cannot be listed.
pub(crate) fn list() -> Result<Vec<Status>> {
    // One may go while the list is made.
    Ok(Place::names()?.iter().filter_map(|name| status(name).ok()).collect())
}

/// What a container uses.
///
/// # Errors
/// When there is none of this name.
pub(crate) fn stats(name: &str) -> Result<Stats> {
    Place::of(name)?.spec()?;
    Stats::of(&Cgroup::of(name))
}

/// Sends a signal to a container. `KILL` ends all that is in it, `STOP` and `CONT` make all of it rest and go on; any other is passed on to
/// its command.
///
/// # Errors
/// When there is none of this name, it does not run, or the signal does not exist.
pub(crate) fn kill(name: &str, signal: &str) -> Result<()> {
    let record = Place::of(name)?.record()?;
    let cgroup = Cgroup::of(name);
    let number = signal_number(signal)?;
    let init = record.init.map(|life| life.open()).transpose()?.flatten();
    let Some(init) = init else {
        let message = format!("sending {signal} to the container {name}: it does not run");
        return refuse(Kind::State, message);
    };
    match number {
        Signal::KILL => cgroup.kill(),
        Signal::STOP => cgroup.freeze(true),
        Signal::CONT => cgroup.freeze(false),
        _ => pidfd_send_signal(init, number)
            .with_context(|| format!("sending {signal} to the container {name}")),
    }
}

/// Removes a container and all that it was made of. With `force` also one that runs.
///
/// # Errors
/// When there is none of this name, it runs and is not to be forced, or something stays.
pub(crate) fn delete(name: &str, force: bool) -> Result<()> {
    let place = Place::of(name)?;
    if !force && status(name)?.phase != Phase::Stopped {
        return refuse(
            Kind::State,
            format!("deleting the container {name}: it has not ended; end it by `kill`, or delete it with --force"),
        );
    }
    // To say so if there is none.
    place.spec()?;
    sweep(&place, &Cgroup::of(name))
}

/// Removes whatever there is of a container.
fn sweep(place: &Place, cgroup: &Cgroup) -> Result<()> {
    if cgroup.read("cgroup.events")?.is_some() {
        cgroup.kill()?;
        cgroup.await_empty(PATIENCE)?;
    }
    if let Ok(record) = place.record() {
        keeper::dismiss(record.keeper, PATIENCE)?;
    }
    if let Some(network) = place.spec().ok().and_then(|spec| spec.network) {
        links::remove(&network)?;
    }
    let _lock = Place::lock()?;
    cgroup.remove()?;
    place.remove()
}

/// What the command of a container has written.
///
/// # Errors
/// When there is none of this name.
pub(crate) fn log(name: &str) -> Result<Log> {
    let place = Place::of(name)?;
    place.spec()?;
    crate::output::read(&place.log())
}

/// Gives a container other limits and peers while it is there.
///
/// # Errors
/// When there is none of this name, or something else of it is to be changed, which takes another container.
pub(crate) fn update(mut spec: Spec) -> Result<()> {
    spec.check()?;
    image::complete(&mut spec)?;
    let place = Place::of(&spec.name)?;
    let _lock = Place::lock()?;
    let old = place.spec()?;
    if !spec.is_adjusted(&old) {
        return refuse(
            Kind::State,
            format!("changing the container {}: only limits, the rate of its network and its peers can be changed while it is there; delete it and create it anew", spec.name),
        );
    }
    Cgroup::of(&spec.name).limit(&spec.limits.changes(&old.limits))?;
    if let (Some(new), Some(old)) = (&spec.network, &old.network) {
        let init =
            place.record()?.init.context("changing the network: the container has no process")?;
        links::change(old, new, init.pid)?;
    }
    place.set_spec(&spec)
}

/// Signals by name, with or without `SIG`, or by number.
fn signal_number(name: &str) -> Result<Signal> {
    let upper = name.to_ascii_uppercase();
    let plain = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = plain.parse().ok().or_else(|| {
        let named: Result<nix::sys::signal::Signal, _> = format!("SIG{plain}").parse();
        named.ok().map(|signal| signal as i32)
    });
    match number.and_then(Signal::from_named_raw) {
        Some(signal) => Ok(signal),
        None => refuse(
            Kind::Invalid,
            format!("sending the signal {name:?}: there is none of this name"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for name in ["TERM", "SIGTERM", "sigterm", "15"] {
            assert_eq!(signal_number(name).unwrap(), Signal::TERM, "{name}");
        }
        for name in ["", "0", "-1", "99", "TERMS", "SIG"] {
            assert!(signal_number(name).is_err(), "{name}");
        }
    }
}
