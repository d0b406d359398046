// SPDX-License-Identifier: MIT OR Apache-2.0
//! A gateway to Linux: what a device is as a block device `/dev/ublkbN`, and what it answers to its requests.

use crate::export::Export;
use core::time::Duration;
use dvk::protocol::ErrorCode;
use libublk::sys;
use mol_protocol::Errno;

/// The unit of positions and lengths in bytes, whatever the block is.
const SECTOR_BYTES: u32 = 512;
/// The most bytes of one request: each that Linux may hand over has as much memory.
pub const REQUEST_BYTES_MAX: u32 = 256 << 10;
/// The most bytes that are discarded, or written with zeros, by one request.
const RANGE_BYTES_MAX: u32 = 8 << 20;
/// The blocks that a device may have, in bytes: from a sector to a page.
const BLOCK_BYTES: core::ops::RangeInclusive<u32> = SECTOR_BYTES..=4096;

/// Why there is no block device, or not any more.
#[derive(Debug, thiserror::Error)]
pub enum UblkError {
    /// There is no driver, or it cannot be reached.
    #[error("cannot open /dev/ublk-control: {0}; a kernel with CONFIG_BLK_DEV_UBLK and root of the node are needed")]
    Control(std::io::Error),
    /// Linux has no such devices.
    #[error(
        "cannot have {bytes} bytes in blocks of {block_bytes} as a block device of Linux: its blocks have {} to {} bytes",
        BLOCK_BYTES.start(), BLOCK_BYTES.end()
    )]
    Traits {
        /// How many bytes it has.
        bytes: u64,
        /// The block.
        block_bytes: u32,
    },
    /// The number is taken.
    #[error("cannot make /dev/ublkb{0}: somebody answers for a device of this number; take another one, or none")]
    InUse(u32),
    /// The driver does not do it.
    #[error("cannot {what}: {error}")]
    Driver {
        /// What was attempted, and on what.
        what: String,
        /// What Linux says.
        error: std::io::Error,
    },
}

/// What Linux is told of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    /// How many bytes it has.
    pub bytes: u64,
    /// The smallest piece that is read or written.
    pub block_bytes: u32,
    /// Whether it takes no writes.
    pub is_read_only: bool,
}

impl Traits {
    /// As the driver takes them. What was written is safe after a flush, or if it was asked to be.
    ///
    /// # Errors
    /// [`UblkError::Traits`]: Linux has block devices of a positive number of blocks, which are a power of two of bytes from a sector to
    /// a page.
    pub fn parameters(&self) -> Result<sys::ublk_params, UblkError> {
        let Self { bytes, block_bytes, is_read_only } = *self;
        let is_possible = BLOCK_BYTES.contains(&block_bytes)
            && block_bytes.is_power_of_two()
            && bytes != 0
            && bytes.is_multiple_of(u64::from(block_bytes))
            && bytes <= i64::MAX as u64;
        if !is_possible {
            return Err(UblkError::Traits { bytes, block_bytes });
        }
        let block = block_bytes.trailing_zeros() as u8;
        let safety = sys::UBLK_ATTR_VOLATILE_CACHE | sys::UBLK_ATTR_FUA;
        let basic = sys::ublk_param_basic {
            attrs: if is_read_only { safety | sys::UBLK_ATTR_READ_ONLY } else { safety },
            logical_bs_shift: block,
            physical_bs_shift: block,
            io_opt_shift: block,
            io_min_shift: block,
            max_sectors: REQUEST_BYTES_MAX / SECTOR_BYTES,
            dev_sectors: bytes / u64::from(SECTOR_BYTES),
            ..Default::default()
        };
        let types = sys::UBLK_PARAM_TYPE_BASIC;
        if is_read_only {
            return Ok(sys::ublk_params { types, basic, ..Default::default() });
        }
        let discard = sys::ublk_param_discard {
            discard_granularity: block_bytes,
            max_discard_sectors: RANGE_BYTES_MAX / SECTOR_BYTES,
            max_write_zeroes_sectors: RANGE_BYTES_MAX / SECTOR_BYTES,
            max_discard_segments: 1,
            ..Default::default()
        };
        let types = types | sys::UBLK_PARAM_TYPE_DISCARD;
        Ok(sys::ublk_params { types, basic, discard, ..Default::default() })
    }
}

