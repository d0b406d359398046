// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory, time and disks, as a process has them.

use crate::disk::{Disk, Image};
use crate::server::{OpenError, Outside};
use dvk::{Endpoint, Granted, Port, Timeout};
use mol_protocol::Errno;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// How long memory of another node may take to come. Clients have nothing to do with it, only the link has.
const COPY: Timeout = Timeout::from_millis(2000);
/// How long it is asked on another node whether an endpoint is gone.
const ASKING: Timeout = Timeout::from_millis(50);

pub(super) struct Kernel {
    port: Arc<Port>,
    disks: BTreeMap<String, PathBuf>,
}

impl Kernel {
    pub(super) fn new(port: Arc<Port>, disks: BTreeMap<String, PathBuf>) -> Self {
        Self { port, disks }
    }
}

impl Outside for Kernel {
    fn seconds(&self) -> u32 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| since.as_secs().try_into().unwrap_or(u32::MAX))
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
        let path = self.disks.get(label).ok_or_else(|| OpenError::unknown(label))?;
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
}
