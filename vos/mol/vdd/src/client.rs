// SPDX-License-Identifier: MIT OR Apache-2.0
//! A device for a program: whichever server answers for it.

use crate::lend::Lend;
use core::time::Duration;
use dvk::{CallError, Endpoint, GrantId, Timeout};
use mol_protocol::block::{
    BlockClient, Close, Flush, Geometry, Open, Read, Trim, Write, DURABLE, OPEN_WRITE,
};
use mol_protocol::Errno;

/// How long one request may take before it is looked for another server.
const LIMIT: Duration = Duration::from_secs(5);
/// How long it is waited before a server is looked for again.
const PAUSE: Duration = Duration::from_millis(50);

/// Where servers are found, and time.
pub trait Finder {
    /// The server that is believed to answer for the device.
    fn find(&self) -> Option<Endpoint>;

    /// The time of a clock that never goes back.
    fn now(&self) -> Duration;

    /// Waits.
    fn pause(&self, time: Duration);
}

impl<F: Finder + ?Sized> Finder for Box<F> {
    fn find(&self) -> Option<Endpoint> {
        (**self).find()
    }

    fn now(&self) -> Duration {
        (**self).now()
    }

    fn pause(&self, time: Duration) {
        (**self).pause(time);
    }
}

/// Why a device does not do it.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Its server says so.
    #[error("cannot {what} the device: {errno}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// Why not.
        errno: Errno,
    },
    /// Nobody answered for it in time.
    #[error("cannot {what} the device: no server answered for it within {} s; last: {last}", .waited.as_secs())]
    NoServer {
        /// What was asked.
        what: &'static str,
        /// How long it was tried.
        waited: Duration,
        /// What happened at the end.
        last: String,
    },
    /// The server of a device without replicas is gone, and with it what was not flushed.
    #[error(
        "cannot {what} the device: its server has ended, and it has no replicas: what was not flushed may be lost ({last})"
    )]
    Ended {
        /// What was asked.
        what: &'static str,
        /// What happened.
        last: String,
    },
    /// Another server has come to answer, and the device is a different one there.
    #[error("cannot {what} the device: it has another size now")]
    Changed {
        /// What was asked.
        what: &'static str,
    },
}

/// An open device. When another server takes over, it is opened there and what was asked is asked again, which the protocol
/// allows: see [`mol_protocol::block`].
#[derive(Debug)]
pub struct Disk<'i, I, F> {
    ipc: &'i I,
    finder: F,
    minor: u32,
    flags: u32,
    patience: Duration,
    server: Option<Endpoint>,
    /// Where it is open, unless that server says otherwise.
    opened_at: Option<Endpoint>,
    geometry: Geometry,
    has_begun: bool,
    /// Whether what was written may be lost, so that nothing may go on as if it were not.
    is_over: bool,
}

/// How a try ended.
enum Tried {
    Changed,
    Refused(Errno),
    /// It is not known whether it was done, or it was not; another server may do it.
    Lost(String),
}

