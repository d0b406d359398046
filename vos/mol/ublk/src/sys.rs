// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rings of io_uring, and memory that the driver writes: the only place of this crate where the compiler takes our word.
//!
//! What makes it sound: commands of the control device name one piece of memory, which is never freed; commands of a device's file
//! name none; and what the driver shows is read only as bytes, by volatile reads.

use crate::abi::{self, Control};
use core::ptr;
use io_uring::{cqueue, opcode, squeue, types::Fd, IoUring};
use rustix::mm::{mmap, munmap, MapFlags, ProtFlags};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// The most bytes that go with a command to the control device.
const BUFFER_BYTES: usize = 64;

/// The control device, for one command after the other.
pub(crate) struct ControlRing {
    ring: IoUring<squeue::Entry128, cqueue::Entry>,
    file: File,
    /// It is never freed, so that the driver may have it however a command ends.
    buffer: *mut [u8; BUFFER_BYTES],
}

// SAFETY: the buffer belongs to this ring alone, and everything that reads or writes it has it by `&mut`.
unsafe impl Send for ControlRing {}

impl ControlRing {
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let ring = IoUring::builder().build(2)?;
        Ok(Self { ring, file, buffer: Box::into_raw(Box::new([0; BUFFER_BYTES])) })
    }

    /// Has a command done that takes `data` and gives something back in its place.
    pub(crate) fn command(
        &mut self,
        command: u32,
        device: u32,
        data: &mut [u8],
        number: u64,
    ) -> io::Result<i32> {
        let bytes = data.len();
        if bytes > BUFFER_BYTES {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: the buffer is there for good, has as many bytes, and no command is under way that has it: each is waited for, and
        // one that could not be waited for has broken the ring (see below).
        unsafe { ptr::copy_nonoverlapping(data.as_ptr(), self.buffer.cast(), bytes) };
        let address = if bytes == 0 { 0 } else { self.buffer.expose_provenance() as u64 };
        let control = Control { device, address, bytes: bytes as u16, data: number };
        let entry = opcode::UringCmd80::new(Fd(self.file.as_raw_fd()), command);
        let entry = entry.cmd(control.encode()).build();
        // SAFETY: the file is open as long as the ring, and the memory that is named is never freed.
        unsafe { self.ring.submission().push(&entry) }.map_err(io::Error::other)?;
        let result = loop {
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // The command may be done yet: with memory that nobody looks at any more.
                    self.buffer = Box::into_raw(Box::new([0; BUFFER_BYTES]));
                    return Err(error);
                }
            }
            if let Some(done) = self.ring.completion().next() {
                break done.result();
            }
        };
        // SAFETY: as above; the driver has written what it has to say before the command was done.
        unsafe {
            ptr::copy_nonoverlapping(self.buffer.cast_const().cast(), data.as_mut_ptr(), bytes)
        };
        if result < 0 {
            Err(io::Error::from_raw_os_error(-result))
        } else {
            Ok(result)
        }
    }
}

/// The requests of a queue of a device, for the thread that made it.
pub(crate) struct QueueRing {
    ring: IoUring<squeue::Entry, cqueue::Entry>,
    file: File,
    descriptors: *const u8,
    bytes: usize,
    queue: u16,
}

impl QueueRing {
    pub(crate) fn new(file: File, queue: u16, depth: u16) -> io::Result<Self> {
        let ring = IoUring::builder().build(depth.next_power_of_two().into())?;
        let (offset, bytes) = abi::descriptors_at(queue, depth);
        // SAFETY: a new mapping, of which nobody knows anything.
        let descriptors = unsafe {
            mmap(ptr::null_mut(), bytes, ProtFlags::READ, MapFlags::SHARED, &file, offset)?
        };
        Ok(Self { ring, file, descriptors: descriptors.cast_const().cast(), bytes, queue })
    }

    /// The file of the device.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Says something about a tag, once others are said or waited for.
    pub(crate) fn say(&mut self, command: u32, tag: u16, result: i32) -> io::Result<()> {
        let answer = abi::encode_answer(self.queue, tag, result);
        let entry = opcode::UringCmd16::new(Fd(self.file.as_raw_fd()), command).cmd(answer).build();
        let entry = entry.user_data(tag.into());
        // SAFETY: the file is open as long as the ring, and the command names no memory.
        unsafe { self.ring.submission().push(&entry) }.map_err(io::Error::other)
    }

    /// Has the driver take what was said, and waits until there are at least so many answers.
    pub(crate) fn submit(&mut self, wait_for: usize) -> io::Result<()> {
        match self.ring.submit_and_wait(wait_for) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The next answer, with its tag, if there is one.
    pub(crate) fn hear(&mut self) -> Option<(u16, i32)> {
        let done = self.ring.completion().next()?;
        Some((done.user_data() as u16, done.result()))
    }

    /// What the request of a tag is; `None` if the queue has no such tag.
    pub(crate) fn descriptor<const N: usize>(&self, tag: u16) -> Option<[u8; N]> {
        let range = abi::descriptor_at(tag);
        if range.len() != N || range.end > self.bytes {
            return None;
        }
        let mut all = [0; N];
        for (byte, at) in all.iter_mut().zip(range) {
            // SAFETY: it lies in the mapping, which is there as long as this is; the driver may write it meanwhile, and every
            // value of a byte is one.
            *byte = unsafe { self.descriptors.add(at).read_volatile() };
        }
        Some(all)
    }
}

impl Drop for QueueRing {
    fn drop(&mut self) {
        // SAFETY: the mapping is of this, and nobody has a reference to it.
        let unmapped = unsafe { munmap(self.descriptors.cast_mut().cast(), self.bytes) };
        // It cannot fail for what was mapped, and would only keep some pages.
        debug_assert!(unmapped.is_ok(), "unmapping the descriptors of a queue");
    }
}
