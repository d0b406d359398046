// SPDX-License-Identifier: MIT OR Apache-2.0
//! Block devices: what a disk driver is asked.
//!
//! A server has devices, each with a number, its *minor*. A client opens a device, then reads and writes
//! ranges of it. Positions and lengths are in bytes and multiples of [`Geometry::block_bytes`]; anything
//! else is `EINVAL`. In MINIX 3 these are the requests of `BDEV_OPEN`, `BDEV_CLOSE`, `BDEV_READ`,
//! `BDEV_WRITE`, `BDEV_GATHER` and `BDEV_SCATTER`; there, flushing and trimming are `ioctl`s. MINIX's
//! number of the request is missing, since the DVK knows which reply belongs to which request.
//!
//! # What a write promises
//! A write that was answered is seen by every later read of any client. It is on stable storage, and on
//! every replica that has to have it, when a [`flush`](BlockDevice::flush) that began after the answer has
//! been answered, or with [`DURABLE`] when the write itself has. A write without an answer may have been done,
//! not at all, or in some of its blocks; no block is half old and half new. After a flush that failed, what was
//! written since the last good one is in doubt, and stays so: a second flush does not make it good.
//!
//! # Errors
//! Each request may be refused with
//! - `ENXIO`: there is no device of this minor;
//! - `EBADF`: the client has not opened it, or not for writing;
//! - `EINVAL`: the range is not one of whole blocks of the device, or larger than
//!   [`Geometry::transfer_max`], or flags are unknown;
//! - `EFAULT`: the client has not lent the memory named, not for this, or not so much;
//! - `EROFS`: it would change a device that is read-only;
//! - `EIO`: the device failed; a part may have been done;
//! - `EREMOTE`: the device has replicas, and this server does not answer for it, or not any more. What was asked
//!   may have been done.
//!
//! What a client that dies had open is closed, without a flush.
//!
//! # Devices with replicas
//! Several servers have one, under the same minor, and one of them answers for it: the primary. When another one takes over, it
//! knows nothing of what clients have opened. A client that is told `EREMOTE` or `EBADF`, or loses its server, asks
//! [which server](BlockDevice::locate) it is now, opens the device there and asks again: to write the same blocks
//! once more does no harm as long as nobody wrote them since. What was answered before holds, a flush that comes then included. Of a
//! device without replicas (epoch 0) that does not hold: its server may have begun anew with less.

use crate::Errno;
use dvk::{Endpoint, GrantId};

/// Flag of [`open`](BlockDevice::open): for writing, too.
pub const OPEN_WRITE: u32 = 1;
/// Flag of [`open`](BlockDevice::open): nobody else may have it open for writing meanwhile, which a file
/// system wants; else `EBUSY`.
pub const OPEN_EXCLUSIVE: u32 = 2;
/// Flag of a write: it is answered when it is on stable storage, and needs no flush (FUA).
pub const DURABLE: u32 = 1;

/// Flag of [`Geometry`]: the device takes no writes.
pub const READ_ONLY: u32 = 1;
/// Flag of [`Geometry`]: the device forgets what is trimmed. Without it, `trim` is `ENOSYS`.
pub const TRIMS: u32 = 2;

dvk::payload! {
    /// What a device is like.
    pub struct Geometry {
        /// How many bytes it has; a multiple of the block.
        pub bytes: u64,
        /// The unit of reading and writing in bytes: a power of two from 512 up.
        pub block_bytes: u32,
        /// The most bytes of one request; a multiple of the block.
        pub transfer_max: u32,
        /// [`READ_ONLY`], [`TRIMS`].
        pub flags: u32,
        /// The most pieces of a vectored request.
        pub segments_max: u16,
        /// How many replicas are in step, with the one that answers.
        pub replicas: u16,
        /// Counts the changes of who answers for the device: it grows with every failover. 0 for a device
        /// that is not replicated.
        pub epoch: u64,
        /// Counts the changes of the geometry; it grows when the device does.
        pub revision: u64,
    }
}

dvk::payload! {
    /// Who answers for a device.
    pub struct Whereabouts {
        /// The server; [`Endpoint::NONE`] if that is not known.
        pub server: Endpoint,
        /// As in [`Geometry`]: of two answers, the one with the greater epoch is right.
        pub epoch: u64,
    }
}

