// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ioctl itself, and memory that the kernel gets to see: the only place of this crate where the
//! compiler takes our word.
//!
//! What makes the calls sound: the kernel reads and writes at most the argument block, whose size
//! is part of the ioctl number, and what an address in the block names. Blocks hold integers only,
//! of which every bit pattern is a value. Those with an address have calls of their own in
//! `memory`, which say whose memory it is.

mod arena;
mod memory;
#[cfg(feature = "async")]
mod readable;

pub use self::arena::Arena;
pub(crate) use self::memory::{
    copy, copy_into, events, lend, migrate_start, proxy_get, proxy_put, Memory, OwnMemory,
};
#[cfg(feature = "async")]
pub(crate) use self::readable::{FileOwner, Readable};

use core::ffi::c_void;
use dvk_abi::ioctl;
use rustix::fd::AsFd;
use rustix::io::Result;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode};

/// The memory of an argument block of the ABI.
///
/// # Safety
/// The type is `repr(C)`, every bit pattern of it is a value, and it has no padding.
pub unsafe trait Layout: Copy {}

/// An argument block that names no memory.
///
/// # Safety
/// None of its fields is an address.
pub unsafe trait Block: Layout {}

/// An argument block that names memory: `address` and as many bytes after it as `len` says.
///
/// # Safety
/// There is no other memory that it names.
pub unsafe trait MemoryBlock: Layout {
    /// The first byte.
    fn address(&self) -> u64;
    /// How many bytes.
    fn bytes(&self) -> u64;
}

macro_rules! blocks {
    ($($block:ident)*) => {$(
        // SAFETY: the fields are integers, arrays of integers, or structures of these; that there
        // is no padding is asserted in the tests.
        unsafe impl Layout for ioctl::$block {}
        // SAFETY: where a field is an address, `dvk/abi` says so; none of these has one.
        unsafe impl Block for ioctl::$block {}
    )*};
}

blocks! {
    Bind Container DvsInit EndpointInfo Exchange Info Lease LinkAttach LinkInfo MigrateEnd Node
    Notify Privileges PromoteBackup RemoteEndpoint Revoke WaitBind WaitUnbind CopyBetween
}

macro_rules! memory_blocks {
    ($($block:ident: $address:ident, |$it:ident| $len:expr;)*) => {$(
        // SAFETY: the fields are integers or structures of integers, without padding.
        unsafe impl Layout for ioctl::$block {}
        // SAFETY: it is the only field that `dvk/abi` calls an address.
        unsafe impl MemoryBlock for ioctl::$block {
            fn address(&self) -> u64 {
                self.$address
            }

            fn bytes(&self) -> u64 {
                let $it = self;
                $len
            }
        }
    )*};
}

memory_blocks! {
    Copy: address, |it| it.len;
    Events: address, |it| u64::from(it.count) * size_of::<ioctl::Event>() as u64;
    Grant: address, |it| it.len;
    Migrate: state, |it| it.state_len;
    ProxyFrames: address, |it| it.len;
}

/// Whether `opcode` is a DVK call whose block has `bytes` bytes.
const fn is_call(opcode: u32, bytes: usize) -> bool {
    (opcode >> 8) as u8 == ioctl::IOCTL_TYPE && (opcode >> 16 & 0x3fff) as usize == bytes
}

/// One ioctl with its block, or a null pointer.
struct Request {
    opcode: Opcode,
    block: *mut c_void,
}

// SAFETY: `output_from_ptr` looks at nothing; what `opcode` does to `block` is checked where a
// `Request` is made.
unsafe impl Ioctl for Request {
    type Output = ();

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.opcode
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.block
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> Result<()> {
        Ok(())
    }
}

/// Makes call `OPCODE` with `block`.
#[inline]
pub fn call<const OPCODE: u32, B: Block>(fd: impl AsFd, block: &mut B) -> Result<()> {
    // SAFETY: the block names no memory.
    unsafe { call_naming_memory::<OPCODE, B>(fd, block) }
}

