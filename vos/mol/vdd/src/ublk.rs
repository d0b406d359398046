// SPDX-License-Identifier: MIT OR Apache-2.0
//! A gateway to Linux: what a device answers to the requests of a block device `/dev/ublkbN`.

use crate::export::Export;
use core::time::Duration;
use dvk::protocol::ErrorCode;
use mol_protocol::Errno;
use mol_ublk::{Operation, Queue, Request, Taken, UblkError};

/// Where requests come from, and answers go.
pub trait Requests {
    /// A request that has to be answered.
    type Taken;
    /// Why it goes on no more.
    type Error;

    /// The next request, however long it takes; `None` at the end.
    ///
    /// # Errors
    /// Linux cannot be asked any more.
    fn take(&mut self) -> Result<Option<Self::Taken>, Self::Error>;

    /// A request that has come already.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    fn take_waiting(&mut self) -> Result<Option<Self::Taken>, Self::Error>;

    /// What is asked.
    fn request(&self, taken: &Self::Taken) -> Request;

    /// Has the data of a write.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    fn read_data(&self, taken: &Self::Taken, into: &mut [u8]) -> Result<(), Self::Error>;

    /// Gives the data of a read.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    fn write_data(&self, taken: &Self::Taken, from: &[u8]) -> Result<(), Self::Error>;

    /// Answers.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    fn answer(&mut self, taken: Self::Taken, done: Result<(), Errno>) -> Result<(), Self::Error>;
}

impl Requests for Queue {
    type Taken = Taken;
    type Error = UblkError;

    fn take(&mut self) -> Result<Option<Taken>, UblkError> {
        Queue::take(self)
    }

    fn take_waiting(&mut self) -> Result<Option<Taken>, UblkError> {
        Queue::take_waiting(self)
    }

    fn request(&self, taken: &Taken) -> Request {
        taken.request
    }

    fn read_data(&self, taken: &Taken, into: &mut [u8]) -> Result<(), UblkError> {
        Queue::read_data(self, taken, into)
    }

    fn write_data(&self, taken: &Taken, from: &[u8]) -> Result<(), UblkError> {
        Queue::write_data(self, taken, from)
    }

    fn answer(&mut self, taken: Taken, done: Result<(), Errno>) -> Result<(), UblkError> {
        Queue::answer(self, taken, done.map_err(|errno| errno.code() as i32))
    }
}

/// Answers requests, one after the other, until there are no more. `now` is a clock that never goes back. A request that fails after
/// `patience` has met silence, and those that have waited behind it all the time fail with it: nobody waits for several silences.
///
/// # Errors
/// Those of the requests.
pub fn serve<R: Requests>(
    requests: &mut R,
    export: &mut impl Export,
    now: impl Fn() -> Duration,
    patience: Duration,
) -> Result<(), R::Error> {
    let mut data = Vec::new();
    while let Some(taken) = requests.take()? {
        let began = now();
        let done = perform(requests, &taken, export, &mut data)?;
        let met_silence = done.is_err() && now().saturating_sub(began) >= patience;
        let mut behind = Vec::new();
        if met_silence {
            while let Some(waiting) = requests.take_waiting()? {
                behind.push(waiting);
            }
        }
        requests.answer(taken, done)?;
        for waiting in behind {
            requests.answer(waiting, Err(Errno::Io))?;
        }
    }
    Ok(())
}

fn perform<R: Requests>(
    requests: &R,
    taken: &R::Taken,
    export: &mut impl Export,
    data: &mut Vec<u8>,
) -> Result<Result<(), Errno>, R::Error> {
    let request = requests.request(taken);
    let Request { operation, position, bytes } = request;
    if operation != Operation::Flush {
        let end = position.checked_add(bytes).filter(|end| *end <= export.bytes());
        if end.is_none() || bytes == 0 {
            return Ok(Err(Errno::Invalid));
        }
        if operation != Operation::Read && export.is_read_only() {
            return Ok(Err(Errno::ReadOnly));
        }
    }
    // Linux asks for no more than it was told that it may.
    let Some(length) = usize::try_from(request.data_bytes())
        .ok()
        .filter(|length| *length <= mol_ublk::abi::REQUEST_BYTES_MAX as usize)
    else {
        return Ok(Err(Errno::Invalid));
    };
    data.clear();
    data.resize(length, 0);
    Ok(match operation {
        Operation::Read => match export.read(position, data) {
            Ok(()) => {
                requests.write_data(taken, data)?;
                Ok(())
            }
            Err(errno) => Err(errno),
        },
        Operation::Write { is_durable } => {
            requests.read_data(taken, data)?;
            export.write(position, data, is_durable)
        }
        Operation::Flush => export.flush(),
        Operation::Discard => export.trim(position, bytes),
        Operation::WriteZeroes { is_durable } => export.write_zeros(position, bytes, is_durable),
        Operation::Other(_) => Err(Errno::NotSupported),
    })
}
