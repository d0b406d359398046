// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory that a program may have the kernel do anything to.

use super::{call_naming_memory, MemoryBlock, Request};
use core::ptr;
use dvk_abi::{ioctl, Message};
use rustix::fd::AsFd;
use rustix::io::Result;
use rustix::mm::{mmap_anonymous, mprotect, MapFlags, MprotectFlags, ProtFlags};

const PAGE: usize = 4096;

/// What programs that test the kernel let it read and write: some pages, followed by one that
/// cannot be accessed. It is never unmapped, so that a grant may outlive everything.
///
/// Calls that name memory are safe with addresses in the arena and with those at which there can
/// be none of the program.
#[derive(Debug)]
pub struct Arena {
    start: *mut u8,
    bytes: usize,
    writable: bool,
}

// SAFETY: the pages belong to nobody else, and are accessed by volatile copies of bytes only,
// which may tear but are of no type that could break.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// Maps `pages` pages of 4 KiB.
    ///
    /// # Errors
    /// Those of `mmap(2)`.
    ///
    /// # Panics
    /// If `pages` are more than an address can count.
    pub fn new(pages: usize) -> Result<&'static Self> {
        Self::map(pages, true)
    }

    /// Maps `pages` pages of 4 KiB, in which there are zeros and which nobody may write.
    ///
    /// # Errors
    /// Those of `mmap(2)`.
    ///
    /// # Panics
    /// If `pages` are more than an address can count.
    pub fn read_only(pages: usize) -> Result<&'static Self> {
        Self::map(pages, false)
    }

    fn map(pages: usize, writable: bool) -> Result<&'static Self> {
        let bytes = pages.checked_mul(PAGE).expect("that many pages have an address");
        let length = bytes.checked_add(PAGE).expect("that many pages have an address");
        // SAFETY: a new mapping, of which nobody knows anything.
        let start = unsafe {
            mmap_anonymous(ptr::null_mut(), length, ProtFlags::empty(), MapFlags::PRIVATE)?
        };
        if bytes > 0 {
            let write = if writable { MprotectFlags::WRITE } else { MprotectFlags::empty() };
            // SAFETY: the pages are those of the mapping above, except for the last.
            unsafe { mprotect(start, bytes, MprotectFlags::READ | write)? };
        }
        Ok(Box::leak(Box::new(Self { start: start.cast(), bytes, writable })))
    }

    /// Address of the first byte.
    pub fn address(&self) -> u64 {
        self.start.expose_provenance() as u64
    }

    /// Bytes that can be accessed; from there on, as many as a page has cannot.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Reads from byte `offset` on. What the kernel writes meanwhile may be seen in part.
    ///
    /// # Panics
    /// Beyond the end.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        self.check(offset, into.len());
        for (at, byte) in into.iter_mut().enumerate() {
            // SAFETY: checked above to be within the pages that can be accessed.
            *byte = unsafe { self.start.add(offset + at).read_volatile() };
        }
    }

    /// Writes from byte `offset` on.
    ///
    /// # Panics
    /// Beyond the end, and if it is read-only.
    pub fn write(&self, offset: usize, from: &[u8]) {
        assert!(self.writable, "the arena is read-only");
        self.check(offset, from.len());
        for (at, byte) in from.iter().enumerate() {
            // SAFETY: checked above to be within the pages that can be accessed.
            unsafe { self.start.add(offset + at).write_volatile(*byte) };
        }
    }

    /// Makes call `OPCODE` with `block`, which names memory of the arena, or none.
    ///
    /// # Errors
    /// Those of the call.
    ///
    /// # Panics
    /// If the block names memory that may be the program's, outside of the arena.
    pub fn call<const OPCODE: u32, B: MemoryBlock>(
        &self,
        fd: impl AsFd,
        block: &mut B,
    ) -> Result<()> {
        let (address, len) = (block.address(), block.bytes());
        assert!(
            self.is_harmless(address, len),
            "{len} bytes at {address:#x} are not the arena's and may be somebody's"
        );
        // SAFETY: the memory is the arena's, which is never unmapped and only accessed in ways
        // that others may interfere with; or there is none: the page at 0 is never mapped, nor is
        // anything of a program beyond the lower half of the address space.
        unsafe { call_naming_memory::<OPCODE, B>(fd, block) }
    }

    /// Makes call `OPCODE` with a block in the first page of the arena, which is read-only from
    /// here on: the kernel can read the block and not write it.
    ///
    /// # Errors
    /// Those of `mprotect(2)`; `EFAULT`, if the call has anything to write; else that of the call.
    ///
    /// # Panics
    /// If the arena has no page.
    pub fn call_read_only<const OPCODE: u32>(
        &self,
        fd: impl AsFd,
        block: &ioctl::Exchange,
    ) -> Result<()> {
        self.check(0, PAGE);
        // SAFETY: the page is the arena's. Writing to it later, by `write`, ends the program.
        unsafe { mprotect(self.start.cast(), PAGE, MprotectFlags::READ | MprotectFlags::WRITE)? };
        // SAFETY: the page has room for a block, is aligned, and nobody has a reference to it.
        unsafe { self.start.cast::<ioctl::Exchange>().write_volatile(*block) };
        // SAFETY: as above.
        unsafe { mprotect(self.start.cast(), PAGE, MprotectFlags::READ)? };
        let request = Request { opcode: OPCODE, block: self.start.cast() };
        // SAFETY: the block is in the arena, where the kernel may do anything.
        unsafe { rustix::ioctl::ioctl(fd, request) }
    }

    /// Makes call `OPCODE` with a block that lies half in the first page of the arena and half in the
    /// second: the message, which is zeros then, at the end of the first. In a new arena the kernel
    /// finds the page with the message never written; it can read it, and has to make it to write it.
    /// Returns the block as the call left it.
    ///
    /// # Errors
    /// Those of the call.
    ///
    /// # Panics
    /// If the arena has less than two pages.
    pub fn call_across<const OPCODE: u32>(
        &self,
        fd: impl AsFd,
        block: &ioctl::Exchange,
    ) -> Result<ioctl::Exchange> {
        const { assert!(core::mem::offset_of!(ioctl::Exchange, peer) == size_of::<Message>()) };
        self.check(0, 2 * PAGE);
        assert!(self.writable, "the arena is read-only");
        // SAFETY: the place is in the arena.
        let place =
            unsafe { self.start.add(PAGE - size_of::<Message>()) }.cast::<ioctl::Exchange>();
        // SAFETY: there is room for a block, it is aligned, and nobody has a reference to it.
        unsafe {
            (&raw mut (*place).peer).write_volatile(block.peer);
            (&raw mut (*place).from).write_volatile(block.from);
            (&raw mut (*place).timeout_ns).write_volatile(block.timeout_ns);
            (&raw mut (*place).how).write_volatile(block.how);
            (&raw mut (*place).flags).write_volatile(block.flags);
        }
        let request = Request { opcode: OPCODE, block: place.cast() };
        // SAFETY: the block is in the arena, where the kernel may do anything.
        unsafe { rustix::ioctl::ioctl(fd, request)? };
        // SAFETY: as above; a block is of integers.
        Ok(unsafe { place.read_volatile() })
    }

    /// Whether the range is the arena's, or has no byte that a program can have. The kernel may
    /// be told of `u64::MAX` bytes, and stop only where something is missing: so a range that
    /// begins in the arena must not reach further than the page that cannot be accessed.
    fn is_harmless(&self, address: u64, len: u64) -> bool {
        let (start, end) = (self.address(), self.address() + (self.bytes + PAGE) as u64);
        let stop = address.checked_add(len);
        (address >= start && stop.is_some_and(|stop| stop <= end))
            || address >= 1 << 63
            || stop.is_some_and(|stop| stop <= PAGE as u64)
    }

    fn check(&self, offset: usize, len: usize) {
        let end = offset.checked_add(len);
        assert!(
            end.is_some_and(|end| end <= self.bytes),
            "{len} bytes from {offset} are not within {} bytes",
            self.bytes
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dvk_abi::ioctl::{Grant, GRANT};

    #[test]
    fn what_is_written_is_read() {
        let arena = Arena::new(2).unwrap();
        assert_eq!(arena.bytes(), 8192);
        arena.write(4094, &[1, 2, 3]);
        let mut read = [9; 5];
        arena.read(4093, &mut read);
        assert_eq!(read, [0, 1, 2, 3, 0]);
    }

    #[test]
    #[should_panic(expected = "read-only")]
    fn nobody_writes_to_read_only_memory() {
        let arena = Arena::read_only(1).unwrap();
        let mut read = [1; 4];
        arena.read(4092, &mut read);
        assert_eq!(read, [0; 4]);
        arena.write(0, &[1]);
    }

    #[test]
    #[should_panic(expected = "are not within 4096 bytes")]
    fn there_is_nothing_beyond_its_end() {
        Arena::new(1).unwrap().write(4095, &[1, 2]);
    }

    #[test]
    fn only_memory_of_the_arena_is_named() {
        let arena = Arena::new(1).unwrap();
        let start = arena.address();
        for (address, len) in
            [(start, 8192), (start + 8192, 0), (0, 4096), (1 << 63, 1), (u64::MAX, u64::MAX)]
        {
            assert!(arena.is_harmless(address, len), "{address:#x}, {len}");
        }
        for (address, len) in [(start, 8193), (start - 1, 1), (start, u64::MAX), (0, 4097)] {
            assert!(!arena.is_harmless(address, len), "{address:#x}, {len}");
        }
        let file = std::fs::File::open("/dev/null").unwrap();
        let mut block = Grant { address: start, len: 4096, ..Grant::default() };
        let called = arena.call::<GRANT, _>(&file, &mut block);
        assert_eq!(called, Err(rustix::io::Errno::NOTTY));
    }
}
