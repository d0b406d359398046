// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the driver and its server say to each other: `include/uapi/linux/ublk_cmd.h` of Linux, in the byte order of x86-64.

/// The unit of positions and lengths in bytes, whatever the block is.
pub const SECTOR_BYTES: u64 = 512;
/// The most bytes of one request.
pub const REQUEST_BYTES_MAX: u32 = 1 << 20;
/// The most bytes that are discarded, or written with zeros, by one request.
pub const RANGE_BYTES_MAX: u32 = 8 << 20;
/// The blocks that a device may have, in bytes: from a sector to a page.
pub const BLOCK_BYTES: core::ops::RangeInclusive<u32> = 512..=4096;
/// The most requests of a queue.
pub const DEPTH_MAX: u16 = 4096;

const PAGE_BYTES: usize = 4096;
const DESCRIPTOR_BYTES: usize = 24;
/// Where in the driver's file the data of requests is.
const DATA_OFFSET: u64 = 0x8000_0000;
const TAG_SHIFT: u32 = 25;
const QUEUE_SHIFT: u32 = 41;

/// Commands of the control device.
pub(crate) const GET_DEVICE: u32 = command(READS, 0x02, CONTROL_BYTES);
pub(crate) const ADD_DEVICE: u32 = command(READS | WRITES, 0x04, CONTROL_BYTES);
pub(crate) const START_DEVICE: u32 = command(READS | WRITES, 0x06, CONTROL_BYTES);
pub(crate) const STOP_DEVICE: u32 = command(READS | WRITES, 0x07, CONTROL_BYTES);
pub(crate) const SET_PARAMETERS: u32 = command(READS | WRITES, 0x08, CONTROL_BYTES);
/// Deletes it as soon as nobody has it open, and does not wait for that.
pub(crate) const DELETE_DEVICE: u32 = command(READS, 0x14, CONTROL_BYTES);
/// Commands of a device's file: to take a request under a tag, and to answer one and take the next.
pub(crate) const FETCH: u32 = command(READS | WRITES, 0x20, 16);
pub(crate) const COMMIT_AND_FETCH: u32 = command(READS | WRITES, 0x21, 16);

const CONTROL_BYTES: u32 = 32;
const WRITES: u32 = 1;
const READS: u32 = 2;

/// The number of a command, as those of ioctls are made.
const fn command(direction: u32, number: u32, bytes: u32) -> u32 {
    direction << 30 | bytes << 16 | (b'u' as u32) << 8 | number
}

/// Feature: data is copied by reading and writing the driver's file.
pub(crate) const USER_COPY: u64 = 1 << 7;
/// State of a device: nobody answers for it.
const DEAD: u16 = 0;

const READ_ONLY: u32 = 1;
const VOLATILE_CACHE: u32 = 1 << 2;
const FUA: u32 = 1 << 3;
const HAS_BASIC: u32 = 1;
const HAS_DISCARD: u32 = 1 << 1;
const REQUEST_FUA: u32 = 1 << 13;

/// A command to the control device, `struct ublksrv_ctrl_cmd`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Control {
    pub(crate) device: u32,
    pub(crate) address: u64,
    pub(crate) bytes: u16,
    pub(crate) data: u64,
}

impl Control {
    /// As it is in a submission of 128 bytes, which has room for more.
    pub(crate) fn encode(&self) -> [u8; 80] {
        let mut all = [0; 80];
        all[..4].copy_from_slice(&self.device.to_le_bytes());
        // It concerns no queue.
        all[4..6].copy_from_slice(&u16::MAX.to_le_bytes());
        all[6..8].copy_from_slice(&self.bytes.to_le_bytes());
        all[8..16].copy_from_slice(&self.address.to_le_bytes());
        all[16..24].copy_from_slice(&self.data.to_le_bytes());
        all
    }
}

/// What a device has, `struct ublksrv_ctrl_dev_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Info {
    pub(crate) queues: u16,
    pub(crate) depth: u16,
    pub(crate) state: u16,
    pub(crate) request_bytes_max: u32,
    /// Its number; all ones for any.
    pub(crate) id: u32,
    pub(crate) features: u64,
}

impl Info {
    pub(crate) const BYTES: usize = 64;

    pub(crate) fn encode(&self) -> [u8; Self::BYTES] {
        let mut all = [0; Self::BYTES];
        all[..2].copy_from_slice(&self.queues.to_le_bytes());
        all[2..4].copy_from_slice(&self.depth.to_le_bytes());
        all[4..6].copy_from_slice(&self.state.to_le_bytes());
        all[8..12].copy_from_slice(&self.request_bytes_max.to_le_bytes());
        all[12..16].copy_from_slice(&self.id.to_le_bytes());
        all[24..32].copy_from_slice(&self.features.to_le_bytes());
        all
    }

