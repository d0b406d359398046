// SPDX-License-Identifier: MIT OR Apache-2.0
//! Both sides of NBD, the protocol of network block devices: a gateway that has a device as an export for whoever speaks it, and
//! a session as the client of a foreign server, by which a store is on a volume of that.
//!
//! Both speak the fixed newstyle handshake of the NBD protocol (`doc/proto.md` of the project NetworkBlockDevice/nbd), with simple
//! replies and one request after the other. There is no encryption: it is for a socket of the node, or for a network that has some.

mod connection;
mod handshake;
mod session;
mod uri;
mod wire;

pub use self::connection::{serve_connection, NbdError};
pub use self::handshake::GREETING;
pub use self::session::{Offer, Session, SessionError};
pub use self::uri::{NbdUri, UriError, Where};

use crate::client::{Disk, DiskError, Finder};
use crate::lend::Lend;
use mol_protocol::block::READ_ONLY;
use mol_protocol::Errno;

/// What a gateway passes on to.
pub trait Export {
    /// How many bytes it has.
    fn bytes(&self) -> u64;

    /// The unit of reading and writing in bytes.
    fn block_bytes(&self) -> u32;

    /// Whether it takes no writes.
    fn is_read_only(&self) -> bool;

    /// Reads a range of whole blocks.
    ///
    /// # Errors
    /// What the client is told.
    fn read(&mut self, position: u64, into: &mut [u8]) -> Result<(), Errno>;

    /// Writes a range of whole blocks, which is safe when this returns if it is to be `durable`.
    ///
    /// # Errors
    /// What the client is told.
    fn write(&mut self, position: u64, from: &[u8], durable: bool) -> Result<(), Errno>;

    /// Makes safe what was written.
    ///
    /// # Errors
    /// What the client is told.
    fn flush(&mut self) -> Result<(), Errno>;

    /// Gives up a range.
    ///
    /// # Errors
    /// What the client is told.
    fn trim(&mut self, position: u64, bytes: u64) -> Result<(), Errno>;
}

fn told(error: DiskError) -> Errno {
    eprintln!("mol-vdd: {error}");
    match error {
        DiskError::Refused { errno, .. } => errno,
        DiskError::NoServer { .. } | DiskError::Ended { .. } | DiskError::Changed { .. } => {
            Errno::Io
        }
    }
}

impl<I: Lend, F: Finder> Export for Disk<'_, I, F>
where
    I::Error: core::fmt::Display,
{
    fn bytes(&self) -> u64 {
        self.geometry().bytes
    }

    fn block_bytes(&self) -> u32 {
        self.geometry().block_bytes
    }

    fn is_read_only(&self) -> bool {
        self.geometry().flags & READ_ONLY != 0
    }

    fn read(&mut self, position: u64, into: &mut [u8]) -> Result<(), Errno> {
        Disk::read(self, position, into).map_err(told)
    }

    fn write(&mut self, position: u64, from: &[u8], durable: bool) -> Result<(), Errno> {
        Disk::write(self, position, from, durable).map_err(told)
    }

    fn flush(&mut self) -> Result<(), Errno> {
        Disk::flush(self).map_err(told)
    }

    fn trim(&mut self, position: u64, bytes: u64) -> Result<(), Errno> {
        Disk::trim(self, position, bytes).map_err(told)
    }
}
