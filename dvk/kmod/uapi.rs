// SPDX-License-Identifier: GPL-2.0
//! Argument blocks of ioctls, from and to user space.

use super::abi::errno::Errno;
use super::abi::ioctl;
use core::mem::MaybeUninit;
use kernel::prelude::*;
use kernel::transmute::{AsBytes, FromBytes};
use kernel::uaccess::{UserPtr, UserSlice};

/// An argument block of the ABI.
pub(crate) trait Block: FromBytes + AsBytes {}

macro_rules! blocks {
    ($($block:ident),*) => {$(
        // SAFETY: the ABI's blocks are `repr(C)` of integers and arrays of integers.
        unsafe impl FromBytes for ioctl::$block {}
        // SAFETY: as above, and they have no padding: the sizes asserted below are the sums of
        // their fields.
        unsafe impl AsBytes for ioctl::$block {}
        impl Block for ioctl::$block {}
    )*};
}

// A result that is written by itself.
impl Block for u64 {}

blocks!(
    Bind,
    Exchange,
    Notify,
    Info,
    DvsInit,
    Node,
    Container,
    Lease,
    LinkAttach,
    LinkInfo,
    RemoteEndpoint,
    WaitBind,
    WaitUnbind,
    Privileges,
    Grant,
    Revoke,
    Copy,
    CopyBetween,
    Migrate,
    MigrateEnd,
    PromoteBackup,
    ProxyFrames,
    EndpointInfo,
    Events,
    Event
);

const _: () = {
    assert!(size_of::<ioctl::Bind>() == 16);
    assert!(size_of::<ioctl::Exchange>() == 64 + 3 * 8 + 2 * 4 + 4 * 8);
    assert!(size_of::<ioctl::Notify>() == 16);
    assert!(size_of::<ioctl::Info>() == 72);
    assert!(size_of::<ioctl::DvsInit>() == 16);
    assert!(size_of::<ioctl::Node>() == 8);
    assert!(size_of::<ioctl::Container>() == 56);
    assert!(size_of::<ioctl::Lease>() == 24);
    assert!(size_of::<ioctl::LinkAttach>() == 24);
    assert!(size_of::<ioctl::LinkInfo>() == 72);
    assert!(size_of::<ioctl::RemoteEndpoint>() == 24);
    assert!(size_of::<ioctl::WaitBind>() == 24);
    assert!(size_of::<ioctl::WaitUnbind>() == 16);
    assert!(size_of::<ioctl::Privileges>() == 32);
    assert!(size_of::<ioctl::Grant>() == 40);
    assert!(size_of::<ioctl::Revoke>() == 8);
    assert!(size_of::<ioctl::Granted>() == 24);
    assert!(size_of::<ioctl::Copy>() == 24 + 4 * 8);
    assert!(size_of::<ioctl::CopyBetween>() == 2 * 24 + 3 * 8);
    assert!(size_of::<ioctl::Migrate>() == 48);
    assert!(size_of::<ioctl::MigrateEnd>() == 16);
    assert!(size_of::<ioctl::PromoteBackup>() == 24);
    assert!(size_of::<ioctl::ProxyFrames>() == 32);
    assert!(size_of::<ioctl::EndpointInfo>() == 80);
    assert!(size_of::<ioctl::Events>() == 32);
    assert!(size_of::<ioctl::Event>() == 32);
};

/// The address that an ioctl was given.
#[derive(Clone, Copy)]
pub(crate) struct Argument(pub(crate) usize);

impl Argument {
    /// The field that lies `offset` bytes behind.
    pub(crate) fn behind(self, offset: usize) -> Self {
        Self(self.0.wrapping_add(offset))
    }

    /// Reads the block there.
    pub(crate) fn read<T: Block>(self) -> Result<T, Errno> {
        let slice = UserSlice::new(UserPtr::from_addr(self.0), size_of::<T>());
        slice.reader().read().map_err(|_| Errno::Fault)
    }

    /// Writes the block there.
    pub(crate) fn write<T: Block>(self, block: &T) -> Result<(), Errno> {
        let slice = UserSlice::new(UserPtr::from_addr(self.0), size_of::<T>());
        slice.writer().write(block).map_err(|_| Errno::Fault)
    }
}

/// The address of bytes that an argument block points to.
#[derive(Clone, Copy)]
pub(crate) struct Memory(pub(crate) u64);

impl Memory {
    fn slice(self, len: usize) -> Result<UserSlice, Errno> {
        let address = usize::try_from(self.0).map_err(|_| Errno::Fault)?;
        Ok(UserSlice::new(UserPtr::from_addr(address), len))
    }

    /// Reads `len` bytes.
    pub(crate) fn read(self, len: usize) -> Result<KVVec<u8>, Errno> {
        let mut bytes = KVVec::from_elem(0, len, GFP_KERNEL).map_err(|_| Errno::NoMemory)?;
        self.slice(len)?.reader().read_slice(&mut bytes).map_err(|_| Errno::Fault)?;
        Ok(bytes)
    }

    /// Writes bytes.
    pub(crate) fn write(self, bytes: &[u8]) -> Result<(), Errno> {
        self.slice(bytes.len())?.writer().write_slice(bytes).map_err(|_| Errno::Fault)
    }
}

extern "C" {
    fn dvk_exchange_read(block: *mut ioctl::Exchange, from: usize, answered: bool) -> c_int;
    fn dvk_exchange_write(block: *const ioctl::Exchange, to: usize) -> c_int;
}

/// The block of a call that exchanges messages, where user space has it. Read and written word by
/// word: on the way of every message, the general functions cost more than what they do.
#[derive(Clone, Copy)]
pub(crate) struct ExchangeArgument(pub(crate) Argument);

impl ExchangeArgument {
    /// Reads what means something of the block into `block`. `answered` is that something will be
    /// written back: whether that can be is tried now, before a message is taken that could then
    /// not be delivered.
    #[inline]
    pub(crate) fn read(
        self,
        block: &mut MaybeUninit<ioctl::Exchange>,
        answered: bool,
    ) -> Result<&mut ioctl::Exchange, Errno> {
        // SAFETY: the pointer is valid for a write of a whole block.
        if unsafe { dvk_exchange_read(block.as_mut_ptr(), self.0 .0, answered) } != 0 {
            return Err(Errno::Fault);
        }
        // SAFETY: all of it was written.
        let block = unsafe { block.assume_init_mut() };
        if block.flags == 0 {
            Ok(block)
        } else {
            Err(Errno::Invalid)
        }
    }

    /// Writes the message and how it was sent.
    #[inline]
    pub(crate) fn write(self, block: &ioctl::Exchange) -> Result<(), Errno> {
        // SAFETY: the pointer is to a whole block.
        if unsafe { dvk_exchange_write(block, self.0 .0) } != 0 {
            return Err(Errno::Fault);
        }
        Ok(())
    }
}

/// The kernel's error for one of ours.
pub(crate) fn to_kernel(error: Errno) -> Error {
    Error::from_errno(-(error.raw() as c_int))
}

/// Our error for one of the kernel's, where a call of the kernel failed.
pub(crate) fn from_kernel(error: Error) -> Errno {
    u8::try_from(error.to_errno().unsigned_abs())
        .ok()
        .and_then(Errno::from_raw)
        .unwrap_or(Errno::Invalid)
}