    pub(crate) fn decode(all: &[u8; Self::BYTES]) -> Self {
        let short = |at: usize| u16::from_le_bytes([all[at], all[at + 1]]);
        Self {
            queues: short(0),
            depth: short(2),
            state: short(4),
            request_bytes_max: word(all, 8),
            id: word(all, 12),
            features: long(all, 24),
        }
    }

    /// Whether nobody answers for it.
    pub(crate) fn is_dead(&self) -> bool {
        self.state == DEAD
    }
}

fn word(all: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([all[at], all[at + 1], all[at + 2], all[at + 3]])
}

fn long(all: &[u8], at: usize) -> u64 {
    u64::from(word(all, at)) | u64::from(word(all, at + 4)) << 32
}

/// What Linux is told of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    /// How many bytes it has: a positive number of blocks.
    pub bytes: u64,
    /// The smallest piece that is read or written: a power of two of [`BLOCK_BYTES`].
    pub block_bytes: u32,
    /// Whether it takes no writes.
    pub is_read_only: bool,
}

impl Traits {
    /// Whether Linux can have such a device.
    pub fn are_possible(&self) -> bool {
        let block = u64::from(self.block_bytes);
        BLOCK_BYTES.contains(&self.block_bytes)
            && self.block_bytes.is_power_of_two()
            && self.bytes != 0
            && self.bytes.is_multiple_of(block)
            && self.bytes <= i64::MAX as u64
    }

    pub(crate) const BYTES: usize = 60;

    /// `struct ublk_params`, up to and with what is discarded. What was written is safe after a flush, or if it was asked to be.
    pub(crate) fn encode(&self) -> [u8; Self::BYTES] {
        let mut all = [0; Self::BYTES];
        let mut put = |at: usize, bytes: &[u8]| all[at..at + bytes.len()].copy_from_slice(bytes);
        let writable = !self.is_read_only;
        put(0, &(Self::BYTES as u32).to_le_bytes());
        put(4, &(HAS_BASIC | if writable { HAS_DISCARD } else { 0 }).to_le_bytes());
        let attributes = VOLATILE_CACHE | FUA | if writable { 0 } else { READ_ONLY };
        put(8, &attributes.to_le_bytes());
        // Of a block, of a physical one, the best and the least length of a request, as powers of two.
        put(12, &[self.block_bytes.trailing_zeros() as u8; 4]);
        put(16, &(REQUEST_BYTES_MAX / SECTOR_BYTES as u32).to_le_bytes());
        put(24, &(self.bytes / SECTOR_BYTES).to_le_bytes());
        if writable {
            let range = RANGE_BYTES_MAX / SECTOR_BYTES as u32;
            put(44, &self.block_bytes.to_le_bytes());
            put(48, &range.to_le_bytes());
            put(52, &range.to_le_bytes());
            put(56, &1_u16.to_le_bytes());
        }
        all
    }
}

/// An answer to a request, or none yet, `struct ublksrv_io_cmd`.
pub(crate) fn encode_answer(queue: u16, tag: u16, result: i32) -> [u8; 16] {
    let mut all = [0; 16];
    all[..2].copy_from_slice(&queue.to_le_bytes());
    all[2..4].copy_from_slice(&tag.to_le_bytes());
    all[4..8].copy_from_slice(&result.to_le_bytes());
    all
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

/// A request of a device, `struct ublksrv_io_desc`.
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
    pub(crate) fn decode(all: &[u8; DESCRIPTOR_BYTES]) -> Self {
        let what = word(all, 0);
        let is_durable = what & REQUEST_FUA != 0;
        let operation = match what as u8 {
            0 => Operation::Read,
            1 => Operation::Write { is_durable },
            2 => Operation::Flush,
            3 => Operation::Discard,
            5 => Operation::WriteZeroes { is_durable },
            other => Operation::Other(other),
        };
        let (sectors, first) = (u64::from(word(all, 4)), long(all, 8));
        let position = first.saturating_mul(SECTOR_BYTES);
        Self { operation, position, bytes: sectors * SECTOR_BYTES }
    }

    /// How many bytes of data go with it.
    pub fn data_bytes(&self) -> u64 {
        match self.operation {
            Operation::Read | Operation::Write { .. } => self.bytes,
            _ => 0,
        }
    }
}

/// Where in the driver's file the data of a request is.
pub(crate) fn data_offset(queue: u16, tag: u16) -> u64 {
    DATA_OFFSET + (u64::from(queue) << QUEUE_SHIFT) + (u64::from(tag) << TAG_SHIFT)
}

/// Where in the driver's file the descriptors of a queue's requests are, and how many bytes of pages.
pub(crate) fn descriptors_at(queue: u16, depth: u16) -> (u64, usize) {
    let pages = |depth: u16| (usize::from(depth) * DESCRIPTOR_BYTES).next_multiple_of(PAGE_BYTES);
    (u64::from(queue) * pages(DEPTH_MAX) as u64, pages(depth))
}

