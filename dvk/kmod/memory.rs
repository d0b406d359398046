// SPDX-License-Identifier: GPL-2.0
//! Safe faces of `dvk_copy.c`: address spaces of processes, and pages pinned in them.

use super::abi::errno::Errno;
use core::ffi::c_void;
use core::ptr::NonNull;
use kernel::prelude::*;

// Address spaces and pages are opaque here.
extern "C" {
    fn dvk_mm_grab_current() -> *mut c_void;
    fn dvk_mm_drop(mm: *mut c_void);
    fn dvk_mm_is_current(mm: *const c_void) -> bool;
    fn dvk_mm_enter(mm: *mut c_void) -> bool;
    fn dvk_mm_leave(mm: *mut c_void);
    fn dvk_user_range(address: u64, len: u64) -> bool;
    fn dvk_fault_in(address: u64, len: usize, write: bool) -> bool;
    fn dvk_mm_pin(
        mm: *mut c_void,
        start: u64,
        count: c_uint,
        write: bool,
        pages: *mut *mut c_void,
    ) -> c_long;
    fn dvk_pages_unpin(pages: *mut *mut c_void, count: c_uint, dirty: bool);
    fn dvk_pages_write(pages: *const *mut c_void, offset: usize, bytes: *const u8, len: usize);
    fn dvk_mm_copy_user(
        mm: *mut c_void,
        address: u64,
        user: u64,
        len: usize,
        write: bool,
        copied: *mut usize,
    ) -> c_int;
    fn dvk_mm_read(
        mm: *mut c_void,
        address: u64,
        bytes: *mut u8,
        len: usize,
        copied: *mut usize,
    ) -> c_int;
    fn dvk_mm_copy_between(
        source: *mut c_void,
        from: u64,
        destination: *mut c_void,
        to: u64,
        len: usize,
        copied: *mut usize,
    ) -> c_int;
    fn dvk_copy_from_user(bytes: *mut u8, user: u64, len: usize, copied: *mut usize) -> bool;
}

const PAGE: u64 = kernel::page::PAGE_SIZE as u64;

/// Which way bytes go between the caller and lent memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Out of the lent memory.
    Out,
    /// Into it.
    In,
}

/// How many bytes were copied before it ended, and how that was.
pub(crate) type Copied<E = Errno> = (u64, Result<(), E>);

/// Why a copy with the caller's memory ended.
pub(crate) enum Halt {
    /// The caller's next page has to be brought in: see [`fault_in`].
    CallerPage,
    /// Because of the lent memory, or the caller is being killed.
    Failed(Errno),
}

fn errno(status: c_long) -> Errno {
    u8::try_from(status.unsigned_abs()).ok().and_then(Errno::from_raw).unwrap_or(Errno::Fault)
}

fn outcome(copied: usize, status: c_int) -> Copied {
    (copied as u64, if status == 0 { Ok(()) } else { Err(errno(status as c_long)) })
}

/// The part of a length that is copied at once, whatever a length may be.
fn part(len: u64) -> usize {
    len.min(1 << 20) as usize
}

/// Whether a range is one of addresses that user space can have.
pub(crate) fn is_user_range(address: u64, len: u64) -> bool {
    // SAFETY: compares numbers.
    unsafe { dvk_user_range(address, len) }
}

/// Brings in the caller's page at `address`, for the bytes to go `direction`. Returns whether
/// there is one.
pub(crate) fn fault_in(address: u64, len: u64, direction: Direction) -> bool {
    let len = part(len.min(64 * PAGE));
    // SAFETY: touches user memory of the current process, and changes none of it.
    unsafe { dvk_fault_in(address, len, direction == Direction::Out) }
}

/// Copies memory of the caller.
pub(crate) fn read_caller(address: u64, bytes: &mut [u8]) -> Copied {
    if !is_user_range(address, bytes.len() as u64) {
        return (0, Err(Errno::Fault));
    }
    let mut copied = 0;
    // SAFETY: the pointers are to live variables, of that length.
    let whole =
        unsafe { dvk_copy_from_user(bytes.as_mut_ptr(), address, bytes.len(), &mut copied) };
    (copied as u64, if whole { Ok(()) } else { Err(Errno::Fault) })
}

/// An address space, which may be that of a process that is gone.
pub(crate) struct Memory(NonNull<c_void>);

// SAFETY: address spaces are reference-counted, and used through functions that lock them.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// That of the calling process.
    pub(crate) fn current() -> Result<Self, Errno> {
        // SAFETY: called in a process context; the reference is given up in `drop`.
        NonNull::new(unsafe { dvk_mm_grab_current() }).map(Self).ok_or(Errno::Fault)
    }

    /// Keeps the memory there.
    ///
    /// # Errors
    /// [`Errno::Fault`] if the process is gone.
    pub(crate) fn enter(&self) -> Result<LiveMemory, Errno> {
        // SAFETY: the reference is held.
        if unsafe { dvk_mm_enter(self.0.as_ptr()) } {
            Ok(LiveMemory(self.0))
        } else {
            Err(Errno::Fault)
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the reference taken in `current` is given up here.
        unsafe { dvk_mm_drop(self.0.as_ptr()) }
    }
}

