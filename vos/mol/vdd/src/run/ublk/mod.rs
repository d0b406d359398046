// SPDX-License-Identifier: MIT OR Apache-2.0
//! The gateway to Linux as a process: a thread and an endpoint for each queue of a block device.

mod device;
mod queue;

use self::device::Device;
use self::queue::Queue;
use super::target::{Target, PATIENCE};
use super::RunError;
use crate::export::Export;
use crate::ublk::{serve, Traits, UblkError};
use dvk::{Port, Slot};
use libublk::ctrl::UblkCtrl;
use libublk::io::UblkDev;
use nix::sys::signal::{SigSet, Signal};
use std::io;
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
    // A thread waits for them; any other would be interrupted in the middle of a command to the driver, and not know if it was done.
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block().map_err(|errno| RunError::Signals(errno.into()))?;
    let port = Port::open(&plan.target.dvk, Slot::Any)?;
    let traits = plan.target.open(&port, |disk| Traits {
        bytes: disk.bytes(),
        block_bytes: disk.block_bytes(),
        is_read_only: disk.is_read_only(),
    })?;
    let device = Device::add(plan.id, plan.queues, plan.depth, &traits)?;
    let (tell, events) = channel();
    let mut threads = Vec::new();
    for number in 0..device.queues() {
        let (tell, target, driver) = (tell.clone(), plan.target.clone(), device.driver());
        threads.push(std::thread::spawn(move || {
            let ended = answer(&target, &driver, number, &tell);
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
        if signals.wait().is_ok() {
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
        // One that has panicked has said so, and has given up what it had of the device.
        let _ = thread.join();
    }
    Ok(device.remove()?)
}

/// Answers for a queue until the block device is stopped.
fn answer(
    target: &Target,
    driver: &UblkDev,
    number: u16,
    tell: &Sender<Event>,
) -> Result<(), RunError> {
    // Linux does not have this thread write to block devices when it needs memory: it could be this one.
    UblkCtrl::init_queue_thread();
    let port = Port::open(&target.dvk, Slot::Any)?;
    let began = Instant::now();
    target.open(&port, |disk| {
        let mut queue = Queue::new(driver, number)?;
        let _ = tell.send(Event::Ready);
        Ok(serve(&mut queue, disk, || began.elapsed(), PATIENCE)?)
    })?
}

/// Says what the driver did not do. (What the library says in words has no number.)
fn failed(what: impl Into<String>, error: libublk::UblkError) -> UblkError {
    let error = match error {
        libublk::UblkError::IOError(error) => error,
        libublk::UblkError::UringIOError(result) | libublk::UblkError::OtherError(result) => {
            io::Error::from_raw_os_error(result.saturating_abs())
        }
        other => io::Error::other(other),
    };
    UblkError::Driver { what: what.into(), error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_driver_are_those_of_linux() {
        let message = |error| failed("start /dev/ublkb3", error).to_string();
        let busy = "cannot start /dev/ublkb3: Device or resource busy (os error 16)";
        assert_eq!(message(libublk::UblkError::UringIOError(-16)), busy);
        assert_eq!(message(libublk::UblkError::OtherError(-16)), busy);
        assert_eq!(message(io::Error::from_raw_os_error(16).into()), busy);
        assert_eq!(
            message(libublk::UblkError::QueueIsDown),
            "cannot start /dev/ublkb3: queue down failure"
        );
    }
}
