// SPDX-License-Identifier: MIT OR Apache-2.0
//! The system calls that no safe library has.

#![allow(unsafe_code)]

use std::ffi::{c_int, CStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::ioctl::{ioctl, opcode, IntegerSetter, Setter, Updater};

/// Loads a kernel with its initial root, to be started instead of a reboot: `kexec_file_load(2)`.
pub(crate) fn kexec_file_load(
    kernel: BorrowedFd<'_>,
    initramfs: BorrowedFd<'_>,
    command_line: &CStr,
) -> io::Result<()> {
    let line = command_line.to_bytes_with_nul();
    let no_flags: libc::c_ulong = 0;
    // SAFETY: the kernel reads two open files, and `line.len()` bytes from `line`, which outlives the call and ends with a zero byte.
    let result = unsafe {
        libc::syscall(
            libc::SYS_kexec_file_load,
            kernel.as_raw_fd(),
            initramfs.as_raw_fd(),
            line.len(),
            line.as_ptr(),
            no_flags,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What a loop device is to be: `struct loop_config` with its `struct loop_info64`, of `linux/loop.h`.
#[repr(C)]
struct LoopConfig {
    file: c_int,
    block_bytes: u32,
    /// Device, inode, device number, offset and limit, the number of the loop device, and three fields of encryption: none of it is asked for.
    unused: [u64; 6],
    encryption_key_bytes: u32,
    flags: u32,
    /// Names, key, and reserved.
    rest: [u8; 64 + 64 + 32 + 16 + 64],
}

const _: () = assert!(size_of::<LoopConfig>() == 304);
const _: () = assert!(std::mem::offset_of!(LoopConfig, flags) == 60);

/// Makes a loop device of a file, to be read only, and free again once nobody has it open or mounted: `LOOP_CTL_GET_FREE` and
/// `LOOP_CONFIGURE` of `linux/loop.h`. What is mounted from it reads nothing ahead (`BLKRASET`): a compressed file system unpacks a whole
/// block anyway, and around a page that a program needs there are mostly those that it does not. Returns the device and its number.
pub(crate) fn loop_device(file: BorrowedFd<'_>) -> io::Result<(File, c_int)> {
    const GET_FREE: libc::Ioctl = 0x4c82;
    const CONFIGURE: rustix::ioctl::Opcode = 0x4c0a;
    const SET_READ_AHEAD: rustix::ioctl::Opcode = opcode::none(0x12, 98);
    const READ_ONLY: u32 = 1;
    const AUTOCLEAR: u32 = 4;
    let control = File::open("/dev/loop-control")?;
    // SAFETY: the call has no argument; it returns a number, or an error.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), GET_FREE) };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    let device = File::open(format!("/dev/loop{number}"))?;
    let config = LoopConfig {
        file: file.as_raw_fd(),
        block_bytes: 0,
        unused: [0; 6],
        encryption_key_bytes: 0,
        flags: READ_ONLY | AUTOCLEAR,
        rest: [0; 240],
    };
    // SAFETY: the call reads a `struct loop_config`, which `LoopConfig` is, and takes its own reference to the file.
    unsafe { ioctl(&device, Setter::<CONFIGURE, LoopConfig>::new(config)) }?;
    // SAFETY: the call takes a number of sectors, and no pointer.
    unsafe { ioctl(&device, IntegerSetter::<SET_READ_AHEAD>::new_usize(0)) }?;
    Ok((device, number))
}

/// Sets after how many seconds a watchdog that is not fed restarts the machine; returns what it makes of that: `WDIOC_SETTIMEOUT` of
/// `linux/watchdog.h`.
pub(crate) fn set_watchdog_timeout(watchdog: &File, seconds: c_int) -> io::Result<c_int> {
    const SET_TIMEOUT: rustix::ioctl::Opcode = opcode::read_write::<c_int>(b'W', 6);
    let mut value = seconds;
    // SAFETY: the call reads one `int` and writes one; it is for watchdogs, and other files refuse it.
    unsafe { ioctl(watchdog, Updater::<SET_TIMEOUT, c_int>::new(&mut value)) }?;
    Ok(value)
}