/// Makes call `OPCODE` with `block`, which may name memory.
///
/// # Safety
/// The kernel may do to the memory what the call does, for as long as the call says.
#[inline]
unsafe fn call_naming_memory<const OPCODE: u32, B: Layout>(
    fd: impl AsFd,
    block: &mut B,
) -> Result<()> {
    const { assert!(is_call(OPCODE, size_of::<B>()), "the block is not this call's") };
    let request = Request { opcode: OPCODE, block: core::ptr::from_mut(block).cast() };
    // SAFETY: the number says that the kernel reads and writes `size_of::<B>()` bytes at the
    // pointer, which is an exclusive reference to as many; whatever it writes is a value of `B`.
    // For the memory that it names this function's contract holds.
    unsafe { rustix::ioctl::ioctl(fd, request) }
}

/// Makes call `OPCODE`, which takes no block.
#[inline]
pub fn call_bare<const OPCODE: u32>(fd: impl AsFd) -> Result<()> {
    const { assert!(is_call(OPCODE, 0), "the call takes a block") };
    call_null(fd, (OPCODE & 0xff) as u8, OPCODE >> 30, 0)
}

/// Makes the DVK call of this number, direction and size, whether there is one or not, with a null
/// pointer for its block.
pub fn call_null(fd: impl AsFd, nr: u8, direction: u32, bytes: u32) -> Result<()> {
    let opcode = (direction & 3) << 30
        | (bytes & 0x3fff) << 16
        | u32::from(ioctl::IOCTL_TYPE) << 8
        | u32::from(nr);
    let request = Request { opcode, block: core::ptr::null_mut() };
    // SAFETY: there is no memory at the null page for the kernel to read or write; it answers
    // `EFAULT` where it tries.
    unsafe { rustix::ioctl::ioctl(fd, request) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `_IOC(dir, type, nr, size)` of Linux's `asm-generic/ioctl.h`, by its shifts.
    fn ioc(direction: u32, nr: u32, size: usize) -> u32 {
        const NRSHIFT: u32 = 0;
        const TYPESHIFT: u32 = NRSHIFT + 8;
        const SIZESHIFT: u32 = TYPESHIFT + 8;
        const DIRSHIFT: u32 = SIZESHIFT + 14;
        direction << DIRSHIFT | 0xd5 << TYPESHIFT | nr << NRSHIFT | (size as u32) << SIZESHIFT
    }

    #[test]
    fn ioctl_numbers_follow_the_c_formula() {
        const NONE: u32 = 0;
        const W: u32 = 1;
        const R: u32 = 2;
        let table = [
            (ioctl::BIND, R | W, 0x01, 16),
            (ioctl::UNBIND, NONE, 0x02, 0),
            (ioctl::SEND, R | W, 0x10, 128),
            (ioctl::RECEIVE, R | W, 0x11, 128),
            (ioctl::SENDREC, R | W, 0x12, 128),
            (ioctl::REPLY, R | W, 0x13, 128),
            (ioctl::REPLY_RECEIVE, R | W, 0x14, 128),
            (ioctl::RECEIVE_REQUEST, R | W, 0x15, 128),
            (ioctl::NOTIFY, W, 0x16, 16),
            (ioctl::WAIT_BIND, R | W, 0x18, 24),
            (ioctl::WAIT_UNBIND, W, 0x19, 16),
            (ioctl::GET_INFO, R, 0x20, 72),
            (ioctl::SET_PRIVILEGES, W, 0x21, 32),
            (ioctl::GET_PRIVILEGES, R, 0x22, 32),
            (ioctl::GRANT, R | W, 0x30, 40),
            (ioctl::REVOKE, W, 0x31, 8),
            (ioctl::COPY_FROM, R | W, 0x32, 56),
            (ioctl::COPY_TO, R | W, 0x33, 56),
            (ioctl::COPY_BETWEEN, R | W, 0x34, 72),
            (ioctl::DVS_INIT, W, 0x40, 16),
            (ioctl::DVS_END, NONE, 0x41, 0),
            (ioctl::NODE_UP, W, 0x42, 8),
            (ioctl::NODE_DOWN, W, 0x43, 8),
            (ioctl::DC_CREATE, W, 0x44, 56),
            (ioctl::DC_DESTROY, W, 0x45, 56),
            (ioctl::DC_ADD_NODE, W, 0x46, 24),
            (ioctl::DC_REMOVE_NODE, W, 0x47, 24),
            (ioctl::LINK_ATTACH, W, 0x48, 24),
            (ioctl::LINK_DETACH, W, 0x49, 24),
            (ioctl::LINK_INFO, R | W, 0x4a, 72),
            (ioctl::ENDPOINT_SET_REMOTE, W, 0x4b, 24),
            (ioctl::MIGRATE_START, R | W, 0x50, 48),
            (ioctl::MIGRATE_COMMIT, W, 0x51, 16),
            (ioctl::MIGRATE_ROLLBACK, W, 0x52, 16),
            (ioctl::PROMOTE_BACKUP, W, 0x53, 24),
            (ioctl::ENDPOINT_INFO, R | W, 0x54, 80),
            (ioctl::EVENTS, R | W, 0x55, 32),
            (ioctl::PROXY_GET, R | W, 0x56, 32),
            (ioctl::PROXY_PUT, R | W, 0x57, 32),
        ];
        for (number, direction, nr, size) in table {
            assert_eq!(number, ioc(direction, nr, size), "call {nr:#x}");
        }
    }

    #[test]
    fn a_file_that_is_no_dvk_device_refuses_the_calls() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let mut block = ioctl::Exchange::default();
        let refused = call::<{ ioctl::SENDREC }, _>(&file, &mut block).unwrap_err();
        assert_eq!(refused, rustix::io::Errno::NOTTY);
        assert_eq!(call_bare::<{ ioctl::UNBIND }>(&file).unwrap_err(), rustix::io::Errno::NOTTY);
    }

    // Blocks have no padding: the sizes of their fields add up. (Offsets follow, for C's rules
    // place each field at the next multiple of its alignment.)
    const _: () = assert!(size_of::<ioctl::Bind>() == 4 + 4 + 8);
    const _: () = assert!(size_of::<ioctl::Exchange>() == 64 + 3 * 8 + 2 * 4 + 4 * 8);
    const _: () = assert!(size_of::<ioctl::Notify>() == 8 + 8);
    const _: () = assert!(size_of::<ioctl::Info>() == 4 * 8 + 10 * 4);
    const _: () = assert!(size_of::<ioctl::DvsInit>() == 8 + 2 * 4);
    const _: () = assert!(size_of::<ioctl::Node>() == 2 * 4);
    const _: () = assert!(size_of::<ioctl::Container>() == 4 * 4 + 32 + 8);
    const _: () = assert!(size_of::<ioctl::Lease>() == 6 * 4);
    const _: () = assert!(size_of::<ioctl::LinkAttach>() == 4 * 4 + 8);
    const _: () = assert!(size_of::<ioctl::LinkInfo>() == 4 * 4 + 7 * 8);
    const _: () = assert!(size_of::<ioctl::RemoteEndpoint>() == 8 + 4 * 4);
    const _: () = assert!(size_of::<ioctl::WaitBind>() == 2 * 4 + 2 * 8);
    const _: () = assert!(size_of::<ioctl::WaitUnbind>() == 2 * 8);
    const _: () = assert!(size_of::<ioctl::Privileges>() == 3 * 8 + 2 * 4);
    const _: () = assert!(size_of::<ioctl::Grant>() == 4 * 8 + 2 * 4);
    const _: () = assert!(size_of::<ioctl::Revoke>() == 8);
    const _: () = assert!(size_of::<ioctl::Granted>() == 3 * 8);
    const _: () = assert!(size_of::<ioctl::Copy>() == 7 * 8);
    const _: () = assert!(size_of::<ioctl::CopyBetween>() == 9 * 8);
    const _: () = assert!(size_of::<ioctl::Migrate>() == 8 + 4 * 4 + 3 * 8);
    const _: () = assert!(size_of::<ioctl::MigrateEnd>() == 8 + 2 * 4);
    const _: () = assert!(size_of::<ioctl::PromoteBackup>() == 8 + 4 * 4);
    const _: () = assert!(size_of::<ioctl::ProxyFrames>() == 2 * 4 + 3 * 8);
    const _: () = assert!(size_of::<ioctl::EndpointInfo>() == 2 * 4 + 72);
    const _: () = assert!(size_of::<ioctl::Events>() == 8 + 2 * 4 + 2 * 8);
    const _: () = assert!(size_of::<ioctl::Event>() == 2 * 8 + 4 * 4);
}
