// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory, time and disks, as a process has them.

use super::images::seconds;
use super::{Duty, Plan, Servers, Source};
use crate::disk::{Disk, Image, Remote};
use crate::server::{OpenError, Outside};
use core::time::Duration;
use dvk::{Endpoint, Granted, Port, Slot, Timeout};
use mol_protocol::Errno;
use mol_vdd::client::{DiskError, Finder};
use mol_vdd::run::{ByGroup, BySlot};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// How long memory of another node may take to come. Clients have nothing to do with it, only the link has.
const COPY: Timeout = Timeout::from_millis(2000);
/// How long it is asked on another node whether an endpoint is gone.
const ASKING: Timeout = Timeout::from_millis(50);

/// How long it is tried to find a disk server that answers, while clients wait.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Kernel {
    port: Arc<Port>,
    dvk: PathBuf,
    /// The endpoint that asks disk servers, once there is something to ask. Disks are as long-lived as the process.
    asking: OnceLock<&'static Port>,
    disks: BTreeMap<String, Source>,
    /// Whether this is the server of its group, if it has one.
    duty: Option<Arc<Duty>>,
}

impl Kernel {
    pub(super) fn new(port: Arc<Port>, plan: &Plan, duty: Option<Arc<Duty>>) -> Self {
        let disks = plan.disks.iter().cloned().collect();
        Self { port, dvk: plan.dvk.clone(), asking: OnceLock::new(), disks, duty }
    }

    /// The endpoint that asks disk servers.
    fn asking(&self) -> Result<&'static Port, dvk::Error> {
        if let Some(port) = self.asking.get() {
            return Ok(port);
        }
        let port = Port::open(&self.dvk, Slot::Any)?;
        Ok(self.asking.get_or_init(|| Box::leak(Box::new(port))))
    }

    fn open_device<F: Finder + 'static>(
        &self,
        minor: u32,
        read_only: bool,
        finder: impl FnOnce(&'static Port) -> Result<F, dvk::Error>,
    ) -> Result<Box<dyn Disk>, OpenError> {
        let unreachable =
            |error: dvk::Error| OpenError { errno: Errno::Io, reason: error.to_string() };
        let port = self.asking().map_err(unreachable)?;
        let finder = OnDuty { inner: finder(port).map_err(unreachable)?, duty: self.duty.clone() };
        match Remote::open(port, finder, minor, read_only, PATIENCE) {
            Ok(remote) => Ok(Box::new(remote)),
            Err(error) => Err(OpenError {
                errno: match &error {
                    DiskError::Refused { errno, .. } => *errno,
                    _ => Errno::NoSuchDevice,
                },
                reason: format!("device {minor} of a disk server: {error}"),
            }),
        }
    }
}

/// Finds a disk server only while this file server is the one of its group. A disk that another one may have is not opened again.
struct OnDuty<F> {
    inner: F,
    duty: Option<Arc<Duty>>,
}

impl<F: Finder> Finder for OnDuty<F> {
    fn find(&self) -> Option<Endpoint> {
        match &self.duty {
            Some(duty) if !duty.is_held() => None,
            _ => self.inner.find(),
        }
    }

    fn now(&self) -> Duration {
        self.inner.now()
    }

    fn pause(&self, time: Duration) {
        self.inner.pause(time);
    }
}

fn open_path(path: &Path, read_only: bool) -> Result<Box<dyn Disk>, OpenError> {
    match Image::open(path, read_only) {
        Ok(image) => Ok(Box::new(image)),
        Err(error) => Err(OpenError {
            errno: match error.kind() {
                ErrorKind::NotFound => Errno::NoSuchDevice,
                ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => Errno::ReadOnly,
                ErrorKind::ResourceBusy | ErrorKind::WouldBlock => Errno::Busy,
                _ => Errno::Io,
            },
            reason: format!("{}: {error}", path.display()),
        }),
    }
}

impl Outside for Kernel {
    fn seconds(&self) -> u32 {
        seconds()
    }

    fn copy_from(&self, from: Granted, into: &mut [u8]) -> Result<(), Errno> {
        self.port.copy_from(from, into, COPY).map_err(|_| Errno::Fault)
    }

    fn copy_to(&self, to: Granted, from: &[u8]) -> Result<(), Errno> {
        self.port.copy_to(to, from, COPY).map_err(|_| Errno::Fault)
    }

    fn is_gone(&self, client: Endpoint) -> bool {
        let waited = self.port.wait_unbind(client, ASKING);
        waited.map_or_else(|error| super::watch::is_end(&error), |()| true)
    }

    fn open(&self, label: &str, read_only: bool) -> Result<Box<dyn Disk>, OpenError> {
        match self.disks.get(label).ok_or_else(|| OpenError::unknown(label))? {
            Source::Path(path) => open_path(path, read_only),
            Source::Device { server: Servers::Slot(slot), minor } => {
                self.open_device(*minor, read_only, |port| Ok(BySlot::new(port, *slot)))
            }
            Source::Device { server: Servers::Group(group), minor } => {
                self.open_device(*minor, read_only, |_| ByGroup::new(&self.dvk, group, *minor))
            }
        }
    }
}
