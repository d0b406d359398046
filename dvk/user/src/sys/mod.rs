// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ioctl itself: the only place of this crate where the compiler takes our word.
//!
//! What makes the calls sound: the kernel reads and writes at most the argument block, whose size
//! is part of the ioctl number, and blocks hold integers only, of which every bit pattern is a
//! value. No block holds an address.

#[cfg(feature = "async")]
mod readable;

#[cfg(feature = "async")]
pub(crate) use self::readable::{FileOwner, Readable};

use core::ffi::c_void;
use dvk_abi::ioctl;
use rustix::fd::AsFd;
use rustix::io::Result;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode};

/// An argument block of the ABI.
///
/// # Safety
/// The type is `repr(C)`, every bit pattern of it is a value, and it holds no address.
pub unsafe trait Block: Copy {}

// SAFETY: fields are a Message (integers and an array of bytes) and integers.
unsafe impl Block for ioctl::Exchange {}
// SAFETY: fields are integers.
unsafe impl Block for ioctl::Bind {}
// SAFETY: fields are integers.
unsafe impl Block for ioctl::Notify {}
// SAFETY: fields are integers.
unsafe impl Block for ioctl::Info {}
// SAFETY: fields are integers.
unsafe impl Block for ioctl::DvsInit {}
// SAFETY: fields are integers.
unsafe impl Block for ioctl::Node {}
// SAFETY: fields are integers and an array of bytes.
unsafe impl Block for ioctl::Container {}
// SAFETY: fields are integers.
unsafe impl Block for ioctl::Lease {}
// SAFETY: fields are integers and an array of bytes.
unsafe impl Block for ioctl::LinkAttach {}
// SAFETY: fields are integers.
unsafe impl Block for ioctl::LinkInfo {}
// SAFETY: fields are integers.
unsafe impl Block for ioctl::RemoteEndpoint {}

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
    const { assert!(is_call(OPCODE, size_of::<B>()), "the block is not this call's") };
    let request = Request { opcode: OPCODE, block: core::ptr::from_mut(block).cast() };
    // SAFETY: the number says that the kernel reads and writes `size_of::<B>()` bytes at the
    // pointer, which is an exclusive reference to as many; whatever it writes is a value of `B`.
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
            (ioctl::GET_INFO, R, 0x20, 72),
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
}
