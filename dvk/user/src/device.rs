// SPDX-License-Identifier: MIT OR Apache-2.0
//! The device of a container, and which slot of it to bind.

use crate::error::{Call, Error, Subject};
use crate::port::Port;
use crate::sys;
use core::fmt;
use dvk_abi::ioctl::{self, Info};
use dvk_abi::limits::SERVER_SLOTS;
use dvk_abi::Endpoint;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Where PID 1's device file system has the device of `container`. Inside a container the node may
/// be mounted under another name: see [`Port::open`].
pub fn device_path(container: u32) -> PathBuf {
    PathBuf::from(format!("/dev/dvk-dc{container}"))
}

/// Which slot to bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// Any free one of those leased to this node.
    Any,
    /// That of the server with this well-known number, below 64.
    Server(u32),
    /// That of a server on another node, to stand by for it: the endpoint has that one's value,
    /// takes part in nothing, and takes its place when it is promoted. The papers bind such
    /// processes as *backups*.
    Backup(u32),
    /// That of a server of which there may be one on each node, all with one endpoint: processes
    /// reach that of their own node where there is one. The papers call them *replicas*.
    Replica(u32),
    /// That of an endpoint which has moved, or is moving, to this node.
    Adopt(Endpoint),
}

impl Slot {
    fn block(self) -> ioctl::Bind {
        let (slot, flags, endpoint) = match self {
            Self::Any => (ioctl::SLOT_ANY, 0, 0),
            Self::Server(number) => (number, ioctl::BIND_SERVER, 0),
            Self::Backup(number) => (number, ioctl::BIND_SERVER | ioctl::BIND_BACKUP, 0),
            Self::Replica(number) => (number, ioctl::BIND_SERVER | ioctl::BIND_REPLICA, 0),
            Self::Adopt(endpoint) if endpoint.slot() < SERVER_SLOTS => {
                (endpoint.slot(), ioctl::BIND_SERVER | ioctl::BIND_ADOPT, endpoint.raw())
            }
            Self::Adopt(endpoint) => (endpoint.slot(), ioctl::BIND_ADOPT, endpoint.raw()),
        };
        ioctl::Bind { slot, flags, endpoint }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any slot"),
            Self::Server(number) => write!(f, "server slot {number}"),
            Self::Backup(number) => write!(f, "server slot {number} as its backup"),
            Self::Replica(number) => write!(f, "server slot {number} as a replica"),
            Self::Adopt(endpoint) => write!(f, "the slot of {endpoint}"),
        }
    }
}

/// The device of a container, opened and not bound. A container is the papers' Distributed
/// Container, or DC (Pessolani et al. 2018, III-A).
///
/// A process reaches the containers whose devices it can open and no others.
#[derive(Debug)]
pub struct Device {
    pub(crate) file: OwnedFd,
    pub(crate) container: u32,
}

impl Device {
    /// Opens the device of `container` at its usual place, close-on-exec.
    ///
    /// # Errors
    /// Those of `open(2)`, and of [`from_fd`](Self::from_fd).
    pub fn open(container: u32) -> Result<Self, Error> {
        Self::open_at(device_path(container))
    }

    /// Opens the device at `path`, close-on-exec.
    ///
    /// # Errors
    /// Those of `open(2)`, and of [`from_fd`](Self::from_fd).
    pub fn open_at(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::from_fd(open(path.as_ref())?)
    }

    /// Takes an open file of a container's device, such as one that was inherited.
    ///
    /// # Errors
    /// `ENOTTY` if it is no such file.
    pub fn from_fd(file: OwnedFd) -> Result<Self, Error> {
        let info = info(&file)?;
        Ok(Self { file, container: info.container })
    }

    /// The container.
    pub fn container(&self) -> u32 {
        self.container
    }

    /// What the kernel knows of the file.
    ///
    /// # Errors
    /// `ENODEV` after the container was destroyed.
    pub fn info(&self) -> Result<Info, Error> {
        info(&self.file)
    }

    /// Binds the file to a slot and so becomes an endpoint. The file is closed if it fails.
    ///
    /// # Errors
    /// `ENOSPC` if no slot is free or this node has no lease, `EBUSY` if the server slot is bound,
    /// here or elsewhere, or the file is, `EINVAL` for a server number from 64 up, `EACCES` for a
    /// server if the device could not be opened for writing.
    pub fn bind(self, slot: Slot) -> Result<Port, Error> {
        let mut block = slot.block();
        sys::call::<{ ioctl::BIND }, _>(&self.file, &mut block).map_err(|errno| Error {
            call: Call::Bind,
            subject: Subject::Slot(slot),
            container: Some(self.container),
            errno,
        })?;
        Ok(Port::of(self, Endpoint::from_raw(block.endpoint)))
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Opens a device, close-on-exec (as the standard library always does): for reading and writing if
/// its permissions allow that, else for reading, which does for whoever is no server.
pub(crate) fn open(path: &Path) -> Result<OwnedFd, Error> {
    let open = |write| std::fs::File::options().read(true).write(write).open(path);
    let file = open(true).or_else(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
            open(false)
        }
        _ => Err(error),
    });
    file.map(OwnedFd::from).map_err(|error| Error {
        call: Call::Open,
        subject: Subject::Path(path.to_path_buf()),
        container: None,
        errno: rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO),
    })
}

pub(crate) fn info(file: &OwnedFd) -> Result<Info, Error> {
    let mut info = Info::default();
    sys::call::<{ ioctl::GET_INFO }, _>(file, &mut info).map_err(|errno| Error {
        call: Call::GetInfo,
        subject: Subject::None,
        container: None,
        errno,
    })?;
    Ok(info)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_has_its_flags() {
        let block = |slot: Slot| {
            let block = slot.block();
            (block.slot, block.flags, block.endpoint)
        };
        assert_eq!(block(Slot::Any), (u32::MAX, 0, 0));
        assert_eq!(block(Slot::Server(3)), (3, 1, 0));
        assert_eq!(block(Slot::Backup(3)), (3, 3, 0));
        assert_eq!(block(Slot::Replica(3)), (3, 5, 0));
        assert_eq!(block(Slot::Adopt(Endpoint::from_raw(9 << 32 | 3))), (3, 9, 9 << 32 | 3));
        assert_eq!(block(Slot::Adopt(Endpoint::from_raw(9 << 32 | 64))), (64, 8, 9 << 32 | 64));
    }
}
