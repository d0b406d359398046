// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the thread that serves is told by others, and how it waits for that and for messages at once.

use crate::board::{BoardError, Standing};
use crate::feeder::Route;
use crate::replica::Message;
use crate::server::Role;
use core::time::Duration;
use dvk::{Endpoint, Port};
use rustix::event::{eventfd, poll, EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::Arc;

#[derive(Debug)]
pub(super) enum Event {
    /// Who this server is among the replicas of a device.
    Joined(u32, Role),
    /// What was decided on a device.
    Standing(u32, Standing),
    /// What a replica has answered.
    Answered(Route, Vec<Message>),
    /// A client is dead.
    Gone(Endpoint),
    /// This server takes no part any more.
    Ended(BoardError),
}

/// Where events are told.
#[derive(Clone, Debug)]
pub(super) struct Teller {
    events: Sender<Event>,
    bell: Arc<OwnedFd>,
}

impl Teller {
    /// Whether there is still somebody to be told.
    pub(super) fn tell(&self, event: Event) -> bool {
        let is_told = self.events.send(event).is_ok();
        // The counter of the bell is full at worst, and then it has been rung.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        is_told
    }
}

/// Where they are taken.
#[derive(Debug)]
pub(super) struct Events {
    events: Receiver<Event>,
    bell: Arc<OwnedFd>,
}

pub(super) fn events() -> Result<(Teller, Events), Errno> {
    let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let (tell, take) = channel();
    Ok((Teller { events: tell, bell: bell.clone() }, Events { events: take, bell }))
}

impl Events {
    pub(super) fn take(&self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    /// Waits for an event, a message or the time.
    pub(super) fn wait(&self, port: &Port, time: Duration) -> Result<(), Errno> {
        let timeout =
            Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
        let mut files = [PollFd::new(port, PollFlags::IN), PollFd::new(&*self.bell, PollFlags::IN)];
        match poll(&mut files, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        // It stays rung until it is read; what was told is looked for next, in any case.
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        Ok(())
    }
}
