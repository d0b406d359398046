// SPDX-License-Identifier: MIT OR Apache-2.0
//! The device that a gateway passes on.

use super::{ByGroup, BySlot, RunError};
use crate::client::{Disk, DiskError, Finder};
use core::time::Duration;
use dvk::Port;
use mol_protocol::block::OPEN_WRITE;
use mol_protocol::Errno;
use std::path::PathBuf;

/// How long a request may take, a failover included, before who asks is told that it failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// How the server of a device is found.
#[derive(Clone, Debug)]
pub enum Found {
    /// As the primary of a group.
    Group(String),
    /// By its server slot on this node.
    Slot(u32),
}

/// Which device a gateway passes on.
#[derive(Clone, Debug)]
pub struct Target {
    /// The device of the container.
    pub dvk: PathBuf,
    /// Whose device.
    pub server: Found,
    /// Which device of it.
    pub minor: u32,
}

impl Target {
    /// Opens the device for writing, or for reading if it takes no writes.
    pub(super) fn open<T>(
        &self,
        port: &Port,
        work: impl FnOnce(&mut Disk<'_, Port, Box<dyn Finder + '_>>) -> T,
    ) -> Result<T, RunError> {
        let finder = || -> Result<Box<dyn Finder + '_>, dvk::Error> {
            Ok(match &self.server {
                Found::Group(group) => Box::new(ByGroup::new(&self.dvk, group, self.minor)?),
                Found::Slot(slot) => Box::new(BySlot::new(port, *slot)),
            })
        };
        let open = |flags| -> Result<_, dvk::Error> {
            Ok(Disk::open(port, finder()?, self.minor, flags, PATIENCE))
        };
        let mut disk = match open(OPEN_WRITE)? {
            Err(DiskError::Refused { errno: Errno::ReadOnly, .. }) => open(0)?,
            other => other,
        }?;
        let done = work(&mut disk);
        disk.close();
        Ok(done)
    }
}