/// Where among them that of a tag is.
pub(crate) fn descriptor_at(tag: u16) -> core::ops::Range<usize> {
    let at = usize::from(tag) * DESCRIPTOR_BYTES;
    at..at + DESCRIPTOR_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a C compiler makes of the macros of `ublk_cmd.h`.
    #[test]
    fn commands_have_the_numbers_of_the_header() {
        let control = [
            (GET_DEVICE, 0x8020_7502),
            (ADD_DEVICE, 0xc020_7504),
            (START_DEVICE, 0xc020_7506),
            (STOP_DEVICE, 0xc020_7507),
            (SET_PARAMETERS, 0xc020_7508),
            (DELETE_DEVICE, 0x8020_7514),
            (FETCH, 0xc010_7520),
            (COMMIT_AND_FETCH, 0xc010_7521),
        ];
        for (ours, theirs) in control {
            assert_eq!(ours, theirs, "{ours:#x}");
        }
        assert_eq!(data_offset(0, 0), 0x8000_0000);
        assert_eq!(data_offset(1, 3), 0x0200_8600_0000);
        assert_eq!(descriptors_at(0, 64), (0, 4096));
        assert_eq!(descriptors_at(2, 4096), (2 * 98_304, 98_304));
        assert_eq!(descriptor_at(2), 48..72);
    }

    #[test]
    fn commands_have_the_layout_of_the_header() {
        let control = Control { device: 7, address: 0x1122_3344_5566, bytes: 64, data: 99 };
        let all = control.encode();
        assert_eq!(all[..8], [7, 0, 0, 0, 0xff, 0xff, 64, 0]);
        assert_eq!(all[8..16], [0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0, 0]);
        assert_eq!(all[16..24], [99, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(all[24..], [0; 56]);
        assert_eq!(
            encode_answer(1, 2, -5),
            [1, 0, 2, 0, 0xfb, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]
        );
        let info = Info {
            queues: 2,
            depth: 64,
            state: 1,
            request_bytes_max: 1 << 20,
            id: 5,
            features: USER_COPY,
        };
        let all = info.encode();
        assert_eq!(all[..16], [2, 0, 64, 0, 1, 0, 0, 0, 0, 0, 0x10, 0, 5, 0, 0, 0]);
        assert_eq!(all[24..32], [0x80, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Info::decode(&all), info);
        assert!(!info.is_dead());
    }

    #[test]
    fn a_device_is_what_linux_is_told() {
        let traits = Traits { bytes: 3 << 20, block_bytes: 4096, is_read_only: false };
        let all = traits.encode();
        assert_eq!((word(&all, 0), word(&all, 4)), (60, 3));
        assert_eq!((word(&all, 8), &all[12..16]), (0b1100, &[12; 4][..]));
        assert_eq!((word(&all, 16), word(&all, 20), long(&all, 24)), (2048, 0, 6144));
        assert_eq!((long(&all, 32), word(&all, 40), word(&all, 44)), (0, 0, 4096));
        assert_eq!((word(&all, 48), word(&all, 52), word(&all, 56)), (16_384, 16_384, 1));
        let all = Traits { is_read_only: true, ..traits }.encode();
        assert_eq!((word(&all, 4), word(&all, 8), &all[40..]), (1, 0b1101, &[0; 20][..]));
        let possible =
            |bytes, block_bytes| Traits { bytes, block_bytes, is_read_only: false }.are_possible();
        assert!(possible(512, 512) && possible(4096, 4096));
        assert!(!possible(0, 512) && !possible(1000, 512) && !possible(1 << 63, 512));
        assert!(!possible(1 << 20, 256) && !possible(3 << 20, 768) && !possible(1 << 20, 8192));
    }

    #[test]
    fn requests_are_what_linux_asks() {
        let decode = |what: u32, sectors: u32, first: u64| {
            let mut all = [0; 24];
            all[..4].copy_from_slice(&what.to_le_bytes());
            all[4..8].copy_from_slice(&sectors.to_le_bytes());
            all[8..16].copy_from_slice(&first.to_le_bytes());
            Request::decode(&all)
        };
        for (what, operation, data) in [
            (0, Operation::Read, 4096),
            (1, Operation::Write { is_durable: false }, 4096),
            (1 | 1 << 13 | 1 << 11, Operation::Write { is_durable: true }, 4096),
            (2, Operation::Flush, 0),
            (3, Operation::Discard, 0),
            (5 | 1 << 13, Operation::WriteZeroes { is_durable: true }, 0),
            (5 | 1 << 15, Operation::WriteZeroes { is_durable: false }, 0),
            (18, Operation::Other(18), 0),
        ] {
            let request = decode(what, 8, 6);
            assert_eq!(request, Request { operation, position: 3072, bytes: 4096 });
            assert_eq!(request.data_bytes(), data, "{operation:?}");
        }
        assert_eq!(decode(0, 1, u64::MAX).position, u64::MAX, "which no device has");
    }
}