impl<'i, I: Lend, F: Finder> Disk<'i, I, F>
where
    I::Error: core::fmt::Display,
{
    /// Opens a device with these flags. Whatever is asked of it is tried for as long as `patience`.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn open(
        ipc: &'i I,
        finder: F,
        minor: u32,
        flags: u32,
        patience: Duration,
    ) -> Result<Self, DiskError> {
        let geometry = Geometry {
            bytes: 0,
            block_bytes: 0,
            transfer_max: 0,
            flags: 0,
            segments_max: 0,
            replicas: 0,
            epoch: 0,
            revision: 0,
        };
        let mut disk = Self {
            ipc,
            finder,
            minor,
            flags,
            patience,
            server: None,
            opened_at: None,
            geometry,
            has_begun: false,
            is_over: false,
        };
        disk.insist("open", |_, _| Ok(()))?;
        Ok(disk)
    }

    /// What the device is like; how many replicas it has is as it was when it was opened last.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Reads a range of whole blocks.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn read(&mut self, position: u64, into: &mut [u8]) -> Result<(), DiskError> {
        let (minor, most) = (self.minor, self.geometry.transfer_max as usize);
        for (index, piece) in into.chunks_mut(most.max(1)).enumerate() {
            let position = position + (index * most) as u64;
            self.insist("read", |ipc, server| {
                let bytes = piece.len() as u32;
                let read = |into| Read { minor, bytes, position, into, offset: 0 };
                ipc.lend_mut(server, piece, |grant| within(ipc, server).read(&read(grant)))
                    .map_err(CallError::Exchange)?
            })?;
        }
        Ok(())
    }

    /// Writes a range of whole blocks; if it is to be `durable`, they are on stable storage then.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn write(&mut self, position: u64, from: &[u8], durable: bool) -> Result<(), DiskError> {
        if self.flags & OPEN_WRITE == 0 {
            return Err(DiskError::Refused { what: "write to", errno: Errno::BadFile });
        }
        let (minor, most) = (self.minor, self.geometry.transfer_max as usize);
        let flags = if durable { DURABLE } else { 0 };
        for (index, piece) in from.chunks(most.max(1)).enumerate() {
            let position = position + (index * most) as u64;
            self.insist("write to", |ipc, server| {
                let bytes = piece.len() as u32;
                let write =
                    |from: GrantId| Write { minor, bytes, position, from, offset: 0, flags };
                ipc.lend(server, piece, |grant| within(ipc, server).write(&write(grant)))
                    .map_err(CallError::Exchange)?
            })?;
        }
        Ok(())
    }

    /// Has everything that was written before on stable storage.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn flush(&mut self) -> Result<(), DiskError> {
        let minor = self.minor;
        self.insist("flush", |ipc, server| within(ipc, server).flush(&Flush { minor }))
    }

    /// Says that a range is not needed any more.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn trim(&mut self, position: u64, bytes: u64) -> Result<(), DiskError> {
        if self.flags & OPEN_WRITE == 0 {
            return Err(DiskError::Refused { what: "trim", errno: Errno::BadFile });
        }
        let minor = self.minor;
        self.insist("trim", |ipc, server| {
            within(ipc, server).trim(&Trim { minor, position, bytes })
        })
    }

    /// Closes the device; what was not flushed is written as soon as its server likes.
    pub fn close(self) {
        if let Some(server) = self.server {
            // If it cannot be told, it finds out by itself when this endpoint ends.
            let _ = within(self.ipc, server).close(&Close { minor: self.minor });
        }
    }

    fn insist(
        &mut self,
        what: &'static str,
        mut ask: impl FnMut(&I, Endpoint) -> Result<(), CallError<Errno, I::Error>>,
    ) -> Result<(), DiskError> {
        let began = self.finder.now();
        loop {
            let tried = match self.reach() {
                Ok(server) => ask(self.ipc, server).map_err(tried),
                Err(error) => Err(error),
            };
            let last = match tried {
                Ok(()) => return Ok(()),
                Err(Tried::Changed) => return Err(DiskError::Changed { what }),
                Err(Tried::Refused(errno @ (Errno::Elsewhere | Errno::BadFile | Errno::Busy))) => {
                    self.opened_at = None;
                    errno.to_string()
                }
                Err(Tried::Refused(errno)) => return Err(DiskError::Refused { what, errno }),
                Err(Tried::Lost(last)) => last,
            };
            self.server = None;
            if self.has_begun && self.geometry.epoch == 0 {
                self.is_over = true;
                return Err(DiskError::Ended { what, last });
            }
            let waited = self.finder.now().saturating_sub(began);
            if waited >= self.patience {
                return Err(DiskError::NoServer { what, waited, last });
            }
            self.finder.pause(PAUSE);
        }
    }

    /// The server, at which the device is open.
    fn reach(&mut self) -> Result<Endpoint, Tried> {
        if self.is_over {
            return Err(Tried::Lost("that was told before".to_owned()));
        }
        if let Some(server) = self.server {
            return Ok(server);
        }
        let server = self.finder.find().ok_or(Tried::Lost("nobody answers for it".to_owned()))?;
        if self.opened_at != Some(server) {
            let open = Open { minor: self.minor, flags: self.flags };
            let geometry = within(self.ipc, server).open(&open).map_err(tried)?;
            if self.has_begun && geometry.bytes != self.geometry.bytes {
                return Err(Tried::Changed);
            }
            self.geometry = geometry;
            self.has_begun = true;
            self.opened_at = Some(server);
        }
        self.server = Some(server);
        Ok(server)
    }
}

fn within<I: Lend>(ipc: &I, server: Endpoint) -> BlockClient<'_, I> {
    BlockClient::new(ipc, server).within(Timeout::After(LIMIT))
}

fn tried<E: core::fmt::Display>(error: CallError<Errno, E>) -> Tried {
    match error {
        CallError::Refused { error, .. } => Tried::Refused(error),
        error => Tried::Lost(error.to_string()),
    }
}
