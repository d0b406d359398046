// SPDX-License-Identifier: MIT OR Apache-2.0
//! One device of a server.

use super::copy::{Copy, REPLICATED_BYTES_MAX};
use super::waiting::Waiting;
use super::Outside;
use crate::ledger::Ledger;
use crate::replica::{Change, Request};
use crate::store::{Shape, Store, StoreError};
use dvk::{Endpoint, Message};
use mol_protocol::Errno;

/// Why a store cannot hold a replica.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// It takes no writes.
    #[error("cannot replicate a store that was opened for reading only")]
    ReadOnly,
    /// Its size is none for a replica.
    #[error(
        "cannot replicate a store of {bytes} bytes: with its record it may have at most {most}, and has to have \
         room for the record and a block"
    )]
    Size {
        /// How many bytes it has.
        bytes: u64,
        /// How many a device may have.
        most: u64,
    },
    /// What was kept in it cannot be read.
    #[error("cannot find out what the replica has: {0}")]
    Record(#[from] StoreError),
}

#[derive(Debug)]
pub(super) struct Device {
    pub(super) store: Box<dyn Store>,
    /// If it has replicas: that of this server.
    pub(super) copy: Option<Copy>,
}

impl core::fmt::Debug for dyn Store {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Store({:?})", self.shape())
    }
}

impl Device {
    pub(super) fn plain(store: Box<dyn Store>) -> Self {
        Self { store, copy: None }
    }

    pub(super) fn replicated(store: Box<dyn Store>) -> Result<Self, DeviceError> {
        let shape = store.shape();
        if !shape.writable {
            return Err(DeviceError::ReadOnly);
        }
        // A device has the same size whether its store lasts or not.
        let bytes = Ledger::device_bytes(&shape);
        if bytes == 0 || bytes > REPLICATED_BYTES_MAX {
            return Err(DeviceError::Size { bytes: shape.bytes, most: REPLICATED_BYTES_MAX });
        }
        let copy = Copy::open(&*store, bytes)?;
        Ok(Self { store, copy: Some(copy) })
    }

    /// How many bytes clients see.
    pub(super) fn bytes(&self) -> u64 {
        self.shape().bytes
    }

    /// What clients see.
    pub(super) fn shape(&self) -> Shape {
        let shape = self.store.shape();
        match &self.copy {
            Some(_) => Shape { bytes: Ledger::device_bytes(&shape), ..shape },
            None => shape,
        }
    }

    /// Does a request of a device without replicas.
    pub(super) fn perform<O: Outside>(
        &mut self,
        outside: &O,
        waiting: Waiting,
        request: &Request,
    ) -> (Endpoint, Message) {
        let done = match request {
            Request::Read { position, bytes } => {
                read_for(outside, &*self.store, &waiting, *position, *bytes)
            }
            Request::Change(change) => {
                apply(&mut *self.store, change).map_err(|error| error.errno())
            }
            Request::Flush => self.store.flush().map_err(|error| error.errno()),
        };
        waiting.answer(request, done)
    }
}

/// Does a change.
pub(super) fn apply(store: &mut dyn Store, change: &Change) -> Result<(), StoreError> {
    match change {
        Change::Write { position, data, safety } => store.write(*position, data, *safety),
        Change::Zero { position, bytes } => store.zero(*position, *bytes),
    }
}

/// Reads blocks.
pub(super) fn read(store: &dyn Store, position: u64, bytes: u64) -> Result<Vec<u8>, StoreError> {
    let mut data = vec![0; bytes as usize];
    store.read(position, &mut data)?;
    Ok(data)
}

/// Reads blocks into the memory of who waits for them.
fn read_for<O: Outside>(
    outside: &O,
    store: &dyn Store,
    waiting: &Waiting,
    position: u64,
    bytes: u64,
) -> Result<(), Errno> {
    let data = read(store, position, bytes).map_err(|error| error.errno())?;
    waiting.place().ok_or(Errno::Invalid)?.fill(outside, &data)
}