/// What Linux asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// To read.
    Read,
    /// To write.
    Write {
        /// Whether it has to be safe when it is answered.
        is_durable: bool,
    },
    /// To make safe what was written.
    Flush,
    /// That a range is not needed any more.
    Discard,
    /// To make a range zeros.
    WriteZeroes {
        /// Whether it has to be safe when it is answered.
        is_durable: bool,
    },
    /// Something that this device was not said to do.
    Other(u8),
}

/// A request of a block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is asked.
    pub operation: Operation,
    /// The first byte.
    pub position: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl Request {
    /// How many bytes of data go with it.
    pub fn data_bytes(&self) -> u64 {
        match self.operation {
            Operation::Read | Operation::Write { .. } => self.bytes,
            _ => 0,
        }
    }

    /// What the driver is answered: how many bytes were moved, or an errno of Linux why none were.
    pub fn answer(&self, done: Result<(), Errno>) -> i32 {
        match done {
            // There are at most as many as a request may have.
            Ok(()) => self.data_bytes() as i32,
            Err(errno) => -(errno.code() as i32),
        }
    }
}

impl From<sys::ublksrv_io_desc> for Request {
    fn from(descriptor: sys::ublksrv_io_desc) -> Self {
        let is_durable = descriptor.op_flags & sys::UBLK_IO_F_FUA != 0;
        let operation = match descriptor.op_flags & 0xff {
            sys::UBLK_IO_OP_READ => Operation::Read,
            sys::UBLK_IO_OP_WRITE => Operation::Write { is_durable },
            sys::UBLK_IO_OP_FLUSH => Operation::Flush,
            sys::UBLK_IO_OP_DISCARD => Operation::Discard,
            sys::UBLK_IO_OP_WRITE_ZEROES => Operation::WriteZeroes { is_durable },
            other => Operation::Other(other as u8),
        };
        let sector = u64::from(SECTOR_BYTES);
        let position = descriptor.start_sector.saturating_mul(sector);
        Self { operation, position, bytes: u64::from(descriptor.nr_sectors) * sector }
    }
}

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

    /// The data of a write, or where that of a read goes: as many bytes as any request may have.
    fn data(&mut self, taken: &Self::Taken) -> &mut [u8];

    /// Answers.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    fn answer(&mut self, taken: Self::Taken, done: Result<(), Errno>) -> Result<(), Self::Error>;
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
    while let Some(taken) = requests.take()? {
        let began = now();
        let request = requests.request(&taken);
        let done = perform(request, requests.data(&taken), export);
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

fn perform(request: Request, data: &mut [u8], export: &mut impl Export) -> Result<(), Errno> {
    let Request { operation, position, bytes } = request;
    if operation != Operation::Flush {
        let end = position.checked_add(bytes).filter(|end| *end <= export.bytes());
        if end.is_none() || bytes == 0 {
            return Err(Errno::Invalid);
        }
        if operation != Operation::Read && export.is_read_only() {
            return Err(Errno::ReadOnly);
        }
    }
    // Linux asks for no more than it was told that it may.
    let length = usize::try_from(request.data_bytes()).map_err(|_| Errno::Invalid)?;
    let data = data.get_mut(..length).ok_or(Errno::Invalid)?;
    match operation {
        Operation::Read => export.read(position, data),
        Operation::Write { is_durable } => export.write(position, data, is_durable),
        Operation::Flush => export.flush(),
        Operation::Discard => export.trim(position, bytes),
        Operation::WriteZeroes { is_durable } => export.write_zeros(position, bytes, is_durable),
        Operation::Other(_) => Err(Errno::NotSupported),
    }
}
