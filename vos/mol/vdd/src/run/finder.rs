// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a program finds the server of a device.

use super::clerk;
use crate::board;
use crate::client::Finder;
use core::time::Duration;
use dvk::{Endpoint, Port, Slot, Timeout};
use std::cell::RefCell;
use std::path::Path;
use std::time::Instant;

/// How long it is waited for a server to bind its slot before somebody else is asked anything.
const BRIEFLY: Timeout = Timeout::from_millis(200);

/// A server that has a well-known number, on this node.
#[derive(Debug)]
pub struct BySlot<'p> {
    port: &'p Port,
    slot: u32,
    began: Instant,
}

impl<'p> BySlot<'p> {
    /// Looks for it by this port.
    pub fn new(port: &'p Port, slot: u32) -> Self {
        Self { port, slot, began: Instant::now() }
    }
}

impl Finder for BySlot<'_> {
    fn find(&self) -> Option<Endpoint> {
        self.port.wait_bind(self.slot, BRIEFLY).ok()
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn pause(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// The server of the primary, as the cluster has agreed on.
#[derive(Debug)]
pub struct ByGroup {
    /// An endpoint of its own: that of the program may be waiting.
    port: Port,
    group: String,
    minor: u32,
    began: Instant,
    told: RefCell<Option<String>>,
}

impl ByGroup {
    /// Looks for the primary of a device.
    ///
    /// # Errors
    /// Those of [`Port::open`].
    pub fn new(dvk: &Path, group: &str, minor: u32) -> Result<Self, dvk::Error> {
        let port = Port::open(dvk, Slot::Any)?;
        let (group, began) = (group.to_owned(), Instant::now());
        Ok(Self { port, group, minor, began, told: RefCell::new(None) })
    }
}

impl Finder for ByGroup {
    fn find(&self) -> Option<Endpoint> {
        let client = clerk::find(&self.port).ok()?;
        match board::find(&client, &self.group, self.minor) {
            Ok(server) => server,
            Err(error) => {
                let text = Some(error.to_string());
                if *self.told.borrow() != text {
                    eprintln!("looking for the primary of device {}: {error}", self.minor);
                    *self.told.borrow_mut() = text;
                }
                None
            }
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn pause(&self, time: Duration) {
        std::thread::sleep(time);
    }
}
