// SPDX-License-Identifier: MIT OR Apache-2.0
//! The sequence of events that the control device gives.

use super::Case;
use crate::blocked::blocked;
use crate::check::{equal, fails};
use crate::dvs::{self, Scratch};
use anyhow::{ensure, Result};
use dvk::abi::ioctl::{EVENTS, EVENT_BOUND, EVENT_UNBOUND};
use dvk::{Control, Endpoint, Errno, Event, Timeout};
use rustix::event::{poll, PollFd, PollFlags};

/// Why no case is run between nodes.
const WHY: &str = "a node tells what happens on it";

pub(super) const CASES: &[Case] = &[
    Case::alone("events-begin-with-the-first-call", WHY, begin),
    Case::alone("events-tell-of-binds-and-ends", WHY, binds),
    Case::alone("events-are-waited-for", WHY, waits),
    Case::alone("events-are-read-by-each-file-for-itself", WHY, apart),
    Case::alone("events-lost-are-counted", WHY, lost),
    Case::alone("events-wrong-arguments-are-einval-or-efault", WHY, wrong),
];

/// A file that has read everything so far.
fn watcher() -> Result<Control> {
    let control = Control::open()?;
    fails("events", control.events(&mut [Event::default()], Timeout::NoWait), Errno::WouldBlock)?;
    Ok(control)
}

/// What happened to endpoints of `container` since the last time.
fn seen(control: &Control, container: u32) -> Result<Vec<(u32, u64)>> {
    let mut events = [Event::default(); 16];
    let mut seen = Vec::new();
    loop {
        match control.events(&mut events, Timeout::NoWait) {
            Ok((count, lost)) => {
                equal("lost events", lost, 0)?;
                let ours = events[..count].iter().filter(|event| event.container == container);
                seen.extend(ours.map(|event| (event.kind, event.endpoint)));
            }
            Err(error) if error.is(Errno::WouldBlock) => return Ok(seen),
            Err(error) => return Err(error.into()),
        }
    }
}

fn begin() -> Result<()> {
    let control = Control::open()?;
    drop(dvs::bind()?);
    fails("events", control.events(&mut [Event::default()], Timeout::NoWait), Errno::WouldBlock)
}

fn binds() -> Result<()> {
    let (control, scratch) = (watcher()?, Scratch::new(0)?);
    scratch.lease(64, 32)?;
    let port = scratch.bind()?;
    let endpoint = port.endpoint().raw();
    equal("events", seen(&control, scratch.id)?, vec![(EVENT_BOUND, endpoint)])?;
    drop(port);
    equal("events", seen(&control, scratch.id)?, vec![(EVENT_UNBOUND, endpoint)])?;
    let survivor = scratch.bind()?;
    let endpoint = survivor.endpoint().raw();
    let id = scratch.id;
    drop(scratch);
    let expected = vec![(EVENT_BOUND, endpoint), (EVENT_UNBOUND, endpoint)];
    equal("events of a container's end", seen(&control, id)?, expected)
}

fn waits() -> Result<()> {
    let control = watcher()?;
    let mut room = [Event::default(); 4];
    let limit = Timeout::from_millis(20);
    fails("events", control.events(&mut room, limit), Errno::TimedOut)?;
    let file = rustix::io::dup(&control)?;
    let mut fds = [PollFd::new(&file, PollFlags::IN)];
    let nothing = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    equal("files to be read", poll(&mut fds, Some(&nothing))?, 0)?;
    let call = blocked(move || {
        let mut room = [Event::default(); 4];
        control.events(&mut room, Timeout::Forever).map(|(count, _)| room[..count].to_vec())
    })?;
    call.waits("events while nothing happens")?;
    let port = dvs::bind()?;
    let events = call.join("events to come")??;
    equal("whose event", events.first().map(|e| e.endpoint), Some(port.endpoint().raw()))?;
    ensure!(events[0].time_ns > 0, "an event without time");
    // Both descriptors are the same file, so that one was read.
    equal("files to be read", poll(&mut fds, Some(&nothing))?, 0)?;
    drop(port);
    equal("files to be read", poll(&mut fds, Some(&nothing))?, 1)
}

fn apart() -> Result<()> {
    let (first, second, scratch) = (watcher()?, watcher()?, Scratch::new(0)?);
    scratch.lease(64, 32)?;
    let port = scratch.bind()?;
    let expected = vec![(EVENT_BOUND, port.endpoint().raw())];
    equal("events of one", seen(&first, scratch.id)?, expected.clone())?;
    equal("events of the other", seen(&second, scratch.id)?, expected)
}

fn lost() -> Result<()> {
    /// What the kernel keeps.
    const KEPT: u64 = 1024;
    let control = watcher()?;
    for _ in 0..KEPT {
        drop(dvs::bind()?);
    }
    let mut room = vec![Event::default(); 2 * KEPT as usize];
    let (count, lost) = control.events(&mut room, Timeout::NoWait)?;
    equal("events kept and lost", (count as u64, lost), (KEPT, KEPT))?;
    let last = room[count - 1];
    equal("the last event", last.kind, EVENT_UNBOUND)?;
    ensure!(Endpoint::from_raw(last.endpoint).is_name(), "an event about nobody");
    Ok(())
}

fn wrong() -> Result<()> {
    let control = watcher()?;
    fails("no room", control.events(&mut [], Timeout::NoWait), Errno::Invalid)?;
    drop(dvs::bind()?);
    let (nr, bytes) = ((EVENTS & 0xff) as u8, EVENTS >> 16 & 0x3fff);
    let result = dvk::raw::call_null(&control, nr, EVENTS >> 30, bytes);
    crate::check::refused("a null block", result, Errno::Fault)?;
    // What could not be told is told the next time.
    let (count, lost) = control.events(&mut [Event::default(); 4], Timeout::NoWait)?;
    equal("events", (count, lost), (2, 0))
}
