// SPDX-License-Identifier: MIT OR Apache-2.0
//! What no library offers as a safe function: processes, policies, shared memory, System V queues, Binder.

use anyhow::{ensure, Context, Result};
use core::sync::atomic::AtomicU32;
use dvk_bench::Policy;
use rustix::fd::{AsFd, OwnedFd};
use rustix::ioctl;
use rustix::mm::{mmap, mmap_anonymous, MapFlags, ProtFlags};
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::process::{kill_process, waitpid, Pid, Signal, WaitOptions};
use std::io;

/// A child process, which is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Child(Pid);

impl Drop for Child {
    fn drop(&mut self) {
        // It may have failed and be gone already, which its silence has told.
        let _ = kill_process(self.0, Signal::KILL);
        let _ = waitpid(Some(self.0), WaitOptions::empty());
    }
}

/// Runs `life` in a child process, which ends with it.
///
/// # Errors
/// When this process has several threads, or the system cannot start another.
pub(crate) fn fork(life: impl FnOnce() -> Result<()>) -> Result<Child> {
    let threads =
        std::fs::read_dir("/proc/self/task").context("counting this process's threads")?;
    ensure!(threads.count() == 1, "forking: this process has several threads");
    // SAFETY: there is no other thread that could hold a lock which the child would wait for.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let status = match life() {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("dvk-bench: {error:#}");
                1
            }
        };
        // SAFETY: it ends the process, and runs nothing of what the parent has registered for its own end.
        unsafe { libc::_exit(status) }
    }
    let pid = Pid::from_raw(pid).filter(|pid| pid.as_raw_nonzero().get() > 0);
    Ok(Child(pid.ok_or_else(io::Error::last_os_error).context("forking")?))
}

/// Gives this process a scheduling policy.
///
/// # Errors
/// `EPERM` without the right to real-time policies.
pub(crate) fn set_policy(policy: Policy) -> io::Result<()> {
    let (number, sched_priority) = match policy {
        Policy::Fifo => (libc::SCHED_FIFO, 50),
        Policy::Default => (libc::SCHED_OTHER, 0),
    };
    let parameters = libc::sched_param { sched_priority };
    // SAFETY: the kernel reads one `sched_param` from the address of one.
    answer(unsafe { libc::sched_setscheduler(0, number, &parameters) }).map(drop)
}

/// The processor's counter, which under QEMU's `-icount shift=0` is the number of executed instructions.
pub(crate) fn ticks() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and Linux lets programs use it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Words of 0 that this process shares with the children that it will have, for as long as they live.
///
/// # Errors
/// When memory is short.
pub(crate) fn shared_words(count: usize) -> io::Result<&'static [AtomicU32]> {
    let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
    // SAFETY: the kernel chooses the place, so nothing that was there before is replaced.
    let start = unsafe { mmap_anonymous(core::ptr::null_mut(), count * 4, protection, flags) }?;
    // SAFETY: the mapping is that long, page-aligned, of zeroes and never unmapped; whoever shares it uses it as atomics too.
    Ok(unsafe { core::slice::from_raw_parts(start.cast(), count) })
}

fn answer(result: impl Into<i64>) -> io::Result<i64> {
    let result = result.into();
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// The name of a TIPC service, as an address of sockets: bound to, it is known in the cluster.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct TipcService {
    family: u16,
    kind: u8,
    scope: i8,
    service: u32,
    instance: u32,
    /// Where to look for it: anywhere.
    domain: u32,
}

impl TipcService {
    /// `TIPC_SERVICE_ADDR` and `TIPC_CLUSTER_SCOPE` of `linux/tipc.h`.
    const SERVICE: u8 = 2;
    const CLUSTER: i8 = 2;

    pub(crate) fn new(service: u32, instance: u32) -> Self {
        let (kind, scope) = (Self::SERVICE, Self::CLUSTER);
        Self { family: libc::AF_TIPC as u16, kind, scope, service, instance, domain: 0 }
    }
}

// SAFETY: the pointer is to the value itself, which is as long as is said; its layout is that of `struct sockaddr_tipc`.
unsafe impl SocketAddrArg for TipcService {
    unsafe fn with_sockaddr<R>(
        &self,
        f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R,
    ) -> R {
        f(core::ptr::from_ref(self).cast(), size_of::<Self>() as SocketAddrLen)
    }
}

/// A System V message queue without a name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queue(i32);

#[repr(C)]
struct Text {
    kind: libc::c_long,
    bytes: [u8; 64],
}