dvk::protocol! {
    /// A block device server.
    pub trait BlockDevice: client BlockClient, error Errno {
        /// Opens a device. A client may open it several times, and closes it as often; it may write if one
        /// of its opens was for writing.
        fn open(Open = 0x500 {
            /// The device.
            minor: u32,
            /// [`OPEN_WRITE`], [`OPEN_EXCLUSIVE`].
            flags: u32,
        }) -> Geometry;

        /// Ends what one [`open`](BlockDevice::open) began: the last one. It does not flush.
        fn close(Close = 0x501 {
            /// The device.
            minor: u32,
        }) -> ();

        /// What the device is like.
        fn info(GetInfo = 0x502 {
            /// The device.
            minor: u32,
        }) -> Geometry;

        /// Copies a range of the device into lent memory. All of it, or an error.
        fn read(Read = 0x503 {
            /// The device.
            minor: u32,
            /// How many bytes.
            bytes: u32,
            /// The first byte of the device.
            position: u64,
            /// Memory lent for writing.
            into: GrantId,
            /// The first byte of the memory.
            offset: u64,
        }) -> ();

        /// Copies lent memory into a range of the device. All of it, or an error.
        fn write(Write = 0x504 {
            /// The device.
            minor: u32,
            /// How many bytes.
            bytes: u32,
            /// The first byte of the device.
            position: u64,
            /// Memory lent for reading.
            from: GrantId,
            /// The first byte of the memory.
            offset: u64,
            /// [`DURABLE`], or 0.
            flags: u32,
        }) -> ();

        /// Copies one range of the device into several pieces of lent memory, in their order: MINIX's
        /// `BDEV_GATHER`. The result is how many bytes they have.
        fn read_pieces(ReadPieces = 0x505 {
            /// The device.
            minor: u32,
            /// How many pieces, from 1 to [`Geometry::segments_max`].
            count: u16,
            /// The first byte of the device.
            position: u64,
            /// Their [list](crate::segment), lent for reading; the pieces are lent for writing.
            list: GrantId,
        }) -> u64;

        /// Copies several pieces of lent memory into one range of the device, in their order: MINIX's
        /// `BDEV_SCATTER`. The result is how many bytes they have.
        fn write_pieces(WritePieces = 0x506 {
            /// The device.
            minor: u32,
            /// How many pieces, from 1 to [`Geometry::segments_max`].
            count: u16,
            /// The first byte of the device.
            position: u64,
            /// Their [list](crate::segment), lent for reading, as the pieces are.
            list: GrantId,
            /// [`DURABLE`], or 0.
            flags: u32,
        }) -> u64;

        /// Answers when every write that was answered before is on stable storage.
        fn flush(Flush = 0x507 {
            /// The device.
            minor: u32,
        }) -> ();

        /// Says that the content of a range is not needed any more. Until it is written again, each of its
        /// blocks reads as zeros or as what it was, for all readers and replicas alike.
        fn trim(Trim = 0x508 {
            /// The device.
            minor: u32,
            /// The first byte of the device.
            position: u64,
            /// How many bytes; not limited by [`Geometry::transfer_max`].
            bytes: u64,
        }) -> ();

        /// Which server answers for the device, as far as this one knows. Any client may ask.
        fn locate(Locate = 0x509 {
            /// The device.
            minor: u32,
        }) -> Whereabouts;

        /// Has the blocks of all replicas in step compared with the primary's, which takes its time, and replaced where they
        /// differ, of which people are told. Answered as soon as it is begun. `ENOSYS` without replicas. Any client may ask.
        fn scrub(Scrub = 0x50a {
            /// The device.
            minor: u32,
        }) -> ();
    }
}

const _: () = {
    use dvk::Body;
    assert!(Geometry::BYTES == 40);
    assert!(Read::BYTES == 32 && Write::BYTES == 36);
    assert!(ReadPieces::BYTES == 22 && WritePieces::BYTES == 26);
};

impl Geometry {
    /// Whether a request may be for this range: whole blocks, at least one, within the device. Its length is
    /// not compared with [`transfer_max`](Self::transfer_max), which trimming has not.
    pub fn has_range(&self, position: u64, bytes: u64) -> bool {
        let block = u64::from(self.block_bytes);
        block != 0
            && bytes != 0
            && position % block == 0
            && bytes % block == 0
            && position.checked_add(bytes).is_some_and(|end| end <= self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_of_whole_blocks_within_the_device() {
        let geometry = Geometry {
            bytes: 1 << 20,
            block_bytes: 1024,
            transfer_max: 1 << 16,
            flags: 0,
            segments_max: 16,
            replicas: 1,
            epoch: 0,
            revision: 0,
        };
        assert!(geometry.has_range(0, 1 << 20));
        assert!(geometry.has_range((1 << 20) - 1024, 1024));
        assert!(!geometry.has_range(1 << 20, 1024), "behind the end");
        assert!(!geometry.has_range((1 << 20) - 1024, 2048), "over the end");
        assert!(!geometry.has_range(0, 0), "no block");
        assert!(!geometry.has_range(512, 1024), "between blocks");
        assert!(!geometry.has_range(0, 1000), "a part of a block");
        assert!(!geometry.has_range(u64::MAX - 1023, 1024), "over the end of numbers");
        assert!(!Geometry { block_bytes: 0, ..geometry }.has_range(0, 1024), "a server that lies");
    }
}
