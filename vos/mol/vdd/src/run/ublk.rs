// SPDX-License-Identifier: MIT OR Apache-2.0
//! The gateway to Linux as a process: a thread and an endpoint for each queue of a block device.

use super::target::{Target, PATIENCE};
use super::RunError;
use crate::export::Export;
use crate::ublk::serve;
use dvk::{Port, Slot};
use mol_ublk::{Device, Queue, Traits, UblkError};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::sync::mpsc::{channel, Sender};
use std::time::Instant;

/// What Linux is to have.
#[derive(Clone, Debug)]
pub struct UblkPlan {
    /// Which device.
    pub target: Target,
    /// The number N of `/dev/ublkbN`, or any.
    pub id: Option<u32>,
    /// How many requests may be under way at once: each queue has a thread that does one after the other.
    pub queues: u16,
    /// How many requests of a queue Linux may hand over.
    pub depth: u16,
}

enum Event {
    /// A queue takes requests.
    Ready,
    /// A queue takes no more.
    Ended(Result<(), RunError>),
    /// The process is told to end.
    Told,
}

/// Has Linux use a device as `/dev/ublkbN`, until the process is told to end by SIGTERM or SIGINT. The block device is gone then, after
/// Linux has written what it still had to.
///
/// # Errors
/// [`RunError`].
pub fn ublk(plan: &UblkPlan) -> Result<(), RunError> {
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(RunError::Signals)?;
    let port = Port::open(&plan.target.dvk, Slot::Any)?;
    let traits = plan.target.open(&port, |disk| Traits {
        bytes: disk.bytes(),
        block_bytes: disk.block_bytes(),
        is_read_only: disk.is_read_only(),
    })?;
    let mut device = Device::add(plan.id, plan.queues, plan.depth, &traits)?;
    let (tell, events) = channel();
    let mut threads = Vec::new();
    for make in device.queues()? {
        let (tell, target) = (tell.clone(), plan.target.clone());
        threads.push(std::thread::spawn(move || {
            let ended = answer(&target, make, &tell);
            // If nobody listens, the process ends.
            let _ = tell.send(Event::Ended(ended));
        }));
    }
    // Linux waits for all queues without end, so it is not asked before they are there.
    for _ in &threads {
        match events.recv() {
            Ok(Event::Ended(ended)) => return ended,
            Ok(Event::Ready | Event::Told) | Err(_) => {}
        }
    }
    device.start()?;
    eprintln!("mol-vdd: passing on {} bytes as {}", traits.bytes, device.path());
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            let _ = tell.send(Event::Told);
        }
    });
    if let Ok(Event::Ended(ended)) = events.recv() {
        // What this queue was asked is not answered by anybody, so nothing may wait for it: Linux cleans up when the process ends.
        device.abandon();
        return ended;
    }
    device.stop()?;
    for thread in threads {
        // One that has panicked has said so, and its file is closed.
        let _ = thread.join();
    }
    Ok(())
}

/// Answers for a queue until the block device is stopped.
fn answer(
    target: &Target,
    make: impl FnOnce() -> Result<Queue, UblkError>,
    tell: &Sender<Event>,
) -> Result<(), RunError> {
    let port = Port::open(&target.dvk, Slot::Any)?;
    let began = Instant::now();
    target.open(&port, |disk| {
        let mut queue = make()?;
        let _ = tell.send(Event::Ready);
        Ok(serve(&mut queue, disk, || began.elapsed(), PATIENCE)?)
    })?
}