impl Queue {
    /// A new one. It outlives the process unless it is [removed](Self::remove).
    ///
    /// # Errors
    /// `ENOSYS` if the kernel has none, `ENOSPC` if there are too many.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no memory is involved.
        answer(unsafe { libc::msgget(libc::IPC_PRIVATE, 0o600) }).map(|id| Self(id as i32))
    }

    /// Puts a message in.
    ///
    /// # Errors
    /// `EIDRM` if the queue is gone.
    pub(crate) fn send(self, bytes: &[u8; 64]) -> io::Result<()> {
        let text = Text { kind: 1, bytes: *bytes };
        // SAFETY: the kernel reads a long and 64 bytes, which is what `Text` is.
        answer(unsafe { libc::msgsnd(self.0, (&raw const text).cast(), 64, 0) }).map(drop)
    }

    /// Takes a message out.
    ///
    /// # Errors
    /// `EIDRM` if the queue is gone.
    pub(crate) fn receive(self) -> io::Result<[u8; 64]> {
        let mut text = Text { kind: 0, bytes: [0; 64] };
        // SAFETY: the kernel writes a long and at most 64 bytes, for which `Text` has room.
        let result = unsafe { libc::msgrcv(self.0, (&raw mut text).cast(), 64, 0, 0) };
        answer(result as i64)?;
        Ok(text.bytes)
    }

    /// Removes it.
    pub(crate) fn remove(self) {
        // SAFETY: no memory is involved: this command has no argument.
        unsafe { libc::msgctl(self.0, libc::IPC_RMID, core::ptr::null_mut()) };
    }
}

/// An open Binder device, and the buffer into which the driver copies what is sent to this process.
#[derive(Debug)]
pub(crate) struct Binder {
    file: OwnedFd,
    buffer: *const u8,
}

/// `struct binder_write_read`.
#[repr(C)]
#[derive(Clone, Copy)]
struct WriteRead {
    write_size: u64,
    write_consumed: u64,
    write_buffer: u64,
    read_size: u64,
    read_consumed: u64,
    read_buffer: u64,
}

const WRITE_READ: ioctl::Opcode = ioctl::opcode::read_write::<WriteRead>(b'b', 1);
const SET_CONTEXT_MANAGER: ioctl::Opcode = ioctl::opcode::write::<i32>(b'b', 7);

impl Binder {
    const BUFFER_BYTES: usize = 128 << 10;

    /// Prepares an open device for this process.
    ///
    /// # Errors
    /// Those of `mmap(2)`.
    pub(crate) fn new(file: OwnedFd) -> io::Result<Self> {
        let place = core::ptr::null_mut();
        // SAFETY: the kernel chooses the place, so nothing that was there before is replaced.
        let buffer = unsafe {
            mmap(place, Self::BUFFER_BYTES, ProtFlags::READ, MapFlags::PRIVATE, &file, 0)
        }?;
        Ok(Self { file, buffer: buffer.cast_const().cast() })
    }

    /// Becomes the process that others reach by handle 0.
    ///
    /// # Errors
    /// `EBUSY` if there is one.
    pub(crate) fn become_context_manager(&self) -> io::Result<()> {
        // SAFETY: the call takes an integer of that size by address, and writes nothing.
        let request = unsafe { ioctl::Setter::<SET_CONTEXT_MANAGER, i32>::new(0) };
        // SAFETY: as above; the file is a Binder device, or refuses the number.
        Ok(unsafe { ioctl::ioctl(self.file.as_fd(), request) }?)
    }

    /// Gives the driver commands, and waits for what it has to say, which is returned as the filled part of `read`.
    ///
    /// # Errors
    /// `EINVAL` for a command that there is not.
    pub(crate) fn exchange<'a>(&self, write: &[u8], read: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let mut block = WriteRead {
            write_size: write.len() as u64,
            write_consumed: 0,
            write_buffer: write.as_ptr() as u64,
            read_size: read.len() as u64,
            read_consumed: 0,
            read_buffer: read.as_mut_ptr() as u64,
        };
        // SAFETY: the block is the one of the call, and its buffers are as long as it says. From addresses within commands
        // the driver only reads, which harms nobody whatever they are.
        let request = unsafe { ioctl::Updater::<WRITE_READ, WriteRead>::new(&mut block) };
        // SAFETY: as above; the file is a Binder device, or refuses the number.
        unsafe { ioctl::ioctl(self.file.as_fd(), request) }?;
        Ok(&read[..(block.read_consumed as usize).min(read.len())])
    }

    /// The 64 bytes that were received at `address`, if that is within the buffer.
    pub(crate) fn received(&self, address: u64) -> Option<[u8; 64]> {
        let offset = (address as usize).checked_sub(self.buffer as usize)?;
        if offset > Self::BUFFER_BYTES - 64 {
            return None;
        }
        // SAFETY: it is within the mapping, which lives as long as the process; the driver writes there only before it
        // hands out the address.
        Some(unsafe { self.buffer.add(offset).cast::<[u8; 64]>().read_volatile() })
    }
}