/// An address space that stays while this lives. To be dropped where one may sleep.
pub(crate) struct LiveMemory(NonNull<c_void>);

// SAFETY: as for `Memory`.
unsafe impl Send for LiveMemory {}
// SAFETY: as for `Memory`.
unsafe impl Sync for LiveMemory {}

impl LiveMemory {
    /// That of the calling process.
    pub(crate) fn current() -> Result<Self, Errno> {
        Memory::current()?.enter()
    }

    /// Whether it is that of the calling process.
    pub(crate) fn is_callers(&self) -> bool {
        // SAFETY: compares pointers.
        unsafe { dvk_mm_is_current(self.0.as_ptr()) }
    }

    /// Whether the two are one.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    /// Copies the beginning of `len` bytes between `address` here and the caller's memory at
    /// `user`: at most a batch of pages.
    pub(crate) fn copy_caller(
        &self,
        address: u64,
        user: u64,
        len: u64,
        direction: Direction,
    ) -> Copied<Halt> {
        let write = direction == Direction::In;
        let mut copied = 0;
        // SAFETY: the address space is alive, the pointer is to a live variable, and the range of
        // user memory is checked there.
        let status = unsafe {
            dvk_mm_copy_user(self.0.as_ptr(), address, user, part(len), write, &mut copied)
        };
        let result = match status {
            0 => Ok(()),
            1 => Err(Halt::CallerPage),
            status => Err(Halt::Failed(errno(status as c_long))),
        };
        (copied as u64, result)
    }

    /// Copies from here, at most a batch of pages.
    pub(crate) fn read(&self, address: u64, bytes: &mut [u8]) -> Copied {
        let mut copied = 0;
        // SAFETY: the address space is alive; the pointers are to live variables, of that length.
        let status = unsafe {
            dvk_mm_read(self.0.as_ptr(), address, bytes.as_mut_ptr(), bytes.len(), &mut copied)
        };
        outcome(copied, status)
    }

    /// Copies the beginning of `len` bytes from `from` here to `to` in `destination`: at most half
    /// a batch.
    pub(crate) fn copy_to(&self, from: u64, destination: &Self, to: u64, len: u64) -> Copied {
        let (source, sink) = (self.0.as_ptr(), destination.0.as_ptr());
        let mut copied = 0;
        // SAFETY: the address spaces are alive, the pointer is to a live variable.
        let status = unsafe { dvk_mm_copy_between(source, from, sink, to, part(len), &mut copied) };
        outcome(copied, status)
    }

    /// Pins the pages of as many of `len` bytes at `address` as there are, to be written.
    ///
    /// # Errors
    /// [`Errno::Fault`] if there is none.
    pub(crate) fn pin(&self, address: u64, len: u64) -> Result<PinnedRange, Errno> {
        let offset = address % PAGE;
        let count = (offset + len.min(1 << 30)).div_ceil(PAGE) as usize;
        let mut pages = KVec::from_elem(core::ptr::null_mut(), count, GFP_KERNEL)
            .map_err(|_| Errno::NoMemory)?;
        let most = c_uint::try_from(count).map_err(|_| Errno::Invalid)?;
        // SAFETY: the address space is alive; there is room for so many pages.
        let pinned = unsafe {
            dvk_mm_pin(self.0.as_ptr(), address - offset, most, true, pages.as_mut_ptr())
        };
        let pinned = usize::try_from(pinned).map_err(|_| errno(pinned))?;
        pages.truncate(pinned);
        let there = (pinned as u64 * PAGE).saturating_sub(offset);
        Ok(PinnedRange { pages, offset: offset as usize, len: len.min(there) as usize })
    }
}

impl Drop for LiveMemory {
    fn drop(&mut self) {
        // SAFETY: the reference taken in `enter` is given up here, where one may sleep.
        unsafe { dvk_mm_leave(self.0.as_ptr()) }
    }
}

/// A range of some process's memory that may be written from anywhere. To be dropped where one may
/// sleep.
pub(crate) struct PinnedRange {
    pages: KVec<*mut c_void>,
    /// Of the range in the first page.
    offset: usize,
    len: usize,
}

// SAFETY: pinned pages may be used from any context.
unsafe impl Send for PinnedRange {}

impl PinnedRange {
    /// Its bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Writes `bytes` at `at`, or nothing if they do not fit.
    pub(crate) fn write(&mut self, at: usize, bytes: &[u8]) {
        if at.checked_add(bytes.len()).is_some_and(|end| end <= self.len) {
            // SAFETY: the pages are pinned, and hold the range.
            unsafe {
                dvk_pages_write(self.pages.as_ptr(), self.offset + at, bytes.as_ptr(), bytes.len())
            }
        }
    }
}

impl Drop for PinnedRange {
    fn drop(&mut self) {
        // SAFETY: the pages were pinned in `pin`, and are given up here, where one may sleep.
        unsafe { dvk_pages_unpin(self.pages.as_mut_ptr(), self.pages.len() as c_uint, true) }
    }
}
